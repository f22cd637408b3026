"""Examples under a route: documents that it is meant for are sent through the real router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tierwise.lint.findings import Finding, finding_at
from tierwise.lint.routes import RuleContext
from tierwise.policy.certificates import Current
from tierwise.policy.router import Policy, route
from tierwise.policy.rules import Features, RouteExample
from tierwise.records import Route
from tierwise.steps.prompts import Prompts


def example_findings(
    context: RuleContext,
    policy: Policy,
    prompts: Prompts,
    currents: Mapping[str, Current],
) -> Iterator[Finding]:
    """Yield examples that are routed elsewhere, under a policy where every model is available.

    `currents` maps each step to the state that certificates must agree with.
    """
    output_tokens = {
        prompt.head.step: prompt.head.max_output_tokens for prompt in prompts
    }
    for rule_number, rule in enumerate(context.rules.routes):
        for example_number, example in enumerate(rule.examples):
            # a step without a sound prompt has no limit; 1 token keeps all models in the running
            chosen = route(
                _example_features(example),
                policy,
                max_output_tokens=output_tokens.get(example.step, 1),
                current=currents.get(example.step),
            )
            # the first model is the one that is asked; the others are fallbacks
            first_model = chosen.models[:1]
            if chosen.rule == rule.name and first_model == (example.routes_to,):
                continue
            why = _describe_mismatch(example, rule.name, chosen)
            message = f"this example of route '{rule.name}' fails: {why}"
            place = ("routes", rule_number, "examples", example_number)
            yield finding_at(context.source, place, "error", "example", message)


def _example_features(example: RouteExample) -> Features:
    return Features(
        step=example.step,
        tokens=example.tokens,
        prompt_tokens=example.tokens,  # the example says nothing of a prompt around it
        sensitivity=example.sensitivity,
        language=example.language,
        stakes=example.stakes,
        tags=example.tags,
        outcomes=example.outcomes,
    )


def _describe_mismatch(example: RouteExample, rule_name: str, chosen: Route) -> str:
    """Describe the route that an example took in place of the one that it is written under."""
    first = f"{chosen.models[0]} comes first" if chosen.models else "no model is left"
    if chosen.rule != rule_name:
        return (
            f"route '{chosen.rule}' takes it, where {first}; "
            "change the example, or what one of the routes is for"
        )
    lost = f"{example.routes_to} does not come first"
    for rejection in chosen.rejected:
        if rejection.model == example.routes_to and rejection.reason:
            lost = f"{example.routes_to} is left out: {rejection.reason}"
            break
    return f"{first}, not {example.routes_to} ({chosen.reason}; {lost})"
