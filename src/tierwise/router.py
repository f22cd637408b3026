"""The router: a pure decision. The same features, policy and purse always give the same route."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from tierwise.catalog import Catalog, Model
from tierwise.certificates import Certificates, Current
from tierwise.records import Rejection, Route, Usage, canonical_hash
from tierwise.rules import Features, Rules

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
    rejected: tuple[Rejection, ...]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All that a decision rests on. `unavailable` says per model why it cannot be used here."""

    catalog: Catalog
    rules: Rules
    certificates: Certificates = field(default_factory=Certificates)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of catalog, rules and certificates: what the ledger records as the policy."""
        return canonical_hash([self.catalog.hash, self.rules.hash, self.certificates.hash])

    @cached_property
    def by_strength(self) -> tuple[str, ...]:
        """All models, the strongest first."""
        return tuple(sorted(self.catalog.models, key=lambda name: (-self.catalog.models[name].strength, name)))

    def ease(self, max_output_tokens: int) -> Mapping[str, Ease]:
        """What each model certainly takes, worked out once for all documents of a step."""
        if max_output_tokens not in self._eases:
            self._eases[max_output_tokens] = {
                model.name: _ease(model, max_output_tokens, usable=model.name not in self.unavailable)
                for model in self.catalog.models.values()
            }
        return self._eases[max_output_tokens]

    def proof(self, step: str, allowed: tuple[str, ...], current: Current | None) -> Proof:
        """What certificates make of these models, worked out once as long as `current` is the same object."""
        known = self._proofs.get((step, allowed))
        if known is None or known[0] is not current:
            self._proofs[step, allowed] = known = (current, _by_proof(step, self, allowed, current))
        return known[1]

    @cached_property
    def _eases(self) -> dict[int, Mapping[str, Ease]]:
        return {}

    @cached_property
    def _proofs(self) -> dict[tuple[str, tuple[str, ...]], tuple[Current | None, Proof]]:
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
        return Route(step=f.step, rule="none", models=(), reason="no route matches; add one without a condition")
    ease, tokens, purse = policy.ease(max_output_tokens), f.prompt_tokens, _purse(budget_left)
    barred = {tier: policy.rules.forbidden(tier, f) for tier in policy.catalog.tiers}
    allowed: dict[str, None] = {}  # ordered, and each once: a route may name a model twice
    rejected: dict[str, Rejection] = {}
    for name in rule.candidates or policy.by_strength:
        tier, most_tokens, usd_a_token, usd_besides = ease[name]
        if not (barred[tier] is None and tokens <= most_tokens and tokens * usd_a_token + usd_besides <= purse):
            model = policy.catalog.models[name]
            reason = barred[tier] or _against(policy, model, tokens, max_output_tokens, splits, budget_left)
            if reason is not None:
                rejected[name] = Rejection(name, reason)
                continue
        allowed[name] = None
    named = Proof(tuple(allowed), "the order that the route names" if allowed else "no acceptable model is left", ())
    models, why, dearer = policy.proof(f.step, named.models, current) if rule.pick and allowed else named
    return Route(
        step=f.step,
        rule=rule.name,
        models=models,
        rejected=(*rejected.values(), *dearer),
        review=rule.review,
        reason=why,
    )


def worst_case(model: Model, prompt_tokens: int, max_output_tokens: int) -> Decimal | None:
    """USD that one call can cost at most, None when the price is unknown. Prompt tokens are an estimate."""
    return model.cost(Usage(_at_most(model, prompt_tokens), min(max_output_tokens, model.max_output_tokens)))


def _at_most(model: Model, prompt_tokens: int) -> int:
    return math.ceil(prompt_tokens * model.token_margin)


def _purse(budget_left: Decimal | None) -> float:
    """USD that are certainly left."""
    return math.inf if budget_left is None else float(budget_left) * (1 - _ROUNDING)


def _ease(model: Model, max_output_tokens: int, *, usable: bool) -> Ease:
    """Never promises more than `_against` would allow: what is rounded, is rounded up."""
    answer = min(max_output_tokens, model.max_output_tokens)
    tokens = (model.context_tokens - answer - 2) / model.token_margin if usable else -1
    if model.price == "unknown":
        return Ease(model.tier, tokens, math.nan, math.nan)
    bands = [band for band in (model.price, model.price.above) if band]
    a_token = max(float(band.input) for band in bands) / 1e6 * (1 + _ROUNDING)
    besides = a_token + max(float(band.output) for band in bands) / 1e6 * answer * (1 + _ROUNDING)
    return Ease(model.tier, tokens, a_token * model.token_margin, besides)


def _against(
    policy: Policy, model: Model, tokens: int, max_output_tokens: int, splits: bool, budget_left: Decimal | None
) -> str | None:
    """Why a model that no guard forbids is left out, or None."""
    if model.name in policy.unavailable:
        return f"unavailable: {policy.unavailable[model.name]}"
    needed = _at_most(model, tokens) + min(max_output_tokens, model.max_output_tokens)
    if needed > model.context_tokens and not splits:
        return f"needs about {needed} tokens, its window has {model.context_tokens}"
    if budget_left is not None:
        worst = worst_case(model, tokens, max_output_tokens)
        if worst is None and model.name not in policy.rules.budget.allow_unpriced:
            return "its price is unknown; under a budget it must be named in budget.allow_unpriced"
        if worst is not None and worst > budget_left:
            return f"may cost {worst:.6f} USD, the budget has {budget_left:.6f} left"
    return None


def _by_proof(step: str, policy: Policy, allowed: tuple[str, ...], current: Current | None) -> Proof:
    """The cheapest certified choice, then what it escalates to; why; and why each other model is left out.

    Without proof the strongest allowed model comes first: evidence buys cheapness.
    """
    strongest = max(allowed, key=lambda name: policy.catalog.models[name].strength)
    floor = policy.rules.floors.get(step)
    if floor is None or current is None:
        missing = f"no floor is set for {step}" if floor is None else "nothing is certified here"
        return Proof(allowed, f"{missing}, so the strongest allowed model comes first", ())
    proven = sorted(
        (c for c in policy.certificates.of(step, floor, current) if set(c.models) <= set(allowed)),
        key=lambda c: (c.mean_cost is None, c.mean_cost, c.models),
    )
    if not proven:
        return Proof(allowed, f"nothing is certified for {step}, so the strongest allowed model comes first", ())
    best = proven[0]
    models = (*best.models, *(() if strongest in best.models else (strongest,)))
    why = f"the cheapest shown capable of {floor:g}: {' > '.join(best.models)}: {best.proof}"
    dearer = "certified, but dearer than the one chosen"
    others = [name for name in allowed if name not in models]
    reasons = (policy.certificates.against(step, [name], floor, current) or dearer for name in others)
    return Proof(models, why, tuple(map(Rejection, others, reasons)))
