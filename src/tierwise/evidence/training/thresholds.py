"""From which confidence on a classifier may answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tierwise.errors import Misuse


@dataclass(frozen=True, slots=True)
class Threshold:
    """Answers with at least this confidence count; the others go on to the next model.

    `coverage` and `expected_accuracy` are what the examples showed that it was fitted on. The accuracy is
    a little too good, since the threshold was chosen on them: certify it on others.
    """

    threshold: float
    coverage: float  # share of the examples that are answered
    expected_accuracy: float  # share of right ones among the answered


def fit_threshold(
    confidences: Sequence[float], correct: Sequence[bool], floor: float, *, alpha: float = 0.05
) -> Threshold | None:
    """The lowest threshold whose answered examples show, at level `alpha`, an accuracy of at least `floor`.

    Showing means the exact one-sided binomial bound of Clopper and Pearson. None when no threshold does,
    as when there are fewer than 59 examples for a floor of 0.95. Raises Misuse on senseless arguments.
    """
    if len(confidences) != len(correct) or not (0 < floor < 1 and 0 < alpha < 1):
        raise Misuse(
            f"no threshold for {len(confidences)} confidences, {len(correct)} results, floor {floor}"
        )
    from scipy.special import bdtr

    ranked = sorted(zip(confidences, correct, strict=True), key=lambda pair: -pair[0])
    right = list(accumulate(int(ok) for _, ok in ranked))
    for n in range(len(ranked), 0, -1):
        cuts_between_equals = n < len(ranked) and ranked[n][0] == ranked[n - 1][0]
        if not cuts_between_equals and bdtr(n - right[n - 1], n, 1 - floor) <= alpha:
            return Threshold(ranked[n - 1][0], n / len(ranked), right[n - 1] / n)
    return None
