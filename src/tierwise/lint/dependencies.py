"""What rules say of earlier outcomes: no step may wait for its own, nor two for each other's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from tierwise.errors import unknown_name
from tierwise.lint.findings import Finding, at
from tierwise.policy.rules import Condition, Rules
from tierwise.text.yaml import Location, YamlData


def dependency_findings(
    source: YamlData, rules: Rules, flows: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Conditions that can never hold because the outcome they look at comes later, or never.

    `flows` holds the steps of each flow in their order, as far as they are known.
    """
    needs: dict[str, dict[str, Location]] = {}
    for what, when, place in _conditions(rules):
        for path in when.outcomes:
            looked_at = path.partition(".")[0]
            where = (*place, "outcomes", path)
            for step in when.step or ():
                if step == looked_at:
                    message = f"{what} waits for what {step} has yet to give: at {step} there is no outcome of {step}"
                    yield at(
                        source, where, "error", "circular", f"{message}; name a step before it"
                    )
                else:
                    needs.setdefault(step, {}).setdefault(looked_at, where)
                    if _never_before(step, looked_at, flows):
                        message = f"{what} looks at {looked_at}, but no flow runs {looked_at} before {step}"
                        yield at(
                            source, where, "warning", "too early", f"{message}, so it never holds"
                        )
    for circle in _circles(needs):
        first = circle[0]
        second = circle[1]
        chain = ", which waits for ".join([first, *circle[1:]])
        message = (
            f"{chain}: rules that wait for each other's outcomes cannot all hold; take one out"
        )
        yield at(source, needs[first][second], "error", "circular", message)


def field_findings(
    source: YamlData, rules: Rules, fields: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    """Conditions on fields that a step's declared output does not have. A step that declares none is not judged."""
    for what, when, place in _conditions(rules):
        for path in when.outcomes:
            step, _, name = path.partition(".")
            if name and fields.get(step) and name not in fields[step]:
                message = f"{what}: {unknown_name(f'field of {step}', name, fields[step])}"
                yield at(source, (*place, "outcomes", path), "warning", "field", message)


def _conditions(rules: Rules) -> Iterator[tuple[str, Condition, Location]]:
    for i, guard in enumerate(rules.guards):
        yield f"guard '{guard.name}'", guard.when, ("guards", i, "when")
    for i, route in enumerate(rules.routes):
        yield f"route '{route.name}'", route.when, ("routes", i, "when")


def _never_before(step: str, earlier: str, flows: Mapping[str, Sequence[str]]) -> bool:
    """Whether flows run a step, and none of them runs the other one before it."""
    running = [order for order in flows.values() if step in order]
    return bool(running) and not any(earlier in order[: order.index(step)] for order in running)


def _circles(needs: Mapping[str, Mapping[str, Location]]) -> Iterator[list[str]]:
    """Every circle of steps that wait for each other, from a step round to itself."""
    graph = {step: set(others) for step, others in needs.items()}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1][
                ::-1
            ]  # graphlib tells it from what is waited for to what waits
            yield circle
            graph[circle[0]].discard(circle[1])
        else:
            return
