"""An estimate of each model's quality on an item, relative to the strongest model's.

It is learned from labelled items; a label is the scores of all models on one item. What is learned
is the *difference* between a model and the strongest one, since a hard step on which both fail is
no reason to pay for the strongest. The estimate is a sum that an auditor can follow: the overall
difference, one slope for the prompt's length, and one number for each step. Slope and step numbers
are shrunken towards 0, the more the fewer labels a step has. How much in all is read from the
labels themselves (a mixed linear model, its two variances fitted by EM: Laird and Ware,
"Random-effects models for longitudinal data", Biometrics 1982).

Where texts are known, their latent terms have a slope each. An estimate *after the call* also uses
the model's own confidence in its answer. Both have a shrinkage of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tierwise.errors import ConfigError
from tierwise.evidence.replay import curve
from tierwise.evidence.replay.confidence import ConfidenceScale, scale_of
from tierwise.evidence.replay.outcomes import OutcomeTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierwise.evidence.replay.outcomes import Floats, Words

_ROUNDS = 100  # of EM; the estimates have settled to the third decimal after about 30
_FIRST_BETWEEN = 0.01  # variance with which EM begins
_LEAST_VARIANCE = 1e-6
_LEAST_PRICE = 0.01  # of the usual one


@dataclass(frozen=True, eq=False, kw_only=True)
class QualityEstimate:
    """Expected score of each candidate less that of the strongest, which is the last of them."""

    # cheapest first, without those more expensive and no better
    candidates: tuple[str, ...]
    steps: tuple[str, ...]
    labels: tuple[int, ...]  # of each step
    observed: Floats  # (steps, candidates): mean difference among the step's labels
    overall: Floats  # (candidates,)
    # (candidates,): for one standard deviation of the prompt's log length
    slope: Floats
    effects: Floats  # (steps, candidates): a step's own addition
    mean_length: float  # of log(1 + prompt tokens)
    length_spread: float  # its standard deviation
    mean_tokens: float
    # (2, candidates): the strongest's extra cost, a call and a prompt token
    extra_usd: Floats
    terms: Floats | None = None  # (latent terms, candidates): slopes
    # of each candidate, after its call; empty for an estimate before any call
    scales: tuple[ConfidenceScale, ...] = ()
    confidence: tuple[Floats, ...] = ()  # the weights of the scale's columns

    def quality(self, outcomes: OutcomeTable) -> Floats:
        """Return the estimated quality (items, candidates); 1 is as good as the strongest.

        It uses neither scores nor costs. Raises ConfigError where the items lack what was fitted on.
        """
        import numpy

        for name, needed, has in (
            ("texts", self.terms, outcomes.terms),
            ("column 'confidence'", self.scales or None, outcomes.confidences),
        ):
            if needed is not None and has is None:
                message = (
                    f"has no {name}, which the router was fitted on; record them too"
                )
                raise ConfigError(message, path=outcomes.path)

        no_effect = numpy.zeros(len(self.candidates))  # for a step without labels
        effects = numpy.vstack([self.effects, no_effect])
        rows = {step: row for row, step in enumerate(self.steps)}
        rows_of_items = [rows.get(step, -1) for step in outcomes.steps]
        lengths = (
            numpy.log1p(outcomes.prompt_tokens) - self.mean_length
        ) / self.length_spread
        quality = (
            1 + self.overall + lengths[:, None] * self.slope + effects[rows_of_items]
        )
        if self.terms is not None and outcomes.terms is not None:
            quality += outcomes.terms @ self.terms
        for model, scale in enumerate(self.scales):
            columns = scale.columns(*_confidence_and_answer(outcomes, model))
            quality[:, model] += columns @ self.confidence[model]
        return quality.round(curve.DECIMALS)

    def worth(self, outcomes: OutcomeTable) -> Floats:
        """Return the quality, with losses divided by the strongest model's relative price.

        An item on which the strongest costs twice as much as usual may lose twice as much. A floor
        on this spends the fewest USD for a quality; one on the quality makes the fewest strong
        calls.
        """
        import numpy

        a_call = self.extra_usd[0]
        a_token = self.extra_usd[1]
        usual = a_call + a_token * self.mean_tokens
        extra = a_call + a_token * outcomes.prompt_tokens[:, None]
        divisor = numpy.where(usual > 0, usual, 1)  # free models: no division by 0
        price = numpy.maximum(extra / divisor, _LEAST_PRICE)
        loss = 1 - self.quality(outcomes)
        worth: Floats = (1 - loss / price).round(curve.DECIMALS)
        return worth

    def cells(self) -> list[dict[str, Any]]:
        """Return the table by step for people: labels, observed and estimated qualities."""
        observed = 1 + self.observed
        estimated = 1 + self.overall + self.effects
        weaker = self.candidates[:-1]
        # qualities are kept as differences from the strongest model, whose quality is 1
        rows = []
        for i, step in enumerate(self.steps):
            row: dict[str, Any] = {"step": step, "labels": self.labels[i]}
            for j, name in enumerate(weaker):
                row[f"{name}: observed"] = f"{observed[i, j]:.3f}"
                row[f"{name}: estimated"] = f"{estimated[i, j]:.3f}"
            rows.append(row)
        return rows


def fit(
    labelled: OutcomeTable, *, after_call: bool = False, strongest: int | None = None
) -> QualityEstimate:
    """Learn from labelled items, one or more.

    With `after_call`, the estimate of a model uses its confidence in its answer; without
    confidences, that is the estimate before the call. `strongest` is the place of the model to
    compare with; None takes the best one by the labels.
    """
    import numpy

    if strongest is None:
        strongest = curve.best_single(labelled)
    candidates = strongest + 1
    differences = labelled.scores[:, :candidates] - labelled.scores[:, [strongest]]

    # one row an item: 1, its standardised length, and a 1 in the column of its step
    ones = numpy.ones(len(labelled))
    lengths = numpy.log1p(labelled.prompt_tokens)
    spread = float(lengths.std()) or 1.0
    steps, step_of_item = numpy.unique(labelled.steps, return_inverse=True)
    in_step = numpy.eye(len(steps))[step_of_item]
    standardised = (lengths - lengths.mean()) / spread
    blocks = [numpy.column_stack([ones, standardised, in_step])]
    if labelled.terms is not None:
        blocks.append(labelled.terms)
    scales: list[ConfidenceScale] = []
    if after_call and labelled.confidences is not None:
        scales = [
            scale_of(*_confidence_and_answer(labelled, model))
            for model in range(candidates)
        ]
    weights = []
    confidence = []
    for model, difference in enumerate(differences.T):
        of_model = list(blocks)
        if scales:
            of_model.append(
                scales[model].columns(*_confidence_and_answer(labelled, model))
            )
        found = _shrunken(of_model, difference)
        common = sum(block.shape[1] for block in blocks)
        weights.append(found[:common])
        confidence.append(found[common:])
    by_column = numpy.column_stack(weights)
    after_steps = 2 + len(steps)
    terms = None
    if labelled.terms is not None:
        terms = by_column[after_steps:]

    # the strongest model's extra cost, by least squares on the prompt's tokens
    saved = labelled.costs[:, :candidates]
    if after_call:
        saved = numpy.zeros_like(saved)  # the other call is paid already
    extra = labelled.costs[:, [strongest]] - saved
    tokens = numpy.column_stack([ones, labelled.prompt_tokens])
    extra_usd, *_ = numpy.linalg.lstsq(tokens, extra, rcond=None)

    counts = in_step.sum(axis=0)
    return QualityEstimate(
        candidates=labelled.models[:candidates],
        steps=tuple(steps.tolist()),
        labels=tuple(counts.astype(int).tolist()),
        observed=in_step.T @ differences / counts[:, None],
        overall=by_column[0],
        slope=by_column[1],
        effects=by_column[2:after_steps],
        mean_length=float(lengths.mean()),
        length_spread=spread,
        mean_tokens=float(labelled.prompt_tokens.mean()),
        extra_usd=extra_usd.astype(float),
        terms=terms,
        scales=tuple(scales),
        confidence=tuple(confidence) if scales else (),
    )


def _confidence_and_answer(
    outcomes: OutcomeTable, model: int
) -> tuple[Floats, Words | None]:
    """Return one model's confidence in each item, nan where it has none, and its answers."""
    import numpy

    confidences = numpy.full(len(outcomes), numpy.nan)
    if outcomes.confidences is not None:
        confidences = outcomes.confidences[:, model]
    answers = None
    if outcomes.answers is not None:
        answers = outcomes.answers[:, model]
    return confidences, answers


def _shrunken(blocks: Sequence[Floats], target: Floats) -> Floats:
    """Return the weights of a ridge regression whose strengths are found by EM.

    Each block of columns has a strength of its own. The first column of all, the overall
    difference, is not shrunken.
    """
    import numpy

    columns = numpy.hstack(list(blocks))
    gram = columns.T @ columns
    moments = columns.T @ target
    total = float(target @ target)
    ends = numpy.cumsum([block.shape[1] for block in blocks])
    parts = [
        # without the first column of all
        slice(max(end - block.shape[1], 1), end)
        for block, end in zip(blocks, ends, strict=True)
    ]
    # variance of the weights of each block
    between = numpy.full(len(gram), _FIRST_BETWEEN)
    # variance of an item about its estimate
    within = max(float(target.var()), _LEAST_VARIANCE)
    weights = numpy.zeros(len(gram))
    shrunken = numpy.ones(len(gram))
    shrunken[0] = 0
    # formulas: Laird and Ware (1982), as the module's docstring says
    for _ in range(_ROUNDS):
        # E step: the weights, and the variance of each, given the variances
        strength = numpy.diag(shrunken * within / between)
        inverse = numpy.linalg.inv(gram + strength)
        weights = inverse @ moments
        variances = within * numpy.diag(inverse)
        # M step: the variances, given the weights
        residual = total - 2 * weights @ moments + weights @ gram @ weights
        expected_residual = float(residual + within * (gram * inverse).sum())
        within = max(expected_residual / len(target), _LEAST_VARIANCE)
        for part in parts:
            expected_square = float((weights[part] ** 2 + variances[part]).mean())
            between[part] = max(expected_square, _LEAST_VARIANCE)
    return weights
