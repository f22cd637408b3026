"""The ledger's side of the audit trail: records made of rows, and seals that show a changed row."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import collate, func, insert, select, update

from tierwise.ledger.leases import is_over
from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.people.chain import (
    START,
    Block,
    Kind,
    Record,
    Removal,
    Scope,
    Seal,
    chained,
    seal_hash,
)
from tierwise.ledger.people.labels import by_item, settled
from tierwise.ledger.rows import reply_of
from tierwise.ledger.tables import (
    AcknowledgementRecord,
    AttemptRecord,
    AuditRecord,
    CallRecord,
    ComparisonVerdictRecord,
    DeletionRecord,
    LabelRecord,
    LostCallRecord,
    OutcomeRecord,
    RepricingRecord,
    ReviewRecord,
    Run,
    SealRecord,
    VerdictRecord,
)
from tierwise.records import canonical_hash, text_hash

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database

_CHUNK = 1000  # rows fetched at once
_ALL = Scope()
# Other processes that work for a run may write a little after its process is dead.
_QUIET_S = 60.0

# the seals of a ledger by their kind and subject
_SealsByBlock = Mapping[tuple[Kind, str], Seal]


class Seals:
    """The ledger's records and seals, for an auditor.

    Methods raise LedgerError when the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def seal_run(self, run_id: str) -> None:
        """Seal a run's records as they are now; a sealed run keeps its seal."""
        # Before the transaction: hashing a long run inside it would keep all writers waiting.
        count, head = chained(self._run_records(run_id))
        with self._database.writing() as connection:
            add_seal(connection, "run", run_id, count, head)

    @outlasts_outages
    def sealed_runs(self, run_ids: Iterable[str]) -> frozenset[str]:
        """Return those of these runs that were sealed at their end."""
        query = select(SealRecord.subject).where(
            SealRecord.kind == "run", SealRecord.subject.in_(set(run_ids))
        )
        with self._database.reading() as connection:
            return frozenset(connection.scalars(query))

    @outlasts_outages
    def end_crashed(self) -> list[str]:
        """End and seal the runs whose process is dead, each at its last record; return their ids.

        If such a process was only suspended, it ends its run like any other, and that seal counts.
        """
        now = self._database.lease_time()
        query = select(Run.__table__).where(Run.state == "running")
        with self._database.reading() as connection:
            running = connection.execute(query).all()
        crashed = [row for row in running if is_over(row.owner, row.lease_until, now)]
        return [row.id for row in crashed if self._end_crashed(row, now)]

    def _end_crashed(self, row: Any, now: float) -> bool:
        """Return True if this call ended the run, and not another process in the meantime."""
        ended = max(row.started_at, self._last_activity(row.id))
        if ended > now - _QUIET_S:
            return False
        # Sealed as the run's row will be: it is changed only below, in the transaction.
        records = self._run_records(row.id, state="crashed", ended=_time(ended))
        count, head = chained(records)
        end = (
            update(Run)
            .where(Run.id == row.id, Run.state == "running")
            .values(state="crashed", finished_at=ended)
        )
        with self._database.writing() as connection:
            # The process itself, or another one, may have ended the run since it was read.
            rows_changed = connection.execute(end).rowcount
            if not rows_changed:
                return False
            add_seal(connection, "crash", row.id, count, head)
        return True

    def _last_activity(self, run_id: str) -> float:
        """Return the time of a run's last record (seconds since the epoch); 0 for none."""
        attempt_ended = AttemptRecord.started_at + AttemptRecord.latency_s
        last_attempt = select(func.max(attempt_ended)).where(
            AttemptRecord.run_id == run_id
        )
        last_outcome = select(func.max(OutcomeRecord.recorded_at)).where(
            OutcomeRecord.run_id == run_id
        )
        with self._database.reading() as connection:
            attempted_at = connection.scalar(last_attempt)
            decided_at = connection.scalar(last_outcome)
        return max(attempted_at or 0.0, decided_at or 0.0)

    def removals(self) -> list[Removal]:
        """Return the removals of runs' rows, the first one first."""
        query = select(DeletionRecord.__table__).order_by(DeletionRecord.seq)
        return [
            Removal(
                number=row.seq,
                runs=frozenset(row.scope["rows_of_runs"]),
                by=row.by,
                at=row.deleted_at,
                why=row.scope.get("why") or "",
            )
            for row in self._stream(query)
            if "rows_of_runs" in row.scope
        ]

    def is_sound(self, run_id: str) -> bool:
        """Return True if a run's records fit its seal, or are from before there were seals."""
        with self._database.reading() as connection:
            of_run = select(SealRecord.__table__).where(
                SealRecord.kind.in_(("run", "crash")), SealRecord.subject == run_id
            )
            # "run" comes after "crash", and is the one that counts.
            found = connection.execute(of_run.order_by(SealRecord.kind)).all()
            first_sealed_at = connection.scalar(select(func.min(SealRecord.sealed_at)))
            ended = connection.scalar(select(Run.finished_at).where(Run.id == run_id))
        if not found:
            return first_sealed_at is None or (ended or 0.0) < first_sealed_at
        return chained(self._run_records(run_id)) == (found[-1].records, found[-1].head)

    def in_order(self) -> Iterator[Seal]:
        """Yield all seals, in order."""
        for row in self._stream(select(SealRecord.__table__).order_by(SealRecord.seq)):
            yield _seal(row)

    def blocks(self, scope: Scope = _ALL) -> Iterator[Block]:
        """Yield all records: runs by their start, then decisions, labels and deletions."""
        seals = {(seal.kind, seal.subject): seal for seal in self.in_order()}
        yield from self._run_blocks(scope, seals)
        yield from self._row_blocks(_DECISIONS, scope, seals)
        yield from self._row_blocks(_LABELS, scope, seals)
        yield from self._row_blocks(_COMPARISONS, scope, seals)
        # a deletion belongs to no run, an alert or a repricing to many
        if scope.run is None:
            yield from self._row_blocks(_ACKNOWLEDGEMENTS, scope, seals)
            yield from self._row_blocks(_DELETIONS, scope, seals)
            yield from self._row_blocks(_REPRICINGS, scope, seals)

    def _run_blocks(self, scope: Scope, seals: _SealsByBlock) -> Iterator[Block]:
        removed: set[str] = set()
        for removal in self.removals():
            removed |= removal.runs
        query = (
            select(Run.id, Run.state, Run.finished_at, Run.removed_at)
            .where(*_within(scope, Run.id, Run.started_at))
            .order_by(Run.started_at, Run.id)
        )
        for row in self._stream(query):
            # Both: a mark without a record of the removal hides nothing.
            if row.removed_at is not None and row.id in removed:
                continue
            records = _LazyRecords(partial(self._run_records, row.id))
            # A run that was taken for dead and then ended by itself has both; its own counts.
            seal = seals.get(("run", row.id)) or seals.get(("crash", row.id))
            # A detached run waits for its batches: it is sealed when it has ended.
            ended = None if row.state == "detached" else row.finished_at
            yield Block("run", row.id, records, ended, seal)

    def _row_blocks(
        self, kind: _RowKind, scope: Scope, seals: _SealsByBlock
    ) -> Iterator[Block]:
        """Yield the blocks of a kind of which each row is a block of its own."""
        query = (
            select(kind.table.__table__)
            .where(*_within(scope, kind.run_id, kind.recorded_at))
            .order_by(kind.table.seq)
        )
        for row in self._stream(query):
            subject = str(row.seq)
            records = (kind.record_of(row),)
            recorded_at = getattr(row, kind.recorded_at.key)
            seal = seals.get((kind.name, subject))
            yield Block(kind.name, subject, records, recorded_at, seal)

    def altered_texts(self, scope: Scope = _ALL) -> Iterator[str]:
        """Yield the kept texts that no longer fit their hashes; a deleted text is no fault."""
        yield from self._altered_values(scope)
        yield from self._altered_answers(scope)
        yield from self._altered_decisions(scope)
        yield from self._altered_right_answers(scope)

    def _altered_values(self, scope: Scope) -> Iterator[str]:
        query = (
            select(OutcomeRecord.__table__)
            .join(Run, Run.id == OutcomeRecord.run_id)
            .where(*_within(scope, Run.id, Run.started_at))
            .where(OutcomeRecord.value.is_not(None))
        )
        for row in self._stream(query):
            # rows of old ledgers have no hash
            if row.value_hash and canonical_hash(row.value) != row.value_hash:
                yield f"run {row.run_id}: the value of {row.document_id}, {row.step}, was changed"

    def _altered_answers(self, scope: Scope) -> Iterator[str]:
        query = (
            select(
                AttemptRecord.run_id,
                AttemptRecord.document_id,
                AttemptRecord.step,
                AttemptRecord.answer_hash,
                CallRecord.reply,
            )
            # Only the attempt that paid: a reused one has no reply of its own.
            .join(CallRecord, CallRecord.attempt_id == AttemptRecord.id)
            .join(Run, Run.id == AttemptRecord.run_id)
            .where(*_within(scope, Run.id, Run.started_at))
            .where(CallRecord.reply.is_not(None))
            .where(AttemptRecord.answer_hash.is_not(None))
        )
        for row in self._stream(query):
            answer = reply_of(row.reply).text
            if text_hash(answer) != row.answer_hash:
                yield f"run {row.run_id}: an answer for {row.document_id}, {row.step}, was changed"

    def _altered_decisions(self, scope: Scope) -> Iterator[str]:
        query = select(ReviewRecord.__table__).where(
            *_within(scope, ReviewRecord.run_id, ReviewRecord.reviewed_at)
        )
        for row in self._stream(query):
            # A deleted text leaves its hash, so only a text that is there can be compared.
            value_kept = row.value is not None
            value_altered = value_kept and canonical_hash(row.value) != row.value_hash
            note_altered = row.note and text_hash(row.note) != row.note_hash
            if value_altered or note_altered:
                yield f"decision {row.seq}: its value or note was changed"

    def _altered_right_answers(self, scope: Scope) -> Iterator[str]:
        for kind in (_LABELS, _COMPARISONS):
            query = (
                select(kind.table.seq, kind.table.answer, kind.table.answer_hash)
                .where(*_within(scope, kind.run_id, kind.recorded_at))
                .where(kind.table.answer.is_not(None))
            )
            for row in self._stream(query):
                if canonical_hash(row.answer) != row.answer_hash:
                    yield f"{kind.name} {row.seq}: the right answer was changed"

    def altered_labels(self) -> Iterator[str]:
        """Yield the sampled answers whose label is not the last one on record.

        Labels from before the first record, by an older version, are no fault.
        """
        query = select(LabelRecord.__table__).order_by(LabelRecord.seq)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        counting = {item: settled(labels) for item, labels in by_item(rows).items()}
        records_began = min((row.labelled_at for row in rows), default=None)
        samples = select(
            AuditRecord.id,
            AuditRecord.right,
            AuditRecord.reviewer,
            AuditRecord.reviewed_at,
        )
        for sample in self._stream(samples):
            item = sample.id.partition(".")[0]
            label = counting.get(item)
            if item in counting and label is None:
                # two people differ so far, or the label was taken back; checks need no person
                altered = sample.right is not None and sample.reviewer != "checks"
            elif label is None:
                altered = _labelled_after(sample, records_began)
            else:
                altered = _differs_from_label(sample, label)
            if altered:
                yield f"audit {sample.id}: its label is not the one on record"

    def altered_costs(self) -> Iterator[str]:
        """Yield the calls whose new cost is not the last one on record."""
        recorded: dict[str, Decimal] = {}
        for row in self._stream(
            select(RepricingRecord.changes).order_by(RepricingRecord.seq)
        ):
            for attempt, _, new in row.changes:
                recorded[attempt] = Decimal(new)
        for table in (AttemptRecord, LostCallRecord):
            query = select(table.id, table.repriced).where(table.repriced.is_not(None))
            for row in self._stream(query):
                if recorded.get(row.id) != row.repriced:
                    yield f"attempt {row.id}: its new cost is not the one on record"
        names = sorted(recorded)
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            removed = select(AttemptRecord.id).where(
                AttemptRecord.id.in_(chunk), AttemptRecord.repriced.is_(None)
            )
            for row in self._stream(removed):
                yield f"attempt {row.id}: its new cost was removed"

    def _run_records(self, run_id: str, **instead: Any) -> Iterator[Record]:
        """Yield a run, its attempts and its outcomes, both in the order of recording.

        `instead` are fields of the run's record that replace the stored ones.
        """
        with self._database.reading() as connection:
            query = select(Run.__table__).where(Run.id == run_id)
            run = connection.execute(query).one()
            # The order, and with it the hash, must not depend on the database's locale.
            byte_order = "BINARY" if connection.dialect.name == "sqlite" else "C"
        yield {**_run_record(run), **instead}

        attempts_and_verdicts = (
            select(
                AttemptRecord.__table__,
                VerdictRecord.check,
                VerdictRecord.passed,
                VerdictRecord.score,
                VerdictRecord.fields,
            )
            .outerjoin(VerdictRecord, VerdictRecord.attempt_id == AttemptRecord.id)
            .where(AttemptRecord.run_id == run_id)
            .order_by(AttemptRecord.seq, VerdictRecord.position)
        )
        rows = self._stream(attempts_and_verdicts)
        # The order of the query keeps the rows of one attempt together, as `groupby` needs.
        for _, rows_of_attempt in groupby(rows, key=lambda row: row.seq):
            yield _attempt_record(list(rows_of_attempt))

        outcomes = (
            select(OutcomeRecord.__table__)
            .where(OutcomeRecord.run_id == run_id)
            .order_by(
                OutcomeRecord.recorded_at,
                collate(OutcomeRecord.document_id, byte_order),
                collate(OutcomeRecord.step, byte_order),
            )
        )
        for row in self._stream(outcomes):
            yield _outcome_record(row, run.policy_hash)

    def _stream(self, query: Any) -> Iterator[Any]:
        """Yield the rows of a query, fetched in chunks."""
        # One view of the database until the last row, whatever is written meanwhile.
        in_chunks = {"yield_per": _CHUNK}
        with self._database.reading() as connection:
            yield from connection.execute(query, execution_options=in_chunks)


class _LazyRecords:
    """Records that are read from the ledger each time they are iterated."""

    def __init__(self, read: partial[Iterator[Record]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Record]:
        return self._read()


def _labelled_after(sample: Any, records_began: float | None) -> bool:
    """Return True if a sample without a recorded label was labelled since labels are recorded."""
    if sample.right is None or records_began is None:
        return False
    # a label without a time cannot be shown to be older
    return sample.reviewed_at is None or sample.reviewed_at >= records_began


def _differs_from_label(sample: Any, label: Any) -> bool:
    """Return True if a sample's label is not the recorded one."""
    answer = sample.id.partition(".")[2]  # `accepted` or `shadow`
    if sample.right is None:
        # Only the answer in use always has a label; a shadow may have had no value to label.
        return bool(answer == "accepted")
    right_on_record = label.word in (answer, "both")
    return bool(
        sample.right is not right_on_record or sample.reviewer != label.reviewer
    )


def add_seal(
    connection: Connection, kind: str, subject: str, records: int, head: str
) -> None:
    """Seal a chain of records in the connection's transaction, unless it is sealed already."""
    # The transaction holds the ledger's write lock, so no other seal can come in between.
    existing = select(SealRecord.seq).where(
        SealRecord.kind == kind, SealRecord.subject == subject
    )
    if connection.scalar(existing) is not None:
        return
    _add_seals(connection, kind, [(subject, records, head)])


def _add_seals(
    connection: Connection, kind: str, chains: Sequence[tuple[str, int, str]]
) -> None:
    """Add the seals of some chains: subject, number of records and head of each."""
    last_hash = select(SealRecord.hash).order_by(SealRecord.seq.desc()).limit(1)
    previous = connection.scalar(last_hash) or START
    now = time.time()
    rows = []
    for subject, records, head in chains:
        own_hash = seal_hash(
            kind, subject, records, head, sealed_at=now, previous=previous
        )
        row = {
            "kind": kind,
            "subject": subject,
            "records": records,
            "head": head,
            "sealed_at": now,
            "previous": previous,
            "hash": own_hash,
        }
        rows.append(row)
        previous = own_hash
    if rows:
        connection.execute(insert(SealRecord), rows)


def seal_row(connection: Connection, kind: str, number: int, record: Record) -> None:
    """Seal one decision, label or deletion in the transaction that records it."""
    count, head = chained([record])
    add_seal(connection, kind, str(number), count, head)


def seal_rows(
    connection: Connection, kind: str, records: Iterable[tuple[int, Record]]
) -> None:
    """Seal rows of one kind, with their numbers, in the transaction that adds them."""
    chains = []
    for number, record in records:
        count, head = chained([record])
        chains.append((str(number), count, head))
    _add_seals(connection, kind, chains)


def decision_record(row: Any) -> Record:
    """Return the record of a reviewer's decision, without the value decided on."""
    # Empty fields are in no digest, so those of newer versions change no older record.
    return {
        "record": "decision",
        "number": row.seq,
        "time": _time(row.reviewed_at),
        "run": row.run_id,
        "step": row.step,
        "document": row.document_hash,
        "sensitivity": row.sensitivity,
        "decision": row.decision,
        "by": row.reviewer,
        "model": row.model,
        "value_hash": row.value_hash,
        "note_hash": row.note_hash,
        "seen": row.seen,
        "request": row.request,
        "undoes": row.undoes,
        "selection": row.selection,
        "sources": row.sources,
    }


def label_record(row: Any) -> Record:
    """Return the record of a reviewer's label for the answer in use, and perhaps for a shadow's."""
    return {
        "record": "label",
        "number": row.seq,
        "time": _time(row.labelled_at),
        "run": row.run_id,
        "step": row.step,
        "document": row.document_hash,
        "item": row.item,
        "decision": row.word,
        "by": row.reviewer,
        "model": row.model,
        "shadow": row.shadow,
        "value_hash": row.value_hash,
        "request": row.request,
        "settles": row.settles,
        "blind": row.is_blind,
        "answer_hash": row.answer_hash,
        "undoes": row.undoes,
    }


def verdict_record(row: Any) -> Record:
    """Return the record of a person's verdict on two answers."""
    return {
        "record": "comparison",
        "number": row.seq,
        "time": _time(row.judged_at),
        "run": row.run_id,
        "step": row.step,
        "document": row.document_hash,
        "comparison": row.comparison,
        "decision": row.word,
        "by": row.reviewer,
        "swapped": row.is_swapped,
        # of the first and of the second answer
        "value_hash": row.first_hash,
        "second_hash": row.second_hash,
        "answer_hash": row.answer_hash,
        "request": row.request,
        "undoes": row.undoes,
    }


def acknowledgement_record(row: Any) -> Record:
    """Return the record of a person who sees to an alert, or takes that back."""
    return {
        "record": "acknowledgement",
        "number": row.seq,
        "time": _time(row.at),
        "alert": row.alert,
        "decision": row.word,
        "by": row.by,
        "request": row.request,
        "undoes": row.undoes,
    }


def deletion_record(row: Any) -> Record:
    """Return the record of a deletion of texts or rows."""
    return {
        "record": "deletion",
        "number": row.seq,
        "time": _time(row.deleted_at),
        "by": row.by,
        "scope": row.scope,
        "removed": row.removed,
    }


def repricing_record(row: Any) -> Record:
    """Return the record of costs that were filled in or changed."""
    return {
        "record": "repricing",
        "number": row.seq,
        "time": _time(row.repriced_at),
        "by": row.by,
        "note": row.note,
        "scope": row.scope,
        "price": row.price,
        "catalog": row.catalog_hash,
        "changes": row.changes,
    }


@dataclass(frozen=True, slots=True)
class _RowKind:
    """A kind of block that is one row: its table, and the columns that a scope is about."""

    name: Kind
    table: Any
    run_id: Any  # None where rows belong to no run
    recorded_at: Any
    record_of: Callable[[Any], Record]


_DECISIONS = _RowKind(
    "decision",
    ReviewRecord,
    run_id=ReviewRecord.run_id,
    recorded_at=ReviewRecord.reviewed_at,
    record_of=decision_record,
)
_LABELS = _RowKind(
    "label",
    LabelRecord,
    run_id=LabelRecord.run_id,
    recorded_at=LabelRecord.labelled_at,
    record_of=label_record,
)
_COMPARISONS = _RowKind(
    "comparison",
    ComparisonVerdictRecord,
    run_id=ComparisonVerdictRecord.run_id,
    recorded_at=ComparisonVerdictRecord.judged_at,
    record_of=verdict_record,
)
_ACKNOWLEDGEMENTS = _RowKind(
    "acknowledgement",
    AcknowledgementRecord,
    run_id=None,
    recorded_at=AcknowledgementRecord.at,
    record_of=acknowledgement_record,
)
_DELETIONS = _RowKind(
    "deletion",
    DeletionRecord,
    run_id=None,
    recorded_at=DeletionRecord.deleted_at,
    record_of=deletion_record,
)


_REPRICINGS = _RowKind(
    "repricing",
    RepricingRecord,
    run_id=None,
    recorded_at=RepricingRecord.repriced_at,
    record_of=repricing_record,
)


def _run_record(row: Any) -> Record:
    return {
        "record": "run",
        "time": _time(row.started_at),
        "run": row.id,
        "flow": row.flow,
        "state": row.state,
        "ended": _time(row.finished_at),
        "policy": row.policy_hash,
        "budget_usd": _usd(row.budget_usd),
        "parameters_hash": canonical_hash(row.parameters),
        "tierwise": row.tierwise_version,
    }


def _attempt_record(rows: list[Any]) -> Record:
    """Return the record of an attempt, given a row for each verdict, or one row without verdict."""
    row = rows[0]
    # The outer join gives an attempt without verdicts one row, with NULLs.
    checks = [_check_entry(verdict) for verdict in rows if verdict.check is not None]
    record = {
        "record": "attempt",
        "time": _time(row.started_at),
        "run": row.run_id,
        "step": row.step,
        "document": row.document_hash,
        "attempt": row.id,
        "kind": row.kind,
        "model": row.model,
        "tier": row.tier,
        "policy": row.policy_hash,
        "prompt": row.prompt,
        "prompt_hash": row.prompt_hash,
        "call_hash": row.call_hash,
        "answer_hash": row.answer_hash,
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "completion_tokens": row.completion_tokens,
        "cost_usd": _usd(row.cost),
        "price_date": row.price_date,
        "latency_s": row.latency_s,
        "reused": row.reused,
        "error": row.error,
        "finish_reason": row.finish_reason,
        "confidence": row.confidence,
        "checks": checks or None,
    }
    if row.usage_unclear is not None:
        # Only where there is something: records that were sealed before have no such field.
        record["usage_unclear"] = row.usage_unclear
    if row.served_model is not None:
        record["served_model"] = row.served_model
    if row.transport != "online":
        record["transport"] = row.transport
    if row.service_tier is not None:
        record["service_tier"] = row.service_tier
    if row.field_confidences is not None:
        record["field_confidences"] = row.field_confidences
    for name in ("cache_write_tokens", "cache_write_1h_tokens"):
        # Zero is as good as none: attempts of earlier versions have no count.
        if getattr(row, name):
            record[name] = getattr(row, name)
    return record


def _check_entry(verdict: Any) -> list[Any]:
    entry = [verdict.check, verdict.passed, verdict.score]
    if verdict.fields is not None:
        entry.append(verdict.fields)
    return entry


def _outcome_record(row: Any, policy_hash: str) -> Record:
    route = row.route or {}
    rejected = [
        [rejection["model"], rejection["reason"]]
        for rejection in route.get("rejected", ())
    ]
    record: dict[str, Any] = {
        "record": "outcome",
        "time": _time(row.recorded_at),
        "run": row.run_id,
        "step": row.step,
        "document": row.document_hash,
        "sensitivity": row.sensitivity,
        "sensitivity_source": row.sensitivity_source,
        "status": row.status,
        "model": row.model,
        "policy": policy_hash,
        "rule": route.get("rule"),
        "candidates": route.get("models") or None,
        "rejected": rejected or None,
        "route_reason": route.get("reason"),
        "review": route.get("review"),
        "question": row.question,
        "value_hash": row.value_hash,
    }
    # Only where there is something: records that were sealed before have no such fields.
    for name in ("sources", "open_fields"):
        if getattr(row, name) is not None:
            record[name] = getattr(row, name)
    return record


def _seal(row: Any) -> Seal:
    return Seal(
        number=row.seq,
        kind=row.kind,
        subject=row.subject,
        records=row.records,
        head=row.head,
        sealed_at=row.sealed_at,
        previous=row.previous,
        hash=row.hash,
    )


def _within(scope: Scope, run_id: Any, recorded_at: Any) -> list[Any]:
    """Return the conditions on two columns that keep a query inside a scope."""
    conditions: list[Any] = []
    if scope.run is not None:
        conditions.append(run_id == scope.run)
    if scope.since is not None:
        conditions.append(recorded_at >= scope.since)
    return conditions


def _time(seconds: float | None) -> str | None:
    """Return a time as UTC in ISO 8601."""
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="microseconds")


def _usd(amount: Decimal | None) -> str | None:
    """Return an exact amount without needless zeros."""
    if amount is None:
        return None
    return f"{amount.normalize():f}"
