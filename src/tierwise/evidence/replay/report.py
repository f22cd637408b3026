"""A replay as a whole: draw labels, fit the estimate, sweep the floor, and add the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.errors import ConfigError, Misuse
from tierwise.evidence.replay import cascade, curve
from tierwise.evidence.replay.cascade import Cascade
from tierwise.evidence.replay.curve import (
    DECIMALS,
    NO_GAP,
    RANDOM,
    CurveMeasures,
    CurvePoint,
)
from tierwise.evidence.replay.estimate import QualityEstimate, fit
from tierwise.evidence.replay.outcomes import OutcomeTable
from tierwise.text.files import write_atomically
from tierwise.text.rows import csv_text

if TYPE_CHECKING:
    from tierwise.evidence.replay.outcomes import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to choose models, with its cost and quality.

    `recovered` is the share of the quality gap, None where there is no gap.
    """

    name: str
    point: CurvePoint
    recovered: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AtStrongest:
    """The router at the floor that reached the strongest model's quality on the labels.

    Models and floor were fixed on the labels. What they do to other items may be a little better
    or worse than the strongest model.
    """

    models: tuple[str, ...]  # that may be asked
    point: CurvePoint
    strongest: CurvePoint  # always the strongest model

    @property
    def saved(self) -> float | None:
        """The share of the strongest model's cost that is saved; None where that is nothing."""
        if self.strongest.cost_usd <= 0:
            return None
        return 1 - self.point.cost_usd / self.strongest.cost_usd


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The results of a replay. Nothing is measured on the `left_out` items: they were fitted on.

    With confidences, `router` decides after each call, and `before_call` are the measures of the
    router that decides without them.
    """

    estimate: QualityEstimate  # before any call
    labels: int
    items: int
    left_out: int
    points: tuple[CurvePoint, ...]
    strategies: tuple[Strategy, ...]
    router: CurveMeasures
    oracle: CurveMeasures
    at_strongest: AtStrongest
    uses_texts: bool
    before_call: CurveMeasures | None  # None without confidences

    @property
    def uses_confidence(self) -> bool:
        """True if the router decides after each call, by the model's own confidence."""
        return self.before_call is not None

    @property
    def random(self) -> CurveMeasures:
        """The measures of a random router."""
        return NO_GAP if self.router == NO_GAP else RANDOM


def replay(
    fitted: OutcomeTable,
    on: OutcomeTable,
    *,
    labels: int | None = None,
    seed: int = 0,
    per_usd: bool = False,
) -> Replay:
    """Fit on `labels` items of `fitted` (None: all) and sweep the floor over the items of `on`.

    A label is the scores of *all* models on one item. With `per_usd`, the floor is on
    `QualityEstimate.worth` instead of `.quality`. Both files must have the same models in the same
    order. If the labels have confidences, a model is asked before it is decided whether its answer
    does. Everything that is fitted, thresholds included, is fitted on the labels. Raises Misuse
    when there are fewer items than labels, or when `on` has no other items; ConfigError when `on`
    lacks texts or confidences that `fitted` has.
    """
    labelled = fitted if labels is None else fitted.draw(labels, seed)
    measured = on.without(frozenset(labelled.items))
    if not len(measured):
        raise Misuse(
            f"every item of {on.path} was fitted on; "
            "replay on others, or fit on fewer with --labels"
        )

    def estimated(estimate: QualityEstimate) -> Floats:
        if per_usd:
            return estimate.worth(measured)
        return estimate.quality(measured)

    estimate = fit(labelled)
    quality = estimated(estimate)
    candidates = len(estimate.candidates)
    strongest = candidates - 1
    points = curve.sweep(quality, measured)
    after_call = labelled.confidences is not None
    chosen = cascade.cascade_for(
        labelled, strongest, after_call=after_call, per_usd=per_usd
    )
    before_call = None
    if after_call:
        before_call = curve.measure(points)
        quality = estimated(fit(labelled, after_call=True))
        points = cascade.sweep_in_turn(quality, measured, chosen.models)
    # the upper bound: a router whose estimate is the recorded score itself
    true_quality = curve.true_quality(measured, candidates)
    oracle_points = curve.sweep(true_quality, measured)
    return Replay(
        estimate=estimate,
        labels=len(labelled),
        items=len(measured),
        left_out=len(on) - len(measured),
        points=points,
        strategies=tuple(_strategies(measured, points, strongest=strongest)),
        router=curve.measure(points),
        oracle=curve.measure(oracle_points),
        at_strongest=_at_strongest(quality, measured, chosen, after_call=after_call),
        uses_texts=labelled.terms is not None,
        before_call=before_call,
    )


def _at_strongest(
    quality: Floats, measured: OutcomeTable, chosen: Cascade, *, after_call: bool
) -> AtStrongest:
    import numpy

    strongest = chosen.models[-1]
    everywhere = numpy.full(len(measured), strongest)
    return AtStrongest(
        models=tuple(measured.models[model] for model in chosen.models),
        point=cascade.at_floor(quality, measured, chosen, after_call=after_call),
        strongest=curve.point(measured, everywhere, strongest),
    )


def _strategies(
    outcomes: OutcomeTable, points: Sequence[CurvePoint], strongest: int
) -> Iterator[Strategy]:
    """Yield the baselines, and the router at two points of its curve."""
    import numpy

    def always(model: int) -> CurvePoint:
        chosen = numpy.full(len(outcomes), model)  # the same for each item
        return curve.point(outcomes, chosen, strongest)

    cheapest = always(0)
    strong = always(strongest)
    gap = strong.quality - cheapest.quality

    def strategy(name: str, point: CurvePoint) -> Strategy:
        recovered = None
        if gap > 0:
            recovered = (point.quality - cheapest.quality) / gap
        return Strategy(name=name, point=point, recovered=recovered)

    best = curve.best_single(outcomes)
    yield strategy(f"always cheapest: {outcomes.models[0]}", cheapest)
    yield strategy(f"best single model: {outcomes.models[best]}", always(best))
    for share in (0.5, 0.8):
        point = curve.point_for(points, share)
        at_random = _random_router(cheapest, strong, point.cost_usd)
        yield strategy(f"router, {share:.0%} of the gap", point)
        yield strategy("random router of the same cost", at_random)
    yield strategy("oracle", curve.point(outcomes, curve.oracle(outcomes), strongest))


def _random_router(
    cheapest: CurvePoint, strong: CurvePoint, cost_usd: float
) -> CurvePoint:
    """Return the expected point of a router that sends items to the strongest model by chance.

    It sends as many as this cost allows.
    """
    extra = strong.cost_usd - cheapest.cost_usd
    share = 0.0
    if extra > 0:
        affordable = (cost_usd - cheapest.cost_usd) / extra
        share = min(1.0, max(0.0, affordable))
    return CurvePoint(
        floor=None,
        strong_share=share * strong.strong_share + (1 - share) * cheapest.strong_share,
        quality=cheapest.quality + share * (strong.quality - cheapest.quality),
        cost_usd=cheapest.cost_usd + share * extra,
    )


def write_curve(path: Path, points: Sequence[CurvePoint]) -> None:
    """Write `floor, strong_share, quality, cost_usd`, all or nothing. Raises ConfigError."""
    rows = []
    for point in points:
        floor = f"{point.floor:.{DECIMALS}f}"
        others = (point.strong_share, point.quality, point.cost_usd)
        rows.append([floor, *(f"{number:.8g}" for number in others)])
    text = csv_text(["floor", "strong_share", "quality", "cost_usd"], rows)
    try:
        write_atomically(path, text)
    except OSError as error:
        message = (
            f"cannot be written: {error.strerror}; name a file in a folder that exists"
        )
        raise ConfigError(message, path=path) from None
