"""How many more labels would certify a floor, and for how many documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from tierwise.evidence.certify.candidates import Chained, Foreseen, Plain, Unordered
from tierwise.evidence.certify.levels import Level
from tierwise.evidence.certify.thresholds import AtThreshold, log_wealth, p_value
from tierwise.policy.certificates import FLOORS

_MOST = 50  # times as many labels as there are now; more is no advice
_STEP = 1.02  # between two numbers of labels that are tried


@dataclass(frozen=True, slots=True)
class NextFloor:
    """The labels that would certify a floor, if further ones go like those so far."""

    floor: float
    more: int
    coverage: float  # share of the documents that would be certified

    @property
    def sentence(self) -> str:
        """The labels and what they would bring, in words."""
        share = f"for about {self.coverage:.0%} of the documents"
        if self.coverage == 1:
            share = "for all documents"
        labels = "1 more label" if self.more == 1 else f"{self.more} more labels"
        return f"about {labels} like these would show {self.floor:g} {share}"


def next_floor(
    candidate: Plain, golden_size: int, level: Level, *, above: float | None
) -> NextFloor | None:
    """Return the labels that would certify the next floor; None where no such number is near.

    That is the next one of FLOORS `above` the one that is shown, or the candidate's own floor where
    none is. `level` is that of the next look. Errors are expected at the rate of each threshold.
    """
    floor = candidate.floor
    if above is not None:
        higher = [each for each in FLOORS if each > above]
        floor = higher[0] if higher else None
    if floor is None or not golden_size:
        return None
    points, passes = _points(candidate, floor, level.each)
    size = golden_size
    while size < golden_size * _MOST:
        size = max(size + 1, math.ceil(size * _STEP))
        times = size / golden_size
        shown = [point for point in points if passes(_grown(point, times))]
        if shown:
            widest = max(shown, key=lambda point: point.n)
            coverage = 1.0
            if widest.threshold is not None:
                coverage = widest.n / golden_size
            return NextFloor(floor, more=size - golden_size, coverage=coverage)
    return None


def _points(
    candidate: Plain, floor: float, level: float
) -> tuple[Sequence[AtThreshold], Callable[[AtThreshold], bool]]:
    """Return what is kept at each threshold, and the test that it has to pass."""
    plain = candidate.measurement
    everything = AtThreshold(None, plain.n, plain.errors)
    half = level / 2
    if isinstance(candidate, Foreseen):
        # one of two walks may have to pass it alone
        return candidate.tested, lambda point: p_value(point, floor) <= half
    if isinstance(candidate, Chained):
        points = [*candidate.tested, everything]
        return points, lambda point: p_value(point, floor) <= half
    if isinstance(candidate, Unordered):
        needed = -math.log(half)
        along = [*_along(candidate), everything]
        return along, lambda point: log_wealth(point.errors, point.n, floor) >= needed
    own = level * candidate.share
    return [everything], lambda point: p_value(point, floor) <= own


def _along(candidate: Unordered) -> list[AtThreshold]:
    """Return what is kept at each confidence, the highest first."""
    ranked = sorted(
        zip(candidate.confidences, candidate.right, strict=True),
        key=lambda pair: -pair[0],
    )
    points = []
    n = 0
    errors = 0
    for confidence, group in groupby(ranked, key=lambda pair: pair[0]):
        for _, is_right in group:
            n += 1
            errors += not is_right
        points.append(AtThreshold(confidence, n, errors))
    return points


def _grown(point: AtThreshold, times: float) -> AtThreshold:
    """Return a threshold's counts with this many times the labels, with errors at the same rate."""
    errors = math.ceil(point.errors * times)
    return AtThreshold(point.threshold, math.floor(point.n * times), errors)
