"""Costs that a person fills in or changes later: a record of its own for each change.

An attempt keeps the cost that it was recorded with, and so the audit trail its hash. The new cost
is in a column beside it, and all sums use it. Budgets get one entry for each change.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import bindparam, insert, select, update

from tierwise.ledger.budgets import Accounts
from tierwise.ledger.people.seals import repricing_record, seal_row
from tierwise.ledger.rows import attempt_of
from tierwise.ledger.tables import (
    COST,
    AttemptRecord,
    BudgetEntry,
    CallRecord,
    LostCallRecord,
    RepricingRecord,
    Run,
    in_units,
)
from tierwise.ledger.views.lost import lost_calls
from tierwise.records import Attempt

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database

_Item = TypeVar("_Item")
_CHUNK = 500  # calls in one transaction, each with a record of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class CallScope:
    """The calls that are meant. None: of any model, any run, any time (seconds since the epoch).

    `with_known_costs`: calls of known cost too.
    """

    model: str | None = None
    run: str | None = None
    since: float | None = None
    with_known_costs: bool = False

    def data(self) -> dict[str, Any]:
        """Return the scope as plain data, for the record."""
        return {
            "model": self.model,
            "run": self.run,
            "since": self.since,
            "with_known_costs": self.with_known_costs,
        }


@dataclass(frozen=True, slots=True)
class NewCost:
    """The new cost of one call in USD, and the one that it replaces; None: unknown."""

    attempt: str
    old: Decimal | None
    new: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where new costs come from, and who decides on them."""

    scope: CallScope
    price: Mapping[str, Any]  # USD per million tokens by model, or USD for each call
    catalog_hash: str | None
    by: str
    note: str = ""


class Repricing:
    """New costs of recorded calls: `ledger.repricing`. Methods raise LedgerError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def calls(self, scope: CallScope) -> list[Attempt]:
        """Return the calls in scope that were made: those of unknown cost, unless it says more."""
        query = (
            select(AttemptRecord.__table__)
            .join(Run, Run.id == AttemptRecord.run_id)
            .where(AttemptRecord.reused.is_(False))
            .order_by(AttemptRecord.seq)
        )
        if not scope.with_known_costs:
            query = query.where(COST.is_(None))
        if scope.model is not None:
            query = query.where(AttemptRecord.model == scope.model)
        if scope.run is not None:
            query = query.where(AttemptRecord.run_id == scope.run)
        if scope.since is not None:
            query = query.where(Run.started_at >= scope.since)
        with self._database.reading() as connection:
            found = [attempt_of(row) for row in connection.execute(query)]
            found += self._lost(connection, scope)
        return found

    def _lost(self, connection: Connection, scope: CallScope) -> list[Attempt]:
        """Return the calls in scope that were lost with their process."""
        started = select(Run.id)
        if scope.run is not None:
            started = started.where(Run.id == scope.run)
        if scope.since is not None:
            started = started.where(Run.started_at >= scope.since)
        runs = set(connection.scalars(started))
        return [
            call.attempt
            for call in lost_calls(connection)
            if call.run_id in runs
            and scope.model in (None, call.attempt.model)
            and (scope.with_known_costs or call.attempt.cost is None)
        ]

    def reserved(self, attempts: Sequence[str]) -> Decimal:
        """Return the USD that some budget counts for these calls, the most of each call."""
        most: dict[str, Decimal] = {}
        with self._database.reading() as connection:
            for chunk in _chunks(attempts):
                for (name, _), usd in _counted(connection, chunk).items():
                    most[name] = max(usd, most.get(name, usd))
        return sum(most.values(), Decimal(0))

    def apply(self, changes: Sequence[NewCost], origin: Origin) -> int:
        """Record new costs, correct the budgets, and return the number of calls that changed.

        A call whose cost is no longer the old one, as another process changed it, is left as it is.
        A part of the calls is changed with its record, or not at all.
        """
        return sum(self._apply(chunk, origin) for chunk in _chunks(changes))

    def _apply(self, changes: Sequence[NewCost], origin: Origin) -> int:
        with (
            self._database.translated_errors("written"),
            self._database.writing() as connection,
        ):
            # The transaction holds the ledger's write lock, so nothing changes after this look.
            present = _present_costs(connection, [change.attempt for change in changes])
            changes = [
                change
                for change in changes
                if change.attempt in present
                and present[change.attempt] == change.old
                and change.new != change.old
            ]
            if not changes:
                return 0
            rows = [
                {"changed": change.attempt, "to_usd": in_units(change.new)}
                for change in changes
            ]
            connection.execute(_REPRICE_ATTEMPT, rows)
            connection.execute(_REPRICE_LOST, rows)
            self._correct_budgets(connection, changes)
            self._record(connection, changes, origin)
            return len(changes)

    def _correct_budgets(
        self, connection: Connection, changes: Sequence[NewCost]
    ) -> None:
        """Let each budget count the new cost in place of what it counted for a call."""
        names = [change.attempt for change in changes]
        counted = _counted(connection, names)
        budgets = {budget for _, budget in counted}
        accounts = Accounts(connection, budgets, set(names), time.time())
        new = {change.attempt: in_units(change.new) for change in changes}
        for (attempt, budget), usd in counted.items():
            accounts.reprice(budget, attempt, new[attempt] - usd)
        accounts.write()

    def _record(
        self, connection: Connection, changes: Sequence[NewCost], origin: Origin
    ) -> None:
        values = {
            "scope": origin.scope.data(),
            "price": dict(origin.price),
            "catalog_hash": origin.catalog_hash,
            "changes": [
                [change.attempt, _text(change.old), _text(change.new)]
                for change in changes
            ],
            "by": origin.by,
            "note": origin.note,
            "repriced_at": time.time(),
        }
        added = (
            insert(RepricingRecord).values(values).returning(RepricingRecord.__table__)
        )
        row = connection.execute(added).one()
        seal_row(connection, "repricing", row.seq, repricing_record(row))


def _chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def _text(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{in_units(usd).normalize():f}"


def _present_costs(
    connection: Connection, names: Sequence[str]
) -> dict[str, Decimal | None]:
    """Return the costs of calls as they are now.

    A lost call that is still a dead process's claim is moved to the lost calls first.
    """
    query = select(AttemptRecord.id, COST.label("cost")).where(
        AttemptRecord.id.in_(names)
    )
    costs = {row.id: row.cost for row in connection.execute(query)}
    for call in lost_calls(connection):
        name = call.attempt.id
        if name in names:
            costs[name] = call.attempt.cost
            _keep_lost(connection, name, call.attempt.call_hash)
    return costs


def _keep_lost(connection: Connection, name: str, call_hash: str) -> None:
    """Move a dead process's claim to the lost calls, if it is still a claim."""
    query = select(CallRecord.in_flight).where(
        CallRecord.call_hash == call_hash, CallRecord.owner.is_not(None)
    )
    in_flight = connection.scalar(query)
    if not in_flight or in_flight["id"] != name:
        return
    row = {
        "id": name,
        "run_id": in_flight["run_id"],
        "attempt": in_flight,
        "lost_at": time.time(),
    }
    connection.execute(insert(LostCallRecord).values(row))
    connection.execute(
        update(CallRecord)
        .where(CallRecord.call_hash == call_hash)
        .values(owner=None, lease_until=None, in_flight=None)
    )


def _counted(
    connection: Connection, names: Sequence[str]
) -> dict[tuple[str, str], Decimal]:
    """Return the USD that each budget counts for a call, by call and budget.

    The reservation of a lost call counts until it is settled.
    """
    query = (
        select(
            BudgetEntry.reservation,
            BudgetEntry.budget,
            BudgetEntry.kind,
            BudgetEntry.usd,
        )
        .where(BudgetEntry.reservation.in_(names))
        .order_by(BudgetEntry.seq)
    )
    counted: dict[tuple[str, str], Decimal] = {}
    for row in connection.execute(query):
        key = (row.reservation, row.budget)
        if row.kind == "repriced":
            counted[key] += row.usd
        else:  # reserved, then settled or lost in its place
            counted[key] = row.usd
    return counted


_REPRICE_ATTEMPT = (
    update(AttemptRecord)
    .where(AttemptRecord.id == bindparam("changed"))
    .values(repriced=bindparam("to_usd"))
)
_REPRICE_LOST = (
    update(LostCallRecord)
    .where(LostCallRecord.id == bindparam("changed"))
    .values(repriced=bindparam("to_usd"))
)
