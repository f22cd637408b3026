"""Recorded runs with their attempts and outcomes. Read-only; summed by the database, exactly."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    union_all,
)

from tierwise.errors import Misuse, UnknownName
from tierwise.ledger.leases import RunProcess, is_over, run_process
from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.people.reviews import CURRENT
from tierwise.ledger.rows import (
    WENT_THROUGH,
    DeferredRow,
    OutcomeRow,
    RunFolders,
    RunRow,
    SummaryRow,
    attempt_of,
    outcome_of,
    reply_of,
    verdicts_of,
)
from tierwise.ledger.tables import (
    COST,
    AttemptRecord,
    CallRecord,
    GroupMemberRecord,
    OutcomeRecord,
    Run,
    RunFoldersRecord,
    SettledRecord,
    VerdictRecord,
)
from tierwise.ledger.views.lost import lost_calls
from tierwise.ledger.views.model_rows import summary_rows
from tierwise.ledger.views.waiting import (
    Decisions,
    PlaceOf,
    QueueSpan,
    WaitingRow,
    decisions_query,
    outcomes_query,
    run_facts,
    runs_query,
    still_waiting,
    without_replaced,
)
from tierwise.records import (
    Attempt,
    Cause,
    Outcome,
    Reply,
    Status,
    Verdict,
    id_in_run,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database

_CHUNK = 1000  # rows fetched at once where many are read
_Key = tuple[str, str, str]  # step, tier, model
_Of = tuple[ColumnElement[bool], ...]  # which attempts
_Query = Select[Any]
_MEASURING = ("certify ", "try ", "distil ")
_FAULT: Cause = "provider_fault"
# A deferred outcome, and the names of each model's errors in its step.
IsPassing = Callable[[Outcome, Mapping[str, Collection[str]]], bool]
# The folders of a run: do its documents count for the source and output in question?
IsHere = Callable[[RunFolders], bool]
_FOLDERS = (RunFoldersRecord.folders, RunFoldersRecord.is_further)

_LONGEST_NAME = 1000  # characters of a run's id


def _anywhere(folders: RunFolders) -> bool:  # noqa: ARG001
    return True


def _is_one_of(here: Mapping[str, RunFolders]) -> ColumnElement[bool]:
    """Select runs with these folders, and those that have none on record."""
    folders = RunFoldersRecord.folders
    return or_(folders.is_(None), folders.in_(list(here)))


def _own_id(row: Any, here: Mapping[str, RunFolders]) -> str | None:
    """Return a document's id within its source; None if it is of another source of its run."""
    document_id: str = row.document_id
    if not row.is_further:
        return document_id
    in_front = id_in_run(here[row.folders].source or "", "")
    if not document_id.startswith(in_front):
        return None
    return document_id.removeprefix(in_front)


class Runs:
    """The recorded runs, with their attempts and outcomes: `ledger.runs`.

    Every method raises LedgerError when the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def newest(self, limit: int = 20) -> list[RunRow]:
        """Return the newest runs, newest first."""
        with self._database.reading() as connection:
            return _runs(
                connection,
                select(Run).order_by(Run.started_at.desc(), Run.id).limit(limit),
            )

    @outlasts_outages
    def processes(self, flow_run_ids: Collection[str]) -> list[RunProcess]:
        """Return what is known of the processes of these flow runs of Prefect's, oldest first."""
        return self._processes(Run.flow_run_id.in_(list(flow_run_ids)))

    @outlasts_outages
    def under_way(self) -> list[RunProcess]:
        """Return the processes of current flow runs that are not known to be dead, oldest first."""
        is_current = and_(Run.state == "running", Run.flow_run_id.is_not(None))
        processes = self._processes(is_current)
        return [process for process in processes if process.sign in ("alive", "leased")]

    def _processes(self, condition: ColumnElement[bool]) -> list[RunProcess]:
        """Return what is known of the processes of these runs, oldest first."""
        columns = (
            Run.id,
            Run.flow_run_id,
            Run.state,
            Run.started_at,
            Run.owner,
            Run.lease_until,
        )
        query = select(*columns).where(condition).order_by(Run.started_at, Run.id)
        now = self._database.lease_time()
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [run_process(dict(row._mapping), now) for row in rows]

    @outlasts_outages
    def of_flow_runs(self, flow_run_ids: Collection[str]) -> dict[str, RunRow]:
        """Return the newest run of each of these flow runs of Prefect's, by its id there."""
        query = (
            select(Run)
            .where(Run.flow_run_id.in_(list(flow_run_ids)))
            .order_by(Run.started_at, Run.id)
        )
        with self._database.reading() as connection:
            rows = _runs(connection, query)
        return {row.flow_run_id: row for row in rows if row.flow_run_id}

    @outlasts_outages
    def since(self, started: float) -> list[RunRow]:
        """Return the runs that started at or after `started` (s since the epoch), newest first."""
        query = select(Run).where(Run.started_at >= started)
        with self._database.reading() as connection:
            return _runs(connection, query.order_by(Run.started_at.desc(), Run.id))

    @outlasts_outages
    def before(self, run: RunRow, limit: int = 20) -> list[RunRow]:
        """Return a run and the runs of the same flow before it, oldest first."""
        query = select(Run).where(
            Run.flow == run.flow, Run.started_at <= run.started_at
        )
        newest_first = query.order_by(Run.started_at.desc(), Run.id).limit(limit)
        with self._database.reading() as connection:
            return _runs(connection, newest_first)[::-1]

    @outlasts_outages
    def resolve(self, name: str) -> RunRow:
        """Return the run whose id is or starts with `name`, or the `latest`.

        A run that ended before its first document never started, and is not the latest. Raises
        UnknownName, or Misuse when the name fits several.
        """
        newest = select(Run).order_by(Run.started_at.desc(), Run.id)
        with self._database.reading() as connection:
            if name == "latest":
                return _latest(connection)
            if len(name) > _LONGEST_NAME:
                # SQLite refuses such a pattern, as would a reader such a message.
                name = f"{name[:40]}…"
            found = _runs(
                connection,
                newest.where(Run.id.startswith(name, autoescape=True)).limit(10),
            )
            # A whole id may also be the beginning of another.
            exact = [run for run in found if run.id == name]
            if len(found) == 1 or exact:
                return (exact or found)[0]
            if not found:
                raise UnknownName(
                    "run",
                    name,
                    connection.scalars(newest.with_only_columns(Run.id).limit(10)),
                )
            raise Misuse(
                f"'{name}' fits several runs: {', '.join(run.id for run in found)}; "
                "give more of the id"
            )

    @outlasts_outages
    def summary(self, run_id: str) -> list[SummaryRow]:
        """Return one row for each step, tier and model, as first asked; shadows come last."""
        with self._database.reading() as connection:
            return summary_rows(connection, run_id)

    @outlasts_outages
    def ended(self, run_ids: Iterable[str]) -> list[str]:
        """Return those of these runs that have ended."""
        query = select(Run.id).where(Run.id.in_(set(run_ids)), Run.state != "running")
        with self._database.reading() as connection:
            return list(connection.scalars(query))

    @outlasts_outages
    def steps(self, run_ids: Iterable[str]) -> set[str]:
        """Return the steps in which these runs asked a model."""
        asked = select(AttemptRecord.step).where(AttemptRecord.run_id.in_(set(run_ids)))
        with self._database.reading() as connection:
            return set(connection.scalars(asked.distinct()))

    @outlasts_outages
    def outcome_counts(self, run_id: str) -> dict[str, dict[Status, int]]:
        """Return the number of documents by step and status, steps as first recorded."""
        query = (
            select(CURRENT.c.step, CURRENT.c.status, func.count().label("documents"))
            .where(CURRENT.c.run_id == run_id)
            .group_by(CURRENT.c.step, CURRENT.c.status)
            # Python's dict keeps this order: a step takes the place of its first outcome.
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
        """Yield the present outcomes of a run by document and step: all, or those that fit."""
        wanted = {"document_id": document_id, "step": step, "status": status}
        query = (
            select(CURRENT)
            .where(CURRENT.c.run_id == run_id)
            .where(
                *(
                    CURRENT.c[name] == value
                    for name, value in wanted.items()
                    if value is not None
                )
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

    @outlasts_outages
    def settled(
        self, flow: str, is_passing: IsPassing, is_here: IsHere = _anywhere
    ) -> frozenset[tuple[str, str]]:
        """Return id and hash of every document that a run of this flow is done with.

        Such a document went through all steps, or waits for a person. One that its last run
        deferred for a passing reason is not among them. `is_here` says which runs count, by the
        folders that they read and wrote; one without any on record counts. The ids are those
        within the source.
        """
        here = self._folders_here(flow, is_here)
        passing = self._deferred_for_passing_reasons(flow, is_passing, here)
        last_run = func.max(Run.started_at).label("last_run")
        # With those of runs whose outcomes retention removed.
        seen = union_all(
            select(
                OutcomeRecord.run_id,
                OutcomeRecord.document_id,
                OutcomeRecord.document_hash,
            ),
            select(
                SettledRecord.run_id,
                SettledRecord.document_id,
                SettledRecord.document_hash,
            ),
        ).subquery()
        query = (
            select(seen.c.document_id, seen.c.document_hash, *_FOLDERS, last_run)
            .join(Run, Run.id == seen.c.run_id)
            .outerjoin(RunFoldersRecord, RunFoldersRecord.run_id == Run.id)
            .where(Run.flow == flow, Run.state.in_(WENT_THROUGH), _is_one_of(here))
            .group_by(seen.c.document_id, seen.c.document_hash, *_FOLDERS)
        )
        last_runs: dict[tuple[str, str], float] = {}
        for row in self._stream(query):
            own_id = _own_id(row, here)
            if own_id is not None:
                key = (own_id, row.document_hash)
                last_runs[key] = max(row.last_run, last_runs.get(key, 0.0))
        # A document that is not in `passing` gives None, which no time equals.
        return frozenset(
            key for key, started in last_runs.items() if passing.get(key) != started
        )

    @outlasts_outages
    def delivered(
        self, flow: str, is_here: IsHere = _anywhere
    ) -> frozenset[tuple[str, str]]:
        """Return id and hash of every document that its last run deferred at no step.

        As the run left it: a decision of a person since does not count, because the steps after it
        are still to come. Flow, folders and ids are as in `settled`.
        """
        here = self._folders_here(flow, is_here)
        is_deferred = func.max(
            case((OutcomeRecord.status == "deferred", 1), else_=0)
        ).label("is_deferred")
        waiting_members = self._members_of_deferred_groups(flow)
        document = (OutcomeRecord.document_id, OutcomeRecord.document_hash)
        query = (
            select(
                OutcomeRecord.run_id, *document, *_FOLDERS, Run.started_at, is_deferred
            )
            .join(Run, Run.id == OutcomeRecord.run_id)
            .outerjoin(RunFoldersRecord, RunFoldersRecord.run_id == Run.id)
            .where(Run.flow == flow, Run.state.in_(WENT_THROUGH), _is_one_of(here))
            .group_by(OutcomeRecord.run_id, *document, *_FOLDERS, Run.started_at)
            .order_by(Run.started_at)
        )
        # Oldest first, so that the last run stays.
        is_waiting: dict[tuple[str, str], bool] = {}
        for row in self._stream(query):
            own_id = _own_id(row, here)
            if own_id is not None:
                waits_in_group = (row.run_id, row.document_id) in waiting_members
                is_waiting[own_id, row.document_hash] = (
                    bool(row.is_deferred) or waits_in_group
                )
        return frozenset(key for key, waits in is_waiting.items() if not waits)

    def _members_of_deferred_groups(self, flow: str) -> frozenset[tuple[str, str]]:
        """Return run and id of the members of groups that a step deferred."""
        g = GroupMemberRecord
        query = (
            select(g.run_id, g.document_id)
            .join(
                OutcomeRecord,
                and_(
                    OutcomeRecord.run_id == g.run_id,
                    OutcomeRecord.document_id == g.group_id,
                ),
            )
            .join(Run, Run.id == g.run_id)
            .where(Run.flow == flow, OutcomeRecord.status == "deferred")
            .distinct()
        )
        return frozenset((row.run_id, row.document_id) for row in self._stream(query))

    def _folders_here(self, flow: str, is_here: IsHere) -> dict[str, RunFolders]:
        """Return the folders that count, by their text on record."""
        query = (
            select(RunFoldersRecord.folders)
            .join(Run, Run.id == RunFoldersRecord.run_id)
            .where(Run.flow == flow, Run.state.in_(WENT_THROUGH))
            .distinct()
        )
        here: dict[str, RunFolders] = {}
        for row in self._stream(query):
            folders = RunFolders.from_json(row.folders)
            if is_here(folders):
                here[row.folders] = folders
        return here

    def _deferred_for_passing_reasons(
        self, flow: str, is_passing: IsPassing, here: Mapping[str, RunFolders]
    ) -> dict[tuple[str, str], float]:
        """Return id and hash of each such document with the start of its last run."""
        of_flow = (Run.flow == flow, Run.state.in_(WENT_THROUGH))
        is_fault = and_(CURRENT.c.status == "deferred", CURRENT.c.cause == _FAULT)
        same_step = and_(
            AttemptRecord.run_id == CURRENT.c.run_id,
            AttemptRecord.document_id == CURRENT.c.document_id,
            AttemptRecord.step == CURRENT.c.step,
        )
        failed = (
            select(
                AttemptRecord.run_id,
                AttemptRecord.document_id,
                AttemptRecord.step,
                AttemptRecord.model,
                AttemptRecord.error,
            )
            .join(CURRENT, same_step)
            .join(Run, Run.id == AttemptRecord.run_id)
            .where(*of_flow, is_fault, AttemptRecord.error.is_not(None))
        )
        errors: dict[_Key, dict[str, set[str]]] = {}
        for row in self._stream(failed):
            of_step = errors.setdefault((row.run_id, row.document_id, row.step), {})
            of_step.setdefault(row.model, set()).add(row.error)
        deferred = (
            select(CURRENT, Run.started_at, *_FOLDERS)
            .join(Run, Run.id == CURRENT.c.run_id)
            .outerjoin(RunFoldersRecord, RunFoldersRecord.run_id == Run.id)
            .where(*of_flow, CURRENT.c.status == "deferred", _is_one_of(here))
            .order_by(Run.started_at)
        )
        # Oldest first, so that the time of the last run stays.
        last_runs: dict[tuple[str, str], float] = {}
        groups: set[tuple[str, str]] = set()
        for row in self._stream(deferred):
            of_step = errors.get((row.run_id, row.document_id, row.step), {})
            if not is_passing(outcome_of(row), of_step):
                continue
            groups.add((row.run_id, row.document_id))
            own_id = _own_id(row, here)
            if own_id is not None:
                last_runs[own_id, row.document_hash] = row.started_at
        # A member is done with when its group is.
        members = (
            select(GroupMemberRecord, Run.started_at, *_FOLDERS)
            .join(Run, Run.id == GroupMemberRecord.run_id)
            .outerjoin(RunFoldersRecord, RunFoldersRecord.run_id == Run.id)
            .where(Run.flow == flow, Run.state.in_(WENT_THROUGH), _is_one_of(here))
            .order_by(Run.started_at)
        )
        for row in self._stream(members) if groups else ():
            own_id = _own_id(row, here)
            if own_id is not None and (row.run_id, row.group_id) in groups:
                key = (own_id, row.document_hash)
                last_runs[key] = max(row.started_at, last_runs.get(key, 0.0))
        return last_runs

    def waiting(self) -> Iterator[str]:
        """Yield the ids of the runs in which documents wait, newest first: see `queue`."""
        rows = sorted(self.queue(), key=lambda row: (-row.run_started_at, row.run_id))
        yield from dict.fromkeys(row.run_id for row in rows)

    @outlasts_outages
    def queue(self, place_of: PlaceOf = str) -> list[WaitingRow]:
        """Return all outcomes of documents that wait, over all runs, the longest wait first.

        Those with an accepted answer of a person wait for a later run alone: `is_decided`.
        `place_of` gives the place of a source that a run names in its parameters. Measurements are
        left out.
        """
        is_counted = is_measurement() == 0
        with self._database.reading() as connection:
            runs = run_facts(connection.execute(runs_query(is_counted)), place_of)
            decisions = Decisions(connection.execute(decisions_query()))
            rows = connection.execute(outcomes_query(is_counted))
            waiting = still_waiting(rows, runs, decisions, WENT_THROUGH)

            def seen_later(run_ids: Sequence[str], ids: Sequence[str]) -> list[Any]:
                return _seen_in(connection, run_ids, ids)

            return without_replaced(waiting, runs, seen_later)

    @outlasts_outages
    def tags_of(self, run_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return the tags of runs, by id."""
        query = select(Run.id, Run.tags).where(Run.id.in_(sorted(run_ids)))
        with self._database.reading() as connection:
            return {row.id: row.tags or {} for row in connection.execute(query)}

    @outlasts_outages
    def flows(self) -> list[str]:
        """Return the names of all flows that ran."""
        query = select(Run.flow).where(is_measurement() == 0).distinct()
        with self._database.reading() as connection:
            return sorted(connection.scalars(query))

    @outlasts_outages
    def span(self) -> QueueSpan:
        """Return the number of runs and flows, and when the first run began; no measurements."""
        query = select(
            func.count().label("runs"),
            func.count(Run.flow.distinct()).label("flows"),
            func.min(Run.started_at).label("since"),
        ).where(is_measurement() == 0)
        with self._database.reading() as connection:
            row = connection.execute(query).one()
        return QueueSpan(row.runs, row.flows, row.since)

    @outlasts_outages
    def empty_since(self, run: RunRow) -> list[RunRow]:
        """Return the completed runs after a run that had no document, newest first."""
        newer = select(Run).where(
            Run.started_at > run.started_at,
            Run.state == "completed",
            ~exists().where(OutcomeRecord.run_id == Run.id),
            Run.removed_at.is_(None),
            is_measurement() == 0,
        )
        with self._database.reading() as connection:
            return _runs(
                connection, newer.order_by(Run.started_at.desc(), Run.id).limit(_CHUNK)
            )

    @outlasts_outages
    def deferred(self, run_id: str) -> list[DeferredRow]:
        """Return the deferred documents of a run."""
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
        """Yield the attempts of a run with their verdicts, as recorded; `reply` has their text.

        Calls that were lost with their process come first.
        """
        wanted = {"document_id": document_id, "step": step}
        verdict = (
            VerdictRecord.check,
            VerdictRecord.passed,
            VerdictRecord.reason,
            VerdictRecord.score,
            VerdictRecord.fields,
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
        with self._database.reading() as connection:
            lost = lost_calls(connection, [run_id])
        for call in lost:
            if all(
                getattr(call.attempt, name) == value
                for name, value in wanted.items()
                if value is not None
            ):
                yield call.attempt
        # The order of the query keeps the rows of one attempt together, as `groupby` needs.
        for _, group in groupby(self._stream(query), key=lambda row: row.seq):
            rows = list(group)
            # The outer join gives an attempt without verdicts one row, with NULLs.
            verdicts: list[Verdict] = []
            for row in rows:
                if row.check is not None:
                    verdicts.extend(verdicts_of(row))
            yield attempt_of(rows[0], verdicts)

    @outlasts_outages
    def reply(self, call_hash: str) -> Reply | None:
        """Return the paid reply of a call, or None."""
        with self._database.reading() as connection:
            data = connection.scalar(
                select(CallRecord.reply).where(CallRecord.call_hash == call_hash)
            )
        return reply_of(data) if data else None

    def _stream(self, query: _Query) -> Iterator[Any]:
        with self._database.reading() as connection:
            yield from connection.execute(
                query, execution_options={"yield_per": _CHUNK}
            )


_REUSED = func.sum(case((AttemptRecord.reused, 1), else_=0))
_UNKNOWN = func.sum(case((COST.is_(None), 1), else_=0))
# A reused attempt repeats the counts of the one that paid; its call is not counted twice.
_UNCLEAR = func.sum(
    case(
        (and_(AttemptRecord.usage_unclear.is_not(None), ~AttemptRecord.reused), 1),
        else_=0,
    )
)
_COUNTS = (
    "documents",
    "accepted",
    "deferred",
    "attempts",
    "reused",
    "cost_unknown",
    "usage_unclear",
    "repriced",
)
_GROUP = (AttemptRecord.step, AttemptRecord.tier, AttemptRecord.model)


def _key(row: Any) -> _Key:
    return row.step, row.tier, row.model


def _latest(connection: Connection) -> RunRow:
    """Return the newest run that did something or is under way. Raises Misuse.

    A schedule makes many runs without a new document: these count only where no run did anything.
    Measurements count only where no flow has run: a person who asks for the last run means a
    flow's.
    """
    has_outcomes = exists().where(OutcomeRecord.run_id == Run.id)
    has_attempts = exists().where(AttemptRecord.run_id == Run.id)
    did_something = or_(has_outcomes, has_attempts)
    is_completed = Run.state == "completed"
    is_empty = case((and_(is_completed, ~did_something), 1), else_=0)
    columns = (Run.id, Run.state, Run.owner, Run.lease_until)
    query = (
        select(*columns, or_(did_something, is_completed).label("counts"))
        .where(or_(did_something, is_completed, Run.state == "running"))
        # 0 sorts before 1: every run of a flow comes before the measurements.
        .order_by(is_measurement(), is_empty, Run.started_at.desc(), Run.id)
    )
    now = time.time()
    for row in connection.execute(query.limit(_CHUNK)):
        # of a run that is still `running`, the process may have died before its first document
        if row.counts or not is_over(row.owner, row.lease_until, now):
            return _runs(connection, select(Run).where(Run.id == row.id))[0]
    if connection.scalar(select(func.count()).select_from(Run)):
        raise Misuse(
            "no run has reached a document yet; `tierwise runs` lists those that did not start"
        )
    raise Misuse("the ledger has no runs yet; run a flow first")


def _seen_in(
    connection: Connection, run_ids: Sequence[str], document_ids: Sequence[str]
) -> list[Any]:
    """Return run, document and hash of the outcomes of some documents in some runs."""
    o = OutcomeRecord
    columns = (o.run_id, o.document_id, o.document_hash)
    rows: list[Any] = []
    for start in range(0, len(document_ids), _CHUNK):
        ids = document_ids[start : start + _CHUNK]
        for first in range(0, len(run_ids), _CHUNK):
            of_runs = o.run_id.in_(run_ids[first : first + _CHUNK])
            query = select(*columns).where(of_runs, o.document_id.in_(ids)).distinct()
            rows += connection.execute(query).all()
    return rows


def is_measurement() -> ColumnElement[int]:
    """Select 1 for a run of `tierwise certify`, `try` or `distil`, named after the command, with no flow."""
    named = [Run.flow.startswith(command) for command in _MEASURING]
    # a flow of such a name has a flow run in Prefect
    return case((and_(Run.flow_run_id.is_(None), or_(*named)), 1), else_=0)


def is_measurement_run(run: RunRow) -> bool:
    """Return True for a run that `is_measurement` selects."""
    return run.flow_run_id is None and run.flow.startswith(_MEASURING)


def _runs(connection: Connection, query: _Query) -> list[RunRow]:
    runs = connection.execute(
        query.with_only_columns(Run.__table__, maintain_column_froms=True)
    ).all()
    # Two queries for all runs together, not two for each.
    ids = [run.id for run in runs]
    spent = {row.run_id: row for row in connection.execute(_spending(ids))}
    documents = {row.run_id: row for row in connection.execute(_documents(ids))}
    lost = defaultdict(list)
    for call in lost_calls(connection, ids):
        lost[call.run_id].append(call.attempt)
    return [
        _run_row(run, spent.get(run.id), documents.get(run.id), lost[run.id])
        for run in runs
    ]


def runs_of(connection: Connection, run_ids: Collection[str]) -> list[RunRow]:
    """Return these runs, in no order."""
    return _runs(connection, select(Run).where(Run.id.in_(run_ids)))


def totals_of(
    connection: Connection, run_ids: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return the totals of runs as JSON, to be kept when their rows are removed."""
    totals: dict[str, dict[str, Any]] = {}
    for run in _runs(connection, select(Run).where(Run.id.in_(run_ids))):
        of_run: dict[str, Any] = {name: getattr(run, name) for name in _COUNTS}
        totals[run.id] = of_run | {"cost_known": str(run.cost_known)}
    return totals


def _spending(run_ids: list[str]) -> _Query:
    return (
        select(
            AttemptRecord.run_id,
            func.count().label("attempts"),
            _REUSED.label("reused"),
            func.sum(COST).label("cost_known"),
            _UNKNOWN.label("cost_unknown"),
            _UNCLEAR.label("usage_unclear"),
            func.count(AttemptRecord.repriced).label("repriced"),
        )
        .where(AttemptRecord.run_id.in_(run_ids))
        .group_by(AttemptRecord.run_id)
    )


def _documents(run_ids: list[str]) -> _Query:
    def any_is(status: Status) -> Any:
        return func.max(case((CURRENT.c.status == status, 1), else_=0))

    # A row for each document first, as it has an outcome in every step but counts once.
    one = (
        select(
            CURRENT.c.run_id,
            any_is("accepted").label("accepted"),
            any_is("deferred").label("deferred"),
            any_is("waiting").label("in_batches"),
            any_is("rejected").label("rejected"),
        )
        .where(CURRENT.c.run_id.in_(run_ids))
        .group_by(CURRENT.c.run_id, CURRENT.c.document_id)
        .subquery()
    )
    # All are 1 or 0: accepted somewhere, and deferred, waiting or rejected nowhere.
    open_or_refused = (one.c.deferred, one.c.in_batches, one.c.rejected)
    accepted: ColumnElement[int] = one.c.accepted
    for other in open_or_refused:
        accepted = accepted * (1 - other)
    return select(
        one.c.run_id,
        func.count().label("documents"),
        func.sum(one.c.deferred).label("deferred"),
        func.sum(one.c.in_batches).label("in_batches"),
        func.sum(accepted).label("accepted"),
    ).group_by(one.c.run_id)


def _run_row(run: Any, spent: Any, documents: Any, lost: Sequence[Attempt]) -> RunRow:
    """Return the parts as one value; a run without attempts or outcomes has no row there."""
    own = {
        name: value
        for name, value in run._mapping.items()
        # They serve to find dead processes and removed rows; a RunRow has no such fields.
        if name not in ("owner", "lease_until", "removed_at", "totals")
    }
    if run.totals is not None:
        counts = {name: run.totals.get(name, 0) for name in _COUNTS}
        return RunRow(**own, **counts, cost_known=Decimal(run.totals["cost_known"]))
    known = (spent.cost_known if spent else None) or Decimal(0)
    unknown = spent.cost_unknown if spent else 0
    repriced = spent.repriced if spent else 0
    for attempt in lost:
        if attempt.cost is None:
            unknown += 1
        else:
            known += attempt.cost
            repriced += 1
    return RunRow(
        **own,
        documents=documents.documents if documents else 0,
        accepted=int(documents.accepted) if documents else 0,
        deferred=int(documents.deferred) if documents else 0,
        in_batches=int(documents.in_batches) if documents else 0,
        attempts=(spent.attempts if spent else 0) + len(lost),
        reused=spent.reused if spent else 0,
        cost_known=known,
        cost_unknown=unknown,
        repriced=repriced,
        usage_unclear=spent.usage_unclear if spent else 0,
    )
