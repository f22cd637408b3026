"""What a right answer is, for golden sets: functions of an output and the expected fields of an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierwise.checks import squeezed
from tierwise.steps import Correct


def same(*fields: str) -> Correct:
    """Right when these fields equal the expected ones, but for white space, case and kinds of quotes."""

    def correct(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        return all(squeezed(str(output.get(name))) == squeezed(str(expected.get(name))) for name in fields)

    return correct


def mentions(field: str) -> Correct:
    """Right when a text has every `must_mention` of the example and no `must_not`, whatever their case.

    Necessary, not sufficient: a text can mention all and still mislead, so this alone is thin evidence.
    """

    def correct(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        text = squeezed(str(output.get(field)))
        wanted, forbidden = expected.get("must_mention", ()), expected.get("must_not", ())
        return all(squeezed(w) in text for w in wanted) and not any(squeezed(f) in text for f in forbidden)

    return correct
