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
    """Two commands: answers of a run, and labelled samples."""


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


@golden.command("samples")
def samples(
    step: Annotated[
        str, typer.Argument(metavar="STEP", help="A step whose samples are labelled.")
    ],
    answer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=LABEL",
            help="The right label of a sample of which neither answer is right; may be repeated.",
        ),
    ] = None,
    include_confidential: Annotated[
        bool,
        typer.Option(
            "--include-confidential",
            help="Also write confidential and restricted texts.",
        ),
    ] = False,
) -> None:
    """Write the labelled samples of a step to golden/STEP-sampled.jsonl.

    Samples are drawn by chance from production, so what people say of them measures correctness
    without bias: also of a classifier that so far only agrees with a teacher. Only samples marked
    `counts` become rows, in the order of recording, up to the first without a label. None is left
    out because it is hard: where neither answer is right, give the right one by `--answer`.

    Then certify on them: `tierwise certify STEP --golden golden/STEP-sampled.jsonl`.
    """
    from tierwise.review.sampled_rows import write_sampled_rows

    project = find_project()
    given = {}
    for text in answer or []:
        item, mark, label = text.partition("=")
        if not mark or not item or not label:
            raise Misuse(f"--answer '{text}' is not ID=LABEL")
        given[item] = label
    with open_ledger(project) as ledger:
        written = write_sampled_rows(
            ledger, project, step, given, confidential=include_confidential
        )
    path = written.path.relative_to(project.root)
    for document, reason in written.left_out:
        typer.echo(f"left out {document}: {reason}", err=True)
    if not written.rows:
        typer.echo("nothing was written")
        return
    typer.echo(f"{written.rows} rows in {path}")
    if written.waiting:
        typer.echo(
            f"{written.waiting} more counted samples follow once the first of them is labelled: "
            "tierwise label"
        )
    typer.echo(f"Next: tierwise certify {step} --golden {path}")
