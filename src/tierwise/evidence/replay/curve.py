"""The cost-quality curve of a router over recorded outcomes, and the measures of the curve.

The measures are those of RouteLLM (Ong et al. 2024). The performance gap recovered (PGR) is 0 at
the quality of always the cheapest model and 1 at that of always the strongest. APGR is its mean
over the share of calls that the strongest gets, CPT(x) the least such share that recovers x of the
gap. A call is not a dollar: a router that sends the long items to the strongest model makes few
strong calls, but expensive ones. So the share of the USD is measured too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy import intp
    from numpy.typing import NDArray

    from tierwise.evidence.replay.outcomes import Floats, OutcomeTable

    Places = NDArray[intp]

DECIMALS = 6  # of a floor: one read from the curve's file decides as it did here
_MOST_FLOORS = 1000
_TOLERANCE = 1e-12  # of sums of floating-point numbers


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The quality and cost of one choice of models for some items.

    `strong_share` is the share of the items that the strongest model answers.
    """

    floor: float | None  # None where the choice was made without one
    strong_share: float
    quality: float  # mean score
    cost_usd: float  # of all items


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveMeasures:
    """Shares from 0 to 1; None where the strongest model is no better than the cheapest.

    `usd50` is a share of the extra cost of always the strongest over always the cheapest.
    """

    cpt50: float | None  # least share of strong calls that recovers half of the gap
    cpt80: float | None
    apgr: float | None  # may be above 1
    usd50: float | None  # least share of the extra cost that recovers half of the gap


NO_GAP = CurveMeasures(cpt50=None, cpt80=None, apgr=None, usd50=None)
# expected of a random router
RANDOM = CurveMeasures(cpt50=0.5, cpt80=0.8, apgr=0.5, usd50=0.5)


def choose(quality: Floats, floor: float) -> Places:
    """Return the place (items,) of the first model, cheapest first, that reaches the floor.

    The last model where none does.
    """
    reaches_floor = quality >= floor
    reaches_floor[:, -1] = True
    places: Places = reaches_floor.argmax(axis=1)  # the first True
    return places


def sweep(quality: Floats, outcomes: OutcomeTable) -> tuple[CurvePoint, ...]:
    """Return the points from always the cheapest to always the strongest model, at most 1,001.

    Each is for a floor at which decisions change. `quality` (items, candidates) is the router's
    estimate; the candidates are the first of the outcomes' models.
    """
    import numpy

    strongest = quality.shape[1] - 1
    # decisions change at the estimates of all but the last, which is chosen in any case
    values = numpy.sort(quality[:, :-1], axis=None)
    if len(values) > _MOST_FLOORS:
        evenly = numpy.linspace(0, len(values) - 1, _MOST_FLOORS).astype(int)
        values = values[evenly]
    # a floor that no estimate reaches: always the strongest model
    above_all = float(quality.max()) + 10**-DECIMALS
    floors = (*numpy.unique(values).tolist(), above_all)
    return tuple(
        point(outcomes, choose(quality, floor), strongest, floor) for floor in floors
    )


def point(
    outcomes: OutcomeTable, chosen: Places, strongest: int, floor: float | None = None
) -> CurvePoint:
    """Return the quality and cost of answering each item by the model at its place in `chosen`."""
    import numpy

    every_item = numpy.arange(len(outcomes))
    if floor is not None:
        floor = round(floor, DECIMALS)
    return CurvePoint(
        floor=floor,
        strong_share=float((chosen == strongest).mean()),
        quality=float(outcomes.scores[every_item, chosen].mean()),
        cost_usd=float(outcomes.costs[every_item, chosen].sum()),
    )


def measure(points: Sequence[CurvePoint]) -> CurveMeasures:
    """Return the measures of a curve.

    Between two floors the items that differ go in random order, which is a straight line.
    """
    first = points[0]
    last = points[-1]
    gap = last.quality - first.quality
    extra = last.cost_usd - first.cost_usd
    if gap <= 0:
        return NO_GAP
    calls = [point.strong_share for point in points]
    recovered = [(point.quality - first.quality) / gap for point in points]
    usd = [0.0] * len(points)
    if extra > 0:
        usd = [(point.cost_usd - first.cost_usd) / extra for point in points]
    return CurveMeasures(
        cpt50=_share_for(0.5, calls, recovered),
        cpt80=_share_for(0.8, calls, recovered),
        apgr=_area(calls, recovered),
        usd50=_share_for(0.5, usd, recovered),
    )


def _area(shares: Sequence[float], recovered: Sequence[float]) -> float:
    """Return the area under a curve, by trapezia."""
    areas = []
    points = list(zip(shares, recovered, strict=True))
    for (left, low), (right, high) in pairwise(points):
        width = right - left
        height = (low + high) / 2
        areas.append(width * height)
    return sum(areas)


def _share_for(
    wanted: float, shares: Sequence[float], recovered: Sequence[float]
) -> float:
    """Return the share at which a curve first recovers `wanted`, by linear interpolation.

    The curve begins at 0 and ends at 1.
    """
    # never place 0, where `recovered` is 0 and `wanted` is more
    place = _first_at_least(wanted, recovered)
    left = shares[place - 1]
    right = shares[place]
    low = recovered[place - 1]
    high = recovered[place]
    return left + (right - left) * (wanted - low) / (high - low)


def point_for(points: Sequence[CurvePoint], recovered: float) -> CurvePoint:
    """Return the first point of a curve that recovers this share of the gap."""
    qualities = [point.quality for point in points]
    gap = qualities[-1] - qualities[0]
    wanted = qualities[0] + recovered * gap
    return points[_first_at_least(wanted, qualities)]


def _first_at_least(wanted: float, values: Sequence[float]) -> int:
    """Return the place of the first value that reaches `wanted`; the last place where none does."""
    for place, value in enumerate(values):
        if value >= wanted - _TOLERANCE:
            return place
    return len(values) - 1


def best_single(outcomes: OutcomeTable) -> int:
    """Return the place of the model with the best mean score, the cheapest among equals."""
    # models are in the order of their cost, and argmax takes the first of equals
    mean_scores = outcomes.scores.mean(axis=0)
    return int(mean_scores.argmax())


def oracle(outcomes: OutcomeTable) -> Places:
    """Return the place (items,) of the cheapest among the best models for each item."""
    import numpy

    best_scores = outcomes.scores.max(axis=1, keepdims=True)
    is_best = outcomes.scores == best_scores
    costs_of_best = numpy.where(is_best, outcomes.costs, numpy.inf)
    places: Places = costs_of_best.argmin(axis=1)
    return places


def true_quality(outcomes: OutcomeTable, candidates: int) -> Floats:
    """Return the quality that an oracle would estimate: scores relative to the strongest's."""
    scores = outcomes.scores[:, :candidates]
    of_strongest = scores[:, [-1]]  # the last candidate
    return 1 + scores - of_strongest
