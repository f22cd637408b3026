"""Budgets on record: what is reserved and spent under each, changed only together with claims and attempts.

A reservation lives as long as its claim on the call. One that was left behind, by a process that died or lost touch,
is of unknown cost: the call may have been billed. It keeps counting as reserved until another call is short of
money; then it is `lost`, which counts as spent in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import bindparam, delete, insert, select, update

from tierwise.ledger.processes import is_dead
from tierwise.ledger.rows import Row
from tierwise.ledger.tables import (
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

Change = Literal["reserved", "settled", "lost", "granted"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a reservation: what its call cost in USD, or None when that is unknown: then all of it."""

    id: str
    budgets: tuple[str, ...]
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class LimitIncrease:
    """USD that a person adds to a budget's limit, and a word on it."""

    budget: str
    usd: Decimal
    note: str


@dataclass(frozen=True, slots=True)
class ReservationResult:
    """How budgets stand after an operation, and what became of a wish.

    `short`: what calls under way have reserved must come back first. `refused` says why it can't be had at all,
    and `poor` which budget is to blame.
    """

    states: tuple[BudgetState, ...]
    short: bool = False
    refused: str | None = None
    poor: BudgetState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChange:
    """One change of one budget and how it stood after it; `usd` was set aside, spent or added to the limit."""

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
    """The budgets that one transaction touches. Everything is decided in memory, then written at once."""

    def __init__(
        self, connection: Connection, names: Iterable[str], reservations: Iterable[str]
    ) -> None:
        self._connection = connection
        self._now = time.time()
        self._rows: dict[str, Row] = {}
        self._open: dict[tuple[str, str], Row] = {}  # (reservation, budget)
        self._known = self._load(set(names), set(reservations))
        self._fresh: set[tuple[str, str]] = set()  # reserved in this very transaction
        self._ended: set[tuple[str, str]] = set()
        self._changed: set[str] = set()
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
        """Set a call's worst case aside under every budget, or under none."""
        for name, limit in reservation.limits.items():
            self._row(name)["limit_usd"] = in_units(limit)
        if reservation.usd is None:
            why = "its price is unknown; under a budget it must be named in budget.allow_unpriced"
            return ReservationResult(self._states(reservation.limits), refused=why)
        usd = in_units(reservation.usd, rounding=ROUND_CEILING)
        if any(usd > state.free for state in self._states(reservation.limits)):
            self._sweep(reservation.limits)
        states = self._states(reservation.limits)
        if poor := next((state for state in states if usd > state.left), None):
            why = f"the call may cost {usd:.6f} USD, the budget '{poor.name}' has {poor.left:.6f} left"
            return ReservationResult(states, refused=why, poor=poor)
        if any(usd > state.free for state in states):
            return ReservationResult(states, short=True)
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
        return self.funds(reservation.limits)

    def settle(self, settlements: Iterable[Settlement]) -> None:
        """Spend what calls cost, and give the rest back. What was settled before, or lost, stays as it is."""
        for settlement in settlements:
            for name in settlement.budgets:
                if row := self._open.get((settlement.id, name)):
                    cost = row["usd"] if settlement.cost is None else in_units(settlement.cost)
                    self._end(row, "settled", cost)

    def funds(self, names: Iterable[str]) -> ReservationResult:
        """How budgets stand now."""
        return ReservationResult(self._states(names))

    def grant(self, grant: LimitIncrease) -> ReservationResult:
        """Add to a budget's limit."""
        usd = in_units(grant.usd)
        self._row(grant.budget)["granted_usd"] += usd
        self._change(grant.budget, "granted", usd, None, note=grant.note)
        return self.funds([grant.budget])

    def write(self) -> None:
        """Write all that changed."""
        new = [self._rows[name] for name in self._changed - self._known]
        old = [
            {f"to_{key}": usd for key, usd in self._rows[name].items()}
            for name in self._changed & self._known
        ]
        fresh = [self._open[key] for key in self._fresh if key in self._open]
        ended = [
            {"ended": reservation, "under": budget}
            for reservation, budget in self._ended - self._fresh
        ]
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
                "at": self._now,
                "note": note,
            }
        )

    def _end(self, row: Row, kind: Change, cost: Decimal) -> None:
        key = row["id"], row["budget"]
        self._open.pop(key, None)
        self._ended.add(key)
        self._change(row["budget"], kind, cost, row["id"], spent=cost, reserved=-row["usd"])

    def _sweep(self, names: Iterable[str]) -> None:
        """Count what dead owners left behind as spent; once a transaction, as it asks for every call under way."""
        if wanted := set(names) - self._swept:
            self._swept |= wanted
            for row in self._connection.execute(_HELD.where(ReservationRecord.budget.in_(wanted))):
                alive = (
                    row.holder == row.owner
                    and row.lease_until > self._now
                    and not is_dead(row.owner)
                )
                if not alive and (row.id, row.budget) not in self._ended:
                    self._end(dict(row._mapping), "lost", row.usd)


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
    ReservationRecord.id == bindparam("ended"), ReservationRecord.budget == bindparam("under")
)
_HELD = select(
    ReservationRecord.__table__, CallRecord.owner.label("holder"), CallRecord.lease_until
).outerjoin(CallRecord, CallRecord.call_hash == ReservationRecord.call_hash)


def _state(row: Mapping[str, Any]) -> BudgetState:
    limit = row["limit_usd"] + row["granted_usd"]
    return BudgetState(
        row["name"], limit, row["spent_usd"], row["reserved_usd"], row["granted_usd"]
    )


class Budgets:
    """The budgets of a ledger. Methods may be called from any thread and raise LedgerError."""

    def __init__(self, database: Database, top_up: Callable[[LimitIncrease], None]) -> None:
        self._database = database
        self._top_up = top_up

    def states(self, names: Sequence[str] | None = None) -> list[BudgetState]:
        """How budgets stand, by name; all of them, or those among `names` that have been drawn on."""
        query = select(BudgetRecord.__table__).order_by(BudgetRecord.name)
        if names is not None:
            query = query.where(BudgetRecord.name.in_(names))
        with self._database.reading() as connection:
            return [_state(dict(row._mapping)) for row in connection.execute(query)]

    def history(self, name: str) -> Iterator[BudgetChange]:
        """Every change of one budget, in the order of the commits."""
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
        """Add to a budget's limit, for all who draw on it, and put that on record."""
        self._top_up(LimitIncrease(name, usd, note))
        return self.states([name])[0]
