"""Acknowledgements of alerts: who sees to what. Rows are only ever added, and each is sealed.

The first person who acknowledges an alert keeps it, so several may press at once. One that was made
before its alert began belongs to an earlier alert of the same name, and no longer counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import insert, select

from tierwise.errors import Misuse
from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.people.seals import acknowledgement_record, seal_row
from tierwise.ledger.tables import AcknowledgementRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database

Word = Literal["acknowledged", "withdrawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """A person has seen an alert, and sees to it. `at` is in seconds since the epoch.

    `number` is given by the ledger. The same `request` is the same acknowledgement.
    """

    alert: str
    by: str
    at: float
    request: str
    number: int = 0

    def counts_for(self, since: float | None) -> bool:
        """Return True for an alert that began at a time; None is a time that is not known."""
        return since is None or self.at >= since


class Acknowledgements:
    """The acknowledgements of a ledger. Methods raise LedgerError when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def standing(self) -> Mapping[str, Acknowledgement]:
        """Return the last acknowledgement of each alert that was not taken back, by the alert."""
        with self._database.reading() as connection:
            return _standing(_rows(connection))

    @outlasts_outages
    def acknowledge(
        self, alert: str, *, by: str, request: str, since: float | None = None
    ) -> Acknowledgement:
        """Record that a person sees to an alert; return the acknowledgement that counts.

        That is the earlier one, where another person was faster or the request arrives twice.
        """
        with self._database.writing() as connection:
            rows = _rows(connection)
            for row in rows:
                if row.request == request:
                    return _acknowledgement(row)
            earlier = _standing(rows).get(alert)
            if earlier is not None and earlier.counts_for(since):
                return earlier
            made = Acknowledgement(alert=alert, by=by, at=time.time(), request=request)
            return _add(connection, made, "acknowledged")

    @outlasts_outages
    def withdraw(
        self, alert: str, *, by: str, request: str, may_be_others: bool = False
    ) -> bool:
        """Take an acknowledgement back; return False where there is none.

        Raises Misuse for another person's, unless `may_be_others`.
        """
        with self._database.writing() as connection:
            rows = _rows(connection)
            if any(row.request == request for row in rows):
                return True
            last = _standing(rows).get(alert)
            if last is None:
                return False
            if last.by != by and not may_be_others:
                raise Misuse(
                    f"{last.by} acknowledged this alert; ask {last.by} or an admin to undo it"
                )
            taken_back = Acknowledgement(
                alert=alert, by=by, at=time.time(), request=request
            )
            _add(connection, taken_back, "withdrawn", undoes=last.number)
            return True

    @outlasts_outages
    def take_over(self, earlier: Iterable[Acknowledgement]) -> int:
        """Record acknowledgements of an older version, once; return how many are new here."""
        added = 0
        with self._database.writing() as connection:
            known = {row.request for row in _rows(connection)}
            for each in earlier:
                if each.request not in known:
                    _add(connection, each, "acknowledged")
                    added += 1
        return added


def _rows(connection: Connection) -> list[Any]:
    query = select(AcknowledgementRecord.__table__).order_by(AcknowledgementRecord.seq)
    return list(connection.execute(query))


def _standing(rows: Iterable[Any]) -> dict[str, Acknowledgement]:
    found: dict[str, Acknowledgement] = {}
    for row in rows:
        if row.word == "withdrawn":
            found.pop(row.alert, None)
        else:
            found[row.alert] = _acknowledgement(row)
    return found


def _acknowledgement(row: Any) -> Acknowledgement:
    return Acknowledgement(
        alert=row.alert, by=row.by, at=row.at, request=row.request, number=row.seq
    )


def _add(
    connection: Connection,
    made: Acknowledgement,
    word: Word,
    undoes: int | None = None,
) -> Acknowledgement:
    table = AcknowledgementRecord
    row = {
        "alert": made.alert,
        "word": word,
        "by": made.by,
        "at": made.at,
        "request": made.request,
        "undoes": undoes,
    }
    stored = connection.execute(
        insert(table).values(row).returning(table.__table__)
    ).one()
    seal_row(connection, "acknowledgement", stored.seq, acknowledgement_record(stored))
    return _acknowledgement(stored)
