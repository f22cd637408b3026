"""Examples under a route: documents that it is meant for go through the real router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tierwise.lint.findings import Finding, at
from tierwise.lint.routes import Ground
from tierwise.policy.certificates import Current
from tierwise.policy.router import Policy, route
from tierwise.policy.rules import Example, Features
from tierwise.records import Route
from tierwise.steps.prompts import Prompts


def example_findings(
    ground: Ground, policy: Policy, prompts: Prompts, currents: Mapping[str, Current]
) -> Iterator[Finding]:
    """Examples that do not hold under a policy where every model is available.

    `currents` says, by step, what certificates must agree with.
    """
    room = {prompt.head.step: prompt.head.max_output_tokens for prompt in prompts}
    for i, rule in enumerate(ground.rules.routes):
        for j, example in enumerate(rule.examples):
            chosen = route(
                _features(example),
                policy,
                max_output_tokens=room.get(example.step, 1),
                current=currents.get(example.step),
            )
            if chosen.rule != rule.name or chosen.models[:1] != (example.routes_to,):
                message = f"this example of route '{rule.name}' does not hold: {_instead(example, rule.name, chosen)}"
                yield at(ground.source, ("routes", i, "examples", j), "error", "example", message)


def _features(example: Example) -> Features:
    return Features(
        step=example.step,
        tokens=example.tokens,
        prompt_tokens=example.tokens,
        sensitivity=example.sensitivity,
        language=example.language,
        stakes=example.stakes,
        tags=example.tags,
        outcomes=example.outcomes,
    )


def _instead(example: Example, meant: str, chosen: Route) -> str:
    """What came in place of what was meant, and why."""
    came = f"{chosen.models[0]} comes first" if chosen.models else "no model is left"
    if chosen.rule != meant:
        return f"route '{chosen.rule}' takes it, where {came}; change the example, or what one of the routes is for"
    why = next((r.reason for r in chosen.rejected if r.model == example.routes_to), "")
    lost = (
        f"{example.routes_to} is left out: {why}"
        if why
        else f"{example.routes_to} does not come first"
    )
    return f"{came}, not {example.routes_to} ({chosen.reason}; {lost})"
