"""Candidates and what the golden set shows of them, at whatever level they are given.

A candidate is a model or a chain. One whose first model reports a confidence may be certified for
the answers of which it is surest, and hands on the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tierwise.evidence.certify.levels import Level
from tierwise.evidence.certify.measurable import Chain
from tierwise.evidence.certify.measure import (
    Evaluation,
    Measurement,
    ScoredExample,
    is_handed_on,
    score,
)
from tierwise.evidence.certify.thresholds import (
    AtThreshold,
    Foretold,
    starts_for,
    widest_along,
    widest_shown,
)
from tierwise.gateway.learned.classifier import ClassifierMetadata
from tierwise.gateway.learned.files import read_metadata, trained_file

# Thresholds of chains whose first model is a language model, strictest first: denser where such
# models put their confidences. They are fixed here, so that no golden answer has a say in them.
FIXED: tuple[float, ...] = (
    *(0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.87, 0.84),
    *(0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown to meet the floor: everything, or the answers from a threshold on."""

    threshold: float | None  # None: everything


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A candidate that is certified for all of its answers, or for none."""

    chain: Chain
    measurement: Measurement  # without a threshold
    floor: float | None
    # of the level that all of its answers may use; the rest is for thresholds
    share: float = 1.0
    note: str = ""
    thresholds_hash: str | None = None

    def shown(self, level: Level) -> Shown | None:
        """Return what the golden set shows at this level; None: nothing meets the floor."""
        if self.floor is None:
            return None
        own = Level(level.alpha * self.share, level.compared)
        if self.measurement.bound(own) < self.floor:
            return None
        return Shown(threshold=None)


@dataclass(frozen=True, kw_only=True)
class Unordered(Plain):
    """A model with a confidence of which nothing is known beforehand.

    What its answers do not use of the level is for an e-process along falling confidence.
    """

    confidences: tuple[float, ...]
    right: tuple[bool, ...]

    def shown(self, level: Level) -> Shown | None:
        """Return what the golden set shows at this level; None: nothing meets the floor."""
        everything = super().shown(level)
        if everything is not None or self.floor is None:
            return everything
        rest = level.each * (1 - self.share)
        lowest = widest_along(self.confidences, self.right, self.floor, rest)
        if lowest is None or math.isinf(lowest):
            return None
        return Shown(threshold=lowest)


@dataclass(frozen=True, kw_only=True)
class Chained(Plain):
    """A chain whose first model reports a confidence: what it delivers at each threshold.

    The thresholds are fixed beforehand. The walk begins at the strictest, where the last models of
    the chain answer nearly everything.
    """

    tested: tuple[AtThreshold, ...]  # the strictest first, without that of everything

    def shown(self, level: Level) -> Shown | None:
        """Return what the golden set shows at this level; None: nothing meets the floor."""
        everything = super().shown(level)
        if everything is not None or self.floor is None:
            return everything
        rest = level.each * (1 - self.share)
        place = widest_shown(self.tested, (0,), self.floor, rest)
        return None if place is None else Shown(self.tested[place].threshold)


@dataclass(frozen=True, kw_only=True)
class Foreseen(Plain):
    """A trained classifier: its left-out training answers foretell where walks should begin.

    The last of its thresholds keeps everything, so that this costs no alpha of its own.
    """

    tested: tuple[AtThreshold, ...]
    foretold: tuple[Foretold, ...]  # of the same thresholds
    golden_size: int

    def shown(self, level: Level) -> Shown | None:
        """Return what the golden set shows at this level; None: nothing meets the floor."""
        if self.floor is None:
            return None
        starts = starts_for(self.foretold, self.golden_size, self.floor, level.each)
        place = widest_shown(self.tested, starts, self.floor, level.each)
        return None if place is None else Shown(self.tested[place].threshold)


def plain_candidate(
    evaluation: Evaluation, measurement: Measurement, note: str = "", share: float = 1.0
) -> Plain:
    """Return a candidate that is certified for all of its answers or not at all."""
    return Plain(
        chain=measurement.models,
        measurement=measurement,
        floor=evaluation.floor,
        share=share,
        note=note,
    )


def candidate_with_thresholds(
    evaluation: Evaluation,
    measurement: Measurement,
    scored: Sequence[ScoredExample],
    level: Level,
) -> Plain:
    """Return a candidate whose first model reports a confidence, from its scored examples.

    `measurement` is without a threshold, and `level` is the one to begin with. A chain that meets
    the floor as it is costs no further call; otherwise its later models answer all examples, as
    they would at the strictest threshold.
    """
    chain = measurement.models
    examples = evaluation.golden.examples
    metadata = metadata_of(evaluation, chain[0])
    if metadata and not metadata.thresholds:
        return plain_candidate(
            evaluation,
            measurement,
            note=f"{chain[0]} was trained before thresholds were kept with a classifier: "
            f"`tierwise train {evaluation.step.name}` adds them",
        )
    if len(chain) == 1:
        if not reports_confidence(scored):
            note = f"{chain[0]} reported no confidence"
            return plain_candidate(evaluation, measurement, note)
        if metadata:
            return _foreseen(evaluation, measurement, scored, metadata)
        items = [s for s in scored if s.answered or not is_handed_on(evaluation, s)]
        return Unordered(
            chain=chain,
            measurement=measurement,
            floor=evaluation.floor,
            share=0.5,
            confidences=tuple(confidence_of(s) for s in items),
            right=tuple(s.right for s in items),
        )
    as_it_is = plain_candidate(evaluation, measurement, share=0.5)
    if as_it_is.shown(level) is not None:
        return as_it_is
    first = score(evaluation, chain[:1], examples)
    if not reports_confidence(first):
        note = f"{chain[0]} reported no confidence"
        return plain_candidate(evaluation, measurement, note, share=0.5)
    others = score(evaluation, chain[1:], examples)
    thresholds = FIXED
    if metadata:
        thresholds = tuple(point.confidence for point in metadata.thresholds)
    return Chained(
        chain=chain,
        measurement=measurement,
        floor=evaluation.floor,
        share=0.5,
        thresholds_hash=metadata.thresholds_hash if metadata else None,
        tested=tuple(
            _tested(evaluation, threshold, first, others) for threshold in thresholds
        ),
    )


def _foreseen(
    evaluation: Evaluation,
    measurement: Measurement,
    scored: Sequence[ScoredExample],
    metadata: ClassifierMetadata,
) -> Foreseen:
    """Return a trained classifier with the thresholds that are kept with it."""
    foretold = []
    tested = []
    for point in metadata.thresholds:
        foretold.append(Foretold(point.confidence, point.share, point.accuracy))
        tested.append(_tested(evaluation, point.confidence, scored))
    all_examples = metadata.thresholds[-1]
    foretold.append(Foretold(None, coverage=1.0, accuracy=all_examples.accuracy))
    tested.append(AtThreshold(None, measurement.n, measurement.errors))
    return Foreseen(
        chain=measurement.models,
        measurement=measurement,
        floor=evaluation.floor,
        thresholds_hash=metadata.thresholds_hash,
        tested=tuple(tested),
        foretold=tuple(foretold),
        golden_size=len(scored),
    )


def _tested(
    evaluation: Evaluation,
    threshold: float,
    first: Sequence[ScoredExample],
    others: Sequence[ScoredExample] = (),
) -> AtThreshold:
    """Return what is delivered at a threshold on the first model's confidence.

    `others` are what the rest of the chain answers; without them, what is handed on does not count.
    """
    n = 0
    errors = 0
    for place, scored in enumerate(first):
        keeps = scored.answered and confidence_of(scored) >= threshold
        stays = not scored.answered and not is_handed_on(evaluation, scored)
        if keeps or stays:
            n += 1
            errors += not scored.right
        elif others:
            n += 1
            errors += not others[place].right
    return AtThreshold(threshold, n, errors)


def reports_confidence(scored: Sequence[ScoredExample]) -> bool:
    """Return True if any answer has a known confidence."""
    answered = [example for example in scored if example.answered]
    return any(math.isfinite(confidence_of(example)) for example in answered)


def confidence_of(scored: ScoredExample) -> float:
    """Return the confidence of an answer; minus infinity where it is unknown.

    A missing answer that no other model is asked for counts as a sure one: no threshold mends it.
    """
    if not scored.answered:
        return math.inf
    confidence = scored.outcome.attempts[-1].confidence
    return -math.inf if confidence is None else confidence


def metadata_of(evaluation: Evaluation, name: str) -> ClassifierMetadata | None:
    """Return the description of a trained classifier; None for other models."""
    if evaluation.engine.policy.catalog.model(name).learned is None:
        return None
    return read_metadata(trained_file(evaluation.engine.project.root, name))
