"""Sequential tests of an accuracy, which may be evaluated after every label.

Each label is a bet at odds that are fair when the accuracy is exactly the floor. A capital that
grew twentyfold from such bets shows at alpha 0.05 that the accuracy is not the floor. Ville's
inequality applies at all times at once, so evaluating after each label costs nothing. The one
assumption: the labelled documents were drawn at random, before their outcome was seen. The
accuracy may vary.

- For and against the floor: a capital spread over a few bets (Waudby-Smith and Ramdas, "Estimating
  means of bounded random variables by betting", JRSS B 2023; the mixture is Robbins's, 1970). If
  the accuracy is at or below the floor, `certifies` becomes true with a chance of at most alpha,
  however many labels come. If it is at or above the floor, the same applies to `refutes`.
- A drop after good times: an e-detector of Shiryaev-Roberts form (Shin, Ramdas and Rinaldo,
  "E-detectors", NEJSDS 2023), in which a new unit is staked before each label. No such test can
  keep false alarms rare forever and still be quick. While the accuracy is at or above the floor,
  the chance of a false alarm is at most alpha within the first `horizon` labels, k times that
  within k horizons, and the mean time until one is more than `horizon / alpha` labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from tierwise.errors import Misuse
from tierwise.text.hashing import hash_share

ALPHA = 0.05
HORIZON = 1000  # labels
# The odds of failing that are bet on, as multiples (or fractions) of the odds at the floor. A small
# one detects a small drop late, a large one a large drop early; the capital is spread over all.
BETS = (1.5, 2.25, 4.0)
# The share of alpha that `demotion` spends on `refutes`. The rest is for `dropped`, since most
# models are certified first and fall later.
_AT_ONCE = 0.2


def drawn(share: float, *item: str) -> bool:
    """Return True if an item is in the sample; the same item always gets the same answer."""
    return hash_share(*item) < share


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The labels so far, as evidence about an accuracy and a floor.

    An unscored label is no evidence, so it is left out. Each new certificate starts new evidence.
    """

    floor: float  # between 0 and 1
    passed: int = 0
    failed: int = 0
    # The detector's state: for each bet, the log of its capital with the next unit staked.
    staked: tuple[float, ...] = (0.0,) * len(BETS)

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise Misuse(
                f"audits show nothing about a floor of {self.floor:g}; it must lie between 0 and 1"
            )

    @property
    def n(self) -> int:
        """The number of labels so far."""
        return self.passed + self.failed

    @property
    def log_for(self) -> float:
        """The log e-value against "the accuracy is at most the floor"."""
        return self._log_capital(better=True)

    @property
    def log_against(self) -> float:
        """The log e-value against "the accuracy is at least the floor"."""
        return self._log_capital(better=False)

    def _log_capital(self, *, better: bool) -> float:
        """Return the log of the mean capital of the bets on a better, or on a worse accuracy."""
        growth = _growth(self.floor, better=better)
        # The order of the labels does not matter here: each multiplies the capital by a constant.
        return _log_mean(self.passed * up + self.failed * down for up, down in growth)

    @property
    def log_drop(self) -> float:
        """The log of the detector's capital: high if the accuracy fell below the floor."""
        return _log_mean(self.staked)

    def certifies(self, alpha: float = ALPHA) -> bool:
        """Return True if the accuracy is shown to be above the floor.

        Several candidates share one alpha.
        """
        return self.log_for >= -math.log(alpha)

    def refutes(self, alpha: float = ALPHA) -> bool:
        """Return True if the accuracy since the first label is shown to be below the floor."""
        return self.log_against >= -math.log(alpha)

    def dropped(self, alpha: float = ALPHA, horizon: int = HORIZON) -> bool:
        """Return True if the accuracy seems to have fallen below the floor at some time."""
        # One unit was staked before each label of the horizon, and one before the next.
        return self.log_drop >= math.log((horizon + 1) / alpha)


def update(evidence: Evidence, passed: bool) -> Evidence:
    """Return the evidence with one more label."""
    growth = _growth(evidence.floor, better=False)
    staked = []
    for log, (after_pass, after_failure) in zip(evidence.staked, growth, strict=True):
        step = after_pass if passed else after_failure
        # The capital grows by the bet, and a new unit is staked for the next label.
        staked.append(_log1p_exp(log + step))
    return Evidence(
        floor=evidence.floor,
        passed=evidence.passed + passed,
        failed=evidence.failed + (not passed),
        staked=tuple(staked),
    )


def demotion(
    evidence: Evidence, *, alpha: float = ALPHA, horizon: int = HORIZON
) -> str | None:
    """Return the reason why a model should no longer be used for a step; None if it may.

    A model whose accuracy is at or above the floor is demoted within `horizon` labels with a
    chance of at most alpha.
    """
    counts = f"{evidence.failed} of {evidence.n} audits failed"
    if evidence.refutes(alpha * _AT_ONCE):
        return f"{counts}: the accuracy is below the floor of {evidence.floor:g}"
    if evidence.dropped(alpha * (1 - _AT_ONCE), horizon):
        return (
            f"the accuracy fell below the floor of {evidence.floor:g} "
            f"({counts}, most of them lately)"
        )
    return None


def expected_until_demotion(
    evidence: Evidence,
    accuracy: float,
    *,
    alpha: float = ALPHA,
    horizon: int = HORIZON,
) -> float:
    """Return about how many labels with this accuracy lead to a demotion; infinity: none do.

    The capitals grow as expected, without the ups and downs of chance.
    """
    at_once = -math.log(alpha * _AT_ONCE)
    later = math.log((horizon + 1) / (alpha * (1 - _AT_ONCE)))
    fewest = math.inf
    growth = _growth(evidence.floor, better=False)
    for (up, down), staked in zip(growth, evidence.staked, strict=True):
        gain = accuracy * up + (1 - accuracy) * down
        if gain <= 0:
            continue
        capital = evidence.passed * up + evidence.failed * down
        # the units that are staked before each label add up to this in the long run
        units = -math.log1p(-math.exp(-gain))
        until = min(
            at_once + _log_of_bets() - capital,
            later + _log_of_bets() - max(staked, units),
        )
        fewest = min(fewest, max(until, 0.0) / gain)
    return fewest


def expected_until_certified(
    evidence: Evidence, accuracy: float, *, alpha: float = ALPHA
) -> float:
    """Return about how many labels with this accuracy show the floor; infinity: none do."""
    fewest = math.inf
    for up, down in _growth(evidence.floor, better=True):
        gain = accuracy * up + (1 - accuracy) * down
        if gain > 0:
            capital = evidence.passed * up + evidence.failed * down
            until = -math.log(alpha) + _log_of_bets() - capital
            fewest = min(fewest, max(until, 0.0) / gain)
    return fewest


def _log_of_bets() -> float:
    """Return the log of the number of bets: one of them has to reach this much more alone."""
    return math.log(len(BETS))


@lru_cache
def _growth(floor: float, *, better: bool) -> tuple[tuple[float, float], ...]:
    """Return, for each bet, the addition to the log of its capital by a pass and by a failure.

    A bet on the accuracy q multiplies the capital by q / floor after a pass, and by
    (1 - q) / (1 - floor) after a failure: on average by 1 at the floor, and by less on the side
    that is not bet on.
    """
    odds = (1 - floor) / floor
    growth = []
    for bet in BETS:
        odds_of_failing = odds / bet if better else odds * bet
        rate = 1 / (1 + odds_of_failing)
        after_pass = math.log(rate / floor)
        after_failure = math.log((1 - rate) / (1 - floor))
        growth.append((after_pass, after_failure))
    return tuple(growth)


def _log_mean(logs: Iterable[float]) -> float:
    """Return the log of the mean of the numbers that these are the logs of."""
    values = tuple(logs)
    # Relative to the greatest, as the numbers themselves may be too large for a float.
    top = max(values)
    total = math.fsum(math.exp(value - top) for value in values)
    return top + math.log(total / len(values))


def _log1p_exp(log: float) -> float:
    """Return log(1 + exp(log)) without overflow."""
    return max(log, 0.0) + math.log1p(math.exp(-abs(log)))
