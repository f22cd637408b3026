"""Certification by field: what a model keeps of each field, and what a chain delivers with that.

Each field of each model is a claim of its own on the same labels, and so is each chain: together
they share the level of the look. A chain is measured with the fields that its models are certified
for, jointly: a document is right when all its fields are. These fields were chosen on the same
labels, so its bound is at a level that holds for every choice that there was: see `choices_of`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tierwise.errors import Misuse
from tierwise.evidence.certify.candidates import Plain, Shown
from tierwise.evidence.certify.levels import Level, alpha_of_look, share_level
from tierwise.evidence.certify.measurable import Chain, Thresholds, check_measurable
from tierwise.evidence.certify.measure import (
    Evaluation,
    Measurement,
    ScoredExample,
    is_handed_on,
    item_key,
    measure,
    score,
)
from tierwise.evidence.certify.results import certificate_of, this_machine
from tierwise.evidence.certify.thresholds import log_wealth
from tierwise.policy.by_field import KeptFields, kept_fields, thresholds_of
from tierwise.policy.certificates import (
    Certificate,
    Certificates,
    FieldCertificate,
    escalation_hash,
    labels_needed,
    lower_bound,
)
from tierwise.steps.field_correctness import check_field_measure, is_field_right

# The confidences that a field may need, the strictest first: few and fixed, as a chain's bound has
# to hold for all of them.
GRID: tuple[float, ...] = (0.999, 0.99, 0.97, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3)
# What a field may become in a chain, with the inverse of its share of the chain's level: never
# kept, always, or from one of the thresholds on. The shares add up to 1.
_NEVER = 4
_ALWAYS = 4
_FROM = 2 * len(GRID)


@dataclass(frozen=True, slots=True)
class FieldItem:
    """A golden item that says what is right in a field, with a model's value of it."""

    key: str
    kept: bool  # the value passes its checks
    right: bool
    confidence: float  # minus infinity where it is unknown


@dataclass(frozen=True, kw_only=True)
class FieldCandidate(Plain):
    """One field of one model: certified for all values that it keeps, or from a threshold on."""

    items: tuple[FieldItem, ...]
    fits: bool  # whether a threshold may be fitted

    def shown(self, level: Level) -> Shown | None:
        """Return what the golden set shows at this level; None: nothing meets the floor."""
        everything = super().shown(level)
        if everything is not None or self.floor is None or not self.fits:
            return everything
        rest = level.each * (1 - self.share)
        for threshold in reversed(GRID):
            n, errors = counts_from(self.items, threshold)
            if n and log_wealth(errors, n, self.floor) >= -math.log(rest):
                return Shown(threshold)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldResult:
    """The measurement of one field of one model, and its certificate, if it gets one."""

    model: str
    field: str
    floor: float | None
    measurement: Measurement  # of the values that are kept
    level: Level
    bound: float
    next_level: Level
    certificate: FieldCertificate | None = None
    # the certificate on file that stays, as it shows more
    stays: FieldCertificate | None = None

    @property
    def shows_floor(self) -> bool:
        """True where the field meets its floor, so that its value is kept."""
        return self.floor is not None and self.bound >= self.floor

    @property
    def missing_labels(self) -> str:
        """How many more labels would show the floor, in words."""
        if self.floor is None:
            return "no floor is set for it under `field_floors`"
        measured = self.measurement
        if not measured.n:
            return "no value passed its checks"
        later = labels_needed(
            measured.errors,
            measured.n,
            self.floor,
            alpha=self.next_level.alpha,
            compared=self.next_level.compared,
        )
        return replace(later, bound=self.bound).sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainResult:
    """What a chain delivers for whole documents with these fields kept.

    `measurement` is None where nothing is kept, so that there was nothing to measure.
    """

    chain: Chain
    keeps: Mapping[str, KeptFields]
    floor: float | None
    level: Level
    measurement: Measurement | None = None
    coverage: float = 0.0  # documents that the first model keeps whole
    bound: float = 0.0
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ByField:
    """Everything that one look shows by field."""

    fields: tuple[FieldResult, ...]
    chains: tuple[ChainResult, ...]

    @property
    def certificates(self) -> list[Certificate]:
        """All certificates to write."""
        listed: list[Certificate | None] = [each.certificate for each in self.fields]
        listed += [each.certificate for each in self.chains]
        return [certificate for certificate in listed if certificate is not None]


@dataclass(frozen=True, slots=True)
class _Claims:
    """The claims of one look: fields of models, and chains."""

    fields: tuple[tuple[str, str], ...]  # model, field
    chains: tuple[Chain, ...]
    alpha: float

    def share_of(self, claims: int) -> float:
        """Return the part of alpha of this many claims."""
        return self.alpha * claims / (len(self.fields) + len(self.chains))


def compare_by_field(
    evaluation: Evaluation,
    candidates: Sequence[Chain],
    earlier: Certificates,
    *,
    thresholds: Thresholds = "auto",
    look: int = 1,
    replaces: bool = False,
    machine: str | None = None,
) -> ByField:
    """Measure models by field, then chains with the fields that are kept.

    `earlier` are the certificates on file: one of a field that shows more stays, unless
    `replaces`. Raises Misuse for candidates that cannot be measured.
    """
    floors = field_floors(evaluation)
    check_by_field(evaluation, candidates)
    chains = chains_of(evaluation, candidates)
    firsts = list(dict.fromkeys(name for chain in chains for name in chain[:-1]))
    if not chains:
        firsts = [chain[0] for chain in candidates]
    names = tuple(floors) or evaluation.current.fields
    claims = _Claims(
        tuple((model, field) for model in firsts for field in names),
        chains if floors else (),
        alpha_of_look(look),
    )
    results = _field_results(
        evaluation, claims, floors, thresholds, look, machine or this_machine()
    )
    if not replaces and evaluation.fresh_since is None:
        results = [_unless_earlier(evaluation, each, earlier) for each in results]
    updated = earlier
    for result in results:
        if result.certificate is not None:
            updated = updated.with_certificate(result.certificate)
    return ByField(
        fields=tuple(results),
        chains=tuple(
            _chain_result(
                evaluation, chain, claims, updated, look, machine or this_machine()
            )
            for chain in claims.chains
        ),
    )


def field_floors(evaluation: Evaluation) -> Mapping[str, float]:
    """Return the rules' floors of the step's fields."""
    return evaluation.engine.policy.rules.field_floors.get(evaluation.step.name, {})


def check_by_field(evaluation: Evaluation, candidates: Sequence[Chain]) -> None:
    """Raise Misuse or ConfigError for what cannot be measured by field."""
    step = evaluation.step
    if not step.by_field:
        raise Misuse(
            f'{step.name} is not judged by field; write step("{step.name}", …, by_field=True)'
        )
    floors = field_floors(evaluation)
    unknown = [field for field in floors if field not in step.returns.model_fields]
    if unknown:
        raise Misuse(
            f"`field_floors` of {step.name} names {', '.join(unknown)}, which "
            f"{step.returns.__name__} does not have; it has {', '.join(step.returns.model_fields)}"
        )
    for chain in candidates:
        for name in chain:
            if evaluation.engine.policy.catalog.model(name).learned is not None:
                raise Misuse(
                    f"{name} is a trained classifier, which gives no fields; leave it out"
                )
    check_measurable(evaluation, candidates, "none")
    fields = tuple(floors) or tuple(step.returns.model_fields)
    check_field_measure(step, evaluation.golden.examples, fields)


def chains_of(evaluation: Evaluation, candidates: Sequence[Chain]) -> tuple[Chain, ...]:
    """Return the chains to measure: those that are named, or each model before the strongest."""
    named = tuple(chain for chain in candidates if len(chain) > 1)
    if named:
        return named
    models = evaluation.engine.policy.catalog.models
    alone = [chain[0] for chain in candidates]
    last = max(alone, key=lambda name: models[name].strength)
    return tuple((name, last) for name in alone if name != last)


def choices_of(keeps: Mapping[str, KeptFields], chain: Chain, fields: int) -> int:
    """Return the inverse of the share of a chain's level that this choice of kept fields has.

    The fields and thresholds were chosen on the labels that the chain is measured on. Each choice
    that was possible has a share, fixed beforehand, and the shares add up to 1: a bound at such a
    share holds whichever is chosen (a weighted Bonferroni correction).
    """
    inverse = 1
    for model in chain[:-1]:
        kept = keeps.get(model, {})
        for threshold in kept.values():
            inverse *= _ALWAYS if threshold is None else _FROM
        inverse *= _NEVER ** (fields - len(kept))
    return inverse


def counts_from(items: Sequence[FieldItem], threshold: float | None) -> tuple[int, int]:
    """Return the kept values from a confidence on, and the wrong ones among them."""
    kept = [
        item
        for item in items
        if item.kept and (threshold is None or item.confidence >= threshold)
    ]
    return len(kept), sum(not item.right for item in kept)


def field_items(
    evaluation: Evaluation, scored: Sequence[ScoredExample], field: str
) -> tuple[FieldItem, ...]:
    """Return a model's values of a field for the examples that say what is right in it."""
    items = []
    for each in scored:
        expected = each.example.expected
        if field not in expected:
            continue
        key = item_key(each.example.text)
        source = each.outcome.sources.get(field)
        if source is not None:
            value = each.outcome.value[field]
            right = is_field_right(evaluation.step, field, value, expected)
            confidence = -math.inf if source.confidence is None else source.confidence
            items.append(FieldItem(key, True, right, confidence))
        elif is_handed_on(evaluation, each):
            items.append(FieldItem(key, False, False, -math.inf))
        else:
            # no other model is asked, so that no threshold mends it
            items.append(FieldItem(key, True, False, math.inf))
    return tuple(items)


def fields_shown(
    candidates: Mapping[tuple[str, str], FieldCandidate], alpha: float
) -> dict[tuple[str, str], tuple[Level, Shown | None]]:
    """Return what is shown of each field of each model, and at which level: they share alpha."""
    levels = share_level(
        list(candidates),
        alpha,
        lambda claim, level: _is_shown_whole(candidates[claim], level),
    )
    return {
        claim: (levels[claim], candidate.shown(levels[claim]))
        for claim, candidate in candidates.items()
    }


def _field_results(
    evaluation: Evaluation,
    claims: _Claims,
    floors: Mapping[str, float],
    thresholds: Thresholds,
    look: int,
    machine: str,
) -> list[FieldResult]:
    alpha = claims.share_of(len(claims.fields))
    at_first = Level(alpha, len(claims.fields))
    fits = (
        thresholds != "none"
        and "low_confidence" in evaluation.engine.policy.rules.escalate.on
    )
    candidates: dict[tuple[str, str], FieldCandidate] = {}
    for model in dict.fromkeys(model for model, _ in claims.fields):
        scored = score(evaluation, (model,), evaluation.golden.examples)
        whole = measure(evaluation, (model,), scored)
        for claim in claims.fields:
            if claim[0] != model:
                continue
            items = field_items(evaluation, scored, claim[1])
            candidates[claim] = FieldCandidate(
                chain=(model,),
                measurement=_of_items(whole, items, None),
                floor=floors.get(claim[1]),
                share=0.5 if fits else 1.0,
                items=items,
                fits=fits,
            )
    shown_fields = fields_shown(candidates, alpha)
    next_claims = replace(claims, alpha=alpha_of_look(look + 1))
    next_level = Level(
        next_claims.share_of(len(claims.fields)), max(1, len(claims.fields))
    )
    results = []
    for (model, field), candidate in candidates.items():
        level, shown = shown_fields[model, field]
        threshold = None if shown is None else shown.threshold
        measurement = _of_items(candidate.measurement, candidate.items, threshold)
        bound = 0.0
        if candidate.measurement.n:
            bound = candidate.measurement.bound(at_first)
        if shown is not None and candidate.floor is not None:
            bound = max(bound, candidate.floor)
        if threshold is not None and candidate.floor is not None:
            bound = candidate.floor
        result = FieldResult(
            model=model,
            field=field,
            floor=candidate.floor,
            measurement=measurement,
            level=level,
            bound=bound,
            next_level=next_level,
        )
        certificate = _field_certificate(evaluation, result, look, machine)
        results.append(replace(result, certificate=certificate))
    return results


def _is_shown_whole(candidate: Plain, level: Level) -> bool:
    shown = candidate.shown(level)
    return shown is not None and shown.threshold is None


def _of_items(
    whole: Measurement, items: Sequence[FieldItem], threshold: float | None
) -> Measurement:
    """Return the measurement of the values that are kept of a field."""
    n, errors = counts_from(items, threshold)
    wrong = {
        item.key
        for item in items
        if item.kept and not item.right and item.confidence >= (threshold or -math.inf)
    }
    return replace(
        whole,
        n=n,
        errors=errors,
        deferred=sum(
            math.isinf(item.confidence) and item.confidence > 0 for item in items
        ),
        threshold=threshold,
        coverage=None if threshold is None else n / len(items),
        items=len(items),
        wrong=(),
        wrong_items=tuple(sorted(wrong)),
    )


def _field_certificate(
    evaluation: Evaluation, result: FieldResult, look: int, machine: str
) -> FieldCertificate | None:
    certificate = certificate_of(
        evaluation,
        result.measurement,
        result.bound,
        thresholds_hash=None,
        level=result.level,
        look=look,
        machine=machine,
    )
    if certificate is None:
        return None
    escalate = evaluation.current.escalate
    changed = {
        "field": result.field,
        "floor": result.floor,
        "escalate_hash": escalation_hash(escalate, (result.model,), 0.0),
    }
    return FieldCertificate(**{**certificate.model_dump(), **changed})


def _unless_earlier(
    evaluation: Evaluation, result: FieldResult, earlier: Certificates
) -> FieldResult:
    """Return the result without a certificate where the one on file shows more."""
    on_file = earlier.find_field(evaluation.step.name, result.model, result.field)
    new = result.certificate
    if on_file is None or new is None or on_file.void_reasons(evaluation.current):
        return result
    rests_on_more = (on_file.items or 0) > (new.items or 0)
    has_other_labels = on_file.golden_hash != new.golden_hash
    floor = result.floor
    shows_more = floor is not None and on_file.covers(floor) and not new.covers(floor)
    if shows_more or (rests_on_more and has_other_labels):
        return replace(result, certificate=None, stays=on_file)
    return result


def _chain_result(
    evaluation: Evaluation,
    chain: Chain,
    claims: _Claims,
    certificates: Certificates,
    look: int,
    machine: str,
) -> ChainResult:
    """Measure a chain with the fields that the router will keep of its models."""
    floors = field_floors(evaluation)
    step = evaluation.step.name
    keeps = {}
    for model in chain[:-1]:
        kept = kept_fields(certificates, step, model, floors, evaluation.current)
        keeps[model] = thresholds_of(kept)
    choices = choices_of(keeps, chain, len(floors))
    level = Level(claims.share_of(len(claims.chains)), len(claims.chains) * choices)
    result = ChainResult(chain=chain, keeps=keeps, floor=evaluation.floor, level=level)
    if not any(keeps.values()):
        return result
    scored = score(evaluation, chain, evaluation.golden.examples, keeps=keeps)
    whole = [
        each.answered and {a.model for a in each.outcome.attempts} == {chain[0]}
        for each in scored
    ]
    coverage = sum(whole) / len(whole)
    measured = replace(measure(evaluation, chain, scored), coverage=coverage)
    bound = lower_bound(
        measured.errors, measured.n, alpha=level.alpha, compared=level.compared
    )
    certificate = certificate_of(
        evaluation,
        measured,
        bound,
        thresholds_hash=None,
        level=level,
        look=look,
        machine=machine,
        also_has={"keeps": keeps},
    )
    return replace(
        result,
        measurement=measured,
        coverage=coverage,
        bound=bound,
        certificate=certificate,
    )
