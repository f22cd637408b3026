"""Reviewers' decisions, and the one way to record them. Rows are only ever added.

Several people decide at once, so a decision names the version of the item that the person saw
(optimistic concurrency control). It is refused where another one was recorded since. A request that
arrives twice is applied once (idempotency). All that rests on one transaction: only one process
writes to a ledger at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import func, insert, or_, select

from tierwise.errors import DecidedMeanwhile, Misuse
from tierwise.ledger.people.seals import decision_record, seal_rows
from tierwise.ledger.rows import sources_of, sources_row
from tierwise.ledger.tables import OutcomeRecord, ReviewRecord
from tierwise.records import (
    FieldSource,
    Outcome,
    Sensitivity,
    Status,
    canonical_hash,
    text_hash,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

# `reopened` takes a decision back, `again` asks the models once more; the recorded outcome counts
# then. A comment decides nothing.
Word = Literal["approved", "edited", "rejected", "reopened", "again", "commented"]
_STATUS: Mapping[Word, Status] = {
    "approved": "accepted",
    "edited": "accepted",
    "rejected": "rejected",
}
GIVES_OUTCOME: tuple[Word, ...] = tuple(_STATUS)
COMMENT: Word = "commented"
_SAYS: Mapping[Word, str] = {"again": "sent again"}
IS_DECISION = ReviewRecord.decision != COMMENT


@dataclass(frozen=True, slots=True)
class Version:
    """What a person saw of an item: the last decision about it, and the outcome of the run.

    `decision` is a decision's number, 0 for none. The time is that of the outcome (epoch seconds),
    None where it does not matter: a run that goes on may replace its outcome.
    """

    decision: int
    recorded_at: float | None = None

    @property
    def text(self) -> str:
        """The version as a page and the ledger keep it."""
        if self.recorded_at is None:
            return str(self.decision)
        return f"{self.decision}@{self.recorded_at!r}"

    @classmethod
    def of(cls, text: str) -> Version:
        """Return the version of a text. Raises Misuse for another text."""
        number, _, time = text.partition("@")
        try:
            version = cls(int(number), float(time) if time else None)
        except ValueError:
            version = None
        # A larger number is none of a database's.
        if version is None or not 0 <= version.decision < 2**63:
            raise Misuse(f"'{text[:40]}' is no version of an item")
        return version


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A reviewer's decision on one outcome. `reopened` takes an earlier decision back.

    `value` is the answer that counts from now on, plain JSON data; `model` says whose answer was
    approved. `reviewed_at` is seconds since the epoch, UTC; `question` is what was asked (see
    `Step.question`). `seen` is the text of the `Version` that the person saw, None where that was
    not asked. Decisions with the same `request` are one action. In a step by
    field, `sources` names the source of each field of the value. `number` is given by the ledger.
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
    seen: str | None = None
    request: str | None = None
    undoes: int | None = None
    selection: Any = None
    sources: Mapping[str, FieldSource] = field(default_factory=dict)
    number: int = 0

    @property
    def says(self) -> str:
        """Such as `edited by ada: wrong label`."""
        word = _SAYS.get(self.decision, self.decision)
        return f"{word} by {self.reviewer}" + (f": {self.note}" if self.note else "")

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
            sources=self.sources,
        )


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an action: the decisions on record, and those that were refused.

    A refused one comes with the decisions that the person had not seen. `repeated` is True where
    the request had arrived before.
    """

    decisions: tuple[Decision, ...]
    refused: tuple[tuple[Decision, tuple[Decision, ...]], ...] = ()
    repeated: bool = False


_FIELDS = tuple(f.name for f in fields(Decision) if f.name != "number")


def decision_of(row: Any) -> Decision:
    """Return the decision of a row."""
    values = {name: getattr(row, name) for name in _FIELDS}
    values["sources"] = sources_of(row.sources)
    return Decision(**values, number=row.seq)


def record_decisions(connection: Connection, decisions: Sequence[Decision]) -> Recorded:
    """Record the decisions of one action, and seal them, in the connection's transaction.

    Those on items that were decided since the person saw them are refused; the others count.
    """
    request = decisions[0].request if decisions else None
    if request is not None:
        before = _of_request(connection, request)
        if before:
            _refuse_another_action(decisions, before)
            return Recorded(before, repeated=True)
    # All versions are read before the first row is added: two items of one action may have the
    # same text, and are no conflict.
    fitting: list[Decision] = []
    refused: list[tuple[Decision, tuple[Decision, ...]]] = []
    for decision in decisions:
        unseen = _unseen(connection, decision)
        if unseen is None:
            fitting.append(decision)
        else:
            refused.append((decision, unseen))
    return Recorded(_add(connection, fitting), tuple(refused))


def undo_request(
    connection: Connection, request: str, *, by: str, at: float, undo: str
) -> Recorded:
    """Take an action back, in the connection's transaction: each item is as it was before it.

    A row is added for each item, as the request `undo`. An item with a later decision stays as it
    is, and is refused. Raises Misuse for an unknown action, and for one with comments alone.
    """
    before = _of_request(connection, undo)
    if before:
        return Recorded(before, repeated=True)
    taken_back = [
        each for each in _of_request(connection, request) if each.decision != COMMENT
    ]
    if not taken_back:
        raise Misuse(f"there is no decision of the request '{request}' to take back")
    rows: list[Decision] = []
    refused: list[tuple[Decision, tuple[Decision, ...]]] = []
    for decision in taken_back:
        later = _later(connection, decision, decision.number)
        # Items of one action may share a text: their rows are no later decisions.
        others = tuple(each for each in later if each.request != request)
        if others:
            refused.append((decision, others))
            continue
        earlier = _before(connection, decision)
        restored = replace(
            decision,
            decision="reopened",
            value=None,
            model=None,
            sources={},
            reviewer=by,
            reviewed_at=at,
            note="",
            seen=Version(decision.number).text,
            request=undo,
            undoes=decision.number,
            selection=None,
        )
        if earlier is not None and earlier.decision != "reopened":
            restored = replace(
                restored,
                decision=earlier.decision,
                value=earlier.value,
                model=earlier.model,
                sources=earlier.sources,
            )
        rows.append(restored)
    return Recorded(_add(connection, rows), tuple(refused))


def last_request(connection: Connection, by: str) -> str | None:
    """Return a person's last action that can be taken back; None without one."""
    r = ReviewRecord
    undone = select(r.undoes).where(r.undoes.is_not(None))
    query = (
        select(r.request)
        .where(r.reviewer == by, r.request.is_not(None), IS_DECISION)
        .where(r.undoes.is_(None), r.seq.not_in(undone))
        .order_by(r.seq.desc())
        .limit(1)
    )
    return connection.scalar(query)


def last_number(connection: Connection) -> int:
    """Return the number of the ledger's last decision, 0 without any."""
    return connection.scalar(select(func.max(ReviewRecord.seq))) or 0


def _add(connection: Connection, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    added: list[Decision] = []
    records: list[tuple[int, Mapping[str, Any]]] = []
    for decision in decisions:
        row = {name: getattr(decision, name) for name in _FIELDS}
        row["sources"] = sources_row(decision.sources)
        # Hashes outlive the texts, so that the seal remains valid after a deletion.
        row["value_hash"] = None
        if decision.value is not None:
            row["value_hash"] = canonical_hash(decision.value)
        row["note_hash"] = text_hash(decision.note) if decision.note else None
        adding = insert(ReviewRecord).values(row).returning(ReviewRecord.__table__)
        stored = connection.execute(adding).one()
        records.append((stored.seq, decision_record(stored)))
        added.append(replace(decision, number=stored.seq))
    seal_rows(connection, "decision", records)
    return tuple(added)


def _of_request(connection: Connection, request: str) -> tuple[Decision, ...]:
    query = (
        select(ReviewRecord.__table__)
        .where(ReviewRecord.request == request)
        .order_by(ReviewRecord.seq)
    )
    return tuple(decision_of(row) for row in connection.execute(query))


def _refuse_another_action(
    decisions: Sequence[Decision], before: Sequence[Decision]
) -> None:
    """Raise Misuse where a request's id was used for something else."""

    def actions(of: Sequence[Decision]) -> set[tuple[str, str]]:
        return {(each.decision, each.reviewer) for each in of}

    def items(of: Sequence[Decision]) -> set[tuple[str, str, str]]:
        return {(each.run_id, each.document_id, each.step) for each in of}

    # Of an action over many, some may have been refused then.
    if actions(decisions) == actions(before) and items(before) <= items(decisions):
        return
    raise Misuse(
        "this request was used for another decision already; read the item again"
    )


def _unseen(connection: Connection, decision: Decision) -> tuple[Decision, ...] | None:
    """Return the decisions that the person has not seen; None where the item is as it was.

    Empty where the run replaced its outcome since.
    """
    # A comment decides nothing, so it needs no version.
    if decision.seen is None or decision.decision == COMMENT:
        return None
    seen = Version.of(decision.seen)
    later = _later(connection, decision, seen.decision)
    if later:
        return later
    if seen.recorded_at is None:
        return None
    o = OutcomeRecord
    recorded_at = connection.scalar(
        select(o.recorded_at).where(
            o.run_id == decision.run_id,
            o.document_id == decision.document_id,
            o.step == decision.step,
        )
    )
    if recorded_at is None or recorded_at == seen.recorded_at:
        return None
    return ()


def about(run_id: str, document_id: str, step: str, question: Any, text: str) -> Any:
    """Return the condition on decisions about an outcome, or about its question and text."""
    r = ReviewRecord
    own = (r.run_id == run_id) & (r.document_id == document_id) & (r.step == step)
    if question is None:
        return own & IS_DECISION
    same = (r.question == question) & (r.document_hash == text)
    return or_(own, same) & IS_DECISION


def _about(decision: Decision) -> Any:
    return about(
        decision.run_id,
        decision.document_id,
        decision.step,
        decision.question,
        decision.document_hash,
    )


def _later(
    connection: Connection, decision: Decision, number: int
) -> tuple[Decision, ...]:
    """Return the decisions about the same item with a higher number."""
    query = (
        select(ReviewRecord.__table__)
        .where(_about(decision), ReviewRecord.seq > number)
        .order_by(ReviewRecord.seq)
    )
    return tuple(decision_of(row) for row in connection.execute(query))


def _before(connection: Connection, decision: Decision) -> Decision | None:
    """Return the decision about the same outcome that counted before this one."""
    query = (
        select(ReviewRecord.__table__)
        .where(
            ReviewRecord.run_id == decision.run_id,
            ReviewRecord.document_id == decision.document_id,
            ReviewRecord.step == decision.step,
            IS_DECISION,
            ReviewRecord.seq < decision.number,
        )
        .order_by(ReviewRecord.seq.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else decision_of(row)


def refuse(recorded: Recorded) -> None:
    """Raise DecidedMeanwhile for the first refused decision of an action, if there is one."""
    for decision, unseen in recorded.refused:
        item = f"{decision.document_id} at {decision.step}"
        if unseen:
            last = unseen[-1]
            message = f"{item} was {last.says} after you read it; nothing was recorded for you"
        else:
            message = (
                f"{item} was answered again after you read it; nothing was recorded"
            )
        raise DecidedMeanwhile(message, unseen)
