"""Routes: unreachable ones, candidates always forbidden, and documents always deferred."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tierwise.lint.condition_boxes import Box, covers, in_all, meet, reached, without
from tierwise.lint.condition_space import Space
from tierwise.lint.findings import Finding, finding_at
from tierwise.policy.catalog import Catalog
from tierwise.policy.rules import Condition, Rules
from tierwise.text.yaml import YamlData


class StepLayout:
    """The routes that one step can take and the guards that apply to it, as boxes in one space."""

    def __init__(self, rules: Rules, step: str) -> None:
        self.rules = rules
        self.step = step
        conditions_of_routes = {
            number: route.when
            for number, route in enumerate(rules.routes)
            if _applies_to(route.when, step)
        }
        guards = [guard for guard in rules.guards if _applies_to(guard.when, step)]
        conditions_of_guards = [guard.when for guard in guards]
        self.space = Space(
            step, [*conditions_of_routes.values(), *conditions_of_guards]
        )
        # by the route's number in the rules: the order in which they are tried
        self.routes: dict[int, Box] = {}
        for number, condition in conditions_of_routes.items():
            self.routes[number] = self.space.box(condition)
        self.guards = [(guard, self.space.box(guard.when)) for guard in guards]

    @cached_property
    def regions(self) -> Mapping[int, Sequence[Box] | None]:
        """For each route, the part that no earlier one takes; None where it is too complex."""
        boxes = list(self.routes.values())
        regions = reached(boxes, self.space.full)
        # both are in the order of the routes
        by_number = zip(self.routes, regions, strict=True)
        return dict(by_number)

    def region(self, number: int) -> Sequence[Box]:
        """Return the part of a route that is reached, or the whole where that is too complex."""
        region = self.regions[number]
        if region is None:
            return [self.routes[number]]
        return region

    def reached(self, number: int, box: Box) -> bool:
        """Return True if documents of this box really come to a route."""
        if self.regions[number] is not None:
            return True  # then the box was cut from the route's region
        # too complex to know for the whole box: one of its documents is tried
        example = self.space.point(box)
        return self.rules.matching(example) is self.rules.routes[number]

    def forbidden(self, tier: str) -> list[Box]:
        """Return the boxes that guards keep from a tier."""
        return [box for guard, box in self.guards if guard.forbids(tier)]


def _applies_to(condition: Condition, step: str) -> bool:
    # without a step, a condition is for all of them
    if condition.step is None:
        return True
    return step in condition.step


@dataclass(frozen=True)
class RuleContext:
    """Rules that are right in themselves, with catalog, steps and unavailable models."""

    source: YamlData
    rules: Rules
    catalog: Catalog
    steps: tuple[str, ...]
    unavailable: Mapping[str, str] = field(default_factory=dict)  # model -> remedy

    @cached_property
    def layouts(self) -> tuple[StepLayout, ...]:
        """One for each step."""
        return tuple(StepLayout(self.rules, step) for step in self.steps)

    def layouts_of(self, number: int) -> list[StepLayout]:
        """Return the layouts of the steps that a route is for."""
        return [layout for layout in self.layouts if number in layout.routes]

    def candidates(self, number: int, step: str) -> tuple[str, ...]:
        """Return the models that a route may try for a step, if all were available and allowed."""
        names = self.rules.routes[number].candidates or tuple(self.catalog.models)
        # a learned model can do one step alone
        for_any_or_this = (None, step)
        return tuple(
            name
            for name in names
            if self.catalog.models[name].learned in for_any_or_this
        )

    def tier_of(self, model: str) -> str:
        """Return the tier of a model."""
        return self.catalog.models[model].tier


def route_findings(context: RuleContext) -> Iterator[Finding]:
    """Yield the faults of routes, given the routes before them and the guards."""
    for number, route in enumerate(context.rules.routes):
        layouts = context.layouts_of(number)
        if layouts and not _can_be_reached(layouts, number):
            yield _unreachable(context, number, layouts)
            continue
        forbidden: dict[str, None] = {}
        for name in route.candidates:
            if _always_forbidden(context, number, context.tier_of(name)):
                forbidden[name] = None
        for name in forbidden:
            yield _contradiction(context, number, name)
        # Where all candidates are forbidden, it is plain that all documents are deferred.
        if not route.candidates or set(forbidden) != set(route.candidates):
            yield from _deferrals(context, number)


def unproven_findings(
    context: RuleContext, certified: Collection[str]
) -> Iterator[Finding]:
    """Yield routes that pick a capable model for steps of which nothing is certified."""
    for number, route in enumerate(context.rules.routes):
        if route.pick is None:
            continue
        unproven = [
            layout.step
            for layout in context.layouts_of(number)
            if layout.step not in certified and _is_reached(layout, number)
        ]
        if not unproven:
            continue
        message = (
            f"nothing is certified for {_enumerate(unproven)}, so route '{route.name}' asks the "
            f"strongest model first; `tierwise certify {unproven[0]}` measures models, or list "
            "them in `try`"
        )
        place = ("routes", number, "pick")
        yield finding_at(context.source, place, "warning", "unproven", message)


def _can_be_reached(layouts: Sequence[StepLayout], number: int) -> bool:
    return any(_is_reached(layout, number) for layout in layouts)


def _is_reached(layout: StepLayout, number: int) -> bool:
    region = layout.regions[number]
    # None: too complex to know, so it counts as reached
    return region is None or bool(region)


def guard_findings(context: RuleContext) -> Iterator[Finding]:
    """Yield guards that forbid nothing, and tiers without a model."""
    used = {model.tier for model in context.catalog.models.values()}
    for number, guard in enumerate(context.rules.guards):
        if guard.allow_tiers is None:
            continue
        place = ("guards", number, "allow_tiers")
        allowed = set(guard.allow_tiers)
        if used <= allowed:
            message = (
                f"guard '{guard.name}' forbids nothing: it allows every tier that has a model; "
                "narrow allow_tiers"
            )
            yield finding_at(context.source, place, "warning", "void guard", message)
        # an empty allow_tiers defers everything on purpose
        elif allowed and not used & allowed:
            message = (
                f"no model is in {' or '.join(guard.allow_tiers)}, so all that guard "
                f"'{guard.name}' applies to is deferred; add a model to the catalog"
            )
            yield finding_at(context.source, place, "error", "empty tier", message)


def transport_findings(context: RuleContext) -> Iterator[Finding]:
    """Yield routes that ask for batches of models that have none."""
    for number, rule in enumerate(context.rules.routes):
        if rule.transport != "batch":
            continue
        names = rule.candidates or tuple(context.catalog.models)
        with_batches = [
            name for name in names if context.catalog.models[name].batch is not None
        ]
        without = [name for name in names if name not in with_batches]
        # A route that names no models may take any: one with batches is enough.
        if not without or (not rule.candidates and with_batches):
            continue
        message = (
            f"route '{rule.name}' says `transport: batch`, and {_enumerate(without)} "
            f"{'has' if len(without) == 1 else 'have'} no `batch:` in the catalog: calls to "
            "them go online; add it, or say `transport: auto`"
        )
        place = ("routes", number, "transport")
        yield finding_at(context.source, place, "warning", "no batches", message)


def _unreachable(
    context: RuleContext, number: int, layouts: Sequence[StepLayout]
) -> Finding:
    """Return the finding for a route that is never reached, naming those that take its place."""
    takers: set[int] = set()
    for layout in layouts:
        takers |= _takers(layout, number)
    names = [f"'{context.rules.routes[taker].name}'" for taker in sorted(takers)]
    verb = "takes" if len(names) == 1 else "take"
    message = (
        f"route '{context.rules.routes[number].name}' is never reached: {_enumerate(names)} "
        f"before it {verb} all that it matches; move it up, narrow them, or take it out"
    )
    return finding_at(
        context.source, ("routes", number), "error", "unreachable", message
    )


def _takers(layout: StepLayout, number: int) -> set[int]:
    """Return the first earlier route that takes all of a route, else all that take a part of it."""
    own_box = layout.routes[number]
    take_a_part: set[int] = set()
    for other, other_box in layout.routes.items():
        if other >= number:
            break
        if covers(other_box, own_box):
            return {other}
        if meet(other_box, own_box) is not None:
            take_a_part.add(other)
    return take_a_part


def _enumerate(names: list[str]) -> str:
    """Return up to three names as an enumeration, such as `a, b and 3 more`."""
    shown = names
    if len(names) > 3:
        shown = [*names[:2], f"{len(names) - 2} more"]
    if len(shown) < 2:
        return "".join(shown)
    *first, last = shown
    return f"{', '.join(first)} and {last}"


def _always_forbidden(context: RuleContext, number: int, tier: str) -> bool:
    """Return True if guards forbid a tier for every document that reaches a route."""
    anything_reaches = False
    for layout in context.layouts_of(number):
        allowed = list(layout.region(number))
        if allowed:
            anything_reaches = True
        for box in layout.forbidden(tier):
            allowed = without(allowed, box, layout.space.full)
        if allowed:
            return False
    return anything_reaches


def _contradiction(context: RuleContext, number: int, name: str) -> Finding:
    route = context.rules.routes[number]
    tier = context.tier_of(name)
    message = (
        f"route '{route.name}' names {name}, but {_guards_forbid(context, number, {tier})} its "
        f"tier, {tier}, for all that reaches this route; take it out, or narrow the guard"
    )
    place = ("routes", number, "try", route.candidates.index(name))
    return finding_at(context.source, place, "error", "always forbidden", message)


def _guards_forbid(context: RuleContext, number: int, tiers: set[str]) -> str:
    """Return the guards that keep any of these tiers from documents of a route, with their verb."""
    names: dict[str, None] = {}  # a set in order
    for layout in context.layouts_of(number):
        route_box = layout.routes[number]
        for guard, guard_box in layout.guards:
            forbids = any(guard.forbids(tier) for tier in tiers)
            if forbids and meet(guard_box, route_box) is not None:
                names[guard.name] = None
    if len(names) == 1:
        return f"guard {next(iter(names))} forbids"
    return f"guards {', '.join(names)} forbid"


def _deferrals(context: RuleContext, number: int) -> Iterator[Finding]:
    """Yield the documents that no model of a route may see, or none that is available here."""
    # words for the documents -> the steps
    always: dict[str, list[str]] = {}
    only_here: dict[str, list[str]] = {}
    tiers: set[str] = set()
    for layout in context.layouts_of(number):
        candidates = context.candidates(number, layout.step)
        tiers |= {context.tier_of(name) for name in candidates}
        forbidden = _forbidden_to_all(context, layout, number, candidates)
        for where in _describe_reached(layout, number, forbidden):
            always.setdefault(where, []).append(layout.step)

        available = [name for name in candidates if name not in context.unavailable]
        without_model = _forbidden_to_all(context, layout, number, available)
        for box in forbidden:  # reported above
            without_model = without(without_model, box, layout.space.full)
        for where in _describe_reached(layout, number, without_model):
            only_here.setdefault(where, []).append(layout.step)

    name = context.rules.routes[number].name
    place = ("routes", number)
    for where, steps in always.items():
        message = (
            f"{_documents_with(steps, where)} are always deferred: "
            f"{_guards_forbid(context, number, tiers)} every model of route '{name}'; "
            "add a model that may see them"
        )
        yield finding_at(context.source, place, "warning", "always deferred", message)
    for where, steps in only_here.items():
        message = (
            f"{_documents_with(steps, where)} will be deferred here: no model of route '{name}' "
            f"is available for them; {_remedies(context, number)}"
        )
        yield finding_at(context.source, place, "warning", "deferred here", message)


def _forbidden_to_all(
    context: RuleContext, layout: StepLayout, number: int, models: Sequence[str]
) -> list[Box]:
    """Return the part of a route's region that guards keep from all of these models."""
    tiers = dict.fromkeys(context.tier_of(name) for name in models)
    forbidden_by_tier = [layout.forbidden(tier) for tier in tiers]
    # without models nothing is cut, so the whole region is left
    return in_all(layout.region(number), forbidden_by_tier)


def _describe_reached(
    layout: StepLayout, number: int, boxes: Sequence[Box]
) -> list[str]:
    """Return words for those of some boxes whose documents really come to a route."""
    return [layout.space.describe(box) for box in boxes if layout.reached(number, box)]


def _documents_with(steps: Sequence[str], where: str) -> str:
    documents = f"documents for {', '.join(steps)}"
    if not where:  # the box names no dimension: all of them
        return documents
    return f"{documents} with {where}"


def _remedies(context: RuleContext, number: int) -> str:
    """Return the first remedies for the route's unavailable models."""
    remedies: dict[str, None] = {}  # a set in order
    for layout in context.layouts_of(number):
        for name in context.candidates(number, layout.step):
            if name in context.unavailable:
                remedies[context.unavailable[name]] = None
    if not remedies:
        return "add a model"
    return " or ".join(list(remedies)[:3])
