"""`tierwise export`: accepted answers as training data for a fine-tune."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json
from tierwise.cli.render.lines import counts_text
from tierwise.errors import Misuse, UnknownName
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.project import Project


def export(
    step: Annotated[
        str,
        typer.Option("--step", metavar="STEP", help="A step in tasks/, such as draft."),
    ],
    accepted: Annotated[
        bool,
        typer.Option(
            "--accepted/--reviewed",
            help="All accepted answers, or the reviewed ones only.",
        ),
    ] = True,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Only this model's answers; may be repeated.",
        ),
    ] = None,
    tier: Annotated[
        list[str] | None,
        typer.Option(metavar="TIER", help="Only this tier's answers; may be repeated."),
    ] = None,
    sensitivity_max: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="The highest sensitivity to include: public, internal, confidential or "
            "restricted.",
        ),
    ] = "internal",
    in_house: Annotated[
        bool,
        typer.Option(
            "--in-house",
            help="Include documents that guards keep in the house, to train there.",
        ),
    ] = False,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="The documents' folder, if the ledger stores no texts; repeatable.",
        ),
    ] = None,
    validation: Annotated[
        float, typer.Option(metavar="SHARE", help="The share of documents to hold out.")
    ] = 0.1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="A folder; default: out/export/STEP.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite an earlier export.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Export accepted answers as training data.

    Writes train.jsonl and validation.jsonl in the chat format for a fine-tune. Each document occurs
    once, with a reviewer's answer if there is one, or else the newest accepted answer. Examples in
    golden/, which models are measured on, are never exported. The command reports how many
    documents were left out, by reason. The prompt is today's, without few-shot examples: the tuned
    model is to be asked with the same prompt.

    A fine-tuned model becomes one more entry in the catalog, to be certified like any other: see
    docs/training.md. Some providers' terms forbid training other models on their answers; --model
    and --tier select whose answers are exported.
    """
    from tierwise.export.collect import ExportFilter, collect
    from tierwise.export.files import refuse_to_overwrite, write_export

    project = find_project()
    chosen = ExportFilter(
        reviewed=not accepted,
        models=tuple(model or ()),
        tiers=tuple(tier or ()),
        sensitivity_max=_sensitivity(sensitivity_max),
        in_house=in_house,
        sources=tuple(source or ()),
    )
    _check(project, chosen.tiers, chosen.sources, validation)
    folder = output or project.root / "out" / "export" / step
    if not force:
        refuse_to_overwrite(folder)
    with open_ledger(project) as ledger:
        collected = collect(project, ledger, step, chosen, validation=validation)
    if not collected.examples:
        typer.echo(f"nothing to export for {step}; nothing was written", err=True)
        _print_left_out(collected.left_out)
        raise typer.Exit(1)
    summary = write_export(collected, chosen, project.policy(os.environ).hash, folder)
    if as_json:
        print_json(summary)
    else:
        _print(summary, folder)
    _print_left_out(collected.left_out)


def _sensitivity(word: str) -> Any:
    from tierwise.records import SENSITIVITIES

    if word not in SENSITIVITIES:
        raise UnknownName("sensitivity", word, SENSITIVITIES)
    return word


def _check(
    project: Project,
    tiers: tuple[str, ...],
    sources: tuple[Path, ...],
    validation: float,
) -> None:
    """Raise Misuse for a wrong share, an unknown tier or a missing source."""
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


def _print(summary: dict[str, Any], folder: Path) -> None:
    for name in summary["files"]:
        count = summary[name.partition(".")[0]]
        typer.echo(f"{folder / name}: {plural(count, 'example')}")
    typer.echo(f"{folder / 'export.json'}: what they are made of")
    typer.echo(f"prompt: {summary['prompt']}")
    typer.echo(f"answers of: {counts_text(summary['answers_of'])}")
    if summary["persons"]:
        typer.echo(f"of them by a person: {counts_text(summary['persons'])}")
    if not summary["validation"]:
        typer.echo(
            "no document was held out: there are too few for this share", err=True
        )


def _print_left_out(left_out: Mapping[str, int]) -> None:
    if left_out:
        typer.echo("documents left out:", err=True)
    for reason, count in left_out.items():
        typer.echo(f"  {count:>6}  {reason}", err=True)
