"""Routes: which are never reached, which candidates are always forbidden, and what is deferred whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tierwise.lint.condition_boxes import Box, covers, in_all, meet, reached, without
from tierwise.lint.condition_space import Space
from tierwise.lint.findings import Finding, at
from tierwise.policy.catalog import Catalog
from tierwise.policy.rules import RouteRule, Rules
from tierwise.text.yaml import YamlData


class Layout:
    """The routes that one step can take and the guards that concern it, as boxes in one space."""

    def __init__(self, rules: Rules, step: str) -> None:
        self.rules = rules
        self.step = step
        mine = {
            i: rule
            for i, rule in enumerate(rules.routes)
            if rule.when.step is None or step in rule.when.step
        }
        guards = [
            guard for guard in rules.guards if guard.when.step is None or step in guard.when.step
        ]
        self.space = Space(
            step, [*(rule.when for rule in mine.values()), *(guard.when for guard in guards)]
        )
        self.routes: dict[int, Box] = {i: self.space.box(rule.when) for i, rule in mine.items()}
        self.guards = [(guard, self.space.box(guard.when)) for guard in guards]

    @cached_property
    def regions(self) -> Mapping[int, Sequence[Box] | None]:
        """For each route what of it no earlier one takes; None where that is too much to work out."""
        found = reached(list(self.routes.values()), self.space.full)
        return dict(zip(self.routes, found, strict=True))

    def region(self, i: int) -> Sequence[Box]:
        """What of a route is reached; where that is too much to work out, all that it matches."""
        known = self.regions[i]
        return [self.routes[i]] if known is None else known

    def reached(self, i: int, box: Box) -> bool:
        """Whether documents like these really come to a route."""
        return (
            self.regions[i] is not None
            or self.rules.matching(self.space.point(box)) is self.rules.routes[i]
        )

    def forbidden(self, tier: str) -> list[Box]:
        """What guards keep from a tier."""
        return [box for guard, box in self.guards if tier not in guard.allow_tiers]


@dataclass(frozen=True)
class Ground:
    """Rules that are right in themselves, with all that can be told about them. `unavailable` is by model."""

    source: YamlData
    rules: Rules
    catalog: Catalog
    steps: tuple[str, ...]
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """One for each step."""
        return tuple(Layout(self.rules, step) for step in self.steps)

    def of_route(self, i: int) -> list[Layout]:
        """The layouts of the steps that a route is for."""
        return [layout for layout in self.layouts if i in layout.routes]

    def able(self, route: RouteRule, step: str) -> tuple[str, ...]:
        """The models that a route may try for a step, were they all here and allowed."""
        named = route.candidates or tuple(self.catalog.models)
        return tuple(name for name in named if self.catalog.models[name].learned in (None, step))


def route_findings(ground: Ground) -> Iterator[Finding]:
    """All that is wrong with the routes as they stand behind each other and the guards."""
    for i, route in enumerate(ground.rules.routes):
        layouts = ground.of_route(i)
        if layouts and not any(
            layout.regions[i] is None or layout.regions[i] for layout in layouts
        ):
            yield _unreachable(ground, i, layouts)
            continue
        lost = [
            name
            for name in route.candidates
            if _always_forbidden(ground, i, ground.catalog.models[name].tier)
        ]
        yield from (_contradiction(ground, i, name) for name in dict.fromkeys(lost))
        if not route.candidates or set(lost) != set(route.candidates):
            yield from _deferrals(ground, i)


def guard_findings(ground: Ground) -> Iterator[Finding]:
    """Guards that forbid nothing, and tiers that hold no model."""
    used = {model.tier for model in ground.catalog.models.values()}
    for i, guard in enumerate(ground.rules.guards):
        if used <= set(guard.allow_tiers):
            message = f"guard '{guard.name}' forbids nothing: it allows every tier that has a model; narrow allow_tiers"
            yield at(ground.source, ("guards", i, "allow_tiers"), "warning", "void guard", message)
        elif guard.allow_tiers and not used & set(guard.allow_tiers):
            message = (
                f"no model is in {' or '.join(guard.allow_tiers)}, so all that guard '{guard.name}' applies to is "
                "deferred; add a model to the catalog"
            )
            yield at(ground.source, ("guards", i, "allow_tiers"), "error", "empty tier", message)


def _unreachable(ground: Ground, i: int, layouts: Sequence[Layout]) -> Finding:
    takers: dict[int, None] = {}
    for layout in layouts:
        mine = layout.routes[i]
        earlier = {j: box for j, box in layout.routes.items() if j < i}
        whole = next((j for j, box in earlier.items() if covers(box, mine)), None)
        some = (
            [j for j, box in earlier.items() if meet(box, mine) is not None]
            if whole is None
            else [whole]
        )
        takers |= dict.fromkeys(some)
    names = [f"'{ground.rules.routes[j].name}'" for j in sorted(takers)]
    named = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]
    shown = " and ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)
    message = (
        f"route '{ground.rules.routes[i].name}' is never reached: {shown} before it "
        f"take{'s' if len(names) == 1 else ''} all that it matches; move it up, narrow them, or take it out"
    )
    return at(ground.source, ("routes", i), "error", "unreachable", message)


def _always_forbidden(ground: Ground, i: int, tier: str) -> bool:
    """Whether guards forbid a tier for all that ever reaches a route."""
    seen = False
    for layout in ground.of_route(i):
        pieces = list(layout.region(i))
        seen = seen or bool(pieces)
        for box in layout.forbidden(tier):
            pieces = without(pieces, box, layout.space.full)
        if pieces:
            return False
    return seen


def _contradiction(ground: Ground, i: int, name: str) -> Finding:
    route = ground.rules.routes[i]
    tier = ground.catalog.models[name].tier
    guards = _guards(ground, i, {tier})
    message = (
        f"route '{route.name}' names {name}, but {guards} its tier, {tier}, for all that reaches this route; "
        "take it out, or narrow the guard"
    )
    return at(
        ground.source,
        ("routes", i, "try", route.candidates.index(name)),
        "error",
        "always forbidden",
        message,
    )


def _guards(ground: Ground, i: int, tiers: set[str]) -> str:
    """The guards that keep any of these tiers from something that a route matches, and their verb."""
    names = {
        guard.name: None
        for layout in ground.of_route(i)
        for guard, box in layout.guards
        if tiers - set(guard.allow_tiers) and meet(box, layout.routes[i]) is not None
    }
    return (
        f"guard {next(iter(names))} forbids"
        if len(names) == 1
        else f"guards {', '.join(names)} forbid"
    )


def _deferrals(ground: Ground, i: int) -> Iterator[Finding]:
    """Combinations that no model of a route may see, or none that is available here."""
    always: dict[str, list[str]] = {}
    here: dict[str, list[str]] = {}
    for layout in ground.of_route(i):
        able = ground.able(ground.rules.routes[i], layout.step)
        shut = _shut(ground, layout, i, able)
        for box in (box for box in shut if layout.reached(i, box)):
            always.setdefault(layout.space.told(box), []).append(layout.step)
        closed = _shut(ground, layout, i, [name for name in able if name not in ground.unavailable])
        for known in shut:
            closed = without(closed, known, layout.space.full)
        for box in (box for box in closed if layout.reached(i, box)):
            here.setdefault(layout.space.told(box), []).append(layout.step)
    tiers = {
        ground.catalog.models[name].tier
        for layout in ground.of_route(i)
        for name in _named(ground, i, layout)
    }
    why = f"{_guards(ground, i, tiers)} every model of route '{ground.rules.routes[i].name}'"
    for where, steps in always.items():
        message = (
            f"{_documents(steps, where)} are always deferred: {why}; add a model that may see them"
        )
        yield at(ground.source, ("routes", i), "warning", "always deferred", message)
    for where, steps in here.items():
        message = (
            f"{_documents(steps, where)} will be deferred here: no model of route '{ground.rules.routes[i].name}' "
            f"is available for them; {_remedies(ground, i)}"
        )
        yield at(ground.source, ("routes", i), "warning", "deferred here", message)


def _named(ground: Ground, i: int, layout: Layout) -> tuple[str, ...]:
    return ground.able(ground.rules.routes[i], layout.step)


def _shut(ground: Ground, layout: Layout, i: int, models: Sequence[str]) -> list[Box]:
    """What of a route's region guards keep from all of these models."""
    tiers = dict.fromkeys(ground.catalog.models[name].tier for name in models)
    return in_all(layout.region(i), [layout.forbidden(tier) for tier in tiers])


def _documents(steps: Sequence[str], where: str) -> str:
    return f"documents for {', '.join(steps)}{' with ' + where if where else ''}"


def _remedies(ground: Ground, i: int) -> str:
    reasons = dict.fromkeys(
        ground.unavailable[name]
        for layout in ground.of_route(i)
        for name in _named(ground, i, layout)
        if name in ground.unavailable
    )
    shown = list(reasons)[:3]
    return " or ".join(shown) if shown else "add a model"
