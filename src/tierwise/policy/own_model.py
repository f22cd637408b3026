"""The catalog entry that stands for a step without a model: its limits, and what a call costs.

It is in no catalog file. A run's policy has it while the step runs, so that claims, budgets, limits
and records are those of any other step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from pydantic import Field

from tierwise.policy.catalog import Model
from tierwise.policy.prices import Band
from tierwise.policy.router import Policy
from tierwise.policy.rules import Features
from tierwise.records import Choice, Rejection, Route, Transport, Usage
from tierwise.steps.own_work import FunctionWork
from tierwise.steps.step import Step

LOCAL = "local"  # the tier of what runs in this process
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


def model_of(step: Step, own: FunctionWork) -> OwnModel:
    """Return the entry that stands for a step without a model."""
    return OwnModel(
        name=own_name(step),
        tier=LOCAL,
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


def with_own_model(policy: Policy, model: OwnModel) -> Policy:
    """Return the policy with one more entry, under its own hash: no file has changed."""
    models: Mapping[str, Model] = {**policy.catalog.models, model.name: model}
    catalog = policy.catalog.model_copy(update={"models": models})
    extended = replace(policy, catalog=catalog)
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


def _rejection(policy: Policy, model: Model, f: Features) -> Rejection | None:
    name = model.name
    if name in policy.unavailable:
        missing = policy.unavailable[name]
        return Rejection(name, f"unavailable: {missing}", "unavailable", detail=missing)
    guard = None if may_run(model) else policy.rules.guard_against(model.tier, f)
    if guard is None:
        return None
    return Rejection(name, guard.refusal(f), "guard", detail=guard.name)
