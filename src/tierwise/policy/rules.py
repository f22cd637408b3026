"""Settings of routing_rules/rules.yaml: guards, floors, routes, escalation and budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tierwise.errors import ConfigError, unknown_name
from tierwise.policy.budget import Limit, Period
from tierwise.policy.catalog import Catalog, not_a_model
from tierwise.policy.floors import AtMostWorse, FloorSetting, Probability, shares_of
from tierwise.policy.patience import Patience
from tierwise.policy.transport import TransportSetting
from tierwise.records import (
    Document,
    Member,
    Sensitivity,
    Transport,
    canonical_hash,
    rank,
)
from tierwise.steps.checks import BUILT_IN
from tierwise.steps.step import Stakes, Step
from tierwise.text.settings import Settings
from tierwise.text.yaml import Location, YamlData, read_yaml


def _refuse_unprovable(floor: float) -> float:
    """Refuse a floor that says nothing, or that no number of labels shows."""
    if not 0 < floor < 1:
        raise ValueError(
            "an agreement floor lies between 0 and 1: 0 says nothing, and no number of labels "
            "shows 1"
        )
    return floor


AgreementFloor = Annotated[
    float,
    AfterValidator(_refuse_unprovable),
    Field(json_schema_extra={"exclusiveMinimum": 0, "exclusiveMaximum": 1}),
]
# An empty list is an error: it would silently match no document.
SomeWords = Annotated[tuple[str, ...], Field(min_length=1)]
SomeStakes = Annotated[tuple[Stakes, ...], Field(min_length=1)]


def _as_list(value: Any) -> Any:
    """Return a single word as a list: `step: draft` means `step: [draft]`."""
    if isinstance(value, str):
        return [value]
    return value


Words = Annotated[
    SomeWords, BeforeValidator(_as_list, json_schema_input_type=str | SomeWords)
]
StakesWords = Annotated[
    SomeStakes, BeforeValidator(_as_list, json_schema_input_type=Stakes | SomeStakes)
]
LOW_CONFIDENCE = "low_confidence"
OnOutage = Literal["wait", "fallback"]


def _check_name_schema(schema: dict[str, Any]) -> None:
    """Let editors complete the built-in names, and accept a project's own."""
    schema["anyOf"] = [{"enum": list(BUILT_IN)}, {"type": "string"}]
    del schema["type"]


CheckName = Annotated[str, Field(min_length=1, json_schema_extra=_check_name_schema)]


@dataclass(frozen=True, kw_only=True)
class Features:
    """The features of a document before a step. Rules depend on nothing else."""

    step: str
    tokens: int  # of the document's text
    prompt_tokens: int = 0  # of the rendered messages; 0 before they are rendered
    sensitivity: Sensitivity = "restricted"
    language: str | None = None
    stakes: Stakes = "normal"
    tags: Mapping[str, str] = field(default_factory=dict, repr=False)
    # step -> accepted value
    outcomes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    budget_used: float = 0.0  # share of the budget: spent and reserved
    minutes_left: float | None = None  # until the run's deadline; None without one
    pages: int = 0  # that a model which sees is shown in this step
    # of a group: what keeps a member from a tier keeps the group from it, too
    members: Sequence[Member] = field(default=(), repr=False)

    def of_members(self) -> Iterator[Features]:
        """Yield the features of the group as if it were each of its members, and each of theirs.

        Its sensitivity is the strictest of theirs already, unless it was redacted since.
        """
        for member in self.members:
            as_member = replace(
                self,
                language=member.language,
                stakes=_stakes(member.metadata.get("stakes")) or self.stakes,
                tags=member.metadata,
                outcomes={**self.outcomes, **member.values},
                members=member.members,
            )
            yield as_member
            yield from as_member.of_members()


def features(
    step: Step,
    document: Document,
    *,
    tokens: int,
    prompt_tokens: int,
    budget_used: float,
    minutes_left: float | None = None,
) -> Features:
    """Return the features of a document before a step.

    Its sensitivity is the strictest of the document and of its sources.
    """
    accepted_values = {
        name: outcome.value
        for name, outcome in document.outcomes.items()
        if outcome.status == "accepted"
    }
    document_stakes = _stakes(document.metadata.get("stakes"))
    return Features(
        step=step.name,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        sensitivity=document.strictest,
        language=document.language,
        stakes=document_stakes or step.stakes,
        tags=document.metadata,
        outcomes=accepted_values,
        budget_used=budget_used,
        minutes_left=minutes_left,
        pages=document.pages_to_show if step.sees_pages else 0,
        members=document.members,
    )


def _stakes(word: str | None) -> Stakes | None:
    """Return the stakes of a document's metadata; None for no or any other word."""
    if word in ("low", "normal", "high"):
        return word  # type: ignore[return-value]
    return None


Test = Callable[[Features], bool]


class Condition(Settings):
    """Conditions on a document. All of them must match; an empty condition always matches."""

    step: Words | None = Field(
        None, description="One of these steps: `draft`, or `[draft, summarize]`."
    )
    sensitivity_min: Sensitivity | None = Field(
        None,
        description="At least this sensitive: public < internal < confidential < restricted.",
    )
    sensitivity_max: Sensitivity | None = Field(
        None, description="At most this sensitive."
    )
    tokens_min: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="At least N tokens of document text; the prompt around it is not counted.",
    )
    tokens_max: Annotated[int, Field(ge=0)] | None = Field(
        None, description="At most N tokens of document text."
    )
    language: Words | None = Field(
        None, description="One of these languages, such as `de`; unknown matches none."
    )
    stakes: StakesWords | None = Field(
        None,
        description="One of these stakes (the cost of a mistake), as set by the step or by the "
        "document's `stakes`.",
    )
    tags: Mapping[str, Words] = Field(
        {},
        description="Values of the document's metadata: `{desk: [legal, hr]}`. "
        "All the names must match.",
    )
    outcomes: Mapping[str, Words] = Field(
        {},
        description="Accepted values of earlier steps: `{classify.label: [complaint]}`. "
        "All the names must match.",
    )
    budget_used_min: Probability | None = Field(
        None,
        description="At least this share of the run's budget is spent or reserved: "
        "0.8 is four fifths.",
    )
    minutes_left_max: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="At most N minutes are left until the run's deadline; "
        "never matches without a deadline.",
    )

    @model_validator(mode="after")
    def _refuse_empty_ranges(self) -> Condition:
        """Refuse an empty range, which would silently switch a guard off."""
        if self.sensitivity_min and self.sensitivity_max:
            lowest_rank = rank(self.sensitivity_min)
            highest_rank = rank(self.sensitivity_max)
            if lowest_rank > highest_rank:
                raise ValueError(
                    "`sensitivity_min` is above `sensitivity_max`, so this never matches"
                )
        if (
            self.tokens_min is not None
            and self.tokens_max is not None
            and self.tokens_min > self.tokens_max
        ):
            raise ValueError(
                "`tokens_min` is above `tokens_max`, so this never matches"
            )
        return self

    def matches(self, features: Features) -> bool:
        """Return True if every part of this condition matches these features."""
        if self.step is not None and features.step not in self.step:
            return False
        for test in self.other_tests:  # noqa: SIM110 - `all` takes three times as long
            if not test(features):
                return False
        return True

    @cached_property
    def other_tests(self) -> tuple[Test, ...]:
        """Return one test for each part of this condition, except the step.

        Parts that are not set have no test, so they cost a routing decision no time.
        """
        return tuple(_tests(self))


def _tests(condition: Condition) -> Iterator[Test]:
    """Yield a test for each part of a condition that is set, except the step."""
    # Each part has a variable of its own: a test keeps the variable that it was made with.
    sensitivity_min = condition.sensitivity_min
    if sensitivity_min is not None:
        yield lambda features: rank(features.sensitivity) >= rank(sensitivity_min)

    sensitivity_max = condition.sensitivity_max
    if sensitivity_max is not None:
        yield lambda features: rank(features.sensitivity) <= rank(sensitivity_max)

    tokens_min = condition.tokens_min
    if tokens_min is not None:
        yield lambda features: features.tokens >= tokens_min

    tokens_max = condition.tokens_max
    if tokens_max is not None:
        yield lambda features: features.tokens <= tokens_max

    languages = condition.language
    if languages is not None:
        yield lambda features: features.language in languages

    stakes = condition.stakes
    if stakes is not None:
        yield lambda features: features.stakes in stakes

    # A lambda would see only the last name of a loop, so `partial` binds each one.
    for name, values in condition.tags.items():
        yield partial(_tag_matches, name, values)
    for path, values in condition.outcomes.items():
        yield partial(_outcome_matches, path, values)

    budget_used_min = condition.budget_used_min
    if budget_used_min is not None:
        yield lambda features: features.budget_used >= budget_used_min

    minutes_left_max = condition.minutes_left_max
    if minutes_left_max is not None:
        yield partial(_deadline_is_near, minutes_left_max)


def _tag_matches(name: str, values: Words, features: Features) -> bool:
    return features.tags.get(name) in values


def _outcome_matches(path: str, values: Words, features: Features) -> bool:
    return _outcome_text(features, path) in values


def _deadline_is_near(minutes: float, features: Features) -> bool:
    """Return True if at most `minutes` are left; False without a deadline."""
    if features.minutes_left is None:
        return False
    return features.minutes_left <= minutes


def _outcome_text(features: Features, path: str) -> str | None:
    """Return the accepted value at a path such as `classify.label`; None if there is none.

    A string is returned unchanged, any other value as JSON.
    """
    step, _, key = path.partition(".")
    value = features.outcomes.get(step)
    if key and isinstance(value, dict):
        value = value.get(key)
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


class Guard(Settings):
    """A rule that forbids all tiers, or transports, but the allowed ones."""

    name: str = Field(description="The name of this guard in reports.")
    when: Condition = Field(
        Condition(), description="The documents that it applies to; by default all."
    )
    allow_tiers: tuple[str, ...] | None = Field(
        None,
        description="The only tiers that may see those documents; [] allows none. "
        "Left out: all tiers, where `allow_transports` is set.",
    )
    allow_transports: Annotated[tuple[Transport, ...], Field(min_length=1)] | None = (
        Field(
            None,
            description="`[online]` keeps those documents out of provider batches, which a "
            "provider keeps longer than calls online. Left out: both transports.",
        )
    )

    @model_validator(mode="after")
    def _require_allowed(self) -> Guard:
        """Refuse a guard that forbids nothing, and one that forbids calls online.

        Every call can go online, and only some in a batch: nothing could answer then.
        """
        if self.allow_tiers is None and self.allow_transports is None:
            raise ValueError(
                "a guard has `allow_tiers: [tiers]`, or `allow_transports: [online]`"
            )
        if self.allow_transports is not None and "online" not in self.allow_transports:
            raise ValueError(
                "`allow_transports` must allow `online`: repairs, and models without "
                "`batch:`, are asked online"
            )
        return self

    def applies(self, features: Features) -> bool:
        """Return True if this guard matches a document, or a member of a group."""
        if self.when.matches(features):
            return True
        return any(self.when.matches(member) for member in features.of_members())

    def forbids(self, tier: str) -> bool:
        """Return True if this guard keeps the documents that it matches from a tier."""
        return self.allow_tiers is not None and tier not in self.allow_tiers

    def batch_refusal(self, features: Features, stores_days: float | None) -> str:
        """Return the reason why this guard keeps a document out of batches."""
        kept = "providers keep batches longer than calls online"
        if stores_days is not None:
            kept = f"the provider keeps batches for {stores_days:g} days"
        what = f"what is {features.sensitivity} may only go online"
        return f"guard {self.name}: {what}, as {kept}"

    def refusal(self, features: Features) -> str:
        """Return the reason why this guard refuses a document."""
        allowed = ", ".join(self.allow_tiers or ()) or "no model"
        return f"guard {self.name}: what is {features.sensitivity} may only go to {allowed}"


class RouteExample(Settings):
    """A document with the model that it must be routed to; `tierwise check` tries it."""

    step: str = Field(description="The step that the document is routed for.")
    tokens: Annotated[int, Field(ge=0)] = Field(
        500, description="The length of its text."
    )
    sensitivity: Sensitivity = Field("internal", description="Its sensitivity.")
    language: str | None = Field(
        None, description="Its language, such as `de`; left out: unknown."
    )
    stakes: Stakes = Field("normal", description="The cost of a mistake.")
    tags: Mapping[str, str] = Field({}, description="Its metadata: `{desk: legal}`.")
    outcomes: Mapping[str, Any] = Field(
        {},
        description="Accepted values of earlier steps: `{classify: {label: complaint}}`.",
    )
    routes_to: str = Field(
        description="The model to be tried first when every model is available."
    )


class RouteRule(Settings):
    """A route: the ordered candidates for the documents that it matches, or a way to pick one."""

    name: str = Field(description="The name of this route in reports.")
    when: Condition = Field(
        Condition(),
        description="The documents that it matches; the last route has no condition.",
    )
    candidates: tuple[str, ...] = Field(
        (),
        alias="try",
        description="Models in the order in which they are tried; forbidden and unavailable ones "
        "are skipped.",
    )
    pick: Literal["cheapest_capable"] | None = Field(
        None,
        description="Instead of `try`: the cheapest model that is certified for the step's floor.",
    )
    otherwise: Literal["defer"] = Field(
        "defer", description="The action for a document when no model is left."
    )
    review: Literal["human"] | None = Field(
        None, description="Every answer waits for human review."
    )
    on_outage: OnOutage = Field(
        "wait",
        description="When a model is out or at its rate limit and another one is left: `wait` for "
        "it within the patience, or take the next model at once (`fallback`).",
    )
    patience: Patience | None = Field(
        None,
        description="How long documents wait for a model that does not answer: `30 min`, `90 s`, "
        "or 0. Left out: the run's patience.",
    )
    transport: TransportSetting | None = Field(
        None,
        description="`online`, `batch` (provider batches, at half the price and within hours) or "
        "`auto` (a batch where the time left allows it). Left out: `auto`. `--transport` of a run "
        "comes first.",
    )
    examples: tuple[RouteExample, ...] = Field(
        (),
        description="Documents that must take this route; `tierwise check` tries them.",
    )

    @model_validator(mode="after")
    def _require_try_or_pick(self) -> RouteRule:
        """Refuse a route with both `try` and `pick`, or with neither."""
        if bool(self.candidates) == bool(self.pick):
            raise ValueError(
                "a route has either `try: [models]` or `pick: cheapest_capable`"
            )
        return self


RouteTests = tuple[tuple[RouteRule, tuple[Test, ...]], ...]


class Escalation(Settings):
    """The failed checks that escalate a document to the next model, and the most escalations."""

    on: tuple[CheckName, ...] = Field(
        BUILT_IN,
        description="Checks whose failure escalates a document to the route's next model; "
        "the failure of any other check defers it. A project's own checks may be named too.",
    )
    most: Annotated[int, Field(ge=0)] = Field(
        2, description="The most escalations of one document in one step."
    )
    reask: Annotated[int, Field(ge=0, le=3)] = Field(
        0,
        description="How often the same model is asked again, with its answer and the words of "
        "the failed checks, before the document escalates.",
    )

    @cached_property
    def reasked_on(self) -> frozenset[str]:
        """Return the checks whose failure lets the same model answer again."""
        return frozenset(self.on) - {LOW_CONFIDENCE}

    def as_evidence(self) -> dict[str, Any]:
        """Return the settings that results depend on; one that is not used is left out.

        So a setting that a later version adds changes no hash while nobody uses it.
        """
        used = self.model_dump(mode="json", exclude_defaults=True)
        return {**used, "on": sorted(self.on), "most": self.most}


class SpendingLimit(Settings):
    """A spending limit for each UTC day or month, for the runs with these tags or for all."""

    usd: Annotated[Decimal, Field(ge=0)] = Field(
        description="The most that may be spent, in USD."
    )
    per: Period = Field(
        description="The period of the limit: each UTC day, or each UTC month."
    )
    tags: Mapping[str, str] = Field(
        {}, description="It applies to the runs with all of these tags."
    )

    @property
    def limit(self) -> Limit:
        """Return this limit as the ledger needs it."""
        tags = [f"{name}={value}" for name, value in sorted(self.tags.items())]
        subject = " ".join(tags)
        return Limit(subject, self.usd, self.per)


class BudgetRules(Settings):
    """Shared spending limits, the action when a budget is exhausted, and unpriced models."""

    when_empty: Literal["defer", "pause", "fail"] = Field(
        "defer",
        description="When the budget is exhausted: defer documents, pause the run for a person, "
        "or fail the run.",
    )
    allow_unpriced: tuple[str, ...] = Field(
        (),
        description="Models that may be called under a budget although their price is unknown.",
    )
    limits: tuple[SpendingLimit, ...] = Field(
        (), description="Limits that runs share, in addition to each run's own."
    )

    @model_validator(mode="after")
    def _refuse_duplicate_limits(self) -> BudgetRules:
        """Refuse two limits with one name in the ledger: they would share one budget there."""
        # The name contains the date. Any fixed time will do for a comparison, so 0.
        names = [limit.limit.name(0) for limit in self.limits]
        if len(set(names)) < len(names):
            raise ValueError(
                "two limits are for the same period and tags; keep one of them"
            )
        return self

    def shared(self, tags: Mapping[str, str]) -> tuple[Limit, ...]:
        """Return the limits that apply to a run with these tags."""
        limits = []
        for spending_limit in self.limits:
            required_tags = spending_limit.tags.items()
            # Items compare as sets: every required tag is there, with its value.
            if required_tags <= tags.items():
                limits.append(spending_limit.limit)
        return tuple(limits)


class Shadow(Settings):
    """Shadow calls to cheaper, uncertified models, to measure them. Guards apply to them too."""

    share: Probability = Field(
        0.0, description="The share of the documents, sampled at random."
    )
    money: Probability = Field(
        0.1, description="Shadow calls cost at most this share of the run's spending."
    )


# setting of a route -> the value that it has when the file does not name it
_LATER_SETTINGS = {"on_outage": "wait", "patience": None, "transport": None}


class Rules(Settings):
    """The routing rules: guards, floors, routes, escalation, budget and shadow calls."""

    version: Literal[1] = Field(description="The version of this file's format.")
    guards: tuple[Guard, ...] = Field(
        (), description="Rules that only forbid, applied again before every attempt."
    )
    floors: Mapping[str, FloorSetting] = Field(
        {},
        description="The least quality that each step accepts: a share of right answers, 0 to 1, "
        "or `{at_most_worse: 0.02, than: MODEL}`.",
    )
    field_floors: Mapping[str, Mapping[str, Probability]] = Field(
        {},
        description="The share of right answers that each field of a step by field needs, such as "
        "`extract: {total: 0.95, date: 0.9}`. Only fields with such a certificate are kept of a "
        "model that is not the last one.",
    )
    agreement_floors: Mapping[str, AgreementFloor] = Field(
        {},
        description="How often a model must agree with its teacher, for each step where "
        "agreement is enough in place of correctness; see `tierwise distil`.",
    )
    routes: Annotated[tuple[RouteRule, ...], Field(min_length=1)] = Field(
        description="The models to try; the first route that matches is taken."
    )
    escalate: Escalation = Field(
        Escalation(),
        description="When a failed check escalates a document to the next model.",
    )
    budget: BudgetRules = Field(
        BudgetRules(),
        description="The budget's behaviour; its amount belongs to a run.",
    )
    shadow: Shadow = Field(
        Shadow(), description="Shadow calls, so that cheaper models can be certified."
    )

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of the rules' meaning."""
        meaning = self.model_dump(mode="json", by_alias=True)
        # Settings that came later change no hash while nobody uses them.
        for route in meaning["routes"]:
            for name, unused in _LATER_SETTINGS.items():
                if route[name] == unused:
                    del route[name]
        for guard in meaning["guards"]:
            if guard["allow_transports"] is None:
                del guard["allow_transports"]
        for section in ("agreement_floors", "field_floors"):
            if not meaning[section]:
                del meaning[section]
        return canonical_hash(meaning)

    @cached_property
    def share_floors(self) -> Mapping[str, float]:
        """Return the floors that are a share of right answers, by step."""
        return shares_of(self.floors)

    def route_named(self, name: str) -> RouteRule | None:
        """Return the route of that name."""
        for rule in self.routes:
            if rule.name == name:
                return rule
        return None

    def guard_against(self, tier: str, features: Features) -> Guard | None:
        """Return the first guard that keeps a document from a tier; None if the tier may see it."""
        for guard in self.guards:
            if guard.forbids(tier) and guard.applies(features):
                return guard
        return None

    def batch_forbidden(
        self, features: Features, stores_days: float | None
    ) -> str | None:
        """Return the reason why a document may be in no provider batch; None if it may.

        `stores_days` is how long the model's provider keeps batches.
        """
        for guard in self.guards:
            allowed = guard.allow_transports
            if allowed is None or "batch" in allowed:
                continue
            if guard.applies(features):
                return guard.batch_refusal(features, stores_days)
        return None

    def forbidden(self, tier: str, features: Features) -> str | None:
        """Return the reason why a tier may not see a document; None if it may.

        This is called again before every attempt.
        """
        guard = self.guard_against(tier, features)
        if guard is None:
            return None
        return guard.refusal(features)

    def matching(self, features: Features) -> RouteRule | None:
        """Return the first route whose condition matches."""
        for rule, tests in self._routes_for(features.step):
            for test in tests:
                if not test(features):
                    break
            else:  # no test failed
                return rule
        return None

    def _routes_for(self, step: str) -> RouteTests:
        """Return the routes that a step can take, each with its other tests.

        The result is cached, because every document asks for it.
        """
        cached = self._routes_by_step.get(step)
        if cached is not None:
            return cached
        routes = []
        for rule in self.routes:
            steps = rule.when.step
            if steps is None or step in steps:
                routes.append((rule, rule.when.other_tests))
        self._routes_by_step[step] = tuple(routes)
        return self._routes_by_step[step]

    @cached_property
    def _routes_by_step(self) -> dict[str, RouteTests]:
        """Return the cache of `_routes_for`. The model is frozen, but this dict can be filled."""
        return {}


def load_rules(
    path: Path, catalog: Catalog, steps: Iterable[str] | None = None
) -> Rules:
    """Read and validate rules.yaml against the catalog and the known steps.

    Without `steps` (None), names of steps are not checked. Raises ConfigError with file and line
    for the first name that does not exist or is used twice, and for unreachable routes.
    """
    source = read_yaml(path)
    rules = source.validate(Rules)
    faults = rules_faults(
        source, rules, catalog.models, catalog.tiers, steps, catalog.embedders
    )
    for fault in faults:
        raise fault
    return rules


def rules_schema() -> dict[str, Any]:
    """Return the JSON schema of rules.yaml, for editors: every setting with its description."""
    schema = Rules.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def rules_faults(
    source: YamlData,
    rules: Rules,
    models: Iterable[str],
    tiers: Iterable[str],
    steps: Iterable[str] | None,
    embedders: Iterable[str] = (),
) -> Iterator[ConfigError]:
    """Yield the errors that need more than one setting to see.

    These are names that do not exist or are no model's, names that are used twice, and unreachable routes.
    """
    # None leaves the names of steps unchecked; an empty set would refuse them all.
    known_steps = None if steps is None else frozenset(steps)
    known_names = {
        "model": frozenset(models),
        "tier": frozenset(tiers),
        "step": known_steps,
    }
    no_models = frozenset(embedders)
    for kind, name, location in _used_names(rules):
        known = known_names[kind]
        if kind == "model" and name in no_models:
            yield source.error(not_a_model(name), location)
        elif known is not None and name not in known:
            yield source.error(unknown_name(kind, name, known), location)
    yield from _unusable_field_floors(source, rules)
    yield from _duplicate_names(
        source, "guards", [guard.name for guard in rules.guards]
    )
    yield from _duplicate_names(source, "routes", [rule.name for rule in rules.routes])
    yield from _unreachable_routes(source, rules)


def unknown_checks(
    source: YamlData, rules: Rules, names: Iterable[str]
) -> Iterator[ConfigError]:
    """Yield an error for each name in `escalate.on` that is no check's.

    The rules alone cannot tell: a project's own checks are in its code.
    """
    known = frozenset(names)
    for number, name in enumerate(rules.escalate.on):
        if name not in known:
            message = unknown_name("check", name, known)
            yield source.error(message, ("escalate", "on", number))


def _duplicate_names(
    source: YamlData, kind: str, names: list[str]
) -> Iterator[ConfigError]:
    seen: set[str] = set()
    for number, name in enumerate(names):
        if name in seen:
            message = f"two {kind} are named '{name}'; reports would mix them up"
            yield source.error(message, (kind, number, "name"))
        seen.add(name)


def _unreachable_routes(source: YamlData, rules: Rules) -> Iterator[ConfigError]:
    """Yield an error if the last route has a condition, and for any other route without one."""
    last = len(rules.routes) - 1
    # A condition without any setting matches every document.
    if rules.routes[last].when != Condition():
        message = (
            "the last route must have no condition, so that every document has one"
        )
        yield source.error(message, ("routes", last, "when"))
    for number, rule in enumerate(rules.routes[:last]):
        if rule.when == Condition():
            message = (
                f"route '{rule.name}' has no condition, so no route after it is ever reached; "
                "move it to the end"
            )
            yield source.error(message, ("routes", number))


def _unusable_field_floors(source: YamlData, rules: Rules) -> Iterator[ConfigError]:
    """Yield an error for each step whose floors by field can never count."""
    for step, floors in rules.field_floors.items():
        place = ("field_floors", step)
        if not floors:
            yield source.error("names no field; write such as {total: 0.95}", place)
        if isinstance(rules.floors.get(step), AtMostWorse):
            message = (
                f"{step} has a floor beside a reference, which is one for whole answers: "
                "give it a share of right answers under `floors`, or no floor by field"
            )
            yield source.error(message, place)


# A name that must exist elsewhere: its kind (model, tier or step), the name, and its location.
UsedName = tuple[str, str, Location]


def _used_names(rules: Rules) -> Iterator[UsedName]:
    """Yield every name in the rules that must exist elsewhere, in the order of the errors."""
    for number, guard in enumerate(rules.guards):
        yield from _guard_names(guard, ("guards", number))
    for step, floor in rules.floors.items():
        yield "step", step, ("floors", step)
        if isinstance(floor, AtMostWorse) and floor.than is not None:
            yield "model", floor.than, ("floors", step, "than")
    for step in rules.agreement_floors:
        yield "step", step, ("agreement_floors", step)
    for step in rules.field_floors:
        yield "step", step, ("field_floors", step)
    for number, rule in enumerate(rules.routes):
        yield from _route_names(rule, ("routes", number))
    for number, model in enumerate(rules.budget.allow_unpriced):
        yield "model", model, ("budget", "allow_unpriced", number)


def _guard_names(guard: Guard, location: Location) -> Iterator[UsedName]:
    yield from _condition_names(guard.when, (*location, "when"))
    for number, tier in enumerate(guard.allow_tiers or ()):
        yield "tier", tier, (*location, "allow_tiers", number)


def _route_names(rule: RouteRule, location: Location) -> Iterator[UsedName]:
    yield from _condition_names(rule.when, (*location, "when"))
    for number, model in enumerate(rule.candidates):
        # The file says `try`, which is a keyword in Python.
        yield "model", model, (*location, "try", number)
    for number, example in enumerate(rule.examples):
        example_location = (*location, "examples", number)
        yield "step", example.step, (*example_location, "step")
        yield "model", example.routes_to, (*example_location, "routes_to")


def _condition_names(condition: Condition, location: Location) -> Iterator[UsedName]:
    for number, step in enumerate(condition.step or ()):
        yield "step", step, (*location, "step", number)
    for path in condition.outcomes:
        # A path such as `classify.label` begins with its step.
        step = path.partition(".")[0]
        yield "step", step, (*location, "outcomes", path)
