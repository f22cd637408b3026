"""How many documents of a run may wait before the run counts as failed: `50 %`, `0 %`, `never`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator

from tierwise.records import Cause

DEFAULT = "50 %"
NEVER = 100.0  # more than all documents never wait
# A route that asks for a person's review sends documents there by design.
_BY_DESIGN: frozenset[Cause | None] = frozenset(("review",))
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")


def percent_waiting(value: Any) -> float:
    """Return a setting such as `50 %` as a number from 0 to 100. Raises ValueError."""
    text = str(value).strip()
    if text == "never":
        return NEVER
    match = _PERCENT.fullmatch(text)
    if match is None or float(match[1]) >= NEVER:
        raise ValueError(
            "write a share of the documents below 100, such as `50 %` or `0 %`, or `never`"
        )
    return float(match[1])


FailWhenWaiting = Annotated[
    float, BeforeValidator(percent_waiting, json_schema_input_type=str)
]


def counts_as_waiting(causes: Iterable[Cause | None]) -> bool:
    """Return True if a document with these causes of deferrals waits, and not by design."""
    return any(cause not in _BY_DESIGN for cause in causes)


def too_many_wait(waiting: int, documents: int, percent: float) -> bool:
    """Return True if more than `percent` of a run's documents wait."""
    return 100 * waiting > percent * documents
