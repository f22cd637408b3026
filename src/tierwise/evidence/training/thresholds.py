"""Confidence thresholds: a classifier answers above its threshold and hands on the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tierwise.errors import Misuse


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least confidence of an answer that counts; the others go to the next model.

    `coverage` and `expected_accuracy` are those of the examples that it was fitted on. The accuracy
    is a little too good, since the threshold was chosen on them: certify it on others.
    """

    threshold: float
    coverage: float  # share of the examples that are answered
    expected_accuracy: float  # share of right ones among the answered


def fit_threshold(
    confidences: Sequence[float],
    correct: Sequence[bool],
    floor: float,
    *,
    alpha: float = 0.05,
) -> Threshold | None:
    """Return the lowest threshold whose answers show an accuracy of at least `floor`.

    They show it if the exact one-sided binomial bound of Clopper and Pearson at level `alpha` is at
    least the floor. None when no threshold does, as with fewer than 59 examples for a floor of
    0.95. Raises Misuse for arguments that make no sense.
    """
    if len(confidences) != len(correct) or not (0 < floor < 1 and 0 < alpha < 1):
        raise Misuse(
            f"no threshold for {len(confidences)} confidences, {len(correct)} results, "
            f"floor {floor}"
        )
    from scipy.special import bdtr

    ranked = sorted(zip(confidences, correct, strict=True), key=lambda pair: -pair[0])
    # right[n - 1] is the number of right answers among the n with the most confidence
    right = list(accumulate(int(is_right) for _, is_right in ranked))
    for n in range(len(ranked), 0, -1):
        least = ranked[n - 1][0]
        if n < len(ranked) and ranked[n][0] == least:
            continue  # no threshold lies between two equal confidences
        errors = n - right[n - 1]
        # the chance of so few errors if the accuracy were just the floor
        if bdtr(errors, n, 1 - floor) <= alpha:
            return Threshold(least, n / len(ranked), right[n - 1] / n)
    return None
