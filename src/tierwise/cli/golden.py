"""`tierwise golden add`: what persons decided becomes labelled examples."""

from __future__ import annotations

from typing import Annotated

import typer

from tierwise.cli.options import command_group
from tierwise.errors import Misuse

golden = command_group("Turn reviewed answers into labelled examples.")


@golden.callback()
def _group() -> None:
    """Keeps `add` a command of its own."""


@golden.command("add")
def add(
    run: Annotated[
        str, typer.Argument(help="A run's id, the beginning of one, or `latest`.")
    ] = "latest",
    step: Annotated[str | None, typer.Option("--step", help="Only this step.")] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="`golden`: measured on; `examples`: shown to models that are taught."
        ),
    ] = "golden",
    include_confidential: Annotated[
        bool,
        typer.Option(
            "--include-confidential", help="Also write confidential and restricted texts."
        ),
    ] = False,
) -> None:
    """Add the answers that persons approved or edited in a run to golden/STEP.jsonl.

    A text that stands in golden/STEP.jsonl or golden/STEP-examples.jsonl already is left out: what a model is shown
    must not be what it is measured on. The files hold the documents' texts and are meant for version control, so
    confidential ones stay out.
    """
    from tierwise.ledger import Ledger
    from tierwise.project import Project
    from tierwise.review.golden_rows import add_golden_rows

    if to not in ("golden", "examples"):
        raise Misuse(f"--to '{to}' is neither golden nor examples")
    project = Project.find()
    with Ledger.open(project.ledger_url, root=project.root) as ledger:
        row = ledger.resolve_run(run)
        added = add_golden_rows(
            ledger,
            project,
            row,
            step,
            suffix="" if to == "golden" else "-examples",
            confidential=include_confidential,
        )
    for path, number in added.written.items():
        typer.echo(f"{number} added to {path.relative_to(project.root)}")
    if not added.written:
        typer.echo("nothing was added")
    for document, why in added.left_out:
        typer.echo(f"left out {document}: {why}", err=True)
