"""Provider batches on record: their intent, their state, and the end of each item.

The calls of a batch are claimed by the batch itself, not by a process, so that any process may
collect it. An intent is committed before the upload. Items end one by one, each in one commit with
its attempt, its reply and the end of its reservation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, MutableMapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import delete, exists, func, select, update

from tierwise.ledger.budgets import Settlement
from tierwise.ledger.claims import HeldClaim
from tierwise.ledger.operations import Kind, Operation, OperationResult, lost_row
from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.processes import batch_owner, is_dead, is_here
from tierwise.ledger.rows import (
    Row,
    attempt_of,
    attempt_row,
    in_flight_attempt,
    in_flight_row,
    paid_row,
)
from tierwise.ledger.tables import (
    AttemptRecord,
    BatchItemRecord,
    BatchRecord,
    CallRecord,
    Run,
)
from tierwise.records import Attempt, Reply

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database
    from tierwise.ledger.writer import Writer

# The end of an item. `released`: it was not answered, and costs nothing. `lost`: nothing is known
# of its end. `late`: it was rescued, asked online meanwhile, and answered all the same.
ItemEnd = Literal["settled", "failed", "released", "lost", "late"]
ItemState = Literal[
    "waiting", "rescued", "settled", "failed", "released", "lost", "late"
]
OPEN_ITEMS: tuple[ItemState, ...] = ("waiting", "rescued")
INTENDED = "intended"  # the state of a batch that is not known to be at its provider

# A claim of a batch has no end of its own: the batch's end is its end.
_LEASE_S = 10 * 365 * 86400.0
# A process elsewhere, of which nothing is known, has uploaded its batch by then or is dead.
_UPLOADED_IN_S = 3600.0
_RECENT = 200  # batches that a turnaround is measured by


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """The state of a batch as its provider describes it. Times are epoch seconds."""

    state: str
    succeeded: int = 0
    failed: int = 0
    ended_at: float | None = None
    expires_at: float | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch that is about to be uploaded; the provider gets its id as metadata."""

    id: str
    run_id: str
    model: str
    created_at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One batch on record. Times are seconds since the epoch, UTC.

    `state` is `intended` until the batch is known to be at its provider, then the provider's.
    `open` counts the items whose answer may still come.
    """

    id: str
    run_id: str
    model: str
    owner: str
    provider_id: str | None
    state: str
    fault: str | None
    items: int
    succeeded: int
    failed: int
    created_at: float
    submitted_at: float | None
    ended_at: float | None
    expires_at: float | None
    collected_at: float | None
    open: int = 0

    @property
    def is_open(self) -> bool:
        """True while an answer may still come."""
        return self.collected_at is None

    def is_abandoned(self, now: float) -> bool:
        """Return True if it was not uploaded, as far as is known, and its process is dead."""
        if self.provider_id is not None or self.collected_at is not None:
            return False
        if is_here(self.owner):
            return is_dead(self.owner)
        return self.created_at < now - _UPLOADED_IN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItemRow:
    """One call of a batch, with its attempt as far as it is known before the answer."""

    batch_id: str
    call_hash: str
    state: ItemState
    run_id: str
    attempt: Attempt
    budgets: tuple[str, ...] = ()


class Batches:
    """The provider batches of a ledger: `ledger.batches`. Methods raise LedgerError.

    Async methods return after the commit and belong to the ledger's event loop; the others may be
    called from any thread.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        owner: str,
        held: MutableMapping[str, HeldClaim],
        *,
        on_settled: Callable[[str, OperationResult], None],
    ) -> None:
        """`held` are the claims of this process, by call hash."""
        self._database = database
        self._writer = writer
        self._owner = owner
        self._held = held
        self._on_settled = on_settled

    async def intend(
        self, batch: NewBatch, attempts: Sequence[Attempt]
    ) -> frozenset[str]:
        """Record a batch that is about to be uploaded; return the hashes of its calls.

        The claims of this process on the calls pass to the batch, with their money. A call whose
        claim was lost meanwhile is not among those returned, and must not be sent.
        """
        held = {
            attempt.call_hash: self._held[attempt.call_hash]
            for attempt in attempts
            if attempt.call_hash in self._held
        }
        attempts = [attempt for attempt in attempts if attempt.call_hash in held]
        owner = batch_owner(batch.id)
        row: Row = {
            "id": batch.id,
            "run_id": batch.run_id,
            "model": batch.model,
            "owner": self._owner,
            "provider_id": None,
            "state": INTENDED,
            "fault": None,
            "items": len(attempts),
            "succeeded": 0,
            "failed": 0,
            "created_at": batch.created_at,
            "submitted_at": None,
            "ended_at": None,
            "expires_at": None,
            "collected_at": None,
        }
        until = time.time() + _LEASE_S
        items: list[Row] = []
        moved: list[Row] = []
        money: list[Row] = []
        for attempt in attempts:
            claim = held[attempt.call_hash]
            items.append(
                {
                    "batch_id": batch.id,
                    "call_hash": attempt.call_hash,
                    "attempt_id": attempt.id,
                    "state": "waiting",
                    "attempt": in_flight_row(batch.run_id, attempt),
                    "budgets": list(claim.budgets),
                }
            )
            moved.append(
                {
                    "call": attempt.call_hash,
                    "holder": claim.token,
                    "to_owner": owner,
                    "until": until,
                }
            )
            if claim.reservation is not None:
                money.append(
                    {
                        "reservation": claim.reservation.id,
                        "holder": claim.token,
                        "to_owner": owner,
                    }
                )
        rows: dict[Kind, Sequence[Row]] = {"batch": [row], "item": items}
        rows["moved"] = moved
        rows["moved_money"] = money
        await self._writer.write(Operation(rows=rows))
        granted = await asyncio.to_thread(self._calls_of, batch.id)
        for call_hash in held:
            # The claim of one that was lost is another owner's by now.
            self._held.pop(call_hash, None)
        for call_hash in held.keys() - granted:
            await self._end_item(batch.id, call_hash, "released")
        return granted

    async def submitted(self, batch_id: str, provider_id: str) -> None:
        """Record the provider's id of a batch, at once after its upload."""
        row = {"batch": batch_id, "provider": provider_id, "at": time.time()}
        await self._writer.write(Operation(rows={"batch_submitted": [row]}))

    async def noted(self, batch_id: str, status: BatchStatus) -> None:
        """Record the state of a batch."""
        row = {
            "batch": batch_id,
            "to_state": status.state,
            "to_fault": status.fault,
            "good": status.succeeded,
            "bad": status.failed,
            "ended": status.ended_at,
            "expires": status.expires_at,
        }
        await self._writer.write(Operation(rows={"batch_status": [row]}))

    async def settle(
        self,
        item: BatchItemRow,
        run_id: str,
        attempt: Attempt,
        reply: Reply | None,
        *,
        note: str = "",
    ) -> None:
        """Record the end of an item: its attempt in the run `run_id`, and its reply if any.

        The reservation is settled in the same commit. The reply of an item that was rescued is not
        kept: its call was asked online. An item that has ended stays as it is.
        """
        rows: dict[Kind, Sequence[Row]] = {"attempt": [attempt_row(run_id, attempt)]}
        end: ItemEnd = "settled" if reply else "failed"
        if item.state == "rescued":
            end = "late"
        elif reply:
            rows["paid"] = [paid_row(attempt, reply, time.time())]
        else:
            rows["free"] = [_freed(item)]
        rows["item_end"] = [_ended(item.batch_id, item.call_hash, end)]
        settlement = Settlement(attempt.id, item.budgets, attempt.cost, note)
        # Another process may collect the same batch: its attempt has the same id.
        operation = Operation(rows=rows, settlement=settlement, repeated=True)
        result = await self._writer.write(operation)
        self._on_settled(item.call_hash, result)

    async def release(self, item: BatchItemRow, note: str) -> None:
        """Give up an item whose call was never sent: it costs nothing, and has no attempt."""
        rows: dict[Kind, Sequence[Row]] = {
            "free": [_freed(item)],
            "item_end": [_ended(item.batch_id, item.call_hash, "released")],
        }
        settlement = Settlement(item.attempt.id, item.budgets, Decimal(0), note)
        result = await self._writer.write(Operation(rows=rows, settlement=settlement))
        self._on_settled(item.call_hash, result)

    async def lose(self, item: BatchItemRow) -> None:
        """Give up an item of whose end nothing is known: it may have been billed."""
        attempt = in_flight_row(item.run_id, item.attempt)
        rows: dict[Kind, Sequence[Row]] = {
            "lost": [lost_row(attempt, time.time())],
            "free": [_freed(item)],
            "item_end": [_ended(item.batch_id, item.call_hash, "lost")],
        }
        settlement = Settlement(item.attempt.id, item.budgets, None)
        result = await self._writer.write(Operation(rows=rows, settlement=settlement))
        self._on_settled(item.call_hash, result)

    async def rescue(self, items: Sequence[BatchItemRow]) -> None:
        """Let the calls of items be asked online, though their answer may still come."""
        if not items:
            return
        freed = [_freed(item) for item in items]
        ended = [_ended(item.batch_id, item.call_hash, "rescued") for item in items]
        await self._writer.write(Operation(rows={"free": freed, "item_end": ended}))
        for item in items:
            self._on_settled(item.call_hash, None)

    async def _end_item(self, batch_id: str, call_hash: str, end: ItemEnd) -> None:
        row = _ended(batch_id, call_hash, end)
        await self._writer.write(Operation(rows={"item_end": [row]}))

    def close_if_done(self, batch_id: str) -> bool:
        """Mark a batch as collected if none of its items is open; return True if it is."""
        open_item = exists().where(
            BatchItemRecord.batch_id == batch_id, BatchItemRecord.state.in_(OPEN_ITEMS)
        )
        mark = (
            update(BatchRecord)
            .where(
                BatchRecord.id == batch_id,
                BatchRecord.collected_at.is_(None),
                ~open_item,
            )
            .values(collected_at=time.time())
        )
        with self._database.writing() as connection:
            connection.execute(mark)
            still_open = connection.scalar(
                select(BatchRecord.id).where(
                    BatchRecord.id == batch_id, BatchRecord.collected_at.is_(None)
                )
            )
        return still_open is None

    def adopt(self, row: BatchRow) -> bool:
        """Take over the upload of an abandoned batch; False if another process was first."""
        take = (
            update(BatchRecord)
            .where(
                BatchRecord.id == row.id,
                BatchRecord.owner == row.owner,
                BatchRecord.provider_id.is_(None),
            )
            .values(owner=self._owner)
        )
        with self._database.writing() as connection:
            return connection.execute(take).rowcount == 1

    @property
    def owner(self) -> str:
        """The name of this process as an owner of batches."""
        return self._owner

    @outlasts_outages
    def row(self, batch_id: str) -> BatchRow | None:
        """Return one batch."""
        found = self._rows(BatchRecord.id == batch_id)
        return found[0] if found else None

    @outlasts_outages
    def open_batches(self, run_id: str | None = None) -> list[BatchRow]:
        """Return the batches whose answers may still come, of one run or of all, oldest first."""
        criteria: list[Any] = [BatchRecord.collected_at.is_(None)]
        if run_id is not None:
            criteria.append(BatchRecord.run_id == run_id)
        return self._rows(*criteria)

    @outlasts_outages
    def of_run(self, run_id: str) -> list[BatchRow]:
        """Return all batches of a run, oldest first."""
        return self._rows(BatchRecord.run_id == run_id)

    @outlasts_outages
    def newest(self, limit: int = 20) -> list[BatchRow]:
        """Return the newest batches, the newest first."""
        newest = (
            select(BatchRecord.id).order_by(BatchRecord.created_at.desc()).limit(limit)
        )
        return self._rows(BatchRecord.id.in_(newest))[::-1]

    def _rows(self, *criteria: Any) -> list[BatchRow]:
        open_items = (
            select(func.count())
            .where(
                BatchItemRecord.batch_id == BatchRecord.id,
                BatchItemRecord.state.in_(OPEN_ITEMS),
            )
            .scalar_subquery()
        )
        query = (
            select(BatchRecord.__table__, open_items.label("open"))
            .where(*criteria)
            .order_by(BatchRecord.created_at, BatchRecord.id)
        )
        with self._database.reading() as connection:
            return [BatchRow(**row._mapping) for row in connection.execute(query)]

    @outlasts_outages
    def items(
        self, batch_id: str, states: Collection[ItemState] = OPEN_ITEMS
    ) -> list[BatchItemRow]:
        """Return the items of a batch that are in these states."""
        query = select(BatchItemRecord.__table__).where(
            BatchItemRecord.batch_id == batch_id, BatchItemRecord.state.in_(states)
        )
        with self._database.reading() as connection:
            return [_item_of(row) for row in connection.execute(query)]

    @outlasts_outages
    def run_to_record_in(self, run_id: str, collecting_run: str) -> str:
        """Return the run that an item's attempt is recorded in.

        It is the item's own run while that is under way; a run that has ended is sealed, so the
        run that collects has the cost.
        """
        if run_id == collecting_run:
            return run_id
        query = select(Run.state, Run.owner).where(Run.id == run_id)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is not None and row.state == "detached":
            return run_id
        if row is None or row.state != "running":
            return collecting_run
        if row.owner is None or is_dead(row.owner):
            return collecting_run
        return run_id

    @outlasts_outages
    def seconds_taken(self, model: str) -> list[float]:
        """Return how long a model's last batches took, from their upload to their end."""
        taken = BatchRecord.ended_at - BatchRecord.submitted_at
        query = (
            select(taken)
            .where(
                BatchRecord.model == model,
                BatchRecord.state == "ended",
                BatchRecord.submitted_at.is_not(None),
                BatchRecord.ended_at.is_not(None),
            )
            .order_by(BatchRecord.submitted_at.desc())
            .limit(_RECENT)
        )
        with self._database.reading() as connection:
            return [max(0.0, seconds or 0.0) for seconds in connection.scalars(query)]

    def _calls_of(self, batch_id: str) -> frozenset[str]:
        """Return the hashes of the calls that a batch has claimed."""
        query = select(CallRecord.call_hash).where(
            CallRecord.owner == batch_owner(batch_id)
        )
        with self._database.reading() as connection:
            return frozenset(connection.scalars(query))

    @outlasts_outages
    def recorded_attempt(self, attempt_id: str) -> Attempt | None:
        """Return an attempt that is on record, without its text and verdicts."""
        query = select(AttemptRecord.__table__).where(AttemptRecord.id == attempt_id)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else attempt_of(row)

    @outlasts_outages
    def failed_attempts(self, run_id: str, like: Attempt) -> list[Attempt]:
        """Return a run's failed attempts of a document's call, in the order of recording."""
        query = (
            select(AttemptRecord.__table__)
            .where(
                AttemptRecord.run_id == run_id,
                AttemptRecord.document_id == like.document_id,
                AttemptRecord.step == like.step,
                AttemptRecord.call_hash == like.call_hash,
                AttemptRecord.error.is_not(None),
            )
            .order_by(AttemptRecord.seq)
        )
        with self._database.reading() as connection:
            return [attempt_of(row) for row in connection.execute(query)]


def remove_batches(connection: Connection, run_ids: Sequence[str]) -> None:
    """Delete the collected batches of runs whose rows are removed, with their items."""
    gone = (BatchRecord.run_id.in_(run_ids), BatchRecord.collected_at.is_not(None))
    ids = select(BatchRecord.id).where(*gone)
    connection.execute(delete(BatchItemRecord).where(BatchItemRecord.batch_id.in_(ids)))
    connection.execute(delete(BatchRecord).where(*gone))


def _item_of(row: Any) -> BatchItemRow:
    return BatchItemRow(
        batch_id=row.batch_id,
        call_hash=row.call_hash,
        state=row.state,
        run_id=row.attempt["run_id"],
        attempt=in_flight_attempt(row.attempt),
        budgets=tuple(row.budgets or ()),
    )


def _freed(item: BatchItemRow) -> Row:
    return {"call": item.call_hash, "holder": batch_owner(item.batch_id)}


def _ended(batch_id: str, call_hash: str, state: ItemState) -> Row:
    return {"batch": batch_id, "call": call_hash, "to_state": state}
