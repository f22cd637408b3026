"""Wrong answers of a measurement, field by field: what was expected, and what was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tierwise.records import Outcome
from tierwise.steps.correctness import Rubric, is_equivalent
from tierwise.steps.examples import Example
from tierwise.steps.row_faults import Reading, observe
from tierwise.steps.step import Step


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a golden row that an answer got wrong."""

    field: str
    expected: Any
    given: Any


@dataclass(frozen=True, slots=True)
class WrongAnswer:
    """A wrong answer to one example, or a missing one: then `reason` says why."""

    id: str
    differences: tuple[Difference, ...] = ()
    reason: str = ""


def wrong_answer(
    step: Step, example: Example, outcome: Outcome, *, unscored: bool = False
) -> WrongAnswer:
    """Return the fields in which an answer is wrong, as far as the step's measure shows them."""
    if outcome.status != "accepted":
        return WrongAnswer(example.id, reason=f"no answer: {outcome.reason}")
    if unscored:
        return WrongAnswer(example.id, reason="the judge's verdict could not be read")
    measure = step.correct
    judged = isinstance(measure, Rubric)
    if isinstance(measure, Rubric):
        measure = measure.needs
    if measure is None:
        return WrongAnswer(example.id, reason="the judge found it wrong")
    result, reading = observe(measure, outcome.value, example.expected)
    # what the rubric needs is there, so it was the judge that refused
    if judged and result is True:
        return WrongAnswer(example.id, reason="the judge found it wrong")
    # a row may have names of its own, such as `at_most`, that no answer has
    differences = _same_names(reading, outcome.value, example.expected)
    if not differences:
        differences = _other_names(reading, outcome.value, example.expected)
    return WrongAnswer(example.id, differences)


def _same_names(
    reading: Reading, given: Mapping[str, Any], expected: Mapping[str, Any]
) -> tuple[Difference, ...]:
    """Return the differing fields that the row and the answer have under one name."""
    compared = set(reading.given) & set(reading.expected)
    # A measure stops at the first difference, but one that went through the whole row compares all.
    if compared and set(expected) <= set(reading.expected):
        compared |= set(expected) & set(given)
    return tuple(
        Difference(name, value, given.get(name))
        for name, value in expected.items()
        if name in compared and not is_equivalent(given.get(name), value)
    )


def _other_names(
    reading: Reading, given: Mapping[str, Any], expected: Mapping[str, Any]
) -> tuple[Difference, ...]:
    """Return what the measure read of the row, each with all that it read of the answer."""
    answer: Any = {name: given[name] for name in reading.given if name in given}
    if len(answer) == 1:
        [answer] = answer.values()
    return tuple(
        Difference(name, expected[name], answer)
        for name in reading.expected
        if name in expected
    )
