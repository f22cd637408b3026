"""An encoder that remembers: rounds of labelling look at the same texts again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tierwise.records import Sensitivity
from tierwise.text.vectors import Encoder


class RememberedVectors:
    """An encoder whose vectors are computed once for each text, within one command."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._vectors: dict[str, Any] = {}

    @property
    def identity(self) -> str:
        """The identity of the encoder itself."""
        return self._encoder.identity

    def embed(
        self, texts: Sequence[str], *, sensitivity: Sensitivity = "restricted"
    ) -> Any:
        """Return an array of numbers (texts x dimensions), whose rows have the length 1."""
        import numpy

        unknown = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if unknown:
            vectors = self._encoder.embed(unknown, sensitivity=sensitivity)
            self._vectors.update(zip(unknown, vectors, strict=True))
        return numpy.asarray([self._vectors[text] for text in texts])
