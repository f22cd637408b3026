"""The router: a pure decision. The same features, policy and budget left give the same route."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from tierwise.policy.agreement import NO_TIERS, agreement_doubt, agreements_for
from tierwise.policy.by_field import (
    KeptFields,
    evidence_of,
    field_chains,
    kept_fields,
    why_nothing_is_kept,
)
from tierwise.policy.catalog import Catalog, Model
from tierwise.policy.certificates import (
    AgreementCertificate,
    Candidate,
    Certificate,
    Certificates,
    Current,
    expected_cost,
)
from tierwise.policy.floors import AtMostWorse, Floor, PairedFloor, paired_floor
from tierwise.policy.prices import Band
from tierwise.policy.rules import Features, Guard, Rules
from tierwise.records import (
    Cause,
    Choice,
    Rejection,
    RejectionKind,
    Route,
    Usage,
    canonical_hash,
)

_NO_THRESHOLDS: Mapping[str, float] = {}
_NO_DOUBTS: Mapping[str, str] = {}
_NO_TEACHERS: Mapping[str, str] = {}
_NO_KEEPS: Mapping[str, KeptFields] = {}
_NAMED = "the order that the route names"
# What a document waits for that has no model left, the easiest to mend first. The other kinds of
# rejections need other rules, or another document.
_CAUSES_BY_REJECTION: Mapping[RejectionKind, Cause] = {
    "budget": "budget",
    "unavailable": "setup",
    "uncertified": "uncertified",
    "unknown_price": "unpriced",
}
# a relative error that is more than sums of floats make, and less than any price
_ROUNDING = 1e-9


class FastBounds(NamedTuple):
    """Limits within which a model certainly fits context window and budget.

    Most models are accepted by two comparisons of floats; only the others need the exact decimal
    sum.
    """

    tier: str
    prompt_tokens: float  # -1: never without the exact check
    usd_per_token: float  # nan when the price is unknown, so that the comparison fails
    usd_for_answer: float


class CandidateOrder(NamedTuple):
    """The allowed models in the order in which to try them, and why."""

    models: tuple[str, ...]
    reason: str
    rejected: tuple[Rejection, ...] = ()
    thresholds: Mapping[str, float] = _NO_THRESHOLDS
    # model -> teacher, where agreement is the evidence and not correctness
    agrees_with: Mapping[str, str] = _NO_TEACHERS
    # model -> the fields that are kept of its answer: see `Route`
    keeps: Mapping[str, KeptFields] = _NO_KEEPS


NO_CANDIDATE = CandidateOrder((), "no acceptable model is left")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Everything that a routing decision depends on, besides the document.

    `unavailable` maps a model to what is missing here; `demoted` maps a step and chain to the
    reason.
    """

    catalog: Catalog
    rules: Rules
    certificates: Certificates = field(default_factory=Certificates)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    demoted: Mapping[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of catalog, rules, certificates and demotions, as the ledger records it."""
        parts: list[object] = [
            self.catalog.hash,
            self.rules.hash,
            self.certificates.hash,
        ]
        # Without demotions, the hash is that of the three files alone.
        if self.demoted:
            parts.append(sorted(self.demoted.items()))
        return canonical_hash(parts)

    @cached_property
    def by_strength(self) -> tuple[str, ...]:
        """All models, the strongest first; equally strong ones by name."""
        models = self.catalog.models
        return tuple(sorted(models, key=lambda name: (-models[name].strength, name)))

    def floor(self, step: str) -> Floor | None:
        """Return the least quality that the rules ask of a step; None where they set none.

        A floor beside a reference has the models that can be one here: available ones that do the
        step and are no trained classifiers.
        """
        if step not in self._floors:
            setting = self.rules.floors.get(step)
            if isinstance(setting, AtMostWorse):
                self._floors[step] = self._paired_floor(step, setting)
            else:
                self._floors[step] = setting
        return self._floors[step]

    def _paired_floor(self, step: str, setting: AtMostWorse) -> PairedFloor:
        models = self.catalog.models
        usable = [
            name
            for name in self.by_strength
            if models[name].learned is None
            and self.unusable(models[name], step) is None
        ]
        strengths = {
            name: model.strength
            for name, model in models.items()
            if model.learned is None
        }
        return paired_floor(setting, usable, strengths)

    def fast_bounds(
        self, step: str, max_output_tokens: int
    ) -> Mapping[str, FastBounds]:
        """Return each model's bounds, computed once for all documents of a step."""
        key = (step, max_output_tokens)
        if key not in self._fast_bounds:
            bounds = {}
            for model in self.catalog.models.values():
                usable = self.unusable(model, step) is None
                bounds[model.name] = _fast_bounds(
                    model, max_output_tokens, usable=usable
                )
            self._fast_bounds[key] = bounds
        return self._fast_bounds[key]

    def unusable(self, model: Model, step: str) -> Rejection | None:
        """Return why a model cannot do a step here, whatever the document; None when it can."""
        name = model.name
        if name in self.unavailable:
            missing = self.unavailable[name]
            return Rejection(
                name, f"unavailable: {missing}", "unavailable", detail=missing
            )
        if model.learned not in (None, step):
            return Rejection(name, f"is trained for {model.learned} only", "other_step")
        return None

    def candidate_order(
        self,
        step: str,
        allowed: tuple[str, ...],
        current: Current | None,
        *,
        named: bool,
        barred: frozenset[str] = NO_TIERS,
    ) -> CandidateOrder:
        """Return the order of the allowed models: as the route names them, or by certificates.

        `barred` are the tiers that a guard keeps the document from. The result is kept for as long
        as `current` is the same object.
        """
        key = (step, allowed, named, barred)
        kept = self._candidate_orders.get(key)
        if kept is not None and kept[0] is current:
            return kept[1]
        if named:
            order = _as_named(step, self, allowed, current, barred)
        else:
            order = _by_certificates(step, self, allowed, current, barred)
        self._candidate_orders[key] = (current, order)
        return order

    # The next three are caches: the policy is frozen, but these dicts can be filled.

    @cached_property
    def _floors(self) -> dict[str, Floor | None]:
        return {}

    @cached_property
    def _fast_bounds(self) -> dict[tuple[str, int], Mapping[str, FastBounds]]:
        return {}

    @cached_property
    def _candidate_orders(
        self,
    ) -> dict[
        tuple[str, tuple[str, ...], bool, frozenset[str]],
        tuple[Current | None, CandidateOrder],
    ]:
        return {}


def route(
    f: Features,
    policy: Policy,
    *,
    max_output_tokens: int,
    splits: bool = False,
    budget_left: Decimal | None = None,
    current: Current | None = None,
) -> Route:
    """Return the ordered models for one document and step, and why each other one is left out.

    `budget_left` is in USD, None without a budget. With `splits`, a document longer than a context
    window does not rule the model out. `current` is what certificates must agree with; without it,
    none is valid.
    """
    rule = policy.rules.matching(f)
    if rule is None:
        reason = "no route matches; add one without a condition"
        return Route(step=f.step, rule="none", models=(), reason=reason)
    bounds = policy.fast_bounds(f.step, max_output_tokens)
    tokens = f.prompt_tokens
    usd_left = _surely_left(budget_left)
    # Once for each tier, as many models share one.
    guards = {
        tier: policy.rules.guard_against(tier, f) for tier in policy.catalog.tiers
    }
    # keeps the order, and each once: a route may name a model twice
    allowed: dict[str, None] = {}
    rejected: dict[str, Rejection] = {}
    # A route that names no models may take any.
    for name in rule.candidates or policy.by_strength:
        # The fast path: this loop runs for every model and document.
        tier, most_tokens, usd_per_token, usd_for_answer = bounds[name]
        guard = guards[tier]
        # False for an unknown price, which is nan: then the exact check decides.
        fits_budget = tokens * usd_per_token + usd_for_answer <= usd_left
        is_short = tokens <= most_tokens and not f.pages
        if guard is None and is_short and fits_budget:
            allowed[name] = None
            continue
        model = policy.catalog.models[name]
        rejection = _rejection(
            policy, model, f, guard, max_output_tokens, splits, budget_left
        )
        if rejection is None:
            allowed[name] = None
        else:
            rejected[name] = rejection
    order = NO_CANDIDATE
    if allowed:
        # Agreement with a teacher says nothing of documents that the teacher may not see.
        barred = NO_TIERS
        if policy.certificates.agreements:
            barred = frozenset(tier for tier, guard in guards.items() if guard)
        order = policy.candidate_order(
            f.step, tuple(allowed), current, named=rule.pick is None, barred=barred
        )
    return Route(
        step=f.step,
        rule=rule.name,
        models=order.models,
        rejected=(*rejected.values(), *order.rejected),
        review=rule.review,
        reason=order.reason,
        thresholds=order.thresholds,
        agrees_with=order.agrees_with,
        keeps=order.keeps,
    )


def choices(
    chosen: Route,
    f: Features,
    policy: Policy,
    *,
    max_output_tokens: int,
    current: Current | None = None,
) -> tuple[Choice, ...]:
    """Return each model of a route with its expected cost for this document and its evidence."""
    floor = policy.floor(chosen.step)
    agreements: dict[str, AgreementCertificate] = {}
    if current is not None and policy.certificates.agreements:
        barred = frozenset(
            tier
            for tier in policy.catalog.tiers
            if policy.rules.guard_against(tier, f) is not None
        )
        counted = _agreements(chosen.step, policy, chosen.models, current, barred)
        for certificate in counted:
            if len(certificate.models) == 1:
                agreements[certificate.models[0]] = certificate
    return tuple(
        _choice(
            name, f, policy, floor, max_output_tokens, current, agreements.get(name)
        )
        for name in chosen.models
    )


def _choice(
    name: str,
    f: Features,
    policy: Policy,
    floor: Floor | None,
    max_output_tokens: int,
    current: Current | None,
    agreement: AgreementCertificate | None,
) -> Choice:
    model = policy.catalog.model(name)
    certificate = policy.certificates.find(f.step, [name])
    answer_tokens = model.longest_output(max_output_tokens)
    # The measured mean, where there is one, and not the longest answer allowed.
    if certificate and certificate.mean_usage:
        answer_tokens = math.ceil(certificate.mean_usage[name].completion_tokens)
    cost = model.cost(Usage(tokens_for(model, f), answer_tokens))
    has_floors = f.step in policy.rules.field_floors
    if has_floors and current is not None and current.fields:
        return Choice(name, cost, _field_evidence(name, f.step, policy, current))
    if floor is None and agreement is None:
        return Choice(name, cost, "no floor is set")
    if current is None:
        return Choice(name, cost, "")
    if isinstance(floor, PairedFloor) and name in floor.references:
        return Choice(name, cost, "the reference of the floor")
    missing_proof = None
    if floor is not None:
        missing_proof = policy.certificates.missing_proof(
            f.step, [name], floor, current
        )
    if agreement is not None and (floor is None or missing_proof is not None):
        return Choice(name, cost, agreement.proof)
    if missing_proof is not None:
        return Choice(name, cost, missing_proof)
    return Choice(name, cost, certificate.proof if certificate else "")


def _field_evidence(name: str, step: str, policy: Policy, current: Current) -> str:
    """Return the fields that a model is certified for, with the evidence."""
    floors = policy.rules.field_floors[step]
    kept = kept_fields(policy.certificates, step, name, floors, current)
    if kept:
        return evidence_of([kept[field] for field in sorted(kept)])
    return why_nothing_is_kept(policy.certificates, step, name, floors, current)


def rejection_of(
    policy: Policy,
    model: Model,
    f: Features,
    *,
    max_output_tokens: int,
    splits: bool = False,
    budget_left: Decimal | None = None,
) -> Rejection | None:
    """Return why a model may not be asked about a document, or None.

    Reasons are a guard, availability, the window and the budget.
    """
    guard = policy.rules.guard_against(model.tier, f)
    return _rejection(policy, model, f, guard, max_output_tokens, splits, budget_left)


def unroutable_cause(chosen: Route) -> Cause:
    """Return why a route without models defers, by the rejection that is the easiest to mend."""
    kinds = {rejection.kind for rejection in chosen.rejected}
    for kind, cause in _CAUSES_BY_REJECTION.items():
        if kind in kinds:
            return cause
    return "no_model"


def worst_case(
    model: Model, prompt_tokens: int, max_output_tokens: int, band: Band = "online"
) -> Decimal | None:
    """Return the most that one call can cost (USD), None when the price is unknown.

    `prompt_tokens` is an estimate; the model's margin is added. `max_output_tokens` is the prompt's
    limit of the answer; the tokens that the model may think are added. Every token of the prompt
    costs what it may cost at most, such as the price of a write to the cache.
    """
    most_prompt_tokens = _with_margin(model, prompt_tokens)
    most_answer_tokens = model.longest_output(max_output_tokens)
    return model.most_cost(most_prompt_tokens, most_answer_tokens, band)


def tokens_for(model: Model, f: Features) -> int:
    """Return the tokens of a document's prompt for a model, with the pages that it is shown."""
    if not (f.pages and model.vision):
        return f.prompt_tokens
    return f.prompt_tokens + f.pages * model.most_image_tokens


def _with_margin(model: Model, prompt_tokens: int) -> int:
    return math.ceil(prompt_tokens * model.token_margin)


def _surely_left(budget_left: Decimal | None) -> float:
    """Return the USD that are left, rounded down enough for a comparison of floats."""
    if budget_left is None:
        return math.inf
    return float(budget_left) * (1 - _ROUNDING)


def _fast_bounds(model: Model, max_output_tokens: int, *, usable: bool) -> FastBounds:
    """Return bounds that never allow more than `_rejection` would: rounding is always up."""
    answer_tokens = model.longest_output(max_output_tokens)
    most_tokens = -1.0
    if usable:
        # 2 tokens less than the window, as both the margin and the estimate are rounded up
        most_tokens = (model.context_tokens - answer_tokens - 2) / model.token_margin
    if model.price == "unknown":
        return FastBounds(model.tier, most_tokens, math.nan, math.nan)
    # The price may depend on the prompt's length, so the most expensive part is the bound.
    parts = model.price.parts
    most_input = max(float(part.input_bound) for part in parts)
    most_output = max(float(part.output) for part in parts)
    usd_per_input_token = most_input / 1e6 * (1 + _ROUNDING)
    usd_per_output_token = most_output / 1e6 * (1 + _ROUNDING)
    usd_for_answer = usd_per_input_token + usd_per_output_token * answer_tokens
    usd_per_token = usd_per_input_token * model.token_margin
    return FastBounds(model.tier, most_tokens, usd_per_token, usd_for_answer)


def _rejection(
    policy: Policy,
    model: Model,
    f: Features,
    guard: Guard | None,
    max_output_tokens: int,
    splits: bool,
    budget_left: Decimal | None,
) -> Rejection | None:
    """Return why a model is left out; `guard` is the one that forbids its tier, if one does."""
    name = model.name
    # The guard comes first: a forbidden model stays so, whatever else is mended.
    if guard is not None:
        return Rejection(name, guard.refusal(f), "guard", detail=guard.name)
    unusable = policy.unusable(model, f.step)
    if unusable is not None:
        return unusable
    if f.pages > model.max_images and model.vision:
        reason = f"{f.pages} pages, it is shown at most {model.max_images}"
        return Rejection(name, reason, "context_length")
    tokens = tokens_for(model, f)
    needed = _with_margin(model, tokens) + model.longest_output(max_output_tokens)
    if needed > model.context_tokens and not splits:
        reason = f"needs about {needed} tokens, its context window has {model.context_tokens}"
        return Rejection(name, reason, "context_length")
    if budget_left is None:
        return None
    worst = worst_case(model, tokens, max_output_tokens)
    if worst is None and name not in policy.rules.budget.allow_unpriced:
        reason = "unknown price; add the model to budget.allow_unpriced to use it under a budget"
        return Rejection(name, reason, "unknown_price")
    if worst is not None and worst > budget_left:
        reason = f"may cost {worst:.6f} USD, the budget has {budget_left:.6f} left"
        return Rejection(name, reason, "budget")
    return None


def _as_named(
    step: str,
    policy: Policy,
    allowed: tuple[str, ...],
    current: Current | None,
    barred: frozenset[str] = NO_TIERS,
) -> CandidateOrder:
    """Return the order that the route names, with the thresholds of its certified models.

    A model certified with a threshold passes less confident answers on to the next one.
    """
    if current is None or "low_confidence" not in policy.rules.escalate.on:
        return CandidateOrder(allowed, _NAMED)
    floor = policy.floor(step)
    thresholds: dict[str, float] = {}
    teachers: dict[str, str] = {}
    for certificate in _agreements(step, policy, allowed, current, barred):
        if len(certificate.models) == 1:
            teachers[certificate.models[0]] = certificate.teacher
            if certificate.threshold is not None:
                thresholds[certificate.models[0]] = certificate.threshold
    for place, name in enumerate(allowed):
        if floor is None:
            break
        certified = policy.certificates.certified(step, [name], floor, current)
        if certified is None and isinstance(floor, PairedFloor):
            # What is unsure goes to the reference, so the certificate is one of both.
            pair = allowed[place : place + 2]
            certified = policy.certificates.certified(step, pair, floor, current)
        if certified and certified.threshold is not None:
            # correctness counts before agreement
            thresholds[name] = certified.threshold
        elif certified:
            thresholds.pop(name, None)
        if certified:
            teachers.pop(name, None)
    return CandidateOrder(
        allowed,
        _NAMED,
        thresholds=thresholds,
        agrees_with=teachers,
        keeps=_named_keeps(step, policy, allowed, current),
    )


def _named_keeps(
    step: str, policy: Policy, allowed: tuple[str, ...], current: Current
) -> dict[str, KeptFields]:
    """Return the confidences that fields of named models need, by their certificates.

    The route names the models, so a field without a certificate is kept as it is. A model that
    needs no confidence for any field is left out.
    """
    floors = policy.rules.field_floors.get(step, {})
    keeps: dict[str, KeptFields] = {}
    for name in allowed if current.fields else ():
        kept = kept_fields(policy.certificates, step, name, floors, current)
        thresholds = {
            field: kept[field].threshold if field in kept else None
            for field in current.fields
        }
        if any(threshold is not None for threshold in thresholds.values()):
            keeps[name] = thresholds
    return keeps


def _agreements(
    step: str,
    policy: Policy,
    allowed: tuple[str, ...],
    current: Current,
    barred: frozenset[str],
) -> list[AgreementCertificate]:
    """Return the certificates of agreement with a teacher that count for a document."""
    if not policy.certificates.agreements:
        return []
    return agreements_for(
        step,
        policy.certificates,
        policy.catalog,
        policy.rules,
        allowed,
        current,
        barred,
    )


def _by_certificates(
    step: str,
    policy: Policy,
    allowed: tuple[str, ...],
    current: Current | None,
    barred: frozenset[str] = NO_TIERS,
) -> CandidateOrder:
    """Return the cheapest certified chain, then the strongest model; and why others are left out.

    Without a certificate the strongest allowed model comes first: evidence buys cheapness. A
    trained classifier needs a certificate to be asked at all, since nothing else shows where it is
    right. A certificate of agreement with a teacher counts where the rules give a floor for it.
    """
    if current is not None and current.fields and step in policy.rules.field_floors:
        return _by_field(step, policy, allowed, current)
    floor = policy.floor(step)
    agreement_floor = policy.rules.agreement_floors.get(step)
    if floor is None and agreement_floor is None:
        return _uncertified_order(policy, allowed, f"no floor is set for {step}")
    if current is None:
        return _uncertified_order(
            policy, allowed, "nothing is certified here", floor=floor
        )
    certified: list[Certificate] = []
    if floor is not None:
        certified += [
            certificate
            for certificate in policy.certificates.valid_for(step, floor, current)
            # What was measured with kept fields is no proof of the chain without them.
            if set(certificate.models) <= set(allowed) and certificate.keeps is None
        ]
    # A threshold proves something only if answers below it are passed on.
    if "low_confidence" not in policy.rules.escalate.on:
        certified = [
            certificate for certificate in certified if certificate.threshold is None
        ]
    certified += _agreements(step, policy, allowed, current, barred)
    if not certified:
        missing = f"nothing is certified for {step}"
        doubts = _doubts(step, policy, allowed, current, barred)
        return _uncertified_order(policy, allowed, missing, doubts, floor)
    strongest = _last_model(policy, allowed, floor)
    best = min(
        candidate_chains(certified),
        key=lambda chain: _sort_key(chain, policy, strongest),
    )
    names = [name for certificate in best for name in certificate.models]
    # Each once, in this order: the strongest, or the reference, is last unless the chain has it already.
    models = tuple(dict.fromkeys([*names, strongest]))
    others = [name for name in allowed if name not in models]
    thresholds = {
        certificate.models[0]: certificate.threshold
        for certificate in best
        if certificate.threshold is not None
    }
    evidence = ", then ".join(_describe(certificate) for certificate in best)
    doubts = _doubts(step, policy, allowed, current, barred)
    return CandidateOrder(
        models,
        f"{_claim(best, floor, agreement_floor)}: {evidence}",
        tuple(
            _passed_over(policy, step, name, floor, current, doubts) for name in others
        ),
        thresholds,
        {
            certificate.models[0]: certificate.teacher
            for certificate in best
            if isinstance(certificate, AgreementCertificate)
        },
    )


def _by_field(
    step: str, policy: Policy, allowed: tuple[str, ...], current: Current
) -> CandidateOrder:
    """Return the cheapest chain whose kept fields are certified, then the strongest model."""
    floors = policy.rules.field_floors[step]
    floor = policy.floor(step)
    if "low_confidence" not in policy.rules.escalate.on:
        missing = "open fields go nowhere without low_confidence under `escalate.on`"
        return _uncertified_order(policy, allowed, missing)
    kept = {
        name: kept_fields(policy.certificates, step, name, floors, current)
        for name in allowed
    }
    last = _last_model(policy, allowed, floor)
    chains = list(
        field_chains(
            policy.certificates,
            policy.catalog,
            step,
            kept,
            last,
            typical_cost(policy, step, last),
            floor,
            current,
        )
    )
    if not any(kept.values()) or not chains:
        missing = f"no chain of {step} is certified by field"
        if floor is not None and any(kept.values()):
            missing = f"{missing} and for whole documents at {floor:g}"
        return _uncertified_order(policy, allowed, missing)
    best = min(chains, key=lambda chain: chain.sort_key)
    rejected = []
    for name in allowed:
        if name in best.models:
            continue
        if kept[name]:
            reason = "certified by field, but more expensive than the chosen one"
            rejected.append(Rejection(name, reason, "cost"))
        else:
            reason = why_nothing_is_kept(
                policy.certificates, step, name, floors, current
            )
            rejected.append(Rejection(name, reason, "uncertified"))
    return CandidateOrder(
        best.models,
        f"the cheapest with certified fields: {best.evidence}",
        tuple(rejected),
        keeps=best.keeps,
    )


def _claim(
    chain: Sequence[Certificate], floor: Floor | None, agreement_floor: float | None
) -> str:
    """Return what a chain is shown to do, in words: agreement is never called capability."""
    teachers = [
        certificate.teacher
        for certificate in chain
        if isinstance(certificate, AgreementCertificate)
    ]
    if not teachers:
        return f"the cheapest shown {_shown(floor)}"
    agrees = f"shown to agree with {teachers[0]} at {agreement_floor:g}"
    if len(teachers) == len(chain):
        return f"the cheapest {agrees}, which is no proof of correctness"
    return f"the cheapest {agrees} (no proof of correctness) or {_shown(floor)}"


def _shown(floor: Floor | None) -> str:
    """Return what models are shown to be, in words."""
    if isinstance(floor, PairedFloor):
        return f"to be {floor.words}"
    return f"capable of {floor:g}"


def _last_model(policy: Policy, allowed: tuple[str, ...], floor: Floor | None) -> str:
    """Return the model that answers what no certified one does: the reference, or the strongest."""
    if isinstance(floor, PairedFloor) and floor.reference in allowed:
        return floor.reference
    return max(allowed, key=lambda name: policy.catalog.models[name].strength)


def _doubts(
    step: str,
    policy: Policy,
    allowed: tuple[str, ...],
    current: Current,
    barred: frozenset[str],
) -> dict[str, str]:
    """Return why certificates of agreement of single models do not count, by model."""
    doubts = {}
    for name in allowed:
        certificate = policy.certificates.find_agreement(step, [name])
        if certificate is None:
            continue
        doubt = agreement_doubt(
            certificate, policy.catalog, policy.rules, allowed, current, barred
        )
        if doubt is not None:
            doubts[name] = doubt
    return doubts


def _passed_over(
    policy: Policy,
    step: str,
    name: str,
    floor: Floor | None,
    current: Current,
    doubts: Mapping[str, str],
) -> Rejection:
    """Return why an allowed model is not chosen: it is not certified, or more expensive."""
    missing_proof = None
    if floor is None:
        missing_proof = f"no floor is set for {step}, so nothing shows it capable"
    else:
        missing_proof = policy.certificates.missing_proof(step, [name], floor, current)
    agrees = policy.certificates.find_agreement(step, [name])
    if missing_proof is not None and (agrees is None or name in doubts):
        if name in doubts:
            missing_proof = f"{missing_proof}; {doubts[name]}"
        return Rejection(name, missing_proof, "uncertified")
    return Rejection(name, "certified, but more expensive than the chosen one", "cost")


def _uncertified_order(
    policy: Policy,
    allowed: tuple[str, ...],
    missing: str,
    doubts: Mapping[str, str] = _NO_DOUBTS,
    floor: Floor | None = None,
) -> CandidateOrder:
    """Return the allowed models as they are, without trained classifiers.

    A reference that the rules name comes first: it is what the others are held against.
    """
    models = []
    rejected = []
    for name in allowed:
        if policy.catalog.models[name].learned is None:
            models.append(name)
        else:
            reason = "not certified; a trained classifier needs a certificate"
            if name in doubts:
                reason = f"{reason}; {doubts[name]}"
            rejected.append(Rejection(name, reason, "uncertified"))
    reason = f"{missing}, so the strongest allowed model comes first"
    if isinstance(floor, PairedFloor) and floor.is_named and floor.reference in models:
        models.remove(floor.reference)
        models.insert(0, floor.reference)
        reason = (
            f"{missing}, so {floor.reference} comes first, the reference of the floor"
        )
    return CandidateOrder(tuple(models), reason, tuple(rejected))


def candidate_chains(
    certified: Sequence[Certificate],
) -> Iterator[tuple[Certificate, ...]]:
    """Yield each certificate alone, and each partial one before each that covers all documents.

    A partial certificate proves a model only where its confidence reaches the threshold.
    """
    complete = [certificate for certificate in certified if not certificate.partial]
    for certificate in certified:
        yield (certificate,)
        if not certificate.partial:
            continue
        for following in complete:
            if following.models != certificate.models:
                yield (certificate, following)


def _sort_key(
    chain: tuple[Certificate, ...], policy: Policy, strongest: str
) -> tuple[float, Decimal, tuple[str, ...]]:
    """Return (share without a known cost, expected USD a document, names): the least comes first.

    What the chain leaves goes to the strongest model. Where that model's cost is unknown, chains
    are ordered by the share of documents that may have to pay it.
    """
    names = tuple(name for certificate in chain for name in certificate.models)
    candidates = [
        Candidate(
            " > ".join(certificate.models),
            certificate.cost(policy.catalog),
            certificate.passes,
        )
        for certificate in chain
    ]
    # The strongest model passes all that reaches it (1.0), as nothing comes after it.
    with_fallback = candidates
    if strongest not in names:
        fallback = Candidate(
            strongest, typical_cost(policy, chain[0].step, strongest), 1.0
        )
        with_fallback = [*candidates, fallback]
    cost = expected_cost(with_fallback)
    if cost is not None:
        return 0, cost, names
    share_left = math.prod(1 - certificate.passes for certificate in chain)
    cost_before = expected_cost(candidates) or Decimal(0)
    # Never 0 here, which would sort it among the chains of known cost.
    return share_left or 1.0, cost_before, names


def typical_cost(policy: Policy, step: str, name: str) -> Decimal | None:
    """Return a model's mean cost for a document (USD) where it was measured.

    Elsewhere, price the tokens that another model took for the step, the most expensive case; None
    when there is no measurement or no price.
    """
    model = policy.catalog.model(name)
    own: list[Certificate | None] = [policy.certificates.find(step, [name])]
    own += policy.certificates.fields_of(step, name)
    for certificate in own:
        if certificate and certificate.mean_usage:
            return certificate.mean_usage[name].cost(model)
    costs = []
    for certificate in policy.certificates.of_correctness:
        if certificate.step != step or not certificate.mean_usage:
            continue
        # The first of a chain: only it has seen every document, and not just the hard ones.
        cost = certificate.mean_usage[certificate.models[0]].cost(model)
        if cost is not None:
            costs.append(cost)
    return max(costs, default=None)


def _describe(certificate: Certificate) -> str:
    """Return a chain and its evidence in words."""
    names = " > ".join(certificate.models)
    if not certificate.partial:
        return f"{names}: {certificate.proof}"
    return f"{names} where it is at least {certificate.threshold:.2f} sure: {certificate.proof}"
