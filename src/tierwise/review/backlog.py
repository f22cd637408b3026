"""What waits over all runs: filters, and the documents to ask about again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierwise.documents.places import source_of
from tierwise.errors import Misuse, UnknownName
from tierwise.ledger.views.waiting import WaitingRow
from tierwise.review.queue import PlannedRetry, ReviewItem, find_item, planned

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFilter:
    """Which of the waiting documents are meant; None and an empty reason are all."""

    flow: str | None = None
    cause: str | None = None
    older_than_s: float | None = None
    step: str | None = None
    reason: str = ""

    def fits(self, row: WaitingRow, now: float) -> bool:
        """Return True if an outcome is meant."""
        # a flow is named with dashes in Prefect, and with underscores as a file in flows/
        if self.flow is not None and _name(self.flow) != _name(row.flow):
            return False
        if self.cause is not None and self.cause != row.cause:
            return False
        if self.step is not None and self.step != row.step:
            return False
        if self.older_than_s is not None and now - row.waits_since < self.older_than_s:
            return False
        # an empty reason is in every text; upper and lower case are the same
        return self.reason.casefold() in row.reason.casefold()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits over all runs, the longest wait first.

    `waiting` are the outcomes without a decision that fit the filter, `decided` those that fit and
    have an accepted answer: a later run takes them up. `total` counts the documents of all flows
    without a decision.
    """

    waiting: Sequence[WaitingRow]
    decided: Sequence[WaitingRow]
    total: int
    every: Sequence[WaitingRow]  # whether they fit or not, decided ones included

    def open_of(self, run_id: str) -> set[str]:
        """Return the documents whose newest run is this one, and that wait."""
        return {row.document_id for row in self.every if row.run_id == run_id}


def count_documents(rows: Sequence[WaitingRow]) -> int:
    """Return the number of documents; one may wait in several steps."""
    return len({(row.run_id, row.document_id) for row in rows})


def read_backlog(
    ledger: Ledger, project: Project, wanted: QueueFilter | None = None
) -> Backlog:
    """Read what waits over all runs. Raises UnknownName for a flow without a run."""
    wanted = wanted or QueueFilter()
    rows = ledger.runs.queue(lambda path: source_of(path, project.root))
    if wanted.flow is not None:
        flows = ledger.runs.flows()
        if _name(wanted.flow) not in {_name(flow) for flow in flows}:
            raise UnknownName("flow", wanted.flow, flows)
    now = time.time()
    fitting = [row for row in rows if wanted.fits(row, now)]
    return Backlog(
        waiting=[row for row in fitting if not row.is_decided],
        decided=[row for row in fitting if row.is_decided],
        total=count_documents([row for row in rows if not row.is_decided]),
        every=rows,
    )


def read_items(ledger: Ledger, rows: Sequence[WaitingRow]) -> list[ReviewItem]:
    """Return the outcomes with their attempts and the decisions so far."""
    return [find_item(ledger, row.run_id, row.document_id, row.step) for row in rows]


def run_of_waiting(backlog: Backlog, document_id: str) -> str:
    """Return the run in which a document waits. Raises Misuse where it waits in none or several."""
    rows = [
        row
        for row in (*backlog.waiting, *backlog.decided)
        if row.document_id == document_id
    ]
    run_ids = list(dict.fromkeys(row.run_id for row in rows))
    if not run_ids:
        raise Misuse(
            f"'{document_id}' is no run, and no document of that name waits; "
            "`tierwise review` lists those that wait"
        )
    if len(run_ids) > 1:
        runs = "; ".join(
            dict.fromkeys(f"{row.run_id} ({row.source or row.flow})" for row in rows)
        )
        raise Misuse(
            f"'{document_id}' waits in several runs, name one of them before it: {runs}"
        )
    return run_ids[0]


def plan_retries(ledger: Ledger, backlog: Backlog) -> list[PlannedRetry]:
    """Return one retry for each run in which documents wait, the oldest run first."""
    rows = sorted(
        (*backlog.waiting, *backlog.decided),
        key=lambda row: (row.run_started_at, row.run_id),
    )
    meant: dict[str, set[str]] = {}
    for row in rows:
        meant.setdefault(row.run_id, set()).add(row.document_id)
    plans: list[PlannedRetry] = []
    for run_id, ids in meant.items():
        plans.append(planned(ledger, run_id, ids, backlog.open_of(run_id)))
    return plans


def _name(flow: str) -> str:
    return flow.replace("_", "-")
