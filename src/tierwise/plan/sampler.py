"""Some documents for real: what they cost, and what that says of all."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tierwise.plan.dry_run_engine import DryRunEngine
from tierwise.plan.plan import Sample
from tierwise.project import Project
from tierwise.records import Batch

if TYPE_CHECKING:
    from tierwise.cascade import RunContext

DRAWS = 4000
_PLACES = Decimal("1e-9")


class Sampler(DryRunEngine):
    """Takes an engine's place while a flow runs for real over the chosen documents, and no others."""

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
        """The chosen documents of some batches."""
        kept = (tuple(d for d in batch.load() if d.id in self.chosen) for batch in batches)
        return [
            batch.with_documents(documents)
            for batch, documents in zip(batches, kept, strict=True)
            if documents
        ]

    def sample(self, of: int) -> Sample:
        """What the sample cost, and what a batch of `of` documents like these costs."""
        paid = Decimal(0)
        costs: dict[str, Decimal | None] = dict.fromkeys(sorted(self.chosen), Decimal(0))
        for attempt in (a for run_id in self.run_ids for a in self.ledger.attempts(run_id)):
            model = self.policy.catalog.models.get(attempt.model)
            full = model.cost(attempt.usage) if model else None
            if attempt.error and attempt.cost == 0:  # a fault that nobody bills
                full = Decimal(0)
            before = costs.get(attempt.document_id, Decimal(0))
            costs[attempt.document_id] = None if before is None or full is None else before + full
            paid += attempt.cost or Decimal(0)
        known = [cost for cost in costs.values() if cost is not None]
        p50, p95 = whole_batch(known, of)
        return Sample(
            run_id=", ".join(self.run_ids),
            documents=len(self.chosen),
            unknown=len(costs) - len(known),
            paid=paid,
            mean=sum(known, Decimal(0)) / len(known) if known else None,
            p50=p50,
            p95=p95,
        )


def choose(ids: Iterable[str], number: int, seed: int) -> frozenset[str]:
    """So many documents by chance, the same ones for the same seed."""
    known = sorted(ids)
    return frozenset(random.Random(seed).sample(known, min(number, len(known))))


def whole_batch(costs: Sequence[Decimal], documents: int) -> tuple[Decimal | None, Decimal | None]:
    """P50 and P95 (USD) of what `documents` cost, given the costs of some of them; None without any.

    A bootstrap: each draw resamples the sample, as another one could have come out, and takes the
    documents that are not in it from that.
    """
    import numpy

    if not costs:
        return None, None
    n = len(costs)
    chance = numpy.random.default_rng(0)
    shares = chance.multinomial(n, [1 / n] * n, size=DRAWS) / n
    counts = chance.multinomial(max(0, documents - n), shares)
    totals = counts @ numpy.array([float(cost) for cost in costs]) + float(sum(costs))
    p50, p95 = (Decimal(float(x)).quantize(_PLACES) for x in numpy.quantile(totals, [0.5, 0.95]))
    return p50, p95
