"""Training: TF-IDF and logistic regression, tuned and calibrated on texts that it was not fitted to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NamedTuple

from tierwise.errors import ConfigError
from tierwise.evidence.training.labelled import Labelled, data_hash
from tierwise.gateway.learned.classifier import (
    Classifier,
    ClassifierMetadata,
    CoveragePoint,
    fingerprint,
    identity_of,
)
from tierwise.records import Sensitivity
from tierwise.text.terms import RECIPE, Terms, vectorisers

LEAST_PER_LABEL = 3
_FOLDS = 5
_CHOICES = (1.0, 8.0, 64.0)  # accuracy hardly moves within a factor of 8
_SHARES = (1.0, 0.75, 0.5, 0.25)


class _Tuned(NamedTuple):
    """The choice with the least log loss. `likely` are log-probabilities (texts x labels) of texts left out."""

    loss: float
    regularisation: float
    temperature: float
    likely: Any


def train(
    examples: Sequence[Labelled], *, seed: int = 0, sensitivity: Sensitivity = "restricted"
) -> Classifier:
    """A classifier for the labels that the examples have. Same data in any order, same classifier.

    `sensitivity` is the highest of the examples. Takes a second for 5 labels and 130 examples, half a minute
    for 77 and 3,000. Raises ConfigError when there are fewer than two labels or three examples of one.
    """
    import numpy
    import sklearn.linear_model  # noqa: F401 - first, as only libraries that are loaded can be limited
    from threadpoolctl import threadpool_limits

    counts = Counter(example.label for example in examples)
    _check(counts)
    ordered = sorted(examples, key=lambda example: (example.text, example.label))
    texts = [example.text for example in ordered]
    labels, right = numpy.unique([example.label for example in ordered], return_inverse=True)
    with threadpool_limits(
        1
    ):  # more threads are slower here, and would make sums depend on the machine
        tuned = _tuned(texts, right, min(_FOLDS, *counts.values()), seed)
        union = vectorisers()
        model = (
            _regression().set_params(C=tuned.regularisation).fit(union.fit_transform(texts), right)
        )
    weights, bias = _per_label(model)
    metadata = ClassifierMetadata(
        labels=tuple(labels.tolist()),
        n=len(ordered),
        surest=_surest(tuned.likely, right),
        sensitivity=sensitivity,
        data_hash=data_hash(ordered),
        seed=seed,
        trained_on=datetime.now(UTC).date().isoformat(),
        regularisation=tuned.regularisation,
        temperature=tuned.temperature,
        scikit_learn=version("scikit-learn"),
    )
    scaled = [value / tuned.temperature for value in bias.tolist()]
    return Classifier(
        metadata, Terms.fitted(union), weights / tuned.temperature, scaled, map(fingerprint, texts)
    )


def identity_before(examples: Sequence[Labelled], *, seed: int = 0) -> str:
    """The identity that `train` would give, without training."""
    return identity_of(data_hash(examples), RECIPE, seed, version("scikit-learn"))


def _check(counts: Counter[str]) -> None:
    if len(counts) < 2:
        raise ConfigError(
            f"a classifier needs examples of two labels; found: {', '.join(counts) or 'none'}"
        )
    rarest, number = min(counts.items(), key=lambda pair: (pair[1], pair[0]))
    if number < LEAST_PER_LABEL:
        remedy = f"add some, or leave the label out; {LEAST_PER_LABEL} are the least"
        raise ConfigError(f"too few examples of the label '{rarest}' ({number}): {remedy}")


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def _tuned(texts: list[str], right: Any, folds: int, seed: int) -> _Tuned:
    """The C and the temperature with the least log loss on texts that were left out of the fit.

    One temperature for all labels keeps their order and needs little data: Guo and others,
    "On calibration of modern neural networks", ICML 2017. As in Platt's scaling (1999), one label in n + 2
    counts as doubtful: a handful of easy examples would otherwise prove certainty.
    """
    import numpy
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    doubt = 1 / (len(right) + 2)
    tried: list[_Tuned] = []
    for choice, scores in zip(_CHOICES, _left_out(texts, right, folds, seed), strict=True):

        def likely(log_temperature: float, scores: Any = scores) -> Any:
            return log_softmax(scores / numpy.exp(log_temperature), axis=1)

        def loss(log_temperature: float, likely: Any = likely) -> float:
            each = likely(log_temperature)
            return -float(
                (1 - doubt) * each[numpy.arange(len(right)), right].mean() + doubt * each.mean()
            )

        best = minimize_scalar(loss, bounds=(-5, 3), method="bounded")
        tried.append(_Tuned(float(best.fun), choice, float(numpy.exp(best.x)), likely(best.x)))
    return min(tried, key=lambda tuned: tuned[:3])


def _left_out(texts: list[str], right: Any, folds: int, seed: int) -> Any:
    """The scores (choices x texts x labels) of each text from fits without it."""
    import numpy
    from sklearn.model_selection import StratifiedKFold

    scores = numpy.zeros((len(_CHOICES), len(texts), right.max() + 1))
    for fitted, left_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(
        texts, right
    ):
        union = vectorisers()
        known = union.fit_transform([texts[place] for place in fitted])
        unknown = union.transform([texts[place] for place in left_out])
        model = _regression().set_params(
            warm_start=True
        )  # from one choice to the next: a third of the time
        for number, choice in enumerate(_CHOICES):
            weights, bias = _per_label(model.set_params(C=choice).fit(known, right[fitted]))
            scores[number, left_out] = unknown @ weights + bias
    return scores


def _surest(likely: Any, right: Any) -> tuple[CoveragePoint, ...]:
    """How right the surest answers are, for some shares of all."""
    import numpy

    confidence = numpy.exp(likely.max(axis=1))
    order = numpy.argsort(-confidence, kind="stable")
    hit = (likely.argmax(axis=1) == right)[order]
    sizes = [(share, max(1, round(share * len(order)))) for share in _SHARES]
    return tuple(
        CoveragePoint(
            share=share,
            confidence=float(confidence[order[size - 1]]),
            accuracy=float(hit[:size].mean()),
        )
        for share, size in sizes
    )


def _per_label(model: Any) -> tuple[Any, Any]:
    """Weights (terms x labels, every row with the mean 0) and bias of a fitted logistic regression."""
    import numpy

    weights = model.coef_
    bias = model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two labels
        weights = numpy.vstack([-weights, weights]) / 2
        bias = numpy.concatenate([-bias, bias]) / 2
    return numpy.ascontiguousarray((weights - weights.mean(axis=0)).T), bias - bias.mean()
