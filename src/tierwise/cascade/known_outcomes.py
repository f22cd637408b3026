"""Outcomes that need no call: reviewers' decisions and, in a retry, the outcomes that were settled before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierwise.records import Document, Outcome

if TYPE_CHECKING:
    from tierwise.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Retry:
    """A run once more: `documents` are all that it had, `again` those of them that are asked again."""

    run_id: str
    documents: frozenset[str]
    again: frozenset[str]


def known_outcomes(
    ledger: Ledger, step: str, question: str, documents: Iterable[Document], retry: Retry | None
) -> Mapping[str, Outcome]:
    """By document id, what need not be asked: what persons decided, and in a retry what was settled before."""
    documents = tuple(documents)
    decided = ledger.reviews.answers(question, {document.hash for document in documents})
    known = {d.id: decided[d.hash].outcome() for d in documents if d.hash in decided}
    if retry is None:
        return known
    rest = [d for d in documents if d.id not in known and d.id not in retry.again]
    before = ledger.reviews.as_in(retry.run_id, step, question, {d.id for d in rest})
    settled = {d.id: before[d.id, d.hash] for d in rest if (d.id, d.hash) in before}
    lost = {
        name
        for name, outcome in settled.items()
        if outcome.status == "accepted" and outcome.value is None
    }
    return known | {name: outcome for name, outcome in settled.items() if name not in lost}
