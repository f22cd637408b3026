"""`tierwise export`: accepted answers for a fine-tune, or recorded outcomes for a replay."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
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


DEFAULT_VALIDATION = 0.1
_OUTCOMES = "Outcomes for replay"  # the panel of the options about them


class Score(StrEnum):
    """The meaning of a score in a file of outcomes."""

    right = "right"
    checks = "checks"


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
    ] = DEFAULT_VALIDATION,
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
    outcomes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write recorded outcomes for `tierwise replay` instead: .csv or .csv.gz.",
            rich_help_panel=_OUTCOMES,
        ),
    ] = None,
    scored_by: Annotated[
        Score,
        typer.Option(
            help="A score is 1 for the right answer, or for one that passed its checks.",
            rich_help_panel=_OUTCOMES,
        ),
    ] = Score.right,
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

    With `--outcomes`, it writes the scores and costs of the documents that several models answered
    with today's version of the prompt, without any text. `--model` names them; default: all that
    answered. Right answers are those of golden rows, reviews and labels. The other options are for
    training data alone.
    """
    if outcomes is not None:
        # True: given, or at least different from its default.
        training_options = {
            "--reviewed": not accepted,
            "--tier": bool(tier),
            "--sensitivity-max": sensitivity_max != "internal",
            "--in-house": in_house,
            "--source": bool(source),
            "--validation": validation != DEFAULT_VALIDATION,
            "--output": output is not None,
        }
        _refuse_training_options(training_options)
        _export_outcomes(
            step, outcomes, model or (), scored_by, force=force, as_json=as_json
        )
        return
    # Imported here, as `--outcomes` needs none of it.
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
    # Refused before the ledger is read, and not after the work is done.
    if not force:
        refuse_to_overwrite(folder)
    with open_ledger(project) as ledger:
        collected = collect(project, ledger, step, chosen, validation=validation)
    # A script must not start a fine-tune without data, hence the exit code.
    if not collected.examples:
        typer.echo(f"nothing to export for {step}; nothing was written", err=True)
        _print_left_out(collected.left_out)
        raise typer.Exit(1)
    # The policy's hash goes on record: guards decided which documents may leave the house.
    summary = write_export(collected, chosen, project.policy(os.environ).hash, folder)
    if as_json:
        print_json(summary)
    else:
        _print(summary, folder)
    _print_left_out(collected.left_out)


def _refuse_training_options(used: Mapping[str, bool]) -> None:
    """Raise Misuse for an option that would have no effect on outcomes."""
    for name, is_used in used.items():
        if is_used:
            raise Misuse(f"{name} is for training data; leave it out with --outcomes")


def _export_outcomes(
    step: str,
    path: Path,
    models: Sequence[str],
    scored_by: Score,
    *,
    force: bool,
    as_json: bool,
) -> None:
    from tierwise.export.outcomes import (
        collect_outcomes,
        headline,
        summary,
        write_outcomes,
    )

    project = find_project()
    with open_ledger(project) as ledger:
        collected = collect_outcomes(
            project, ledger, step, models=models, scored_by=scored_by.value
        )
    if not collected.rows:
        typer.echo(f"no outcomes of {step}; nothing was written", err=True)
        _print_left_out(collected.left_out)
        raise typer.Exit(1)
    write_outcomes(collected, path, force=force)
    if as_json:
        print_json({**summary(collected), "file": str(path)})
    else:
        typer.echo(f"{path}: {headline(collected)}")
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
        # The summary has each file's count under the file's name without its ending.
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
    # On stderr, so that --json stays JSON.
    if left_out:
        typer.echo("documents left out:", err=True)
    for reason, count in left_out.items():
        typer.echo(f"  {count:>6}  {reason}", err=True)
