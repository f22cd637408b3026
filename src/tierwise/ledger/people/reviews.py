"""Reviewers' decisions on outcomes. They are only ever added; the last one of an outcome counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import case, func, insert, null, select

from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.people.seals import decision_record, seal_row
from tierwise.ledger.rows import outcome_of
from tierwise.ledger.tables import OutcomeRecord, QuestionRecord, ReviewRecord
from tierwise.ledger.upserts import insert_into
from tierwise.records import Outcome, Sensitivity, Status, canonical_hash, text_hash

if TYPE_CHECKING:
    from tierwise.ledger.database import Database

Word = Literal["approved", "edited", "rejected", "reopened"]
# `reopened` has no status: the recorded outcome counts again.
_STATUS: Mapping[Word, Status] = {
    "approved": "accepted",
    "edited": "accepted",
    "rejected": "rejected",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A reviewer's decision on one outcome. `reopened` takes an earlier decision back.

    `value` is the answer that counts from now on, plain JSON data; `model` says whose answer was
    approved. `reviewed_at` is seconds since the epoch, UTC; `question` is what was asked (see
    `Step.question`).
    """

    run_id: str
    document_id: str
    document_hash: str
    step: str
    question: str | None
    decision: Word
    value: Any = None
    model: str | None = None
    sensitivity: Sensitivity = "restricted"
    reviewer: str
    reviewed_at: float
    note: str = ""

    @property
    def says(self) -> str:
        """Such as `edited by ada: wrong label`."""
        return f"{self.decision} by {self.reviewer}" + (
            f": {self.note}" if self.note else ""
        )

    @property
    def known(self) -> bool:
        """True if it gives an outcome: it was not taken back, and its value is still kept."""
        return self.decision == "rejected" or (
            self.decision in _STATUS and self.value is not None
        )

    def outcome(self) -> Outcome:
        """Return the outcome that a document has by this decision, which must be known."""
        return Outcome(
            step=self.step,
            status=_STATUS[self.decision],
            value=self.value,
            reason=f"{self.says} (run {self.run_id})",
            cause="reviewer" if self.decision == "rejected" else None,
            quotes=bool(self.note),
            model=self.model,
            sensitivity=self.sensitivity,
        )


_FIELDS = tuple(f.name for f in fields(Decision))
# All decisions, numbered by age: 1 is the last one about an outcome.
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
    )
).subquery("last")
# `Decision.says` in SQL.
_SAYS = (
    _LAST.c.decision
    + " by "
    + _LAST.c.reviewer
    + case((_LAST.c.note != "", ": " + _LAST.c.note), else_="")
)


_CAUSE = case((_LAST.c.decision == "rejected", "reviewer"), else_=null())


def _unless_decided(decided: Any, recorded: Any) -> Any:
    # Not by the decided value, which may be NULL: of a rejected outcome, or deleted.
    return case((_LAST.c.decision.is_not(None), decided), else_=recorded).label(
        recorded.key
    )


# Outcomes as they stand now: as recorded, but where a person decided, as decided.
CURRENT = (
    select(
        *(
            c
            for c in OutcomeRecord.__table__.c
            if c.key not in ("status", "value", "reason", "cause", "model")
        ),
        _unless_decided(
            case((_LAST.c.decision == "rejected", "rejected"), else_="accepted"),
            OutcomeRecord.status,
        ),
        _unless_decided(_LAST.c.value, OutcomeRecord.value),
        _unless_decided(_SAYS, OutcomeRecord.reason),
        _unless_decided(_CAUSE, OutcomeRecord.cause),
        _unless_decided(_LAST.c.model, OutcomeRecord.model),
    )
    .outerjoin(
        _LAST,
        (_LAST.c.run_id == OutcomeRecord.run_id)
        & (_LAST.c.document_id == OutcomeRecord.document_id)
        & (_LAST.c.step == OutcomeRecord.step)
        & (_LAST.c.age == 1)
        # In the join, not in `where`: a reopened outcome must keep its row, as recorded.
        & (_LAST.c.decision != "reopened"),
    )
    .subquery("current")
)


class Reviews:
    """Decisions on record. All raise LedgerError when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def decide(self, decision: Decision) -> None:
        """Record a decision, and seal it."""
        row = {name: getattr(decision, name) for name in _FIELDS}
        # Hashes outlive the texts, so that the seal remains valid after a deletion.
        row["value_hash"] = (
            None if decision.value is None else canonical_hash(decision.value)
        )
        row["note_hash"] = text_hash(decision.note) if decision.note else None
        with self._database.writing() as connection:
            added = insert(ReviewRecord).values(row).returning(ReviewRecord.__table__)
            stored = connection.execute(added).one()
            seal_row(connection, "decision", stored.seq, decision_record(stored))

    def history(self, run_id: str, document_id: str, step: str) -> list[Decision]:
        """All decisions about one outcome, the first one first."""
        one = (
            ReviewRecord.run_id == run_id,
            ReviewRecord.document_id == document_id,
            ReviewRecord.step == step,
        )
        return self._decisions(
            select(ReviewRecord.__table__).where(*one).order_by(ReviewRecord.seq)
        )

    def standing(self, run_id: str, step: str | None = None) -> list[Decision]:
        """Return the valid decisions on a run's outcomes, in the order in which they were made."""
        wanted = [
            _LAST.c.run_id == run_id,
            _LAST.c.age == 1,
            _LAST.c.decision != "reopened",
        ]
        if step is not None:
            wanted.append(_LAST.c.step == step)
        return self._decisions(select(_LAST).where(*wanted).order_by(_LAST.c.seq))

    @outlasts_outages
    def answers(
        self, question: str, document_hashes: Iterable[str]
    ) -> dict[str, Decision]:
        """Return the last decision on the same question and text, in any run, by hash."""
        same = (
            ReviewRecord.question == question,
            ReviewRecord.document_hash.in_(set(document_hashes)),
        )
        rows = self._decisions(
            select(ReviewRecord.__table__).where(*same).order_by(ReviewRecord.seq)
        )
        # Rows come in order, so the last decision on a text stays. `known` is asked only then:
        # a decision that was reopened must not bring back the one before it.
        last = {decision.document_hash: decision for decision in rows}
        return {key: decision for key, decision in last.items() if decision.known}

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
        return [
            Decision(**{name: getattr(row, name) for name in _FIELDS}) for row in rows
        ]
