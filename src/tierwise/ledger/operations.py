"""What can be written, as values, and the SQL that writes a group of them in one transaction."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import bindparam, insert, inspect, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tierwise.errors import LedgerError
from tierwise.ledger.budgets import Accounts, LimitIncrease, ReservationResult, Settlement
from tierwise.ledger.processes import is_dead
from tierwise.ledger.rows import Paid, Row, reply_of
from tierwise.ledger.tables import (
    AttemptRecord,
    AuditRecord,
    Base,
    CallRecord,
    OutcomeRecord,
    Run,
    VerdictRecord,
)
from tierwise.policy.budget import ReservationRequest

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Dialect, Executable

Kind = Literal[
    "start", "attempt", "paid", "verdict", "outcome", "audit", "finish", "alive", "renew", "free"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The wish to pay a call. A reply paid before `fresh_since` (seconds since the epoch) does not count.

    With `wish`, the claim is had only together with the money.
    """

    call_hash: str
    owner: str
    lease_s: float
    fresh_since: float | None = None
    reservation: ReservationRequest | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Another owner is paying this call; its lease lasts `seconds` more."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Rows that are written together or not at all, with the end of a reservation; or a claim, or a grant."""

    rows: Mapping[Kind, Sequence[Row]] = field(default_factory=dict)
    claim: Claim | None = None
    settlement: Settlement | None = None
    grant: LimitIncrease | None = None


Answer = (
    Paid | Held | ReservationResult | None
)  # of a claim: None, or ReservationResult that are neither short nor refused, when it is had


def apply(connection: Connection, operations: Sequence[Operation]) -> list[Answer]:
    """Write all operations and answer each. The order of rows does not matter: nobody has seen an answer yet."""
    rows: dict[Kind, list[Row]] = defaultdict(list)
    for operation in operations:
        for kind, more in operation.rows.items():
            rows[kind].extend(more)
    statements = _statements(connection.dialect.name)
    free = rows.pop("free", [])
    for kind, statement in statements.items():
        if rows[kind]:
            result = _execute(connection, statement, rows[kind])
            if kind == "finish" and result.rowcount != len(rows[kind]):
                raise LedgerError(f"no run {rows[kind][0]['run']} to finish; it was never started")
    answers = _decide(connection, operations)
    if free:  # after the claims, so that a claim that was given up at once does not stay
        connection.execute(_FREE, free)
    return answers


def _execute(
    connection: Connection, statement: Executable, rows: Sequence[Row]
) -> CursorResult[Any]:
    """Execute a statement for rows of the same columns; SQLAlchemy itself would compile an upsert anew each time."""
    return connection.execute(_compiled(statement, connection.dialect, tuple(rows[0])), rows)


@lru_cache(maxsize=100)
def _compiled(statement: Any, dialect: Dialect, columns: tuple[str, ...]) -> Any:
    return statement.compile(dialect=dialect, column_keys=columns)


_FREE = (
    update(CallRecord)
    .where(CallRecord.call_hash == bindparam("call"), CallRecord.owner == bindparam("holder"))
    .values(owner=None, lease_until=None)
)


_RENEW = (
    update(CallRecord)
    .where(CallRecord.call_hash == bindparam("call"), CallRecord.owner == bindparam("holder"))
    .values(lease_until=bindparam("until"))
)


_ALIVE = update(Run).where(Run.id == bindparam("run")).values(lease_until=bindparam("until"))


@cache
def _statements(dialect: str) -> dict[Kind, Executable]:
    """One statement a kind, in the order in which rows may refer to each other."""
    finish = (
        update(Run)
        .where(Run.id == bindparam("run"))
        .values(state=bindparam("end"), finished_at=bindparam("at"))
    )
    return {
        "start": insert(Run),
        "attempt": insert(AttemptRecord),
        "paid": _upsert(
            dialect, CallRecord, "owner", "lease_until", "attempt_id", "reply", "paid_at"
        ),
        "verdict": _upsert(dialect, VerdictRecord, "position", "passed", "score", "reason"),
        "outcome": _upsert(dialect, OutcomeRecord, *_besides_key(OutcomeRecord)),
        "audit": _upsert(dialect, AuditRecord),
        "finish": finish,
        "alive": _ALIVE,
        "renew": _RENEW,
    }


def _besides_key(table: type[Base]) -> list[str]:
    return [column.name for column in table.__table__.columns if not column.primary_key]


def _upsert(dialect: str, table: type[Base], *columns: str) -> Executable:
    """Insert, or replace these columns of the row with the same key; without any, that row stays as it is."""
    build = sqlite.insert if dialect == "sqlite" else postgresql.insert
    statement = build(table)
    if not columns:
        return statement.on_conflict_do_nothing()
    key = [column.name for column in inspect(table).primary_key]
    return statement.on_conflict_do_update(
        index_elements=key, set_={c: statement.excluded[c] for c in columns}
    )


def _decide(connection: Connection, operations: Sequence[Operation]) -> list[Answer]:
    """Who gets what, in order: a paid reply, the claim, the money, or the news that another holds it."""
    wanted = {operation.claim.call_hash for operation in operations if operation.claim}
    accounts = _accounts(connection, operations)
    if not wanted and accounts is None:
        return [None] * len(operations)
    known = {
        row.call_hash: row
        for row in connection.execute(_CALLS.where(CallRecord.call_hash.in_(wanted)))
    }
    now = time.time()
    taken = dict[str, Row]()
    settlements = [operation.settlement for operation in operations if operation.settlement]
    if accounts:
        accounts.settle(settlements)  # first: its claim is gone already, so it would look lost
    answers: list[Answer] = []
    for operation in operations:
        answer: Answer = None
        if claim := operation.claim:
            answer = _answer(claim, known.get(claim.call_hash), taken.get(claim.call_hash), now)
            if answer is None and accounts and claim.reservation:
                answer = accounts.reserve(claim.reservation, claim.call_hash, claim.owner)
            if granted(answer):
                row = {
                    "call_hash": claim.call_hash,
                    "owner": claim.owner,
                    "lease_until": now + claim.lease_s,
                }
                taken[claim.call_hash] = row
        elif accounts and operation.grant:
            answer = accounts.grant(operation.grant)
        answers.append(answer)
    if taken:
        _execute(connection, _claiming(connection.dialect.name), list(taken.values()))
    if accounts:
        accounts.settle(settlements)  # again: of claims that were given up at once
        accounts.write()
        for n, operation in enumerate(operations):
            if operation.settlement:
                answers[n] = accounts.funds(operation.settlement.budgets)
    return answers


def granted(answer: Answer) -> bool:
    """Whether this answer to a claim says that it is had, with the money if any was asked for."""
    return answer is None or (
        isinstance(answer, ReservationResult) and not answer.short and answer.refused is None
    )


def _accounts(connection: Connection, operations: Sequence[Operation]) -> Accounts | None:
    """The budgets that these operations touch; None where they touch none, so that nothing is asked."""
    names: set[str] = set()
    settled: set[str] = set()
    for operation in operations:
        if operation.claim and operation.claim.reservation:
            names.update(operation.claim.reservation.limits)
        if operation.settlement:
            names.update(operation.settlement.budgets)
            settled.add(operation.settlement.id)
        if operation.grant:
            names.add(operation.grant.budget)
    return Accounts(connection, names, settled) if names else None


@cache
def _claiming(dialect: str) -> Executable:
    return _upsert(dialect, CallRecord, "owner", "lease_until")


_CALLS = select(
    CallRecord.call_hash,
    CallRecord.owner,
    CallRecord.lease_until,
    CallRecord.attempt_id,
    CallRecord.reply,
    CallRecord.paid_at,
    AttemptRecord.cost,
).outerjoin(AttemptRecord, AttemptRecord.id == CallRecord.attempt_id)


def _answer(claim: Claim, row: Any, taken: Row | None, now: float) -> Answer:
    """What a claim gets, given the call's row and who took it in this very group."""
    if row and row.reply is not None and row.paid_at >= (claim.fresh_since or 0):
        return Paid(reply_of(row.reply), row.attempt_id, row.cost)
    if taken:
        return Held(taken["lease_until"] - now)
    if row and row.owner and row.lease_until > now and not is_dead(row.owner):
        return Held(row.lease_until - now)
    return None
