"""The space of all combinations that conditions can tell apart, and any point in it as real features."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import Any, get_args

from tierwise.lint.condition_boxes import Box
from tierwise.policy.rules import Condition, Features
from tierwise.records import SENSITIVITIES
from tierwise.steps.step import Stakes

STAKES: tuple[Stakes, ...] = get_args(Stakes)
TAG = "tag "
OUTCOME = "outcome "


@dataclass(frozen=True)
class Dimension:
    """One thing that conditions look at: one value for each class of values that none of them tells apart.

    Ranges are in order; a value that is missing (None) comes last.
    """

    name: str
    values: tuple[Any, ...]
    words: tuple[str, ...]

    @cached_property
    def full(self) -> int:
        """The bits of all classes."""
        return (1 << len(self.values)) - 1

    @cached_property
    def _place(self) -> dict[Hashable, int]:
        return {value: i for i, value in enumerate(self.values)}

    @cached_property
    def _numbers(self) -> list[float]:
        return [value for value in self.values if value is not None]

    def of(self, values: Iterable[Hashable]) -> int:
        """The bits of these values."""
        return sum(1 << self._place[value] for value in set(values))

    def between(self, least: float | None, most: float | None) -> int:
        """The bits of the classes from `least` to `most`, both included."""
        first = 0 if least is None else bisect_left(self._numbers, least)
        last = len(self._numbers) if most is None else bisect_right(self._numbers, most)
        return (1 << last) - (1 << first)

    def told(self, bits: int) -> str:
        """Words for some classes, such as `sensitivity confidential or restricted`."""
        words = [word for i, word in enumerate(self.words) if bits >> i & 1]
        shown = words if len(words) <= 4 else [*words[:3], f"{len(words) - 3} more"]
        return f"{self.name} {' or '.join(shown)}"


class Space:
    """What the conditions that concern one step can tell apart. What none of them names is left out.

    Dimensions are taken as free of each other. Where they are not (an outcome as a whole and one of its
    fields), a box may hold combinations that no document has, never fewer than there are.
    """

    def __init__(self, step: str, conditions: Iterable[Condition]) -> None:
        self.step = step
        self.dimensions = {dimension.name: dimension for dimension in _dimensions(list(conditions))}

    @cached_property
    def full(self) -> Box:
        """All bits of each dimension."""
        return {name: dimension.full for name, dimension in self.dimensions.items()}

    @property
    def size(self) -> int:
        """How many combinations there are."""
        return prod(len(dimension.values) for dimension in self.dimensions.values())

    def box(self, condition: Condition) -> Box:
        """What a condition holds for, its step apart."""
        return {name: bits for name, bits in self._bits(condition) if bits != self.full[name]}

    def _bits(self, c: Condition) -> Iterator[tuple[str, int]]:
        at = self.dimensions
        if c.sensitivity_min or c.sensitivity_max:
            first = SENSITIVITIES.index(c.sensitivity_min or SENSITIVITIES[0])
            last = SENSITIVITIES.index(c.sensitivity_max or SENSITIVITIES[-1])
            yield "sensitivity", at["sensitivity"].of(SENSITIVITIES[first : last + 1])
        if c.tokens_min is not None or c.tokens_max is not None:
            yield "tokens", at["tokens"].between(c.tokens_min, c.tokens_max)
        if c.language is not None:
            yield "language", at["language"].of(c.language)
        if c.stakes is not None:
            yield "stakes", at["stakes"].of(c.stakes)
        for name, values in c.tags.items():
            yield TAG + name, at[TAG + name].of(values)
        for path, values in c.outcomes.items():
            yield OUTCOME + path, at[OUTCOME + path].of(values)
        if c.budget_used_min is not None:
            yield "budget used", at["budget used"].between(c.budget_used_min, None)
        if c.minutes_left_max is not None:
            yield "minutes left", at["minutes left"].between(None, c.minutes_left_max)

    def points(self) -> Iterator[Features]:
        """Every combination, as features."""
        names = tuple(self.dimensions)
        for values in product(*(dimension.values for dimension in self.dimensions.values())):
            yield self._features(dict(zip(names, values, strict=True)))

    def point(self, box: Box) -> Features:
        """One combination in a box, as features."""
        lowest = {name: (bits & -bits).bit_length() - 1 for name, bits in box.items()}
        return self._features({name: self.dimensions[name].values[i] for name, i in lowest.items()})

    def told(self, box: Box) -> str:
        """Words for a box, such as `sensitivity confidential or restricted, language de`."""
        return ", ".join(self.dimensions[name].told(bits) for name, bits in box.items())

    def _features(self, values: Mapping[str, Any]) -> Features:
        tags = {
            name.removeprefix(TAG): v
            for name, v in values.items()
            if name.startswith(TAG) and v is not None
        }
        found = {
            n.removeprefix(OUTCOME): v
            for n, v in values.items()
            if n.startswith(OUTCOME) and v is not None
        }
        return Features(
            step=self.step,
            tokens=values.get("tokens", 0),
            sensitivity=values.get("sensitivity", "restricted"),
            language=values.get("language"),
            stakes=values.get("stakes", "normal"),
            tags=tags,
            outcomes=_outcomes(found),
            budget_used=values.get("budget used", 0.0),
            minutes_left=values.get("minutes left"),
        )


def _outcomes(found: Mapping[str, str]) -> dict[str, Any]:
    """`{"classify.label": "a"}` as the outcomes that a document carries."""
    whole = {path: value for path, value in found.items() if "." not in path}
    fields: dict[str, dict[str, str]] = {}
    for path, value in found.items():
        step, _, name = path.partition(".")
        if name:
            fields.setdefault(step, {})[name] = value
    return {**fields, **whole}


def _dimensions(conditions: Sequence[Condition]) -> Iterator[Dimension]:
    if any(c.sensitivity_min or c.sensitivity_max for c in conditions):
        yield Dimension("sensitivity", SENSITIVITIES, SENSITIVITIES)
    least = {c.tokens_min for c in conditions if c.tokens_min is not None}
    beyond = {c.tokens_max + 1 for c in conditions if c.tokens_max is not None}
    if least or beyond:
        yield _ranges("tokens", sorted({0} | least | beyond))
    if languages := _named(c.language for c in conditions):
        yield _words("language", languages)
    if any(c.stakes for c in conditions):
        yield Dimension("stakes", STAKES, STAKES)
    for name in dict.fromkeys(name for c in conditions for name in c.tags):
        yield _words(TAG + name, _named(c.tags.get(name) for c in conditions))
    yield from _of_outcomes(conditions)
    if used := {c.budget_used_min for c in conditions if c.budget_used_min is not None}:
        yield _ranges("budget used", sorted({0.0} | used))
    if minutes := sorted(
        {c.minutes_left_max for c in conditions if c.minutes_left_max is not None}
    ):
        words = (
            *(f"up to {m:g}" for m in minutes),
            f"more than {minutes[-1]:g}",
            "without a deadline",
        )
        yield Dimension("minutes left", (*minutes, minutes[-1] + 1, None), words)


def _of_outcomes(conditions: Sequence[Condition]) -> Iterator[Dimension]:
    named: dict[str, list[str]] = {}
    for c in conditions:
        for path, some in c.outcomes.items():
            named.setdefault(path, []).extend(some)
    for path, values in named.items():
        # a text as the whole outcome is what each of its fields is compared with, too
        of_fields = [v for other, vs in named.items() if other.startswith(f"{path}.") for v in vs]
        yield _words(
            OUTCOME + path, list(dict.fromkeys([*values, *(of_fields if "." not in path else [])]))
        )


def _named(groups: Iterable[Sequence[str] | None]) -> list[str]:
    """Each value that is named, once."""
    return list(dict.fromkeys(value for group in groups for value in group or ()))


def _words(name: str, values: Sequence[str]) -> Dimension:
    """The named values, any other one, and none."""
    another = "another"
    while another in values:
        another += "'"
    return Dimension(name, (*values, another, None), (*values, "any other", "unknown"))


def _ranges(name: str, starts: Sequence[float]) -> Dimension:
    words = [f"{a:g} to under {b:g}" for a, b in pairwise(starts)]
    return Dimension(name, tuple(starts), (*words, f"{starts[-1]:g} or more"))
