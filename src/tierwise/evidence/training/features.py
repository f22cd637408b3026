"""The features that the members of a classifier are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tierwise.gateway.learned.members import (
    EncoderMember,
    Member,
    TermsMember,
)
from tierwise.records import Sensitivity
from tierwise.text.terms import Terms, vectorisers
from tierwise.text.vectors import Encoder


class Features(Protocol):
    """Some texts as numbers, and the member that reads them."""

    @property
    def embedder(self) -> str:
        """Return the embedder's name in the catalog; empty for TF-IDF."""

    @property
    def identity(self) -> str:
        """Return the embedder's identity; empty for TF-IDF."""

    @property
    def regularisations(self) -> tuple[float, ...]:
        """Return the values of C to try."""

    def split(self, fitted: Any, held_out: Any) -> tuple[Any, Any]:
        """Return the matrices of two parts of the texts, the second unknown to the first."""

    def of_all(self) -> Any:
        """Return the matrix of all texts."""

    def member(self, weights: Any, bias: Sequence[float]) -> Member:
        """Return the member with these weights, which were fitted on `of_all`."""


class TermsFeatures:
    """TF-IDF of words and characters, learned from the texts."""

    embedder = ""
    identity = ""
    # accuracy hardly moves within a factor of 8
    regularisations = (1.0, 8.0, 64.0)

    def __init__(self, texts: Sequence[str]) -> None:
        """Learn the terms of the texts."""
        self._texts = texts
        self._union = vectorisers()
        self._matrix = self._union.fit_transform(texts)

    def split(self, fitted: Any, held_out: Any) -> tuple[Any, Any]:
        """Return the matrices of two parts of the texts, by the terms of the first."""
        union = vectorisers()
        fitted_terms = union.fit_transform([self._texts[place] for place in fitted])
        held_out_terms = union.transform([self._texts[place] for place in held_out])
        return fitted_terms, held_out_terms

    def of_all(self) -> Any:
        """Return the matrix of all texts."""
        return self._matrix

    def member(self, weights: Any, bias: Sequence[float]) -> Member:
        """Return the member with these weights."""
        return TermsMember(Terms.fitted(self._union), weights, bias)


class VectorFeatures:
    """The vectors of a sentence encoder, which learns nothing from the texts."""

    # vectors of many encoders lie close together, so that C has to be larger than for TF-IDF
    regularisations = (1.0, 8.0, 64.0, 512.0)

    def __init__(
        self,
        embedder: str,
        encoder: Encoder,
        texts: Sequence[str],
        sensitivity: Sensitivity,
    ) -> None:
        """Embed the texts. Raises what the encoder raises."""
        self.embedder = embedder
        self.identity = encoder.identity
        self._encoder = encoder
        self._vectors = encoder.embed(texts, sensitivity=sensitivity).astype(float)

    def split(self, fitted: Any, held_out: Any) -> tuple[Any, Any]:
        """Return the vectors of two parts of the texts."""
        return self._vectors[fitted], self._vectors[held_out]

    def of_all(self) -> Any:
        """Return the vectors of all texts."""
        return self._vectors

    def member(self, weights: Any, bias: Sequence[float]) -> Member:
        """Return the member with these weights."""
        return EncoderMember(self._encoder, weights, bias)
