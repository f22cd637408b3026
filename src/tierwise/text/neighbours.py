"""A nearest-neighbour search over labelled examples, for few-shot prompts.

Near is what has rare words in common (TF-IDF), or with a sentence encoder, what means the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from tierwise.records import Sensitivity, text_hash
from tierwise.text.terms import Terms, normalised, vectorisers
from tierwise.text.vectors import Encoder

_SPARE = 8  # places looked at beyond the wanted ones, as some may be left out
_WIDEN = 4  # times as many, where these were too few


class Text(Protocol):
    """Anything with an id and a text, such as a labelled example or a document."""

    @property
    def id(self) -> str:
        """Return the id, unique among its like."""

    @property
    def text(self) -> str:
        """Return the text."""


T = TypeVar("T", bound=Text)


class Similarity(Protocol):
    """The similarity of a text to each of some others."""

    def scores(self, text: str, sensitivity: Sensitivity) -> Any:
        """Return an array of numbers, one for each of the others."""


class TermSimilarity:
    """The cosine of the weights of terms."""

    def __init__(self, texts: Sequence[str]) -> None:
        union = vectorisers()
        matrix = union.fit_transform(texts)
        self._terms = Terms.fitted(union)
        self._by_term = matrix.T.tocsr()  # rows of terms: a text needs a few of them

    def scores(
        self,
        text: str,
        sensitivity: Sensitivity,  # noqa: ARG002 - nothing leaves this process
    ) -> Any:
        """Return each text's similarity."""
        places, weights = self._terms.weigh(text)
        matching = self._by_term[places]
        return matching.T @ weights


class VectorSimilarity:
    """The cosine of the vectors of a sentence encoder."""

    def __init__(self, texts: Sequence[str], encoder: Encoder) -> None:
        self._encoder = encoder
        self._vectors = encoder.embed(texts)

    def scores(self, text: str, sensitivity: Sensitivity) -> Any:
        """Return each text's similarity. Raises what the encoder raises."""
        [vector] = self._encoder.embed([text], sensitivity=sensitivity)
        return self._vectors @ vector


class Neighbours(Generic[T]):
    """Examples, and a search for the nearest ones to a text. Immutable, so it can be shared."""

    def __init__(self, examples: Sequence[T], encoder: Encoder | None = None) -> None:
        """Read the examples; with an encoder, embed them. Raises what the encoder raises."""
        self._examples = sorted(examples, key=attrgetter("id", "text"))
        self._texts = [normalised(example.text) for example in self._examples]
        self._hashes = [text_hash(example.text) for example in self._examples]
        # A vectoriser cannot be fitted to no texts; `nearest` looks at `_examples` first.
        if not self._examples:
            return
        texts = [example.text for example in self._examples]
        self._similarity: Similarity = (
            TermSimilarity(texts)
            if encoder is None
            else VectorSimilarity(texts, encoder)
        )

    def nearest(
        self,
        text: str,
        k: int,
        *,
        exclude: Collection[str] = (),
        sensitivity: Sensitivity = "restricted",
    ) -> tuple[T, ...]:
        """Return up to `k` examples, the nearest last, so that in a prompt it is next to the text.

        An example is left out if its text equals the given one but for case, spaces and
        punctuation, or if its id or its text's SHA-256 (`Document.hash`) is in `exclude`: a golden
        example must not see its own answer. `sensitivity` is the text's, for the encoder.
        """
        if not self._examples or k < 1:
            return ()
        own = normalised(text)
        scores = self._similarity.scores(text, sensitivity)
        examined = k
        while True:
            examined = min(examined + _SPARE, len(self._examples))
            best = _best(scores, examined)
            shown = [place for place in best if self._may_show(place, own, exclude)]
            if len(shown) >= k or examined == len(self._examples):
                return tuple(self._examples[place] for place in reversed(shown[:k]))
            examined *= _WIDEN

    def _may_show(self, place: int, own: str, exclude: Collection[str]) -> bool:
        if self._texts[place] == own:
            return False
        example = self._examples[place]
        if example.id in exclude:
            return False
        return self._hashes[place] not in exclude


def _best(scores: Any, count: int) -> list[int]:
    """Return the places of the `count` highest scores and of ties with the last, best first."""
    kth = scores.argpartition(-count)[-count]
    # Ties with the last one stay, so that their places decide and not the partition's order.
    is_best = scores >= scores[kth]
    places_of_best = is_best.nonzero()[0]
    places: list[int] = places_of_best.tolist()
    return sorted(places, key=lambda place: (-scores[place], place))
