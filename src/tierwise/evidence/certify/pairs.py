"""Two models on the same items: where they differ, and how many more labels would settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tierwise.evidence.certify.measure import ScoredExample
from tierwise.evidence.certify.paired_test import paired_p_value
from tierwise.policy.paired import score
from tierwise.text.amounts import plural

_MOST = 50  # times as many labels as there are now; more is no advice
_STEP = 1.05  # between two numbers of labels that are tried
_EXACT_TO = 5000  # items; above, the score statistic has to do


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a candidate delivers beside the reference at one threshold; None: everything."""

    threshold: float | None
    n: int
    lost: int  # items that the reference alone has right
    gained: int  # items that the candidate alone has right
    coverage: float = 1.0  # share of the items that the candidate answers itself

    @property
    def words(self) -> str:
        """The counts in words."""
        return f"{self.lost} lost and {self.gained} gained in {plural(self.n, 'label')}"

    def p_value(self, worse: float) -> float:
        """Return the chance of so good a result, if the candidate were worse by `worse`."""
        return paired_p_value(self.lost, self.gained, self.n, worse)

    def grown(self, times: float) -> Pairs:
        """Return the counts with this many times the labels, with differences at this rate."""
        n = round(self.n * times)
        lost = math.ceil(self.lost * times)
        return Pairs(
            self.threshold, n, lost, math.floor(self.gained * times), self.coverage
        )


@dataclass(frozen=True, slots=True)
class NextComparison:
    """The labels that would show a comparison, if further ones go like those so far."""

    floor: str  # in words
    more: int
    coverage: float  # share of the documents that the candidate would answer itself

    @property
    def sentence(self) -> str:
        """The labels and what they would show, in words."""
        labels = "1 more label" if self.more == 1 else f"{self.more} more labels"
        text = f"about {labels} like these would show {self.floor}"
        if self.coverage < 1:
            text += f", with {self.coverage:.0%} of the documents answered by it alone"
        return text


def pairs_of(
    threshold: float | None,
    delivered: Sequence[bool],
    reference: Sequence[ScoredExample],
    coverage: float = 1.0,
) -> Pairs:
    """Return the counts of what is delivered beside the reference, item by item."""
    lost = 0
    gained = 0
    for is_right, beside in zip(delivered, reference, strict=True):
        lost += beside.right and not is_right
        gained += is_right and not beside.right
    return Pairs(threshold, len(delivered), lost, gained, coverage)


def widest_pairs(tested: Sequence[Pairs], worse: float, level: float) -> Pairs | None:
    """Return the widest threshold that is shown, walking from the strictest until one fails.

    The thresholds are fixed before a golden answer is looked at, so each test has the full level.
    """
    widest = None
    for pairs in tested:
        if pairs.p_value(worse) > level:
            break
        widest = pairs
    return widest


def next_comparison(
    tested: Sequence[Pairs], worse: float, level: float, floor: str
) -> NextComparison | None:
    """Return the fewest labels that would show one of these, the widest; None: no number near.

    By the exact test, or for many items by the score statistic alone.
    """
    size = tested[0].n if tested else 0
    times = 1.0
    while size and times < _MOST:
        times = max(times * _STEP, (round(size * times) + 1) / size)
        shown = [
            pairs for pairs in tested if _likely_shows(pairs.grown(times), worse, level)
        ]
        if shown:
            widest = max(shown, key=lambda pairs: pairs.coverage)
            more = round(size * times) - size
            return NextComparison(floor, more, widest.coverage)
    return None


def _likely_shows(pairs: Pairs, worse: float, level: float) -> bool:
    from scipy.special import ndtri

    needed = float(ndtri(level))
    place = score(pairs.lost, pairs.gained, pairs.n, worse)
    if pairs.n > _EXACT_TO:
        return bool(place <= needed)
    # The normal distribution is some way off for few items: it only spares exact tests.
    return bool(place <= 0.8 * needed) and pairs.p_value(worse) <= level
