"""The value of a label: how likely the next ones are to settle a decision, and how many it takes.

A decision is a sequential test of one model in one step: a demotion, or the proof that a shadow
model is worth certifying. The value only says *which* decision to label for next. Which documents
are labelled for it was drawn by chance when they were recorded, and they are labelled in that
order. A sequential test may be continued, left and taken up again for any reason, so choosing by
value biases nothing (optional continuation: Grünwald, de Heide and Koolen, "Safe testing", JRSS B
2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tierwise.policy.sequential_test import (
    ALPHA,
    Evidence,
    demotion,
    expected_until_certified,
    expected_until_demotion,
    update,
)

# A model may have changed since its labels, so a belief forgets them. One memory is long (a label
# counts half after 28 later ones, labelled or waiting), one short (after 7), so that a fall shows
# after a few. Evidence forgets nothing: this is for the order alone.
_KEPT = (0.975, 0.9)
# The chance that a model fell and no label shows it yet: a little, and more with those waiting
_FELL = 0.02
_FELL_UNSEEN = 0.2
# of a belief before any label: a third of a label on either side, and a certificate's golden set
_VAGUE = 1 / 3
_MOST_GOLDEN = (
    8.0  # labels that a golden set counts for, as production may be unlike it
)
_GRID = 40  # accuracies at which a belief is weighed
_LEAST_WEIGHT = 0.005  # of an accuracy, in all
_MOST = 1000  # labels that a forecast looks ahead
_FALL = 0.1  # below the floor, of a model whose fall should be noticed

Wanted = Literal["demotion", "promotion"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What further labels may settle, and the evidence so far.

    A demotion ends a certificate. A promotion says that a shadow model, one of several that share
    alpha, is worth certifying.
    """

    wanted: Wanted
    evidence: Evidence
    sharing: int = 1

    def is_made(self, evidence: Evidence) -> bool:
        """Return True if this evidence settles it."""
        if self.wanted == "demotion":
            return demotion(evidence) is not None
        return evidence.certifies(ALPHA / self.sharing)


@dataclass(frozen=True, slots=True)
class Belief:
    """Beta distributions (right, wrong) of a model's accuracy, and the chance that it fell since.

    For the order of labels alone: it decides nothing.
    """

    accuracies: tuple[tuple[float, float], ...]
    fell: float


def believe(
    labels: Sequence[bool], *, waiting: int, golden: tuple[int, int] = (0, 0)
) -> Belief:
    """Return the belief after these labels, the oldest first, with `waiting` unlabelled ones later.

    `golden` are the right and the wrong answers to a golden set.
    """
    right, wrong = golden
    size = right + wrong
    scale = min(size, _MOST_GOLDEN) / size if size else 0.0
    accuracies = []
    for kept in _KEPT:
        passed = _VAGUE + scale * right
        failed = _VAGUE + scale * wrong
        weight = kept**waiting
        for is_right in reversed(labels):
            if is_right:
                passed += weight
            else:
                failed += weight
            weight *= kept
        accuracies.append((passed, failed))
    unseen = 1 - _KEPT[0] ** waiting
    return Belief(tuple(accuracies), fell=_FELL + _FELL_UNSEEN * unseen)


def value(decision: Decision, belief: Belief) -> float:
    """Return the expected share of the decision that one more label settles, from 0 to 1.

    That is one over the labels that it takes, averaged over the accuracies that are believed in:
    an accuracy that will never settle it adds nothing.
    """
    if decision.is_made(decision.evidence):
        return 0.0
    as_before = 0.0
    for accuracy, weight in _weighed(belief).items():
        as_before += weight * _share_settled(decision, accuracy)
    if decision.wanted == "promotion":
        return as_before
    fallen = _share_settled(decision, fall_to_notice(decision.evidence.floor))
    return (1 - belief.fell) * as_before + belief.fell * fallen


def _weighed(belief: Belief) -> dict[float, float]:
    """Return the accuracies that are believed in, with weights that add up to nearly 1."""
    grid = [(place + 0.5) / _GRID for place in range(_GRID)]
    weights = dict.fromkeys(grid, 0.0)
    for passed, failed in belief.accuracies:
        # the logs of the beta density; their greatest is left out, as it may be too small a number
        logs = [
            (passed - 1) * math.log(accuracy) + (failed - 1) * math.log1p(-accuracy)
            for accuracy in grid
        ]
        top = max(logs)
        densities = [math.exp(log - top) for log in logs]
        total = math.fsum(densities) * len(belief.accuracies)
        for accuracy, density in zip(grid, densities, strict=True):
            weights[accuracy] += density / total
    return {
        accuracy: weight
        for accuracy, weight in weights.items()
        if weight >= _LEAST_WEIGHT
    }


def _share_settled(decision: Decision, accuracy: float) -> float:
    if decision.wanted == "demotion":
        labels = expected_until_demotion(decision.evidence, accuracy)
    else:
        alpha = ALPHA / decision.sharing
        labels = expected_until_certified(decision.evidence, accuracy, alpha=alpha)
    return 1 / max(labels, 1.0)


def labels_until(decision: Decision, accuracy: float) -> int | None:
    """Return the number of labels that settle a decision, if they are right at this rate.

    None where no such number is near. Wrong answers come at equal distances.
    """
    floor = decision.evidence.floor
    leads_there = (
        accuracy < floor if decision.wanted == "demotion" else accuracy > floor
    )
    if not leads_there:
        return None
    return _forecast(decision.evidence, accuracy, decision.is_made)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the labels of a model show by now, and what further ones like them would show."""

    shown: float | None  # the highest floor; None where none is shown
    next_floor: float | None  # None where the highest is shown
    more: int | None  # labels until then; None where no such number is near


def outlook(evidence: Evidence, floors: Sequence[float]) -> Outlook:
    """Return which of `floors` the labels show, and how many more would show the next one.

    The next one is the evidence's own floor where that is not shown and can be. The tests of all
    floors are valid at once: a floor is shown wrongly only if it is above the accuracy, and then
    the lowest of these is shown wrongly too.
    """
    every_floor = sorted({*floors, evidence.floor})
    shown = None
    for floor in every_floor:
        if not _for_floor(evidence, floor).certifies():
            break
        shown = floor
    higher = [floor for floor in every_floor if shown is None or floor > shown]
    if not higher:
        return Outlook(shown, None, None)
    for floor in (evidence.floor, higher[0]):
        if floor in higher:
            more = _labels_to_show(evidence, floor)
            if more is not None:
                return Outlook(shown, floor, more)
    return Outlook(shown, higher[0], None)


def _labels_to_show(evidence: Evidence, floor: float) -> int | None:
    rate = evidence.passed / evidence.n if evidence.n else 1.0
    if rate <= floor:
        return None
    so_far = _for_floor(evidence, floor)
    return _forecast(so_far, rate, lambda later: later.certifies())


def fall_to_notice(floor: float) -> float:
    """Return the accuracy for which it is said how soon a fall to it would be noticed."""
    return round(max(floor - _FALL, floor / 2), 4)


def _for_floor(evidence: Evidence, floor: float) -> Evidence:
    """Return the counts as evidence about another floor, without the detector's state."""
    return Evidence(floor=floor, passed=evidence.passed, failed=evidence.failed)


def _forecast(
    evidence: Evidence,
    accuracy: float,
    is_made: Callable[[Evidence], bool],
) -> int | None:
    owed = (
        0.5  # wrong answers, so that the first comes after half of the usual distance
    )
    for count in range(1, _MOST + 1):
        owed += 1 - accuracy
        is_wrong = owed >= 1
        if is_wrong:
            owed -= 1
        evidence = update(evidence, not is_wrong)
        if is_made(evidence):
            return count
    return None
