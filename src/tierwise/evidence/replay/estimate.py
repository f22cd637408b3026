"""How good each model's answer to an item will be, beside the strongest model's, learned from labelled items.

A label is the scores of all models on one item; what is learned is the *difference* between a model and the
strongest one, since a hard step on which both fail is no reason to pay for the strongest. The estimate is a
sum that an auditor can follow: the overall difference, one slope for the prompt's length, and one number for
each step. Slope and step numbers are shrunken towards 0, the more the fewer labels a step has; how much in
all is read off the labels themselves (a mixed linear model, its two variances fitted by EM: Laird and Ware,
"Random-effects models for longitudinal data", Biometrics 1982).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tierwise.evidence.replay.curve import DECIMALS
from tierwise.evidence.replay.outcomes import Outcomes

if TYPE_CHECKING:
    from tierwise.evidence.replay.outcomes import Floats

_ROUNDS = 100  # of EM; the estimates have settled to the third decimal after about 30
_LEAST_VARIANCE = 1e-6
_LEAST_PRICE = 0.01  # of the usual one


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimate:
    """Expected score of each candidate less that of the strongest, which is the last of them."""

    candidates: tuple[str, ...]  # cheapest first; models both dearer and no better are left out
    steps: tuple[str, ...]
    labels: tuple[int, ...]  # of each step
    observed: Floats  # (steps, candidates): mean difference among the step's labels
    overall: Floats  # (candidates,)
    slope: (
        Floats  # (candidates,): for one standard deviation of the logarithm of the prompt's length
    )
    effects: Floats  # (steps, candidates): what a step adds
    mean_length: float  # of log(1 + prompt tokens)
    length_spread: float  # its standard deviation
    mean_tokens: float
    extra_usd: Floats  # (2, candidates): what the strongest costs more, in all calls and for each prompt token

    def quality(self, outcomes: Outcomes) -> Floats:
        """Estimated quality (items, candidates) relative to the strongest: 1 is as good. Uses no score or cost."""
        import numpy

        place = {step: i for i, step in enumerate(self.steps)}
        effects = numpy.vstack(
            [self.effects, numpy.zeros(len(self.candidates))]
        )  # the last: a step without labels
        lengths = (numpy.log1p(outcomes.prompt_tokens) - self.mean_length) / self.length_spread
        known = effects[[place.get(step, -1) for step in outcomes.steps]]
        return (1 + self.overall + lengths[:, None] * self.slope + known).round(DECIMALS)

    def worth(self, outcomes: Outcomes) -> Floats:
        """The quality, but an item on which the strongest costs twice as much as usual may lose twice as much.

        A floor on it spends the fewest USD for a quality, where one on the quality makes the fewest strong calls.
        """
        import numpy

        tokens = outcomes.prompt_tokens[:, None]
        usual = self.extra_usd[0] + self.extra_usd[1] * self.mean_tokens
        extra = self.extra_usd[0] + self.extra_usd[1] * tokens
        price = numpy.maximum(extra / numpy.where(usual > 0, usual, 1), _LEAST_PRICE)
        worth: Floats = (1 - (1 - self.quality(outcomes)) / price).round(DECIMALS)
        return worth

    def cells(self) -> list[dict[str, Any]]:
        """The table by step for people: labels, and for each candidate what was observed and what is estimated."""
        rows = []
        for i, step in enumerate(self.steps):
            row: dict[str, Any] = {"step": step, "labels": self.labels[i]}
            for j, name in enumerate(self.candidates[:-1]):
                row[f"{name}: observed"] = f"{1 + self.observed[i, j]:.3f}"
                row[f"{name}: estimated"] = f"{1 + self.overall[j] + self.effects[i, j]:.3f}"
            rows.append(row)
        return rows


def fit(labelled: Outcomes) -> Estimate:
    """Learn from labelled items, one or more."""
    import numpy

    strongest = int(labelled.scores.mean(axis=0).argmax())  # the cheapest among equals
    differences = labelled.scores[:, : strongest + 1] - labelled.scores[:, [strongest]]
    lengths = numpy.log1p(labelled.prompt_tokens)
    spread = float(lengths.std()) or 1.0
    steps, which = numpy.unique(labelled.steps, return_inverse=True)
    in_step = numpy.eye(len(steps))[which]
    columns = numpy.column_stack(
        [numpy.ones(len(which)), (lengths - lengths.mean()) / spread, in_step]
    )
    extra = labelled.costs[:, [strongest]] - labelled.costs[:, : strongest + 1]
    tokens = numpy.column_stack([numpy.ones(len(which)), labelled.prompt_tokens])
    weights = numpy.column_stack([_shrunken(columns, difference) for difference in differences.T])
    counts = in_step.sum(axis=0)
    return Estimate(
        candidates=labelled.models[: strongest + 1],
        steps=tuple(steps.tolist()),
        labels=tuple(counts.astype(int).tolist()),
        observed=in_step.T @ differences / counts[:, None],
        overall=weights[0],
        slope=weights[1],
        effects=weights[2:],
        mean_length=float(lengths.mean()),
        length_spread=spread,
        mean_tokens=float(labelled.prompt_tokens.mean()),
        extra_usd=numpy.linalg.lstsq(tokens, extra, rcond=None)[0].astype(float),
    )


def _shrunken(columns: Floats, target: Floats) -> Floats:
    """Weights of a ridge regression that leaves the first column alone, its strength found by EM."""
    import numpy

    gram = columns.T @ columns
    moments = columns.T @ target
    total = float(target @ target)
    between = 0.01
    within = max(float(target.var()), _LEAST_VARIANCE)
    weights = numpy.zeros(len(gram))
    free = numpy.eye(len(gram))
    free[0, 0] = 0
    for _ in range(_ROUNDS):
        inverse = numpy.linalg.inv(gram + free * (within / between))
        weights = inverse @ moments
        doubt = within * numpy.diag(inverse)  # the variance of each weight
        residual = total - 2 * weights @ moments + weights @ gram @ weights
        within = max(
            float(residual + within * (gram * inverse).sum()) / len(target), _LEAST_VARIANCE
        )
        between = max(float((weights[1:] ** 2 + doubt[1:]).mean()), _LEAST_VARIANCE)
    return weights
