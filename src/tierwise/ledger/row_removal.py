"""Removal of the rows of old runs: figures, hashes and the audit trail's seals stay.

A removal is a record of its own, sealed, and comes first: who removed which runs, when and why.
Then the rows go in small transactions, so that no writer waits for long. One that was interrupted
goes on with the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import (
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import aliased

from tierwise.ledger.batches import remove_batches
from tierwise.ledger.database import is_sqlite
from tierwise.ledger.people.reviews import CURRENT
from tierwise.ledger.people.seals import deletion_record, seal_row
from tierwise.ledger.rows import WENT_THROUGH
from tierwise.ledger.tables import (
    AttemptRecord,
    Base,
    BatchRecord,
    CallRecord,
    DeletionRecord,
    GroupMemberRecord,
    OutcomeRecord,
    Run,
    SettledRecord,
    VerdictRecord,
)
from tierwise.ledger.views.runs import is_measurement, totals_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database
    from tierwise.ledger.people.seals import Seals

_RUNS = 100  # in one record of a removal
_ROWS = 2000  # deleted in one transaction


@dataclass(frozen=True, slots=True)
class RemovedRows:
    """The number of runs whose rows were removed, and of those rows.

    `waiting` and `altered` count the old runs that stayed: documents wait in them, or their records
    do not fit their seals.
    """

    runs: int = 0
    attempts: int = 0
    outcomes: int = 0
    waiting: int = 0
    altered: int = 0


class RowRemoval:
    """Removes the rows of old runs: `ledger.row_removal`. Methods raise LedgerError."""

    def __init__(self, database: Database, seals: Seals) -> None:
        self._database = database
        self._seals = seals

    def remove_older(
        self, before: float, *, by: str, why: str = "", dry_run: bool = False
    ) -> RemovedRows:
        """Remove the rows of ended runs that started before a time (seconds since the epoch)."""
        ended, waiting = self._old_runs(before)
        sound = [run_id for run_id in ended if self._seals.is_sound(run_id)]
        attempts, outcomes = self._counts(sound)
        counted = RemovedRows(
            len(sound), attempts, outcomes, waiting, len(ended) - len(sound)
        )
        if dry_run:
            return counted
        for start in range(0, len(sound), _RUNS):
            self._record(sound[start : start + _RUNS], before, by=by, why=why)
        self._delete_rows()
        return counted

    def compact(self) -> bool:
        """Give the space of deleted rows back to the disk; False where PostgreSQL does so itself."""
        if not is_sqlite(self._database.engine):
            return False
        with self._database.translated_errors("written"):
            # Raw: VACUUM runs in no transaction.
            connection = self._database.engine.raw_connection()
            try:
                connection.cursor().execute("VACUUM")
            finally:
                connection.close()
        return True

    def _old_runs(self, before: float) -> tuple[list[str], int]:
        """Return the runs whose rows may go, and the number of those in which documents wait."""
        is_old = (
            Run.started_at < before,
            Run.state != "running",
            Run.removed_at.is_(None),
        )
        later = aliased(Run)
        again = aliased(OutcomeRecord)
        c = CURRENT.c
        # The same id in a later run of the flow means that the document was tried again.
        has_later = exists().where(
            again.document_id == c.document_id,
            again.run_id == later.id,
            later.flow == Run.flow,
            later.started_at > Run.started_at,
        )
        waits = (
            select(c.run_id)
            .distinct()
            .join(Run, Run.id == c.run_id)
            .where(*is_old, c.status == "deferred", ~has_later, is_measurement() == 0)
        )
        with self._database.reading() as connection:
            waiting = set(connection.scalars(waits))
            old = connection.scalars(
                select(Run.id).where(*is_old).order_by(Run.started_at, Run.id)
            )
            return [run_id for run_id in old if run_id not in waiting], len(waiting)

    def _counts(self, run_ids: Sequence[str]) -> tuple[int, int]:
        attempts = 0
        outcomes = 0
        with self._database.reading() as connection:
            for batch in _batches(run_ids):
                for table in (AttemptRecord, OutcomeRecord):
                    query = select(func.count()).where(table.run_id.in_(batch))
                    number = connection.scalar(query) or 0
                    if table is AttemptRecord:
                        attempts += number
                    else:
                        outcomes += number
        return attempts, outcomes

    def _record(
        self, run_ids: Sequence[str], before: float, *, by: str, why: str
    ) -> None:
        """Put a removal on record, with the totals of its runs."""
        now = time.time()
        with self._database.writing() as connection:
            totals = totals_of(connection, run_ids)
            # Another removal may have come first.
            chosen = list(
                connection.scalars(
                    select(Run.id).where(Run.id.in_(run_ids), Run.removed_at.is_(None))
                )
            )
            if not chosen:
                return
            connection.execute(
                update(Base.metadata.tables[Run.__tablename__])
                .where(Run.id == bindparam("run"))
                .values(
                    removed_at=now, totals=bindparam("sums", type_=Run.totals.type)
                ),
                [{"run": run_id, "sums": totals[run_id]} for run_id in chosen],
            )
            _keep_settled(connection, chosen)
            row = {
                "scope": {"rows_of_runs": sorted(chosen), "before": before, "why": why},
                "removed": {"runs": len(chosen)},
                "by": by,
                "deleted_at": now,
            }
            added = insert(DeletionRecord).values(row)
            stored = connection.execute(added.returning(DeletionRecord.__table__)).one()
            seal_row(connection, "deletion", stored.seq, deletion_record(stored))

    def _delete_rows(self) -> None:
        """Delete the rows of all runs whose removal is on record."""
        has_rows = or_(
            exists().where(AttemptRecord.run_id == Run.id),
            exists().where(OutcomeRecord.run_id == Run.id),
            exists().where(
                BatchRecord.run_id == Run.id, BatchRecord.collected_at.is_not(None)
            ),
        )
        with self._database.reading() as connection:
            query = select(Run.id).where(Run.removed_at.is_not(None), has_rows)
            run_ids = list(connection.scalars(query))
            # Replies that a run used again which stays: they stay with that attempt.
            reused = (
                select(AttemptRecord.call_hash, func.max(AttemptRecord.id).label("id"))
                .join(Run, Run.id == AttemptRecord.run_id)
                .where(Run.removed_at.is_(None), AttemptRecord.reused)
                .group_by(AttemptRecord.call_hash)
            )
            heirs: dict[str, str] = {}
            if run_ids:
                heirs = {row.call_hash: row.id for row in connection.execute(reused)}
        for batch in _batches(run_ids):
            while self._delete_some_attempts(batch, heirs):
                pass
            while self._delete_some_outcomes(batch):
                pass
            of_runs = GroupMemberRecord.run_id.in_(batch)
            with self._writing_for_good() as connection:
                connection.execute(delete(GroupMemberRecord).where(of_runs))
            with self._writing_for_good() as connection:
                remove_batches(connection, batch)

    def _delete_some_attempts(
        self, run_ids: Sequence[str], heirs: dict[str, str]
    ) -> int:
        """Delete some attempts with their verdicts and replies; return their number."""
        some = (
            select(AttemptRecord.id)
            .where(AttemptRecord.run_id.in_(run_ids))
            .limit(_ROWS)
        )
        with self._writing_for_good() as connection:
            ids = list(connection.scalars(some))
            if not ids:
                return 0
            connection.execute(
                delete(VerdictRecord).where(VerdictRecord.attempt_id.in_(ids))
            )
            _bequeath(connection, ids, heirs)
            connection.execute(delete(AttemptRecord).where(AttemptRecord.id.in_(ids)))
        return len(ids)

    def _delete_some_outcomes(self, run_ids: Sequence[str]) -> int:
        o = OutcomeRecord
        key = (o.run_id, o.document_id, o.step)
        some = select(*key).where(o.run_id.in_(run_ids)).limit(_ROWS)
        with self._writing_for_good() as connection:
            return connection.execute(delete(o).where(tuple_(*key).in_(some))).rowcount

    @contextmanager
    def _writing_for_good(self) -> Iterator[Connection]:
        """One transaction whose deleted texts leave SQLite's file, too."""
        with self._database.writing() as connection:
            if is_sqlite(connection):
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            yield connection


def _keep_settled(connection: Connection, run_ids: Sequence[str]) -> None:
    """Keep id and hash of the documents that these runs are done with, for `only_new`."""
    c = CURRENT.c
    is_deferred = func.max(case((c.status == "deferred", 1), else_=0))
    settled = (
        select(c.run_id, c.document_id, func.max(c.document_hash))
        .join(Run, Run.id == c.run_id)
        .where(c.run_id.in_(run_ids), Run.state.in_(WENT_THROUGH))
        .group_by(c.run_id, c.document_id)
        .having(is_deferred == 0)
    )
    names = ["run_id", "document_id", "document_hash"]
    connection.execute(insert(SettledRecord).from_select(names, settled))


def _bequeath(
    connection: Connection, attempt_ids: Sequence[str], heirs: dict[str, str]
) -> None:
    """Part the calls from the attempts that paid for them.

    A reply that a later run used goes with that run's attempt; others are deleted.
    """
    paid = select(CallRecord.call_hash).where(CallRecord.attempt_id.in_(attempt_ids))
    hashes = list(connection.scalars(paid))
    inherited = [
        {"call": each, "heir": heirs[each]} for each in hashes if each in heirs
    ]
    if inherited:
        connection.execute(
            update(Base.metadata.tables[CallRecord.__tablename__])
            .where(CallRecord.call_hash == bindparam("call"))
            .values(attempt_id=bindparam("heir")),
            inherited,
        )
    gone = CallRecord.attempt_id.in_(attempt_ids)
    connection.execute(delete(CallRecord).where(gone, CallRecord.owner.is_(None)))
    # A call that is being paid again keeps its claim.
    connection.execute(
        update(CallRecord).where(gone).values(attempt_id=None, reply=None, paid_at=None)
    )


def _batches(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(run_ids), _RUNS):
        yield run_ids[start : start + _RUNS]
