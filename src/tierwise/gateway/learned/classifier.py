"""A classifier learned from labels: what it predicts, from which words, and how sure it is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tierwise.errors import UnknownName
from tierwise.records import Sensitivity, canonical_hash, text_hash
from tierwise.text.terms import RECIPE, Terms, normalised

WINDOW = 8  # words of evidence
LONGEST = 200  # characters of evidence
_LETTERS = r"[\w\u0300-\u036f]+"  # with accents that are characters of their own
_WORD = re.compile(rf"{_LETTERS}(?:[.,:'’-]{_LETTERS})*")  # 649.00 and don't are one


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label, how likely it is right (calibrated, 0 to 1), and the label that came second.

    Confidence 0 means that the text has no term in common with what was learned.
    """

    label: str
    confidence: float
    runner_up: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveragePoint:
    """How right the answers are that a classifier is surest of, on examples that it was not fitted to."""

    share: float  # of the examples
    confidence: float  # the least one among them
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierMetadata:
    """What there is to know of a classifier without loading it; the JSON file beside its weights."""

    labels: tuple[str, ...]
    n: int  # examples
    surest: tuple[CoveragePoint, ...]  # by cross-validation, all examples first
    sensitivity: Sensitivity  # the highest of the examples: the weights hold their words
    data_hash: str
    seed: int
    trained_on: str  # ISO date
    regularisation: float  # C, chosen by cross-validation
    temperature: (
        float  # the scores are divided by it, so that confidences are shares of right answers
    )
    scikit_learn: str  # version
    recipe: str = RECIPE
    file_hash: str = ""  # SHA-256 (hex) of the weights' file, once saved

    @property
    def identity(self) -> str:
        """What its answers depend on: the data, the recipe, the seed and scikit-learn's version."""
        return identity_of(self.data_hash, self.recipe, self.seed, self.scikit_learn)


class Classifier:
    """Predicts one label for a text, in about 100 microseconds. Nothing changes after it is made: share it."""

    def __init__(
        self,
        head: ClassifierMetadata,
        terms: Terms,
        weights: Any,
        bias: Sequence[float],
        seen: Iterable[str],
    ) -> None:
        """`weights` is an array (terms x labels) whose rows have the mean 0; `seen` are `fingerprint`s of texts."""
        self.head = head
        self.terms = terms
        self.weights = weights
        self.bias = tuple(bias)
        self.seen = frozenset(seen)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that it can give."""
        return self.head.labels

    @property
    def identity(self) -> str:
        """What its answers depend on, for the catalog."""
        return self.head.identity

    def saw(self, text: str) -> bool:
        """Whether it was trained on this text: such a one can't measure it."""
        return fingerprint(text) in self.seen

    def predict(self, texts: Iterable[str]) -> list[Prediction]:
        """One prediction a text, in their order."""
        return [self._predict(text) for text in texts]

    def explain(
        self, text: str, label: str | None = None, *, most: int = 8
    ) -> tuple[tuple[str, float], ...]:
        """The words of a text that spoke most for a label (default: the predicted one), strongest first.

        Raises UnknownName when the classifier has no such label.
        """
        best: dict[str, float] = {}
        for word, score in self._words(text, label or self._predict(text).label):
            best.setdefault(word[0].lower(), score)
        ranked = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))
        return tuple(pair for pair in ranked[:most] if pair[1] > 0)

    def evidence(self, text: str, label: str, *, longest: int = LONGEST) -> str:
        """The few words in a row that speak most for a label, verbatim from the text: at most `longest` characters.

        Empty only for an empty text. Raises UnknownName when the classifier has no such label.
        """
        words = self._words(text, label)
        if not words:
            return text.strip()[:longest]
        scores = [score for _, score in words]
        spans = [(first, _last(words, first, longest)) for first in range(len(words))]
        first, last = max(spans, key=lambda span: sum(scores[span[0] : span[1] + 1]))
        start = words[first][0].start()
        return text[start : min(words[last][0].end(), start + longest)]

    def _predict(self, text: str) -> Prediction:
        places, values = self.terms.weigh(text)
        spoken: list[float] = (
            (self.weights[places].T @ values).tolist() if places else [0.0] * len(self.labels)
        )
        scores = [score + bias for score, bias in zip(spoken, self.bias, strict=True)]
        first, second = sorted(range(len(scores)), key=lambda label: (-scores[label], label))[:2]
        confidence = 1 / sum(math.exp(score - scores[first]) for score in scores)
        return Prediction(self.labels[first], confidence if places else 0.0, self.labels[second])

    def _words(self, text: str, label: str) -> list[tuple[re.Match[str], float]]:
        """Every word in its place, with what it and the characters in it add to the label's score."""
        if label not in self.labels:
            raise UnknownName("label", label, self.labels)
        places, values = self.terms.weigh(text)
        column = self.weights[places, self.labels.index(label)].tolist() if places else []
        adds: dict[int, float] = {
            place: weight * value
            for place, weight, value in zip(places, column, values, strict=True)
        }

        @cache
        def score(word: str) -> float:
            return sum(adds.get(place, 0.0) for place in self.terms.weigh(word)[0])

        return [(match, score(match[0])) for match in _WORD.finditer(text)]


def _last(words: list[tuple[re.Match[str], float]], first: int, longest: int) -> int:
    """The last word that evidence from the first one on can have."""
    start = words[first][0].start()
    last = first
    while (
        last + 1 < min(first + WINDOW, len(words)) and words[last + 1][0].end() - start <= longest
    ):
        last += 1
    return last


def identity_of(*parts: object) -> str:
    """The identity of what is learned from these data, by this recipe, with this seed and version of scikit-learn."""
    return f"learned-{canonical_hash(parts)[:16]}"


def fingerprint(text: str) -> str:
    """A short hash of a text's normalised form."""
    return text_hash(normalised(text))[:16]
