"""Documents that wait for a person's decision, as tables, pages and data."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

from tierwise.cli.output import console, print_json, print_table
from tierwise.cli.render.lines import one_line
from tierwise.documents.writing import fields_data
from tierwise.text.amounts import usd

if TYPE_CHECKING:
    from rich.console import Console

    from tierwise.ledger import Decision, RunRow
    from tierwise.records import Attempt, Outcome
    from tierwise.review.queue import ReviewItem

_MOST_ANSWER = 140  # characters in the list


def print_queue(items: list[ReviewItem], run: RunRow) -> None:
    """Print the documents that wait, and the commands to type next."""
    print_table(
        [item_cells(item) for item in items],
        title=f"{run.flow} · run {run.id}: {len(items)} wait",
        empty=f"nothing waits in run {run.id}",
    )
    if items:
        first = items[0].document_id
        typer.echo(
            f"One in full: tierwise review {run.id} '{first}'   "
            f"All in turn: tierwise review {run.id} -i"
        )


def print_item(item: ReviewItem, text: str | None, answers: list[str | None]) -> None:
    """Print a document's text, every answer with its failed checks, and the decisions so far.

    `answers` has an entry for each attempt. The text is None where it is stored nowhere.
    """
    out = console()
    outcome = item.outcome
    out.rule(
        f"{item.document_id} · {item.step} · {outcome.sensitivity} · {outcome.status}"
    )
    if text is None:
        # Retention may have deleted it, and the file may be gone from the source.
        text = "(the text is not kept, and not found in the run's source)"
    _print_safely(out, text)
    for number, (attempt, answer) in enumerate(
        zip(outcome.attempts, answers, strict=True), 1
    ):
        out.rule(
            f"attempt {number}: {attempt.model} ({attempt.kind})",
            align="left",
            style="dim",
        )
        # None: the call failed, or retention has deleted the reply.
        _print_safely(out, _why_no_answer(attempt) if answer is None else answer)
        for verdict in attempt.verdicts:
            if verdict.passed is False:
                reason = f": {verdict.reason}" if verdict.reason else ""
                _print_safely(out, f"failed {verdict.check}{reason}", style="red")
    _print_answer(out, outcome)
    out.rule(align="left", style="dim")
    _print_safely(out, f"{outcome.status}: {outcome.reason}")
    for decision in item.decisions:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(decision.reviewed_at))
        _print_safely(out, f"{at}  {decision.says}")


def _print_answer(out: Console, outcome: Outcome) -> None:
    """Print the answer of an outcome; in a step by field, the open fields and the sources."""
    if outcome.open_fields:
        out.rule("open fields", align="left", style="dim")
        _print_safely(out, ", ".join(outcome.open_fields))
    if outcome.value is None:
        return
    title = "the kept fields" if outcome.open_fields else "the current answer"
    out.rule(title, align="left", style="dim")
    _print_safely(out, json.dumps(outcome.value, indent=2, ensure_ascii=False))
    for line in outcome.fields_by_source:
        _print_safely(out, line)


def print_decision(decision: Decision, *, as_json: bool) -> None:
    """Print a decision that was recorded just now, and the command that continues from it."""
    if as_json:
        subject = {"document": decision.document_id, "step": decision.step}
        print_json(subject | _decision_data(decision))
        return
    typer.echo(f"{decision.document_id}, {decision.step}: {decision.says}")
    if decision.decision == "again":
        typer.echo(f"Ask again with: tierwise retry {decision.run_id}", err=True)
    if decision.decision == "rejected" and decision.question is None:
        typer.echo("Later runs ask again once the file is another one.", err=True)
    if decision.decision in ("approved", "edited"):
        typer.echo(
            f"Run the later steps with: tierwise retry {decision.run_id}", err=True
        )


def item_data(item: ReviewItem) -> dict[str, Any]:
    """Return a document that waits as plain data."""
    outcome = item.outcome
    return {
        "run": item.run_id,
        "document": item.document_id,
        "hash": item.document_hash,
        "step": item.step,
        "status": outcome.status,
        "reason": outcome.reason,
        "sensitivity": outcome.sensitivity,
        "value": outcome.value,
        **fields_data(outcome),
        "cost_usd": outcome.cost,
        "attempts": [_attempt_data(attempt) for attempt in outcome.attempts],
        "decisions": [_decision_data(decision) for decision in item.decisions],
    }


def _attempt_data(attempt: Attempt) -> dict[str, Any]:
    return {
        "model": attempt.model,
        "kind": attempt.kind,
        "error": attempt.error,
        "failed": _failed(attempt),
        "cost_usd": attempt.cost,
    }


def _failed(attempt: Attempt) -> dict[str, str]:
    """Return the reasons of an attempt's failed checks; of one by field, for each field."""
    reasons: dict[str, list[str]] = {}
    for verdict in attempt.verdicts:
        if verdict.passed is False:
            reasons.setdefault(verdict.check, []).append(verdict.reason)
    return {check: "; ".join(of_check) for check, of_check in reasons.items()}


def _decision_data(decision: Decision) -> dict[str, Any]:
    return {
        "decision": decision.decision,
        "value": decision.value,
        "by": decision.reviewer,
        "at": decision.reviewed_at,
        "note": decision.note,
    }


def item_cells(item: ReviewItem) -> dict[str, Any]:
    """Return a document that waits as the row of a table."""
    outcome = item.outcome
    costs = [attempt.cost for attempt in outcome.attempts]
    # Calls of unknown cost are not 0 USD: `usd` names their number.
    priced = sum((cost for cost in costs if cost is not None), Decimal(0))
    answer = ""
    if outcome.value is not None:
        answer = one_line(json.dumps(outcome.value, ensure_ascii=False), _MOST_ANSWER)
    if outcome.open_fields:
        answer = f"open: {', '.join(outcome.open_fields)} {answer}".rstrip()
    return {
        "document": item.document_id,
        "step": item.step,
        "sensitivity": outcome.sensitivity,
        "attempts": len(costs),
        "failed": item.faults,
        "cost": usd(priced, costs.count(None)),
        "answer": answer,
        "reason": outcome.reason,
    }


def _why_no_answer(attempt: Attempt) -> str:
    if attempt.error:
        return f"{attempt.error}: {attempt.error_text}"
    return "(the answer is no longer stored)"


def _print_safely(out: Console, text: str, style: str | None = None) -> None:
    """Print a text with its control characters spelt out: a document must not run the terminal."""
    spelt = "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape").decode()
        for character in text
    )
    # A document's [square brackets] are no markup.
    out.print(spelt, markup=False, style=style)
