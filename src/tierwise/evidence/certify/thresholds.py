"""Confidence thresholds, certified with all golden items: no label is spent on choosing one.

The thresholds and the order in which they are tested are fixed before a golden answer is looked at,
so each test has the full level, and the first that fails ends the walk: "learn then test", by
fixed-sequence testing (Angelopoulos and others, "Learn then test", 2021). Where nothing is known
beforehand, an e-process along falling confidence takes the place of the walk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

# Bets of the e-process: one that errors are rare, up to one that there is none. Geometric, as no
# golden set of a usual size needs others.
_BETS = tuple(0.1 * 60 ** (place / 11) for place in range(12))  # 0.1 to 6


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """What a candidate keeps of the golden set at one threshold, and how much of it is wrong.

    The threshold None keeps everything.
    """

    threshold: float | None
    n: int
    errors: int


@dataclass(frozen=True, slots=True)
class Foretold:
    """What left-out training answers foretell of one threshold."""

    threshold: float | None
    coverage: float  # share of the examples that are kept
    accuracy: float  # share of right ones among the kept


def p_value(tested: AtThreshold, floor: float) -> float:
    """Return the chance of so few errors if the accuracy were just the floor (exact binomial)."""
    from scipy.special import bdtr

    if not tested.n:
        return 1.0
    return float(bdtr(tested.errors, tested.n, 1 - floor))


def widest_shown(
    tested: Sequence[AtThreshold], starts: Sequence[int], floor: float, level: float
) -> int | None:
    """Return the place of the widest threshold that is shown to meet the floor; None: none is.

    `tested` has the strictest threshold first. One walk begins at each start with an equal share of
    the level, and goes on to wider thresholds until a test fails. Where two walks meet, their
    shares add up: what one of them has shown costs the other nothing (the graphical procedure of
    Bretz and others, "A graphical approach to sequentially rejective multiple test procedures",
    2009). With thresholds and starts that do not depend on the golden answers, the chance that any
    threshold is shown wrongly is at most the level.
    """
    share = level / len(starts)
    places = list(starts)
    shown: set[int] = set()
    moved = True
    while moved:
        moved = False
        for walk, place in enumerate(places):
            if place == len(tested):
                continue
            walks_here = places.count(place)
            passes = p_value(tested[place], floor) <= share * walks_here
            if place in shown or passes:
                shown.add(place)
                places[walk] = place + 1
                moved = True
    return max(shown, default=None)


def starts_for(
    foretold: Sequence[Foretold], n: int, floor: float, level: float
) -> tuple[int, int]:
    """Return the places where the two walks begin, for a golden set of `n` items.

    One begins where a certificate is surest, the other where the coverage that can be expected is
    the most: coverage times chance.
    """
    chances = [_chance_to_pass(point, n, floor, level / 2) for point in foretold]
    expected = [
        point.coverage * chance for point, chance in zip(foretold, chances, strict=True)
    ]
    # of equal ones, the widest
    surest = max(range(len(foretold)), key=lambda place: (chances[place], place))
    most = max(range(len(foretold)), key=lambda place: (expected[place], place))
    return surest, most


def _chance_to_pass(point: Foretold, n: int, floor: float, level: float) -> float:
    """Return the chance that a threshold passes its test, if the training answers foretell it."""
    from scipy.special import bdtr

    kept = round(point.coverage * n)
    allowed = most_errors(kept, floor, level)
    if allowed is None:
        return 0.0
    return float(bdtr(allowed, kept, 1 - point.accuracy))


def most_errors(n: int, floor: float, level: float) -> int | None:
    """Return the most errors among `n` items that still show the floor; None: not even 0 do."""
    from scipy.special import bdtr, bdtrik

    if not n or float(bdtr(0, n, 1 - floor)) > level:
        return None
    # the inverse of the binomial distribution, at most one off by rounding
    errors: int = math.floor(bdtrik(level, n, 1 - floor))
    while errors > 0 and float(bdtr(errors, n, 1 - floor)) > level:
        errors -= 1
    return max(errors, 0)


def widest_along(
    confidences: Sequence[float], right: Sequence[bool], floor: float, level: float
) -> float | None:
    """Return the lowest confidence down to which the answers show the floor; None: none does.

    An e-process along falling confidence, for models of which nothing is known beforehand: a
    mixture of bets b, each of which pays exp(-b) for a wrong answer and 1 for a right one, divided
    by what it would pay on average at the floor (Waudby-Smith and Ramdas, "Estimating means of
    bounded random variables by betting", 2024). Where nothing is certifiable it reaches 1 / level
    with a chance of at most the level, wherever one looks, if wrong answers do not become rarer
    as the confidence falls further.
    """
    ranked = sorted(zip(confidences, right, strict=True), key=lambda pair: -pair[0])
    lowest = None
    n = 0
    errors = 0
    # No threshold lies between equal confidences, so they count together.
    for confidence, group in groupby(ranked, key=lambda pair: pair[0]):
        for _, is_right in group:
            n += 1
            errors += not is_right
        if log_wealth(errors, n, floor) >= -math.log(level):
            lowest = confidence
    return lowest


def log_wealth(errors: int, n: int, floor: float) -> float:
    """Return the logarithm of what the mixture of bets is worth after `errors` among `n`."""
    wrong = 1 - floor
    logs = []
    for bet in _BETS:
        mean_pay = 1 - wrong + wrong * math.exp(-bet)
        logs.append(-bet * errors - n * math.log(mean_pay))
    highest = max(logs)
    # in the form that cannot overflow
    total = sum(math.exp(log - highest) for log in logs)
    return float(highest + math.log(total / len(_BETS)))
