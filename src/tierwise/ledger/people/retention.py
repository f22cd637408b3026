"""Retention of texts: answers, values and documents are deleted, hashes and figures stay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Text,
    bindparam,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)

from tierwise.errors import UnknownName
from tierwise.ledger.database import is_sqlite
from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.people.seals import deletion_record, seal_row
from tierwise.ledger.tables import (
    AttemptRecord,
    AuditRecord,
    Base,
    CallRecord,
    ComparisonVerdictRecord,
    DeletionRecord,
    LabelRecord,
    OutcomeRecord,
    ReviewRecord,
    Run,
    TextRecord,
    VerdictRecord,
)
from tierwise.ledger.upserts import insert_into
from tierwise.records import Document, text_hash

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from tierwise.ledger.database import Database

_EMPTY = text_hash("")  # of documents that could not be read: no text tells them apart
# a table with run and document -> which of its rows are meant
_Scope = Callable[[Any], "ColumnElement[bool]"]


@dataclass(frozen=True, slots=True)
class Removed:
    """The number of deleted texts: replies, outcomes' values, reviewers' decisions, documents."""

    replies: int = 0
    values: int = 0
    decisions: int = 0
    documents: int = 0

    def __bool__(self) -> bool:
        return any(asdict(self).values())


class _DryRun(Exception):
    """Undoes a deletion that was only to be counted."""


class Retention:
    """Keeps and deletes texts. All raise LedgerError when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def keep(self, documents: Iterable[Document]) -> None:
        """Keep the texts of documents."""
        now = time.time()
        # By hash: copies of a document have one text.
        rows = {
            document.hash: {
                "document_hash": document.hash,
                "text": document.text,
                "kept_at": now,
            }
            for document in documents
            if document.text
        }
        if not rows:
            return
        with self._database.writing() as connection:
            insert_text = insert_into(connection.dialect.name, TextRecord)
            # a text that is kept already stays for as long as a new one
            insert_or_renew = insert_text.on_conflict_do_update(
                index_elements=["document_hash"],
                set_={"kept_at": insert_text.excluded.kept_at},
            )
            connection.execute(insert_or_renew, list(rows.values()))

    @outlasts_outages
    def texts(self, document_hashes: Iterable[str]) -> dict[str, str]:
        """Return the texts that are kept, by document hash."""
        query = select(TextRecord.document_hash, TextRecord.text)
        with self._database.reading() as connection:
            return {
                row.document_hash: row.text
                for row in connection.execute(
                    query.where(TextRecord.document_hash.in_(set(document_hashes)))
                )
            }

    @outlasts_outages
    def forget_ended(self, *, by: str) -> Removed:
        """Delete the texts of all ended runs, but no reviewer's decision: later runs need it."""

        def strip(connection: Connection) -> Removed:
            removed = _strip_runs(
                connection, Run.finished_at.is_not(None), decisions=False
            )
            # The hash is never NULL: this means every text.
            return _with_documents(
                connection, removed, TextRecord.document_hash.is_not(None)
            )

        return self._forget(strip, {"runs": "ended"}, by=by)

    def forget_older(self, before: float, *, by: str, dry_run: bool = False) -> Removed:
        """Delete the texts of runs that started before a time (seconds since the epoch).

        Replies that a later run used as well are that run's too, and stay.
        """

        def strip(connection: Connection) -> Removed:
            removed = _strip_runs(connection, Run.started_at < before, decisions=True)
            return _with_documents(connection, removed, TextRecord.kept_at < before)

        return self._forget(strip, {"runs_before": before}, by=by, dry_run=dry_run)

    def forget_document(self, name: str, *, by: str, dry_run: bool = False) -> Removed:
        """Delete every text of a document, in all runs, and every copy of it.

        `name` is its id, or its hash (12 digits or more).

        Raises UnknownName when no run had such a document.
        """
        ids, hashes = self._named(name)
        pairs = select(OutcomeRecord.run_id, OutcomeRecord.document_id).where(
            OutcomeRecord.document_hash.in_(hashes)
        )

        def meant(table: Any) -> ColumnElement[bool]:
            """Match by id, hash, or run: the parts of a long document have hashes of their own."""
            own = table.document_hash.in_(hashes)
            return or_(
                table.document_id.in_(ids),
                own,
                tuple_(table.run_id, table.document_id).in_(pairs),
            )

        def strip(connection: Connection) -> Removed:
            removed = _strip(connection, meant, decisions=True)
            return _with_documents(
                connection, removed, TextRecord.document_hash.in_(hashes)
            )

        return self._forget(
            strip, {"documents": sorted(hashes)}, by=by, dry_run=dry_run
        )

    def _named(self, name: str) -> tuple[set[str], set[str]]:
        """Return the ids and hashes that a name means."""
        o = OutcomeRecord
        like_hash = len(name) >= 12 and set(name) <= set("0123456789abcdef")
        by_hash = o.document_hash.startswith(name) if like_hash else false()
        query = (
            select(o.document_id, o.document_hash)
            .where(or_(o.document_id == name, by_hash))
            .distinct()
        )
        with self._database.reading() as connection:
            found = connection.execute(query).all()
            if not found:
                known = connection.scalars(
                    select(o.document_id).distinct().order_by(o.document_id).limit(1000)
                )
                raise UnknownName("document", name, known)
        # A name that is a hash means no ids: other texts may have had the same id in other runs.
        ids = {name} & {row.document_id for row in found}
        hashes = {row.document_hash for row in found} - {_EMPTY}
        return ids, hashes

    def _forget(
        self,
        strip: Callable[[Connection], Removed],
        scope: Mapping[str, Any],
        *,
        by: str,
        dry_run: bool = False,
    ) -> Removed:
        removed = Removed()
        try:
            with self._database.writing() as connection:
                if is_sqlite(connection):
                    # else the bytes stay in the file
                    connection.exec_driver_sql("PRAGMA secure_delete=ON")
                removed = strip(connection)
                if dry_run:
                    raise _DryRun  # noqa: TRY301 - only an exception rolls the transaction back
                if removed:
                    row = {
                        "scope": dict(scope),
                        "removed": asdict(removed),
                        "by": by,
                        "deleted_at": time.time(),
                    }
                    added = (
                        insert(DeletionRecord)
                        .values(row)
                        .returning(DeletionRecord.__table__)
                    )
                    stored = connection.execute(added).one()
                    seal_row(
                        connection, "deletion", stored.seq, deletion_record(stored)
                    )
        except _DryRun:
            return removed
        # After the commit: the log has the old pages until then.
        self._empty_log()
        return removed

    def _empty_log(self) -> None:
        """Remove deleted texts from SQLite's log, unless another program reads the ledger."""
        if is_sqlite(self._database.engine):
            with self._database.translated_errors("written"):
                # Raw: SQLAlchemy would begin a transaction, and no checkpoint runs inside one.
                connection = self._database.engine.raw_connection()
                try:
                    connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    connection.close()


def _strip_runs(
    connection: Connection, which: ColumnElement[bool], *, decisions: bool
) -> Removed:
    runs = select(Run.id).where(which)
    # A reply that a run outside of these used as well stays.
    others = select(AttemptRecord.call_hash).where(AttemptRecord.run_id.not_in(runs))
    return _strip(
        connection,
        lambda table: table.run_id.in_(runs),
        CallRecord.call_hash.not_in(others),
        decisions=decisions,
    )


def _with_documents(
    connection: Connection, removed: Removed, which: ColumnElement[bool]
) -> Removed:
    gone = connection.execute(delete(TextRecord).where(which)).rowcount
    return Removed(removed.replies, removed.values, removed.decisions, gone)


def _strip(
    connection: Connection, meant: _Scope, *also: ColumnElement[bool], decisions: bool
) -> Removed:
    """Empty all columns that can hold a text, in the rows that are meant."""
    attempts = select(AttemptRecord.id).where(meant(AttemptRecord))
    calls = select(AttemptRecord.call_hash).where(meant(AttemptRecord))
    _plain_reasons(connection, meant)
    _plain_routes(connection, meant)

    def empty(table: Any, *where: ColumnElement[bool], **values: Any) -> int:
        statement = update(table).where(*where).values(**values)
        return connection.execute(statement).rowcount

    empty(
        VerdictRecord,
        VerdictRecord.attempt_id.in_(attempts),
        VerdictRecord.reason != "",
        reason="",
    )
    empty(
        AttemptRecord,
        meant(AttemptRecord),
        AttemptRecord.error_text.is_not(None),
        error_text=None,
    )
    empty(AuditRecord, meant(AuditRecord), value=None, accepted=None)
    # Without a reply the call counts as never paid, so a later run makes it again.
    paid = (CallRecord.reply.is_not(None), CallRecord.call_hash.in_(calls), *also)
    replies = empty(CallRecord, *paid, reply=None, paid_at=None)
    values = empty(
        OutcomeRecord,
        meant(OutcomeRecord),
        OutcomeRecord.value.is_not(None),
        value=None,
        places=None,
    )
    if not decisions:
        return Removed(replies, values)
    written = or_(ReviewRecord.value.is_not(None), ReviewRecord.note != "")
    samples = select(AuditRecord.id).where(meant(AuditRecord))
    has_answer = LabelRecord.answer.is_not(None)
    of_sample = (LabelRecord.item + ".accepted").in_(samples)
    empty(LabelRecord, of_sample, has_answer, answer=None)
    verdict = ComparisonVerdictRecord
    empty(verdict, meant(verdict), verdict.answer.is_not(None), answer=None)
    return Removed(
        replies,
        values,
        empty(ReviewRecord, meant(ReviewRecord), written, value=None, note=""),
    )


def _plain_reasons(connection: Connection, meant: _Scope) -> None:
    """Rewrite reasons that quote, to which model failed which check, or with which error."""
    o = OutcomeRecord
    a = AttemptRecord
    v = VerdictRecord
    same = (
        (a.run_id == o.run_id) & (a.document_id == o.document_id) & (a.step == o.step)
    )
    failed = (v.attempt_id == a.id) & v.passed.is_(False)
    query = (
        select(
            o.run_id,
            o.document_id,
            o.step,
            o.cause,
            a.model,
            func.coalesce(v.check, a.error).label("fault"),
        )
        .outerjoin(a, same)
        .outerjoin(v, failed)
        .where(meant(o), o.quotes)
        .order_by(o.run_id, o.document_id, o.step, a.seq, v.position)
    )
    faults: dict[tuple[str, str, str, str | None], list[str]] = {}
    for row in connection.execute(query):
        of_outcome = faults.setdefault(
            (row.run_id, row.document_id, row.step, row.cause), []
        )
        if row.fault:
            of_outcome.append(f"{row.model}: {row.fault}")
    rows = []
    for key, named in faults.items():
        # Repeated attempts may have failed in the same way: name that once.
        reason = "; ".join(dict.fromkeys(named))
        if key[3] == "budget":
            reason = f"budget: {reason}"
        rows.append({**_key(key), "plain": reason})
    _rewrite(connection, rows, reason=bindparam("plain"), quotes=false())


def _plain_routes(connection: Connection, meant: _Scope) -> None:
    """Routes hold the document's metadata, such as its subject."""
    o = OutcomeRecord
    # As text, JSON with any tag has this; without tags it has `{}`.
    some = type_coerce(o.route, Text).contains('"tags": {"')
    query = select(o.run_id, o.document_id, o.step, o.route).where(meant(o), some)
    rows = [
        {
            **_key(row),
            "plain": {**row.route, "features": {**row.route["features"], "tags": {}}},
        }
        for row in connection.execute(query)
    ]
    _rewrite(connection, rows, route=bindparam("plain", type_=o.route.type))


def _key(row: Sequence[Any]) -> dict[str, str]:
    # Both queries select these three first. Parameters must not be named like columns.
    return {"run": row[0], "document": row[1], "of_step": row[2]}


def _rewrite(connection: Connection, rows: list[dict[str, Any]], **values: Any) -> None:
    o = OutcomeRecord
    one = (
        o.run_id == bindparam("run"),
        o.document_id == bindparam("document"),
        o.step == bindparam("of_step"),
    )
    if rows:
        connection.execute(
            update(Base.metadata.tables[OutcomeRecord.__tablename__])
            .where(*one)
            .values(**values),
            rows,
        )
