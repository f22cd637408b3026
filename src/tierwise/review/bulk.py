"""One decision about many items: one action, with one undo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from tierwise.errors import Misuse, UnknownName
from tierwise.ledger.people.decisions import Decision
from tierwise.review.queue import (
    By,
    answer_to_approve,
    decision_about,
    find_item,
)

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.ledger.views.waiting import WaitingRow

# An action is one transaction, and no run writes meanwhile.
MOST_AT_ONCE = 2000
BulkWord = Literal["approved", "rejected", "again"]


@dataclass(frozen=True, slots=True)
class BulkDone:
    """What became of an action over many items.

    `refused` are those that were decided since the person saw them, `without_answer` the documents
    that an approval left out, as there is no answer that fits.
    """

    decisions: tuple[Decision, ...]
    refused: tuple[tuple[Decision, tuple[Decision, ...]], ...] = ()
    without_answer: tuple[str, ...] = ()
    repeated: bool = False


def refuse_too_many(rows: Sequence[WaitingRow]) -> None:
    """Raise Misuse for more items than one action may have."""
    if len(rows) > MOST_AT_ONCE:
        raise Misuse(
            f"{len(rows)} items are too many for one action (at most {MOST_AT_ONCE}); "
            "select fewer, such as by their step"
        )


def decide(
    ledger: Ledger,
    rows: Sequence[WaitingRow],
    word: BulkWord,
    *,
    by: By,
    selection: Mapping[str, Any] | None = None,
) -> BulkDone:
    """Record one decision about each of these items, as one action.

    `selection` says how they were selected. `by.seen` is the version of the whole queue that the
    person saw (`Reviews.last_number`). Raises Misuse for too many items, or for none.
    """
    if not rows:
        raise Misuse("nothing waits that fits this selection")
    refuse_too_many(rows)
    decisions: list[Decision] = []
    without_answer: list[str] = []
    for row in rows:
        try:
            item = find_item(ledger, row.run_id, row.document_id, row.step)
        except UnknownName:
            continue  # retention removed it meanwhile
        try:
            taken = None
            if word == "approved":
                taken = answer_to_approve(ledger, item)
            decision = decision_about(item, word, by, taken)
        except Misuse:
            without_answer.append(row.document_id)
            continue
        decisions.append(
            replace(decision, selection=dict(selection) if selection else None)
        )
    if not decisions:
        return BulkDone((), without_answer=tuple(without_answer))
    # One action has one request, also where the caller gave none.
    request = by.request or decisions[0].request
    decisions = [replace(decision, request=request) for decision in decisions]
    recorded = ledger.reviews.decide_all(decisions)
    return BulkDone(
        recorded.decisions,
        recorded.refused,
        tuple(without_answer),
        recorded.repeated,
    )
