"""The router: a pure decision. The same features, policy and purse always give the same route."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property

from tierwise.catalog import Catalog, Model
from tierwise.certificates import Certificates, Current
from tierwise.records import Rejection, Route, Usage, canonical_hash
from tierwise.rules import Features, RouteRule, Rules


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
    reasons = {
        name: _against(
            policy,
            policy.catalog.models[name],
            f,
            max_output_tokens=max_output_tokens,
            splits=splits,
            budget_left=budget_left,
        )
        for name in _candidates(rule, policy.catalog)
    }
    models = tuple(name for name, reason in reasons.items() if reason is None)
    why = "the order that the route names" if models else "no acceptable model is left"
    if rule.pick and models:
        models, why, dearer = _by_proof(f, policy, models, current)
        reasons |= dearer
    return Route(
        step=f.step,
        rule=rule.name,
        models=models,
        rejected=tuple(Rejection(name, reason) for name, reason in reasons.items() if reason),
        review=rule.review,
        reason=why,
    )


def worst_case(model: Model, prompt_tokens: int, max_output_tokens: int) -> Decimal | None:
    """USD that one call can cost at most, None when the price is unknown. Prompt tokens are an estimate."""
    return model.cost(Usage(_at_most(model, prompt_tokens), min(max_output_tokens, model.max_output_tokens)))


def _at_most(model: Model, prompt_tokens: int) -> int:
    return math.ceil(prompt_tokens * model.token_margin)


def _candidates(rule: RouteRule, catalog: Catalog) -> Iterator[str]:
    if rule.candidates:
        yield from rule.candidates
    else:
        yield from sorted(catalog.models, key=lambda name: (-catalog.models[name].strength, name))


def _against(
    policy: Policy, model: Model, f: Features, *, max_output_tokens: int, splits: bool, budget_left: Decimal | None
) -> str | None:
    """Why a model is left out, or None."""
    if reason := policy.rules.forbidden(model.tier, f):
        return reason
    if model.name in policy.unavailable:
        return f"unavailable: {policy.unavailable[model.name]}"
    needed = _at_most(model, f.prompt_tokens) + min(max_output_tokens, model.max_output_tokens)
    if needed > model.context_tokens and not splits:
        return f"needs about {needed} tokens, its window has {model.context_tokens}"
    if budget_left is not None:
        worst = worst_case(model, f.prompt_tokens, max_output_tokens)
        if worst is None and model.name not in policy.rules.budget.allow_unpriced:
            return "its price is unknown; under a budget it must be named in budget.allow_unpriced"
        if worst is not None and worst > budget_left:
            return f"may cost {worst:.6f} USD, the budget has {budget_left:.6f} left"
    return None


def _by_proof(
    f: Features, policy: Policy, allowed: tuple[str, ...], current: Current | None
) -> tuple[tuple[str, ...], str, dict[str, str]]:
    """The cheapest certified choice, then what it escalates to; why; and why each other model is left out.

    Without proof the strongest allowed model comes first: evidence buys cheapness.
    """
    strongest = max(allowed, key=lambda name: policy.catalog.models[name].strength)
    floor = policy.rules.floors.get(f.step)
    if floor is None or current is None:
        missing = f"no floor is set for {f.step}" if floor is None else "nothing is certified here"
        return allowed, f"{missing}, so the strongest allowed model comes first", {}
    proven = sorted(
        (c for c in policy.certificates.of(f.step, floor, current) if set(c.models) <= set(allowed)),
        key=lambda c: (c.mean_cost is None, c.mean_cost, c.models),
    )
    reasons = {name: policy.certificates.against(f.step, [name], floor, current) for name in allowed}
    if not proven:
        return allowed, f"nothing is certified for {f.step}, so the strongest allowed model comes first", {}
    best = proven[0]
    models = (*best.models, *(() if strongest in best.models else (strongest,)))
    why = f"the cheapest shown capable of {floor:g}: {' > '.join(best.models)}: {best.proof}"
    dearer = "certified, but dearer than the one chosen"
    return models, why, {name: reasons[name] or dearer for name in allowed if name not in models}
