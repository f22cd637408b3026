"""Training: logistic regression, tuned and calibrated by cross-validation.

Each member of a classifier has features of its own (`features`). Their log-probabilities are added, and
one temperature for the sum is fitted on texts that were left out of the fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NamedTuple

from tierwise.errors import ConfigError
from tierwise.evidence.training.features import (
    Features,
    TermsFeatures,
    VectorFeatures,
)
from tierwise.evidence.training.labelled import Labelled, data_hash
from tierwise.gateway.learned.classifier import (
    EMBEDDED_RECIPE,
    Classifier,
    ClassifierMetadata,
    CoveragePoint,
    MemberMetadata,
    fingerprint,
    identity_of,
)
from tierwise.gateway.learned.members import Member
from tierwise.records import Sensitivity
from tierwise.text.terms import RECIPE
from tierwise.text.vectors import Encoder

LEAST_PER_LABEL = 3
_FOLDS = 5
_SHARES = (1.0, 0.75, 0.5, 0.25)  # of the examples, for people to read
# of the examples, the surest first, for the thresholds that a certificate may have
_THRESHOLD_SHARES = tuple(place / 40 for place in range(1, 41))


class _Tuned(NamedTuple):
    """One C with its best temperature, and the log loss of both.

    `log_probabilities` (texts x labels) are those of texts that were left out of the fit.
    """

    loss: float
    regularisation: float
    temperature: float
    log_probabilities: Any


def train(
    examples: Sequence[Labelled],
    *,
    seed: int = 0,
    sensitivity: Sensitivity = "restricted",
    labels: Iterable[str] = (),
    encoders: Mapping[str, Encoder] | None = None,
    terms: bool = True,
    teacher: str = "",
) -> Classifier:
    """Train a classifier for the labels of the examples; their order makes no difference.

    Labels with fewer than three examples are left out, and listed in the metadata; `labels` names
    those that have none at all. `sensitivity` is the highest of the examples. `encoders` are those
    of its embedders, by their names in the catalog; `terms` adds TF-IDF, which is all there is
    without encoders. `teacher` is the model whose labels these are, where no
    person gave them. By terms alone it takes a second for 5 labels and 130 examples, half a minute
    for 77 and 3,000. Raises ConfigError when fewer than two labels have enough examples.
    """
    import numpy
    import sklearn.linear_model  # noqa: F401 - first, as only loaded libraries can be limited
    from threadpoolctl import threadpool_limits

    left_out = labels_left_out(examples, labels)
    learnable = _learnable(examples)
    counts = Counter(example.label for example in learnable)
    if len(counts) < 2:
        _refuse(counts, left_out)
    ordered = sorted(learnable, key=lambda example: (example.text, example.label))
    texts = [example.text for example in ordered]
    known_labels, right = numpy.unique(
        [example.label for example in ordered], return_inverse=True
    )
    folds = min(_FOLDS, *counts.values())
    named = encoders or {}
    # an encoder has threads of its own: it is not limited
    features = [VectorFeatures(name, named[name], texts, sensitivity) for name in named]
    every_feature: list[Features] = [*features]
    if terms or not features:
        every_feature.insert(0, TermsFeatures(texts))
    # more threads are slower here, and would make sums depend on the machine
    with threadpool_limits(1):
        tuned = [_tuned(some, right, folds, seed) for some in every_feature]
        members = [
            _fitted(some, best, right)
            for some, best in zip(every_feature, tuned, strict=True)
        ]
    combined = tuned[0]
    if len(tuned) > 1:
        total = sum(each.log_probabilities for each in tuned)
        combined = _with_temperature(tuned[0].regularisation, total, right)
    metadata = ClassifierMetadata(
        labels=tuple(known_labels.tolist()),
        n=len(ordered),
        surest=_coverage_points(combined.log_probabilities, right, _SHARES),
        thresholds=_coverage_points(
            combined.log_probabilities, right, _THRESHOLD_SHARES
        ),
        sensitivity=sensitivity,
        data_hash=data_hash(ordered),
        seed=seed,
        trained_on=datetime.now(UTC).date().isoformat(),
        regularisation=combined.regularisation,
        temperature=combined.temperature,
        scikit_learn=version("scikit-learn"),
        recipe=EMBEDDED_RECIPE if features else RECIPE,
        left_out=left_out,
        members=_described(every_feature, tuned) if features else (),
        teacher=teacher,
    )
    return Classifier(metadata, members, seen=map(fingerprint, texts))


def identity_before(
    examples: Sequence[Labelled],
    *,
    seed: int = 0,
    embedders: Sequence[str] = (),
    terms: bool = True,
) -> str:
    """Return the identity that `train` would give, without training.

    `embedders` are the identities of the embedders.
    """
    return identity_of(
        data_hash(_learnable(examples)),
        seed=seed,
        scikit_learn=version("scikit-learn"),
        recipe=EMBEDDED_RECIPE if embedders else RECIPE,
        embedders=embedders,
        terms=terms,
    )


def labels_left_out(
    examples: Iterable[Labelled], labels: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the labels, of examples or of `labels`, that have too few examples to learn from."""
    # Labels begin at 0, so that one without any example is among them.
    counts = Counter(dict.fromkeys(labels, 0))
    counts.update(example.label for example in examples)
    too_few = [label for label, number in counts.items() if number < LEAST_PER_LABEL]
    return tuple(sorted(too_few))


def _learnable(examples: Sequence[Labelled]) -> list[Labelled]:
    """Return the examples whose labels have enough of them."""
    left_out = set(labels_left_out(examples))
    return [example for example in examples if example.label not in left_out]


def _refuse(counts: Counter[str], left_out: Sequence[str]) -> None:
    """Raise ConfigError for fewer than two labels that can be learned."""
    enough = ", ".join(counts) or "none"
    message = f"a classifier needs two labels with {LEAST_PER_LABEL} examples each"
    if left_out:
        message += f"; too few examples of {', '.join(left_out)}"
    raise ConfigError(f"{message}; enough: {enough}")


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def _fitted(features: Features, tuned: _Tuned, right: Any) -> Member:
    """Return a member that is fitted on all texts, its temperature in its weights."""
    model = _regression().set_params(C=tuned.regularisation)
    model.fit(features.of_all(), right)
    weights, bias = _per_label(model)
    temperature = tuned.temperature
    return features.member(
        weights / temperature, [value / temperature for value in bias.tolist()]
    )


def _described(
    features: Sequence[Features], tuned: Sequence[_Tuned]
) -> tuple[MemberMetadata, ...]:
    return tuple(
        MemberMetadata(
            embedder=some.embedder,
            identity=some.identity,
            regularisation=best.regularisation,
            temperature=best.temperature,
        )
        for some, best in zip(features, tuned, strict=True)
    )


def _tuned(features: Features, right: Any, folds: int, seed: int) -> _Tuned:
    """Return the C and the temperature with the least log loss on texts left out of the fit.

    One temperature for all labels keeps their order and needs little data: Guo and others,
    "On calibration of modern neural networks", ICML 2017.
    """
    held_out_scores = _held_out_scores(features, right, folds, seed)
    candidates = [
        _with_temperature(regularisation, scores, right)
        for regularisation, scores in zip(
            features.regularisations, held_out_scores, strict=True
        )
    ]
    return min(candidates, key=lambda tuned: tuned[:3])


def _with_temperature(regularisation: float, scores: Any, right: Any) -> _Tuned:
    """Fit the temperature for the scores (texts x labels) of one C.

    As in Platt's scaling (1999), one label in n + 2 counts as doubtful: a handful of easy examples
    would otherwise prove certainty.
    """
    import numpy
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    doubt = 1 / (len(right) + 2)
    every_text = numpy.arange(len(right))

    def log_probabilities(log_temperature: float) -> Any:
        # a logarithm is searched, so that every temperature is positive
        temperature = numpy.exp(log_temperature)
        return log_softmax(scores / temperature, axis=1)

    def loss(log_temperature: float) -> float:
        of_labels = log_probabilities(log_temperature)
        of_right_labels = of_labels[every_text, right]
        # cross-entropy against smoothed labels: the doubt is spread evenly over all of them
        certain = (1 - doubt) * of_right_labels.mean()
        doubtful = doubt * of_labels.mean()
        return -float(certain + doubtful)

    best = minimize_scalar(loss, bounds=(-5, 3), method="bounded")
    return _Tuned(
        loss=float(best.fun),
        regularisation=regularisation,
        temperature=float(numpy.exp(best.x)),
        log_probabilities=log_probabilities(best.x),
    )


def _held_out_scores(features: Features, right: Any, folds: int, seed: int) -> Any:
    """Return the scores (values of C x texts x labels) of each text from fits without it."""
    import numpy
    from sklearn.model_selection import StratifiedKFold

    labels = right.max() + 1
    scores = numpy.zeros((len(features.regularisations), len(right), labels))
    # the same folds for all features: the labels alone decide
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(right, right)
    for fitted, held_out in splits:
        fitted_features, held_out_features = features.split(fitted, held_out)
        # each fit starts from the one before: a third of the time
        model = _regression().set_params(warm_start=True)
        for number, regularisation in enumerate(features.regularisations):
            model.set_params(C=regularisation).fit(fitted_features, right[fitted])
            weights, bias = _per_label(model)
            scores[number, held_out] = held_out_features @ weights + bias
    return scores


def _coverage_points(
    log_probabilities: Any, right: Any, shares: Sequence[float]
) -> tuple[CoveragePoint, ...]:
    """Return the accuracy of the most confident answers, for some shares of all."""
    import numpy

    confidence = numpy.exp(log_probabilities.max(axis=1))
    order = numpy.argsort(-confidence, kind="stable")
    is_right = log_probabilities.argmax(axis=1) == right
    points = []
    for share in shares:
        size = max(1, round(share * len(order)))
        most_confident = order[:size]
        point = CoveragePoint(
            share=share,
            confidence=float(confidence[most_confident[-1]]),
            accuracy=float(is_right[most_confident].mean()),
        )
        points.append(point)
    return tuple(points)


def _per_label(model: Any) -> tuple[Any, Any]:
    """Return weights (terms x labels, rows with the mean 0) and bias of a logistic regression."""
    import numpy

    weights = model.coef_
    bias = model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two labels
        weights = numpy.vstack([-weights, weights]) / 2
        bias = numpy.concatenate([-bias, bias]) / 2
    centred = weights - weights.mean(axis=0)
    return numpy.ascontiguousarray(centred.T), bias - bias.mean()
