"""Sequential tests of an accuracy, which may be evaluated after every label.

Each label is a bet at odds that are fair when the accuracy is exactly the floor. A capital that grew
twentyfold from such bets shows at alpha 0.05 that the accuracy is not the floor: Ville's inequality
applies at all times at once, so that evaluating after each label costs nothing. The one assumption:
the labelled documents were drawn at random, before their outcome was seen. The accuracy may vary.

- For and against the floor: a capital spread over a few bets (Waudby-Smith and Ramdas, "Estimating
  means of bounded random variables by betting", JRSS B 2023; the mixture is Robbins's, 1970). With a
  accuracy at or below the floor, `certifies` is ever true with a chance of at most alpha, however many
  labels come; with one at or above it, the same holds for `refutes`.
- A drop after good times: an e-detector of Shiryaev-Roberts form (Shin, Ramdas and Rinaldo,
  "E-detectors", NEJSDS 2023), in which a new unit is staked before each audit. No such test can keep
  false alarms rare forever and still be quick. While the accuracy is at or above the floor, the chance
  of a false alarm is at most alpha within the first `horizon` audits, k times that within k horizons,
  and the mean time until one is more than `horizon / alpha` audits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from tierwise.errors import Misuse
from tierwise.text.hashing import hash_share

ALPHA = 0.05
HORIZON = 1000  # audits
# Odds of failing that are bet on, as multiples (or fractions) of the odds at the floor.
BETS = (1.5, 2.25, 4.0)
_AT_ONCE = 0.2  # share of alpha that `demotion` spends on `refutes`


def drawn(share: float, *item: str) -> bool:
    """Return True if an item is in the sample; the same item always gets the same answer."""
    return hash_share(*item) < share


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The labels so far as evidence on an accuracy and a floor. Plain numbers, stored as they are.

    `staked` is the state of the detector: per bet, the log of its capital with the next unit staked.
    An unscored audit says nothing: leave it out. Start anew with each new certificate.
    """

    floor: float  # between 0 and 1
    passed: int = 0
    failed: int = 0
    staked: tuple[float, ...] = (0.0,) * len(BETS)

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise Misuse(
                f"audits show nothing about a floor of {self.floor:g}; it must lie between 0 and 1"
            )

    @property
    def n(self) -> int:
        """Labels so far."""
        return self.passed + self.failed

    @property
    def log_for(self) -> float:
        """Log e-value against "the accuracy is at most the floor"."""
        return _log_mean(
            self.passed * up + self.failed * down
            for up, down in _growth(self.floor, better=True)
        )

    @property
    def log_against(self) -> float:
        """Log e-value against "the accuracy is at least the floor"."""
        return _log_mean(
            self.passed * up + self.failed * down
            for up, down in _growth(self.floor, better=False)
        )

    @property
    def log_drop(self) -> float:
        """Log of the detector's capital: high when the accuracy fell below the floor, whenever that was."""
        return _log_mean(self.staked)

    def certifies(self, alpha: float = ALPHA) -> bool:
        """Return True if the accuracy is shown to be above the floor; share alpha among candidates."""
        return self.log_for >= -math.log(alpha)

    def refutes(self, alpha: float = ALPHA) -> bool:
        """Return True if the accuracy since the first label is shown to be below the floor."""
        return self.log_against >= -math.log(alpha)

    def dropped(self, alpha: float = ALPHA, horizon: int = HORIZON) -> bool:
        """Return True if the accuracy seems to have fallen below the floor at some time."""
        return self.log_drop >= math.log((horizon + 1) / alpha)


def update(evidence: Evidence, passed: bool) -> Evidence:
    """Return the evidence with one more label."""
    growth = _growth(evidence.floor, better=False)
    steps = (up if passed else down for up, down in growth)
    return Evidence(
        floor=evidence.floor,
        passed=evidence.passed + passed,
        failed=evidence.failed + (not passed),
        staked=tuple(
            _log1p_exp(log + step)
            for log, step in zip(evidence.staked, steps, strict=True)
        ),
    )


def demotion(
    evidence: Evidence, *, alpha: float = ALPHA, horizon: int = HORIZON
) -> str | None:
    """Return why a model should no longer be used for a step, or None.

    A model whose accuracy is at or above the floor is demoted within `horizon` audits with a chance of
    at most alpha: a fifth of it is spent on `refutes`, the rest on `dropped`.
    """
    counts = f"{evidence.failed} of {evidence.n} audits failed"
    if evidence.refutes(alpha * _AT_ONCE):
        return f"{counts}: the accuracy is below the floor of {evidence.floor:g}"
    if evidence.dropped(alpha * (1 - _AT_ONCE), horizon):
        return f"the accuracy fell below the floor of {evidence.floor:g} ({counts}, most of them lately)"
    return None


@lru_cache
def _growth(floor: float, *, better: bool) -> tuple[tuple[float, float], ...]:
    """Per bet, what a pass and a failure add to the log of its capital.

    A bet on the accuracy q multiplies the capital by q / floor after a pass, by (1 - q) / (1 - floor)
    after a failure: on average by one at the floor, and by less on the side that is not bet on.
    """
    odds = (1 - floor) / floor
    rates = [1 / (1 + (odds / bet if better else odds * bet)) for bet in BETS]
    return tuple(
        (math.log(rate / floor), math.log((1 - rate) / (1 - floor))) for rate in rates
    )


def _log_mean(logs: Iterable[float]) -> float:
    """Return the log of the mean of what these are logs of."""
    values = tuple(logs)
    top = max(values)
    return top + math.log(
        math.fsum(math.exp(value - top) for value in values) / len(values)
    )


def _log1p_exp(log: float) -> float:
    """log(1 + exp(log)) without overflow."""
    return max(log, 0.0) + math.log1p(math.exp(-abs(log)))
