"""The space of all combinations that conditions can tell apart, and any point in it as features.

A condition on tokens from 500 and one up to 2000 distinguish three classes of documents: under 500,
500 to 2000, and more. So one document of each class stands for all. Each property that a condition
names is a dimension, whose classes are the bits of a whole number.
"""

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
_MAX_WORDS = 4  # classes that are named before the rest is counted


@dataclass(frozen=True)
class Dimension:
    """One property that conditions look at, with one value for each class of values.

    Values of one class are those that no condition distinguishes. Ranges are in order; a missing
    value (None) comes last.
    """

    name: str
    values: tuple[Any, ...]
    words: tuple[str, ...]

    @cached_property
    def full(self) -> int:
        """The bits of all classes."""
        return _bits_below(len(self.values))

    @cached_property
    def _positions(self) -> dict[Hashable, int]:
        """The position of each value, which is the number of its bit."""
        return {value: position for position, value in enumerate(self.values)}

    @cached_property
    def _numbers(self) -> list[float]:
        """The first number of each range; the class of a missing value has none."""
        return [value for value in self.values if value is not None]

    def bits_of(self, values: Iterable[Hashable]) -> int:
        """Return the bits of these values."""
        bits = 0
        for value in values:
            bits |= 1 << self._positions[value]
        return bits

    def bits_between(self, least: float | None, most: float | None) -> int:
        """Return the bits of the classes from `least` to `most`, both included."""
        # Every limit of a condition begins or ends a class, so no class lies across one.
        first = 0
        if least is not None:
            first = bisect_left(self._numbers, least)
        end = len(self._numbers)
        if most is not None:
            end = bisect_right(self._numbers, most)
        # from `first` to before `end`; the bit of a missing value comes after all of them
        return _bits_below(end) - _bits_below(first)

    def describe(self, bits: int) -> str:
        """Return words for some classes, such as `sensitivity confidential or restricted`."""
        words: list[str] = []
        for position, word in enumerate(self.words):
            is_set = (bits >> position) & 1
            if is_set:
                words.append(word)
        if len(words) > _MAX_WORDS:
            shown = words[: _MAX_WORDS - 1]
            words = [*shown, f"{len(words) - len(shown)} more"]
        return f"{self.name} {' or '.join(words)}"


def _bits_below(position: int) -> int:
    """Return the bits of the classes before a position."""
    return (1 << position) - 1


class Space:
    """All combinations that the conditions of one step can tell apart.

    Dimensions are taken as independent. Where they are not (an outcome as a whole and one of its
    fields), a box may hold combinations that no document has, never fewer than there are.
    """

    def __init__(self, step: str, conditions: Iterable[Condition]) -> None:
        self.step = step
        dimensions = _dimensions(list(conditions))
        self.dimensions = {dimension.name: dimension for dimension in dimensions}

    @cached_property
    def full(self) -> Box:
        """All bits of each dimension."""
        return {name: dimension.full for name, dimension in self.dimensions.items()}

    @property
    def size(self) -> int:
        """The number of combinations."""
        return prod(len(dimension.values) for dimension in self.dimensions.values())

    def box(self, condition: Condition) -> Box:
        """Return the combinations that a condition matches, its step left aside."""
        # a box leaves out the dimensions of which it accepts all
        return {
            name: bits
            for name, bits in self._bits(condition)
            if bits != self.full[name]
        }

    def _bits(self, condition: Condition) -> Iterator[tuple[str, int]]:
        """Yield each dimension that a condition names, with the bits that it accepts."""
        dimensions = self.dimensions
        if condition.sensitivity_min or condition.sensitivity_max:
            lowest = condition.sensitivity_min or SENSITIVITIES[0]
            highest = condition.sensitivity_max or SENSITIVITIES[-1]
            first = SENSITIVITIES.index(lowest)
            last = SENSITIVITIES.index(highest)
            levels = SENSITIVITIES[first : last + 1]
            yield "sensitivity", dimensions["sensitivity"].bits_of(levels)
        least = condition.tokens_min
        most = condition.tokens_max
        if least is not None or most is not None:
            yield "tokens", dimensions["tokens"].bits_between(least, most)
        if condition.language is not None:
            yield "language", dimensions["language"].bits_of(condition.language)
        if condition.stakes is not None:
            yield "stakes", dimensions["stakes"].bits_of(condition.stakes)
        for name, values in condition.tags.items():
            yield TAG + name, dimensions[TAG + name].bits_of(values)
        for path, values in condition.outcomes.items():
            yield OUTCOME + path, dimensions[OUTCOME + path].bits_of(values)
        if condition.budget_used_min is not None:
            used = dimensions["budget used"]
            yield "budget used", used.bits_between(condition.budget_used_min, None)
        if condition.minutes_left_max is not None:
            minutes = dimensions["minutes left"]
            yield "minutes left", minutes.bits_between(None, condition.minutes_left_max)

    def points(self) -> Iterator[Features]:
        """Yield every combination, as features."""
        names = tuple(self.dimensions)
        all_values = [dimension.values for dimension in self.dimensions.values()]
        for values in product(*all_values):
            yield self._features(dict(zip(names, values, strict=True)))

    def point(self, box: Box) -> Features:
        """Return one combination in a box, as features: the lowest class of each dimension."""
        values: dict[str, Any] = {}
        for name, bits in box.items():
            lowest_bit = bits & -bits
            position = lowest_bit.bit_length() - 1
            values[name] = self.dimensions[name].values[position]
        return self._features(values)

    def describe(self, box: Box) -> str:
        """Return words for a box, such as `sensitivity confidential or restricted, language de`."""
        return ", ".join(
            self.dimensions[name].describe(bits) for name, bits in box.items()
        )

    def _features(self, values: Mapping[str, Any]) -> Features:
        return Features(
            step=self.step,
            tokens=values.get("tokens", 0),
            sensitivity=values.get("sensitivity", "restricted"),
            language=values.get("language"),
            stakes=values.get("stakes", "normal"),
            tags=_with_prefix(values, TAG),
            outcomes=_nested_outcomes(_with_prefix(values, OUTCOME)),
            budget_used=values.get("budget used", 0.0),
            minutes_left=values.get("minutes left"),
        )


def _with_prefix(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values of the dimensions with a prefix, by the rest of their name."""
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix) and value is not None
    }


def _nested_outcomes(values: Mapping[str, str]) -> dict[str, Any]:
    """Return `{"classify.label": "a"}` as the outcomes that a document carries."""
    whole: dict[str, Any] = {}
    fields: dict[str, dict[str, str]] = {}
    for path, value in values.items():
        step, _, name = path.partition(".")
        if name:
            fields.setdefault(step, {})[name] = value
        else:
            whole[step] = value
    # a whole outcome (a text) has no fields
    return {**fields, **whole}


def _dimensions(conditions: Sequence[Condition]) -> Iterator[Dimension]:
    """Yield a dimension for each property that a condition names."""
    if any(each.sensitivity_min or each.sensitivity_max for each in conditions):
        yield Dimension("sensitivity", SENSITIVITIES, SENSITIVITIES)
    # Each minimum begins a class, and so does the number after each maximum.
    minima = _known(each.tokens_min for each in conditions)
    maxima = _known(each.tokens_max for each in conditions)
    if minima or maxima:
        after_maxima = {most + 1 for most in maxima}
        yield _range_dimension("tokens", sorted({0} | minima | after_maxima))
    languages = _distinct(each.language for each in conditions)
    if languages:
        yield _word_dimension("language", languages)
    if any(each.stakes for each in conditions):
        yield Dimension("stakes", STAKES, STAKES)
    for name in _distinct(tuple(each.tags) for each in conditions):
        values = _distinct(each.tags.get(name) for each in conditions)
        yield _word_dimension(TAG + name, values)
    yield from _outcome_dimensions(conditions)
    budget_shares = _known(each.budget_used_min for each in conditions)
    if budget_shares:
        yield _range_dimension("budget used", sorted({0.0} | budget_shares))
    minutes = _known(each.minutes_left_max for each in conditions)
    if minutes:
        yield _minutes_dimension(sorted(minutes))


def _known(values: Iterable[float | None]) -> set[float]:
    known: set[float] = set()
    for value in values:
        if value is not None:
            known.add(value)
    return known


def _minutes_dimension(limits: Sequence[float]) -> Dimension:
    """Return a class up to each limit, one of more time, and one without a deadline."""
    last = limits[-1]
    words = [f"up to {minutes:g}" for minutes in limits]
    # Conditions have only maxima, so each class is stood for by its end, not by its start.
    values = (*limits, last + 1, None)
    words += [f"more than {last:g}", "without a deadline"]
    return Dimension("minutes left", values, tuple(words))


def _outcome_dimensions(conditions: Sequence[Condition]) -> Iterator[Dimension]:
    """Yield a dimension for each outcome, or field of one, that a condition names."""
    named: dict[str, list[str]] = {}
    for condition in conditions:
        for path, values_of_condition in condition.outcomes.items():
            named.setdefault(path, []).extend(values_of_condition)
    for path, values in named.items():
        texts = dict.fromkeys(values)
        # Conditions on fields of an outcome that is a text are compared with the whole text.
        if "." not in path:
            for other, field_values in named.items():
                if other.startswith(f"{path}."):
                    texts |= dict.fromkeys(field_values)
        yield _word_dimension(OUTCOME + path, list(texts))


def _distinct(groups: Iterable[Sequence[str] | None]) -> list[str]:
    """Return each value of the groups once, in order."""
    values: dict[str, None] = {}
    for group in groups:
        values |= dict.fromkeys(group or ())
    return list(values)


def _word_dimension(name: str, values: Sequence[str]) -> Dimension:
    """Return a dimension of the named values, any other one, and none."""
    another = "another"
    while another in values:  # until it differs from all of them
        another += "'"
    classes = (*values, another, None)
    words = (*values, "any other", "unknown")
    return Dimension(name, classes, words)


def _range_dimension(name: str, starts: Sequence[float]) -> Dimension:
    """Return a dimension of numbers, with a class from each start to the next."""
    words: list[str] = []
    for start, end in pairwise(starts):
        words.append(f"{start:g} to under {end:g}")
    words.append(f"{starts[-1]:g} or more")
    return Dimension(name, tuple(starts), tuple(words))
