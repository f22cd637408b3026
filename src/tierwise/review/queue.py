"""What waits for a person, what a person may decide about it, and what later runs make of that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierwise.cascade.known_outcomes import Retry
from tierwise.errors import Misuse, UnknownName
from tierwise.ledger.people.reviews import Decision, Word
from tierwise.records import Attempt, Outcome
from tierwise.steps.step import json_parts

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, OutcomeRow, RunRow
    from tierwise.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One outcome as a person looks at it: with its attempts, what was asked, and what was decided so far."""

    run_id: str
    document_id: str
    document_hash: str
    outcome: Outcome
    question: str | None
    decisions: tuple[Decision, ...]

    @property
    def step(self) -> str:
        """The step that it is the outcome of."""
        return self.outcome.step

    @property
    def faults(self) -> str:
        """What was wrong with each answer, such as `small grounding, large label`."""
        return ", ".join(fault for attempt in self.outcome.attempts if (fault := _fault(attempt)))


def waiting(ledger: Ledger, run_id: str, step: str | None = None) -> Iterator[Item]:
    """The outcomes of a run that wait, by document."""
    for row in list(ledger.outcomes(run_id, step=step, status="deferred")):
        yield _item(ledger, run_id, row)


def find_item(ledger: Ledger, run_id: str, document_id: str, step: str | None = None) -> Item:
    """The outcome of a document that is meant: the one that waits, or the only one. Raises UnknownName, Misuse."""
    rows = list(ledger.outcomes(run_id, document_id))
    if not rows:
        raise UnknownName("document", document_id, ledger.reviews.documents(run_id))
    if step is not None:
        rows = [row for row in rows if row.outcome.step == step]
        if not rows:
            raise Misuse(f"{document_id} has no outcome of the step '{step}' in run {run_id}")
    chosen = [row for row in rows if row.outcome.status == "deferred"] or rows
    if len(chosen) > 1:
        steps = ", ".join(row.outcome.step for row in chosen)
        raise Misuse(f"{document_id} has outcomes of several steps; name one with --step: {steps}")
    return _item(ledger, run_id, chosen[0])


def answer_text(ledger: Ledger, attempt: Attempt) -> str | None:
    """What a model answered; None when the call failed or the answer is no longer kept."""
    reply = None if attempt.error else ledger.reply(attempt.call_hash)
    return reply.text if reply else None


def approve(ledger: Ledger, item: Item, number: int | None, *, by: str, note: str = "") -> Decision:
    """Take an answer as it is: the one that waits, or that of the attempt `number` (from 1; default: the last).

    Raises Misuse when there is none that fits what was asked.
    """
    if number is None and item.outcome.value is not None:
        return _decided(
            ledger,
            item,
            "approved",
            by=by,
            note=note,
            value=item.outcome.value,
            model=item.outcome.model,
        )
    attempts = item.outcome.attempts
    if number is not None and not 1 <= number <= len(attempts):
        raise Misuse(
            f"there is no attempt {number}; {item.document_id} has {len(attempts)} at {item.step}"
        )
    for attempt in [attempts[number - 1]] if number else reversed(attempts):
        if text := answer_text(ledger, attempt):
            value = _parsed(ledger, item, text, f"the answer of {attempt.model}")
            return _decided(
                ledger, item, "approved", by=by, note=note, value=value, model=attempt.model
            )
    raise Misuse(
        "there is no answer to approve: none was given, or it is no longer kept; use --edit or --reject"
    )


def edit(ledger: Ledger, item: Item, text: str, *, by: str, note: str = "") -> Decision:
    """Take a person's answer, given as JSON. Raises Misuse when it does not fit what was asked."""
    return _decided(
        ledger,
        item,
        "edited",
        by=by,
        note=note,
        value=_parsed(ledger, item, text, "the edited answer"),
    )


def reject(ledger: Ledger, item: Item, *, by: str, note: str = "") -> Decision:
    """Take no answer: the document is done with, and later steps skip it."""
    return _decided(ledger, item, "rejected", by=by, note=note)


def reopen(ledger: Ledger, item: Item, *, by: str, note: str = "") -> Decision:
    """Take the last decision back. Raises Misuse when there is none."""
    if not item.decisions or item.decisions[-1].decision == "reopened":
        raise Misuse(f"nothing was decided about {item.document_id} at {item.step}")
    return _decided(ledger, item, "reopened", by=by, note=note)


def find_texts(
    ledger: Ledger, project: Project, run: RunRow, hashes: Iterable[str]
) -> dict[str, str]:
    """The texts of documents by their hashes, as far as they can be had: from the ledger, or from the run's source."""
    wanted = set(hashes)
    found = ledger.retention.texts(wanted)
    for source in _sources(project, run):
        if wanted <= found.keys():
            break
        found |= _read(source, wanted - found.keys())
    return found


def plan_retry(ledger: Ledger, run_id: str, step: str | None = None, reason: str = "") -> Retry:
    """What to ask again: what waited at a step and for a reason, decided by now or not. Raises Misuse for nothing."""
    waited = ledger.reviews.waited(run_id)
    again = {
        d for d, at, why in waited if step in (None, at) and reason.casefold() in why.casefold()
    }
    if not again:
        among = f"; {len(waited)} were deferred in all" if waited else ""
        raise Misuse(f"run {run_id} deferred no such document{among}")
    return Retry(run_id, frozenset(ledger.reviews.documents(run_id)), frozenset(again))


def _item(ledger: Ledger, run_id: str, row: OutcomeRow) -> Item:
    attempts = tuple(ledger.attempts(run_id, row.document_id, row.outcome.step))
    return Item(
        run_id=run_id,
        document_id=row.document_id,
        document_hash=row.document_hash,
        outcome=replace(row.outcome, attempts=attempts),
        question=row.question,
        decisions=tuple(ledger.reviews.history(run_id, row.document_id, row.outcome.step)),
    )


def _fault(attempt: Attempt) -> str:
    failed = [verdict.check for verdict in attempt.verdicts if verdict.passed is False]
    return (
        f"{attempt.model} {failed[0] if failed else attempt.error}"
        if failed or attempt.error
        else ""
    )


def _decided(
    ledger: Ledger,
    item: Item,
    word: Word,
    *,
    by: str,
    note: str,
    value: Any = None,
    model: str | None = None,
) -> Decision:
    if item.question is None:
        raise Misuse(
            f"there is no answer to decide about at the step {item.step}: {item.outcome.reason}"
        )
    decision = Decision(
        run_id=item.run_id,
        document_id=item.document_id,
        document_hash=item.document_hash,
        step=item.step,
        question=item.question,
        decision=word,
        value=value,
        model=model,
        sensitivity=item.outcome.sensitivity,
        reviewer=by,
        reviewed_at=time.time(),
        note=note,
    )
    ledger.reviews.decide(decision)
    return decision


def _parsed(ledger: Ledger, item: Item, text: str, what: str) -> Any:
    """The JSON object in a text, which has to fit what was asked. Raises Misuse."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    schema = ledger.reviews.schema(item.question or "")
    if schema is None:
        raise Misuse(
            f"what the step {item.step} was asked for is not on record; run the flow again first"
        )
    fault = "it holds no JSON object"
    for part in json_parts(text):
        try:
            value = json.loads(part)
        except ValueError as error:
            fault = str(error)
            continue
        wrong = best_match(Draft202012Validator(schema).iter_errors(value))
        if wrong is None:
            return value
        place = wrong.json_path.removeprefix("$").lstrip(".")
        fault = f"{place}: {wrong.message}" if place else wrong.message
    raise Misuse(f"{what} does not fit the step {item.step}: {fault}")


def _sources(project: Project, run: RunRow) -> list[Path]:
    """Files and folders that the run's parameters name, `source` first."""
    named = sorted(run.parameters.items(), key=lambda pair: pair[0] != "source")
    paths = [project.root / value for _, value in named if isinstance(value, str) and value.strip()]
    return [path for path in paths if path.exists() and path != project.root]


def _read(source: Path, wanted: set[str]) -> dict[str, str]:
    from tierwise.documents import iter_documents

    found: dict[str, str] = {}
    try:
        for document in iter_documents(source, sensitivity="restricted"):
            if document.hash in wanted:
                found[document.hash] = document.text
                if wanted <= found.keys():
                    break
    except Misuse:  # an empty folder, or no documents: then there is nothing to find
        pass
    return found
