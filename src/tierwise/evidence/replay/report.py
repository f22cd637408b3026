"""A replay as a whole: labels are drawn, the estimate is fitted, the floor swept, and the baselines set beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tierwise.errors import ConfigError, Misuse
from tierwise.evidence.replay import curve
from tierwise.evidence.replay.curve import DECIMALS, NO_GAP, RANDOM, Measures, Point
from tierwise.evidence.replay.estimate import Estimate, fit
from tierwise.evidence.replay.outcomes import Outcomes
from tierwise.text.files import write_atomically
from tierwise.text.rows import csv_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One way to choose models, and what it gave. `recovered` is the share of the gap, None where there is none."""

    name: str
    point: Point
    recovered: float | None


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What came of a replay. Nothing is measured on the `left_out` items: they were fitted on."""

    estimate: Estimate
    labels: int
    items: int
    left_out: int
    points: tuple[Point, ...]
    policies: tuple[Policy, ...]
    router: Measures
    oracle: Measures

    @property
    def random(self) -> Measures:
        """The measures of choosing by chance."""
        return NO_GAP if self.router == NO_GAP else RANDOM


def replay(
    fitted: Outcomes,
    on: Outcomes,
    *,
    labels: int | None = None,
    seed: int = 0,
    per_usd: bool = False,
) -> Replay:
    """Fit on `labels` items drawn from `fitted` (None: all of them) and sweep the floor over the items of `on`.

    A label is the scores of *all* models on one item. With `per_usd`, the floor is on `Estimate.worth` instead
    of `Estimate.quality`. Both files must have the same models in the same order. Raises Misuse when there are
    fewer items than labels, or when `on` has no items but the labelled ones.
    """
    labelled = fitted if labels is None else fitted.draw(labels, seed)
    measured = on.without(frozenset(labelled.items))
    if not len(measured):
        raise Misuse(
            f"every item of {on.path} was fitted on; replay on others, or fit on fewer with --labels"
        )
    estimate = fit(labelled)
    points = curve.sweep(
        estimate.worth(measured) if per_usd else estimate.quality(measured), measured
    )
    best = curve.sweep(curve.true_quality(measured, len(estimate.candidates)), measured)
    return Replay(
        estimate=estimate,
        labels=len(labelled),
        items=len(measured),
        left_out=len(on) - len(measured),
        points=points,
        policies=tuple(_policies(measured, points, len(estimate.candidates) - 1)),
        router=curve.measure(points),
        oracle=curve.measure(best),
    )


def _policies(outcomes: Outcomes, points: Sequence[Point], strongest: int) -> Iterator[Policy]:
    import numpy

    def always(place: int) -> Point:
        return curve.point(outcomes, numpy.full(len(outcomes), place), strongest)

    cheapest = always(0)
    strong = always(strongest)
    best = curve.best_single(outcomes)
    gap = strong.quality - cheapest.quality

    def policy(name: str, at: Point) -> Policy:
        return Policy(
            name=name,
            point=at,
            recovered=(at.quality - cheapest.quality) / gap if gap > 0 else None,
        )

    yield policy(f"always cheapest: {outcomes.models[0]}", cheapest)
    yield policy(f"best single model: {outcomes.models[best]}", always(best))
    for share in (0.5, 0.8):
        at = curve.point_for(points, share)
        yield policy(f"router, {share:.0%} of the gap", at)
        yield policy("random router of the same cost", _at_random(cheapest, strong, at.cost_usd))
    yield policy("oracle", curve.point(outcomes, curve.oracle(outcomes), strongest))


def _at_random(cheapest: Point, strong: Point, cost_usd: float) -> Point:
    """What it gives in expectation to send a share of the items, taken by chance, to the strongest model."""
    span = strong.cost_usd - cheapest.cost_usd
    share = min(1.0, max(0.0, (cost_usd - cheapest.cost_usd) / span)) if span > 0 else 0.0
    return Point(
        floor=None,
        strong_share=share * strong.strong_share + (1 - share) * cheapest.strong_share,
        quality=cheapest.quality + share * (strong.quality - cheapest.quality),
        cost_usd=cheapest.cost_usd + share * span,
    )


def write_curve(path: Path, points: Sequence[Point]) -> None:
    """Write `floor, strong_share, quality, cost_usd`, all or nothing. Raises ConfigError."""
    rows = []
    for point in points:
        floor = f"{point.floor:.{DECIMALS}f}"
        others = (point.strong_share, point.quality, point.cost_usd)
        rows.append([floor, *(f"{number:.8g}" for number in others)])
    try:
        write_atomically(path, csv_text(["floor", "strong_share", "quality", "cost_usd"], rows))
    except OSError as error:
        message = f"cannot be written: {error.strerror}; name a file in a folder that exists"
        raise ConfigError(message, path=path) from None
