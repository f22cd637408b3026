"""Distinct answers of runs, and how many of them count. Read-only.

One observation is one distinct answer that decided an outcome: a text, a step, a model and a prompt,
known by the hash of the call. It counts once, however often it was reused: in a copy of the text, in
a retry, in another run. Everything that shows a pass rate counts with `tallies_of`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import BigInteger, and_, case, cast, func, null, select

from tierwise.ledger.database import is_sqlite
from tierwise.ledger.people.reviews import CURRENT
from tierwise.ledger.tables import AttemptRecord

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

DAY_S = 86_400
# An answer waits while its route sends it to a person who has not decided yet.
AnswerResult = Literal["passed", "failed", "waiting"]
ModelKey = tuple[str, str, str]  # step, tier, model


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an answer. `day` is when it was made: days since 1970, in UTC.

    `result` is the model's: passed where the outcome came from it. `step_result` is the step's, of
    the last answer that it got for a text; None where another answer followed.
    """

    step: str
    tier: str
    model: str
    day: int
    result: AnswerResult
    step_result: AnswerResult | None


@dataclass(frozen=True)
class RunAnswers:
    """The answers of one run, each with its key: equal keys are the same answer."""

    keys: array[int] = field(default_factory=lambda: array("q"))
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tally:
    """A number of distinct answers. `n` is the number of those with a result."""

    passed: int = 0
    failed: int = 0
    waiting: int = 0

    @property
    def n(self) -> int:
        """The number of answers that passed or failed."""
        return self.passed + self.failed

    @property
    def rate(self) -> float | None:
        """The share that passed; None without any."""
        return self.passed / self.n if self.n else None

    def plus(self, result: AnswerResult, number: int) -> Tally:
        """Return the tally with more answers of a result."""
        return replace(self, **{result: getattr(self, result) + number})

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.passed + other.passed,
            self.failed + other.failed,
            self.waiting + other.waiting,
        )


@dataclass(frozen=True)
class Tallies:
    """Distinct answers by step and day, and by step, tier and model."""

    by_day: Mapping[tuple[str, int], Tally]
    by_model: Mapping[ModelKey, Tally]

    @property
    def by_step(self) -> dict[str, Tally]:
        """Distinct answers by step."""
        found: dict[str, Tally] = {}
        for (step, _), tally in self.by_day.items():
            found[step] = found.get(step, Tally()) + tally
        return found


class DistinctAnswers:
    """Distinct answers of runs, which are added from the oldest one on.

    An answer that several outcomes rest on has the result of the newest one; one that waits there
    has the result that an older one has.
    """

    def __init__(self, before: DistinctAnswers | None = None) -> None:
        """Begin with a copy of others, which stay as they are."""
        self._found: dict[int, Answer] = dict(before._found) if before else {}
        self._counts: Counter[Answer] = Counter(before._counts if before else ())

    def add(self, run: RunAnswers) -> None:
        """Add the answers of a run that is newer than those before."""
        for key, answer in zip(run.keys, run.answers, strict=True):
            before = self._found.get(key)
            if before is not None:
                self._counts[before] -= 1
                answer = _newer(before, answer)  # noqa: PLW2901
            self._found[key] = answer
            self._counts[answer] += 1

    def tallies(self) -> Tallies:
        """Return their numbers."""
        by_day: dict[tuple[str, int], Tally] = {}
        by_model: dict[ModelKey, Tally] = {}
        for answer, number in self._counts.items():
            if not number:
                continue
            model = (answer.step, answer.tier, answer.model)
            by_model[model] = by_model.get(model, Tally()).plus(answer.result, number)
            if answer.step_result is not None:
                day = (answer.step, answer.day)
                tally = by_day.get(day, Tally())
                by_day[day] = tally.plus(answer.step_result, number)
        return Tallies(by_day, by_model)


def tallies_of(runs: Iterable[RunAnswers]) -> Tallies:
    """Return the numbers of distinct answers of runs, the oldest run first."""
    distinct = DistinctAnswers()
    for run in runs:
        distinct.add(run)
    return distinct.tallies()


def answers_of(connection: Connection, run_ids: Sequence[str]) -> dict[str, RunAnswers]:
    """Return the answers of runs, by run.

    Calls that ended in an error gave no answer, and those to judges and shadows decide nothing.
    """
    a = AttemptRecord
    newest_first = a.seq.desc()
    document = (a.run_id, a.document_id, a.step)
    # 1 is the last answer of the model, and the last one of the step.
    of_model = func.row_number().over(
        partition_by=(*document, a.model), order_by=newest_first
    )
    of_step = func.row_number().over(partition_by=document, order_by=newest_first)
    is_used = a.kind.not_in(("shadow", "judge"))
    answered = (
        select(
            *(a.run_id, a.document_id, a.step, a.tier, a.model, a.call_hash),
            day_of(connection, a.started_at).label("day"),
            of_model.label("of_model"),
            of_step.label("of_step"),
        )
        .where(a.run_id.in_(run_ids), is_used, a.error.is_(None))
        .subquery()
    )
    o = CURRENT.c
    same = and_(
        o.run_id == answered.c.run_id,
        o.document_id == answered.c.document_id,
        o.step == answered.c.step,
    )
    waits = and_(o.status == "deferred", o.cause == "review")
    accepted = o.status == "accepted"
    is_models = o.model == answered.c.model
    query = (
        select(
            *(answered.c[name] for name in ("run_id", "step", "tier", "model", "day")),
            answered.c.call_hash,
            _result(and_(accepted, is_models), and_(waits, is_models)).label("result"),
            case(
                (answered.c.of_step > 1, null()),
                # An answer that a person edited was not accepted: such outcomes have no model.
                else_=_result(and_(accepted, o.model.is_not(None)), waits),
            ).label("step_result"),
        )
        .join(CURRENT, same)
        .where(answered.c.of_model == 1, o.run_id.in_(run_ids))
    )
    found: dict[str, RunAnswers] = {run_id: RunAnswers() for run_id in run_ids}
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        of_run = found[row[0]]
        of_run.keys.append(hash((row[1], row[3], row[5])))
        of_run.answers.append(
            _answer(row[1], row[2], row[3], int(row[4]), row[6], row[7])
        )
    return found


def day_of(connection: Connection, at: Any) -> ColumnElement[int]:
    """Select the number of days since 1970, in UTC."""
    days = at / DAY_S
    # PostgreSQL rounds where SQLite cuts off, and SQLite may come without `floor`.
    return cast(days if is_sqlite(connection) else func.floor(days), BigInteger)


def _result(
    passed: ColumnElement[bool], waits: ColumnElement[bool]
) -> ColumnElement[str]:
    return case((passed, "passed"), (waits, "waiting"), else_="failed")


def _newer(before: Answer, answer: Answer) -> Answer:
    """Return what two outcomes say about the same answer, the older one first."""
    result = before.result if answer.result == "waiting" else answer.result
    step_result = answer.step_result
    if step_result is None or (
        step_result == "waiting" and before.step_result is not None
    ):
        step_result = before.step_result
    day = min(before.day, answer.day)
    return replace(answer, day=day, result=result, step_result=step_result)


@cache
def _answer(
    step: str,
    tier: str,
    model: str,
    day: int,
    result: AnswerResult,
    step_result: AnswerResult | None,
) -> Answer:
    """Return one object for all equal answers, as there may be a million."""
    return Answer(step, tier, model, day, result, step_result)
