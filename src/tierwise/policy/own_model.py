"""The catalog entry that stands for a step without a model: its limits, and what a call costs.

It is in no catalog file. A run's policy has it while the step runs, so that claims, budgets, limits
and records are those of any other step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from pydantic import Field

from tierwise.errors import unknown_name
from tierwise.policy.addresses import NOT_AN_ADDRESS, host_of, in_house
from tierwise.policy.catalog import Model, Tier
from tierwise.policy.prices import Band
from tierwise.policy.router import Policy
from tierwise.policy.rules import Features
from tierwise.policy.variables import fill_variables, missing_variables
from tierwise.records import Choice, Rejection, Route, Transport, Usage, rank
from tierwise.steps.own_work import FunctionWork, HttpWork, OwnWork
from tierwise.steps.step import Step

LOCAL = "local"  # the tier of what runs in this process
# The tier of a service outside the house that names none: every guard about tiers keeps documents
# from it, unless it allows a tier of this name.
HOSTED = "hosted"
_ZERO = Decimal(0)


class OwnModel(Model):
    """What does the work of a step without a model. A call costs `usd`, whatever its length."""

    usd: Decimal = Field(_ZERO, description="USD of a call.")
    runs_here: bool = Field(True, description="It runs in this process.")

    def cost(self, usage: Usage | None, band: Band = "online") -> Decimal | None:  # noqa: ARG002
        """Return the USD of a call; None where it is not known whether it was done."""
        if usage is None and self.usd:
            return None
        return self.usd

    def billed(
        self,
        usage: Usage | None,
        transport: Transport = "online",  # noqa: ARG002
        service_tier: str | None = None,  # noqa: ARG002
    ) -> Decimal | None:
        """Return the USD of a call that was made, as `cost` does."""
        return self.cost(usage)

    def most_cost(
        self,
        prompt_tokens: int,  # noqa: ARG002
        completion_tokens: int,  # noqa: ARG002
        band: Band = "online",  # noqa: ARG002
    ) -> Decimal | None:
        """Return the USD of a call."""
        return self.usd


def own_name(step: Step) -> str:
    """Return the name that stands for a model in the records of a step without one."""
    kind = step.own.kind if step.own else ""
    return f"{kind}:{step.name}"


def tier_of(own: OwnWork, tiers: Mapping[str, Tier]) -> str:
    """Return the tier of a step without a model: the one that it names, else that of its address."""
    if isinstance(own, FunctionWork):
        return LOCAL
    if own.tier is not None:
        return own.tier
    for name, tier in tiers.items():
        if tier.stays_in_house and in_house(own.url, tier.hosts):
            return name
    return LOCAL if in_house(own.url) else HOSTED


def goes_outside(own: HttpWork, tiers: Mapping[str, Tier]) -> bool:
    """Return True if an address is not surely in the house."""
    return not any(
        in_house(own.url, tier.hosts) for tier in tiers.values() if tier.stays_in_house
    ) and not in_house(own.url)


def resolved_work(own: OwnWork, env: Mapping[str, str]) -> OwnWork:
    """Return a service with the variables in its address filled in; a function as it is."""
    if isinstance(own, FunctionWork):
        return own
    return replace(own, url=fill_variables(own.url, env))


def missing_for(
    own: OwnWork, tiers: Mapping[str, Tier], env: Mapping[str, str]
) -> str | None:
    """Return why a service cannot be called here, in words; None if it can."""
    if isinstance(own, FunctionWork):
        return None
    unset = unset_variables(own, env)
    if unset:
        return f"set {' and '.join(unset)}"
    for name in own.headers.values():
        if not env[name].strip().isprintable():
            return f"{name} holds a line break or another character that no header may have"
    return fault_of(replace(own, url=fill_variables(own.url, env)), tiers)


def unset_variables(own: OwnWork, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that a service needs and that are not set; `A|B` means either."""
    if isinstance(own, FunctionWork):
        return ()
    headers = [name for name in own.headers.values() if not env.get(name, "").strip()]
    return tuple(dict.fromkeys([*missing_variables(own.url, env), *headers]))


def fault_of(own: HttpWork, tiers: Mapping[str, Tier]) -> str | None:
    """Return what is wrong with a service's address and tier; None for nothing."""
    if host_of(own.url) is None:
        return f"its `url` {NOT_AN_ADDRESS}"
    if own.tier is None:
        return None
    if own.tier not in tiers:
        return unknown_name("tier", own.tier, tiers)
    if tiers[own.tier].stays_in_house and goes_outside(own, tiers):
        host = host_of(own.url)
        return f"{host} is outside the house, and its tier {own.tier} stays in it"
    return None


def model_of(step: Step, own: OwnWork, tiers: Mapping[str, Tier]) -> OwnModel:
    """Return the entry that stands for a step without a model."""
    return OwnModel(
        name=own_name(step),
        tier=tier_of(own, tiers),
        runs_here=isinstance(own, FunctionWork),
        context_tokens=1_000_000_000,  # a function has no window
        max_output_tokens=1,
        price="unknown",  # by token; `usd` is the price of a call
        strength=0,
        timeout_s=own.timeout_s,
        concurrency=own.concurrency,
        requests_per_minute=own.requests_per_minute,
        structured_output="grammar",
        usd=own.price_usd,
    )


def with_own_model(
    policy: Policy, model: OwnModel, missing: str | None = None
) -> Policy:
    """Return the policy with one more entry, under its own hash: no file has changed.

    `missing` says why the entry cannot be used here.
    """
    models: Mapping[str, Model] = {**policy.catalog.models, model.name: model}
    catalog = policy.catalog.model_copy(update={"models": models})
    unavailable = dict(policy.unavailable)
    if missing is not None:
        unavailable[model.name] = missing
    extended = replace(policy, catalog=catalog, unavailable=unavailable)
    vars(extended)["hash"] = policy.hash
    return extended


def own_route(step: Step, policy: Policy, f: Features) -> Route:
    """Return the route of a document in a step without a model: it, or why not."""
    name = own_name(step)
    model = policy.catalog.models[name]
    rule = name.partition(":")[0]
    rejection = _rejection(policy, model, f)
    if rejection is not None:
        return Route(
            step=step.name,
            rule=rule,
            models=(),
            rejected=(rejection,),
            reason="it may not be called",
        )
    return Route(
        step=step.name, rule=rule, models=(name,), reason="the step has no model"
    )


def own_choice(step: Step, policy: Policy) -> Choice:
    """Return the cost of a call, with its proof: none is needed."""
    name = own_name(step)
    model = policy.catalog.models[name]
    return Choice(name, model.cost(Usage(0, 0)), "no model, so no certificate")


def may_run(model: Model) -> bool:
    """Return True for what runs in this process: no guard about tiers concerns it."""
    return isinstance(model, OwnModel) and model.runs_here


def unplaced_refusal(policy: Policy, model: Model, f: Features) -> str | None:
    """Return why a confidential document may not go to a service that no tier was named for.

    That is so whatever the rules say: without a tier, no one has decided about the address.
    """
    if model.tier != HOSTED or HOSTED in policy.catalog.tiers:
        return None
    if not isinstance(model, OwnModel) or rank(f.sensitivity) < rank("confidential"):
        return None
    return (
        f"what is {f.sensitivity} goes to no service outside the house without a tier; "
        'name one of the catalog by `tier="…"`, and its guards decide'
    )


def _rejection(policy: Policy, model: Model, f: Features) -> Rejection | None:
    name = model.name
    if name in policy.unavailable:
        missing = policy.unavailable[name]
        return Rejection(name, f"unavailable: {missing}", "unavailable", detail=missing)
    guard = None if may_run(model) else policy.rules.guard_against(model.tier, f)
    if guard is None:
        refusal = unplaced_refusal(policy, model, f)
        if refusal is None:
            return None
        return Rejection(name, refusal, "guard", detail="built in")
    return Rejection(name, guard.refusal(f), "guard", detail=guard.name)
