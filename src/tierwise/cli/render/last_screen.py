"""The last screen of a run in plain words: what happened, why, and what to type next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING

import typer

from tierwise.report.attention import command_again
from tierwise.report.build import total_saving_of
from tierwise.report.causes import (
    REMEDIES,
    by_cause,
    command_for,
    command_to_resume,
)
from tierwise.report.figures import ProjectFacts
from tierwise.text.amounts import plural, usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tierwise.engine import Engine
    from tierwise.ledger import DeferredRow, OutcomeRow, SummaryRow
    from tierwise.policy.certificates import Certificate
    from tierwise.records import Cause
    from tierwise.report import RunSummary
    from tierwise.report.causes import Remedy


@dataclass(frozen=True, slots=True)
class _Proof:
    """The certificate behind a model's confidence threshold; None where it is of agreement."""

    certificate: Certificate | None
    teacher: str | None


# step, model -> its proof
Certified = dict[tuple[str, str], _Proof]

_MOST_REASONS = 3  # lines
_LONGEST_REASON = 160  # characters
_COMMANDS = 3
# Causes whose reasons are the same for each document, and said by their title.
_ALIKE = ("budget", "review")
# The fault of an answer that failed a check which tierwise brings, or whose name is one of its names.
_FAULTS = {
    "schema": "in the wrong form",
    "label": "no allowed label",
    "length": "too long",
    "grounding": "words or numbers that are not in the document",
    "placeholders": "placeholders",
    "language": "another language",
    "low_confidence": "less sure than certified",
    "not_kept": "fields that the route keeps of another model",
}


def print_last_screen(summary: RunSummary, engine: Engine) -> None:
    """Print what happened, why, what waits, what it cost, and the next commands."""
    examples = _accepted_examples(summary, engine)
    certified = _certified(examples, engine)
    lines = ["", "What happened", *_what_happened(summary, engine, certified)]
    reasons = _why(summary)
    if reasons:
        lines += ["", "Why", *reasons]
    if summary.run.documents:
        lines += ["", "What waits", *_what_waits(summary)]
        lines += ["", "What it cost", *_what_it_cost(summary, engine)]
    lines += ["", "Next", *_next_commands(summary, examples), ""]
    for line in lines:
        typer.echo(line)


def _certified(examples: Sequence[OutcomeRow], engine: Engine) -> Certified:
    """Return the proofs behind the routes of these outcomes.

    A model in a route has a confidence threshold if a certificate set one. Agreement with a teacher
    is on record with the route, so that it is never taken for correctness.
    """
    certificates = engine.policy.certificates
    certified: Certified = {}
    for row in examples:
        route = row.outcome.route
        if route is None:
            continue
        step = row.outcome.step
        for model in route.thresholds:
            certified[step, model] = _Proof(certificates.find(step, [model]), None)
        for model, teacher in route.agrees_with.items():
            certified[step, model] = _Proof(None, teacher)
    return certified


def _accepted_examples(summary: RunSummary, engine: Engine) -> list[OutcomeRow]:
    """Return one accepted outcome of each step; a run may be too large to read all."""
    examples = []
    for step in summary.outcomes:
        accepted = engine.ledger.runs.outcomes(
            summary.run.id, step=step, status="accepted"
        )
        first = next(accepted, None)
        if first:
            examples.append(first)
    return examples


def _what_happened(
    summary: RunSummary, engine: Engine, certified: Certified
) -> list[str]:
    run = summary.run
    nothing = summary.empty()
    if nothing:
        return [f"  {nothing[0].upper()}{nothing[1:]}.", *_left_out(engine)]
    documents = plural(run.documents, "document")
    counts = f"{run.accepted} accepted, {run.deferred} deferred"
    if run.in_batches:
        counts += f", {run.in_batches} in provider batches"
    lines = [f"  {documents}: {counts}."]
    by_people = engine.ledger.reviews.taken_over(run.id)
    for step in summary.outcomes:
        parts = [
            _model_part(row, engine, certified)
            for row in summary.rows
            # Shadows are asked for comparison, so none of their answers is the result.
            if row.step == step and row.accepted and not row.shadow
        ]
        parts += _without_call(summary, step, by_people.get(step, 0))
        skipped = summary.outcomes[step].get("skipped", 0)
        if skipped:
            parts.append(f"{skipped} skipped")
        deferred = summary.outcomes[step].get("deferred", 0)
        if deferred:
            parts.append(f"{deferred} deferred")
        in_batches = summary.outcomes[step].get("waiting", 0)
        if in_batches:
            parts.append(f"{in_batches} waiting")
        lines.append(f"  {step}: {', '.join(parts) or 'nothing'}.")
    lines += _free_and_proven(summary, engine, certified)
    return lines + _left_out(engine)


def _without_call(summary: RunSummary, step: str, by_people: int) -> Iterator[str]:
    """Yield what was decided about documents of a step without a call of this run."""
    counts = summary.outcomes[step]
    by_models = sum(
        row.accepted for row in summary.rows if row.step == step and not row.shadow
    )
    others = max(0, counts.get("accepted", 0) - by_models)
    of_people = min(by_people, others)
    if of_people:
        yield f"{of_people} by a reviewer"
    if others > of_people:
        # Such as those of a retry that were accepted in the run before.
        yield f"{others - of_people} without a call"
    rejected = counts.get("rejected", 0)
    if rejected:
        yield f"{rejected} rejected by a reviewer"


def _free_and_proven(
    summary: RunSummary, engine: Engine, certified: Certified
) -> Iterator[str]:
    """Yield what certificates prove of the answers, and how many of these were free."""
    for row in summary.rows:
        proof = certified.get((row.step, row.model))
        if proof is None or not row.accepted or row.shadow:
            continue
        answered = summary.outcomes[row.step].get("accepted", 0)
        share = f"{row.accepted} of {answered} answers"
        price = "free" if _is_free(row.model, engine) else "not free"
        if proof.certificate is not None:
            bound = proof.certificate.floor or proof.certificate.bound
            sure = 1 - proof.certificate.alpha
            yield (
                f"  {row.step}: {share} are {price} and proven: at least {bound:.0%} of such "
                f"answers are right ({sure:.0%} sure)."
            )
        elif proof.teacher is not None:
            yield (
                f"  {row.step}: {share} are {price} and certified for agreement with "
                f"{proof.teacher}, which is no proof of correctness."
            )


def _is_free(name: str, engine: Engine) -> bool:
    """Return True if the catalog has a price of 0 for the model."""
    model = engine.policy.catalog.models.get(name)
    if model is None or model.price == "unknown":
        return False
    return model.price.is_zero


def _left_out(engine: Engine) -> list[str]:
    """Return the lines about files that were not read, and about those that moved."""
    lines = [f"  Not read: {others}." for others in engine.left_out]
    return lines + [f"  {line[0].upper()}{line[1:]}." for line in engine.moved]


def _model_part(row: SummaryRow, engine: Engine, certified: Certified) -> str:
    """Return the accepted answers of one model, and whether it is free and certified."""
    notes = []
    if _is_free(row.model, engine):
        notes.append("free")
    proof = certified.get((row.step, row.model))
    if proof is not None:
        notes.append(f"agrees with {proof.teacher}" if proof.teacher else "certified")
    text = f"{row.accepted} by {row.model}"
    return f"{text} ({', '.join(notes)})" if notes else text


def _why(summary: RunSummary) -> list[str]:
    """Return which answers were not taken; empty where only what waits says why."""
    lines = []
    for row in summary.rows:
        if row.shadow or not (row.reasks or row.escalations):
            continue
        faults = _faults(row)
        of = f"{row.model} in {row.step}"
        if row.reasks:
            asked = "1 answer" if row.reasks == 1 else f"{row.reasks} answers"
            lines.append(f"  {of}: {asked} failed a check, and it was asked again.")
        if row.escalations:
            lines.append(
                f"  {of}: {row.escalations} of {plural(row.documents, 'document')} went to the "
                f"next model{faults}."
            )
    if lines:
        return lines
    if summary.deferred:
        return []
    accepted = sum(counts.get("accepted", 0) for counts in summary.outcomes.values())
    if summary.run.in_batches:
        return []
    if accepted:
        return ["  Each answer of the first model in its route passed all checks."]
    if summary.run.documents:
        return ["  Every document was skipped: no step applied to it."]
    return ["  No step had a document to work on, so no model was called."]


def _faults(row: SummaryRow) -> str:
    """Return why a model's answers failed, such as ` (too long: 3)`."""
    faults = [
        f"{_FAULTS.get(check, f'check {check} failed')}: {count}"
        for check, count in row.checks_failed.items()
    ]
    if not faults:
        return ""
    return f" ({'; '.join(faults)})"


def _what_waits(summary: RunSummary) -> list[str]:
    """Return what documents wait for, by the cause."""
    lines = []
    for remedy, cause, rows in by_cause(summary.deferred):
        lines += _why_deferred(remedy, cause, rows)
    if summary.run.in_batches:
        lines = [*_in_batches(summary), *lines]
    return lines or ["  Nothing waits for a person."]


def _in_batches(summary: RunSummary) -> list[str]:
    """Return what is in provider batches, and what happens to it."""
    run = summary.run
    title = REMEDIES["batch"].title
    return [
        f"  {title}: {plural(run.in_batches, 'document')}. They go on when the run is resumed.",
    ]


def _what_it_cost(summary: RunSummary, engine: Engine) -> list[str]:
    """Return the cost, beside that of the strongest model for every document."""
    run = summary.run
    # A reused answer is recorded as an attempt, but nothing was sent for it.
    calls = plural(run.attempts - run.reused, "call")
    if run.reused:
        calls += f", {run.reused} paid answers reused"
    cost = f"cost {usd(run.cost_known, run.cost_unknown)}"
    if run.budget_usd is not None:
        cost += f" of a budget of {usd(run.budget_usd)}"
    lines = [f"  {calls}; {cost}."]
    if run.usage_unclear:
        unclear = plural(run.usage_unclear, "call")
        lines.append(f"  Usage of {unclear} unclear: the largest reading is billed.")
    return lines + _against_strongest(summary, engine)


def _against_strongest(summary: RunSummary, engine: Engine) -> list[str]:
    """Return what the strongest model would have cost; empty where no call was made."""
    run = summary.run
    if run.attempts == run.reused:
        return []
    facts = ProjectFacts(catalog=engine.policy.catalog)
    if facts.best is None:
        return ["  Always the strongest model: unknown, as no model has a price."]
    saving = total_saving_of(engine.ledger, [run.id], facts)
    if saving is None:
        return []
    name = f"Always {facts.best.name}, the strongest model with a known price"
    if run.reused:
        name += ", for the calls that were made"
    if saving.best_cost is None:
        return [f"  {name}: unknown, as calls of unknown cost are among it."]
    about = "about " if saving.estimated else ""
    line = f"  {name}: {about}{usd(saving.best_cost)}"
    if saving.saved is None:
        line += "; the difference is unknown"
    elif saving.share is not None and saving.saved > 0:
        line += f", so {saving.share:.0%} were saved"
    lines = [f"{line}."]
    if saving.barred:
        barred = plural(saving.barred, "call")
        lines.append(
            f"  The same on both sides: {barred}, as a guard keeps these documents from it."
        )
    return lines


def _why_deferred(
    remedy: Remedy, cause: Cause | None, rows: Sequence[DeferredRow]
) -> list[str]:
    """Return what documents wait for, with the reasons of the first ones where these differ."""
    lines = [f"  {remedy.title}: {plural(len(rows), 'document')}."]
    if cause in _ALIKE:
        return lines
    for row in rows[:_MOST_REASONS]:
        reason = shorten(row.reason, _LONGEST_REASON, placeholder="…")
        lines.append(f"    {row.document_id} in {row.step}: {reason}")
    more = len(rows) - _MOST_REASONS
    if more > 0:
        lines.append(f"    and {more:,} more")
    return lines


def _next_commands(summary: RunSummary, examples: list[OutcomeRow]) -> list[str]:
    """Return the next commands, each with its purpose."""
    run_id = summary.run.id
    commands = [
        (
            f"tierwise show {run_id} --documents",
            "the outcome of every document and step",
        )
    ]
    if summary.run.in_batches:
        resume = command_to_resume(run_id)
        commands.insert(0, (resume, REMEDIES["batch"].purpose))
    for remedy, _, rows in _most_first(summary.deferred):
        again = command_again(summary.run)
        command = command_for(remedy, summary.run, rows[0], again)
        commands.append((command, remedy.purpose))
    if not summary.run.documents:
        commands = [("tierwise runs", "the runs so far, with what each did")]
    else:
        if examples:
            # Quoted, since a file's name may contain spaces, and the line is to be copied.
            document = shlex.quote(examples[0].document_id)
            step = examples[0].outcome.step
            commands.append(
                (f"tierwise explain {document} {step}", "the reason for its model")
            )
        commands.append((f"tierwise report {run_id}", "the figures as an HTML page"))
    # Two causes may have the same command, and one the command that is there already.
    purposes: dict[str, str] = {}
    for command, purpose in commands:
        purposes.setdefault(command, purpose)
    commands = list(purposes.items())[:_COMMANDS]
    width = max(len(command) for command, _ in commands)
    return [f"  {command:<{width}}  {purpose}" for command, purpose in commands]


def _most_first(
    deferred: Sequence[DeferredRow],
) -> list[tuple[Remedy, Cause | None, list[DeferredRow]]]:
    """Return the deferred documents by their causes, the most frequent cause first."""
    return sorted(by_cause(deferred), key=lambda group: -len(group[2]))
