"""Earlier answers to a step by a model: their length, pass rate and duration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, select

from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.tables import AttemptRecord, OutcomeRecord, Run

if TYPE_CHECKING:
    from tierwise.ledger.database import Database

RUNS = 50  # older ones say less about today, and a large ledger stays quick to ask
Key = tuple[str, str, str]  # step, prompt such as "classify v1", model


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The answered calls of one step, prompt and model, without reused ones.

    Tokens and seconds are a call's.
    """

    calls: int
    repairs: int
    reasks: int
    completion_tokens: float | None  # None when no server said
    cached_share: float  # of the prompt tokens
    written_share: float  # of the prompt tokens, to the prompt cache
    latency_s: float | None  # of calls online
    documents: int  # that the model answered for, reused answers included
    passed: int  # of those, documents whose outcome came from it

    @property
    def pass_rate(self) -> float:
        """Share of the documents that needed no further model."""
        return self.passed / self.documents


class History:
    """The experience of earlier runs, for plans: `ledger.history`.

    Every method raises LedgerError when the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def past(self) -> dict[Key, Past]:
        """Return the figures of the last `RUNS` runs by step, prompt and model."""
        key = (AttemptRecord.step, AttemptRecord.prompt, AttemptRecord.model)
        answered = (
            AttemptRecord.run_id.in_(
                select(Run.id).order_by(Run.started_at.desc()).limit(RUNS)
            ),
            AttemptRecord.error.is_(None),
            AttemptRecord.kind.not_in(("judge", "shadow")),
        )
        calls = (
            select(
                *key,
                func.count().label("calls"),
                func.sum(case((AttemptRecord.kind == "repair", 1), else_=0)).label(
                    "repairs"
                ),
                func.sum(case((AttemptRecord.kind == "reask", 1), else_=0)).label(
                    "reasks"
                ),
                func.avg(AttemptRecord.completion_tokens).label("completion_tokens"),
                func.sum(AttemptRecord.cached_tokens).label("cached"),
                func.sum(AttemptRecord.cache_write_tokens).label("written"),
                func.sum(AttemptRecord.prompt_tokens).label("prompted"),
                # The time in a batch says nothing about calls online.
                func.avg(
                    case((AttemptRecord.transport == "online", AttemptRecord.latency_s))
                ).label("latency_s"),
            )
            .where(*answered, AttemptRecord.reused.is_(False))
            .group_by(*key)
        )
        asked = (
            select(*key, AttemptRecord.run_id, AttemptRecord.document_id)
            .where(*answered)
            .distinct()
            .subquery()
        )
        passes = (
            select(
                asked.c.step,
                asked.c.prompt,
                asked.c.model,
                func.count().label("documents"),
                func.sum(
                    case((OutcomeRecord.model == asked.c.model, 1), else_=0)
                ).label("passed"),
            )
            .outerjoin(
                OutcomeRecord,
                (OutcomeRecord.run_id == asked.c.run_id)
                & (OutcomeRecord.document_id == asked.c.document_id)
                & (OutcomeRecord.step == asked.c.step),
            )
            .group_by(asked.c.step, asked.c.prompt, asked.c.model)
        )
        with self._database.reading() as connection:
            held = {
                (row.step, row.prompt, row.model): row
                for row in connection.execute(passes)
            }
            rows = connection.execute(calls).all()
        return {
            (row.step, row.prompt, row.model): Past(
                calls=row.calls,
                repairs=int(row.repairs),
                reasks=int(row.reasks),
                completion_tokens=None
                if row.completion_tokens is None
                else float(row.completion_tokens),
                cached_share=_share(row.cached, row.prompted),
                written_share=_share(row.written, row.prompted),
                latency_s=None if row.latency_s is None else float(row.latency_s),
                documents=held[row.step, row.prompt, row.model].documents,
                passed=int(held[row.step, row.prompt, row.model].passed),
            )
            for row in rows
        }

    @outlasts_outages
    def paid_calls(self, step: str, model: str) -> frozenset[str]:
        """Return the hashes of all calls of a step on a model that were ever answered and paid."""
        paid = (AttemptRecord.error.is_(None), AttemptRecord.reused.is_(False))
        query = select(AttemptRecord.call_hash).where(
            AttemptRecord.step == step, AttemptRecord.model == model, *paid
        )
        with self._database.reading() as connection:
            return frozenset(connection.scalars(query))


def _share(part: Any, whole: Any) -> float:
    """Return a part of the prompt tokens; 0 where either was not counted."""
    # Attempts of earlier versions have no count of what was written.
    return float((part or 0) / whole) if whole else 0.0
