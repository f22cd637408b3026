"""The last screen of a run in plain words: what happened, why, and what to type next."""

from __future__ import annotations

import shlex
from textwrap import shorten
from typing import TYPE_CHECKING

import typer

from tierwise.text.amounts import plural, usd

if TYPE_CHECKING:
    from tierwise.engine import Engine
    from tierwise.ledger import OutcomeRow, SummaryRow
    from tierwise.report import RunSummary

_MOST_REASONS = 3  # lines
_LONGEST_REASON = 160  # characters
_CAUSES = {
    "budget": "the budget is exhausted; raise it, and run again",
    "review": "the route asks for a person's review",
}


def print_last_screen(summary: RunSummary, engine: Engine) -> None:
    """Print what happened, why, and the next commands."""
    examples = _accepted_examples(summary, engine)
    # A model in a route has a confidence threshold if a certificate set one.
    certified: set[tuple[str, str]] = set()
    for row in examples:
        route = row.outcome.route
        if route:
            certified.update((row.outcome.step, model) for model in route.thresholds)
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
    summary: RunSummary, engine: Engine, certified: set[tuple[str, str]]
) -> list[str]:
    run = summary.run
    documents = plural(run.documents, "document")
    totals = f"  {documents}: {run.accepted} accepted, {run.deferred} deferred"
    if run.deferred:
        totals += " (they wait for a person or for money)"
    lines = [f"{totals}."]
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
    lines += [f"  Not read: {others}." for others in engine.left_out]
    return lines


def _model_part(
    row: SummaryRow, engine: Engine, certified: set[tuple[str, str]]
) -> str:
    """Return the accepted answers of one model, and whether it is free and certified."""
    notes = []
    model = engine.policy.catalog.models.get(row.model)
    price = model.price if model else "unknown"
    if price != "unknown" and price.input == 0 and price.output == 0:
        notes.append("free")
    if (row.step, row.model) in certified:
        notes.append("certified")
    text = f"{row.accepted} by {row.model}"
    return f"{text} ({', '.join(notes)})" if notes else text


def _why(summary: RunSummary, certified: set[tuple[str, str]]) -> list[str]:
    lines = []
    if certified:
        models = ", ".join(sorted({model for _, model in certified}))
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
    for row in summary.deferred[:_MOST_REASONS]:
        # Other causes differ by document, so their own reason is printed.
        sentence = _CAUSES.get(row.cause or "", row.reason)
        reason = shorten(sentence, _LONGEST_REASON, placeholder="…")
        lines.append(f"  {row.document_id} is deferred at {row.step}: {reason}")
    more = len(summary.deferred) - _MOST_REASONS
    if more > 0:
        lines.append(f"  and {more} more: see `tierwise review`")
    return lines or ["  Each answer of the first model in its route passed all checks."]


def _next_commands(summary: RunSummary, examples: list[OutcomeRow]) -> list[str]:
    """Return at most three commands, each with its purpose."""
    run_id = summary.run.id
    commands = [
        (
            f"tierwise show {run_id} --documents",
            "the outcome of every document and step",
        )
    ]
    # A document may be deferred by reading, before any model was asked.
    unanswered = next((row for row in summary.deferred if row.step != "read"), None)
    if unanswered:
        # Quoted, since a file's name may contain spaces, and the line is to be copied.
        document = shlex.quote(unanswered.document_id)
        step = unanswered.step
        commands.append(
            (f"tierwise explain {document} {step}", "the reason for its deferral")
        )
    elif examples:
        document = shlex.quote(examples[0].document_id)
        step = examples[0].outcome.step
        commands.append(
            (f"tierwise explain {document} {step}", "the reason for its model")
        )
    if summary.deferred:
        commands.append((f"tierwise review {run_id}", "decide the deferred documents"))
    else:
        commands.append((f"tierwise report {run_id}", "the figures as an HTML page"))
    width = max(len(command) for command, _ in commands)
    return [f"  {command:<{width}}  {purpose}" for command, purpose in commands]
