"""The order of paired results, and the chance of those that are as good, without NumPy.

Two models answer the same items. An item is lost where the reference alone is right, and gained
where the candidate alone is right; on all others they are equal. The tested hypothesis is that the
candidate's share of right answers is lower by `worse` or more: P(lost) - P(gained) >= worse.
"""

from __future__ import annotations

import math
from typing import Any

_ROUNDING = 1e-9  # of a score: an observed result is as good as itself


def score(lost: Any, gained: Any, n: int, worse: float) -> Any:
    """Return how far a result is from the hypothesis; the lower, the better for the candidate.

    This is the score statistic: the difference less what the hypothesis says, divided by its
    standard error, where the hypothesis just holds (Tango, "Equivalence test and confidence
    interval for the difference in proportions for the paired-sample design", 1998). It takes
    numbers or arrays.
    """
    # The share of gained items that is likeliest if the hypothesis just holds solves
    # 2 n q^2 - linear q - constant = 0.
    linear = (lost + gained) * (1 - worse) - 2 * worse * (n - lost)
    constant = gained * worse * (1 - worse)
    likeliest = (linear + (linear * linear + 8 * n * constant) ** 0.5) / (4 * n)
    variance = n * (2 * likeliest + worse * (1 - worse))
    return (lost - gained - n * worse) / variance**0.5


def is_as_good(place: Any, observed: Any) -> Any:
    """Return True for a score that is at most the observed one, but for rounding."""
    return place <= observed + _ROUNDING


def least_chance(lost: int, gained: int, n: int, worse: float) -> float:
    """Return the chance of a result as good, for the likeliest share of gained items.

    The p-value is the largest chance over all shares, so it is never below this one. It needs no
    NumPy, and shows a certificate that was edited by hand.
    """
    observed = score(lost, gained, n, worse)
    linear = (lost + gained) * (1 - worse) - 2 * worse * (n - lost)
    constant = gained * worse * (1 - worse)
    q = (linear + math.sqrt(linear * linear + 8 * n * constant)) / (4 * n)
    spread = 9 * math.sqrt(n * q) + 30
    first = max(0, math.floor(n * q - spread))
    last = min(n, math.ceil(n * q + spread))
    chances = []
    for more_gained in range(first, last + 1):
        of_gained = _binomial(more_gained, n, q)
        if of_gained < 1e-15:
            continue
        rest = n - more_gained
        share = min(1.0, (q + worse) / (1 - q))
        for fewer_lost in range(rest + 1):
            place = score(fewer_lost, more_gained, n, worse)
            if not is_as_good(place, observed):
                break
            chances.append(of_gained * _binomial(fewer_lost, rest, share))
    return math.fsum(chances)


def _binomial(k: int, n: int, share: float) -> float:
    """Return the chance of `k` among `n`, as a logarithm first, since `n` may be large."""
    if share <= 0:
        return float(k == 0)
    if share >= 1:
        return float(k == n)
    log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log_ways + k * math.log(share) + (n - k) * math.log1p(-share))
