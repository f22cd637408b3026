"""The labelled examples nearest to a text, to be shown to a model before it answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from tierwise.records import text_hash
from tierwise.text.terms import Terms, normalised, vectorisers


class Text(Protocol):
    """Anything with an id and a text: a labelled example, a golden one with expected fields, a document."""

    @property
    def id(self) -> str:
        """Unique among its like."""

    @property
    def text(self) -> str:
        """What it says."""


T = TypeVar("T", bound=Text)


class Neighbours(Generic[T]):
    """Examples that can be asked for the ones nearest to a text. Nothing changes after it is made: share it."""

    def __init__(self, examples: Sequence[T]) -> None:
        self._examples = sorted(examples, key=attrgetter("id", "text"))
        self._texts = [normalised(example.text) for example in self._examples]
        self._hashes = [text_hash(example.text) for example in self._examples]
        if self._examples:
            union = vectorisers()
            matrix = union.fit_transform([example.text for example in self._examples])
            self._terms = Terms.fitted(union)
            self._by_term = matrix.T.tocsr()

    def nearest(self, text: str, k: int, *, exclude: Collection[str] = ()) -> tuple[T, ...]:
        """Up to `k` examples, the nearest last: as earlier turns of a conversation, it stands next to the question.

        Never one whose text equals the question's but for case, spaces and punctuation, and none whose id or
        text's SHA-256 (`Document.hash`) is in `exclude`: a golden example must not see its own answer.
        """
        if not self._examples or k < 1:
            return ()
        own = normalised(text)
        scores = self._scores(text)
        looked_at = k
        while True:
            looked_at = min(looked_at + 8, len(self._examples))
            found = [
                place for place in _best(scores, looked_at) if self._may_show(place, own, exclude)
            ]
            if len(found) >= k or looked_at == len(self._examples):
                return tuple(self._examples[place] for place in reversed(found[:k]))
            looked_at *= 4

    def _scores(self, text: str) -> Any:
        places, weights = self._terms.of(text)
        return self._by_term[places].T @ weights

    def _may_show(self, place: int, own: str, exclude: Collection[str]) -> bool:
        hidden = self._examples[place].id in exclude or self._hashes[place] in exclude
        return not hidden and self._texts[place] != own


def _best(scores: Any, count: int) -> list[int]:
    """Places of the `count` highest scores and of all that equal the last of them, best first."""
    least = scores[scores.argpartition(-count)[-count]]
    places: list[int] = (scores >= least).nonzero()[0].tolist()
    return sorted(places, key=lambda place: (-scores[place], place))
