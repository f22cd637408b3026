"""A model's own confidence in its answers, as columns of a regression.

Confidences of different models are not on one scale: one says 0.99 to almost everything, another
0.3 to what it knows. So a confidence counts by its rank among those of the labelled items, through
a line with a few bends. It may mean something else with each answer: a service can be sure of
"positive" and right, and sure of "negative" and wrong. So frequent answers add lines of their own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tierwise.evidence.replay.outcomes import Floats, Words

_GRID = 200  # confidences kept of the labelled items, at equal distances in rank
_BENDS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)  # ranks
_LEAST_ANSWERS = 20  # labelled items with an answer that has lines of its own
_MOST_ANSWERS = 20


@dataclass(frozen=True, eq=False, slots=True)
class ConfidenceScale:
    """What the labelled items say about one model's confidences."""

    grid: Floats  # rising; empty where the model reported no confidence
    answers: tuple[str, ...]  # frequent ones

    def columns(self, confidences: Floats, answers: Words | None) -> Floats:
        """Return the columns (items, n) for these confidences and answers of the model."""
        import numpy

        unknown = numpy.isnan(confidences)
        ranks = numpy.zeros(len(confidences))
        if len(self.grid):
            # equal confidences get the middle of their ranks
            below = numpy.searchsorted(self.grid, confidences, side="left")
            up_to = numpy.searchsorted(self.grid, confidences, side="right")
            ranks = (below + up_to) / (2 * len(self.grid))
        bends = [numpy.maximum(ranks - bend, 0) for bend in _BENDS]
        line = numpy.column_stack([ranks, *bends])
        line[unknown] = 0
        parts = [line, unknown[:, None].astype(float)]
        if answers is not None:
            known = (~unknown).astype(float)
            with_constant = numpy.column_stack([known, line])
            for answer in self.answers:
                is_answer = (answers == answer)[:, None]
                parts.append(with_constant * is_answer)
        columns: Floats = numpy.hstack(parts)
        return columns


def scale_of(confidences: Floats, answers: Words | None) -> ConfidenceScale:
    """Learn one model's scale from its confidences and answers on labelled items."""
    import numpy

    known = numpy.sort(confidences[~numpy.isnan(confidences)])
    if len(known) > _GRID:
        evenly = numpy.linspace(0, len(known) - 1, _GRID).astype(int)
        known = known[evenly]
    frequent: list[str] = []
    if answers is not None:
        counts = Counter(answers.tolist())
        frequent = [
            answer
            for answer, count in counts.most_common(_MOST_ANSWERS)
            if count >= _LEAST_ANSWERS
        ]
    return ConfidenceScale(grid=known, answers=tuple(sorted(frequent)))
