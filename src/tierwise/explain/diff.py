"""The effect of other rules: past decisions from the ledger, routed again with both files.

No model is called. `tierwise diff` shows the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from typing import Any, NamedTuple

from tierwise.explain.step_facts import current_step, step_facts
from tierwise.ledger import Ledger, OutcomeRow, RunRow
from tierwise.ledger.people.demotions import not_counting
from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import Current
from tierwise.policy.floors import AtMostWorse, FloorSetting
from tierwise.policy.router import Policy, route
from tierwise.policy.rules import Features, Rules
from tierwise.project import Project
from tierwise.records import OWN_KINDS, Route, Usage

# `Features` takes these two from other places than the record of a decision.
_FEATURES = {part.name for part in fields(Features)} - {"step", "outcomes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One past decision: a document in one step, with all that the router knew of it."""

    run_id: str
    document_id: str
    features: Features
    max_output_tokens: int
    budget_left: Decimal | None  # USD
    # Of the schema, the checks and the parameters, which only the flow knows.
    step_hash: str
    usage: Usage | None  # of the accepted answer; None if there was none


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Past decisions, and the models that were unavailable then."""

    cases: tuple[Case, ...]
    unavailable: Mapping[str, str]  # model -> what was missing
    without: int = 0  # decisions without recorded features, which cannot be replayed


class Decided(NamedTuple):
    """The decision of one rules file about a case."""

    first: str | None  # the model that is called first; None if it would be deferred
    leaves: bool  # the first model is outside the house
    may_leave: bool  # a model of the route is outside the house
    proven: bool  # the first choice is certified for the floor
    # USD of the first model, for the tokens of the past answer; None if unknown.
    cost: Decimal | None


class Move(NamedTuple):
    """N decisions of a step whose first model changes; a model of None is a deferral."""

    step: str
    before: str | None
    after: str | None
    decisions: int


class Floor(NamedTuple):
    """A step's floor that differs; None if one of the files has no floor for the step."""

    step: str
    before: FloorSetting | None
    after: FloorSetting | None
    decisions: int

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "step": self.step,
            "before": _plain_floor(self.before),
            "after": _plain_floor(self.after),
            "decisions": self.decisions,
        }


def _plain_floor(floor: FloorSetting | None) -> Any:
    if isinstance(floor, AtMostWorse):
        return floor.model_dump(exclude_none=True)
    return floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The effect of a change of rules on past decisions; counts are by step."""

    decisions: int
    documents: int
    moved_documents: int
    moves: tuple[Move, ...]
    leaves: tuple[Move, ...]  # newly to a model outside the house
    may_leave: Mapping[str, int]  # newly outside, if the first model fails
    # The first choice was certified for the floor, and no longer is.
    below: Mapping[str, int]
    deferred: Mapping[str, int]  # newly
    floors: tuple[Floor, ...]
    agreement_floors: tuple[Floor, ...]
    cost_before: Decimal  # USD of the first models, without the unpriced decisions
    cost_after: Decimal
    unpriced: int  # decisions with an unknown cost before or after

    def data(self) -> dict[str, Any]:
        """Return everything as plain data, for scripts."""
        # `asdict` leaves named tuples without the names of their fields.
        return {
            **asdict(self),
            "moves": [move._asdict() for move in self.moves],
            "leaves": [move._asdict() for move in self.leaves],
            "floors": [floor.as_data() for floor in self.floors],
            "agreement_floors": [floor.as_data() for floor in self.agreement_floors],
        }


def past(ledger: Ledger, runs: Iterable[RunRow]) -> Past:
    """Return the decisions of some runs, without those of measurements, which no rules made."""
    cases: list[Case] = []
    unavailable: dict[str, str] = {}
    without = 0
    for run in runs:
        usages = _usages(ledger, run)
        attempted = {(document, step) for document, step, _ in usages}
        # document -> step -> accepted value, of the steps before the current one
        earlier: dict[str, dict[str, Any]] = {}
        outcomes = ledger.runs.outcomes(run.id)
        for row in sorted(outcomes, key=lambda row: row.recorded_at):
            outcome = row.outcome
            before = earlier.setdefault(row.document_id, {})
            chosen = outcome.route
            asked = (row.document_id, outcome.step) in attempted
            own = asked or _may_be_unasked(row)
            # A measurement calls a model by name, and records the rule "none".
            # Neither is one of a step without a model decided by rules.
            by_rules = chosen is not None and chosen.rule not in ("none", *OWN_KINDS)
            if chosen and by_rules and own:
                unavailable |= _unavailable(chosen)
                if chosen.features:
                    key = (row.document_id, outcome.step, outcome.model or "")
                    case = _case(run.id, row, chosen, dict(before), usages.get(key))
                    cases.append(case)
                else:
                    without += 1
            if outcome.status == "accepted":
                before[outcome.step] = outcome.value
    return Past(cases=tuple(cases), unavailable=unavailable, without=without)


def _may_be_unasked(row: OutcomeRow) -> bool:
    """Return True if an outcome can come about without an attempt, as its run decided it.

    The others of a run that asked no model for them are those that a retry took over: decisions of
    an earlier run, which counts them itself.
    """
    by_a_model = row.outcome.model is not None
    return not by_a_model and row.outcome.cause not in ("failed_checks", "review")


def _usages(ledger: Ledger, run: RunRow) -> dict[tuple[str, str, str], Usage | None]:
    """Return the tokens of each document's answers, by document, step and model."""
    usages = {}
    for attempt in ledger.runs.attempts(run.id):
        if attempt.kind != "shadow":
            key = (attempt.document_id, attempt.step, attempt.model)
            usages[key] = attempt.usage
    return usages


def _case(
    run_id: str,
    row: OutcomeRow,
    chosen: Route,
    earlier: Mapping[str, Any],
    usage: Usage | None,
) -> Case:
    recorded = chosen.features
    # Older runs recorded fewer features; the others have their defaults.
    known = {name: recorded[name] for name in _FEATURES if name in recorded}
    budget_left = recorded.get("budget_left")
    if budget_left is not None:
        budget_left = Decimal(budget_left)
    return Case(
        run_id=run_id,
        document_id=row.document_id,
        features=Features(step=chosen.step, outcomes=earlier, **known),
        max_output_tokens=recorded["max_output_tokens"],
        budget_left=budget_left,
        step_hash=recorded.get("step_hash", ""),
        usage=usage,
    )


def _unavailable(chosen: Route) -> dict[str, str]:
    """Return the models that were unavailable then, each with what was missing."""
    return {
        rejection.model: rejection.detail
        for rejection in chosen.rejected
        if rejection.kind == "unavailable"
    }


class Replay:
    """The router with one rules file, one catalog, and the certificates and labels of today."""

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        catalog: Catalog,
        rules: Rules,
        found: Past,
    ) -> None:
        self._project = project
        # A model that was unavailable then counts as unavailable, whatever is installed here.
        unavailable = {
            name: why
            for name, why in found.unavailable.items()
            if name in catalog.models
        }
        self._policy = Policy(
            catalog=catalog,
            rules=rules,
            certificates=project.certificates,
            unavailable=unavailable,
            demoted=not_counting(ledger, project.certificates, rules, catalog),
        )
        # By step and its hash then, because loading a step may import the project's code.
        self._steps: dict[tuple[str, str], tuple[bool, Current | None]] = {}

    @property
    def floors(self) -> Mapping[str, FloorSetting]:
        """The least quality of each step."""
        return self._policy.rules.floors

    @property
    def agreement_floors(self) -> Mapping[str, float]:
        """The least agreement with a teacher, for each step where that is enough."""
        return self._policy.rules.agreement_floors

    def decide(self, case: Case) -> Decided:
        """Return the decision of these rules about a case."""
        splits, current = self._step(case.features.step, case.step_hash)
        catalog = self._policy.catalog
        chosen = route(
            case.features,
            self._policy,
            max_output_tokens=case.max_output_tokens,
            splits=splits,
            budget_left=case.budget_left,
            current=current,
        )
        if not chosen.models:
            return Decided(
                first=None, leaves=False, may_leave=False, proven=False, cost=Decimal(0)
            )
        models = [catalog.model(name) for name in chosen.models]
        outside = [not catalog.tiers[model.tier].stays_in_house for model in models]
        return Decided(
            first=chosen.models[0],
            leaves=outside[0],
            may_leave=any(outside),
            proven=self._proven(chosen, current),
            cost=models[0].cost(case.usage),
        )

    def _proven(self, chosen: Route, current: Current | None) -> bool:
        """Return True if the first model, or a chain that it begins, is certified for the floor."""
        step = chosen.step
        floor = self._policy.floor(step)
        if floor is None or current is None:
            return False
        certificates = self._policy.certificates
        for length in range(1, len(chosen.models) + 1):
            chain = chosen.models[:length]
            if certificates.certified(step, chain, floor, current):
                return True
        return False

    def _step(self, name: str, step_hash: str) -> tuple[bool, Current | None]:
        """Return True if the step splits long documents, and what its certificates depend on."""
        key = (name, step_hash)
        if key not in self._steps:
            self._steps[key] = self._load_step(name, step_hash)
        return self._steps[key]

    def _load_step(self, name: str, step_hash: str) -> tuple[bool, Current | None]:
        facts = step_facts(self._project, name)
        splits = bool(facts and facts.splits)
        current = current_step(self._project, name)
        if current is None:
            return splits, None
        demoted_models = {
            models: reason
            for (step, models), reason in self._policy.demoted.items()
            if step == name
        }
        # The step as it was then; without a record of it, as it is today.
        current = replace(
            current,
            step_hash=step_hash or current.step_hash,
            escalate=self._policy.rules.escalate.as_evidence(),
            demoted=demoted_models,
        )
        return splits, current


Pair = tuple[Case, Decided, Decided]  # a case, decided before and after the change


def compare(found: Past, before: Replay, after: Replay) -> Difference:
    """Decide past cases by both rules, and return the difference."""
    pairs = [(case, before.decide(case), after.decide(case)) for case in found.cases]
    moved = [pair for pair in pairs if pair[1].first != pair[2].first]
    cost_before = Decimal(0)
    cost_after = Decimal(0)
    unpriced = 0
    for _, old, new in pairs:
        # Both or none: a sum that lacks a decision on one side could not be compared.
        if old.cost is None or new.cost is None:
            unpriced += 1
        else:
            cost_before += old.cost
            cost_after += new.cost
    return Difference(
        decisions=len(pairs),
        documents=_documents(pairs),
        moved_documents=_documents(moved),
        moves=_counted_by_models(moved),
        leaves=_counted_by_models([pair for pair in pairs if _newly_leaves(pair)]),
        may_leave=_by_step(pair for pair in pairs if _newly_may_leave(pair)),
        below=_by_step(pair for pair in pairs if _newly_below_floor(pair)),
        deferred=_by_step(pair for pair in pairs if _newly_deferred(pair)),
        floors=tuple(_floors(found, before.floors, after.floors)),
        agreement_floors=tuple(
            _floors(found, before.agreement_floors, after.agreement_floors)
        ),
        cost_before=cost_before,
        cost_after=cost_after,
        unpriced=unpriced,
    )


def _newly_leaves(pair: Pair) -> bool:
    _, old, new = pair
    return new.leaves and not old.leaves


def _newly_may_leave(pair: Pair) -> bool:
    _, old, new = pair
    # Documents that leave at once are counted there.
    return new.may_leave and not old.may_leave and not new.leaves


def _newly_below_floor(pair: Pair) -> bool:
    _, old, new = pair
    return old.proven and new.first is not None and not new.proven


def _newly_deferred(pair: Pair) -> bool:
    _, old, new = pair
    return old.first is not None and new.first is None


def _documents(pairs: Iterable[Pair]) -> int:
    """Return the number of documents; a document of two runs counts twice."""
    documents = {(case.run_id, case.document_id) for case, _, _ in pairs}
    return len(documents)


def _by_step(pairs: Iterable[Pair]) -> dict[str, int]:
    counts = Counter(case.features.step for case, _, _ in pairs)
    return dict(counts)


def _counted_by_models(pairs: Sequence[Pair]) -> tuple[Move, ...]:
    """Count the decisions that move from one model to another.

    Moves are in the order of their steps, and the most frequent first.
    """
    decisions = Counter(
        (case.features.step, old.first, new.first) for case, old, new in pairs
    )
    moves = [
        Move(step, old_model, new_model, count)
        for (step, old_model, new_model), count in decisions.items()
    ]
    steps = [case.features.step for case, _, _ in pairs]
    moves.sort(key=lambda move: (steps.index(move.step), -move.decisions))
    return tuple(moves)


def _floors(
    found: Past,
    before: Mapping[str, FloorSetting],
    after: Mapping[str, FloorSetting],
) -> Iterator[Floor]:
    """Yield the floors that differ between the two files."""
    decisions = Counter(case.features.step for case in found.cases)
    for step in sorted({*before, *after}):
        old = before.get(step)
        new = after.get(step)
        if old != new:
            yield Floor(step, old, new, decisions[step])
