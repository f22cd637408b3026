"""Everything that a report shows, read from the ledger at once."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tierwise.ledger.rows import RunRow, SummaryRow
from tierwise.ledger.views import summary as reporting
from tierwise.ledger.views.summary import ErrorRow
from tierwise.report.attention import Attention, attention
from tierwise.report.figures import (
    Charge,
    CheckRate,
    Ground,
    Proof,
    Saving,
    TrendPoint,
    chargeback,
    check_rate,
    savings,
    total,
    trend,
)
from tierwise.report.summary import RunSummary, summarize_run

if TYPE_CHECKING:
    from tierwise.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Report:
    """One or more runs, newest first, and their figures. `best` names the model that savings are held against."""

    summaries: Sequence[RunSummary]
    rows: Sequence[SummaryRow]
    checks: Sequence[CheckRate]
    errors: Sequence[ErrorRow]
    best: str | None
    savings: Sequence[Saving]
    proofs: Sequence[Proof]
    trend: Sequence[TrendPoint]
    charges: Sequence[Charge]
    attention: Sequence[Attention]

    @property
    def runs(self) -> list[RunRow]:
        """The runs, newest first."""
        return [summary.run for summary in self.summaries]

    @cached_property
    def saving(self) -> Saving | None:
        """All steps together; None without a priced model to hold them against."""
        return total(self.savings) if self.savings else None

    def data(self) -> dict[str, Any]:
        """What a run's summary does not say, as plain data, for scripts."""
        return {
            "checks": [asdict(row) for row in self.checks],
            "errors": [asdict(row) for row in self.errors],
            "savings": {
                "against": self.best,
                "steps": [_saving(row) for row in self.savings],
                "total": self.saving and _saving(self.saving),
            },
            "attention": [asdict(item) for item in self.attention],
        }


def gather(ledger: Ledger, runs: Sequence[RunRow], ground: Ground, today: datetime.date) -> Report:
    """Read the figures of some runs, newest first; the trend is that of a single run's flow. Raises LedgerError."""
    ids = [run.id for run in runs]
    summaries = [summarize_run(ledger, run_id) for run_id in ids]
    errors = reporting.error_rows(ledger, ids)
    best = ground.best
    rows = reporting.summary_of(ledger, ids)
    line = reporting.runs_before(ledger, runs[0]) if len(runs) == 1 else _one_flow(runs)
    return Report(
        summaries=summaries,
        rows=rows,
        checks=[check_rate(row) for row in reporting.check_rows(ledger, ids)],
        errors=errors,
        best=best.name if best else None,
        savings=_savings(ledger, ids, ground),
        proofs=[
            proof for proof in ground.proofs if proof.certificate.step in {row.step for row in rows}
        ],
        trend=trend(line, reporting.verdict_counts(ledger, [run.id for run in line])),
        charges=chargeback(runs),
        attention=attention(summaries, errors, ground, today),
    )


def _one_flow(runs: Sequence[RunRow]) -> list[RunRow]:
    """The runs, oldest first; none when they are of several flows, which no line should join."""
    return list(runs)[::-1] if len({run.flow for run in runs}) == 1 else []


def _savings(ledger: Ledger, ids: Sequence[str], ground: Ground) -> list[Saving]:
    best = ground.best
    if best is None or best.price == "unknown":
        return []
    long_from = best.price.above.prompt_tokens if best.price.above else None
    needed = reporting.needed_rows(ledger, ids, best.name, long_from)
    estimates = (
        reporting.estimate_rows(ledger, ids, best.name, long_from)
        if any(r.uncounted for r in needed)
        else []
    )
    return savings(needed, estimates, reporting.chain_rows(ledger, ids), best, ground.proofs)


def _saving(row: Saving) -> dict[str, Any]:
    return asdict(row) | {"saved": row.saved, "share": row.share}
