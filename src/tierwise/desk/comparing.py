"""Two variants of a step side by side: what is asked, and what the verdicts show."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tierwise.desk.desk import Desk
from tierwise.errors import Misuse
from tierwise.ledger.people.comparisons import Answered, Better, Judged, Variant
from tierwise.review.queue import fitting_answer

# The differences that a result is tested against: shares of all documents.
_MARGINS = tuple(step / 200 for step in range(1, 101))
_ALPHA = 0.05
_VARIANTS_S = 300.0  # how long what can be compared is kept


@dataclass(frozen=True, slots=True)
class Result:
    """What verdicts show so far: of `n` documents, in the order that chance drew.

    `lost` counts those where the first variant alone is right, `gained` those where the second
    alone is. `at_most_worse` is the smallest share by which the second is worse, at 95 %; None
    where nothing is shown.
    """

    n: int
    lost: int
    gained: int
    differing: int  # of the n, those with different answers
    at_most_worse: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """One document with both answers as values; None for one that does not fit the step."""

    answered: Answered
    first: Any
    second: Any

    @property
    def is_same(self) -> bool:
        """True if the answers are equal, so that no person is needed."""
        return self.first is not None and self.first == self.second


def pair_of(answered: Answered, schema: Mapping[str, Any], step: str) -> Pair:
    """Return the answers of a document as values."""
    return Pair(
        answered,
        _value(answered.first, schema, step),
        _value(answered.second, schema, step),
    )


def result_of(pairs: Sequence[Pair], verdicts: Mapping[str, Judged]) -> Result:
    """Return what the verdicts show: of the documents up to the first without one.

    Documents with equal answers need no verdict, and count as equal.
    """
    n = lost = gained = differing = 0
    for pair in pairs:
        if not pair.is_same:
            judged = verdicts.get(pair.answered.document_hash)
            # Leaving one out would let people choose what counts.
            if judged is None:
                break
            differing += 1
            lost += judged.word == "first"
            gained += judged.word == "second"
        n += 1
    return Result(n, lost, gained, differing, at_most_worse(lost, gained, n))


def at_most_worse(lost: int, gained: int, n: int) -> float | None:
    """Return the smallest share that the exact paired test rules out; None without any."""
    # SciPy is loaded only once there is something to test.
    from tierwise.evidence.certify.paired_test import paired_p_value

    if n == 0:
        return None
    # The p-value falls with the margin, so bisection finds the first that is shown.
    low, high = 0, len(_MARGINS)
    while low < high:
        middle = (low + high) // 2
        if paired_p_value(lost, gained, n, _MARGINS[middle]) <= _ALPHA:
            high = middle
        else:
            low = middle + 1
    return _MARGINS[low] if low < len(_MARGINS) else None


def word_of(side: str, *, is_swapped: bool) -> Better:
    """Return the verdict behind a side of the page. Raises Misuse for another word."""
    if side in ("both", "neither"):
        return side  # type: ignore[return-value] # checked
    if side not in ("left", "right"):
        raise Misuse("choose left, right, both or neither")
    return "second" if (side == "left") == is_swapped else "first"


def _value(text: str | None, schema: Mapping[str, Any], step: str) -> Any:
    if text is None:
        return None
    try:
        return fitting_answer(schema, step, text, "the answer")
    except Misuse:
        return None


def shown(value: Any, text: str | None) -> str:
    """Return an answer as a page shows it."""
    if value is not None:
        return json.dumps(value, indent=2, ensure_ascii=False)
    return text or ""


def changed_prompts(variants: Iterable[Variant]) -> list[str]:
    """Return the prompts that have several texts under one version, such as `classify v2`."""
    templates: dict[str, set[str]] = defaultdict(set)
    for variant in variants:
        templates[variant.prompt].add(variant.template)
    return sorted(name for name, hashes in templates.items() if len(hashes) > 1)


def variants_of(desk: Desk) -> Mapping[str, list[tuple[Variant, int]]]:
    """Return what can be compared: read from all attempts, and new only with another prompt."""
    return desk.kept.get("variants", desk.ledger.comparisons.variants, _VARIANTS_S)
