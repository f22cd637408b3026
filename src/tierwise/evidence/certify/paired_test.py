"""The exact paired test: how much worse a model is than another on the same items, at most.

An exact unconditional test: the p-value is the chance of a result as good, for the worst share of
items on which the two differ (Lloyd and Moldovan, "A more powerful exact test of noninferiority
from binary matched-pairs data", 2008; Sidik, "Exact unconditional tests for testing non-inferiority
in matched-pairs design", 2003). The shares to search are those that the gained items leave
possible, at a price of 1e-6 (Berger and Boos, "P values maximized over a confidence set for the
nuisance parameter", 1994). The search returns an upper bound of the maximum and never a value
below it, so that nothing between the points of a grid is missed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy
import numpy.typing

from tierwise.policy.paired import is_as_good, score

_OUTSIDE = 1e-6  # the chance that the true share of gained items is not searched
_CLOSE = 0.02  # relative distance of the bound from the maximum that ends the search
_ROUNDS = 14
_MOST_CELLS = 8000
_SPREAD = 9  # standard deviations of gained items that are summed; the rest is added as a bound

Floats = numpy.typing.NDArray[numpy.float64]
Counts = numpy.typing.NDArray[numpy.int64]


@lru_cache(maxsize=4096)
def paired_p_value(lost: int, gained: int, n: int, worse: float) -> float:
    """Return the chance of a result as good as this one, if the candidate is worse by `worse`.

    `lost` and `gained` count the items of `n` on which the reference alone, and the candidate
    alone, is right. The result is at most 2 % and 1e-6 above the smallest valid one.
    """
    if n == 0 or lost - gained >= n * worse:
        return 1.0
    edges = _most_lost(lost, gained, n, worse)
    low, high = _possible_shares(gained, n, worse)
    bounds = numpy.linspace(low, high, 33)
    left: Floats = bounds[:-1]
    right: Floats = bounds[1:]
    highest = 0.0  # of the chances that were computed
    settled = 0.0  # the upper bound of the cells that need no closer look
    looked_at = 0
    for number in range(_ROUNDS):
        # A result as good becomes likelier with fewer lost items, and with more gained ones. So
        # no point of a cell has a larger chance than its best corner.
        upper = _chances(edges, n, left + worse, right)
        highest = max(highest, float(_chances(edges, n, left + worse, left).max()))
        looked_at += len(left)
        is_last = number == _ROUNDS - 1 or looked_at > _MOST_CELLS
        is_open = upper > highest * (1 + _CLOSE)
        if is_last:
            is_open[:] = False
        settled = max(settled, float(upper[~is_open].max(initial=0.0)))
        if not is_open.any():
            break
        left = left[is_open]
        right = right[is_open]
        middle = (left + right) / 2
        left, right = (
            numpy.concatenate([left, middle]),
            numpy.concatenate([middle, right]),
        )
    return min(1.0, settled + _OUTSIDE)


def _most_lost(lost: int, gained: int, n: int, worse: float) -> Counts:
    """Return, for each number of gained items, the most lost ones of a result as good; -1: none."""
    observed = score(lost, gained, n, worse)
    more_gained = numpy.arange(n + 1)
    low = numpy.full(n + 1, -1)
    high = n - more_gained
    # Bisection for all numbers of gained items at once.
    while (low < high).any():
        middle = (low + high + 1) // 2
        places = score(numpy.maximum(middle, 0), more_gained, n, worse)
        fits = (middle < 0) | is_as_good(places, observed)
        low = numpy.where(fits, middle, low)
        high = numpy.where(fits, high, middle - 1)
    # More gained items allow no fewer lost ones, which rounding must not change.
    return numpy.maximum.accumulate(low)


def _possible_shares(gained: int, n: int, worse: float) -> tuple[float, float]:
    """Return the exact limits of the share of gained items; `_OUTSIDE` is the chance of an error.

    The two shares add up to at most 1, so that the larger is never above (1 - worse) / 2.
    """
    from scipy.special import betaincinv

    most = (1 - worse) / 2
    low = 0.0
    if gained:
        low = float(betaincinv(gained, n - gained + 1, _OUTSIDE / 2))
    high = 1.0
    if gained < n:
        high = float(betaincinv(gained + 1, n - gained, 1 - _OUTSIDE / 2))
    return min(low, most), min(high, most)


def _chances(edges: Counts, n: int, share_lost: Floats, share_gained: Floats) -> Floats:
    """Return the chance of a result within the edges, for each pair of shares."""
    from scipy.special import bdtr, bdtrc, gammaln, xlog1py, xlogy

    least = float(share_gained.min())
    most = float(share_gained.max())
    first = max(0, int(n * least - _SPREAD * numpy.sqrt(n * least)) - 30)
    last = min(n, int(n * most + _SPREAD * numpy.sqrt(n * most)) + 30)
    gained: Any = numpy.arange(first, last + 1)[None, :]
    others = n - gained
    of_gained: Any = share_gained[:, None]
    ways = gammaln(n + 1) - gammaln(gained + 1) - gammaln(others + 1)
    logs = ways + xlogy(gained, of_gained) + xlog1py(others, -of_gained)
    allowed = numpy.minimum(edges[first : last + 1], others[0])[None, :]
    among_others = numpy.minimum(1.0, share_lost[:, None] / (1 - of_gained))
    within = bdtr(numpy.maximum(allowed, 0), others, among_others)
    within = numpy.where(allowed >= 0, within, 0.0)
    chances: Floats = (numpy.exp(logs) * within).sum(axis=1)
    # What is not summed counts in full.
    if first > 0:
        chances = chances + bdtr(first - 1, n, share_gained)
    if last < n:
        chances = chances + bdtrc(last, n, share_gained)
    return chances
