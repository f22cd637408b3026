"""A sample: some documents are run for real, and their cost is extrapolated to the whole batch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tierwise.plan.dry_run_engine import DryRunEngine
from tierwise.plan.plan import Sample
from tierwise.project import Project
from tierwise.records import Attempt, Batch, Document, Outcome
from tierwise.steps.step import Step

if TYPE_CHECKING:
    from tierwise.cascade import RunContext

DRAWS = 4000  # of the bootstrap
_PLACES = Decimal("1e-9")


class Sampler(DryRunEngine):
    """Replaces an engine while a flow runs for real over the chosen documents, and no others."""

    def __init__(
        self,
        project: Project,
        flow: str,
        chosen: Iterable[str],
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(project, env)
        self.flow = flow
        self.chosen = frozenset(chosen)
        self.run_ids: list[str] = []

    def start_run(self, flow: str, **settings: Any) -> RunContext:  # noqa: ARG002
        """Put the sample on record under its own name."""
        run = super().start_run(f"sample of {self.flow}", **settings)
        self.run_ids.append(run.id)
        return run

    def select(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return the chosen documents of the batches."""
        chosen = [self._chosen_of(batch) for batch in batches]
        return [batch for batch in chosen if batch.size]

    def _chosen_of(self, batch: Batch) -> Batch:
        documents = tuple(
            doc for doc in batch.load() if doc.id in self.chosen or doc.members
        )
        return batch.with_documents(documents)

    def run_batch(
        self,
        run: RunContext,
        step: Step,
        batch: Batch,
        parameters: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Batch:
        """Run the chosen documents, also of batches that the flow made itself."""
        chosen = self._chosen_of(batch)
        return super().run_batch(run, step, chosen, parameters, **settings)

    def record(self, run: RunContext, document: Document, outcome: Outcome) -> None:
        """Put the outcome of a chosen document on record."""
        if document.id in self.chosen:
            super().record(run, document, outcome)

    def sample(self, of: int) -> Sample:
        """Return the cost of the sample, and of a batch of `of` documents like these."""
        paid = Decimal(0)
        paid_unknown = 0
        costs: dict[str, Decimal | None] = dict.fromkeys(
            sorted(self.chosen), Decimal(0)
        )
        for run_id in self.run_ids:
            members = self.ledger.groups.of_run(run_id)
            for attempt in self.ledger.runs.attempts(run_id):
                if attempt.cost is None:
                    paid_unknown += 1
                else:
                    paid += attempt.cost
                cost = self._cost_if_paid(attempt)
                # A group's cost is that of its members, in equal parts.
                ids = members.get(attempt.document_id) or (attempt.document_id,)
                for document_id in ids:
                    before = costs.get(document_id, Decimal(0))
                    if before is None or cost is None:
                        costs[document_id] = None
                    else:
                        costs[document_id] = before + cost / len(ids)
        known = [cost for cost in costs.values() if cost is not None]
        mean = sum(known, Decimal(0)) / len(known) if known else None
        p50, p95 = whole_batch(known, of)
        return Sample(
            run_id=", ".join(self.run_ids),
            documents=len(self.chosen),
            unknown=len(costs) - len(known),
            paid=paid,
            paid_unknown=paid_unknown,
            mean=mean,
            p50=p50,
            p95=p95,
        )

    def _cost_if_paid(self, attempt: Attempt) -> Decimal | None:
        """Return an attempt's full price, also when its answer was reused."""
        if attempt.error and attempt.cost == 0:
            return Decimal(0)  # a fault that no provider bills
        model = self.policy.catalog.models.get(attempt.model)
        if model is None:
            return None
        return model.billed(attempt.usage, attempt.transport, attempt.service_tier)


def choose(ids: Iterable[str], number: int, seed: int) -> frozenset[str]:
    """Draw some documents at random, the same ones for the same seed."""
    population = sorted(ids)
    size = min(number, len(population))
    return frozenset(random.Random(seed).sample(population, size))


def whole_batch(
    costs: Sequence[Decimal], documents: int
) -> tuple[Decimal | None, Decimal | None]:
    """Return P50 and P95 (USD) of the cost of `documents`, given the costs of some of them.

    A bootstrap: each draw resamples the sample, as another one could have come out, and draws the
    documents that are not in it from that. Without any costs, both are None.
    """
    import numpy

    if not costs:
        return None, None
    size = len(costs)
    random_numbers = numpy.random.default_rng(0)
    shares = random_numbers.multinomial(size, [1 / size] * size, size=DRAWS) / size
    counts = random_numbers.multinomial(max(0, documents - size), shares)
    rest = counts @ numpy.array([float(cost) for cost in costs])
    totals = rest + float(sum(costs))
    p50, p95 = numpy.quantile(totals, [0.5, 0.95])
    return _usd(p50), _usd(p95)


def _usd(amount: float) -> Decimal:
    return Decimal(float(amount)).quantize(_PLACES)
