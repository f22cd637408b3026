"""What people ask the ledger. Read-only; the numbers are summed by the database, exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, case, func, select

from tierwise.errors import Misuse, UnknownName
from tierwise.ledger.people.reviews import CURRENT
from tierwise.ledger.rows import (
    DeferredRow,
    OutcomeRow,
    RunRow,
    SummaryRow,
    attempt_of,
    outcome_of,
    reply_of,
)
from tierwise.ledger.tables import AttemptRecord, CallRecord, OutcomeRecord, Run, VerdictRecord
from tierwise.records import Attempt, Reply, Status, Verdict

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database

_CHUNK = 1000  # rows fetched at once where many are read
_Key = tuple[str, str, str]  # step, tier, model
_Of = tuple[ColumnElement[bool], ...]  # which attempts
_Query = Select[Any]


class Queries:
    """The reading side of a ledger. Every method raises LedgerError when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(self, limit: int = 20) -> list[RunRow]:
        """The newest runs, newest first."""
        with self._database.reading() as connection:
            return _runs(
                connection, select(Run).order_by(Run.started_at.desc(), Run.id).limit(limit)
            )

    def resolve_run(self, name: str) -> RunRow:
        """The run whose id is or starts with `name`, or the `latest`. Raises UnknownName, or Misuse when unclear."""
        newest = select(Run).order_by(Run.started_at.desc(), Run.id)
        with self._database.reading() as connection:
            if name == "latest":
                found = _runs(connection, newest.limit(1))
                if not found:
                    raise Misuse("the ledger has no runs yet; run a flow first")
                return found[0]
            found = _runs(
                connection, newest.where(Run.id.startswith(name, autoescape=True)).limit(10)
            )
            exact = [run for run in found if run.id == name]
            if len(found) == 1 or exact:
                return (exact or found)[0]
            if not found:
                raise UnknownName(
                    "run", name, connection.scalars(newest.with_only_columns(Run.id).limit(10))
                )
            raise Misuse(
                f"'{name}' fits several runs: {', '.join(run.id for run in found)}; give more of the id"
            )

    def summary(self, run_id: str) -> list[SummaryRow]:
        """One row per step, tier and model: steps in the order of their first attempt, models too; shadows last."""
        with self._database.reading() as connection:
            rows = [
                *_summary(connection, run_id, shadow=False),
                *_summary(connection, run_id, shadow=True),
            ]
        steps = list(dict.fromkeys(row.step for row in rows))
        return sorted(rows, key=lambda row: steps.index(row.step))

    def outcome_counts(self, run_id: str) -> dict[str, dict[Status, int]]:
        """How many documents got which status, by step, in the order in which steps were first recorded."""
        query = (
            select(CURRENT.c.step, CURRENT.c.status, func.count().label("documents"))
            .where(CURRENT.c.run_id == run_id)
            .group_by(CURRENT.c.step, CURRENT.c.status)
            .order_by(func.min(CURRENT.c.recorded_at))
        )
        counts: dict[str, dict[Status, int]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                counts.setdefault(row.step, {})[row.status] = row.documents
        return counts

    def outcomes(
        self,
        run_id: str,
        document_id: str | None = None,
        step: str | None = None,
        status: Status | None = None,
    ) -> Iterator[OutcomeRow]:
        """The outcomes of a run as they stand now, by document and step; all of them, or those that fit."""
        wanted = {"document_id": document_id, "step": step, "status": status}
        query = (
            select(CURRENT)
            .where(CURRENT.c.run_id == run_id)
            .where(
                *(CURRENT.c[name] == value for name, value in wanted.items() if value is not None)
            )
            .order_by(CURRENT.c.document_id, CURRENT.c.recorded_at)
        )
        for row in self._stream(query):
            yield OutcomeRow(
                document_id=row.document_id,
                document_hash=row.document_hash,
                outcome=outcome_of(row),
                recorded_at=row.recorded_at,
                question=row.question,
            )

    def settled(self, flow: str) -> frozenset[tuple[str, str]]:
        """Id and hash of every document that a completed run of this flow had: it went through all steps, or waits."""
        query = (
            select(OutcomeRecord.document_id, OutcomeRecord.document_hash)
            .join(Run, Run.id == OutcomeRecord.run_id)
            .where(Run.flow == flow, Run.state == "completed")
            .distinct()
        )
        return frozenset((row.document_id, row.document_hash) for row in self._stream(query))

    def deferred(self, run_id: str) -> list[DeferredRow]:
        """The documents of a run that wait, by document."""
        return [
            DeferredRow(
                document_id=row.document_id,
                step=row.outcome.step,
                reason=row.outcome.reason,
                cause=row.outcome.cause,
                model=row.outcome.model,
                sensitivity=row.outcome.sensitivity,
            )
            for row in self.outcomes(run_id, status="deferred")
        ]

    def attempts(
        self, run_id: str, document_id: str | None = None, step: str | None = None
    ) -> Iterator[Attempt]:
        """The attempts of a run with their verdicts, in the order of recording; their text is in `reply`."""
        wanted = {"document_id": document_id, "step": step}
        verdict = (
            VerdictRecord.check,
            VerdictRecord.passed,
            VerdictRecord.reason,
            VerdictRecord.score,
        )
        query = (
            select(AttemptRecord.__table__, *verdict)
            .outerjoin(VerdictRecord, VerdictRecord.attempt_id == AttemptRecord.id)
            .where(AttemptRecord.run_id == run_id)
            .where(
                *(
                    getattr(AttemptRecord, name) == value
                    for name, value in wanted.items()
                    if value is not None
                )
            )
            .order_by(AttemptRecord.seq, VerdictRecord.position)
        )
        for _, group in groupby(self._stream(query), key=lambda row: row.seq):
            rows = list(group)
            verdicts = [
                Verdict(r.check, r.passed, r.reason, r.score) for r in rows if r.check is not None
            ]
            yield attempt_of(rows[0], verdicts)

    def reply(self, call_hash: str) -> Reply | None:
        """The paid reply of a call, or None."""
        with self._database.reading() as connection:
            data = connection.scalar(
                select(CallRecord.reply).where(CallRecord.call_hash == call_hash)
            )
        return reply_of(data) if data else None

    def _stream(self, query: _Query) -> Iterator[Any]:
        with self._database.reading() as connection:
            yield from connection.execute(query, execution_options={"yield_per": _CHUNK})


_REUSED = func.sum(case((AttemptRecord.reused, 1), else_=0))
_UNKNOWN = func.sum(case((AttemptRecord.cost.is_(None), 1), else_=0))
_GROUP = (AttemptRecord.step, AttemptRecord.tier, AttemptRecord.model)


def _key(row: Any) -> _Key:
    return row.step, row.tier, row.model


def _runs(connection: Connection, query: _Query) -> list[RunRow]:
    runs = connection.execute(
        query.with_only_columns(Run.__table__, maintain_column_froms=True)
    ).all()
    ids = [run.id for run in runs]
    spent = {row.run_id: row for row in connection.execute(_spending(ids))}
    documents = {row.run_id: row for row in connection.execute(_documents(ids))}
    return [_run_row(run, spent.get(run.id), documents.get(run.id)) for run in runs]


def _spending(run_ids: list[str]) -> _Query:
    return (
        select(
            AttemptRecord.run_id,
            func.count().label("attempts"),
            _REUSED.label("reused"),
            func.sum(AttemptRecord.cost).label("cost_known"),
            _UNKNOWN.label("cost_unknown"),
        )
        .where(AttemptRecord.run_id.in_(run_ids))
        .group_by(AttemptRecord.run_id)
    )


def _documents(run_ids: list[str]) -> _Query:
    def any_is(status: Status) -> Any:
        return func.max(case((CURRENT.c.status == status, 1), else_=0))

    one = (
        select(
            CURRENT.c.run_id,
            any_is("accepted").label("accepted"),
            any_is("deferred").label("deferred"),
        )
        .where(CURRENT.c.run_id.in_(run_ids))
        .group_by(CURRENT.c.run_id, CURRENT.c.document_id)
        .subquery()
    )
    return select(
        one.c.run_id,
        func.count().label("documents"),
        func.sum(one.c.deferred).label("deferred"),
        func.sum(one.c.accepted * (1 - one.c.deferred)).label("accepted"),
    ).group_by(one.c.run_id)


def _run_row(run: Any, spent: Any, documents: Any) -> RunRow:
    """The parts as one value; a run without attempts or outcomes has no row there."""
    return RunRow(
        **{
            name: value
            for name, value in run._mapping.items()
            if name not in ("owner", "lease_until")
        },
        documents=documents.documents if documents else 0,
        accepted=int(documents.accepted) if documents else 0,
        deferred=int(documents.deferred) if documents else 0,
        attempts=spent.attempts if spent else 0,
        reused=spent.reused if spent else 0,
        cost_known=(spent.cost_known if spent else None) or Decimal(0),
        cost_unknown=spent.cost_unknown if spent else 0,
    )


def _summary(connection: Connection, run_id: str, *, shadow: bool) -> list[SummaryRow]:
    """The rows of what was asked for outcomes, or of the shadows."""
    is_shadow = AttemptRecord.kind == "shadow"
    of = (AttemptRecord.run_id == run_id, is_shadow if shadow else ~is_shadow)
    totals = _totals(connection, of)
    if not totals:
        return []
    accepted = {} if shadow else _accepted(connection, run_id)
    deferred = {} if shadow else _deferred(connection, run_id)
    escalations = _escalations(connection, of)
    checks_failed = _checks_failed(connection, of)
    errors = _errors(connection, of)
    latencies = _latencies(connection, of)
    return [
        SummaryRow(
            **total | ({"model": f"{key[2]} (shadow)"} if shadow else {}),
            accepted=accepted.get((key[0], key[2]), 0),
            escalations=escalations.get(key, 0),
            checks_failed=checks_failed.get(key, {}),
            errors=errors.get(key, {}),
            latency_p50_s=latencies.get(key, {}).get(50),
            latency_p95_s=latencies.get(key, {}).get(95),
            deferred=deferred.get(key, 0),
            shadow=shadow,
        )
        for key, total in totals.items()
    ]


def _totals(connection: Connection, of: _Of) -> dict[_Key, dict[str, Any]]:
    """Sums per step, tier and model, in the order of the first attempt."""

    def spent(tokens: Any) -> Any:
        return func.coalesce(func.sum(case((AttemptRecord.reused, 0), else_=tokens)), 0)

    query = (
        select(
            *_GROUP,
            func.count(AttemptRecord.document_id.distinct()).label("documents"),
            func.count().label("attempts"),
            _REUSED.label("reused"),
            func.sum(case((AttemptRecord.kind == "repair", 1), else_=0)).label("repairs"),
            spent(AttemptRecord.prompt_tokens).label("prompt_tokens"),
            spent(AttemptRecord.cached_tokens).label("cached_tokens"),
            spent(AttemptRecord.completion_tokens).label("completion_tokens"),
            func.sum(AttemptRecord.cost).label("cost_known"),
            _UNKNOWN.label("cost_unknown"),
        )
        .where(*of)
        .group_by(*_GROUP)
        .order_by(func.min(AttemptRecord.seq))
    )
    return {_key(row): {**row._mapping, **_numbers(row)} for row in connection.execute(query)}


def _numbers(row: Any) -> dict[str, Any]:
    """Sums in their own types: PostgreSQL adds whole numbers up to numeric, and nothing to NULL."""
    tokens = {
        name: int(getattr(row, name))
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
    }
    return {**tokens, "cost_known": row.cost_known or Decimal(0)}


def _accepted(connection: Connection, run_id: str) -> dict[tuple[str, str], int]:
    """Count the accepted documents by step and model, as far as this run asked that model for them."""
    # A retry takes over outcomes of an earlier run without an attempt of its own. They are no
    # answers of this run, and would make `accepted` exceed the documents that the model was asked for.
    was_asked = (
        select(AttemptRecord.id)
        .where(
            AttemptRecord.run_id == CURRENT.c.run_id,
            AttemptRecord.document_id == CURRENT.c.document_id,
            AttemptRecord.step == CURRENT.c.step,
            AttemptRecord.model == CURRENT.c.model,
            AttemptRecord.kind != "shadow",
        )
        .exists()
    )
    query = (
        select(CURRENT.c.step, CURRENT.c.model, func.count().label("documents"))
        .where(CURRENT.c.run_id == run_id, CURRENT.c.status == "accepted", was_asked)
        .group_by(CURRENT.c.step, CURRENT.c.model)
    )
    return {(row.step, row.model): row.documents for row in connection.execute(query)}


def _deferred(connection: Connection, run_id: str) -> dict[_Key, int]:
    """Documents that wait, by the step, tier and model of the last attempt for their outcome."""
    age = func.row_number().over(
        partition_by=(AttemptRecord.document_id, AttemptRecord.step),
        order_by=AttemptRecord.seq.desc(),
    )
    of = (AttemptRecord.run_id == run_id, AttemptRecord.kind != "shadow")
    last = select(*_GROUP, AttemptRecord.document_id, age.label("age")).where(*of).subquery()
    query = (
        select(last.c.step, last.c.tier, last.c.model, func.count().label("documents"))
        .join(
            CURRENT, (CURRENT.c.document_id == last.c.document_id) & (CURRENT.c.step == last.c.step)
        )
        .where(CURRENT.c.run_id == run_id, CURRENT.c.status == "deferred", last.c.age == 1)
        .group_by(last.c.step, last.c.tier, last.c.model)
    )
    return {_key(row): row.documents for row in connection.execute(query)}


def _escalations(connection: Connection, of: _Of) -> dict[_Key, int]:
    """Documents whose next attempt after this model was an escalation."""
    next_kind = func.lead(AttemptRecord.kind).over(
        partition_by=(AttemptRecord.document_id, AttemptRecord.step), order_by=AttemptRecord.seq
    )
    steps = (
        select(*_GROUP, AttemptRecord.document_id, next_kind.label("next_kind"))
        .where(*of)
        .subquery()
    )
    query = (
        select(
            steps.c.step,
            steps.c.tier,
            steps.c.model,
            func.count(steps.c.document_id.distinct()).label("documents"),
        )
        .where(steps.c.next_kind == "escalation")
        .group_by(steps.c.step, steps.c.tier, steps.c.model)
    )
    return {_key(row): row.documents for row in connection.execute(query)}


def _checks_failed(connection: Connection, of: _Of) -> dict[_Key, dict[str, int]]:
    """How many attempts failed which check."""
    query = (
        select(*_GROUP, VerdictRecord.check.label("name"), func.count().label("times"))
        .join(VerdictRecord, VerdictRecord.attempt_id == AttemptRecord.id)
        .where(*of, VerdictRecord.passed.is_(False))
        .group_by(*_GROUP, VerdictRecord.check)
        .order_by(VerdictRecord.check)
    )
    return _named_counts(connection, query)


def _errors(connection: Connection, of: _Of) -> dict[_Key, dict[str, int]]:
    """How many attempts ended in which error."""
    query = (
        select(*_GROUP, AttemptRecord.error.label("name"), func.count().label("times"))
        .where(*of, AttemptRecord.error.is_not(None))
        .group_by(*_GROUP, AttemptRecord.error)
        .order_by(AttemptRecord.error)
    )
    return _named_counts(connection, query)


def _named_counts(connection: Connection, query: _Query) -> dict[_Key, dict[str, int]]:
    counts: dict[_Key, dict[str, int]] = defaultdict(dict)
    for row in connection.execute(query):
        counts[_key(row)][row.name] = row.times
    return counts


def _latencies(connection: Connection, of: _Of) -> dict[_Key, dict[int, float]]:
    """The nearest-rank 50th and 95th percentiles of the latencies (seconds) of the calls that were made."""
    ranked = (
        select(
            *_GROUP,
            AttemptRecord.latency_s,
            func.row_number()
            .over(partition_by=_GROUP, order_by=AttemptRecord.latency_s)
            .label("rank"),
            func.count().over(partition_by=_GROUP).label("total"),
        )
        .where(*of, AttemptRecord.reused.is_(False))
        .subquery()
    )
    places = {percent: (ranked.c.total * percent + 99) // 100 for percent in (50, 95)}
    query = select(ranked, *(place.label(f"p{percent}") for percent, place in places.items()))
    found: dict[_Key, dict[int, float]] = defaultdict(dict)
    for row in connection.execute(query.where(ranked.c.rank.in_(places.values()))):
        found[_key(row)] |= {
            percent: row.latency_s for percent in places if row.rank == getattr(row, f"p{percent}")
        }
    return found
