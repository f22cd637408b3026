"""The router over recorded outcomes: a sweep of the floor, the measures of the curve, and what to hold beside it.

The measures are those of RouteLLM (Ong et al. 2024): the performance gap recovered (PGR) is 0 at the quality
of always the cheapest model and 1 at that of always the strongest. APGR is its mean over the share of calls
that the strongest gets, CPT(x) the least such share that recovers x of the gap. A call is not a dollar: a
router that sends the long items up makes few strong calls, dear ones, so the share of the USD stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy import intp
    from numpy.typing import NDArray

    from tierwise.evidence.replay.outcomes import Floats, Outcomes

    Places = NDArray[intp]

DECIMALS = 6  # of a floor: one read from the curve's file decides as it did here
_MOST_FLOORS = 1000


@dataclass(frozen=True, slots=True)
class Point:
    """What a floor gives on some items. `strong_share` is the share that the strongest model answers."""

    floor: float | None  # None where none was used
    strong_share: float
    quality: float  # mean score
    cost_usd: float  # of all items


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Shares from 0 to 1. Each is None where the strongest model is no better than the cheapest: there is no gap."""

    cpt50: float | None  # of the calls, that the strongest must get to recover half of the gap
    cpt80: float | None
    apgr: float | None  # may be above 1
    usd50: (
        float | None
    )  # of what always the strongest costs more than always the cheapest, for half of the gap


NO_GAP = Measures(cpt50=None, cpt80=None, apgr=None, usd50=None)
RANDOM = Measures(cpt50=0.5, cpt80=0.8, apgr=0.5, usd50=0.5)  # what chance gives in expectation


def choose(quality: Floats, floor: float) -> Places:
    """Place (items,) of the first model, cheapest first, whose quality reaches the floor; else of the last one."""
    reached = quality >= floor
    reached[:, -1] = True
    places: Places = reached.argmax(axis=1)
    return places


def sweep(quality: Floats, outcomes: Outcomes) -> tuple[Point, ...]:
    """From always the cheapest to always the strongest: the floors at which decisions change, at most 1,001.

    `quality` (items, candidates) is what the router believes; the candidates are the first of the outcomes' models.
    """
    import numpy

    values = numpy.sort(quality[:, :-1], axis=None)
    if len(values) > _MOST_FLOORS:
        values = values[numpy.linspace(0, len(values) - 1, _MOST_FLOORS).astype(int)]
    floors = (*numpy.unique(values).tolist(), float(quality.max()) + 10**-DECIMALS)
    last = quality.shape[1] - 1
    return tuple(point(outcomes, choose(quality, floor), last, floor) for floor in floors)


def point(outcomes: Outcomes, chosen: Places, strongest: int, floor: float | None = None) -> Point:
    """What it gives to answer each item by the model at the place `chosen` (items,)."""
    import numpy

    everyone = numpy.arange(len(outcomes))
    return Point(
        floor=None if floor is None else round(floor, DECIMALS),
        strong_share=float((chosen == strongest).mean()),
        quality=float(outcomes.scores[everyone, chosen].mean()),
        cost_usd=float(outcomes.costs[everyone, chosen].sum()),
    )


def measure(points: Sequence[Point]) -> Measures:
    """The measures of a curve; between two floors, the items that differ go in random order (a straight line)."""
    first = points[0]
    last = points[-1]
    gap = last.quality - first.quality
    extra = last.cost_usd - first.cost_usd
    if gap <= 0:
        return NO_GAP
    recovered = [(p.quality - first.quality) / gap for p in points]
    calls = [p.strong_share for p in points]
    usd = [(p.cost_usd - first.cost_usd) / extra if extra > 0 else 0.0 for p in points]
    strips = zip(pairwise(calls), pairwise(recovered), strict=True)
    return Measures(
        cpt50=_share_for(0.5, calls, recovered),
        cpt80=_share_for(0.8, calls, recovered),
        apgr=sum((right - left) * (low + high) / 2 for (left, right), (low, high) in strips),
        usd50=_share_for(0.5, usd, recovered),
    )


def _share_for(wanted: float, shares: Sequence[float], recovered: Sequence[float]) -> float:
    """The share at which a curve first recovers what is wanted; it begins at 0 and ends at 1."""
    place = next(i for i, y in enumerate(recovered) if y >= wanted - 1e-12)
    left = shares[place - 1]
    right = shares[place]
    low = recovered[place - 1]
    high = recovered[place]
    return left + (right - left) * (wanted - low) / (high - low)


def point_for(points: Sequence[Point], recovered: float) -> Point:
    """The first point of a curve that recovers this share of the gap."""
    wanted = points[0].quality + recovered * (points[-1].quality - points[0].quality)
    return next((p for p in points if p.quality >= wanted - 1e-12), points[-1])


def best_single(outcomes: Outcomes) -> int:
    """Place of the model with the best mean score in hindsight, the cheapest among equals."""
    return int(outcomes.scores.mean(axis=0).argmax())


def oracle(outcomes: Outcomes) -> Places:
    """Place (items,) of the cheapest among the best models for each item, known in hindsight."""
    import numpy

    best = outcomes.scores == outcomes.scores.max(axis=1, keepdims=True)
    places: Places = numpy.where(best, outcomes.costs, numpy.inf).argmin(axis=1)
    return places


def true_quality(outcomes: Outcomes, candidates: int) -> Floats:
    """What an oracle would believe: each candidate's true score relative to the strongest's."""
    scores = outcomes.scores[:, :candidates]
    return 1 + scores - scores[:, [-1]]
