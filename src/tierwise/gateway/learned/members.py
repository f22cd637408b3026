"""The parts of a classifier: each scores the labels by features of its own.

Today's features are weighted terms (TF-IDF), and the vectors of a sentence encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from tierwise.errors import Misuse
from tierwise.records import Sensitivity
from tierwise.text.terms import Terms
from tierwise.text.vectors import Encoder


class Scores(NamedTuple):
    """The labels' scores of one text; softmax makes probabilities of them.

    `is_known` is False where the text has nothing that the member learned something about.
    """

    values: list[float]
    is_known: bool


class Member(Protocol):
    """One part of a classifier, trained by itself: an array (features x labels), and its bias."""

    weights: Any
    bias: tuple[float, ...]

    def score(self, texts: Sequence[str], sensitivity: Sensitivity) -> list[Scores]:
        """Return the scores of each text; `sensitivity` is the highest of them."""


class TermsMember:
    """Logistic regression on weighted terms. Immutable."""

    def __init__(self, terms: Terms, weights: Any, bias: Sequence[float]) -> None:
        """Take an array (terms x labels) whose rows have the mean 0, and a number a label."""
        self.terms = terms
        self.weights = weights
        self.bias = tuple(bias)

    def score(
        self,
        texts: Sequence[str],
        sensitivity: Sensitivity,  # noqa: ARG002 - nothing leaves this process
    ) -> list[Scores]:
        """Return the scores of each text."""
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> Scores:
        places, values = self.terms.weigh(text)
        if not places:
            return Scores(list(self.bias), is_known=False)
        evidence = (self.weights[places].T @ values).tolist()
        scores = [score + bias for score, bias in zip(evidence, self.bias, strict=True)]
        return Scores(scores, is_known=True)

    def word_scores(self, text: str, words: Sequence[str], label: int) -> list[float]:
        """Return what the terms in each word of a text add to a label's score."""
        places, values = self.terms.weigh(text)
        by_term: dict[int, float] = {}
        if places:
            column = self.weights[places, label].tolist()
            for place, weight, value in zip(places, column, values, strict=True):
                by_term[place] = weight * value
        by_word: dict[str, float] = {}
        for word in words:
            if word not in by_word:
                terms, _ = self.terms.weigh(word)
                by_word[word] = sum(by_term.get(place, 0.0) for place in terms)
        return [by_word[word] for word in words]


class EncoderMember:
    """Logistic regression on the vectors of a sentence encoder. Immutable."""

    def __init__(
        self, encoder: Encoder | None, weights: Any, bias: Sequence[float]
    ) -> None:
        """Take an array (dimensions x labels) and a number a label.

        Without an encoder it cannot score: it was loaded to be looked at.
        """
        self.encoder = encoder
        self.weights = weights
        self.bias = tuple(bias)

    def score(self, texts: Sequence[str], sensitivity: Sensitivity) -> list[Scores]:
        """Return the scores of each text. Raises what the encoder raises."""
        if self.encoder is None:
            raise Misuse("this classifier was loaded without its embedders")
        if not texts:
            return []
        # in 64 bits, so that sums hardly depend on their order
        vectors = self.encoder.embed(texts, sensitivity=sensitivity).astype(float)
        rows = (vectors @ self.weights + self.bias).tolist()
        return [
            Scores(row, is_known=bool(text.strip()))
            for row, text in zip(rows, texts, strict=True)
        ]
