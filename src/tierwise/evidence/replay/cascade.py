"""Which models to ask, in which order and down to which floor: decided on labelled items alone.

A decision after a call needs the call, so each model in a cascade costs something even where its
answer is not used. Whether it earns that is tried on the labelled items: of all orders from cheap
to strong, the one that reaches the strongest model's quality there at the least cost. The labelled
items are estimated by what was learned from the *other* labelled items (cross-fitting), or else
every model would look better on them than it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from tierwise.evidence.replay import curve
from tierwise.evidence.replay.curve import DECIMALS, CurvePoint
from tierwise.evidence.replay.estimate import fit
from tierwise.evidence.replay.outcomes import OutcomeTable

if TYPE_CHECKING:
    from tierwise.evidence.replay.outcomes import Floats

_FOLDS = 5
_LEAST_LABELS = 20  # fewer are not divided: each fold would learn from nothing
_MOST_TRIED = 6  # models before the strongest of which all combinations are tried


@dataclass(frozen=True, slots=True)
class Cascade:
    """The places of the models to ask, the last one the strongest, and a floor.

    The floor reached the strongest model's quality on the labelled items.
    """

    models: tuple[int, ...]
    floor: float


def cascade_for(
    labelled: OutcomeTable, strongest: int, *, after_call: bool, per_usd: bool
) -> Cascade:
    """Return the models and the floor that reach the strongest's quality at the least cost.

    Without `after_call`, one model is asked for each item, and all are candidates.
    """
    quality = _left_out_quality(labelled, strongest, after_call, per_usd)
    wanted = float(labelled.scores[:, strongest].mean())
    if not after_call:
        models = tuple(range(strongest + 1))
        points = curve.sweep(quality, labelled)
        return Cascade(models, _cheapest(points, wanted).floor or 0.0)
    best = Cascade((strongest,), 0.0)
    least = float(labelled.costs[:, strongest].sum())
    for models in _orders(strongest):
        points = sweep_in_turn(quality, labelled, models)
        point = _cheapest(points, wanted)
        if point.cost_usd < least:
            least = point.cost_usd
            best = Cascade(models, point.floor or 0.0)
    return best


def sweep_in_turn(
    quality: Floats, outcomes: OutcomeTable, models: Sequence[int]
) -> tuple[CurvePoint, ...]:
    """Return the curve of asking `models` one after the other, until one reaches the floor.

    It begins with always the cheapest of all models, and ends with always the strongest, which at
    a floor above all estimates is asked at once.
    """
    import numpy

    models = list(models)
    strongest = models[-1]
    points: list[CurvePoint] = []
    if len(models) > 1:
        in_turn = outcomes.asked_in_turn(models)
        points += curve.sweep(quality[:, models], in_turn)[:-1]
    highest = float(quality.max()) + 10**-DECIMALS
    everywhere = numpy.full(len(outcomes), strongest)
    points.append(curve.point(outcomes, everywhere, strongest, highest))
    if models[0] != 0:
        lowest = min(point.floor or 0.0 for point in points) - 10**-DECIMALS
        cheapest = numpy.zeros(len(outcomes), int)
        points.insert(0, curve.point(outcomes, cheapest, strongest, lowest))
    return tuple(points)


def at_floor(
    quality: Floats, outcomes: OutcomeTable, cascade: Cascade, *, after_call: bool
) -> CurvePoint:
    """Return the quality and cost of a cascade on some items."""
    models = list(cascade.models)
    asked = outcomes.asked_in_turn(models) if after_call else outcomes
    chosen = curve.choose(quality[:, models], cascade.floor)
    return curve.point(asked, chosen, len(models) - 1, cascade.floor)


def _orders(strongest: int) -> list[tuple[int, ...]]:
    """Return the orders to try; of many models, the cheapest and those right before the strongest."""
    weaker = list(range(strongest))
    if len(weaker) > _MOST_TRIED:
        weaker = [0, *weaker[1 - _MOST_TRIED :]]
    orders: list[tuple[int, ...]] = []
    for count in range(1, len(weaker) + 1):
        orders += [(*some, strongest) for some in combinations(weaker, count)]
    return orders


def _cheapest(points: Sequence[CurvePoint], wanted: float) -> CurvePoint:
    """Return the cheapest point with this quality, or else the last: always the strongest."""
    enough = [point for point in points if point.quality >= wanted]
    return min(enough, key=lambda point: point.cost_usd, default=points[-1])


def _left_out_quality(
    labelled: OutcomeTable, strongest: int, after_call: bool, per_usd: bool
) -> Floats:
    """Return the estimates (items, candidates) for labelled items, learned from other ones."""
    import numpy

    folds = _FOLDS if len(labelled) >= _LEAST_LABELS else 1
    # by chance: a file may have its items in any pattern
    generator = numpy.random.default_rng(0)
    fold_of_item = generator.permutation(len(labelled)) % folds
    quality = numpy.ones((len(labelled), strongest + 1))
    for fold in range(folds):
        inside = numpy.flatnonzero(fold_of_item == fold)
        outside = numpy.flatnonzero(fold_of_item != fold)
        if folds == 1:
            outside = inside
        estimate = fit(
            labelled.part(outside.tolist()), after_call=after_call, strongest=strongest
        )
        asked = labelled.part(inside.tolist())
        values = estimate.worth(asked) if per_usd else estimate.quality(asked)
        quality[inside] = values
    return quality
