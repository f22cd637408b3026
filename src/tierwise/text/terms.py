"""Texts as weighted terms: words, pairs of words, and runs of 2 to 4 characters inside words.

The characters see through endings, compounds and typing errors. They raised the accuracy over words alone
from 0.60 to 0.69 with 770 labels of Banking77, from 0.80 to 0.83 with 2,400, and from 0.57 to 0.63 on golden/.
Scikit-learn counts and weighs whole collections; with one text it spends more than ten times longer on
validating its arguments than on the text, so `Terms.of` does that sum itself, from scikit-learn's own
analysers and weights.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

# goes into a classifier's identity: raise the number when training or terms change
RECIPE = "2: logistic regression on words 1-2 and characters 2-4, sublinear tf-idf"
_WORD_OR_SIGN = r"\w+|[^\w\s]"
_WORD = re.compile(r"\w+")
Analyser = Callable[[str], list[str]]


def normalised(text: str) -> str:
    """A text's words in one case: texts that are equal in this teach nothing about each other."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(folded)) or " ".join(folded.split())


def vectorisers() -> Any:
    """The unfitted scikit-learn transformer that makes a matrix (texts x terms) of texts."""
    from numpy import float32
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    common = {"sublinear_tf": True, "dtype": float32}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD_OR_SIGN, **common)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **common)
    return FeatureUnion([("words", words), ("characters", characters)])


class Terms:
    """The terms that a collection of texts knows, each with its place and its rarity (idf)."""

    def __init__(
        self, words: Sequence[str], characters: Sequence[str], rarity: Sequence[float]
    ) -> None:
        self.words = tuple(words)
        self.characters = tuple(characters)
        self.rarity = tuple(rarity)
        numbered = iter(range(len(self.rarity)))
        places = [
            dict(zip(names, numbered, strict=False)) for names in (self.words, self.characters)
        ]
        self._families: list[tuple[Analyser, dict[str, int]]] = [
            (vectoriser.build_analyzer(), known)
            for (_, vectoriser), known in zip(vectorisers().transformer_list, places, strict=True)
        ]

    @classmethod
    def fitted(cls, union: Any) -> Terms:
        """The terms of a fitted `vectorisers()`."""
        words, characters = (vectoriser for _, vectoriser in union.transformer_list)
        return cls(
            words.get_feature_names_out().tolist(),
            characters.get_feature_names_out().tolist(),
            words.idf_.tolist() + characters.idf_.tolist(),
        )

    def of(self, text: str) -> tuple[list[int], list[float]]:
        """Places and weights of a text's known terms; both empty when it has none."""
        places: list[int] = []
        weights: list[float] = []
        for analyse, known in self._families:
            counts = Counter(
                place for term in analyse(text) if (place := known.get(term)) is not None
            )
            raw = [(1 + math.log(count)) * self.rarity[place] for place, count in counts.items()]
            length = math.sqrt(sum(weight * weight for weight in raw))
            places += counts
            weights += [weight / length for weight in raw]
        return places, weights
