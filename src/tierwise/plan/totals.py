"""Adds up a plan, document by document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from tierwise.plan.expected_cost import Expectation
from tierwise.plan.plan import CostRow, Reference, RouteRow, Waiting
from tierwise.policy.catalog import Model
from tierwise.records import Route

ZERO = Decimal(0)
_SHOWN = 3
_NOTHING = (ZERO, ZERO, 0.0)


@dataclass
class _Costs:
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


@dataclass
class _Best:
    models: dict[str, None] = field(default_factory=dict)
    cost: Decimal = ZERO
    unknown: int = 0


class Tally:
    """What was planned so far."""

    def __init__(self) -> None:
        self.documents: set[str] = set()  # ids
        self.readable: set[str] = set()  # of those, the ones that reached a step
        self.skipped: Counter[str] = Counter()
        self.assumed: Counter[str] = Counter()
        self.missing: dict[str, str] = {}  # step -> what to do
        self.expected_deferred = 0.0  # documents that no model is expected to answer well
        self._by_document: dict[
            str, tuple[Decimal, Decimal, float]
        ] = {}  # id -> expected, most, unknown calls
        self._routes: dict[tuple[str, str, str, str], list[int]] = {}
        self._costs: dict[tuple[str, str], _Costs] = {}
        self._waiting: dict[tuple[str, str], tuple[str, list[str]]] = {}
        self._reasons: dict[tuple[str, str, str], str] = {}
        self._best: dict[str, _Best] = {}

    def routed(self, route: Route, tier: str, prompt_tokens: int) -> None:
        """A document takes a route that has a model."""
        counts = self._routes.setdefault((route.step, route.rule, tier, route.models[0]), [0, 0])
        counts[0] += 1
        counts[1] += prompt_tokens
        self._reasons.setdefault((route.step, route.rule, route.models[0]), route.reason)

    def asked(
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
    ) -> None:
        """A document is expected to reach a model `reach` times, which then answers these prompts (tokens)."""
        row = self._row(step, model, expectation)
        calls = len(prompts) * (1 + expectation.repairs)
        row.documents += reach
        row.calls += reach * calls
        row.prompt_tokens += reach * sum(prompts)
        row.completion_tokens += reach * calls * expectation.completion_tokens
        expected = ZERO if cost is None else cost * Decimal(str(reach))
        unknown = reach * calls if cost is None else 0
        row.expected += expected
        row.expected_unknown += unknown
        row.most += most or ZERO
        row.most_unknown += 2 * len(prompts) if most is None else 0
        before = self._by_document.get(document_id, _NOTHING)
        self._by_document[document_id] = (
            before[0] + expected,
            before[1] + (most or ZERO),
            before[2] + unknown,
        )

    def reused(
        self, step: str, model: Model, expectation: Expectation, reach: float, calls: float
    ) -> None:
        """Answers that are paid already, or will be when the first of equal documents is done."""
        row = self._row(step, model, expectation)
        row.documents += reach
        row.calls += reach * calls
        row.reused += reach * calls

    def deferred(self, step: str, document_id: str, reason: str) -> None:
        """A document will wait."""
        kind = re.sub(r"\d[\d.,]*", "0", reason)  # the same but for its figures
        self._waiting.setdefault((step, kind), (reason, []))[1].append(document_id)

    def best(self, what: str, model: str, cost: Decimal | None) -> None:
        """What the strongest model would take for a document."""
        best = self._best.setdefault(what, _Best())
        best.models[model] = None
        best.cost += cost or ZERO
        best.unknown += cost is None

    def _row(self, step: str, model: Model, expectation: Expectation) -> _Costs:
        made = _Costs(model, expectation.basis, expectation.latency_s)
        return self._costs.setdefault((step, model.name), made)

    @property
    def routes(self) -> tuple[RouteRow, ...]:
        """Documents by step, route and first model."""
        return tuple(
            RouteRow(
                step=step,
                route=rule,
                tier=tier,
                model=model,
                documents=documents,
                prompt_tokens=tokens,
                reason=self._reasons[step, rule, model],
            )
            for (step, rule, tier, model), (documents, tokens) in self._routes.items()
        )

    @property
    def rows(self) -> tuple[CostRow, ...]:
        """Cost by step and model."""
        return tuple(_cost_row(step, costs) for (step, _), costs in self._costs.items())

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """Documents that wait, by step and kind of reason."""
        return tuple(
            Waiting(step=step, reason=reason, documents=len(ids), first=tuple(ids[:_SHOWN]))
            for (step, _), (reason, ids) in self._waiting.items()
        )

    @property
    def references(self) -> tuple[Reference, ...]:
        """What the strongest models would cost."""
        return tuple(
            Reference(what=what, models=tuple(best.models), cost=best.cost, unknown=best.unknown)
            for what, best in self._best.items()
        )

    def of(self, ids: Iterable[str]) -> tuple[Decimal, Decimal, float]:
        """Expected and highest cost (USD) of some documents, and the expected calls of unknown price."""
        chosen = [self._by_document.get(name, _NOTHING) for name in ids]
        return (
            sum((c[0] for c in chosen), ZERO),
            sum((c[1] for c in chosen), ZERO),
            sum(c[2] for c in chosen),
        )

    def seconds(self) -> tuple[float, float] | tuple[None, None]:
        """How long the calls take when the busiest model decides, and when one model waits for the other.

        Nobody knows as long as a model that is likely to be asked has no latency on record.
        """
        waits: dict[str, float] = {}
        for costs in self._costs.values():
            made = costs.calls - costs.reused
            if made >= 0.05 and costs.latency_s is None:
                return None, None
            busy = made * (costs.latency_s or 0) / costs.model.concurrency
            waits[costs.model.name] = waits.get(costs.model.name, 0.0) + busy
        return max(waits.values(), default=0.0), sum(waits.values())


def _cost_row(step: str, costs: _Costs) -> CostRow:
    made = costs.calls - costs.reused
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
        expected_unknown=costs.expected_unknown,
        most=costs.most,
        most_unknown=costs.most_unknown,
        busy_s=None if costs.latency_s is None else made * costs.latency_s,
        basis=costs.basis if made or not costs.reused else "answers paid before",
    )
