"""`tierwise certify`: measure models on a step's golden set and write down what that proves."""

from __future__ import annotations

import os
import textwrap
import time
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import console, print_json, print_table
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierwise.engine import Engine
    from tierwise.evidence.certify import CandidateResult, Evaluation


class Threshold(StrEnum):
    """What to do with models that tell how sure they are."""

    auto = "auto"
    fit = "fit"
    none = "none"


def certify(
    step: Annotated[str, typer.Argument(help="A step in tasks/, such as classify.")],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            "-m",
            help="A model, or a chain such as 'qwen-0.5b > qwen-1.5b'; may be repeated.",
        ),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(help="Labelled examples, .jsonl or .csv; default golden/STEP.jsonl."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many examples.")
    ] = None,
    threshold: Annotated[
        Threshold,
        typer.Option(
            help="Whether a model that tells its confidence may hand on what it is unsure of: `auto` where it misses "
            "the floor otherwise, `fit` always, `none` never."
        ),
    ] = Threshold.auto,
    judge: Annotated[
        str | None, typer.Option(help="The stronger model that goes through the step's rubric.")
    ] = None,
    to_label: Annotated[
        int,
        typer.Option(
            min=0, help="Put so many answers into golden/STEP-labels.jsonl, for a person to label."
        ),
    ] = 0,
    budget_usd: Annotated[
        float | None, typer.Option(min=0, help="Never spend more than this in all.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask again for answers that were paid before.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with everything that was measured.")
    ] = False,
) -> None:
    """Measure models and write their certificates.

    Runs through the same prompts, checks, repairs and gateway as production, and pays for each call once.
    Without `--models`, all that are available and have a price are compared, each alone.

    A step whose right answers need reading (`correct=rubric(…)`) takes `--judge`. A judge never certifies
    alone: `--to-label 60` writes answers for a person to label, and the judge is held against those labels.
    """
    from tierwise.engine import Engine
    from tierwise.evidence.certify import Evaluation, compare, load_golden_step, with_lower_bounds
    from tierwise.evidence.judge import add_labels, load_labels
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.orchestrate.secrets import variables
    from tierwise.policy.certificates import save_certificates
    from tierwise.project import CERTIFICATES, Project

    project = Project.find()
    prepare_prefect(project.root)
    with Engine(project, variables(project)) as engine:
        golden_step = load_golden_step(project, step, golden, limit=limit)
        labels = golden_step.golden.path.with_name(f"{golden_step.golden.path.stem}-labels.jsonl")
        candidates = _candidates(engine, step, models)
        with _Bar() as progress:
            evaluation = Evaluation(
                engine=engine,
                step=golden_step.step,
                golden=golden_step.golden,
                parameters=golden_step.parameters,
                judge=judge,
                labels=load_labels(labels),
                budget_usd=None if budget_usd is None else Decimal(str(budget_usd)),
                fresh_since=time.time() if fresh else None,
                on_progress=progress,
            )
            _ask(evaluation, candidates, threshold.value, yes=yes)
            known = project.certificates.certificates
            results = compare(
                evaluation, candidates, thresholds=threshold.value, earlier=known, to_label=to_label
            )
        proofs = [result.certificate for result in results if result.certificate]
        save_certificates(
            project.root / CERTIFICATES, [*with_lower_bounds(evaluation, known, results), *proofs]
        )
        new = (
            add_labels(labels, (label for result in results for label in result.to_label))
            if to_label
            else 0
        )
        rows = [_row(evaluation, result) for result in results]
    if as_json:
        print_json(rows)
        return
    _print(evaluation, results, rows)
    if to_label:
        typer.echo(f"{new} answers to label were added to {labels.name}: fill in `right` and `by`")
    number = (
        f"{len(proofs)} certificate{'' if len(proofs) == 1 else 's'}"
        if proofs
        else "No certificate"
    )
    typer.echo(f"{number} written to {CERTIFICATES}")


def _candidates(engine: Engine, step: str, models: list[str] | None) -> list[tuple[str, ...]]:
    """The chains that were asked for, else every model that can do the step here and has a price, alone."""
    if models:
        return list(
            dict.fromkeys(tuple(part.strip() for part in chain.split(">")) for chain in models)
        )
    policy = engine.policy
    found = [
        m
        for m in policy.catalog.models.values()
        if policy.unusable(m, step) is None and m.price != "unknown"
    ]
    if not found:
        raise Misuse("no model is available and has a price; `tierwise models` says what to set")
    return [(model.name,) for model in found]


def _ask(
    evaluation: Evaluation, candidates: list[tuple[str, ...]], thresholds: Any, *, yes: bool
) -> None:
    """Say what it can cost at most, and go on only if that is wanted."""
    from tierwise.evidence.certify import check_measurable, estimate_cost
    from tierwise.text.amounts import usd

    check_measurable(evaluation, candidates, thresholds)
    names = list(dict.fromkeys(name for chain in candidates for name in chain))
    most = estimate_cost(evaluation, names)
    models = f"{len(names)} model{'s' if len(names) > 1 else ''}"
    text = f"{models} x {len(evaluation.golden.examples)} examples: at most {usd(most.usd)}"
    text += (
        f" and what {', '.join(most.unknown)} cost{'s' if len(most.unknown) == 1 else ''}"
        if most.unknown
        else ""
    )
    limit = evaluation.budget_usd
    text += f"; stops at {usd(limit)}" if limit is not None else ""
    typer.echo(text, err=True)
    if not (yes or os.environ.get("TIERWISE_YES") == "1"):
        typer.confirm("Go on?", abort=True, err=True)


def _row(evaluation: Evaluation, result: CandidateResult) -> dict[str, Any]:
    """Everything that was measured of one candidate, as plain data."""
    found = result.measurement
    floor = evaluation.floor
    bound = found.bound(result.compared)
    return {
        "candidate": found.name,
        "models": list(found.models),
        "threshold": found.threshold,
        "coverage": found.coverage,
        "n": found.n,
        "right": found.n - found.errors,
        "no_answer": found.deferred,
        "pass_rate": 1 - found.errors / found.n if found.n else None,
        "bound": bound,
        "compared": result.compared,
        "floor": floor,
        "capable": floor is not None and bound >= floor,
        "certified": result.certificate is not None,
        "cost_a_document_usd": found.mean_cost,
        "mean_usage": {
            name: usage.model_dump() for name, usage in (found.mean_usage or {}).items()
        },
        "latency_p50_s": found.latency_p50_s,
        "judged_by": found.judged and found.judged.by,
        "unscored": found.judged and found.judged.unscored,
        "human_labels": found.judged and found.judged.human_labels,
        "false_passes": found.judged and found.judged.false_passes,
        "wrong": list(found.wrong),
        "no_answer_because": found.no_answer,
        "says": _says(evaluation, result),
    }


def _print(
    evaluation: Evaluation, results: Sequence[CandidateResult], rows: Sequence[dict[str, Any]]
) -> None:
    """A table to compare by, and under it a sentence for each candidate."""
    from tierwise.policy.certificates import shortened
    from tierwise.text.amounts import usd

    floor = "no floor" if evaluation.floor is None else f"floor {evaluation.floor:g}"
    among = f", {results[0].compared} compared" if results[0].compared > 1 else ""
    golden = evaluation.golden
    size = len(golden.examples)
    title = f"{evaluation.step.name} on {golden.path.name}: {size} examples, {floor}{among}"
    cells = [
        {
            "candidate": row["candidate"],
            "keeps": "" if row["coverage"] is None else f"{row['coverage']:.0%}",
            "right": f"{row['right']} of {row['n']}",
            "proves": shortened(row["bound"]),
            "capable": "yes" if row["capable"] else "no",
            "cost a document": "unknown"
            if row["cost_a_document_usd"] is None
            else usd(row["cost_a_document_usd"]),
            "p50": f"{row['latency_p50_s']:.2f} s",
        }
        for row in rows
    ]
    print_table(cells, title=title)
    for row, result in zip(rows, results, strict=True):
        if not row["capable"] or result.note:
            typer.echo(f"{row['candidate']}: {row['says']}")


def _says(evaluation: Evaluation, result: CandidateResult) -> str:
    """What the result means, and what to do next."""
    found = result.measurement
    floor = evaluation.floor
    parts = [_proof(evaluation, result)]
    if found.threshold is not None and result.certificate is None:
        parts.append("so the certificate is for the candidate without a threshold")
    if result.note:
        parts.append(result.note)
    if found.no_answer:
        parts.append(
            f"{found.deferred} without an answer, most often: {textwrap.shorten(found.no_answer, 120)}"
        )
    if floor is None:
        parts.append(f"no floor is set for {evaluation.step.name} in rules.yaml")
    return ". ".join(parts)


def _proof(evaluation: Evaluation, result: CandidateResult) -> str:
    found = result.measurement
    judged = result.measurement.judged
    goal = evaluation.floor or 0.0
    if evaluation.rubric and judged is None:
        return "not certified: its rubric needs a judge, see --judge"
    if judged is None:
        return found.shortfall(goal, result.compared).sentence if found.n else "kept nothing"
    if judged.open_labels:
        labels = f"{evaluation.golden.path.stem}-labels.jsonl"
        return f"not certified: {judged.open_labels} answers in {labels} wait for a person"
    shown = f"{judged.by} passed {found.n - found.errors} of {found.n}"
    if judged.unscored:
        shown += f", and {judged.unscored} of its verdicts could not be read"
    people = f"of {judged.human_labels} answers that people labelled, it passed {judged.false_passes} that are wrong"
    shown += f"; {people if judged.human_labels else 'a judge never certifies alone'}"
    more = found.labels_for_the_judge(goal, result.compared)
    if more is None:
        return f"{shown}; too few passed for {goal:g}, however many labels people give"
    return (
        f"{shown}; {goal:g} needs {more} more labels by people, see --to-label" if more else shown
    )


class _Bar:
    """A progress bar on stderr for what is under way."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console(err=True), transient=True)
        self._task = self._progress.add_task("")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if done == 0:
            self._progress.reset(self._task, description=what, total=total)
        self._progress.start()  # only now, as a question may stand before it
        self._progress.update(self._task, completed=done)
