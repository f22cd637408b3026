"""`tierwise export`: accepted answers as training data for a fine-tune."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import print_json
from tierwise.errors import Misuse, UnknownName

if TYPE_CHECKING:
    from tierwise.project import Project


def export(
    step: Annotated[str, typer.Option("--step", help="A step in tasks/, such as draft.")],
    accepted: Annotated[
        bool,
        typer.Option(
            "--accepted/--reviewed",
            help="All accepted answers, or only those that a person found right.",
        ),
    ] = True,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Only answers of this model; may be repeated."),
    ] = None,
    tier: Annotated[
        list[str] | None, typer.Option(help="Only answers of this tier; may be repeated.")
    ] = None,
    sensitivity_max: Annotated[
        str,
        typer.Option(
            help="Leave out what is more sensitive: public < internal < confidential < restricted."
        ),
    ] = "internal",
    in_house: Annotated[
        bool,
        typer.Option(
            "--in-house", help="Take what guards keep in the house too: the training happens there."
        ),
    ] = False,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            help="Where the documents are, if the ledger keeps no texts; default: where the runs read them."
        ),
    ] = None,
    validation: Annotated[
        float, typer.Option(help="The share of the documents to hold out.")
    ] = 0.1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A folder; default: out/export/STEP.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an earlier export.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print export.json.")] = False,
) -> None:
    """Export accepted answers as training data.

    A document is there once: with a person's answer where there is one, else with the newest accepted one. What stands
    in golden/, which models are certified on, is never there. What is left out is counted by the reason. The prompt is
    today's, without examples: that is how the tuned model is to be asked.

    A fine-tuned model is one more entry in the catalog, to be certified like any other: see docs/training.md. Some
    providers' terms forbid training other models on their answers: --model and --tier choose whose answers are taken.
    """
    from tierwise.cli.opening import open_ledger
    from tierwise.export.collect import ExportFilter, collect
    from tierwise.export.files import refuse_to_overwrite, write_export
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.project import Project

    project = Project.find()
    prepare_prefect(project.root)
    wanted = ExportFilter(
        reviewed=not accepted,
        models=tuple(model or ()),
        tiers=tuple(tier or ()),
        sensitivity_max=_sensitivity(sensitivity_max),
        in_house=in_house,
        sources=tuple(source or ()),
    )
    _check(project, wanted.tiers, wanted.sources, validation)
    folder = output or project.root / "out" / "export" / step
    if not force:
        refuse_to_overwrite(folder)
    with open_ledger() as ledger:
        found = collect(project, ledger, step, wanted, validation=validation)
    if not found.examples:
        typer.echo(f"nothing to export for {step}; nothing was written", err=True)
        _tell_left_out(found.left_out)
        raise typer.Exit(1)
    told = write_export(found, wanted, project.policy(os.environ).hash, folder)
    if as_json:
        print_json(told)
    else:
        _print(told, folder)
    _tell_left_out(found.left_out)


def _sensitivity(word: str) -> Any:
    from tierwise.records import SENSITIVITIES

    if word not in SENSITIVITIES:
        raise UnknownName("sensitivity", word, SENSITIVITIES)
    return word


def _check(
    project: Project, tiers: tuple[str, ...], sources: tuple[Path, ...], validation: float
) -> None:
    if not 0 <= validation < 1:
        raise Misuse(
            f"--validation {validation:g} is no share of the documents; write 0.1 for one in ten"
        )
    for name in tiers:
        if name not in project.catalog.tiers:
            raise UnknownName("tier", name, project.catalog.tiers)
    for path in sources:
        if not path.exists():
            raise Misuse(f"--source {path}: there is no such folder or file")


def _print(told: dict[str, Any], folder: Path) -> None:
    for name in told["files"]:
        count = told[name.partition(".")[0]]
        typer.echo(f"{folder / name}: {count} {'example' if count == 1 else 'examples'}")
    typer.echo(f"{folder / 'export.json'}: what they are made of")
    typer.echo(f"prompt: {told['prompt']}")
    typer.echo(f"answers of: {_counts(told['answers_of'])}")
    if told["persons"]:
        typer.echo(f"of them by a person: {_counts(told['persons'])}")
    if not told["validation"]:
        typer.echo("no document was held out: there are too few for this share", err=True)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _tell_left_out(left_out: Any) -> None:
    if left_out:
        typer.echo("documents left out:", err=True)
    for reason, count in left_out.items():
        typer.echo(f"  {count:>6}  {reason}", err=True)
