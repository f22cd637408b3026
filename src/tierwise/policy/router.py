"""The router: a pure decision. The same features, policy and purse always give the same route."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from tierwise.policy.catalog import Catalog, Model
from tierwise.policy.certificates import (
    Candidate,
    Certificate,
    Certificates,
    Current,
    expected_cost,
)
from tierwise.policy.rules import Features, Guard, Rules
from tierwise.records import Cause, Choice, Rejection, Route, Usage, canonical_hash

_NO_THRESHOLDS: Mapping[str, float] = {}
_NAMED = "the order that the route names"
_ROUNDING = 1e-9  # more than sums of floats can be off, less than anybody pays


class Ease(NamedTuple):
    """Up to where a model certainly fits window and purse, so that most models need no exact sum."""

    tier: str
    prompt_tokens: float  # -1: never without a closer look
    usd_a_token: float  # nan when the price is unknown
    usd_besides: float


class Proof(NamedTuple):
    """What certificates make of the models allowed for a step."""

    models: tuple[str, ...]
    why: str
    rejected: tuple[Rejection, ...] = ()
    thresholds: Mapping[str, float] = _NO_THRESHOLDS


_NOBODY = Proof((), "no acceptable model is left")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All that a decision rests on. `unavailable` says per model why it cannot be used here."""

    catalog: Catalog
    rules: Rules
    certificates: Certificates = field(default_factory=Certificates)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    demoted: Mapping[tuple[str, tuple[str, ...]], str] = field(
        default_factory=dict
    )  # step, models -> why

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of catalog, rules, certificates and demotions: what the ledger records as the policy."""
        parts: list[object] = [self.catalog.hash, self.rules.hash, self.certificates.hash]
        return canonical_hash([*parts, sorted(self.demoted.items())] if self.demoted else parts)

    @cached_property
    def by_strength(self) -> tuple[str, ...]:
        """All models, the strongest first."""
        return tuple(
            sorted(
                self.catalog.models, key=lambda name: (-self.catalog.models[name].strength, name)
            )
        )

    def ease(self, step: str, max_output_tokens: int) -> Mapping[str, Ease]:
        """What each model certainly takes, worked out once for all documents of a step."""
        if (step, max_output_tokens) not in self._eases:
            self._eases[step, max_output_tokens] = {
                model.name: _ease(
                    model, max_output_tokens, usable=self.unusable(model, step) is None
                )
                for model in self.catalog.models.values()
            }
        return self._eases[step, max_output_tokens]

    def unusable(self, model: Model, step: str) -> Rejection | None:
        """Return why a model cannot do a step here, whatever the document; None when it can."""
        name = model.name
        if name in self.unavailable:
            missing = self.unavailable[name]
            return Rejection(name, f"unavailable: {missing}", "unavailable", detail=missing)
        if model.learned not in (None, step):
            return Rejection(name, f"is trained for {model.learned} only", "other_step")
        return None

    def proof(
        self, step: str, allowed: tuple[str, ...], current: Current | None, *, named: bool
    ) -> Proof:
        """What certificates make of these models, worked out once as long as `current` is the same object."""
        known = self._proofs.get((step, allowed, named))
        if known is None or known[0] is not current:
            decide = _as_named if named else _by_proof
            self._proofs[step, allowed, named] = known = (
                current,
                decide(step, self, allowed, current),
            )
        return known[1]

    @cached_property
    def _eases(self) -> dict[tuple[str, int], Mapping[str, Ease]]:
        return {}

    @cached_property
    def _proofs(self) -> dict[tuple[str, tuple[str, ...], bool], tuple[Current | None, Proof]]:
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
    """The ordered models for one document and step, and why each other one was left out.

    `budget_left` is in USD, None without a budget. With `splits`, a document longer than a model's
    window does not rule the model out. `current` is what certificates must agree with; without it, none holds.
    """
    rule = policy.rules.matching(f)
    if rule is None:
        return Route(
            step=f.step,
            rule="none",
            models=(),
            reason="no route matches; add one without a condition",
        )
    ease = policy.ease(f.step, max_output_tokens)
    tokens = f.prompt_tokens
    run_budget = _purse(budget_left)
    guards = {tier: policy.rules.guard_against(tier, f) for tier in policy.catalog.tiers}
    allowed: dict[str, None] = {}  # ordered, and each once: a route may name a model twice
    rejected: dict[str, Rejection] = {}
    for name in rule.candidates or policy.by_strength:
        tier, most_tokens, usd_a_token, usd_besides = ease[name]
        if not (
            guards[tier] is None
            and tokens <= most_tokens
            and tokens * usd_a_token + usd_besides <= run_budget
        ):
            model = policy.catalog.models[name]
            rejection = _rejection(
                policy, model, f, guards[tier], max_output_tokens, splits, budget_left
            )
            if rejection is not None:
                rejected[name] = rejection
                continue
        allowed[name] = None
    proof = (
        policy.proof(f.step, tuple(allowed), current, named=rule.pick is None)
        if allowed
        else _NOBODY
    )
    return Route(
        step=f.step,
        rule=rule.name,
        models=proof.models,
        rejected=(*rejected.values(), *proof.rejected),
        review=rule.review,
        reason=proof.why,
        thresholds=proof.thresholds,
    )


def choices(
    chosen: Route,
    f: Features,
    policy: Policy,
    *,
    max_output_tokens: int,
    current: Current | None = None,
) -> tuple[Choice, ...]:
    """What each model of a route should cost for this document, and what is known of it: for the record."""
    floor = policy.rules.floors.get(chosen.step)
    return tuple(
        _choice(name, f, policy, floor, max_output_tokens, current) for name in chosen.models
    )


def _choice(
    name: str,
    f: Features,
    policy: Policy,
    floor: float | None,
    max_output_tokens: int,
    current: Current | None,
) -> Choice:
    model = policy.catalog.model(name)
    certificate = policy.certificates.find(f.step, [name])
    known = certificate.mean_usage[name] if certificate and certificate.mean_usage else None
    answer = (
        math.ceil(known.completion_tokens)
        if known
        else min(max_output_tokens, model.max_output_tokens)
    )
    cost = model.cost(Usage(f.prompt_tokens, answer))
    if floor is None or current is None:
        return Choice(name, cost, "no floor is set" if floor is None else "")
    against = policy.certificates.against(f.step, [name], floor, current)
    return Choice(name, cost, against or (certificate.proof if certificate else ""))


def rejection_of(
    policy: Policy,
    model: Model,
    f: Features,
    *,
    max_output_tokens: int,
    splits: bool = False,
    budget_left: Decimal | None = None,
) -> Rejection | None:
    """Return why a model may not be asked about a document: by guard, availability, window or budget; else None."""
    guard = policy.rules.guard_against(model.tier, f)
    return _rejection(policy, model, f, guard, max_output_tokens, splits, budget_left)


def unroutable_cause(chosen: Route) -> Cause:
    """Return why a route without models defers a document: more budget would help, or nothing here would."""
    short_of_budget = any(rejection.kind == "budget" for rejection in chosen.rejected)
    return "budget" if short_of_budget else "no_model"


def worst_case(model: Model, prompt_tokens: int, max_output_tokens: int) -> Decimal | None:
    """USD that one call can cost at most, None when the price is unknown. Prompt tokens are an estimate."""
    return model.cost(
        Usage(_at_most(model, prompt_tokens), min(max_output_tokens, model.max_output_tokens))
    )


def _at_most(model: Model, prompt_tokens: int) -> int:
    return math.ceil(prompt_tokens * model.token_margin)


def _purse(budget_left: Decimal | None) -> float:
    """USD that are certainly left."""
    return math.inf if budget_left is None else float(budget_left) * (1 - _ROUNDING)


def _ease(model: Model, max_output_tokens: int, *, usable: bool) -> Ease:
    """Never promises more than `_rejection` would allow: what is rounded, is rounded up."""
    answer = min(max_output_tokens, model.max_output_tokens)
    tokens = (model.context_tokens - answer - 2) / model.token_margin if usable else -1
    if model.price == "unknown":
        return Ease(model.tier, tokens, math.nan, math.nan)
    bands = [band for band in (model.price, model.price.above) if band]
    a_token = max(float(band.input) for band in bands) / 1e6 * (1 + _ROUNDING)
    besides = a_token + max(float(band.output) for band in bands) / 1e6 * answer * (1 + _ROUNDING)
    return Ease(model.tier, tokens, a_token * model.token_margin, besides)


def _rejection(
    policy: Policy,
    model: Model,
    f: Features,
    guard: Guard | None,
    max_output_tokens: int,
    splits: bool,
    budget_left: Decimal | None,
) -> Rejection | None:
    """Return why a model is left out, given the guard that forbids its tier (None: no guard does)."""
    name = model.name
    if guard is not None:
        return Rejection(name, guard.refusal(f), "guard", detail=guard.name)
    unusable = policy.unusable(model, f.step)
    if unusable is not None:
        return unusable
    tokens = f.prompt_tokens
    needed = _at_most(model, tokens) + min(max_output_tokens, model.max_output_tokens)
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
    step: str, policy: Policy, allowed: tuple[str, ...], current: Current | None
) -> Proof:
    """The order that the route names; a model that is certified only where it is sure, hands on the rest."""
    floor = policy.rules.floors.get(step)
    if floor is None or current is None or "low_confidence" not in policy.rules.escalate.on:
        return Proof(allowed, _NAMED)
    known = (
        (name, policy.certificates.certified(step, [name], floor, current)) for name in allowed
    )
    thresholds = {name: c.threshold for name, c in known if c and c.threshold is not None}
    return Proof(allowed, _NAMED, thresholds=thresholds)


def _by_proof(
    step: str, policy: Policy, allowed: tuple[str, ...], current: Current | None
) -> Proof:
    """The certified choice that costs least, then what it escalates to; why; and why each other model is left out.

    Without proof the strongest allowed model comes first: evidence buys cheapness. A trained classifier needs
    proof to be asked at all, as nothing else tells where it may be trusted.
    """
    strongest = max(allowed, key=lambda name: policy.catalog.models[name].strength)
    floor = policy.rules.floors.get(step)
    if floor is None or current is None:
        missing = f"no floor is set for {step}" if floor is None else "nothing is certified here"
        return _unproven(policy, allowed, missing)
    proven = [
        c for c in policy.certificates.of(step, floor, current) if set(c.models) <= set(allowed)
    ]
    if "low_confidence" not in policy.rules.escalate.on:
        proven = [c for c in proven if c.threshold is None]
    if not proven:
        return _unproven(policy, allowed, f"nothing is certified for {step}")
    best = min(_ways(proven), key=lambda way: _price_of(way, policy, strongest))
    models = tuple(dict.fromkeys((*(name for c in best for name in c.models), strongest)))
    others = [name for name in allowed if name not in models]
    rejected = tuple(_passed_over(policy, step, name, floor, current) for name in others)
    return Proof(
        models,
        f"the cheapest shown capable of {floor:g}: {', then '.join(_told(c) for c in best)}",
        rejected,
        {c.models[0]: c.threshold for c in best if c.threshold is not None},
    )


def _passed_over(policy: Policy, step: str, name: str, floor: float, current: Current) -> Rejection:
    """Return why an allowed model is not among the chosen ones: not certified, or more expensive."""
    missing_proof = policy.certificates.against(step, [name], floor, current)
    if missing_proof is not None:
        return Rejection(name, missing_proof, "uncertified")
    return Rejection(name, "certified, but more expensive than the chosen one", "cost")


def _unproven(policy: Policy, allowed: tuple[str, ...], missing: str) -> Proof:
    models = tuple(name for name in allowed if policy.catalog.models[name].learned is None)
    untold = tuple(
        Rejection(name, "not certified; a trained classifier needs a certificate", "uncertified")
        for name in allowed
        if name not in models
    )
    return Proof(models, f"{missing}, so the strongest allowed model comes first", untold)


def _ways(proven: Sequence[Certificate]) -> Iterator[tuple[Certificate, ...]]:
    """Each certified choice alone; one that is proven only where it is sure, also before each that needs no limit."""
    for certificate in proven:
        yield (certificate,)
        if certificate.partial:
            yield from (
                (certificate, rest)
                for rest in proven
                if not rest.partial and rest.models != certificate.models
            )


def _price_of(
    way: tuple[Certificate, ...], policy: Policy, strongest: str
) -> tuple[float, Decimal, tuple[str, ...]]:
    """What a way costs a document on average, what it leaves going to the strongest model.

    Where that is unknown, the way comes later the more documents may have to pay it.
    """
    names = tuple(name for certificate in way for name in certificate.models)
    chain = [Candidate(" > ".join(c.models), c.cost(policy.catalog), c.passes) for c in way]
    if strongest not in names:
        chain.append(Candidate(strongest, _typical(policy, way[0].step, strongest), 1.0))
    cost = expected_cost(chain)
    if cost is None:
        return (
            math.prod(1 - c.passes for c in way) or 1.0,
            expected_cost(chain[: len(way)]) or Decimal(0),
            names,
        )
    return 0, cost, names


def _typical(policy: Policy, step: str, name: str) -> Decimal | None:
    """What a model costs a document where it was measured; else by the tokens that another one took."""
    model = policy.catalog.model(name)
    own = policy.certificates.find(step, [name])
    if own and own.mean_usage:
        return own.mean_usage[name].cost(model)
    others = [
        c.mean_usage[c.models[0]]
        for c in policy.certificates.certificates
        if c.step == step and c.mean_usage
    ]
    return max((cost for u in others if (cost := u.cost(model)) is not None), default=None)


def _told(certificate: Certificate) -> str:
    sure = f" where it is at least {certificate.threshold:.2f} sure" if certificate.partial else ""
    return f"{' > '.join(certificate.models)}{sure}: {certificate.proof}"
