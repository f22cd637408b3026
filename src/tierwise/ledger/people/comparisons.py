"""Comparisons of two variants of a step on the same documents, and people's verdicts.

A variant is a model with a prompt. Both variants answered the same texts, in any runs, as the first
model that was asked or as a shadow: an answer after a failed one is of a document on which another
model failed, so those are left out. Verdicts are only ever added.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import func, insert, select

from tierwise.errors import DecidedMeanwhile, Misuse, UnknownName
from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.people.seals import seal_row, verdict_record
from tierwise.ledger.rows import reply_of
from tierwise.ledger.tables import (
    AttemptRecord,
    CallRecord,
    ComparisonRecord,
    ComparisonVerdictRecord,
    OutcomeRecord,
)
from tierwise.ledger.upserts import insert_into
from tierwise.policy.sequential_test import drawn
from tierwise.records import Sensitivity, canonical_hash, text_hash

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database

Better = Literal["first", "second", "both", "neither"]
UNDONE = "undone"
_SHORT = 8  # characters of a hash on a page
# Kinds of attempts that chance or the rules chose, and no earlier answer.
_UNBIASED = ("first", "shadow")


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """A model with a prompt.

    `prompt` is the prompt's name and version, such as `classify v2`. `template` is its hash: a
    prompt may be changed without a new version. It is empty where the ledger does not know it.
    """

    model: str
    prompt: str
    template: str = ""

    @property
    def name(self) -> str:
        """Such as `small, classify v2 (1f3a90c2)`."""
        short = self.template[:_SHORT] or "hash unknown"
        return f"{self.model}, {self.prompt} ({short})"

    def data(self) -> dict[str, str]:
        """Return the variant as it is recorded."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two variants of a step that are compared."""

    id: str
    step: str
    first: Variant
    second: Variant
    created_by: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One document with the replies of both variants, as text; None where it is not kept."""

    run_id: str
    document_id: str
    document_hash: str
    sensitivity: Sensitivity
    question: str | None
    first: str | None
    second: str | None
    first_hash: str
    second_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A person's verdict on one document of a comparison."""

    number: int
    document_hash: str
    word: Better
    reviewer: str
    judged_at: float
    request: str
    answer: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict to record. `answer` is the right answer, where the person gave one."""

    word: Better
    by: str
    request: str
    is_swapped: bool
    answer: Any = None


class Comparisons:
    """The comparisons of a ledger. Methods raise LedgerError when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def variants(self) -> Mapping[str, list[tuple[Variant, int]]]:
        """Return by step the variants that answered, each with the number of different texts."""
        a = AttemptRecord
        query = (
            select(
                a.step,
                a.model,
                a.prompt,
                a.template_hash,
                func.count(a.document_hash.distinct()).label("texts"),
            )
            .where(a.kind.in_(_UNBIASED), a.answer_hash.is_not(None))
            .group_by(a.step, a.model, a.prompt, a.template_hash)
            # Of one prompt's texts, the one that was used last comes last.
            .order_by(a.step, a.model, a.prompt, func.max(a.seq))
        )
        found: dict[str, list[tuple[Variant, int]]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                variant = Variant(row.model, row.prompt, row.template_hash or "")
                found.setdefault(row.step, []).append((variant, row.texts))
        return found

    @outlasts_outages
    def create(self, step: str, first: Variant, second: Variant, by: str) -> Comparison:
        """Record a comparison; the same two variants are the same comparison."""
        if first == second:
            raise Misuse("compare two different models or prompts")
        one, other = sorted((first, second))
        comparison_id = canonical_hash([step, one.data(), other.data()])[:12]
        row = {
            "id": comparison_id,
            "step": step,
            "first": first.data(),
            "second": second.data(),
            "created_by": by,
            "created_at": time.time(),
        }
        with self._database.writing() as connection:
            adding = insert_into(connection.dialect.name, ComparisonRecord)
            connection.execute(adding.values(row).on_conflict_do_nothing())
        return self.get(comparison_id)

    @outlasts_outages
    def get(self, comparison_id: str) -> Comparison:
        """Return a comparison. Raises UnknownName."""
        with self._database.reading() as connection:
            query = select(ComparisonRecord.__table__)
            rows = connection.execute(query).all()
        for row in rows:
            if row.id == comparison_id:
                return _comparison(row)
        raise UnknownName("comparison", comparison_id, (row.id for row in rows))

    @outlasts_outages
    def all(self) -> list[Comparison]:
        """Return all comparisons, the newest first."""
        query = select(ComparisonRecord.__table__).order_by(
            ComparisonRecord.created_at.desc()
        )
        with self._database.reading() as connection:
            return [_comparison(row) for row in connection.execute(query)]

    @outlasts_outages
    def answered(self, comparison: Comparison) -> list[Answered]:
        """Return the documents that both variants answered, in an order drawn by chance.

        The order is the same at each reading, and depends on no answer: so a part from the
        beginning is a random sample.
        """
        with self._database.reading() as connection:
            firsts = _answers(connection, comparison.step, comparison.first)
            seconds = _answers(connection, comparison.step, comparison.second)
            hashes = sorted(firsts.keys() & seconds.keys(), key=_place(comparison.id))
            calls = {firsts[each].call_hash for each in hashes}
            calls |= {seconds[each].call_hash for each in hashes}
            replies = _replies(connection, calls)
            outcomes = _outcomes(
                connection, comparison.step, {firsts[each].run_id for each in hashes}
            )
        found = []
        for each in hashes:
            first, second = firsts[each], seconds[each]
            outcome = outcomes.get((first.run_id, first.document_id))
            found.append(
                Answered(
                    run_id=first.run_id,
                    document_id=first.document_id,
                    document_hash=each,
                    sensitivity=outcome.sensitivity if outcome else "restricted",
                    question=outcome.question if outcome else None,
                    first=replies.get(first.call_hash),
                    second=replies.get(second.call_hash),
                    first_hash=first.answer_hash,
                    second_hash=second.answer_hash,
                )
            )
        return found

    @outlasts_outages
    def verdicts(self, comparison_id: str) -> dict[str, Judged]:
        """Return the verdicts that count, by the document's hash."""
        with self._database.reading() as connection:
            return _standing(_verdict_rows(connection, comparison_id))

    @outlasts_outages
    def judge(
        self, comparison: Comparison, answered: Answered, judgement: Judgement
    ) -> None:
        """Record a verdict, and seal it.

        A request that arrives twice is applied once. Raises DecidedMeanwhile where another person
        has judged the document, and Misuse where this person has.
        """
        with self._database.writing() as connection:
            rows = _verdict_rows(connection, comparison.id)
            if any(row.request == judgement.request for row in rows):
                return
            done = _standing(rows).get(answered.document_hash)
            if done is not None and done.reviewer != judgement.by:
                raise DecidedMeanwhile(
                    f"{done.reviewer} has compared these two meanwhile", (done,)
                )
            if done is not None:
                raise Misuse("you compared these two already; take that back first")
            _add(connection, _row(comparison, answered, judgement, undoes=None))

    @outlasts_outages
    def undo(self, comparison: Comparison, by: str, request: str) -> str | None:
        """Take a person's last verdict back; return the document's hash, None without any."""
        with self._database.writing() as connection:
            rows = _verdict_rows(connection, comparison.id)
            if any(row.request == request for row in rows):
                return None
            own = [each for each in _standing(rows).values() if each.reviewer == by]
            if not own:
                return None
            last = max(own, key=lambda each: each.number)
            before = next(row for row in rows if row.seq == last.number)
            kept = ("comparison", "run_id", "document_id", "document_hash", "step")
            row = {name: getattr(before, name) for name in kept}
            row |= {
                "word": UNDONE,
                "is_swapped": before.is_swapped,
                "first_hash": before.first_hash,
                "second_hash": before.second_hash,
                "reviewer": by,
                "judged_at": time.time(),
                "request": request,
                "undoes": last.number,
            }
            _add(connection, row)
            return last.document_hash


def _place(comparison_id: str) -> Any:
    """Return the key that sorts texts by chance."""
    return lambda document_hash: text_hash(f"{comparison_id} {document_hash}")


def is_swapped(comparison_id: str, document_hash: str) -> bool:
    """Return True if chance shows the second variant's answer on the left."""
    return drawn(0.5, "left", comparison_id, document_hash)


def _comparison(row: Any) -> Comparison:
    return Comparison(
        id=row.id,
        step=row.step,
        first=Variant(**row.first),
        second=Variant(**row.second),
        created_by=row.created_by,
        created_at=row.created_at,
    )


def _answers(connection: Connection, step: str, variant: Variant) -> dict[str, Any]:
    """Return the last answer of a variant to each text."""
    a = AttemptRecord
    query = (
        select(a.run_id, a.document_id, a.document_hash, a.call_hash, a.answer_hash)
        .where(
            a.step == step,
            a.model == variant.model,
            a.prompt == variant.prompt,
            func.coalesce(a.template_hash, "") == variant.template,
            a.kind.in_(_UNBIASED),
            a.answer_hash.is_not(None),
        )
        .order_by(a.seq)
    )
    return {row.document_hash: row for row in connection.execute(query)}


def _replies(connection: Connection, calls: Iterable[str]) -> dict[str, str]:
    wanted = sorted(calls)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), 500):
        query = select(CallRecord.call_hash, CallRecord.reply).where(
            CallRecord.call_hash.in_(wanted[start : start + 500]),
            CallRecord.reply.is_not(None),
        )
        for row in connection.execute(query):
            found[row.call_hash] = reply_of(row.reply).text
    return found


def _outcomes(
    connection: Connection, step: str, runs: Iterable[str]
) -> dict[tuple[str, str], Any]:
    o = OutcomeRecord
    query = select(o.run_id, o.document_id, o.sensitivity, o.question).where(
        o.step == step, o.run_id.in_(sorted(runs))
    )
    return {(row.run_id, row.document_id): row for row in connection.execute(query)}


def _verdict_rows(connection: Connection, comparison_id: str) -> list[Any]:
    v = ComparisonVerdictRecord
    query = select(v.__table__).where(v.comparison == comparison_id).order_by(v.seq)
    return list(connection.execute(query))


def _standing(rows: Iterable[Any]) -> dict[str, Judged]:
    judged: dict[str, Judged] = {}
    for row in rows:
        if row.word == UNDONE:
            judged.pop(row.document_hash, None)
            continue
        judged[row.document_hash] = Judged(
            number=row.seq,
            document_hash=row.document_hash,
            word=row.word,
            reviewer=row.reviewer,
            judged_at=row.judged_at,
            request=row.request,
            answer=row.answer,
        )
    return judged


def _row(
    comparison: Comparison,
    answered: Answered,
    judgement: Judgement,
    *,
    undoes: int | None,
) -> dict[str, Any]:
    answer_hash = None
    if judgement.answer is not None:
        answer_hash = canonical_hash(judgement.answer)
    return {
        "comparison": comparison.id,
        "run_id": answered.run_id,
        "document_id": answered.document_id,
        "document_hash": answered.document_hash,
        "step": comparison.step,
        "word": judgement.word,
        "is_swapped": judgement.is_swapped,
        "first_hash": answered.first_hash,
        "second_hash": answered.second_hash,
        "answer": judgement.answer,
        "answer_hash": answer_hash,
        "reviewer": judgement.by,
        "judged_at": time.time(),
        "request": judgement.request,
        "undoes": undoes,
    }


def _add(connection: Connection, row: Mapping[str, Any]) -> None:
    table = ComparisonVerdictRecord
    adding = insert(table).values(row).returning(table.__table__)
    stored = connection.execute(adding).one()
    seal_row(connection, "comparison", stored.seq, verdict_record(stored))
