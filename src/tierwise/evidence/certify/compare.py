"""Comparison of candidates on one golden set: which are measured, and what that proves of each."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from tierwise.evidence import judge
from tierwise.evidence.certify.candidates import (
    Plain,
    candidate_with_thresholds,
    plain_candidate,
)
from tierwise.evidence.certify.levels import Level, alpha_of_look, share_level
from tierwise.evidence.certify.measurable import (
    Chain,
    Thresholds,
    check_measurable,
    may_have_threshold,
)
from tierwise.evidence.certify.measure import (
    Evaluation,
    Measurement,
    answers_by_id,
    measure,
    score,
)
from tierwise.evidence.certify.next_floor import NextFloor, next_floor
from tierwise.evidence.certify.reference import compare_with_reference
from tierwise.evidence.certify.results import (
    CandidateResult,
    certificate_of,
    this_machine,
)
from tierwise.evidence.certify.thresholds import AtThreshold, p_value
from tierwise.evidence.judge import HumanLabel
from tierwise.policy.certificates import Certificate, Certificates, Look
from tierwise.records import canonical_hash


def compare(
    evaluation: Evaluation,
    candidates: Sequence[Chain],
    *,
    thresholds: Thresholds = "auto",
    look: int = 1,
    to_label: int = 0,
    machine: str | None = None,
) -> list[CandidateResult]:
    """Measure candidates and return what that proves of each.

    With thresholds, a first model that reports its confidence may be certified for the answers of
    which it is surest. `look` is the number of this look at the step's labels, which decides how
    much of alpha it may spend: see `look_at`. `to_label` is the number of answers of each candidate
    for human labelling. Raises Misuse for candidates that cannot be measured.
    """
    check_measurable(evaluation, candidates, thresholds)
    if evaluation.paired_floor is not None:
        return compare_with_reference(
            evaluation,
            candidates,
            evaluation.paired_floor,
            thresholds=thresholds,
            look=look,
            machine=machine or this_machine(),
        )
    alpha = alpha_of_look(look)
    at_first = Level(alpha, len(candidates))
    measured: dict[Chain, Plain] = {}
    labels: dict[Chain, tuple[HumanLabel, ...]] = {}
    for chain in candidates:
        scored = score(evaluation, chain, evaluation.golden.examples)
        plain = measure(evaluation, chain, scored)
        if thresholds != "none" and may_have_threshold(evaluation, chain[0]):
            measured[chain] = candidate_with_thresholds(
                evaluation, plain, scored, at_first
            )
        else:
            measured[chain] = plain_candidate(evaluation, plain)
        if to_label:
            asked = judge.select_for_labelling(
                evaluation.golden.examples, answers_by_id(scored), to_label
            )
            labels[chain] = tuple(asked)
    levels = share_level(
        list(measured),
        alpha,
        lambda chain, level: _is_shown_whole(measured[chain], level),
    )
    results = []
    for chain, candidate in measured.items():
        results += _results(
            evaluation,
            candidate,
            level=levels[chain],
            at_first=at_first,
            look=look,
            to_label=labels.get(chain, ()),
            machine=machine or this_machine(),
        )
    return results


def look_at(
    evaluation: Evaluation,
    candidates: Sequence[Chain],
    thresholds: Thresholds,
    earlier: Certificates,
    *,
    by_field: bool = False,
) -> Look:
    """Return this look at the step's labels, with its number among those on record.

    The same labels, floor, candidates and rules are the same look again, and spend nothing: the
    result is the same. Answers that are asked for anew are another look.
    """
    current = evaluation.current
    names = {name for chain in candidates for name in chain}
    judged = None
    if evaluation.judge:
        judged = [evaluation.judge, repr(evaluation.labels)]
    tried: list[Any] = [
        evaluation.golden.hash,
        evaluation.floor,
        current.prompt_hash,
        current.step_hash,
        current.measures.get(evaluation.golden_name, ""),
        current.escalate,
        {name: current.identities.get(name) for name in sorted(names)},
        sorted(candidates),
        thresholds,
        judged,
        evaluation.fresh_since,
    ]
    paired = evaluation.paired_floor
    if paired is not None:
        tried.append(f"at most {paired.worse} worse than {paired.reference}")
    if by_field:
        step = evaluation.step.name
        floors = evaluation.engine.policy.rules.field_floors.get(step, {})
        tried.append(["by field", dict(floors)])
    if evaluation.teacher is not None:
        tried += [evaluation.teacher, current.identities.get(evaluation.teacher)]
    tried_hash = canonical_hash(tried)
    shows: Literal["agreement"] | None = "agreement" if evaluation.teacher else None
    return Look(
        step=evaluation.step.name,
        shows=shows,
        number=earlier.number_of_look(evaluation.step.name, tried_hash, shows),
        golden=evaluation.golden_name,
        n=len(evaluation.golden.examples),
        floor=evaluation.floor,
        at_most_worse=None if paired is None else paired.worse,
        candidates=tuple(" > ".join(chain) for chain in candidates),
        tried=tried_hash,
        date=datetime.date.today(),
    )


def _is_shown_whole(candidate: Plain, level: Level) -> bool:
    """Return True if a candidate is shown to meet the floor in all that it answers."""
    shown = candidate.shown(level)
    return shown is not None and shown.threshold is None


def keep_earlier(
    evaluation: Evaluation,
    results: Sequence[CandidateResult],
    earlier: Iterable[Certificate],
) -> list[CandidateResult]:
    """Return the results without certificates that would replace better ones that are valid.

    Better is one that rests on more labels, or that shows more where this look, with its smaller
    share of alpha, does not show the floor. Answers that were asked for again replace even these.
    """
    candidates = [result.measurement.models for result in results]
    larger = larger_certificates(evaluation, candidates, earlier)
    earlier_valid = _valid_before(evaluation, earlier)
    kept = []
    for result in results:
        models = result.measurement.models
        if result.certificate is None:
            kept.append(result)
        elif models in larger:
            certificate = larger[models]
            note = (
                f"not written: the certificate of {certificate.date} rests on "
                f"{certificate.n} labels ({certificate.golden}), "
                f"this one would on {result.certificate.n}; "
                "--replace writes it all the same"
            )
            kept.append(replace(result, certificate=None, note=note))
        elif models in earlier_valid and _shows_more(
            evaluation, earlier_valid[models], result.certificate
        ):
            certificate = earlier_valid[models]
            note = (
                f"the certificate of {certificate.date} stays: it shows "
                f"{certificate.bound:.3f}, and a later look at the labels has less of alpha "
                "to show it with; --replace writes this one all the same"
            )
            kept.append(replace(result, certificate=None, note=note))
        else:
            kept.append(result)
    return kept


def _valid_before(
    evaluation: Evaluation, earlier: Iterable[Certificate]
) -> dict[Chain, Certificate]:
    """Return the valid certificates of this step, by their models."""
    if evaluation.fresh_since is not None:
        return {}
    current = evaluation.current
    return {
        certificate.models: certificate
        for certificate in earlier
        if certificate.step == evaluation.step.name
        and certificate.void_reasons(current) is None
    }


def _shows_more(evaluation: Evaluation, earlier: Certificate, new: Certificate) -> bool:
    """Return True if an earlier certificate shows more than one that misses the floor."""
    if _meets_floor(evaluation, new):
        return False
    return _meets_floor(evaluation, earlier) or earlier.bound > new.bound


def _meets_floor(evaluation: Evaluation, certificate: Certificate) -> bool:
    floor = evaluation.engine.policy.floor(evaluation.step.name)
    return floor is not None and certificate.covers(floor)


def larger_certificates(
    evaluation: Evaluation, candidates: Iterable[Chain], earlier: Iterable[Certificate]
) -> dict[Chain, Certificate]:
    """Return the valid certificates of candidates that rest on more labels than there are now."""
    current = evaluation.current
    wanted = set(candidates)
    size = len(evaluation.golden.examples)
    return {
        certificate.models: certificate
        for certificate in earlier
        if certificate.step == evaluation.step.name
        and certificate.models in wanted
        and certificate.golden_hash != evaluation.golden.hash
        and _measured_on(certificate) > size
        and certificate.void_reasons(current) is None
    }


def _measured_on(certificate: Certificate) -> float:
    """Return the number of examples behind a certificate, those that were handed on included."""
    # n counts the answered ones; they are the share `coverage` of all
    if certificate.partial and certificate.coverage:
        return certificate.n / certificate.coverage
    return certificate.n


def _results(
    evaluation: Evaluation,
    candidate: Plain,
    *,
    level: Level,
    at_first: Level,
    look: int,
    to_label: tuple[HumanLabel, ...],
    machine: str,
) -> list[CandidateResult]:
    """Return a candidate's results: all of its answers, and with a threshold if that is shown.

    A chain has one certificate: with the threshold if there is one, else of all answers.
    `at_first` is the level before others passed on theirs: only at that one do the bounds of all
    candidates hold together, so a certificate at another claims the floor and no more.
    """
    plain = candidate.measurement
    shown = candidate.shown(level)
    bound = plain.bound(at_first)
    if shown is not None and shown.threshold is None and evaluation.floor is not None:
        bound = max(bound, evaluation.floor)
    with_threshold = None
    if shown is not None and shown.threshold is not None:
        with_threshold = _with_threshold(evaluation, candidate, shown.threshold, level)
    next_level = Level(alpha_of_look(look + 1), compared=1)
    further = _next_floor(evaluation, candidate, bound, with_threshold, next_level)
    certificate = None
    if with_threshold is None:
        certificate = certificate_of(
            evaluation,
            plain,
            bound,
            thresholds_hash=candidate.thresholds_hash,
            level=level,
            look=look,
            machine=machine,
        )
    everything = CandidateResult(
        measurement=plain,
        level=level,
        bound=bound,
        certificate=certificate,
        note=candidate.note,
        next_level=next_level,
        next_floor=further if with_threshold is None else None,
        to_label=to_label,
    )
    if with_threshold is None or evaluation.floor is None:
        return [everything]
    surest = CandidateResult(
        measurement=with_threshold,
        level=level,
        bound=evaluation.floor,
        certificate=certificate_of(
            evaluation,
            with_threshold,
            evaluation.floor,
            thresholds_hash=candidate.thresholds_hash,
            level=level,
            look=look,
            machine=machine,
        ),
        next_level=next_level,
        next_floor=further,
        to_label=to_label,
    )
    return [everything, surest]


def _next_floor(
    evaluation: Evaluation,
    candidate: Plain,
    bound: float,
    with_threshold: Measurement | None,
    level: Level,
) -> NextFloor | None:
    """Return what more labels would bring at the level of the next look.

    None for a rubric, or where nothing is near.
    """
    if evaluation.floor is None or evaluation.rubric is not None:
        return None
    above = None
    if with_threshold is not None:
        above = evaluation.floor
    elif bound >= evaluation.floor:
        above = bound
    size = len(evaluation.golden.examples)
    return next_floor(candidate, size, level, above=above)


def _with_threshold(
    evaluation: Evaluation, candidate: Plain, threshold: float, level: Level
) -> Measurement | None:
    """Measure a candidate with its threshold, as production runs it; None if it misses the floor.

    A chain may deliver something else than its models do alone, such as where the rules limit the
    number of escalations.
    """
    chain = candidate.chain
    scored = score(evaluation, chain, evaluation.golden.examples, threshold)
    measurement = measure(evaluation, chain, scored, threshold)
    tested = AtThreshold(threshold, measurement.n, measurement.errors)
    if evaluation.floor is None or p_value(tested, evaluation.floor) > level.each:
        return None
    return measurement
