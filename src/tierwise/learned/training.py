"""Training: TF-IDF and logistic regression, tuned and calibrated on texts that it was not fitted to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tierwise.errors import ConfigError
from tierwise.learned.classifier import Classifier, Head, fingerprint
from tierwise.learned.labelled import Labelled, data_hash
from tierwise.learned.terms import Terms, vectorisers

LEAST_PER_LABEL = 3
_FOLDS = 5
_CHOICES = (1.0, 8.0, 64.0)  # accuracy hardly moves within a factor of 8


def train(examples: Sequence[Labelled], *, seed: int = 0) -> Classifier:
    """A classifier for the labels that the examples have. Same data in any order, same classifier.

    Takes seconds, for 77 labels and 2,400 examples about a minute. Raises ConfigError when there are
    fewer than two labels or fewer than three examples of one.
    """
    from threadpoolctl import threadpool_limits

    counts = Counter(example.label for example in examples)
    _check(counts)
    ordered = sorted(examples, key=lambda example: (example.text, example.label))
    texts = [example.text for example in ordered]
    labels = [example.label for example in ordered]
    with threadpool_limits(1):  # more threads are slower here, and would make sums depend on the machine
        regularisation, temperature = _tuned(texts, labels, min(_FOLDS, *counts.values()), seed)
        model = _model(regularisation).fit(texts, labels)
    weights, bias = _per_label(model[-1])
    head = Head(
        labels=tuple(model[-1].classes_.tolist()),
        n=len(ordered),
        data_hash=data_hash(ordered),
        seed=seed,
        trained_on=datetime.now(UTC).date().isoformat(),
        regularisation=regularisation,
        temperature=temperature,
        scikit_learn=version("scikit-learn"),
    )
    scaled = [value / temperature for value in bias.tolist()]
    return Classifier(head, Terms.fitted(model[0]), weights / temperature, scaled, map(fingerprint, texts))


def _check(counts: Counter[str]) -> None:
    if len(counts) < 2:
        raise ConfigError(f"a classifier needs examples of two labels; found: {', '.join(counts) or 'none'}")
    rarest, number = min(counts.items(), key=lambda pair: (pair[1], pair[0]))
    if number < LEAST_PER_LABEL:
        remedy = f"add some, or leave the label out; {LEAST_PER_LABEL} are the least"
        raise ConfigError(f"too few examples of the label '{rarest}' ({number}): {remedy}")


def _model(regularisation: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(vectorisers(), LogisticRegression(C=regularisation, max_iter=1000))


def _tuned(texts: list[str], labels: list[str], folds: int, seed: int) -> tuple[float, float]:
    """The C and the temperature with the least log loss on texts that were left out of the fit.

    One temperature for all labels keeps their order and needs little data: Guo and others,
    "On calibration of modern neural networks", ICML 2017. As in Platt's scaling (1999), one label in n + 2
    counts as doubtful: a handful of easy examples would otherwise prove certainty.
    """
    import numpy
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    right = numpy.unique(labels, return_inverse=True)[1]
    doubt = 1 / (len(labels) + 2)
    tried: list[tuple[float, float, float]] = []
    for choice in _CHOICES:
        scores = cross_val_predict(_model(choice), texts, labels, cv=parts, method="decision_function")
        scores = numpy.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores

        def loss(log_temperature: float, scores: Any = scores) -> float:
            likely = log_softmax(scores / numpy.exp(log_temperature), axis=1)
            return -float((1 - doubt) * likely[numpy.arange(len(right)), right].mean() + doubt * likely.mean())

        best = minimize_scalar(loss, bounds=(-5, 3), method="bounded")
        tried.append((float(best.fun), choice, float(numpy.exp(best.x))))
    _, regularisation, temperature = min(tried)
    return regularisation, temperature


def _per_label(model: Any) -> tuple[Any, Any]:
    """Weights (terms x labels, every row with the mean 0) and bias of a fitted logistic regression."""
    import numpy

    weights, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two labels
        weights, bias = numpy.vstack([-weights, weights]) / 2, numpy.concatenate([-bias, bias]) / 2
    return numpy.ascontiguousarray((weights - weights.mean(axis=0)).T), bias - bias.mean()
