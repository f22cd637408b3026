"""The writes to the ledger as values, and the SQL that writes several in one transaction."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import bindparam, insert, inspect, select, text, update

from tierwise.errors import LedgerError
from tierwise.ledger.budgets import (
    Accounts,
    LimitIncrease,
    ReservationResult,
    Settlement,
)
from tierwise.ledger.processes import is_dead
from tierwise.ledger.rows import Paid, Row, reply_of
from tierwise.ledger.tables import (
    COST,
    AttemptRecord,
    AuditRecord,
    Base,
    BatchItemRecord,
    BatchRecord,
    BudgetEntry,
    CallRecord,
    LostCallRecord,
    OutcomeRecord,
    ReservationRecord,
    Run,
    VerdictRecord,
)
from tierwise.ledger.upserts import insert_into
from tierwise.policy.budget import ReservationRequest

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Dialect, Executable

Kind = Literal[
    "start",
    "attempt",
    "paid",
    "lost",
    "verdict",
    "outcome",
    "audit",
    "finish",
    "alive",
    "renew",
    "free",
    "batch",
    "item",
    "moved",
    "moved_money",
    "batch_submitted",
    "batch_status",
    "item_end",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A request to pay for a call.

    Replies paid before `fresh_since` (seconds since the epoch) do not count.

    With a reservation, the claim is granted together with the money, or not at all. `in_flight` is
    the row of the attempt that the claim is for, in case that its end is never recorded.
    """

    call_hash: str
    owner: str
    lease_s: float
    fresh_since: float | None = None
    reservation: ReservationRequest | None = None
    in_flight: Row | None = None


@dataclass(frozen=True, slots=True)
class ClaimedElsewhere:
    """Another owner pays for this call; its lease lasts `seconds` more."""

    seconds: float
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Rows that are written together or not at all, with the end of a reservation.

    Or a claim, or an increase of a budget's limit. `repeated`: it may be written already.
    """

    rows: Mapping[Kind, Sequence[Row]] = field(default_factory=dict)
    claim: Claim | None = None
    settlement: Settlement | None = None
    increase: LimitIncrease | None = None
    repeated: bool = False


# The result of an operation. `is_granted` says which results of a claim grant it.
OperationResult = Paid | ClaimedElsewhere | ReservationResult | None


def apply(
    connection: Connection,
    operations: Sequence[Operation],
    *,
    lease_time: float,
    repeated: bool = False,
) -> list[OperationResult]:
    """Write all operations and return a result for each.

    The order of the rows does not matter: no caller has seen a result of this transaction yet.
    `lease_time` is the time that leases are compared with. `repeated` says that some of the
    operations may be written already, as the answer to an earlier commit was lost.
    """
    done = _Done()
    if repeated or any(operation.repeated for operation in operations):
        done = _already_done(connection, operations)
    rows: dict[Kind, list[Row]] = defaultdict(list)
    for operation in operations:
        if done.has(operation):
            continue
        for kind, added in operation.rows.items():
            rows[kind].extend(added)
    freed = rows.pop("free", [])
    for kind, statement in _statements(connection.dialect.name).items():
        if not rows[kind]:
            continue
        result = _execute(connection, statement, rows[kind])
        if kind == "finish" and result.rowcount != len(rows[kind]):
            raise LedgerError(
                f"no run {rows[kind][0]['run']} to finish; it was never started"
            )
    results = _decide(connection, operations, done, lease_time)
    # After the claims, so that a claim that was given up in this very transaction does not stay.
    if freed:
        connection.execute(_FREE, freed)
    return results


@dataclass(frozen=True, slots=True)
class _Done:
    """What of some operations is on record already, by their keys.

    Other rows may be written again as they are: that changes nothing.
    """

    runs: frozenset[tuple[str, str]] = frozenset()  # id and owner
    attempts: frozenset[str] = frozenset()
    increases: frozenset[tuple[str, float]] = frozenset()  # budget and time

    def has(self, operation: Operation) -> bool:
        """Return True if an operation was written: its rows were written together."""
        for row in operation.rows.get("start", ()):
            if (row["id"], row["owner"]) in self.runs:
                return True
        return any(
            row["id"] in self.attempts for row in operation.rows.get("attempt", ())
        )


def _already_done(connection: Connection, operations: Sequence[Operation]) -> _Done:
    """Return what of these operations an earlier transaction has written."""
    run_ids: set[str] = set()
    attempt_ids: set[str] = set()
    budgets: set[str] = set()
    for operation in operations:
        run_ids.update(row["id"] for row in operation.rows.get("start", ()))
        attempt_ids.update(row["id"] for row in operation.rows.get("attempt", ()))
        if operation.increase:
            budgets.add(operation.increase.budget)
    runs = connection.execute(select(Run.id, Run.owner).where(Run.id.in_(run_ids)))
    attempts = connection.scalars(
        select(AttemptRecord.id).where(AttemptRecord.id.in_(attempt_ids))
    )
    increases = connection.execute(
        select(BudgetEntry.budget, BudgetEntry.at).where(
            BudgetEntry.budget.in_(budgets), BudgetEntry.kind == "granted"
        )
    )
    return _Done(
        runs=frozenset((row.id, row.owner) for row in runs),
        attempts=frozenset(attempts),
        increases=frozenset((row.budget, row.at) for row in increases),
    )


def _execute(
    connection: Connection, statement: Executable, rows: Sequence[Row]
) -> CursorResult[Any]:
    """Execute a statement for rows of the same columns.

    The SQL is kept, with the function of each column that turns a value into what is stored.
    SQLAlchemy would compile an upsert again each time, and look up these functions for each row.
    """
    prepared = _prepared(statement, connection.dialect, tuple(rows[0]))
    return connection.exec_driver_sql(prepared.sql, prepared.parameters(rows))


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A statement in SQL, with the columns of its parameters in the order of the SQL."""

    sql: str
    columns: Sequence[tuple[str, Callable[[Any], Any]]]
    by_position: bool  # as SQLite wants them; else by name

    def parameters(self, rows: Sequence[Row]) -> Any:
        """Return the parameters of each row as the driver wants them."""
        if self.by_position:
            return [
                tuple([store(row[name]) for name, store in self.columns])
                for row in rows
            ]
        return [
            {name: store(row[name]) for name, store in self.columns} for row in rows
        ]


@lru_cache(maxsize=100)
def _prepared(statement: Any, dialect: Dialect, columns: tuple[str, ...]) -> _Prepared:
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    names = list(compiled.binds)
    if compiled.positional:
        names = compiled.positiontup  # a name is there once for each place in the SQL
    stored = []
    for name in names:
        column_type = compiled.binds[name].type
        stored.append((name, _stored(column_type, dialect)))
    return _Prepared(str(compiled), stored, compiled.positional)


def _stored(column_type: Any, dialect: Dialect) -> Callable[[Any], Any]:
    """Return the function that turns a value of a type into what is stored."""
    store = column_type.dialect_impl(dialect).bind_processor(dialect)
    return store or _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


# Both require the holder: after an expired lease, the call may be another owner's by now.
# Parameters have other names than columns, since SQLAlchemy keeps those for `values`.
_FREE = (
    update(CallRecord)
    .where(
        CallRecord.call_hash == bindparam("call"),
        CallRecord.owner == bindparam("holder"),
    )
    .values(owner=None, lease_until=None, in_flight=None)
)


_RENEW = (
    update(CallRecord)
    .where(
        CallRecord.call_hash == bindparam("call"),
        CallRecord.owner == bindparam("holder"),
    )
    .values(lease_until=bindparam("until"))
)


# A claim and its money belong to the batch from its intent on.
_MOVE = (
    update(CallRecord)
    .where(
        CallRecord.call_hash == bindparam("call"),
        CallRecord.owner == bindparam("holder"),
    )
    .values(owner=bindparam("to_owner"), lease_until=bindparam("until"))
)


_MOVE_MONEY = (
    update(ReservationRecord)
    .where(
        ReservationRecord.id == bindparam("reservation"),
        ReservationRecord.owner == bindparam("holder"),
    )
    .values(owner=bindparam("to_owner"))
)


_SUBMITTED = (
    update(BatchRecord)
    .where(BatchRecord.id == bindparam("batch"))
    .values(provider_id=bindparam("provider"), submitted_at=bindparam("at"))
)


_STATUS = (
    update(BatchRecord)
    .where(BatchRecord.id == bindparam("batch"))
    .values(
        state=bindparam("to_state"),
        fault=bindparam("to_fault"),
        succeeded=bindparam("good"),
        failed=bindparam("bad"),
        ended_at=bindparam("ended"),
        expires_at=bindparam("expires"),
    )
)


_ITEM_END = (
    update(BatchItemRecord)
    .where(
        BatchItemRecord.batch_id == bindparam("batch"),
        BatchItemRecord.call_hash == bindparam("call"),
        # One that has ended stays as it is.
        text("state IN ('waiting', 'rescued')"),
    )
    .values(state=bindparam("to_state"))
)


_ALIVE = (
    update(Run).where(Run.id == bindparam("run")).values(lease_until=bindparam("until"))
)


@cache
def _statements(dialect: str) -> dict[Kind, Executable]:
    """Return one statement for each kind, in the order in which rows may refer to each other."""
    finish = (
        update(Run)
        .where(Run.id == bindparam("run"))
        .values(state=bindparam("end"), finished_at=bindparam("at"))
    )
    return {
        "start": insert(Run),
        "attempt": insert(AttemptRecord),
        "paid": _upsert(
            dialect,
            CallRecord,
            "owner",
            "lease_until",
            "attempt_id",
            "reply",
            "paid_at",
            "in_flight",
        ),
        "lost": _upsert(dialect, LostCallRecord),
        "verdict": _upsert(dialect, VerdictRecord, *_besides_key(VerdictRecord)),
        "outcome": _upsert(dialect, OutcomeRecord, *_besides_key(OutcomeRecord)),
        # Without columns: a sample that is recorded already keeps its label.
        "audit": _upsert(dialect, AuditRecord),
        "finish": finish,
        "alive": _ALIVE,
        "renew": _RENEW,
        # Without columns: an intent is written once.
        "batch": _upsert(dialect, BatchRecord),
        "item": _upsert(dialect, BatchItemRecord),
        "moved": _MOVE,
        "moved_money": _MOVE_MONEY,
        "batch_submitted": _SUBMITTED,
        "batch_status": _STATUS,
        "item_end": _ITEM_END,
    }


def _besides_key(table: type[Base]) -> list[str]:
    return [column.name for column in table.__table__.columns if not column.primary_key]


def _upsert(dialect: str, table: type[Base], *columns: str) -> Executable:
    """Insert a row, or replace these columns of the row with the same key.

    Without columns, a row that is there already stays as it is.
    """
    statement = insert_into(dialect, table)
    if not columns:
        ignoring: Executable = statement.on_conflict_do_nothing()
        return ignoring
    key = [column.name for column in inspect(table).primary_key]
    replaced = {column: statement.excluded[column] for column in columns}
    replacing: Executable = statement.on_conflict_do_update(
        index_elements=key, set_=replaced
    )
    return replacing


def _decide(
    connection: Connection,
    operations: Sequence[Operation],
    done: _Done,
    lease_time: float,
) -> list[OperationResult]:
    """Decide on claims and budgets in the order of the operations, and write the decisions.

    A claim gets the paid reply, the claim itself, a refusal for lack of money, or the news that
    another owner holds it.
    """
    accounts = _accounts(connection, operations, lease_time)
    claimed_hashes = {
        operation.claim.call_hash for operation in operations if operation.claim
    }
    if not claimed_hashes and accounts is None:
        return [None] * len(operations)
    found = connection.execute(_CALLS, {"hashes": list(claimed_hashes)})
    calls = {row.call_hash: row for row in found}
    settlements = [
        operation.settlement for operation in operations if operation.settlement
    ]
    if accounts:
        # Before the claims: a settled call has no claim any more, so a sweep would count its
        # reservation as lost.
        accounts.settle(settlements)
    # The database's lock is held by now, so waiting for it cannot make a lease look alive.
    now = time.time()
    granted: dict[str, Row] = {}  # call hash -> its new row
    lost: list[Row] = []
    results: list[OperationResult] = []
    for operation in operations:
        result: OperationResult = None
        claim = operation.claim
        if claim:
            row = calls.get(claim.call_hash)
            granted_row = granted.get(claim.call_hash)
            result = _claim_result(claim, row, granted_row, now, lease_time)
            if result is None:
                # The claim is free: now the money decides.
                result = _reserved(claim, row, accounts)
            if is_granted(result):
                lost += _lost_by(calls.get(claim.call_hash), claim, now)
                granted[claim.call_hash] = {
                    "call_hash": claim.call_hash,
                    "owner": claim.owner,
                    "lease_until": now + claim.lease_s,
                    "in_flight": claim.in_flight,
                }
        elif accounts and operation.increase:
            result = _increased(operation.increase, accounts, done)
        results.append(result)
    if granted:
        dialect = connection.dialect.name
        _execute(connection, _claiming(dialect), list(granted.values()))
        if lost:
            _execute(connection, _statements(dialect)["lost"], lost)
    if accounts:
        # Once more: a claim may be granted and given up within this transaction.
        accounts.settle(settlements)
        accounts.write()
        for index, operation in enumerate(operations):
            if operation.settlement:
                results[index] = accounts.result(operation.settlement.budgets)
    return results


def _reserved(
    claim: Claim, row: Any, accounts: Accounts | None
) -> ReservationResult | None:
    """Reserve the money of a claim, unless an earlier transaction granted it with the money."""
    if accounts is None or claim.reservation is None:
        return None
    if row and row.owner == claim.owner:
        return accounts.result(claim.reservation.limits)
    return accounts.reserve(claim.reservation, claim.call_hash, claim.owner)


def _increased(
    increase: LimitIncrease, accounts: Accounts, done: _Done
) -> ReservationResult:
    """Increase a budget's limit, unless an earlier transaction did."""
    if (increase.budget, increase.at) in done.increases:
        return accounts.result([increase.budget])
    return accounts.increase(increase)


def is_granted(result: OperationResult) -> bool:
    """Return True if this result grants the claim, with the money if any was asked for."""
    if isinstance(result, ReservationResult):
        return not result.shortfall and result.refused is None
    return result is None


def _accounts(
    connection: Connection, operations: Sequence[Operation], lease_time: float
) -> Accounts | None:
    """Return the budgets that these operations touch; None if none, which saves the queries."""
    names: set[str] = set()
    settled: set[str] = set()
    for operation in operations:
        if operation.claim and operation.claim.reservation:
            names.update(operation.claim.reservation.limits)
        if operation.settlement:
            names.update(operation.settlement.budgets)
            settled.add(operation.settlement.id)
        if operation.increase:
            names.add(operation.increase.budget)
    if not names:
        return None
    return Accounts(connection, names, settled, lease_time)


@cache
def _claiming(dialect: str) -> Executable:
    return _upsert(dialect, CallRecord, "owner", "lease_until", "in_flight")


def _lost_by(row: Any, claim: Claim, now: float) -> list[Row]:
    """Return the lost call of the claim that another one replaces, if there is one."""
    if row is None or not row.owner or not row.in_flight:
        return []
    if row.owner == claim.owner:
        return []  # the same claim once more, as the answer to its commit was lost
    return [lost_row(row.in_flight, now)]


def lost_row(in_flight: Row, now: float) -> Row:
    """Return the row of a lost call, given the row of its attempt."""
    return {
        "id": in_flight["id"],
        "run_id": in_flight["run_id"],
        "attempt": in_flight,
        "lost_at": now,
    }


_CALLS = (
    select(
        CallRecord.call_hash,
        CallRecord.owner,
        CallRecord.lease_until,
        CallRecord.attempt_id,
        CallRecord.reply,
        CallRecord.paid_at,
        CallRecord.in_flight,
        COST.label("cost"),
        AttemptRecord.run_id,
        AttemptRecord.document_id,
        AttemptRecord.step,
    )
    .outerjoin(AttemptRecord, AttemptRecord.id == CallRecord.attempt_id)
    .where(CallRecord.call_hash.in_(bindparam("hashes", expanding=True)))
)


def _claim_result(
    claim: Claim, row: Any, granted_row: Row | None, now: float, lease_time: float
) -> Paid | ClaimedElsewhere | None:
    """Return the paid reply or the present claim of a call, or None if the claim is free.

    `row` is the call's row on record, `granted_row` the one that this transaction will write.
    """
    # The reply comes first: a paid call may be claimed again, for a fresher one.
    if row and row.reply is not None and row.paid_at >= (claim.fresh_since or 0):
        paid_for = None
        if row.run_id is not None:
            paid_for = (row.run_id, row.document_id, row.step)
        return Paid(reply_of(row.reply), row.attempt_id, row.cost, paid_for)
    if granted_row:
        return ClaimedElsewhere(granted_row["lease_until"] - now, granted_row["owner"])
    if row is None or row.owner is None or row.owner == claim.owner:
        return None  # free, or granted to this very claim by an earlier transaction
    if row.lease_until > lease_time and not is_dead(row.owner):
        # While leases stand still, this one may have ended: the caller asks again soon.
        return ClaimedElsewhere(max(row.lease_until - now, 0.0), row.owner)
    return None
