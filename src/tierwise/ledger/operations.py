"""What can be written, as values, and the SQL that writes a group of them in one transaction."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import bindparam, insert, inspect, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tierwise.errors import LedgerError
from tierwise.ledger.rows import Paid, Row, reply_of
from tierwise.ledger.tables import AttemptRecord, AuditRecord, Base, CallRecord, OutcomeRecord, Run, VerdictRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable

Kind = Literal["start", "attempt", "paid", "verdict", "outcome", "audit", "label", "finish", "free"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The wish to pay a call. A reply paid before `fresh_since` (seconds since the epoch) does not count."""

    call_hash: str
    owner: str
    lease_s: float
    fresh_since: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Another owner is paying this call; its lease lasts `seconds` more."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Rows that are written together or not at all, or a claim."""

    rows: Mapping[Kind, Sequence[Row]] = field(default_factory=dict)
    claim: Claim | None = None


Answer = Paid | Held | None


def apply(connection: Connection, operations: Sequence[Operation]) -> list[Answer]:
    """Write all operations and answer each. Their order does not matter: nobody has seen an answer yet."""
    rows: dict[Kind, list[Row]] = defaultdict(list)
    for operation in operations:
        for kind, more in operation.rows.items():
            rows[kind].extend(more)
    statements = _statements(connection.dialect.name)
    free = rows.pop("free", [])
    for kind, statement in statements.items():
        if rows[kind]:
            result = connection.execute(statement, rows[kind])
            if kind == "finish" and result.rowcount != len(rows[kind]):
                raise LedgerError(f"no run {rows[kind][0]['run']} to finish; it was never started")
    answers = _decide(connection, [operation.claim for operation in operations])
    if free:  # after the claims, so that a claim that was given up at once does not stay
        connection.execute(_FREE, free)
    return answers


_FREE = (
    update(CallRecord)
    .where(CallRecord.call_hash == bindparam("call"), CallRecord.owner == bindparam("holder"))
    .values(owner=None, lease_until=None)
)


_LABEL = (
    update(AuditRecord)
    .where(AuditRecord.id == bindparam("audit"))
    .values(right=bindparam("word"), reviewer=bindparam("by"), reviewed_at=bindparam("at"))
)


@cache
def _statements(dialect: str) -> dict[Kind, Executable]:
    """One statement a kind, in the order in which rows may refer to each other."""
    finish = update(Run).where(Run.id == bindparam("run")).values(state=bindparam("end"), finished_at=bindparam("at"))
    return {
        "start": insert(Run),
        "attempt": insert(AttemptRecord),
        "paid": _upsert(dialect, CallRecord, "owner", "lease_until", "attempt_id", "reply", "paid_at"),
        "verdict": _upsert(dialect, VerdictRecord, "position", "passed", "score", "reason"),
        "outcome": _upsert(dialect, OutcomeRecord, *_besides_key(OutcomeRecord)),
        "audit": _upsert(dialect, AuditRecord),
        "label": _LABEL,
        "finish": finish,
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
    return statement.on_conflict_do_update(index_elements=key, set_={c: statement.excluded[c] for c in columns})


def _decide(connection: Connection, claims: Sequence[Claim | None]) -> list[Answer]:
    """Who gets what: a paid reply, the claim (None), or the news that another holds it."""
    wanted = {claim.call_hash for claim in claims if claim}
    if not wanted:
        return [None] * len(claims)
    known = {row.call_hash: row for row in connection.execute(_CALLS.where(CallRecord.call_hash.in_(wanted)))}
    now, taken = time.time(), dict[str, Row]()
    answers: list[Answer] = []
    for claim in claims:
        answer = None if claim is None else _answer(claim, known.get(claim.call_hash), taken.get(claim.call_hash), now)
        if claim and answer is None:
            row = {"call_hash": claim.call_hash, "owner": claim.owner, "lease_until": now + claim.lease_s}
            taken[claim.call_hash] = row
        answers.append(answer)
    if taken:
        connection.execute(_claiming(connection.dialect.name), list(taken.values()))
    return answers


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
    if row and row.owner and row.lease_until > now and not _gone(row.owner):
        return Held(row.lease_until - now)
    return None


def new_owner() -> str:
    """A name for this process as an owner, which lets others on this machine see whether it still lives."""
    return f"{_place()} {os.getpid()} {uuid.uuid4().hex}"


def _gone(owner: str) -> bool:
    """Whether an owner certainly lives no more; where that cannot be known, its lease decides."""
    place, _, process = owner.partition(" ")
    pid = process.partition(" ")[0]
    if os.name != "posix" or place != _place() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@cache
def _place() -> str:
    """Where a process id means the same process: the host, its boot, its container."""
    parts = [socket.gethostname().replace(" ", "-")]
    with suppress(OSError):  # not Linux: the host's name has to do
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(parts)
