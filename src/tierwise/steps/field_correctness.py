"""Whether one field of an output is right, by the measure of the whole output."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tierwise.errors import ConfigError, Misuse, describe_exception
from tierwise.steps.correctness import Rubric
from tierwise.steps.examples import Example
from tierwise.steps.step import Step


def is_field_right(
    step: Step, field: str, value: Any, expected: Mapping[str, Any]
) -> bool:
    """Return True if a value of a field is right: all other fields are taken as expected.

    So any measure that is true of the expected fields serves, and no second one is needed.
    """
    if step.correct is None:
        return False
    return bool(step.correct({**expected, field: value}, expected))


def check_field_measure(
    step: Step, examples: Sequence[Example], fields: Collection[str]
) -> None:
    """Raise Misuse or ConfigError where the step's measure says nothing of single fields."""
    if step.correct is None or isinstance(step.correct, Rubric):
        raise Misuse(
            f"{step.name} cannot be measured by field: give step(…, correct=same_fields()), "
            "which compares fields; a rubric is about whole answers"
        )
    for example in examples:
        try:
            takes_expected = step.correct(example.expected, example.expected)
        except Exception as error:  # noqa: BLE001 - a measure is the project's code
            raised = describe_exception(error)
            raise ConfigError(
                f"the measure of {step.name} raised {raised} on the expected fields of "
                f"'{example.id}'; by field, it must take them for a right answer"
            ) from None
        if not takes_expected:
            raise ConfigError(
                f"the measure of {step.name} does not take the expected fields of "
                f"'{example.id}' for a right answer, so it says nothing of single fields; "
                "use correct=same_fields(), or write the row as an answer of the step"
            )
    for field in fields:
        if not any(_looks_at(step, field, example) for example in examples):
            raise Misuse(
                f"no golden row says what is right in {field}, or the measure of {step.name} "
                "does not look at it; add the field to the rows' `expected`"
            )


def _looks_at(step: Step, field: str, example: Example) -> bool:
    """Return True if another value of a field would be wrong in this example."""
    if field not in example.expected:
        return False
    others = (None, "another value than any row expects")
    return any(
        not is_field_right(step, field, value, example.expected) for value in others
    )
