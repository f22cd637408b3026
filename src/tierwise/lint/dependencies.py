"""Conditions on earlier outcomes: no step may wait for itself, and no two steps for each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from tierwise.errors import unknown_name
from tierwise.lint.findings import Finding, finding_at
from tierwise.policy.rules import Condition, Rules
from tierwise.text.yaml import Location, YamlData


def dependency_findings(
    source: YamlData, rules: Rules, flows: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Yield conditions that can never hold, because the outcome they look at comes later or never.

    `flows` contains the steps of each flow in order, as far as its text shows them.
    """
    # step -> the steps whose outcomes its rules look at, each with the place of the first condition
    needs: dict[str, dict[str, Location]] = {}
    for what, condition, place in _conditions(rules):
        for path in condition.outcomes:
            earlier = path.partition(".")[0]
            location = (*place, "outcomes", path)
            # a rule for all steps also applies to those after the outcome, so it is not judged
            for step in condition.step or ():
                if step == earlier:
                    message = (
                        f"{what} needs the outcome of {step} before {step} has run; "
                        "name a step before it"
                    )
                    yield finding_at(source, location, "error", "circular", message)
                    continue
                needed = needs.setdefault(step, {})
                needed.setdefault(earlier, location)
                if _never_before(step, earlier, flows):
                    message = (
                        f"{what} looks at {earlier}, but no flow runs {earlier} before {step}, "
                        "so it never applies"
                    )
                    yield finding_at(source, location, "warning", "too early", message)
    for cycle in _cycles(needs):
        waiting = cycle[0]
        awaited = cycle[1]
        message = (
            f"{', which waits for '.join(cycle)}: rules that wait for each other's outcomes "
            "cannot all apply; take one out"
        )
        location = needs[waiting][awaited]
        yield finding_at(source, location, "error", "circular", message)


def field_findings(
    source: YamlData, rules: Rules, fields: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    """Yield conditions on fields that a step's declared output does not have.

    A step that declares no fields is not judged.
    """
    for what, condition, place in _conditions(rules):
        for path in condition.outcomes:
            step, _, name = path.partition(".")
            declared = fields.get(step)
            if name and declared and name not in declared:
                message = f"{what}: {unknown_name(f'field of {step}', name, declared)}"
                location = (*place, "outcomes", path)
                yield finding_at(source, location, "warning", "field", message)


def floor_findings(
    source: YamlData,
    rules: Rules,
    fields: Mapping[str, Collection[str]],
    by_field: Mapping[str, bool],
) -> Iterator[Finding]:
    """Yield floors by field that never count: of an unknown field, or of a step that has none.

    A step that declares no fields is not judged.
    """
    for step, floors in rules.field_floors.items():
        declared = fields.get(step)
        for name in floors:
            if declared and name not in declared:
                message = unknown_name(f"field of {step}", name, declared)
                location: Location = ("field_floors", step, name)
                yield finding_at(source, location, "error", "field", message)
        if not by_field.get(step, True):
            message = (
                f"{step} is not judged by field, so these floors never count: "
                f'write step("{step}", …, by_field=True), or one floor under `floors`'
            )
            location = ("field_floors", step)
            yield finding_at(source, location, "error", "field", message)


def _conditions(rules: Rules) -> Iterator[tuple[str, Condition, Location]]:
    """Yield each condition with a word for the rule that has it, and its place in the file."""
    for number, guard in enumerate(rules.guards):
        place: Location = ("guards", number, "when")
        yield f"guard '{guard.name}'", guard.when, place
    for number, route in enumerate(rules.routes):
        place = ("routes", number, "when")
        yield f"route '{route.name}'", route.when, place


def _never_before(step: str, earlier: str, flows: Mapping[str, Sequence[str]]) -> bool:
    """Return True if flows run a step, and none of them runs the other one before it."""
    running = [order for order in flows.values() if step in order]
    for order in running:
        if earlier in order[: order.index(step)]:
            return False
    # where no flow is known to run the step, nothing is known of its order
    return bool(running)


def _cycles(needs: Mapping[str, Mapping[str, Location]]) -> Iterator[list[str]]:
    """Yield every cycle of steps that wait for each other, from a step back to itself."""
    graph = {step: set(others) for step, others in needs.items()}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            # graphlib lists it from the awaited step to the waiting one
            cycle: list[str] = error.args[1][::-1]
            yield cycle
            # graphlib reports one cycle at a time: this one is cut to find the next
            graph[cycle[0]].discard(cycle[1])
        else:
            return
