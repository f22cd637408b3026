"""Certification beside a reference: which candidates answer at most so much worse than it does.

The reference answers all golden items. A candidate that reports its confidence is also tried as
what it delivers together with the reference: its own answer where it is sure, else the reference's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tierwise.errors import Misuse
from tierwise.evidence.certify.candidates import (
    FIXED,
    confidence_of,
    metadata_of,
    reports_confidence,
)
from tierwise.evidence.certify.levels import Level, alpha_of_look, share_level
from tierwise.evidence.certify.measurable import (
    Chain,
    Thresholds,
    may_have_threshold,
)
from tierwise.evidence.certify.measure import (
    Evaluation,
    Measurement,
    ScoredExample,
    is_handed_on,
    measure,
    score,
)
from tierwise.evidence.certify.pairs import (
    NextComparison,
    Pairs,
    next_comparison,
    pairs_of,
    widest_pairs,
)
from tierwise.evidence.certify.results import CandidateResult, certificate_of
from tierwise.identity import golden_file_hash
from tierwise.policy.floors import PairedFloor

_TRIED_FOR_NEXT = 8  # thresholds that are looked at for the number of further labels


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A candidate beside the reference, at whatever level it is given."""

    chain: Chain
    measurement: Measurement  # without a threshold
    worse: float
    everything: Pairs
    # The strictest first. What is unsure goes to the rest of `with_threshold`.
    tested: tuple[Pairs, ...] = ()
    with_threshold: Chain = ()
    # of the level that everything may use; the rest is for thresholds
    share: float = 1.0
    # everything is the last of the thresholds, so that it costs no alpha of its own
    is_last_of_walk: bool = False
    thresholds_hash: str | None = None
    note: str = ""

    def shown(self, level: Level) -> Pairs | None:
        """Return what is shown to be close enough to the reference; None: nothing is."""
        if self.is_last_of_walk:
            walk = (*self.tested, self.everything)
            return widest_pairs(walk, self.worse, level.each)
        if self.everything.p_value(self.worse) <= level.each * self.share:
            return self.everything
        return widest_pairs(self.tested, self.worse, level.each * (1 - self.share))

    def shown_whole(self, level: Level) -> bool:
        """Return True if all of its own answers are close enough."""
        shown = self.shown(level)
        return shown is not None and shown.threshold is None


def compare_with_reference(
    evaluation: Evaluation,
    candidates: Sequence[Chain],
    floor: PairedFloor,
    *,
    thresholds: Thresholds,
    look: int,
    machine: str,
) -> list[CandidateResult]:
    """Measure the reference and the candidates, and return what that shows of each.

    The reference is measured and not tested, so it takes no alpha.
    """
    if floor.reference is None:
        raise Misuse(f"{evaluation.step.name} has no model to compare with")
    reference = (floor.reference,)
    examples = evaluation.golden.examples
    beside = score(evaluation, reference, examples)
    compared = {
        chain: _compared(evaluation, chain, beside, floor, thresholds)
        for chain in candidates
        if chain != reference
    }
    measured = measure(evaluation, reference, beside)
    alpha = alpha_of_look(look)
    levels = share_level(
        list(compared),
        alpha,
        lambda chain, level: compared[chain].shown_whole(level),
    )
    first = CandidateResult(
        measurement=measured,
        level=Level(alpha, max(1, len(compared))),
        bound=0.0,
        certificate=None,
        reference=floor.reference,
        is_shown=True,
    )
    results = [first]
    for chain, candidate in compared.items():
        results += _results(
            evaluation,
            candidate,
            beside,
            floor,
            measured=measured,
            level=levels[chain],
            look=look,
            machine=machine,
        )
    return results


def _compared(
    evaluation: Evaluation,
    chain: Chain,
    beside: Sequence[ScoredExample],
    floor: PairedFloor,
    thresholds: Thresholds,
) -> Compared:
    """Return a candidate beside the reference, with its thresholds where it may have some."""
    scored = score(evaluation, chain, evaluation.golden.examples)
    own = [example.right for example in scored]
    plain = Compared(
        chain=chain,
        measurement=measure(evaluation, chain, scored),
        worse=floor.worse,
        everything=pairs_of(None, own, beside),
    )
    if thresholds == "none" or not may_have_threshold(evaluation, chain[0]):
        return plain
    first = scored
    others: Sequence[ScoredExample] = beside
    with_threshold = (*chain, *(name for name in (floor.reference,) if name))
    if len(chain) > 1:
        first = score(evaluation, chain[:1], evaluation.golden.examples)
        others = score(evaluation, chain[1:], evaluation.golden.examples)
        with_threshold = chain
    metadata = metadata_of(evaluation, chain[0])
    if metadata and not metadata.thresholds:
        note = (
            f"{chain[0]} was trained before thresholds were kept with a classifier: "
            f"`tierwise train {evaluation.step.name}` adds them"
        )
        return replace(plain, note=note)
    if not reports_confidence(first):
        return replace(plain, note=f"{chain[0]} reported no confidence")
    fixed = FIXED
    if metadata:
        fixed = tuple(point.confidence for point in metadata.thresholds)
    tested = tuple(
        _at_threshold(evaluation, threshold, first, others, beside)
        for threshold in fixed
    )
    is_last_of_walk = metadata is not None and len(chain) == 1
    return replace(
        plain,
        tested=tested,
        with_threshold=with_threshold,
        share=1.0 if is_last_of_walk else 0.5,
        is_last_of_walk=is_last_of_walk,
        thresholds_hash=metadata.thresholds_hash if metadata else None,
    )


def _at_threshold(
    evaluation: Evaluation,
    threshold: float,
    first: Sequence[ScoredExample],
    others: Sequence[ScoredExample],
    beside: Sequence[ScoredExample],
) -> Pairs:
    """Return what is delivered at a threshold: sure answers of the first, else the others'."""
    delivered = []
    kept = 0
    for own, other in zip(first, others, strict=True):
        keeps = own.answered and confidence_of(own) >= threshold
        stays = not own.answered and not is_handed_on(evaluation, own)
        if keeps or stays:
            kept += 1
            delivered.append(own.right)
        else:
            delivered.append(other.right)
    return pairs_of(threshold, delivered, beside, kept / len(first))


def _results(
    evaluation: Evaluation,
    candidate: Compared,
    beside: Sequence[ScoredExample],
    floor: PairedFloor,
    *,
    measured: Measurement,
    level: Level,
    look: int,
    machine: str,
) -> list[CandidateResult]:
    """Return a candidate's results: all of its answers, and with a threshold if that is shown.

    `measured` is the reference's measurement.
    """
    shown = candidate.shown(level)
    whole = shown is not None and shown.threshold is None
    certificate = None
    if shown is not None and whole:
        certificate = certificate_of(
            evaluation,
            candidate.measurement,
            0.0,
            thresholds_hash=candidate.thresholds_hash,
            level=level,
            look=look,
            machine=machine,
            also_has=_comparison(evaluation, floor, shown),
            also=measured,
        )
    surest = None
    if shown is not None and not whole:
        surest = _with_threshold(
            evaluation,
            candidate,
            beside,
            floor,
            shown,
            measured=measured,
            level=level,
            look=look,
            machine=machine,
        )
    further = None
    if not whole:
        further = _further_labels(
            candidate, floor, look + 1, only_all=surest is not None
        )
    everything = CandidateResult(
        measurement=candidate.measurement,
        level=level,
        bound=0.0,
        certificate=certificate,
        note=candidate.note,
        next_floor=further,
        pairs=candidate.everything,
        reference=floor.reference,
        is_shown=whole,
    )
    return [everything] if surest is None else [everything, surest]


def _with_threshold(
    evaluation: Evaluation,
    candidate: Compared,
    beside: Sequence[ScoredExample],
    floor: PairedFloor,
    shown: Pairs,
    *,
    measured: Measurement,
    level: Level,
    look: int,
    machine: str,
) -> CandidateResult | None:
    """Measure a candidate with its threshold, as production runs it; None if that is not shown."""
    chain = candidate.with_threshold
    scored = score(evaluation, chain, evaluation.golden.examples, shown.threshold)
    measurement = measure(evaluation, chain, scored, shown.threshold)
    own = [example.right for example in scored]
    pairs = pairs_of(shown.threshold, own, beside, measurement.coverage or 0.0)
    if pairs.p_value(floor.worse) > level.each or not measurement.coverage:
        return None
    return CandidateResult(
        measurement=measurement,
        level=level,
        bound=0.0,
        certificate=certificate_of(
            evaluation,
            measurement,
            0.0,
            thresholds_hash=candidate.thresholds_hash,
            level=level,
            look=look,
            machine=machine,
            also_has=_comparison(evaluation, floor, pairs),
            also=measured,
        ),
        pairs=pairs,
        reference=floor.reference,
        is_shown=True,
    )


def _comparison(
    evaluation: Evaluation, floor: PairedFloor, pairs: Pairs
) -> dict[str, Any]:
    """Return the fields of a certificate that say what was compared."""
    engine = evaluation.engine
    current = evaluation.current
    reference = floor.reference or ""
    return {
        "at_most_worse": floor.worse,
        "than": reference,
        "than_identity": current.identities[reference],
        "lost": pairs.lost,
        "gained": pairs.gained,
        "golden_file_hash": golden_file_hash(
            engine.project, evaluation.golden.path.name
        ),
    }


def _further_labels(
    candidate: Compared, floor: PairedFloor, look: int, *, only_all: bool
) -> NextComparison | None:
    """Return what more labels would show at the next look; None: no number near.

    `only_all`: a threshold is shown already, so that only all of the answers are more.
    """
    level = alpha_of_look(look)
    tested = [candidate.everything]
    if candidate.tested and not only_all:
        step = max(1, len(candidate.tested) // _TRIED_FOR_NEXT)
        # Each of these has to pass alone, and the walk to it as well.
        tested += candidate.tested[::step]
    if not candidate.is_last_of_walk:
        level *= candidate.share
    return next_comparison(tested, floor.worse, level, floor.words)
