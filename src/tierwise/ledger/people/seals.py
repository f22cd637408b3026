"""The ledger's side of the audit trail: records made of rows, and the seals that show when a row was changed."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import collate, func, insert, select, update

from tierwise.ledger.leases import is_over
from tierwise.ledger.people.chain import (
    START,
    Block,
    Record,
    Scope,
    Seal,
    chained,
    seal_hash,
)
from tierwise.ledger.rows import reply_of
from tierwise.ledger.tables import (
    AttemptRecord,
    AuditRecord,
    CallRecord,
    DeletionRecord,
    LabelRecord,
    OutcomeRecord,
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
# what worked for a run in other processes may be a little behind its end
_QUIET_S = 60.0


class Seals:
    """The ledger's records and seals, for an auditor. All raise LedgerError when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def seal_run(self, run_id: str) -> None:
        """Seal a run's records as they are now; one that is sealed stays as it is."""
        count, head = chained(self._run(run_id))
        with (
            self._database.translated_errors("written"),
            self._database.writing() as connection,
        ):
            add_seal(connection, "run", run_id, count, head)

    def end_crashed(self) -> list[str]:
        """End on record, and seal, the runs whose process is gone; their ids. Their last record is their end.

        A process that comes back all the same ends its run as any other, and the seal of that end counts.
        """
        now = time.time()
        with self._database.reading() as connection:
            running = connection.execute(
                select(Run.__table__).where(Run.state == "running")
            ).all()
        return [
            row.id
            for row in running
            if is_over(row.owner, row.lease_until, now) and self._end_crashed(row, now)
        ]

    def _end_crashed(self, row: Any, now: float) -> bool:
        """Return True if this call ended the run, and not another process meanwhile."""
        ended = max(row.started_at, self._last_activity(row.id))
        if ended > now - _QUIET_S:
            return False
        count, head = chained(self._run(row.id, state="crashed", ended=_time(ended)))
        mine = (Run.id == row.id, Run.state == "running")
        with (
            self._database.translated_errors("written"),
            self._database.writing() as connection,
        ):
            end = update(Run).where(*mine).values(state="crashed", finished_at=ended)
            if not connection.execute(end).rowcount:
                return False
            add_seal(connection, "crash", row.id, count, head)
        return True

    def _last_activity(self, run_id: str) -> float:
        """Return the time of a run's last record (seconds since the epoch); 0 for none."""
        attempts = select(func.max(AttemptRecord.started_at + AttemptRecord.latency_s))
        outcomes = select(func.max(OutcomeRecord.recorded_at)).where(
            OutcomeRecord.run_id == run_id
        )
        with self._database.reading() as connection:
            tried = connection.scalar(attempts.where(AttemptRecord.run_id == run_id))
            return max(tried or 0.0, connection.scalar(outcomes) or 0.0)

    def in_order(self) -> Iterator[Seal]:
        """All seals, in order."""
        for row in self._stream(select(SealRecord.__table__).order_by(SealRecord.seq)):
            yield _seal(row)

    def blocks(self, scope: Scope = _ALL) -> Iterator[Block]:
        """Return all records: runs by their start, then decisions, labels and deletions."""
        seals = {(seal.kind, seal.subject): seal for seal in self.in_order()}
        runs = select(Run.id, Run.finished_at).where(
            *_within(scope, Run.id, Run.started_at)
        )
        for row in self._stream(runs.order_by(Run.started_at, Run.id)):
            records = _Late(partial(self._run, row.id))
            seal = seals.get(("run", row.id)) or seals.get(("crash", row.id))
            yield Block("run", row.id, records, row.finished_at, seal)
        decided = select(ReviewRecord.__table__).where(
            *_within(scope, ReviewRecord.run_id, ReviewRecord.reviewed_at)
        )
        for row in self._stream(decided.order_by(ReviewRecord.seq)):
            number = str(row.seq)
            record = decision_record(row)
            yield Block(
                "decision",
                number,
                (record,),
                row.reviewed_at,
                seals.get(("decision", number)),
            )
        labels = select(LabelRecord.__table__).where(
            *_within(scope, LabelRecord.run_id, LabelRecord.labelled_at)
        )
        for row in self._stream(labels.order_by(LabelRecord.seq)):
            number = str(row.seq)
            record = label_record(row)
            yield Block(
                "label",
                number,
                (record,),
                row.labelled_at,
                seals.get(("label", number)),
            )
        if scope.run is None:
            since = (
                ()
                if scope.since is None
                else (DeletionRecord.deleted_at >= scope.since,)
            )
            for row in self._stream(
                select(DeletionRecord.__table__)
                .where(*since)
                .order_by(DeletionRecord.seq)
            ):
                number = str(row.seq)
                record = deletion_record(row)
                yield Block(
                    "deletion",
                    number,
                    (record,),
                    row.deleted_at,
                    seals.get(("deletion", number)),
                )

    def altered_texts(self, scope: Scope = _ALL) -> Iterator[str]:
        """Texts that are still kept and do not fit their hashes any more; deleted ones are no fault."""
        wanted = _within(scope, Run.id, Run.started_at)
        values = (
            select(OutcomeRecord.__table__)
            .join(Run, Run.id == OutcomeRecord.run_id)
            .where(*wanted)
        )
        for row in self._stream(values.where(OutcomeRecord.value.is_not(None))):
            if row.value_hash and canonical_hash(row.value) != row.value_hash:
                yield f"run {row.run_id}: the value of {row.document_id}, {row.step}, was changed"
        answers = (
            select(
                AttemptRecord.run_id,
                AttemptRecord.document_id,
                AttemptRecord.step,
                AttemptRecord.answer_hash,
            )
            .add_columns(CallRecord.reply)
            .join(CallRecord, CallRecord.attempt_id == AttemptRecord.id)
            .join(Run, Run.id == AttemptRecord.run_id)
            .where(
                *wanted,
                CallRecord.reply.is_not(None),
                AttemptRecord.answer_hash.is_not(None),
            )
        )
        for row in self._stream(answers):
            if text_hash(reply_of(row.reply).text) != row.answer_hash:
                yield f"run {row.run_id}: an answer for {row.document_id}, {row.step}, was changed"
        decisions = select(ReviewRecord.__table__).where(
            *_within(scope, ReviewRecord.run_id, ReviewRecord.reviewed_at)
        )
        for row in self._stream(decisions):
            changed = (
                row.value is not None and canonical_hash(row.value) != row.value_hash
            )
            if changed or (row.note and text_hash(row.note) != row.note_hash):
                yield f"decision {row.seq}: its value or note was changed"

    def altered_labels(self) -> Iterator[str]:
        """Audited answers whose label is not the last one on record; older ones than the first record are no fault."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(LabelRecord.__table__).order_by(LabelRecord.seq)
            ).all()
        last = {row.item: row for row in rows}
        first = min((row.labelled_at for row in rows), default=None)
        columns = (
            AuditRecord.id,
            AuditRecord.right,
            AuditRecord.reviewer,
            AuditRecord.reviewed_at,
        )
        for row in self._stream(select(*columns)):
            item, _, answer = row.id.partition(".")
            label = last.get(item)
            if label is None:
                wrong = (
                    first is not None
                    and row.right is not None
                    and (row.reviewed_at or first) >= first
                )
            elif row.right is None:
                wrong = answer == "accepted"
            else:
                wrong = (
                    row.right is not (label.word in (answer, "both"))
                    or row.reviewer != label.reviewer
                )
            if wrong:
                yield f"audit {row.id}: its label is not the one on record"

    def _run(self, run_id: str, **instead: Any) -> Iterator[Record]:
        """Return a run, its attempts as they were recorded, its outcomes as they were recorded."""
        with self._database.reading() as connection:
            run = connection.execute(
                select(Run.__table__).where(Run.id == run_id)
            ).one()
            byte_order = "BINARY" if connection.dialect.name == "sqlite" else "C"
        yield {**_run_record(run), **instead}
        attempts = (
            select(
                AttemptRecord.__table__,
                VerdictRecord.check,
                VerdictRecord.passed,
                VerdictRecord.score,
            )
            .outerjoin(VerdictRecord, VerdictRecord.attempt_id == AttemptRecord.id)
            .where(AttemptRecord.run_id == run_id)
            .order_by(AttemptRecord.seq, VerdictRecord.position)
        )
        for _, group in groupby(self._stream(attempts), key=lambda row: row.seq):
            yield _attempt_record(list(group))
        order = (
            OutcomeRecord.recorded_at,
            *(
                collate(c, byte_order)
                for c in (OutcomeRecord.document_id, OutcomeRecord.step)
            ),
        )
        for row in self._stream(
            select(OutcomeRecord.__table__)
            .where(OutcomeRecord.run_id == run_id)
            .order_by(*order)
        ):
            yield _outcome_record(row, run.policy_hash)

    def _stream(self, query: Any) -> Iterator[Any]:
        with self._database.reading() as connection:
            yield from connection.execute(
                query, execution_options={"yield_per": _CHUNK}
            )


class _Late:
    """Records that are read from the ledger each time that somebody asks for them."""

    def __init__(self, read: partial[Iterator[Record]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Record]:
        return self._read()


def add_seal(
    connection: Connection, kind: str, subject: str, records: int, head: str
) -> None:
    """Seal a chain of records in the connection's transaction, unless it is sealed already."""
    mine = (SealRecord.kind == kind, SealRecord.subject == subject)
    if connection.scalar(select(SealRecord.seq).where(*mine)) is not None:
        return
    last = (
        connection.scalar(
            select(SealRecord.hash).order_by(SealRecord.seq.desc()).limit(1)
        )
        or START
    )
    now = time.time()
    row = {
        "kind": kind,
        "subject": subject,
        "records": records,
        "head": head,
        "sealed_at": now,
        "previous": last,
    }
    row["hash"] = seal_hash(kind, subject, records, head, sealed_at=now, previous=last)
    connection.execute(insert(SealRecord).values(row))


def seal_row(connection: Connection, kind: str, number: int, record: Record) -> None:
    """Seal one decision, label or deletion in the transaction that records it."""
    add_seal(connection, kind, str(number), *chained([record]))


def decision_record(row: Any) -> Record:
    """Return the record of a reviewer's decision, without the value decided on."""
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
    }


def deletion_record(row: Any) -> Record:
    """Return a deletion of texts."""
    at = _time(row.deleted_at)
    return {
        "record": "deletion",
        "number": row.seq,
        "time": at,
        "by": row.by,
        "scope": row.scope,
        "removed": row.removed,
    }


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
    """Return an attempt; it has a row for each of its verdicts, or one without."""
    row = rows[0]
    return {
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
        "checks": [[r.check, r.passed, r.score] for r in rows if r.check is not None]
        or None,
    }


def _outcome_record(row: Any, policy_hash: str) -> Record:
    route = row.route or {}
    return {
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
        "rejected": [[r["model"], r["reason"]] for r in route.get("rejected", ())]
        or None,
        "route_reason": route.get("reason"),
        "review": route.get("review"),
        "question": row.question,
        "value_hash": row.value_hash,
    }


def _seal(row: Any) -> Seal:
    names = ("kind", "subject", "records", "head", "sealed_at", "previous", "hash")
    return Seal(number=row.seq, **{name: getattr(row, name) for name in names})


def _within(scope: Scope, run: Any, began: Any) -> list[Any]:
    wanted = [] if scope.run is None else [run == scope.run]
    return wanted if scope.since is None else [*wanted, began >= scope.since]


def _time(seconds: float | None) -> str | None:
    """UTC in ISO 8601."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(
        timespec="microseconds"
    )


def _usd(amount: Decimal | None) -> str | None:
    """Return an exact amount without needless zeros."""
    return None if amount is None else f"{amount.normalize():f}"
