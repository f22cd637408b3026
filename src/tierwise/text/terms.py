"""Texts as weighted terms: words, pairs of words, and runs of 2 to 4 characters inside words.

The characters see through endings, compounds and typing errors. They raised the accuracy over words
alone from 0.60 to 0.69 with 770 labels of Banking77, from 0.80 to 0.83 with 2,400, and from 0.57 to
0.63 on golden/. Scikit-learn counts and weighs whole collections. For one text it spends ten times
longer on validating its arguments than on the text, so `Terms.weigh` computes the weights itself,
from scikit-learn's own analysers and idf values.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

# part of a classifier's identity: raise the number when training or terms change
RECIPE = "2: logistic regression on words 1-2 and characters 2-4, sublinear tf-idf"
_WORD_OR_SIGN = r"\w+|[^\w\s]"
_WORD = re.compile(r"\w+")
Analyser = Callable[[str], list[str]]


def normalised(text: str) -> str:
    """Return a text's words in one case: texts equal in this teach nothing about each other."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(folded) or folded.split()  # a text may have signs alone
    return " ".join(words)


def vectorisers() -> Any:
    """Return the unfitted scikit-learn transformer of texts to a matrix (texts x terms)."""
    from numpy import float32
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    common = {"sublinear_tf": True, "dtype": float32}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD_OR_SIGN, **common)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **common)
    return FeatureUnion([("words", words), ("characters", characters)])


class Terms:
    """The vocabulary of a collection of texts: terms, each with its place and its rarity (idf)."""

    def __init__(
        self, words: Sequence[str], characters: Sequence[str], rarity: Sequence[float]
    ) -> None:
        self.words = tuple(words)
        self.characters = tuple(characters)
        self.rarity = tuple(rarity)
        # the characters' places follow the words', as the columns of the fitted matrix do
        word_places = {term: place for place, term in enumerate(self.words)}
        character_places = {
            term: place for place, term in enumerate(self.characters, len(self.words))
        }
        (_, word_vectoriser), (_, character_vectoriser) = vectorisers().transformer_list
        self._families: list[tuple[Analyser, dict[str, int]]] = [
            (word_vectoriser.build_analyzer(), word_places),
            (character_vectoriser.build_analyzer(), character_places),
        ]

    @classmethod
    def fitted(cls, union: Any) -> Terms:
        """Return the terms of a fitted `vectorisers()`."""
        (_, words), (_, characters) = union.transformer_list
        return cls(
            words.get_feature_names_out().tolist(),
            characters.get_feature_names_out().tolist(),
            words.idf_.tolist() + characters.idf_.tolist(),
        )

    def weigh(self, text: str) -> tuple[list[int], list[float]]:
        """Return places and weights of a text's known terms; both empty when it has none."""
        places: list[int] = []
        weights: list[float] = []
        for analyse, vocabulary in self._families:
            counts: Counter[int] = Counter()
            for term in analyse(text):
                place = vocabulary.get(term)
                if place is not None:
                    counts[place] += 1
            # sublinear tf-idf, each family scaled to the length 1, as the vectorisers do
            raw = [
                (1 + math.log(count)) * self.rarity[place]
                for place, count in counts.items()
            ]
            length = math.sqrt(sum(weight * weight for weight in raw))
            places += counts
            weights += [weight / length for weight in raw]
        return places, weights
