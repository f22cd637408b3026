"""The exact confidence interval of a pass rate, for reading.

Certificates take their bound from SciPy, whose import takes half a second. A report of a run needs
intervals alone, and these few lines give the same ones to ten digits.
"""

from __future__ import annotations

import math

from tierwise.errors import Misuse

_SIDE = 0.025  # outside of the interval, on each side: a 95 % interval
_STEPS = 60  # bisections; each halves the error
_TERMS = 10_000  # of the continued fraction; it converges long before
_TINY = 1e-300  # in place of a zero that would be divided by


def interval(passed: int, n: int) -> tuple[float, float] | None:
    """Return the exact 95 % interval of a pass rate (Clopper and Pearson); None without answers.

    Raises Misuse when the counts make no sense.
    """
    if not n:
        return None
    if not 0 <= passed <= n:
        raise Misuse(f"no interval for {passed} passed of {n}")
    # With none or all passed, one end is the end of the scale: there is no beta distribution.
    low = 0.0
    if passed > 0:
        low = _beta_quantile(passed, n - passed + 1)
    high = 1.0
    if passed < n:
        # The upper end is the lower end of the failures' share, counted from the other side.
        high = 1 - _beta_quantile(n - passed, passed + 1)
    return low, high


def _beta_quantile(a: float, b: float) -> float:
    """Return the x below which a beta distribution has the share `_SIDE`, by bisection."""
    low = 0.0
    high = 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _beta_share(a, b, middle) < _SIDE:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_share(a: float, b: float, x: float) -> float:
    """Return the share of a beta distribution below x (regularized incomplete beta function)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    # The fraction converges quickly on one side of the mean; the other side is its complement.
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(b, a, 1 - x)
    # In logarithms, since gamma itself overflows from about 170 on.
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / a
    return front * _continued_fraction(a, b, x)


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    # Textbooks call these C, f and D; f, here `value`, is the fraction so far.
    ratio = 1.0
    value = 1.0
    inverse = 0.0
    for term in range(_TERMS):
        m = term // 2
        # Even and odd terms of this fraction have coefficients of their own.
        if term == 0:
            numerator = 1.0
        elif term % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        inverse = 1 / ((1 + numerator * inverse) or _TINY)
        ratio = (1 + numerator / ratio) or _TINY
        value *= ratio * inverse
        # A factor this close to 1 changes nothing that a report prints.
        if abs(1 - ratio * inverse) < 1e-15:
            break
    return value - 1  # the method starts from 1, so that it never divides by zero
