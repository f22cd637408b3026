"""routing_rules/rules.yaml as closed models: guards, floors, routes, escalation, budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tierwise.catalog import Catalog, Settings
from tierwise.errors import UnknownName
from tierwise.records import Document, Sensitivity, canonical_hash, highest, rank
from tierwise.steps import Stakes, Step
from tierwise.yamlfile import YamlData, read_yaml

Probability = Annotated[float, Field(ge=0, le=1)]
Words = Annotated[tuple[str, ...], Field(min_length=1)]  # none at all would silently match nothing
Trigger = Literal["schema", "label", "length", "grounding", "placeholders", "language", "low_confidence"]


@dataclass(frozen=True, kw_only=True)
class Features:
    """All that rules may look at: a document before a step, as plain values."""

    step: str
    tokens: int  # of the document's text
    prompt_tokens: int = 0  # of the rendered messages; 0 where nothing is rendered yet
    sensitivity: Sensitivity = "restricted"
    language: str | None = None
    stakes: Stakes = "normal"
    tags: Mapping[str, str] = field(default_factory=dict)
    outcomes: Mapping[str, Any] = field(default_factory=dict)  # step -> accepted value
    budget_used: float = 0.0  # share of the budget that is spent or reserved


def features(step: Step, document: Document, *, tokens: int, prompt_tokens: int, budget_used: float) -> Features:
    """The features of a document before a step. What is derived is as sensitive as its sources."""
    return Features(
        step=step.name,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        sensitivity=highest(document.sensitivity, *(o.sensitivity for o in document.outcomes.values())),
        language=document.language,
        stakes=_stakes(document.metadata.get("stakes")) or step.stakes,
        tags=document.metadata,
        outcomes={name: o.value for name, o in document.outcomes.items() if o.status == "accepted"},
        budget_used=budget_used,
    )


def _stakes(word: str | None) -> Stakes | None:
    return word if word in ("low", "normal", "high") else None  # type: ignore[return-value]


Test = Callable[[Features], bool]


class Condition(Settings):
    """What a document must be for a rule to apply. All that is named must hold; nothing named always holds."""

    step: Words | None = None
    sensitivity_min: Sensitivity | None = None
    sensitivity_max: Sensitivity | None = None
    tokens_min: Annotated[int, Field(ge=0)] | None = None
    tokens_max: Annotated[int, Field(ge=0)] | None = None
    language: Words | None = None
    stakes: Annotated[tuple[Stakes, ...], Field(min_length=1)] | None = None
    tags: Mapping[str, Words] = {}
    outcomes: Mapping[str, Words] = {}  # "classify.label": [complaint]
    budget_used_min: Probability | None = None

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, data: Any) -> Any:
        """`step: draft` means `step: [draft]`."""
        if not isinstance(data, dict):
            return data
        single = ("step", "language", "stakes")
        data = {k: [v] if k in single and isinstance(v, str) else v for k, v in data.items()}
        for name in ("tags", "outcomes"):
            if isinstance(data.get(name), dict):
                data[name] = {k: [v] if isinstance(v, str) else v for k, v in data[name].items()}
        return data

    @model_validator(mode="after")
    def _can_hold(self) -> Condition:
        """A range that is empty would switch a guard off without a word."""
        if self.sensitivity_min and self.sensitivity_max and rank(self.sensitivity_min) > rank(self.sensitivity_max):
            raise ValueError("`sensitivity_min` is above `sensitivity_max`, so this never holds")
        if self.tokens_min is not None and self.tokens_max is not None and self.tokens_min > self.tokens_max:
            raise ValueError("`tokens_min` is above `tokens_max`, so this never holds")
        return self

    def holds(self, f: Features) -> bool:
        """Whether this condition holds for these features."""
        if self.step is not None and f.step not in self.step:
            return False
        for test in self.beside_step:  # noqa: SIM110 - `all` takes three times as long
            if not test(f):
                return False
        return True

    @cached_property
    def beside_step(self) -> tuple[Test, ...]:
        """A test for each thing that is named beside the step: what is not named costs a decision nothing."""
        return tuple(_tests(self))


def _tests(c: Condition) -> Iterator[Test]:
    if (least := c.sensitivity_min) is not None:
        yield lambda f: rank(f.sensitivity) >= rank(least)
    if (strictest := c.sensitivity_max) is not None:
        yield lambda f: rank(f.sensitivity) <= rank(strictest)
    if (fewest := c.tokens_min) is not None:
        yield lambda f: f.tokens >= fewest
    if (most := c.tokens_max) is not None:
        yield lambda f: f.tokens <= most
    if (languages := c.language) is not None:
        yield lambda f: f.language in languages
    if (stakes := c.stakes) is not None:
        yield lambda f: f.stakes in stakes
    for name, values in c.tags.items():
        yield partial(_tagged, name, values)
    for path, values in c.outcomes.items():
        yield partial(_came_out, path, values)
    if (used := c.budget_used_min) is not None:
        yield lambda f: f.budget_used >= used


def _tagged(name: str, values: Words, f: Features) -> bool:
    return f.tags.get(name) in values


def _came_out(path: str, values: Words, f: Features) -> bool:
    return _outcome(f, path) in values


def _outcome(f: Features, path: str) -> str | None:
    """`classify.label` in the outcomes so far, as text: a string itself, anything else as JSON."""
    step, _, name = path.partition(".")
    value = f.outcomes.get(step)
    found = value.get(name) if name and isinstance(value, dict) else value
    return found if found is None or isinstance(found, str) else json.dumps(found, ensure_ascii=False)


class Guard(Settings):
    """A rule that only forbids: where it applies, other tiers than these may not see the document."""

    name: str
    when: Condition = Condition()
    allow_tiers: tuple[str, ...]


class Example(Settings):
    """What a route is meant to do, checked when the rules are checked."""

    step: str
    tokens: int = 500
    sensitivity: Sensitivity = "internal"
    language: str | None = None
    stakes: Stakes = "normal"
    tags: Mapping[str, str] = {}
    outcomes: Mapping[str, Any] = {}
    routes_to: str


class RouteRule(Settings):
    """Names the candidates for the documents that it matches, in order, or lets the router pick."""

    name: str
    when: Condition = Condition()
    candidates: Annotated[tuple[str, ...], Field(alias="try")] = ()
    pick: Literal["cheapest_capable"] | None = None
    otherwise: Literal["defer"] = "defer"
    review: Literal["human"] | None = None
    examples: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> RouteRule:
        if bool(self.candidates) == bool(self.pick):
            raise ValueError("a route says either `try: [models]` or `pick: cheapest_capable`")
        return self


class Escalation(Settings):
    """Which failed checks send a document on to the next model, and how often at most."""

    on: tuple[Trigger, ...] = ("schema", "label", "length", "grounding", "placeholders", "language")
    most: Annotated[int, Field(ge=0)] = 2


class BudgetRules(Settings):
    """What happens when the purse is empty, and which unpriced models may be called under a budget."""

    when_empty: Literal["defer", "fail"] = "defer"
    allow_unpriced: tuple[str, ...] = ()


class Rules(Settings):
    """Everything that decides which model may and should do a step."""

    version: Literal[1]
    guards: tuple[Guard, ...] = ()
    floors: Mapping[str, Probability] = {}
    routes: Annotated[tuple[RouteRule, ...], Field(min_length=1)]
    escalate: Escalation = Escalation()
    budget: BudgetRules = BudgetRules()

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the rules' meaning."""
        return canonical_hash(self.model_dump(mode="json", by_alias=True))

    def forbidden(self, tier: str, f: Features) -> str | None:
        """Why a tier may not see a document, or None when it may. Asked again before every attempt."""
        for guard in self.guards:
            if tier not in guard.allow_tiers and guard.when.holds(f):
                allowed = ", ".join(guard.allow_tiers) or "no model"
                return f"guard {guard.name}: what is {f.sensitivity} may only go to {allowed}"
        return None

    def matching(self, f: Features) -> RouteRule | None:
        """The first route whose condition holds."""
        for rule, tests in self._of_step(f.step):
            for test in tests:
                if not test(f):
                    break
            else:
                return rule
        return None

    def _of_step(self, step: str) -> tuple[tuple[RouteRule, tuple[Test, ...]], ...]:
        """The routes that a step can take, each with its other tests: sorted out once, since every document asks."""
        if step not in self._by_step:
            allowed = (rule for rule in self.routes if rule.when.step is None or step in rule.when.step)
            self._by_step[step] = tuple((rule, rule.when.beside_step) for rule in allowed)
        return self._by_step[step]

    @cached_property
    def _by_step(self) -> dict[str, tuple[tuple[RouteRule, tuple[Test, ...]], ...]]:
        return {}


def load_rules(path: Path, catalog: Catalog, steps: Iterable[str] | None = None) -> Rules:
    """Read and validate rules.yaml against the catalog and the known steps (None: not known, not checked).

    Raises ConfigError with file and line for the first name that does not exist or is used twice, and for
    routes that cannot be reached.
    """
    source = read_yaml(path)
    rules = source.validate(Rules)
    _check_names(source, rules, catalog, None if steps is None else frozenset(steps))
    _check_once(source, "guards", [guard.name for guard in rules.guards])
    _check_once(source, "routes", [rule.name for rule in rules.routes])
    _check_reach(source, rules)
    return rules


def _check_once(source: YamlData, kind: str, names: list[str]) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise source.error(f"two {kind} are named '{name}'; reports would mix them up", (kind, i, "name"))


def _check_reach(source: YamlData, rules: Rules) -> None:
    last = len(rules.routes) - 1
    if rules.routes[last].when != Condition():
        message = "the last route must have no condition, so that every document has one"
        raise source.error(message, ("routes", last, "when"))
    for i, rule in enumerate(rules.routes[:last]):
        if rule.when == Condition():
            message = f"route '{rule.name}' has no condition, so no route after it is ever reached; move it to the end"
            raise source.error(message, ("routes", i))


def _check_names(source: YamlData, rules: Rules, catalog: Catalog, steps: frozenset[str] | None) -> None:
    def known(kind: str, name: str, names: Iterable[str], *place: int | str) -> None:
        if name not in (names := frozenset(names)):
            raise source.error(str(UnknownName(kind, name, names)), place)

    def known_steps(names: Iterable[str], *place: int | str) -> None:
        for j, name in enumerate(names if steps is not None else ()):
            known("step", name, steps or (), *place, j)

    for i, guard in enumerate(rules.guards):
        known_steps(guard.when.step or (), "guards", i, "when", "step")
        known_steps([path.partition(".")[0] for path in guard.when.outcomes], "guards", i, "when", "outcomes")
        for j, tier in enumerate(guard.allow_tiers):
            known("tier", tier, catalog.tiers, "guards", i, "allow_tiers", j)
    for name in rules.floors:
        known_steps([name], "floors", name)
    for i, rule in enumerate(rules.routes):
        known_steps(rule.when.step or (), "routes", i, "when", "step")
        known_steps([path.partition(".")[0] for path in rule.when.outcomes], "routes", i, "when", "outcomes")
        for j, model in enumerate(rule.candidates):
            known("model", model, catalog.models, "routes", i, "try", j)
        for j, example in enumerate(rule.examples):
            known_steps([example.step], "routes", i, "examples", j, "step")
            known("model", example.routes_to, catalog.models, "routes", i, "examples", j, "routes_to")
    for j, model in enumerate(rules.budget.allow_unpriced):
        known("model", model, catalog.models, "budget", "allow_unpriced", j)
