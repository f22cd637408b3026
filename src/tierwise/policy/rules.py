"""routing_rules/rules.yaml as closed models: guards, floors, routes, escalation, budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tierwise.errors import ConfigError, unknown_name
from tierwise.policy.budget import Limit, Period
from tierwise.policy.catalog import Catalog
from tierwise.records import Document, Sensitivity, canonical_hash, rank
from tierwise.steps.step import Stakes, Step
from tierwise.text.settings import Settings
from tierwise.text.yaml import Location, YamlData, read_yaml

Probability = Annotated[float, Field(ge=0, le=1)]
SomeWords = Annotated[
    tuple[str, ...], Field(min_length=1)
]  # none at all would silently match nothing
SomeStakes = Annotated[tuple[Stakes, ...], Field(min_length=1)]


def _listed(value: Any) -> Any:
    """`step: draft` means `step: [draft]`."""
    return [value] if isinstance(value, str) else value


Words = Annotated[SomeWords, BeforeValidator(_listed, json_schema_input_type=str | SomeWords)]
StakesWords = Annotated[
    SomeStakes, BeforeValidator(_listed, json_schema_input_type=Stakes | SomeStakes)
]
Trigger = Literal[
    "schema", "label", "length", "grounding", "placeholders", "language", "low_confidence"
]


@dataclass(frozen=True, kw_only=True)
class Features:
    """All that rules may look at: a document before a step, as plain values."""

    step: str
    tokens: int  # of the document's text
    prompt_tokens: int = 0  # of the rendered messages; 0 where nothing is rendered yet
    sensitivity: Sensitivity = "restricted"
    language: str | None = None
    stakes: Stakes = "normal"
    tags: Mapping[str, str] = field(default_factory=dict, repr=False)
    outcomes: Mapping[str, Any] = field(default_factory=dict, repr=False)  # step -> accepted value
    budget_used: float = 0.0  # share of the budget that is spent or reserved
    minutes_left: float | None = None  # until the run's deadline; None without one


def features(
    step: Step,
    document: Document,
    *,
    tokens: int,
    prompt_tokens: int,
    budget_used: float,
    minutes_left: float | None = None,
) -> Features:
    """The features of a document before a step. What is derived is as sensitive as its sources."""
    return Features(
        step=step.name,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        sensitivity=document.strictest,
        language=document.language,
        stakes=_stakes(document.metadata.get("stakes")) or step.stakes,
        tags=document.metadata,
        outcomes={name: o.value for name, o in document.outcomes.items() if o.status == "accepted"},
        budget_used=budget_used,
        minutes_left=minutes_left,
    )


def _stakes(word: str | None) -> Stakes | None:
    return word if word in ("low", "normal", "high") else None  # type: ignore[return-value]


Test = Callable[[Features], bool]


class Condition(Settings):
    """What a document must be for a rule to apply. All that is named must hold; nothing named always holds."""

    step: Words | None = Field(
        None, description="One of these steps: `draft`, or `[draft, summarize]`."
    )
    sensitivity_min: Sensitivity | None = Field(
        None, description="At least this sensitive: public < internal < confidential < restricted."
    )
    sensitivity_max: Sensitivity | None = Field(None, description="At most this sensitive.")
    tokens_min: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="At least so many tokens of document text; the prompt around it is not counted.",
    )
    tokens_max: Annotated[int, Field(ge=0)] | None = Field(
        None, description="At most so many tokens."
    )
    language: Words | None = Field(
        None, description="One of these languages, such as `de`; unknown matches none."
    )
    stakes: StakesWords | None = Field(
        None,
        description="One of these: what a mistake costs, as the step or the document's `stakes` says.",
    )
    tags: Mapping[str, Words] = Field(
        {},
        description="Values that the document's metadata has: `{desk: [legal, hr]}`. All the names must match.",
    )
    outcomes: Mapping[str, Words] = Field(
        {},
        description="What earlier steps accepted: `{classify.label: [complaint]}`. All the names must match.",
    )
    budget_used_min: Probability | None = Field(
        None,
        description="At least this share of the run's budget is spent or reserved: 0.8 is four fifths.",
    )
    minutes_left_max: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="At most so many minutes are left until the run's deadline; never holds without one.",
    )

    @model_validator(mode="after")
    def _can_hold(self) -> Condition:
        """A range that is empty would switch a guard off without a word."""
        if (
            self.sensitivity_min
            and self.sensitivity_max
            and rank(self.sensitivity_min) > rank(self.sensitivity_max)
        ):
            raise ValueError("`sensitivity_min` is above `sensitivity_max`, so this never holds")
        if (
            self.tokens_min is not None
            and self.tokens_max is not None
            and self.tokens_min > self.tokens_max
        ):
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
    if (minutes := c.minutes_left_max) is not None:
        yield lambda f: f.minutes_left is not None and f.minutes_left <= minutes


def _tagged(name: str, values: Words, f: Features) -> bool:
    return f.tags.get(name) in values


def _came_out(path: str, values: Words, f: Features) -> bool:
    return _outcome(f, path) in values


def _outcome(f: Features, path: str) -> str | None:
    """`classify.label` in the outcomes so far, as text: a string itself, anything else as JSON."""
    step, _, name = path.partition(".")
    value = f.outcomes.get(step)
    found = value.get(name) if name and isinstance(value, dict) else value
    return (
        found if found is None or isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    )


class Guard(Settings):
    """A rule that only forbids: where it applies, other tiers than these may not see the document."""

    name: str = Field(description="What reports call this guard.")
    when: Condition = Field(
        Condition(), description="What it applies to; nothing named is everything."
    )
    allow_tiers: tuple[str, ...] = Field(
        description="The only tiers that may see what it applies to; [] is none."
    )

    def refusal(self, f: Features) -> str:
        """Return the sentence that says what this guard forbids for a document."""
        allowed = ", ".join(self.allow_tiers) or "no model"
        return f"guard {self.name}: what is {f.sensitivity} may only go to {allowed}"


class Example(Settings):
    """What a route is meant to do, checked when the rules are checked."""

    step: str = Field(description="The step that such a document comes to.")
    tokens: Annotated[int, Field(ge=0)] = Field(500, description="How long its text is.")
    sensitivity: Sensitivity = Field("internal", description="How sensitive it is.")
    language: str | None = Field(None, description="Its language, such as `de`; left out: unknown.")
    stakes: Stakes = Field("normal", description="What a mistake costs.")
    tags: Mapping[str, str] = Field({}, description="Its metadata: `{desk: legal}`.")
    outcomes: Mapping[str, Any] = Field(
        {}, description="What steps accepted so far: `{classify: {label: complaint}}`."
    )
    routes_to: str = Field(
        description="The model that is to be tried first when every model is available."
    )


class RouteRule(Settings):
    """Names the candidates for the documents that it matches, in order, or lets the router pick."""

    name: str = Field(description="What reports call this route.")
    when: Condition = Field(
        Condition(), description="What it is for; the last route has none, and takes the rest."
    )
    candidates: tuple[str, ...] = Field(
        (),
        alias="try",
        description="Models in the order in which they are tried; those that may not or cannot are left out.",
    )
    pick: Literal["cheapest_capable"] | None = Field(
        None,
        description="In place of `try`: the cheapest model that is shown capable of the step's floor.",
    )
    otherwise: Literal["defer"] = Field(
        "defer", description="What becomes of a document that no model is left for."
    )
    review: Literal["human"] | None = Field(
        None, description="Every answer waits for a person who looks at it."
    )
    examples: tuple[Example, ...] = Field(
        (), description="What this route is meant to do; `tierwise check` tries them."
    )

    @model_validator(mode="after")
    def _one_way(self) -> RouteRule:
        if bool(self.candidates) == bool(self.pick):
            raise ValueError("a route says either `try: [models]` or `pick: cheapest_capable`")
        return self


class Escalation(Settings):
    """Which failed checks send a document on to the next model, and how often at most."""

    on: tuple[Trigger, ...] = Field(
        ("schema", "label", "length", "grounding", "placeholders", "language", "low_confidence"),
        description="Checks whose failure sends a document on to the route's next model; any other defers it.",
    )
    most: Annotated[int, Field(ge=0)] = Field(
        2, description="How often at most, for one document and step."
    )


class SpendingLimit(Settings):
    """At most so much in each UTC day or month: for runs with these tags, or for all."""

    usd: Annotated[Decimal, Field(ge=0)] = Field(description="What may be spent.")
    per: Period = Field(
        description="How often it may be spent: in each UTC day, or in each UTC month."
    )
    tags: Mapping[str, str] = Field(
        {}, description="The runs that share it: those with all of these tags."
    )

    @property
    def limit(self) -> Limit:
        """As the ledger takes it."""
        return Limit(
            " ".join(f"{name}={value}" for name, value in sorted(self.tags.items())),
            self.usd,
            self.per,
        )


class BudgetRules(Settings):
    """How much may be spent in a day or month, what happens when nothing is left, and which unpriced models may run."""

    when_empty: Literal["defer", "pause", "fail"] = Field(
        "defer",
        description="Without money: documents wait, the run waits for a person, or the run fails.",
    )
    allow_unpriced: tuple[str, ...] = Field(
        (), description="Models that may be called under a budget although their price is unknown."
    )
    limits: tuple[SpendingLimit, ...] = Field(
        (), description="Limits that runs share, beside each run's own."
    )

    @model_validator(mode="after")
    def _each_once(self) -> BudgetRules:
        names = [limit.limit.name(0) for limit in self.limits]
        if len(set(names)) < len(names):
            raise ValueError("two limits are for the same period and tags; keep one of them")
        return self

    def shared(self, tags: Mapping[str, str]) -> tuple[Limit, ...]:
        """The limits that a run with these tags is under."""
        return tuple(limit.limit for limit in self.limits if limit.tags.items() <= tags.items())


class Shadow(Settings):
    """What cheaper models that are not certified are also asked, to see how they would do. Guards hold all the same."""

    share: Probability = Field(0.0, description="The share of the documents, chosen by chance.")
    money: Probability = Field(
        0.1, description="They spend at most this share of what the run spent."
    )


class Rules(Settings):
    """Everything that decides which model may and should do a step."""

    version: Literal[1] = Field(description="The version of this file's format.")
    guards: tuple[Guard, ...] = Field(
        (), description="What only forbids, asked again before every attempt."
    )
    floors: Mapping[str, Probability] = Field(
        {}, description="The least pass rate that each step accepts, 0 to 1."
    )
    routes: Annotated[tuple[RouteRule, ...], Field(min_length=1)] = Field(
        description="Which models are tried; the first route that matches is taken."
    )
    escalate: Escalation = Field(
        Escalation(), description="When a failed check sends a document to the next model."
    )
    budget: BudgetRules = Field(
        BudgetRules(), description="What a budget means; its amount belongs to a run."
    )
    shadow: Shadow = Field(
        Shadow(), description="Whom to ask on the side, so that cheaper models can be proven."
    )

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the rules' meaning."""
        return canonical_hash(self.model_dump(mode="json", by_alias=True))

    def guard_against(self, tier: str, f: Features) -> Guard | None:
        """Return the first guard that keeps a document from a tier; None when the tier may see it."""
        for guard in self.guards:
            if tier not in guard.allow_tiers and guard.when.holds(f):
                return guard
        return None

    def forbidden(self, tier: str, f: Features) -> str | None:
        """Return why a tier may not see a document, None when it may. Asked again before every attempt."""
        guard = self.guard_against(tier, f)
        return guard.refusal(f) if guard else None

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
            allowed = (
                rule for rule in self.routes if rule.when.step is None or step in rule.when.step
            )
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
    for fault in rules_faults(source, rules, catalog.models, catalog.tiers, steps):
        raise fault
    return rules


def rules_schema() -> dict[str, Any]:
    """The JSON schema of rules.yaml, for editors: every setting with what it means."""
    schema = Rules.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def rules_faults(
    source: YamlData,
    rules: Rules,
    models: Iterable[str],
    tiers: Iterable[str],
    steps: Iterable[str] | None,
) -> Iterator[ConfigError]:
    """All that is wrong in rules whose every setting is right in itself, given the names that there are."""
    names = {
        "model": frozenset(models),
        "tier": frozenset(tiers),
        "step": None if steps is None else frozenset(steps),
    }
    for kind, name, place in _names(rules):
        known = names[kind]
        if known is not None and name not in known:
            yield source.error(unknown_name(kind, name, known), place)
    yield from _twice(source, "guards", [guard.name for guard in rules.guards])
    yield from _twice(source, "routes", [rule.name for rule in rules.routes])
    yield from _out_of_reach(source, rules)


def _twice(source: YamlData, kind: str, names: list[str]) -> Iterator[ConfigError]:
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            yield source.error(
                f"two {kind} are named '{name}'; reports would mix them up", (kind, i, "name")
            )
        seen.add(name)


def _out_of_reach(source: YamlData, rules: Rules) -> Iterator[ConfigError]:
    last = len(rules.routes) - 1
    if rules.routes[last].when != Condition():
        message = "the last route must have no condition, so that every document has one"
        yield source.error(message, ("routes", last, "when"))
    for i, rule in enumerate(rules.routes[:last]):
        if rule.when == Condition():
            message = f"route '{rule.name}' has no condition, so no route after it is ever reached; move it to the end"
            yield source.error(message, ("routes", i))


def _names(rules: Rules) -> Iterator[tuple[str, str, Location]]:
    """Every name in the rules that must exist elsewhere: its kind, itself, and where it stands."""
    for i, guard in enumerate(rules.guards):
        yield from _names_in(guard.when, ("guards", i, "when"))
        yield from (
            ("tier", tier, ("guards", i, "allow_tiers", j))
            for j, tier in enumerate(guard.allow_tiers)
        )
    yield from (("step", name, ("floors", name)) for name in rules.floors)
    for i, rule in enumerate(rules.routes):
        yield from _names_in(rule.when, ("routes", i, "when"))
        yield from (
            ("model", name, ("routes", i, "try", j)) for j, name in enumerate(rule.candidates)
        )
        for j, example in enumerate(rule.examples):
            place = ("routes", i, "examples", j)
            yield "step", example.step, (*place, "step")
            yield "model", example.routes_to, (*place, "routes_to")
    for j, name in enumerate(rules.budget.allow_unpriced):
        yield "model", name, ("budget", "allow_unpriced", j)


def _names_in(when: Condition, place: Location) -> Iterator[tuple[str, str, Location]]:
    yield from (("step", name, (*place, "step", j)) for j, name in enumerate(when.step or ()))
    for path in when.outcomes:
        yield "step", path.partition(".")[0], (*place, "outcomes", path)
