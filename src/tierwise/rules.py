"""routing_rules/rules.yaml as closed models: guards, floors, routes, escalation, budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tierwise.catalog import Catalog, Settings
from tierwise.errors import UnknownName
from tierwise.records import Document, Sensitivity, canonical_hash, highest, rank
from tierwise.steps import Stakes, Step
from tierwise.yamlfile import YamlData, read_yaml

Probability = Annotated[float, Field(ge=0, le=1)]
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


class Condition(Settings):
    """What a document must be for a rule to apply. All that is named must hold; nothing named always holds."""

    step: tuple[str, ...] | None = None
    sensitivity_min: Sensitivity | None = None
    sensitivity_max: Sensitivity | None = None
    tokens_min: Annotated[int, Field(ge=0)] | None = None
    tokens_max: Annotated[int, Field(ge=0)] | None = None
    language: tuple[str, ...] | None = None
    stakes: tuple[Stakes, ...] | None = None
    tags: Mapping[str, tuple[str, ...]] = {}
    outcomes: Mapping[str, tuple[str, ...]] = {}  # "classify.label": [complaint]
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

    def holds(self, f: Features) -> bool:
        """Whether this condition holds for these features."""
        return (
            (self.step is None or f.step in self.step)
            and (self.sensitivity_min is None or rank(f.sensitivity) >= rank(self.sensitivity_min))
            and (self.sensitivity_max is None or rank(f.sensitivity) <= rank(self.sensitivity_max))
            and (self.tokens_min is None or f.tokens >= self.tokens_min)
            and (self.tokens_max is None or f.tokens <= self.tokens_max)
            and (self.language is None or f.language in self.language)
            and (self.stakes is None or f.stakes in self.stakes)
            and all(f.tags.get(name) in allowed for name, allowed in self.tags.items())
            and all(_outcome(f, path) in allowed for path, allowed in self.outcomes.items())
            and (self.budget_used_min is None or f.budget_used >= self.budget_used_min)
        )


def _outcome(f: Features, path: str) -> str | None:
    """`classify.label` in the outcomes so far, as text."""
    step, _, name = path.partition(".")
    value = f.outcomes.get(step)
    found = value.get(name) if name and isinstance(value, dict) else value
    return None if found is None else str(found)


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
                return f"guard {guard.name}: a {f.sensitivity} document may only go to {', '.join(guard.allow_tiers)}"
        return None

    def matching(self, f: Features) -> RouteRule | None:
        """The first route whose condition holds."""
        return next((rule for rule in self.routes if rule.when.holds(f)), None)


def load_rules(path: Path, catalog: Catalog, steps: Iterable[str] | None = None) -> Rules:
    """Read and validate rules.yaml against the catalog and the known steps (None: not known, not checked).

    Raises ConfigError with file and line for the first name that does not exist.
    """
    source = read_yaml(path)
    rules = source.validate(Rules)
    _check_names(source, rules, catalog, None if steps is None else frozenset(steps))
    if rules.routes[-1].when != Condition():
        raise source.error("the last route must have no condition, so that every document has one", ("routes",))
    return rules


def _check_names(source: YamlData, rules: Rules, catalog: Catalog, steps: frozenset[str] | None) -> None:
    def known(kind: str, name: str, names: Iterable[str], *place: int | str) -> None:
        if name not in (names := frozenset(names)):
            raise source.error(str(UnknownName(kind, name, names)), place)

    def known_steps(names: Iterable[str], *place: int | str) -> None:
        for name in names if steps is not None else ():
            known("step", name, steps or (), *place)

    for i, guard in enumerate(rules.guards):
        known_steps(guard.when.step or (), "guards", i, "when", "step")
        for tier in guard.allow_tiers:
            known("tier", tier, catalog.tiers, "guards", i, "allow_tiers")
    for name in rules.floors:
        known_steps([name], "floors", name)
    for i, rule in enumerate(rules.routes):
        known_steps(rule.when.step or (), "routes", i, "when", "step")
        known_steps([path.partition(".")[0] for path in rule.when.outcomes], "routes", i, "when", "outcomes")
        for model in rule.candidates:
            known("model", model, catalog.models, "routes", i, "try")
    for model in rules.budget.allow_unpriced:
        known("model", model, catalog.models, "budget", "allow_unpriced")
