"""The last screen of a run in plain words: what happened, why, and what to type next."""

from __future__ import annotations

import shlex
from textwrap import shorten
from typing import TYPE_CHECKING

import typer

from tierwise.policy.agreement import agreement_behind
from tierwise.report.attention import command_again
from tierwise.report.causes import by_cause, command_for
from tierwise.text.amounts import plural, usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierwise.engine import Engine
    from tierwise.ledger import DeferredRow, OutcomeRow, SummaryRow
    from tierwise.records import Cause
    from tierwise.report import RunSummary
    from tierwise.report.causes import Remedy

# step, model -> the teacher that it is certified to agree with; None: certified to be right
Certified = dict[tuple[str, str], str | None]

_MOST_REASONS = 3  # lines
_LONGEST_REASON = 160  # characters
_MOST_REMEDIES = 2  # commands
# Causes whose reasons are the same for each document, and said by their title.
_ALIKE = ("budget", "review")


def print_last_screen(summary: RunSummary, engine: Engine) -> None:
    """Print what happened, why, and the next commands."""
    examples = _accepted_examples(summary, engine)
    # A model in a route has a confidence threshold if a certificate set one.
    certified: Certified = {}
    for row in examples:
        route = row.outcome.route
        for model, threshold in (route.thresholds if route else {}).items():
            step = row.outcome.step
            agreement = agreement_behind(
                engine.policy.certificates, step, model, threshold
            )
            certified[step, model] = agreement.teacher if agreement else None
    lines = ["", "What happened", *_what_happened(summary, engine, certified)]
    lines += ["", "Why", *_why(summary, certified)]
    lines += ["", "Next", *_next_commands(summary, examples), ""]
    for line in lines:
        typer.echo(line)


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
    lines = [f"  {documents}: {run.accepted} accepted, {run.deferred} deferred."]
    for step in summary.outcomes:
        parts = [
            _model_part(row, engine, certified)
            for row in summary.rows
            # Shadows are asked for comparison, so none of their answers is the result.
            if row.step == step and row.accepted and not row.shadow
        ]
        skipped = summary.outcomes[step].get("skipped", 0)
        if skipped:
            parts.append(f"{skipped} skipped")
        deferred = summary.outcomes[step].get("deferred", 0)
        if deferred:
            parts.append(f"{deferred} deferred")
        lines.append(f"  {step}: {', '.join(parts) or 'nothing'}.")
    # A reused answer is recorded as an attempt, but nothing was sent for it.
    calls = plural(run.attempts - run.reused, "call")
    if run.reused:
        calls += f", {run.reused} paid answers reused"
    cost = f"cost {usd(run.cost_known, run.cost_unknown)}"
    if run.budget_usd is not None:
        cost += f" of a budget of {usd(run.budget_usd)}"
    lines.append(f"  {calls}; {cost}.")
    if run.usage_unclear:
        unclear = plural(run.usage_unclear, "call")
        lines.append(f"  Usage of {unclear} unclear: the largest reading is billed.")
    return lines + _left_out(engine)


def _left_out(engine: Engine) -> list[str]:
    """Return the lines about files that were not read, and about those that moved."""
    lines = [f"  Not read: {others}." for others in engine.left_out]
    return lines + [f"  {line[0].upper()}{line[1:]}." for line in engine.moved]


def _model_part(row: SummaryRow, engine: Engine, certified: Certified) -> str:
    """Return the accepted answers of one model, and whether it is free and certified."""
    notes = []
    model = engine.policy.catalog.models.get(row.model)
    price = model.price if model else "unknown"
    if price != "unknown" and price.input == 0 and price.output == 0:
        notes.append("free")
    if (row.step, row.model) in certified:
        teacher = certified[row.step, row.model]
        notes.append(f"agrees with {teacher}" if teacher else "certified")
    text = f"{row.accepted} by {row.model}"
    return f"{text} ({', '.join(notes)})" if notes else text


def _why(summary: RunSummary, certified: Certified) -> list[str]:
    lines = []
    of_correctness = {
        model for (_, model), teacher in certified.items() if teacher is None
    }
    for (step, model), teacher in sorted(certified.items()):
        if teacher is not None:
            lines.append(
                f"  {model} in {step}: certified for agreement with {teacher}, which is no proof "
                "of correctness; the rest goes to the next model."
            )
    if of_correctness:
        models = ", ".join(sorted(of_correctness))
        lines.append(
            f"  {models}: certified for answers with a high confidence; the rest goes to the next "
            "model."
        )
    reasks = sum(row.reasks for row in summary.rows if not row.shadow)
    if reasks:
        lines.append(
            f"  {reasks} times an answer failed a check, and the same model was asked again."
        )
    escalations = sum(row.escalations for row in summary.rows if not row.shadow)
    if escalations:
        lines.append(
            f"  {escalations} times an answer failed a check, and the document went to the next "
            "model."
        )
    for remedy, cause, rows in by_cause(summary.deferred):
        lines += _why_deferred(remedy, cause, rows)
    if lines:
        return lines
    accepted = sum(counts.get("accepted", 0) for counts in summary.outcomes.values())
    if accepted:
        return ["  Each answer of the first model in its route passed all checks."]
    if summary.run.documents:
        return ["  Every document was skipped: no step applied to it."]
    return ["  No step had a document to work on, so no model was called."]


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
    for remedy, _, rows in _most_first(summary.deferred)[:_MOST_REMEDIES]:
        again = command_again(summary.run)
        command = command_for(remedy, summary.run, rows[0], again)
        commands.append((command, remedy.purpose))
    if not summary.run.documents:
        commands = [("tierwise runs", "the runs so far, with what each did")]
    elif not summary.deferred:
        if examples:
            # Quoted, since a file's name may contain spaces, and the line is to be copied.
            document = shlex.quote(examples[0].document_id)
            step = examples[0].outcome.step
            commands.append(
                (f"tierwise explain {document} {step}", "the reason for its model")
            )
        commands.append((f"tierwise report {run_id}", "the figures as an HTML page"))
    # Two causes may have the same command, and one the command that is there already.
    commands = list(dict(reversed(commands)).items())[::-1]
    width = max(len(command) for command, _ in commands)
    return [f"  {command:<{width}}  {purpose}" for command, purpose in commands]


def _most_first(
    deferred: Sequence[DeferredRow],
) -> list[tuple[Remedy, Cause | None, list[DeferredRow]]]:
    """Return the deferred documents by their causes, the most frequent cause first."""
    return sorted(by_cause(deferred), key=lambda group: -len(group[2]))
