"""Served models: what servers called their models, and the verdicts of canaries on others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select

from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.tables import AttemptRecord, CallRecord, CanaryRecord
from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import Certificate
from tierwise.policy.sentinel import (
    NOTHING_WATCHED,
    WINDOW,
    CanaryVerdict,
    Key,
    ServedAnswer,
    Suspension,
    Watch,
    watch,
)

if TYPE_CHECKING:
    from tierwise.ledger.database import Database

_AT_ONCE = 500  # hashes in one query
_VERDICT = tuple(CanaryVerdict.__slots__)


class ServedModels:
    """What servers called their models: `ledger.served`.

    Every method raises LedgerError when the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def last_answers(self, models: Collection[str]) -> dict[str, list[ServedAnswer]]:
        """Return the last answers of each model whose server said a name, the oldest first.

        Answers that were paid before and used again say nothing about today.
        """
        found: dict[str, list[ServedAnswer]] = {}
        with self._database.reading() as connection:
            for model in sorted(models):
                query = (
                    select(AttemptRecord.served_model, AttemptRecord.started_at)
                    .where(*_made_by(model))
                    .order_by(AttemptRecord.seq.desc())
                    .limit(WINDOW)
                )
                rows = connection.execute(query).all()
                found[model] = [
                    ServedAnswer(row.served_model, row.started_at)
                    for row in reversed(rows)
                ]
        return found

    @outlasts_outages
    def first_seen(self, models: Collection[str]) -> dict[str, list[ServedAnswer]]:
        """Return each name that a model was served under, with the time of its first answer."""
        found: dict[str, list[ServedAnswer]] = {}
        with self._database.reading() as connection:
            for model in sorted(models):
                query = (
                    select(
                        AttemptRecord.served_model,
                        func.min(AttemptRecord.started_at).label("at"),
                    )
                    .where(*_made_by(model))
                    .group_by(AttemptRecord.served_model)
                )
                found[model] = [
                    ServedAnswer(row.served_model, row.at)
                    for row in connection.execute(query)
                ]
        return found

    @outlasts_outages
    def last_made(self, calls: Collection[str]) -> float | None:
        """Return when the last of these paid calls was made; None where none is on record."""
        latest: float | None = None
        ordered = sorted(calls)
        with self._database.reading() as connection:
            for start in range(0, len(ordered), _AT_ONCE):
                query = (
                    select(func.max(AttemptRecord.started_at))
                    .join(CallRecord, CallRecord.attempt_id == AttemptRecord.id)
                    .where(CallRecord.call_hash.in_(ordered[start : start + _AT_ONCE]))
                )
                found = connection.execute(query).scalar()
                if found is not None and (latest is None or found > latest):
                    latest = float(found)
        return latest

    @outlasts_outages
    def verdicts(self) -> list[CanaryVerdict]:
        """Return all verdicts of canaries, the oldest first."""
        query = select(CanaryRecord.__table__).order_by(CanaryRecord.seq)
        with self._database.reading() as connection:
            return [_verdict_of(row) for row in connection.execute(query)]

    def record(self, verdict: CanaryVerdict) -> None:
        """Put a verdict of canaries on record."""
        row = asdict(verdict)
        row["models"] = list(verdict.models)
        with self._database.writing() as connection:
            connection.execute(insert(CanaryRecord).values(row))

    def suspensions(
        self, certificates: Iterable[Certificate], catalog: Catalog
    ) -> Mapping[Key, Suspension]:
        """Return the certificates whose models are no longer served, by step and models."""
        return self.watch(certificates, catalog).suspended

    def watch(self, certificates: Iterable[Certificate], catalog: Catalog) -> Watch:
        """Return the suspended certificates, and the names that suspend none."""
        watched = [each for each in certificates if each.served]
        if not watched:
            return NOTHING_WATCHED
        models = {name for certificate in watched for name in certificate.served or ()}
        answers = self.last_answers(models)
        return watch(
            watched, catalog, answers, self.first_seen(models), self.verdicts()
        )


def _made_by(model: str) -> tuple[Any, ...]:
    return (
        AttemptRecord.model == model,
        AttemptRecord.served_model.is_not(None),
        AttemptRecord.reused.is_(False),
    )


def _verdict_of(row: Any) -> CanaryVerdict:
    values = {name: getattr(row, name) for name in _VERDICT}
    values["models"] = tuple(values["models"])
    return CanaryVerdict(**values)
