"""A classifier learned from labels: its predictions, their confidence, and their evidence."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tierwise.errors import UnknownName
from tierwise.records import Sensitivity, canonical_hash, text_hash
from tierwise.text.terms import RECIPE, Terms, normalised

WINDOW = 8  # words of evidence
LONGEST = 200  # characters of evidence
_LETTERS = r"[\w\u0300-\u036f]+"  # with accents that are characters of their own
# 649.00 and don't are one word
_WORD = re.compile(rf"{_LETTERS}(?:[.,:'’-]{_LETTERS})*")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label, its probability (calibrated, 0 to 1), and the label that came second.

    Confidence 0 means that the text has no term in common with the training texts.
    """

    label: str
    confidence: float
    runner_up: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveragePoint:
    """The accuracy of the answers with the most confidence, by cross-validation."""

    share: float  # of the examples
    confidence: float  # the least one among them
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierMetadata:
    """The description of a classifier, kept as a JSON file beside its weights."""

    labels: tuple[str, ...]
    n: int  # examples
    # all examples first, then the shares with more confidence
    surest: tuple[CoveragePoint, ...]
    # the highest of the examples: the weights hold their words
    sensitivity: Sensitivity
    data_hash: str
    seed: int
    trained_on: str  # ISO date
    regularisation: float  # C, chosen by cross-validation
    # divides the scores, so that a confidence is a share of right answers
    temperature: float
    scikit_learn: str  # version
    recipe: str = RECIPE
    # labels of the step with too few examples: documents with them are for other models
    left_out: tuple[str, ...] = ()
    # the strictest first: what certificates may keep, fixed when it was trained
    thresholds: tuple[CoveragePoint, ...] = ()
    file_hash: str = ""  # SHA-256 (hex) of the weights' file, once saved

    @property
    def identity(self) -> str:
        """A hash of all that the answers depend on: data, recipe, seed, scikit-learn's version."""
        return identity_of(self.data_hash, self.recipe, self.seed, self.scikit_learn)

    @property
    def thresholds_hash(self) -> str:
        """SHA-256 (hex) of the thresholds, for certificates that rest on them."""
        points = [
            [point.share, point.confidence, point.accuracy] for point in self.thresholds
        ]
        return canonical_hash(points)


class _WordScore(NamedTuple):
    """One word of a text, and what it adds to a label's score."""

    text: str
    start: int
    end: int
    score: float


class Classifier:
    """A model that predicts one label for a text, in about 100 microseconds.

    Immutable, so it can be shared between threads.
    """

    def __init__(
        self,
        metadata: ClassifierMetadata,
        terms: Terms,
        weights: Any,
        bias: Sequence[float],
        seen: Iterable[str],
    ) -> None:
        """Take the parts of a trained classifier.

        `weights` is an array (terms x labels) whose rows have the mean 0; `seen` has the
        `fingerprint` of each training text.
        """
        self.metadata = metadata
        self.terms = terms
        self.weights = weights
        self.bias = tuple(bias)
        self.seen = frozenset(seen)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that it can give."""
        return self.metadata.labels

    @property
    def identity(self) -> str:
        """The metadata's identity, for the catalog."""
        return self.metadata.identity

    def saw(self, text: str) -> bool:
        """Return True if it was trained on this text: such a text cannot measure it."""
        return fingerprint(text) in self.seen

    def predict(self, texts: Iterable[str]) -> list[Prediction]:
        """Return one prediction a text, in their order."""
        return [self._predict(text) for text in texts]

    def explain(
        self, text: str, label: str | None = None, *, most: int = 8
    ) -> tuple[tuple[str, float], ...]:
        """Return the words of a text that add most to a label's score, strongest first.

        The label is the predicted one by default. Raises UnknownName when the classifier has no
        such label.
        """
        if label is None:
            label = self._predict(text).label
        scores: dict[str, float] = {}
        for word in self._words(text, label):
            scores.setdefault(word.text.lower(), word.score)
        # strongest first, and by the alphabet among equals
        ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        return tuple((word, score) for word, score in ranked[:most] if score > 0)

    def evidence(self, text: str, label: str, *, longest: int = LONGEST) -> str:
        """Return the few words in a row that add most to a label's score, verbatim.

        At most `longest` characters; empty only for an empty text. Raises UnknownName when the
        classifier has no such label.
        """
        words = self._words(text, label)
        if not words:
            return text.strip()[:longest]
        windows = [
            _window(words[first : first + WINDOW], longest)
            for first in range(len(words))
        ]
        best = max(windows, key=lambda window: sum(word.score for word in window))
        start = best[0].start
        end = min(best[-1].end, start + longest)
        return text[start:end]

    def _predict(self, text: str) -> Prediction:
        places, values = self.terms.weigh(text)
        scores = list(self.bias)
        if places:
            evidence = (self.weights[places].T @ values).tolist()
            scores = [
                score + bias for score, bias in zip(evidence, self.bias, strict=True)
            ]
        # ties go to the label that is first in the alphabet
        ranked = sorted(range(len(scores)), key=lambda label: (-scores[label], label))
        first, second = ranked[:2]
        confidence = 0.0
        if places:
            # the first label's part of the softmax, in the form that cannot overflow
            odds = [math.exp(score - scores[first]) for score in scores]
            confidence = 1 / sum(odds)
        return Prediction(
            label=self.labels[first],
            confidence=confidence,
            runner_up=self.labels[second],
        )

    def _words(self, text: str, label: str) -> list[_WordScore]:
        """Return every word in its place, with the score of the terms in it."""
        if label not in self.labels:
            raise UnknownName("label", label, self.labels)
        places, values = self.terms.weigh(text)
        by_term: dict[int, float] = {}
        if places:
            column = self.weights[places, self.labels.index(label)].tolist()
            for place, weight, value in zip(places, column, values, strict=True):
                by_term[place] = weight * value
        by_word: dict[str, float] = {}
        words = []
        for match in _WORD.finditer(text):
            word = match[0]
            if word not in by_word:
                terms, _ = self.terms.weigh(word)
                by_word[word] = sum(by_term.get(place, 0.0) for place in terms)
            words.append(_WordScore(word, match.start(), match.end(), by_word[word]))
        return words


def _window(words: Sequence[_WordScore], longest: int) -> list[_WordScore]:
    """Return the first words, within `longest` characters; at least one, however long it is."""
    start = words[0].start
    window = [words[0]]
    for word in words[1:]:
        if word.end - start > longest:
            break
        window.append(word)
    return window


def identity_of(*parts: object) -> str:
    """Return a classifier's identity from its data, recipe, seed and scikit-learn's version."""
    return f"learned-{canonical_hash(parts)[:16]}"


def fingerprint(text: str) -> str:
    """Return a short hash of a text's normalised form."""
    return text_hash(normalised(text))[:16]
