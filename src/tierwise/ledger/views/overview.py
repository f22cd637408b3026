"""Figures over all runs, for pages that are loaded again and again. Read-only.

Attempts are only ever added, so their sums are kept in memory by group, and each look reads the new
ones alone. The totals of a run that has ended are kept until a decision, a repricing or a deletion
changes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import case, func, select

from tierwise.ledger.leases import Sign, run_process
from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.people.reviews import CURRENT
from tierwise.ledger.rows import RunRow
from tierwise.ledger.tables import (
    COST,
    AttemptRecord,
    AuditRecord,
    DeletionRecord,
    RepricingRecord,
    ReviewRecord,
    Run,
)
from tierwise.ledger.views.answers import (
    DAY_S,
    DistinctAnswers,
    RunAnswers,
    Tallies,
    answers_of,
    day_of,
)
from tierwise.ledger.views.lost import lost_calls
from tierwise.ledger.views.runs import runs_of
from tierwise.records import Status

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database

StepCounts = Mapping[str, Mapping[Status, int]]
# What a model was asked for; an outcome comes from `used` alone.
Role = Literal["used", "shadow", "judge"]
# The first of these that an outcome of a document has is the status of the whole document.
_WORST_FIRST: tuple[Status, ...] = ("deferred", "rejected", "waiting", "accepted")
_Group = tuple[str, int, str, str, str, str]
_AT_ONCE = 500  # runs in one query
_SLOW_S = 0.2
_DUTY = 20.0  # the answers of a run that take a second are read every 20 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """The calls of one run on one day for one step and model. Costs are USD.

    `day` is the number of days since 1970, in UTC. `calls` counts reused ones too.
    """

    run_id: str
    day: int
    step: str
    tier: str
    model: str
    role: Role
    calls: int
    reused: int
    cost_known: Decimal
    cost_unknown: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCount:
    """The labelled answers of one step that were in use, recorded on one day (UTC)."""

    step: str
    day: int
    right: int
    labelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """One document of a run in a list.

    `sensitivity_rank` is that of its strictest outcome. `status` is the document's as a whole: it is
    accepted where an outcome is, and none is deferred, rejected or waiting.
    """

    document_id: str
    sensitivity_rank: int
    steps: int
    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """One recorded attempt that made a call. Costs are USD, times seconds since the epoch."""

    seq: int
    run_id: str
    step: str
    document_hash: str
    model: str
    tier: str
    kind: str
    served_model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: Decimal | None
    started_at: float
    latency_s: float
    finish_reason: str | None
    error: str | None


@dataclass
class _Sums:
    """Sums by group so far, with the last attempt that they have."""

    version: tuple[int, int]
    last: int = 0
    groups: dict[_Group, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Head:
    """A run, and the version of what is derived from it."""

    has_ended: bool
    version: tuple[Any, ...]


@dataclass(frozen=True)
class _KeptAnswers:
    """A run's answers, as they were at some version of its decisions; read `again_at` the earliest."""

    version: tuple[Any, ...]
    again_at: float
    answers: RunAnswers


@dataclass(frozen=True)
class _KeptRun:
    """A run that has ended, as it was at some version of its decisions."""

    version: tuple[Any, ...]
    row: RunRow
    counts: StepCounts


class Overview:
    """Figures over all runs: `ledger.overview`.

    Every method raises LedgerError when the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._sums = _Sums((0, 0))
        self._runs: dict[str, _KeptRun] = {}
        self._answers_lock = threading.Lock()
        self._answers: dict[str, _KeptAnswers] = {}
        self._ended = DistinctAnswers()
        self._ended_version: tuple[Any, ...] = ()

    @outlasts_outages
    def spending(self) -> list[Spending]:
        """Return the calls on record by run, day, step and model; lost ones included."""
        with self._lock, self._database.reading() as connection:
            version = _version(connection)
            if version != self._sums.version:
                # Costs were changed, or attempts removed: count again.
                self._sums = _Sums(version)
            self._read_new(connection)
            groups = {key: list(sums) for key, sums in self._sums.groups.items()}
            for call in lost_calls(connection):
                attempt = call.attempt
                day = int(attempt.started_at // DAY_S)
                key = (
                    call.run_id,
                    day,
                    attempt.step,
                    attempt.tier,
                    attempt.model,
                    call.role,
                )
                sums = groups.setdefault(key, [0, 0, Decimal(0), 0, 0, 0])
                sums[0] += 1
                if attempt.cost is None:
                    sums[3] += 1
                else:
                    sums[2] += attempt.cost
        return [_spending(key, sums) for key, sums in groups.items()]

    def _read_new(self, connection: Connection) -> None:
        """Add the attempts that were recorded since the last look."""
        a = AttemptRecord
        newest = connection.scalar(select(func.max(a.seq))) or 0
        if newest == self._sums.last:
            return
        role = case((a.kind.in_(("shadow", "judge")), a.kind), else_="used")
        key = (
            a.run_id,
            day_of(connection, a.started_at),
            a.step,
            a.tier,
            a.model,
            role,
        )
        query = (
            select(
                *key,
                func.count(),
                func.sum(case((a.reused, 1), else_=0)),
                func.sum(COST),
                func.sum(case((COST.is_(None), 1), else_=0)),
                # A reused attempt repeats the counts of the one that paid.
                func.sum(case((a.reused, 0), else_=a.prompt_tokens)),
                func.sum(case((a.reused, 0), else_=a.completion_tokens)),
            )
            .where(a.seq > self._sums.last, a.seq <= newest)
            .group_by(*key)
        )
        for row in connection.execute(query):
            group: _Group = (row[0], int(row[1]), row[2], row[3], row[4], row[5])
            sums = self._sums.groups.setdefault(group, [0, 0, Decimal(0), 0, 0, 0])
            sums[0] += row[6]
            sums[1] += int(row[7])
            sums[2] += row[8] or Decimal(0)
            for position in (3, 4, 5):
                sums[position] += int(row[6 + position] or 0)
        self._sums.last = newest

    @outlasts_outages
    def runs(self) -> list[tuple[RunRow, StepCounts]]:
        """Return all runs, newest first, with their documents by step and status."""
        with self._lock, self._database.reading() as connection:
            heads = _heads(connection)
            for some in _parts(_changed(heads, self._runs)):
                counts = _step_counts(connection, some)
                for row in runs_of(connection, some):
                    version = heads[row.id].version
                    self._runs[row.id] = _KeptRun(version, row, counts.get(row.id, {}))
            for gone in self._runs.keys() - heads.keys():
                del self._runs[gone]
            return [
                (self._runs[run_id].row, self._runs[run_id].counts) for run_id in heads
            ]

    @outlasts_outages
    def answers(self) -> Tallies:
        """Return the distinct answers of all runs, by step and day, and by model."""
        with self._answers_lock, self._database.reading() as connection:
            heads = _heads(connection)
            begun_at = time.monotonic()
            wanted = [
                run_id
                for run_id in _changed(heads, self._answers)
                # A long run is not read at each look, or that would be the ledger's main load.
                if run_id not in self._answers
                or heads[run_id].version != self._answers[run_id].version
                or begun_at >= self._answers[run_id].again_at
            ]
            for some in _parts(wanted):
                began = time.monotonic()
                found = answers_of(connection, some)
                took_s = time.monotonic() - began
                again_at = 0.0
                if took_s > _SLOW_S:
                    again_at = time.monotonic() + _DUTY * took_s / len(some)
                for run_id, answers in found.items():
                    version = heads[run_id].version
                    self._answers[run_id] = _KeptAnswers(version, again_at, answers)
            for gone in self._answers.keys() - heads.keys():
                del self._answers[gone]
            # Most runs have ended: only those that go on are added up at each look.
            ended = tuple(
                (run_id, heads[run_id].version)
                for run_id in reversed(heads)
                if heads[run_id].has_ended
            )
            if ended != self._ended_version:
                self._ended = DistinctAnswers()
                for run_id, _ in ended:
                    self._ended.add(self._answers[run_id].answers)
                self._ended_version = ended
            distinct = DistinctAnswers(self._ended)
            for run_id in reversed(heads):
                if not heads[run_id].has_ended:
                    distinct.add(self._answers[run_id].answers)
        return distinct.tallies()

    @outlasts_outages
    def running(self) -> dict[str, Sign]:
        """Return the runs without an end, each with what is known of its process."""
        columns = (
            Run.id,
            Run.flow_run_id,
            Run.state,
            Run.started_at,
            Run.owner,
            Run.lease_until,
        )
        now = self._database.lease_time()
        with self._database.reading() as connection:
            rows = connection.execute(select(*columns).where(Run.state == "running"))
            return {row.id: run_process(dict(row._mapping), now).sign for row in rows}

    @outlasts_outages
    def newest_call(self) -> int:
        """Return the number of the newest attempt on record; 0 without one."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.max(AttemptRecord.seq))) or 0

    @outlasts_outages
    def calls_after(self, seq: int, limit: int = 1000) -> list[CallRow]:
        """Return calls that were made and recorded after an attempt, in the order of recording."""
        columns = [getattr(AttemptRecord, name) for name in CallRow.__slots__]
        query = (
            select(*columns)
            .where(AttemptRecord.seq > seq, AttemptRecord.reused.is_(False))
            .order_by(AttemptRecord.seq)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [CallRow(**row._mapping) for row in connection.execute(query)]

    @outlasts_outages
    def labels(self) -> list[LabelCount]:
        """Return the labels of answers in use, by step and day."""
        a = AuditRecord
        with self._database.reading() as connection:
            key = (a.step, day_of(connection, a.recorded_at))
            query = (
                select(
                    *key, func.sum(case((a.right.is_(True), 1), else_=0)), func.count()
                )
                .where(a.right.is_not(None), ~a.id.endswith(".shadow"))
                .group_by(*key)
            )
            return [
                LabelCount(
                    step=row[0], day=int(row[1]), right=int(row[2]), labelled=row[3]
                )
                for row in connection.execute(query)
            ]

    @outlasts_outages
    def documents(
        self,
        run_id: str,
        *,
        status: Status | None = None,
        part_of_id: str = "",
        after: str = "",
        limit: int = 100,
    ) -> list[DocumentRow]:
        """Return documents of a run by id, those after an id: all, or those of a status."""
        o = CURRENT.c
        level = case(
            (o.sensitivity == "public", 0),
            (o.sensitivity == "internal", 1),
            (o.sensitivity == "confidential", 2),
            else_=3,
        )

        def any_is(word: Status) -> Any:
            return func.max(case((o.status == word, 1), else_=0)) > 0

        of_document = case(
            *((any_is(word), word) for word in _WORST_FIRST), else_="skipped"
        )
        query = (
            select(
                o.document_id,
                func.max(level).label("level"),
                func.count().label("steps"),
                of_document.label("status"),
            )
            .where(o.run_id == run_id, o.document_id > after)
            .group_by(o.document_id)
            .order_by(o.document_id)
            .limit(limit)
        )
        if part_of_id:
            query = query.where(o.document_id.contains(part_of_id, autoescape=True))
        if status is not None:
            query = query.having(of_document == status)
        with self._database.reading() as connection:
            return [
                DocumentRow(
                    document_id=row.document_id,
                    sensitivity_rank=row.level,
                    steps=row.steps,
                    status=row.status,
                )
                for row in connection.execute(query)
            ]


def _heads(connection: Connection) -> dict[str, _Head]:
    """Return all runs by id, newest first."""
    version = _version(connection)
    last_decision = select(
        ReviewRecord.run_id, func.max(ReviewRecord.seq).label("seq")
    ).group_by(ReviewRecord.run_id)
    decided = {row.run_id: row.seq for row in connection.execute(last_decision)}
    columns = (Run.id, Run.state, Run.finished_at, Run.removed_at)
    newest_first = select(*columns).order_by(Run.started_at.desc(), Run.id)
    return {
        row.id: _Head(row.finished_at is not None, (*row, decided.get(row.id), version))
        for row in connection.execute(newest_first)
    }


def _changed(
    heads: Mapping[str, _Head], kept: Mapping[str, _KeptRun | _KeptAnswers]
) -> list[str]:
    """Return the runs that have to be read: the rows of one that has not ended still come."""
    return [
        run_id
        for run_id, head in heads.items()
        if run_id not in kept
        or kept[run_id].version != head.version
        or not head.has_ended
    ]


def _parts(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the runs in parts: a database takes a limited number of parameters."""
    for start in range(0, len(run_ids), _AT_ONCE):
        yield run_ids[start : start + _AT_ONCE]


def _version(connection: Connection) -> tuple[int, int]:
    """Return a value that changes when records on file are changed or removed."""
    repriced = connection.scalar(select(func.max(RepricingRecord.seq))) or 0
    deleted = connection.scalar(select(func.max(DeletionRecord.seq))) or 0
    return repriced, deleted


def _step_counts(
    connection: Connection, run_ids: Sequence[str]
) -> dict[str, dict[str, dict[Status, int]]]:
    """Return the number of documents by run, step and status, steps as first recorded."""
    o = CURRENT.c
    query = (
        select(o.run_id, o.step, o.status, func.count())
        .where(o.run_id.in_(run_ids))
        .group_by(o.run_id, o.step, o.status)
        .order_by(func.min(o.recorded_at))
    )
    counts: dict[str, dict[str, dict[Status, int]]] = {}
    for run_id, step, status, number in connection.execute(query):
        counts.setdefault(run_id, {}).setdefault(step, {})[status] = number
    return counts


def _spending(key: _Group, sums: Sequence[Any]) -> Spending:
    run_id, day, step, tier, model, role = key
    calls, reused, known, unknown, prompt, completion = sums
    named: Role = "used"
    if role in ("shadow", "judge"):
        named = role  # type: ignore[assignment]
    return Spending(
        run_id=run_id,
        day=day,
        step=step,
        tier=tier,
        model=model,
        role=named,
        calls=calls,
        reused=reused,
        cost_known=known,
        cost_unknown=unknown,
        prompt_tokens=prompt,
        completion_tokens=completion,
    )
