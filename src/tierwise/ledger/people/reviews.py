"""Reviewers' decisions on outcomes. They are only ever added; the last one of an outcome counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, null, select, type_coerce

from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.people.decisions import (
    GIVES_OUTCOME,
    IS_DECISION,
    Decision,
    Recorded,
    Version,
    Word,
    about,
    decision_of,
    last_number,
    last_request,
    record_decisions,
    refuse,
    undo_request,
)
from tierwise.ledger.rows import outcome_of
from tierwise.ledger.tables import OutcomeRecord, QuestionRecord, ReviewRecord
from tierwise.ledger.upserts import insert_into
from tierwise.records import Outcome, Sensitivity

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database

__all__ = ["CURRENT", "Decision", "Recorded", "Reviews", "Version", "Word"]
# All decisions, numbered by age: 1 is the last one about an outcome. Comments are none.
_LAST = (
    select(
        ReviewRecord.__table__,
        func.row_number()
        .over(
            partition_by=(
                ReviewRecord.run_id,
                ReviewRecord.document_id,
                ReviewRecord.step,
            ),
            order_by=ReviewRecord.seq.desc(),
        )
        .label("age"),
    ).where(IS_DECISION)
).subquery("last")
# `Decision.says` in SQL.
_SAYS = (
    _LAST.c.decision
    + " by "
    + _LAST.c.reviewer
    + case((_LAST.c.note != "", ": " + _LAST.c.note), else_="")
)


# Columns that a decision fills in.
_DECIDED = (
    "status",
    "value",
    "places",
    "reason",
    "cause",
    "model",
    "sources",
    "open_fields",
)
_CAUSE = case((_LAST.c.decision == "rejected", "reviewer"), else_=null())


def _unless_decided(decided: Any, recorded: Any) -> Any:
    # Not by the decided value, which may be NULL: of a rejected outcome, or deleted.
    return case((_LAST.c.decision.is_not(None), decided), else_=recorded).label(
        recorded.key
    )


# The places of the recorded value are those of a decided one that is the same.
_PLACES = case(
    (_LAST.c.value_hash == OutcomeRecord.value_hash, OutcomeRecord.places),
    else_=null(),
)

# Outcomes as they stand now: as recorded, but where a person decided, as decided.
CURRENT = (
    select(
        *(c for c in OutcomeRecord.__table__.c if c.key not in _DECIDED),
        _unless_decided(
            case((_LAST.c.decision == "rejected", "rejected"), else_="accepted"),
            OutcomeRecord.status,
        ),
        _unless_decided(_LAST.c.value, OutcomeRecord.value),
        _unless_decided(_PLACES, OutcomeRecord.places),
        _unless_decided(_SAYS, OutcomeRecord.reason),
        _unless_decided(_CAUSE, OutcomeRecord.cause),
        _unless_decided(_LAST.c.model, OutcomeRecord.model),
        _unless_decided(_LAST.c.sources, OutcomeRecord.sources),
        _unless_decided(
            type_coerce(null(), OutcomeRecord.open_fields.type),
            OutcomeRecord.open_fields,
        ),
    )
    .outerjoin(
        _LAST,
        (_LAST.c.run_id == OutcomeRecord.run_id)
        & (_LAST.c.document_id == OutcomeRecord.document_id)
        & (_LAST.c.step == OutcomeRecord.step)
        & (_LAST.c.age == 1)
        # In the join, not in `where`: a reopened outcome must keep its row, as recorded.
        & _LAST.c.decision.in_(GIVES_OUTCOME),
    )
    .subquery("current")
)


class Reviews:
    """Decisions on record. All raise LedgerError when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def decide(self, decision: Decision) -> Decision:
        """Record a decision, and seal it.

        Raises DecidedMeanwhile where another one was recorded after the version that was seen.
        """
        recorded = self.decide_all([decision])
        refuse(recorded)
        return recorded.decisions[0]

    def decide_all(self, decisions: Sequence[Decision]) -> Recorded:
        """Record the decisions of one action, and seal them.

        Those on items that were decided since they were seen are refused, and returned. A request
        that was recorded before is not recorded again.
        """
        recording = partial(record_decisions, decisions=decisions)
        if all(decision.request for decision in decisions):
            return self._record_again(recording)
        return self._record(recording)

    def undo(self, request: str, *, by: str, undo: str) -> Recorded:
        """Take an action back, as the request `undo`; what was decided since stays.

        Raises Misuse for an unknown action.
        """
        at = time.time()
        undoing = partial(undo_request, request=request, by=by, at=at, undo=undo)
        return self._record_again(undoing)

    def _record(self, recording: Callable[[Connection], Recorded]) -> Recorded:
        with self._database.writing() as connection:
            return recording(connection)

    @outlasts_outages
    def _record_again(self, recording: Callable[[Connection], Recorded]) -> Recorded:
        """Record requests that have an id: after an outage, one that was committed is found."""
        return self._record(recording)

    def action(self, request: str) -> list[Decision]:
        """Return the decisions of one action, the first one first."""
        r = ReviewRecord
        return self._decisions(
            select(r.__table__).where(r.request == request).order_by(r.seq)
        )

    @outlasts_outages
    def last_request(self, by: str) -> str | None:
        """Return a person's last action that can be taken back; None without one."""
        with self._database.reading() as connection:
            return last_request(connection, by)

    @outlasts_outages
    def since(self, number: int) -> list[Decision]:
        """Return the decisions after one with this number, comments left out."""
        r = ReviewRecord
        return self._decisions(
            select(r.__table__).where(r.seq > number, IS_DECISION).order_by(r.seq)
        )

    @outlasts_outages
    def levels(
        self, run_id: str, document_ids: Iterable[str]
    ) -> dict[str, set[Sensitivity]]:
        """Return the sensitivities of documents of a run, over all steps."""
        o = OutcomeRecord
        wanted = sorted(set(document_ids))
        found: dict[str, set[Sensitivity]] = {name: set() for name in wanted}
        with self._database.reading() as connection:
            for start in range(0, len(wanted), 500):
                query = select(o.document_id, o.sensitivity).where(
                    o.run_id == run_id,
                    o.document_id.in_(wanted[start : start + 500]),
                )
                for row in connection.execute(query):
                    found[row.document_id].add(row.sensitivity)
        return found

    @outlasts_outages
    def last_number(self) -> int:
        """Return the number of the last decision: a page that shows many items has seen it."""
        with self._database.reading() as connection:
            return last_number(connection)

    @outlasts_outages
    def version(
        self,
        run_id: str,
        document_id: str,
        step: str,
        question: str | None,
        document_hash: str,
    ) -> Version:
        """Return the present version of an outcome."""
        is_about = about(run_id, document_id, step, question, document_hash)
        o = OutcomeRecord
        recorded_at = select(o.recorded_at).where(
            o.run_id == run_id, o.document_id == document_id, o.step == step
        )
        with self._database.reading() as connection:
            last = connection.scalar(select(func.max(ReviewRecord.seq)).where(is_about))
            return Version(last or 0, connection.scalar(recorded_at))

    def history(self, run_id: str, document_id: str, step: str) -> list[Decision]:
        """Return all decisions and comments on one outcome, the first one first."""
        one = (
            ReviewRecord.run_id == run_id,
            ReviewRecord.document_id == document_id,
            ReviewRecord.step == step,
        )
        return self._decisions(
            select(ReviewRecord.__table__).where(*one).order_by(ReviewRecord.seq)
        )

    def of_person(self, by: str, since: float) -> list[Decision]:
        """Return the decisions and comments of a person since a time, the last one first."""
        r = ReviewRecord
        wanted = (r.reviewer == by, r.reviewed_at >= since)
        return self._decisions(
            select(r.__table__).where(*wanted).order_by(r.seq.desc())
        )

    def standing(self, run_id: str, step: str | None = None) -> list[Decision]:
        """Return the valid decisions on a run's outcomes, in the order in which they were made."""
        wanted = [
            _LAST.c.run_id == run_id,
            _LAST.c.age == 1,
            _LAST.c.decision.in_(GIVES_OUTCOME),
        ]
        if step is not None:
            wanted.append(_LAST.c.step == step)
        return self._decisions(select(_LAST).where(*wanted).order_by(_LAST.c.seq))

    @outlasts_outages
    def answers(
        self, question: str, document_hashes: Iterable[str]
    ) -> dict[str, Decision]:
        """Return the last decision on the same question and text, in any run, by hash."""
        last = self._last_on_texts(question, document_hashes)
        # `known` is asked only now: a decision that was reopened must not bring back the one
        # before it.
        return {key: decision for key, decision in last.items() if decision.known}

    @outlasts_outages
    def sent_again(
        self, question: str, document_hashes: Iterable[str]
    ) -> dict[str, float]:
        """Return by hash when a person sent a document again (epoch seconds).

        Answers that were paid earlier are not the ones that the person wants.
        """
        last = self._last_on_texts(question, document_hashes)
        return {
            key: decision.reviewed_at
            for key, decision in last.items()
            if decision.decision == "again"
        }

    def _last_on_texts(
        self, question: str, document_hashes: Iterable[str]
    ) -> dict[str, Decision]:
        """Return the last decision on the same question and text, in any run, by hash."""
        same = (
            ReviewRecord.question == question,
            ReviewRecord.document_hash.in_(set(document_hashes)),
            IS_DECISION,
        )
        rows = self._decisions(
            select(ReviewRecord.__table__).where(*same).order_by(ReviewRecord.seq)
        )
        # Rows come in order, so the last decision on a text stays.
        return {decision.document_hash: decision for decision in rows}

    @outlasts_outages
    def taken_over(self, run_id: str) -> dict[str, int]:
        """Return by step how many accepted outcomes of a run are people's earlier decisions."""
        r = ReviewRecord
        o = OutcomeRecord
        by_age = func.row_number().over(
            partition_by=(r.question, r.document_hash), order_by=r.seq.desc()
        )
        last = (
            select(
                r.question,
                r.document_hash,
                r.decision,
                r.reviewed_at,
                by_age.label("age"),
            )
            .where(r.question.is_not(None), IS_DECISION)
            .subquery("last_on_text")
        )
        query = (
            select(o.step, func.count().label("number"))
            .join(
                last,
                (last.c.question == o.question)
                & (last.c.document_hash == o.document_hash)
                & (last.c.age == 1),
            )
            .where(
                o.run_id == run_id,
                o.status == "accepted",
                last.c.decision.in_(GIVES_OUTCOME),
                # one that was made after the run is no outcome of it
                last.c.reviewed_at <= o.recorded_at,
            )
            .group_by(o.step)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return {row.step: row.number for row in rows}

    @outlasts_outages
    def as_in(
        self, run_id: str, step: str, question: str, document_ids: Iterable[str]
    ) -> dict[tuple[str, str], Outcome]:
        """By document id and hash, what documents got in a run when the same was asked of them."""
        # Ids alone will not do: a file may have changed since, so the caller compares the hash.
        c = CURRENT.c
        same = (
            c.run_id == run_id,
            c.step == step,
            c.question == question,
            c.document_id.in_(set(document_ids)),
        )
        with self._database.reading() as connection:
            rows = connection.execute(select(CURRENT).where(*same)).all()
        return {(row.document_id, row.document_hash): outcome_of(row) for row in rows}

    @outlasts_outages
    def waited(
        self, run_id: str, step: str | None = None
    ) -> list[tuple[str, str, str]]:
        """Return document, step and reason of all that waited at the end of the run."""
        # As recorded, not CURRENT: what was decided since then waited too.
        o = OutcomeRecord
        wanted = [
            o.run_id == run_id,
            o.status == "deferred",
            *([] if step is None else [o.step == step]),
        ]
        query = (
            select(o.document_id, o.step, o.reason)
            .where(*wanted)
            .order_by(o.document_id)
        )
        with self._database.reading() as connection:
            return [
                (row.document_id, row.step, row.reason)
                for row in connection.execute(query)
            ]

    @outlasts_outages
    def documents(self, run_id: str) -> set[str]:
        """Return the ids of all documents of a run."""
        query = (
            select(OutcomeRecord.document_id)
            .distinct()
            .where(OutcomeRecord.run_id == run_id)
        )
        with self._database.reading() as connection:
            return set(connection.scalars(query))

    @outlasts_outages
    def ask(self, question: str, step: str, schema: Mapping[str, Any]) -> None:
        """Record the JSON schema that answers to a question must fit."""
        with self._database.writing() as connection:
            row = {"hash": question, "step": step, "schema": dict(schema)}
            insert_question = insert_into(connection.dialect.name, QuestionRecord)
            # The question is a hash of the schema too, so a row that is there is the same.
            connection.execute(insert_question.values(row).on_conflict_do_nothing())

    @outlasts_outages
    def schema(self, question: str) -> dict[str, Any] | None:
        """Return the JSON schema for answers to a question; None for an unknown question."""
        with self._database.reading() as connection:
            found: dict[str, Any] | None = connection.scalar(
                select(QuestionRecord.schema).where(QuestionRecord.hash == question)
            )
        return found

    def _decisions(self, query: Any) -> list[Decision]:
        with self._database.reading() as connection:
            rows: Sequence[Any] = connection.execute(query).all()
        return [decision_of(row) for row in rows]
