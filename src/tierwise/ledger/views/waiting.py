"""The documents that wait, over all runs: the queue of `tierwise review`. Read-only.

A document is known by flow, source, id within the source, and the hash of its text. It waits while
its newest run deferred it, and no later run that went through settled it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy import Select, literal, literal_column, null, or_, select, union_all

from tierwise.ledger.rows import RunFolders
from tierwise.ledger.tables import (
    OutcomeRecord,
    ReviewRecord,
    Run,
    RunFoldersRecord,
    SettledRecord,
)
from tierwise.records import Cause, id_in_run, text_hash

# The place of a source as a run's parameter names it.
PlaceOf = Callable[[str], str]
_Key = tuple[str, str, str]  # flow, id within the source, hash
NO_TEXT = text_hash("")  # of a document that could not be read
# A text and no parameter: a database uses a partial index only where it sees the condition.
_DEFERRED = OutcomeRecord.status == literal_column("'deferred'")


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRow:
    """A deferred outcome of a document that waits. Times are seconds since the epoch, UTC.

    `run_id` is the newest run that deferred it, `waits_since` the time of the first deferral since
    a run last settled the document. `source` is None where the ledger does not know it.
    """

    run_id: str
    run_started_at: float
    flow: str
    source: str | None
    document_id: str
    document_hash: str
    step: str
    cause: Cause | None
    reason: str
    question: str | None
    waits_since: float
    # a person accepted an answer or sent it again, and no later run took it up
    is_decided: bool


@dataclass(frozen=True, slots=True)
class QueueSpan:
    """What a queue was read from: the number of runs and flows, and the start of the first run."""

    runs: int
    flows: int
    since: float | None


@dataclass(slots=True)
class _Entry:
    """A document in its newest run so far, while it waits."""

    run: Any
    source: str | None
    waits_since: float
    deferred: list[Any] = field(default_factory=list)


def outcomes_query(is_counted: Any) -> Select[Any]:
    """Select every outcome of the texts that some run deferred, the oldest run first."""
    o = OutcomeRecord
    s = SettledRecord
    deferred_texts = select(o.document_hash).where(_DEFERRED)
    outcomes = select(
        o.run_id,
        o.document_id,
        o.document_hash,
        o.step,
        o.status,
        o.cause,
        o.reason,
        o.question,
        o.recorded_at,
    ).where(o.document_hash.in_(deferred_texts))
    # Of runs whose outcomes retention removed.
    removed = select(
        s.run_id,
        s.document_id,
        s.document_hash,
        literal(""),
        literal("accepted"),
        null(),
        literal(""),
        null(),
        literal(0.0),
    ).where(s.document_hash.in_(deferred_texts))
    seen = union_all(outcomes, removed).subquery("seen")
    return (
        select(seen)
        .join(Run, Run.id == seen.c.run_id)
        .where(is_counted)
        .order_by(Run.started_at, Run.id, seen.c.document_id)
    )


def decisions_query() -> Select[Any]:
    """Select the decisions about deferred texts, the first one first."""
    r = ReviewRecord
    deferred_texts = select(OutcomeRecord.document_hash).where(_DEFERRED)
    # An accepted answer that was deleted since is asked for again. A comment decides nothing.
    without_value = r.decision.in_(("rejected", "reopened", "again"))
    has_effect = or_(without_value, r.value.is_not(None))
    columns = (
        r.run_id,
        r.document_id,
        r.document_hash,
        r.step,
        r.question,
        r.decision,
        r.reviewed_at,
    )
    return (
        select(*columns)
        .where(r.document_hash.in_(deferred_texts), has_effect)
        .order_by(r.seq)
    )


class Decisions:
    """The last decision about each outcome, and about each question and text."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._of_outcomes: dict[tuple[str, str, str], Any] = {}
        self._of_texts: dict[tuple[str, str], Any] = {}
        for row in rows:
            outcome = (row.run_id, row.document_id, row.step)
            self._of_outcomes[outcome] = row
            if row.question is not None:
                self._of_texts[row.question, row.document_hash] = row

    def about(self, row: Any) -> str | None:
        """Return the decision that applies to an outcome; None without one."""
        own = self._of_outcomes.get((row.run_id, row.document_id, row.step))
        word = _word(own, row)
        if word is not None:
            return word
        # The same question about the same text, in another run or another folder.
        return _word(self._of_texts.get((row.question, row.document_hash)), row)


def _word(decision: Any, outcome: Any) -> str | None:
    """Return what a decision says about an outcome; None where it says nothing about it."""
    if decision is None or decision.decision == "reopened":
        return None
    # Who sent a document again waits for the next outcome; this one is it.
    if decision.decision == "again" and decision.reviewed_at <= outcome.recorded_at:
        return None
    word: str = decision.decision
    return word


def runs_query(is_counted: Any) -> Select[Any]:
    """Select the runs that count with their folders, the oldest run first."""
    columns = (Run.id, Run.flow, Run.state, Run.started_at, Run.parameters)
    folders = RunFoldersRecord
    return (
        select(*columns, folders.folders, folders.is_further)
        .outerjoin(folders, folders.run_id == Run.id)
        .where(is_counted)
        .order_by(Run.started_at, Run.id, folders.seq)
    )


@dataclass(frozen=True, slots=True)
class _RunFacts:
    id: str
    flow: str
    state: str
    started_at: float
    first: str | None  # the source whose documents have their own ids
    further: tuple[str, ...]  # the sources in front of their documents' ids

    def own_id(self, document_id: str) -> tuple[str | None, str]:
        """Return the source of a document, and its id within the source."""
        for source in self.further:
            in_front = id_in_run(source, "")
            if document_id.startswith(in_front):
                return source, document_id.removeprefix(in_front)
        return self.first, document_id


def run_facts(rows: Iterable[Any], place_of: PlaceOf) -> dict[str, _RunFacts]:
    """Return the runs by id, each with its sources."""
    runs: dict[str, _RunFacts] = {}
    for run_id, group in groupby(rows, key=lambda row: row.id):
        of_run = list(group)
        first: str | None = None
        further: list[str] = []
        for row in of_run:
            if row.folders is None:
                continue
            folders = RunFolders.from_json(row.folders)
            source = folders.source
            if source is None and "source" in folders.naming:
                # a run of an earlier version
                source = place_of(folders.naming["source"])
            if source is None:
                continue
            if row.is_further:
                further.append(source)
            elif first is None:
                first = source
        run = of_run[0]
        if first is None:
            first = _named_source(run.parameters, place_of)
        # The longest first: one source may be the beginning of another.
        by_length = sorted(set(further), key=len, reverse=True)
        runs[run_id] = _RunFacts(
            run_id, run.flow, run.state, run.started_at, first, tuple(by_length)
        )
    return runs


def _named_source(parameters: Any, place_of: PlaceOf) -> str | None:
    """Return the source that a run without folders on record names in its parameters."""
    if not isinstance(parameters, Mapping):
        return None
    source = parameters.get("source")
    return place_of(source) if isinstance(source, str) and source else None


def still_waiting(
    rows: Iterable[Any],
    runs: Mapping[str, _RunFacts],
    decisions: Decisions,
    settling: Iterable[str],
) -> list[WaitingRow]:
    """Return the outcomes of documents that wait, the longest wait first.

    `rows` are those of `outcomes_query`; a run in a state of `settling` settles a document that it
    did not defer.
    """
    settling_states = frozenset(settling)
    # By source within the key: a source that is not known may be any.
    waiting: dict[_Key, dict[str | None, _Entry]] = {}
    dismissed: dict[tuple[_Key, str | None], str] = {}
    for (run_id, document_id), group in groupby(
        rows, key=lambda row: (row.run_id, row.document_id)
    ):
        outcomes = list(group)
        run = runs[run_id]
        source, own_id = run.own_id(document_id)
        key = (run.flow, own_id, outcomes[0].document_hash)
        deferred = [row for row in outcomes if row.status == "deferred"]
        # A rejected document is finished. One with an accepted answer continues in a later run.
        rejected = [row for row in deferred if decisions.about(row) == "rejected"]
        is_open = len(rejected) < len(deferred)
        if key[2] == NO_TEXT and deferred:
            # Without a text there is no question that a later run would find the decision by.
            reason = deferred[0].reason
            if is_open and decisions.about(deferred[0]) is None:
                is_open = dismissed.get((key, source)) != reason
            elif not is_open:
                dismissed[key, source] = reason
        of_key = waiting.setdefault(key, {})
        if not is_open and not deferred and run.state not in settling_states:
            continue
        before = [of_key.pop(source, None)]
        if source is not None:
            before.append(of_key.pop(None, None))
        if not is_open:
            continue
        since = min(row.recorded_at for row in deferred)
        for entry in before:
            if entry is not None:
                since = min(since, entry.waits_since)
        of_key[source] = _Entry(run, source, since, deferred)
    found = [
        _waiting_row(entry, row, decisions.about(row))
        for of_key in waiting.values()
        for entry in of_key.values()
        for row in entry.deferred
        if decisions.about(row) != "rejected"
    ]
    found.sort(key=lambda row: (row.waits_since, row.run_id, row.document_id, row.step))
    return found


def _waiting_row(entry: _Entry, row: Any, decision: str | None) -> WaitingRow:
    return WaitingRow(
        run_id=entry.run.id,
        run_started_at=entry.run.started_at,
        flow=entry.run.flow,
        source=entry.source,
        document_id=row.document_id,
        document_hash=row.document_hash,
        step=row.step,
        cause=row.cause,
        reason=row.reason,
        question=row.question,
        waits_since=entry.waits_since,
        is_decided=decision is not None,
    )


def without_replaced(
    waiting: Sequence[WaitingRow],
    runs: Mapping[str, _RunFacts],
    seen_later: Callable[[Sequence[str], Sequence[str]], Iterable[Any]],
) -> list[WaitingRow]:
    """Return the rows without unreadable documents whose files were replaced since.

    `seen_later` returns run, document and hash of outcomes in some runs with some ids.
    """
    unreadable = [row for row in waiting if row.cause == "unreadable"]
    if not unreadable:
        return list(waiting)
    flows = {row.flow for row in unreadable}
    first_start = min(row.run_started_at for row in unreadable)
    later = [
        run.id
        for run in runs.values()
        if run.flow in flows and run.started_at > first_start
    ]
    ids: set[str] = set()
    for row in unreadable:
        _, own_id = runs[row.run_id].own_id(row.document_id)
        ids.add(own_id)
        if row.source is not None:
            ids.add(id_in_run(row.source, own_id))
    newest: dict[tuple[str, str | None, str], float] = {}
    for seen in seen_later(later, sorted(ids)):
        run = runs[seen.run_id]
        source, own_id = run.own_id(seen.document_id)
        # The same text is the same file, which `still_waiting` has seen.
        if seen.document_hash == NO_TEXT:
            continue
        key = (run.flow, source, own_id)
        newest[key] = max(run.started_at, newest.get(key, 0.0))

    def is_replaced(row: WaitingRow) -> bool:
        _, own_id = runs[row.run_id].own_id(row.document_id)
        return newest.get((row.flow, row.source, own_id), 0.0) > row.run_started_at

    return [row for row in waiting if row.cause != "unreadable" or not is_replaced(row)]
