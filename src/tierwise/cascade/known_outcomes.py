"""Outcomes that need no call: reviewers' decisions and, in a retry, outcomes of the earlier run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierwise.records import Document, Outcome

if TYPE_CHECKING:
    from tierwise.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Retry:
    """An earlier run that is repeated: all its documents, and those that are asked `again`."""

    run_id: str
    documents: frozenset[str]
    again: frozenset[str]


def known_outcomes(
    ledger: Ledger,
    step: str,
    question: str,
    documents: Sequence[Document],
    retry: Retry | None,
) -> Mapping[str, Outcome]:
    """Return by document id the outcomes that need no call."""
    hashes = {document.hash for document in documents}
    decisions = ledger.reviews.answers(question, hashes)
    known = {
        document.id: decisions[document.hash].outcome()
        for document in documents
        if document.hash in decisions
    }
    if retry is None:
        return known
    open_documents = [
        document
        for document in documents
        if document.id not in known and document.id not in retry.again
    ]
    ids = {document.id for document in open_documents}
    earlier = ledger.reviews.as_in(retry.run_id, step, question, ids)
    for document in open_documents:
        outcome = earlier.get((document.id, document.hash))
        if outcome is not None and not _is_lost(outcome):
            known[document.id] = outcome
    return known


def sent_again(
    ledger: Ledger, question: str, documents: Sequence[Document]
) -> Mapping[str, float]:
    """Return by document id when a person sent it again; answers paid earlier are not reused."""
    times = ledger.reviews.sent_again(
        question, {document.hash for document in documents}
    )
    return {
        document.id: times[document.hash]
        for document in documents
        if document.hash in times
    }


def _is_lost(outcome: Outcome) -> bool:
    """Return True if the answer's text was deleted since, or has not come yet."""
    if outcome.status == "waiting":
        return True
    return outcome.status == "accepted" and outcome.value is None
