"""`tierwise golden`: reviewed answers as labelled examples."""

from __future__ import annotations

from typing import Annotated

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import OnlyStep, RunArgument, command_group
from tierwise.errors import Misuse

golden = command_group("Turn reviewed answers into labelled examples.")


@golden.callback()
def _group() -> None:
    """Keep `add` a command of its own, although it is the only one."""


@golden.command("add")
def add(
    run: RunArgument = "latest",
    step: OnlyStep = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="SET",
            help="`golden`, for measuring, or `examples`, for few-shot prompts and training.",
        ),
    ] = "golden",
    include_confidential: Annotated[
        bool,
        typer.Option(
            "--include-confidential",
            help="Also write confidential and restricted texts.",
        ),
    ] = False,
) -> None:
    """Add the approved and edited answers of a run to golden/STEP.jsonl.

    Skips a text that is in golden/STEP.jsonl or golden/STEP-examples.jsonl already: a model must
    not be measured on an example from its own prompt. The files contain the documents' texts and
    belong in version control, so confidential ones are left out by default.

    A row for measuring has the outcomes of the document's earlier steps, too. An answer is left out
    if every answer would pass as right by it, or if the step's measure does not read it.
    """
    from tierwise.review.golden_rows import add_golden_rows

    if to not in ("golden", "examples"):
        raise Misuse(f"--to '{to}' is neither golden nor examples")
    project = find_project()
    with open_ledger(project) as ledger:
        added = add_golden_rows(
            ledger,
            project,
            ledger.runs.resolve(run),
            step,
            suffix="" if to == "golden" else "-examples",
            confidential=include_confidential,
        )
    for path, number in added.written.items():
        typer.echo(f"{number} added to {path.relative_to(project.root)}")
    if not added.written:
        typer.echo("nothing was added")
    for document, reason in added.left_out:
        typer.echo(f"left out {document}: {reason}", err=True)
