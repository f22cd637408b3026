"""Budgets on record: the money reserved and spent, changed only together with claims and attempts.

A reservation lives as long as its claim on the call. One that was left behind, by a process that
died or lost touch, is of unknown cost: the call may have been billed. It counts as reserved until
another call lacks the money; then it is `lost`, which counts as spent in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import bindparam, delete, insert, select, update

from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.processes import is_dead, is_gathering
from tierwise.ledger.rows import Row
from tierwise.ledger.tables import (
    BatchItemRecord,
    BudgetEntry,
    BudgetRecord,
    CallRecord,
    ReservationRecord,
    in_units,
)
from tierwise.policy.budget import ZERO, BudgetState, ReservationRequest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database

Change = Literal["reserved", "settled", "lost", "granted", "repriced"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a reservation: the cost of its call in USD, None when unknown: then all of it.

    `note` says why a call that was made cost nothing.
    """

    id: str
    budgets: tuple[str, ...]
    cost: Decimal | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class LimitIncrease:
    """USD that a person adds to a budget's limit, and a word on it.

    Budget and time (epoch seconds) identify it: it is not added twice.
    """

    budget: str
    usd: Decimal
    note: str
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class ReservationResult:
    """The states of budgets after an operation, and the decision on a reservation.

    `shortfall`: calls under way must give money back first. `refused` is the reason why there is
    too little in any case, and `exhausted` the budget that lacks it.
    """

    states: tuple[BudgetState, ...]
    shortfall: bool = False
    refused: str | None = None
    exhausted: BudgetState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChange:
    """One change of a budget and its state after it.

    `usd` was reserved, spent or added to the limit.
    """

    budget: str
    kind: Change
    reservation: str | None  # the attempt that it was for
    usd: Decimal
    limit: Decimal
    spent: Decimal
    reserved: Decimal
    at: float  # seconds since the epoch, UTC
    note: str


class Accounts:
    """The budgets that one transaction touches: decided in memory, then written at once."""

    def __init__(
        self,
        connection: Connection,
        names: Iterable[str],
        reservations: Iterable[str],
        lease_time: float,
    ) -> None:
        self._connection = connection
        self._now = time.time()
        self._lease_time = lease_time
        self._rows: dict[str, Row] = {}
        self._open: dict[tuple[str, str], Row] = {}  # (reservation, budget)
        # Names that have a row already: those are updated, the others inserted.
        self._known = self._load(set(names), set(reservations))
        self._fresh: set[tuple[str, str]] = set()  # reserved in this very transaction
        self._ended: set[tuple[str, str]] = set()  # settled or lost
        self._changed: set[str] = set()  # names of budgets
        self._entries: list[Row] = []
        self._swept: set[str] = set()

    def _load(self, names: set[str], reservations: set[str]) -> frozenset[str]:
        for row in self._connection.execute(
            select(BudgetRecord.__table__).where(BudgetRecord.name.in_(names))
        ):
            self._rows[row.name] = dict(row._mapping)
        if reservations:
            query = select(ReservationRecord.__table__).where(
                ReservationRecord.id.in_(reservations)
            )
            for row in self._connection.execute(query):
                self._open[row.id, row.budget] = dict(row._mapping)
        return frozenset(self._rows)

    def reserve(
        self, reservation: ReservationRequest, call_hash: str, owner: str
    ) -> ReservationResult:
        """Reserve a call's worst case under every budget, or under none."""
        for name, limit in reservation.limits.items():
            # The present rules' limit counts, even for a budget that was drawn on under another.
            # Top-ups are kept apart from it, so they remain.
            self._row(name)["limit_usd"] = in_units(limit)
        if reservation.usd is None:
            why = "its price is unknown; under a budget it must be named in budget.allow_unpriced"
            return ReservationResult(self._states(reservation.limits), refused=why)
        # Rounded up: a call must never cost more than is reserved for it.
        usd = in_units(reservation.usd, rounding=ROUND_CEILING)
        if any(usd > state.free for state in self._states(reservation.limits)):
            # Only now look for reservations that dead processes left behind: it is a costly query.
            self._sweep(reservation.limits)
        states = self._states(reservation.limits)
        # More than `left`, and no call under way can help; more than `free`, and waiting may.
        exhausted = next((state for state in states if usd > state.left), None)
        if exhausted:
            why = (
                f"the call may cost {usd:.6f} USD, "
                f"the budget '{exhausted.name}' has {exhausted.left:.6f} left"
            )
            return ReservationResult(states, refused=why, exhausted=exhausted)
        if any(usd > state.free for state in states):
            return ReservationResult(states, shortfall=True)
        for name in reservation.limits:
            row = {
                "id": reservation.id,
                "budget": name,
                "call_hash": call_hash,
                "owner": owner,
                "usd": usd,
            }
            self._open[reservation.id, name] = row
            self._fresh.add((reservation.id, name))
            self._change(name, "reserved", usd, reservation.id, reserved=usd)
        return self.result(reservation.limits)

    def settle(self, settlements: Iterable[Settlement]) -> None:
        """Spend the costs of calls, and give the rest back.

        A reservation that was settled before, or lost, stays as it is.
        """
        for settlement in settlements:
            for name in settlement.budgets:
                row = self._open.get((settlement.id, name))
                if row is None:
                    continue
                cost = row["usd"]  # an unknown cost counts in full
                if settlement.cost is not None:
                    cost = in_units(settlement.cost)
                self._end(row, "settled", cost, settlement.note)

    def result(self, names: Iterable[str]) -> ReservationResult:
        """Return the present states of budgets."""
        return ReservationResult(self._states(names))

    def increase(self, increase: LimitIncrease) -> ReservationResult:
        """Add to a budget's limit."""
        usd = in_units(increase.usd)
        self._row(increase.budget)["granted_usd"] += usd
        self._change(
            increase.budget, "granted", usd, None, note=increase.note, at=increase.at
        )
        return self.result([increase.budget])

    def reprice(self, budget: str, reservation: str, usd: Decimal) -> None:
        """Add to what was spent for a call, or take from it; one that is still reserved is lost."""
        row = self._open.get((reservation, budget))
        if row is not None:
            self._end(row, "lost", row["usd"])
        self._change(budget, "repriced", usd, reservation, spent=usd)

    def write(self) -> None:
        """Write all that changed."""
        # A name in `_rows` that did not change was only looked at; it gets no row.
        new = [self._rows[name] for name in self._changed - self._known]
        old = [
            {f"to_{key}": usd for key, usd in self._rows[name].items()}
            for name in self._changed & self._known
        ]
        # What was both reserved and ended in this transaction gets no row, so has none to delete.
        fresh = [self._open[key] for key in self._fresh if key in self._open]
        ended = [
            {"ended": reservation, "under": budget}
            for reservation, budget in self._ended - self._fresh
        ]
        # Budgets come first: entries and reservations refer to them.
        for statement, rows in (
            (insert(BudgetRecord), new),
            (_UPDATE, old),
            (insert(BudgetEntry), self._entries),
            (insert(ReservationRecord), fresh),
            (_END, ended),
        ):
            if rows:
                self._connection.execute(statement, rows)

    def _row(self, name: str) -> Row:
        empty = {
            "name": name,
            "limit_usd": ZERO,
            "granted_usd": ZERO,
            "spent_usd": ZERO,
            "reserved_usd": ZERO,
        }
        return self._rows.setdefault(name, empty)

    def _states(self, names: Iterable[str]) -> tuple[BudgetState, ...]:
        return tuple(_state(self._row(name)) for name in names)

    def _change(
        self,
        name: str,
        kind: Change,
        usd: Decimal,
        reservation: str | None,
        *,
        spent: Decimal = ZERO,
        reserved: Decimal = ZERO,
        note: str = "",
        at: float | None = None,
    ) -> None:
        row = self._row(name)
        row["spent_usd"] += spent
        row["reserved_usd"] += reserved
        self._changed.add(name)
        self._entries.append(
            {
                "budget": name,
                "kind": kind,
                "reservation": reservation,
                "usd": usd,
                "limit_usd": row["limit_usd"] + row["granted_usd"],
                "spent_usd": row["spent_usd"],
                "reserved_usd": row["reserved_usd"],
                "at": self._now if at is None else at,
                "note": note,
            }
        )

    def _end(self, row: Row, kind: Change, cost: Decimal, note: str = "") -> None:
        key = row["id"], row["budget"]
        self._open.pop(key, None)
        self._ended.add(key)
        self._change(
            row["budget"],
            kind,
            cost,
            row["id"],
            spent=cost,
            reserved=-row["usd"],
            note=note,
        )

    def _sweep(self, names: Iterable[str]) -> None:
        """Count the reservations of dead owners as spent.

        At most once for each budget in a transaction, as it reads every call under way.
        """
        unswept = set(names) - self._swept
        if not unswept:
            return
        self._swept |= unswept
        in_batches = self._reserved_in_batches()
        query = _RESERVED.where(ReservationRecord.budget.in_(unswept))
        for row in self._connection.execute(query):
            if row.id in in_batches:
                continue
            # A holder always has a lease, so `lease_until` is never None where it is compared.
            has_claim = row.holder == row.owner and row.lease_until > self._lease_time
            if has_claim and not is_dead(row.owner):
                continue
            # The query does not see what this transaction has ended, as that is written last.
            if (row.id, row.budget) in self._ended:
                continue
            if is_gathering(row.owner):
                # Its process died before the batch was on its way.
                self._end(dict(row._mapping), "settled", ZERO, "not sent")
                continue
            self._end(dict(row._mapping), "lost", row.usd)

    def _reserved_in_batches(self) -> frozenset[str]:
        """Return the attempts whose answer, or bill, may still come with a batch."""
        query = select(BatchItemRecord.attempt_id).where(
            BatchItemRecord.state.in_(("waiting", "rescued"))
        )
        return frozenset(self._connection.scalars(query))


# Parameters have other names than columns, since SQLAlchemy keeps those for `values`.
_UPDATE = (
    update(BudgetRecord)
    .where(BudgetRecord.name == bindparam("to_name"))
    .values(
        {
            column: bindparam(f"to_{column}")
            for column in ("limit_usd", "granted_usd", "spent_usd", "reserved_usd")
        }
    )
)
_END = delete(ReservationRecord).where(
    ReservationRecord.id == bindparam("ended"),
    ReservationRecord.budget == bindparam("under"),
)
# An outer join: a reservation whose call has no row has lost its claim too.
_RESERVED = select(
    ReservationRecord.__table__,
    CallRecord.owner.label("holder"),
    CallRecord.lease_until,
).outerjoin(CallRecord, CallRecord.call_hash == ReservationRecord.call_hash)


def _state(row: Mapping[str, Any]) -> BudgetState:
    limit = row["limit_usd"] + row["granted_usd"]
    return BudgetState(
        row["name"], limit, row["spent_usd"], row["reserved_usd"], row["granted_usd"]
    )


class Budgets:
    """The budgets of a ledger. Methods may be called from any thread and raise LedgerError."""

    def __init__(
        self, database: Database, top_up: Callable[[LimitIncrease], None]
    ) -> None:
        self._database = database
        self._top_up = top_up

    @outlasts_outages
    def states(self, names: Sequence[str] | None = None) -> list[BudgetState]:
        """Return the states of budgets by name: all, or those of `names` that were drawn on."""
        query = select(BudgetRecord.__table__).order_by(BudgetRecord.name)
        if names is not None:
            query = query.where(BudgetRecord.name.in_(names))
        with self._database.reading() as connection:
            return [_state(dict(row._mapping)) for row in connection.execute(query)]

    def history(self, name: str) -> Iterator[BudgetChange]:
        """Yield the changes of one budget, in the order of the commits."""
        query = (
            select(BudgetEntry.__table__)
            .where(BudgetEntry.budget == name)
            .order_by(BudgetEntry.seq)
        )
        with self._database.reading() as connection:
            for row in connection.execute(query, execution_options={"yield_per": 1000}):
                yield BudgetChange(
                    budget=row.budget,
                    kind=row.kind,
                    reservation=row.reservation,
                    usd=row.usd,
                    limit=row.limit_usd,
                    spent=row.spent_usd,
                    reserved=row.reserved_usd,
                    at=row.at,
                    note=row.note,
                )

    def top_up(self, name: str, usd: Decimal, note: str = "") -> BudgetState:
        """Add to a budget's limit, for all runs that draw on it, and record that."""
        self._top_up(LimitIncrease(name, usd, note))
        # The increase has made the row if there was none.
        return self.states([name])[0]
