"""The level of each test: alpha is shared by the looks at a step's labels, and by the candidates.

A step's labels may be looked at again: with more labels, another floor, another prompt, further
candidates. All looks together have alpha, so that at most a share alpha of the steps with nothing
to certify ever gets a wrong certificate, however often one looks (alpha spending; Lan and DeMets,
"Discrete sequential boundaries for clinical trials", 1983). The candidates of one look share its
level by Holm's procedure (Holm, "A simple sequentially rejective multiple test procedure", 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tierwise.policy.certificates import ALPHA

FIRST_LOOK = 0.6  # of alpha; the rest is for all later looks together

C = TypeVar("C", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Level:
    """The alpha of a look, and the number of candidates that share it."""

    alpha: float
    compared: int

    @property
    def each(self) -> float:
        """The chance of a wrong certificate that one candidate may take."""
        return self.alpha / self.compared


def alpha_of_look(number: int) -> float:
    """Return the share of ALPHA that the look with this number may spend; the first is 1.

    The shares of all looks add up to ALPHA: .03, then .01, .0033, .0017, .001 and so on, as
    1 / (k (k + 1)), which falls slowly.
    """
    if number == 1:
        return ALPHA * FIRST_LOOK
    earlier = number - 1
    return ALPHA * (1 - FIRST_LOOK) / (earlier * (earlier + 1))


def share_level(
    candidates: Sequence[C], alpha: float, is_shown: Callable[[C, Level], bool]
) -> dict[C, Level]:
    """Return the level at which each candidate is tested, by Holm's procedure.

    `is_shown` says if a candidate is shown to meet the floor in all that it answers: only then does
    its part of alpha pass to the others. One that is certified where it is surest has wider
    thresholds that may be wrong, and keeps its part for them.
    """
    level = Level(alpha, max(1, len(candidates)))
    levels: dict[C, Level] = {}
    open_candidates = list(candidates)
    while open_candidates:
        shown = [
            candidate for candidate in open_candidates if is_shown(candidate, level)
        ]
        levels.update(dict.fromkeys(open_candidates, level))
        open_candidates = [
            candidate for candidate in open_candidates if candidate not in shown
        ]
        if not shown:
            break
        level = Level(alpha, max(1, len(open_candidates)))
    return levels
