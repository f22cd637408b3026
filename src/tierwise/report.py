"""What a run did, what it cost and how good it was: the same figures for the terminal, Prefect and scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tierwise.records import Status

if TYPE_CHECKING:
    from tierwise.ledger import DeferredRow, Ledger, RunRow, SummaryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run: its totals, a row for each step x tier x model, and what waits for a person or money."""

    run: RunRow
    rows: Sequence[SummaryRow]
    outcomes: Mapping[str, Mapping[Status, int]]
    deferred: Sequence[DeferredRow]

    @property
    def flow(self) -> str:
        """Name of the flow."""
        return self.run.flow

    def headline(self) -> str:
        """The run in one line."""
        run = self.run
        parts = [f"{run.documents} documents", f"{run.deferred} deferred", f"{run.attempts} calls"]
        if run.reused:
            parts.append(f"{run.reused} reused")
        if run.finished_at:
            parts.append(f"{run.finished_at - run.started_at:.0f} s")
        return f"{', '.join(parts)}, cost {usd(run.cost_known, run.cost_unknown)}"

    def cells(self) -> list[dict[str, Any]]:
        """The rows as they are shown: one dict a row, in order."""
        return [_cells(row) for row in self.rows]

    @property
    def failed(self) -> bool:
        """Whether there were documents and not one was accepted by any step."""
        accepted = sum(counts.get("accepted", 0) for counts in self.outcomes.values())
        return self.run.documents > 0 and accepted == 0

    def ui_path(self) -> str:
        """Where Prefect's UI shows the run, on its usual port."""
        return f"http://127.0.0.1:4200/runs/flow-run/{self.run.flow_run_id}"

    def data(self) -> dict[str, Any]:
        """Everything as plain data, for scripts."""
        return {
            "run": asdict(self.run),
            "rows": [asdict(row) for row in self.rows],
            "outcomes": {step: dict(counts) for step, counts in self.outcomes.items()},
            "deferred": [asdict(row) for row in self.deferred],
        }


def summarize_run(ledger: Ledger, run_id: str) -> RunSummary:
    """Read a run's summary from the ledger. Raises UnknownName, Misuse."""
    return RunSummary(
        run=ledger.resolve_run(run_id),
        rows=ledger.summary(run_id),
        outcomes=ledger.outcome_counts(run_id),
        deferred=ledger.deferred(run_id),
    )


def usd(known: Decimal, unknown: int = 0) -> str:
    """An amount, and how many calls are not in it because nobody knows what they cost."""
    amount = f"{known:.6f} USD" if known < 1 else f"{known:.2f} USD"
    return f"{amount} + {unknown} of unknown cost" if unknown else amount


def _cells(row: SummaryRow) -> dict[str, Any]:
    return {
        "step": row.step,
        "tier": row.tier,
        "model": row.model,
        "documents": row.documents,
        "attempts": row.attempts,
        "reused": row.reused,
        "escalations": row.escalations,
        "cost": usd(row.cost_known, row.cost_unknown),
        "pass rate": "" if row.pass_rate is None else f"{row.pass_rate:.0%}",
        "p50": "" if row.latency_p50_s is None else f"{row.latency_p50_s:.2f} s",
        "p95": "" if row.latency_p95_s is None else f"{row.latency_p95_s:.2f} s",
        "failed checks": ", ".join(f"{name} {count}" for name, count in row.checks_failed.items()),
    }


def document_cells(ledger: Ledger, run_id: str) -> list[dict[str, Any]]:
    """One row for every document and step of a run, as it is shown."""
    return [
        {
            "document": row.document_id,
            "step": row.outcome.step,
            "status": row.outcome.status,
            "model": row.outcome.model or "",
            "result": _short(row.outcome.value) if row.outcome.status == "accepted" else row.outcome.reason,
        }
        for row in ledger.outcomes(run_id)
    ]


def _short(value: Any, most: int = 140) -> str:
    """An output in one line."""
    text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
