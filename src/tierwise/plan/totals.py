"""The totals of a plan, added up document by document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from tierwise.plan.expected_cost import Expectation
from tierwise.plan.plan import CostRow, Reference, RouteRow, Waiting
from tierwise.plan.planned_transports import PlannedTransports
from tierwise.policy.catalog import Model
from tierwise.policy.transport import TransportSetting
from tierwise.records import Route

ZERO = Decimal(0)
_IDS_SHOWN = 3
_FEW_CALLS = 0.05  # fewer expected calls than this count as none


@dataclass
class _RouteCounts:
    """A RouteRow in the making."""

    reason: str
    documents: int = 0
    prompt_tokens: int = 0


@dataclass
class _ModelCosts:
    """A CostRow in the making."""

    model: Model
    basis: str
    latency_s: float | None
    documents: float = 0
    calls: float = 0
    reused: float = 0
    prompt_tokens: float = 0
    completion_tokens: float = 0
    expected: Decimal = ZERO
    expected_unknown: float = 0
    most: Decimal = ZERO
    most_unknown: float = 0
    in_batches: Decimal = ZERO
    has_batches: bool = False
    setting: TransportSetting = "auto"

    @property
    def made(self) -> float:
        """Expected calls that are sent, without the reused ones."""
        return self.calls - self.reused


@dataclass
class _DocumentCosts:
    """The costs of one document over all steps."""

    expected: Decimal = ZERO
    most: Decimal = ZERO
    unknown_calls: float = 0.0


@dataclass
class _DeferredDocuments:
    """A Waiting in the making."""

    reason: str
    ids: list[str] = field(default_factory=list)


@dataclass
class _ReferenceCosts:
    """A Reference in the making."""

    models: dict[str, None] = field(default_factory=dict)  # in order of appearance
    cost: Decimal = ZERO
    unknown: int = 0


class Totals:
    """Everything that was planned so far."""

    def __init__(self) -> None:
        self.documents: set[str] = set()  # ids
        self.readable: set[str] = set()  # of those, the ones that reached a step
        self.skipped: Counter[str] = Counter()
        self.assumed: Counter[str] = Counter()
        self.missing: dict[str, str] = {}  # step -> remedy for a missing certificate
        # documents that no model is expected to answer well
        self.expected_deferred = 0.0
        self._routes: dict[tuple[str, str, str, str], _RouteCounts] = {}
        self._costs: dict[tuple[str, str], _ModelCosts] = {}  # by step and model
        self._document_costs: dict[str, _DocumentCosts] = {}
        self._deferred: dict[tuple[str, str], _DeferredDocuments] = {}
        self._references: dict[str, _ReferenceCosts] = {}

    def add_route(self, route: Route, tier: str, prompt_tokens: int) -> None:
        """Count a document that takes a route with a model."""
        key = (route.step, route.rule, tier, route.models[0])
        counts = self._routes.setdefault(key, _RouteCounts(route.reason))
        counts.documents += 1
        counts.prompt_tokens += prompt_tokens

    def add_call(
        self,
        step: str,
        model: Model,
        expectation: Expectation,
        *,
        document_id: str,
        prompts: tuple[int, ...],
        reach: float,
        cost: Decimal | None,
        most: Decimal | None,
        most_calls: int,
        batch_cost: Decimal | None = None,
        setting: TransportSetting = "auto",
    ) -> None:
        """Count a document that reaches a model with the probability `reach`.

        The model then answers these prompts (tokens). `batch_cost` is None where the document may
        be in no batch, `setting` what a person says of its transport.
        """
        calls = len(prompts) * expectation.calls_a_prompt
        expected = ZERO if cost is None else cost * Decimal(str(reach))
        unknown_calls = reach * calls if cost is None else 0
        row = self._costs_of(step, model, expectation)
        row.documents += reach
        row.calls += reach * calls
        row.prompt_tokens += reach * sum(prompts)
        row.completion_tokens += reach * calls * expectation.completion_tokens
        row.expected += expected
        row.expected_unknown += unknown_calls
        row.setting = setting
        row.in_batches += expected
        if batch_cost is not None:
            row.has_batches = True
            row.in_batches += batch_cost * Decimal(str(reach)) - expected
        row.most += most or ZERO
        row.most_unknown += most_calls if most is None else 0
        document = self._document_costs.setdefault(document_id, _DocumentCosts())
        document.expected += expected
        document.most += most or ZERO
        document.unknown_calls += unknown_calls

    def add_reused(
        self,
        step: str,
        model: Model,
        expectation: Expectation,
        reach: float,
        calls: float,
    ) -> None:
        """Count answers that are paid, or will be when the first of equal documents is done."""
        row = self._costs_of(step, model, expectation)
        row.documents += reach
        row.calls += reach * calls
        row.reused += reach * calls

    def add_deferred(self, step: str, document_id: str, reason: str) -> None:
        """Count a document that will be deferred."""
        # equal reasons but for their figures
        without_figures = re.sub(r"\d[\d.,]*", "0", reason)
        key = (step, without_figures)
        self._deferred.setdefault(key, _DeferredDocuments(reason)).ids.append(
            document_id
        )

    def add_reference(self, title: str, model: str, cost: Decimal | None) -> None:
        """Count the cost of a document on one of the strongest models."""
        costs = self._references.setdefault(title, _ReferenceCosts())
        costs.models[model] = None
        costs.cost += cost or ZERO
        costs.unknown += cost is None

    def _costs_of(
        self, step: str, model: Model, expectation: Expectation
    ) -> _ModelCosts:
        costs = _ModelCosts(model, expectation.basis, expectation.latency_s)
        return self._costs.setdefault((step, model.name), costs)

    @property
    def routes(self) -> tuple[RouteRow, ...]:
        """Documents by step, route and first model."""
        rows = []
        for (step, rule, tier, model), counts in self._routes.items():
            row = RouteRow(
                step=step,
                route=rule,
                tier=tier,
                model=model,
                documents=counts.documents,
                prompt_tokens=counts.prompt_tokens,
                reason=counts.reason,
            )
            rows.append(row)
        return tuple(rows)

    def rows(self, transports: PlannedTransports) -> tuple[CostRow, ...]:
        """Return the cost by step and model."""
        steps = list(dict.fromkeys(step for step, _ in self._costs))
        rows = []
        elapsed_s = 0.0
        for step in steps:
            steps_left = len(steps) - steps.index(step)
            for (of_step, _), costs in self._costs.items():
                if of_step != step:
                    continue
                row = transports.applied(
                    _cost_row(step, costs),
                    costs.model if costs.has_batches else None,
                    costs.in_batches,
                    costs.setting,
                    elapsed_s=elapsed_s,
                    steps_left=steps_left,
                )
                if row.transport == "batch" and costs.made >= _FEW_CALLS:
                    elapsed_s += row.batch_s or 0.0
                rows.append(row)
        return tuple(rows)

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """Deferred documents, by step and kind of reason."""
        rows = []
        for (step, _), deferred in self._deferred.items():
            first = tuple(deferred.ids[:_IDS_SHOWN])
            number = len(deferred.ids)
            rows.append(
                Waiting(
                    step=step, reason=deferred.reason, documents=number, first=first
                )
            )
        return tuple(rows)

    @property
    def references(self) -> tuple[Reference, ...]:
        """The cost of the strongest models."""
        return tuple(
            Reference(
                what=title,
                models=tuple(costs.models),
                cost=costs.cost,
                unknown=costs.unknown,
            )
            for title, costs in self._references.items()
        )

    def cost_of_documents(self, ids: Iterable[str]) -> tuple[Decimal, Decimal, float]:
        """Return expected and highest cost (USD) of some documents, and calls of unknown price."""
        expected = ZERO
        most = ZERO
        unknown_calls = 0.0
        for document_id in ids:
            costs = self._document_costs.get(document_id, _DocumentCosts())
            expected += costs.expected
            most += costs.most
            unknown_calls += costs.unknown_calls
        return expected, most, unknown_calls

    def seconds(self) -> tuple[float, float] | tuple[None, None]:
        """Return the duration if models work side by side, and if they work one after the other.

        Both are None when a model that is likely to be asked has no latency on record.
        """
        busy: dict[str, float] = {}
        for costs in self._costs.values():
            if costs.made >= _FEW_CALLS and costs.latency_s is None:
                return None, None
            seconds = costs.made * (costs.latency_s or 0) / costs.model.concurrency
            busy[costs.model.name] = busy.get(costs.model.name, 0.0) + seconds
        return max(busy.values(), default=0.0), sum(busy.values())


def _cost_row(step: str, costs: _ModelCosts) -> CostRow:
    busy_s = None if costs.latency_s is None else costs.made * costs.latency_s
    basis = costs.basis
    if costs.reused and not costs.made:
        basis = "answers paid before"
    return CostRow(
        step=step,
        tier=costs.model.tier,
        model=costs.model.name,
        documents=costs.documents,
        calls=costs.calls,
        reused=costs.reused,
        prompt_tokens=costs.prompt_tokens,
        completion_tokens=costs.completion_tokens,
        expected=costs.expected,
        online=costs.expected,
        expected_unknown=costs.expected_unknown,
        most=costs.most,
        most_unknown=costs.most_unknown,
        busy_s=busy_s,
        basis=basis,
    )
