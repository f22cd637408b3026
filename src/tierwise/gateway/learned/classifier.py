"""A classifier learned from labels: its predictions, their confidence, and their evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tierwise.errors import UnknownName
from tierwise.gateway.learned.members import Member, Scores, TermsMember
from tierwise.gateway.learned.passages import (
    LONGEST,
    WINDOW,
    Passage,
    first_within,
    quoted,
    strongest_passages,
    words_of,
)
from tierwise.records import Sensitivity, canonical_hash, text_hash
from tierwise.text.terms import RECIPE, normalised

# part of the identity of a classifier with embedders, in place of RECIPE
EMBEDDED_RECIPE = (
    "1: logistic regression on embeddings, and on words 1-2 and characters 2-4"
)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label, its probability (calibrated, 0 to 1), and the label that came second.

    Confidence 0 means that the text has no term in common with the training texts, or for an
    embedder, that it is empty.
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
class MemberMetadata:
    """The description of one part of a classifier with embedders."""

    # the embedder's name in the catalog; empty for TF-IDF
    embedder: str
    identity: str  # the embedder's; empty for TF-IDF
    regularisation: float  # C
    temperature: float  # divides its scores

    @property
    def is_terms(self) -> bool:
        """Return True for TF-IDF."""
        return not self.embedder


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
    regularisation: float  # C, chosen by cross-validation; the first member's
    # divides the scores, so that a confidence is a share of right answers; with several members,
    # the sum of their log-probabilities
    temperature: float
    scikit_learn: str  # version
    recipe: str = RECIPE
    # labels of the step with too few examples: documents with them are for other models
    left_out: tuple[str, ...] = ()
    # the strictest first: what certificates may keep, fixed when it was trained
    thresholds: tuple[CoveragePoint, ...] = ()
    file_hash: str = ""  # SHA-256 (hex) of the weights' file, once saved
    # empty for a classifier of TF-IDF alone
    members: tuple[MemberMetadata, ...] = ()
    teacher: str = ""  # the model that gave the labels; empty: people

    @property
    def identity(self) -> str:
        """A hash of all that the answers depend on.

        That is data, recipe, seed, scikit-learn's version, and the embedders.
        """
        return identity_of(
            self.data_hash,
            seed=self.seed,
            scikit_learn=self.scikit_learn,
            recipe=self.recipe,
            embedders=self.embedders,
            terms=self.uses_terms,
        )

    @property
    def embedders(self) -> tuple[str, ...]:
        """The identities of its embedders."""
        return tuple(member.identity for member in self.members if not member.is_terms)

    @property
    def uses_terms(self) -> bool:
        """Return True if TF-IDF is among its features."""
        return not self.members or any(member.is_terms for member in self.members)

    @property
    def thresholds_hash(self) -> str:
        """SHA-256 (hex) of the thresholds, for certificates that rest on them."""
        points = [
            [point.share, point.confidence, point.accuracy] for point in self.thresholds
        ]
        return canonical_hash(points)


class Classifier:
    """A model that predicts one label for a text: in about 100 microseconds by terms alone.

    Immutable, so it can be shared between threads.
    """

    def __init__(
        self,
        metadata: ClassifierMetadata,
        members: Sequence[Member],
        seen: Iterable[str],
    ) -> None:
        """Take the parts of a trained classifier.

        `seen` has the `fingerprint` of each training text.
        """
        self.metadata = metadata
        self.members = tuple(members)
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

    def predict(
        self, texts: Iterable[str], *, sensitivity: Sensitivity = "restricted"
    ) -> list[Prediction]:
        """Return one prediction a text, in their order.

        `sensitivity` is the highest of the texts, for embedders outside the house. Raises what an
        embedder raises.
        """
        every_scores = self._scores(list(texts), sensitivity)
        return [self._prediction(scores) for scores in every_scores]

    def explain(
        self,
        text: str,
        label: str | None = None,
        *,
        most: int = 8,
        sensitivity: Sensitivity = "restricted",
    ) -> tuple[tuple[str, float], ...]:
        """Return the words of a text that add most to a label's score, strongest first.

        With embedders, these are passages of a few words, and the label's log-odds where the
        passage is all there is. The label is the predicted one by default. Raises UnknownName when
        the classifier has no such label.
        """
        if label is None:
            label = self.predict([text], sensitivity=sensitivity)[0].label
        if self.metadata.members:
            passages = self._passages(text, label, LONGEST, sensitivity)
            for_label = [passage for passage in passages if passage.score > 0]
            # where none speaks for the label alone, the one that comes closest
            return tuple(for_label[:most] or passages[:1])
        scores: dict[str, float] = {}
        texts = [word.text for word in words_of(text)]
        for word, score in zip(texts, self._word_scores(text, label), strict=True):
            scores.setdefault(word.lower(), score)
        # strongest first, and by the alphabet among equals
        ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        return tuple((word, score) for word, score in ranked[:most] if score > 0)

    def evidence(
        self,
        text: str,
        label: str,
        *,
        longest: int = LONGEST,
        sensitivity: Sensitivity = "restricted",
    ) -> str:
        """Return the few words in a row that speak most for a label, verbatim.

        By terms, these are the words that add most to its score; with embedders, the passage to
        which the classifier gives the label with the highest probability. At most `longest`
        characters; empty only for an empty text. Raises UnknownName when the classifier has no
        such label.
        """
        words = words_of(text)
        if not words:
            self._place(label)
            return text.strip()[:longest]
        if self.metadata.members:
            return self._passages(text, label, longest, sensitivity)[0].text
        scores = self._word_scores(text, label)
        best = words[:1]
        most = -math.inf
        for first in range(len(words)):
            window = first_within(words[first : first + WINDOW], longest)
            score = sum(scores[first : first + len(window)])
            if score > most:
                best = window
                most = score
        return quoted(text, best, longest)

    def _scores(self, texts: list[str], sensitivity: Sensitivity) -> list[Scores]:
        """Return the scores of each text, all members together."""
        by_member = [member.score(texts, sensitivity) for member in self.members]
        if len(by_member) == 1:
            return by_member[0]  # its temperature is in its weights
        return [self._sum(scores) for scores in zip(*by_member, strict=True)]

    def _sum(self, members: Sequence[Scores]) -> Scores:
        """Add the members' log-probabilities of one text, and divide by the temperature."""
        by_member = [_log_softmax(scores.values) for scores in members]
        summed = [
            sum(of_label) / self.metadata.temperature
            for of_label in zip(*by_member, strict=True)
        ]
        return Scores(summed, is_known=any(scores.is_known for scores in members))

    def _prediction(self, scores: Scores) -> Prediction:
        values = scores.values
        # ties go to the label that is first in the alphabet
        ranked = sorted(range(len(values)), key=lambda label: (-values[label], label))
        first, second = ranked[:2]
        confidence = 0.0
        if scores.is_known:
            # the first label's part of the softmax, in the form that cannot overflow
            odds = [math.exp(score - values[first]) for score in values]
            confidence = 1 / sum(odds)
        return Prediction(
            label=self.labels[first],
            confidence=confidence,
            runner_up=self.labels[second],
        )

    def _word_scores(self, text: str, label: str) -> list[float]:
        """Return what each word of a text adds to a label's score."""
        place = self._place(label)
        words = [word.text for word in words_of(text)]
        totals = [0.0] * len(words)
        for member in self.members:
            if isinstance(member, TermsMember):
                totals = member.word_scores(text, words, place)
        return totals

    def _passages(
        self, text: str, label: str, longest: int, sensitivity: Sensitivity
    ) -> list[Passage]:
        """Return passages of a text, those that speak most for a label first."""
        place = self._place(label)

        def log_odds(passages: list[str]) -> list[float]:
            every_scores = self._scores(passages, sensitivity)
            return [_log_odds(scores.values, place) for scores in every_scores]

        return strongest_passages(text, log_odds, longest)

    def _place(self, label: str) -> int:
        """Return a label's place. Raises UnknownName when the classifier has no such label."""
        if label not in self.labels:
            raise UnknownName("label", label, self.labels)
        return self.labels.index(label)


def _log_softmax(scores: Sequence[float]) -> list[float]:
    total = _log_sum(scores)
    return [score - total for score in scores]


def _log_sum(scores: Sequence[float]) -> float:
    """Return the logarithm of the sum of exponentials, in the form that cannot overflow."""
    highest = max(scores)
    return highest + math.log(sum(math.exp(score - highest) for score in scores))


def _log_odds(scores: Sequence[float], place: int) -> float:
    """Return the logarithm of a label's probability over that of all others."""
    others = [score for other, score in enumerate(scores) if other != place]
    return scores[place] - _log_sum(others)


def identity_of(
    data_hash: str,
    *,
    seed: int,
    scikit_learn: str,
    recipe: str = RECIPE,
    embedders: Sequence[str] = (),
    terms: bool = True,
) -> str:
    """Return a classifier's identity from its data, features, seed and scikit-learn's version.

    `embedders` are the identities of its embedders, in any order.
    """
    parts: list[object] = [data_hash, recipe, seed, scikit_learn]
    # left out without embedders: certificates have the identities of such classifiers
    if embedders:
        parts += [sorted(embedders), terms]
    return f"learned-{canonical_hash(parts)[:16]}"


def fingerprint(text: str) -> str:
    """Return a short hash of a text's normalised form."""
    return text_hash(normalised(text))[:16]
