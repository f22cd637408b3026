"""What other rules would do: past decisions, as the ledger has them, through the router with both files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from typing import Any, NamedTuple

from tierwise.explain.step_facts import current_step, step_facts
from tierwise.ledger import Ledger, OutcomeRow, RunRow
from tierwise.ledger.people.samples import demoted
from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import Current
from tierwise.policy.router import Policy, route
from tierwise.policy.rules import Features, Rules
from tierwise.project import Project
from tierwise.records import Route, Usage

_FEATURES = {part.name for part in fields(Features)} - {"step", "outcomes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One past decision, a document in one step: what was known, and what the answer took (None: there was none)."""

    run_id: str
    document_id: str
    features: Features
    max_output_tokens: int
    budget_left: Decimal | None  # USD
    step_hash: str  # of schema, checks and parameters, which only the flow knows
    usage: Usage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Past decisions, with the models that could not be used then and why. `without` have no receipt to replay."""

    cases: tuple[Case, ...]
    unavailable: Mapping[str, str]
    without: int = 0


class Decided(NamedTuple):
    """What some rules make of a case."""

    first: str | None  # the model that is asked first; None: deferred
    leaves: bool  # the first model is outside the house
    may_leave: bool  # any of the models is
    proven: bool  # the first choice is certified for the floor
    cost: (
        Decimal | None
    )  # USD of the first model for the tokens that the answer took; None when unknown


class Move(NamedTuple):
    """So many decisions of a step whose first model changes; None: deferred."""

    step: str
    before: str | None
    after: str | None
    decisions: int


class Floor(NamedTuple):
    """A step's floor that differs, None where there is none, and how many decisions it is for."""

    step: str
    before: float | None
    after: float | None
    decisions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a change of rules does to past decisions; counts are by step.

    `leaves` go to a model outside the house, although they did not before; `may_leave` could, when the first model
    does not do. `below` had a first choice that is certified for the floor, and have one now that is not. The costs,
    in USD, are those of the first models, without the `unpriced` decisions, for which either is unknown.
    """

    decisions: int
    documents: int
    moved_documents: int
    moves: tuple[Move, ...]
    leaves: tuple[Move, ...]
    may_leave: Mapping[str, int]
    below: Mapping[str, int]
    deferred: Mapping[str, int]
    floors: tuple[Floor, ...]
    cost_before: Decimal
    cost_after: Decimal
    unpriced: int

    def data(self) -> dict[str, Any]:
        """Everything as plain data, for scripts."""
        named = {
            name: [m._asdict() for m in getattr(self, name)]
            for name in ("moves", "leaves", "floors")
        }
        return {**asdict(self), **named}


def past(ledger: Ledger, runs: Iterable[RunRow]) -> Past:
    """The decisions of some runs; those of measurements, which no rules made, are left out."""
    cases: list[Case] = []
    unavailable: dict[str, str] = {}
    without = 0
    for run in runs:
        usages = {
            (a.document_id, a.step, a.model): a.usage
            for a in ledger.runs.attempts(run.id)
            if a.kind != "shadow"
        }
        attempted = {(document, step) for document, step, _ in usages}
        earlier: dict[str, dict[str, Any]] = {}
        for row in sorted(
            ledger.runs.outcomes(run.id), key=lambda row: row.recorded_at
        ):
            chosen = row.outcome.route
            before = earlier.setdefault(row.document_id, {})
            asked = (row.document_id, row.outcome.step) in attempted
            if chosen and chosen.rule != "none" and (asked or _may_be_unasked(row)):
                without += not chosen.features
                unavailable |= _unavailable(chosen)
                usage = usages.get(
                    (row.document_id, row.outcome.step, row.outcome.model or "")
                )
                cases += (
                    [_case(run.id, row, chosen, dict(before), usage)]
                    if chosen.features
                    else []
                )
            if row.outcome.status == "accepted":
                before[row.outcome.step] = row.outcome.value
    return Past(cases=tuple(cases), unavailable=unavailable, without=without)


def _may_be_unasked(row: OutcomeRow) -> bool:
    """Return True if an outcome can come about without an attempt, as its run decided it.

    The others of a run that asked no model for them are those that a retry took over: decisions of
    an earlier run, which counts them itself.
    """
    by_a_model = row.outcome.model is not None
    return not by_a_model and row.outcome.cause not in ("failed_checks", "review")


def _case(
    run_id: str,
    row: OutcomeRow,
    chosen: Route,
    earlier: Mapping[str, Any],
    usage: Usage | None,
) -> Case:
    known = chosen.features
    left = known.get("budget_left")
    return Case(
        run_id=run_id,
        document_id=row.document_id,
        features=Features(
            step=chosen.step,
            outcomes=earlier,
            **{name: known[name] for name in _FEATURES if name in known},
        ),
        max_output_tokens=known["max_output_tokens"],
        budget_left=None if left is None else Decimal(left),
        step_hash=known.get("step_hash", ""),
        usage=usage,
    )


def _unavailable(chosen: Route) -> dict[str, str]:
    """Return the models that were unavailable then, each with what was missing."""
    return {r.model: r.detail for r in chosen.rejected if r.kind == "unavailable"}


class Replay:
    """One rules file as it would have decided, on one catalog, with the certificates and labels of today."""

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        catalog: Catalog,
        rules: Rules,
        found: Past,
    ) -> None:
        self._project = project
        self._policy = Policy(
            catalog=catalog,
            rules=rules,
            certificates=project.certificates,
            unavailable={
                name: why
                for name, why in found.unavailable.items()
                if name in catalog.models
            },
            demoted=demoted(ledger.samples, project.certificates, rules.floors),
        )
        self._steps: dict[tuple[str, str], tuple[bool, Current | None]] = {}

    @property
    def floors(self) -> Mapping[str, float]:
        """The least quality of each step."""
        return self._policy.rules.floors

    def decide(self, case: Case) -> Decided:
        """What these rules make of a case."""
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
        outside = [
            not catalog.tiers[catalog.model(name).tier].stays_in_house
            for name in chosen.models
        ]
        first = chosen.models[0] if chosen.models else None
        return Decided(
            first=first,
            leaves=bool(outside and outside[0]),
            may_leave=any(outside),
            proven=self._proven(chosen, current),
            cost=catalog.model(first).cost(case.usage) if first else Decimal(0),
        )

    def _proven(self, chosen: Route, current: Current | None) -> bool:
        floor = self._policy.rules.floors.get(chosen.step)
        if floor is None or current is None:
            return False
        starts = (chosen.models[:asked] for asked in range(1, len(chosen.models) + 1))
        return any(
            self._policy.certificates.certified(chosen.step, start, floor, current)
            for start in starts
        )

    def _step(self, name: str, step_hash: str) -> tuple[bool, Current | None]:
        """Return True if the step splits long documents, and what its certificates depend on."""
        if (name, step_hash) not in self._steps:
            facts = step_facts(self._project, name)
            current = current_step(self._project, name)
            if current:
                # The step as it was then; without a record of it, as it is today.
                current = replace(
                    current,
                    step_hash=step_hash or current.step_hash,
                    escalate=self._policy.rules.escalate.as_evidence(),
                    demoted={
                        models: why
                        for (step, models), why in self._policy.demoted.items()
                        if step == name
                    },
                )
            self._steps[name, step_hash] = bool(facts and facts.splits), current
        return self._steps[name, step_hash]


def compare(found: Past, before: Replay, after: Replay) -> Difference:
    """Past decisions under both rules, side by side."""
    pairs = [(case, before.decide(case), after.decide(case)) for case in found.cases]
    priced = [
        (old.cost, new.cost)
        for _, old, new in pairs
        if old.cost is not None and new.cost is not None
    ]
    moved = [(case, old, new) for case, old, new in pairs if old.first != new.first]
    return Difference(
        decisions=len(pairs),
        documents=_documents(case for case, _, _ in pairs),
        moved_documents=_documents(case for case, _, _ in moved),
        moves=_moves(moved),
        leaves=_moves(
            [
                (case, old, new)
                for case, old, new in pairs
                if new.leaves and not old.leaves
            ]
        ),
        may_leave=_by_step(
            c
            for c, old, new in pairs
            if new.may_leave and not old.may_leave and not new.leaves
        ),
        below=_by_step(
            case
            for case, old, new in pairs
            if old.proven and new.first and not new.proven
        ),
        deferred=_by_step(
            case for case, old, new in pairs if old.first and not new.first
        ),
        floors=tuple(_floors(found, before.floors, after.floors)),
        cost_before=sum((old for old, _ in priced), Decimal(0)),
        cost_after=sum((new for _, new in priced), Decimal(0)),
        unpriced=len(pairs) - len(priced),
    )


def _documents(cases: Iterable[Case]) -> int:
    return len({(case.run_id, case.document_id) for case in cases})


def _by_step(cases: Iterable[Case]) -> dict[str, int]:
    return dict(Counter(case.features.step for case in cases))


def _moves(pairs: Sequence[tuple[Case, Decided, Decided]]) -> tuple[Move, ...]:
    """By step, in their order; the most decisions first."""
    counts = Counter(
        (case.features.step, old.first, new.first) for case, old, new in pairs
    )
    steps = list(dict.fromkeys(step for step, _, _ in counts))
    ordered = sorted(
        counts.items(), key=lambda item: (steps.index(item[0][0]), -item[1])
    )
    return tuple(Move(*key, count) for key, count in ordered)


def _floors(
    found: Past, before: Mapping[str, float], after: Mapping[str, float]
) -> Iterator[Floor]:
    decisions = _by_step(found.cases)
    for step in sorted({*before, *after}):
        if before.get(step) != after.get(step):
            yield Floor(step, before.get(step), after.get(step), decisions.get(step, 0))
