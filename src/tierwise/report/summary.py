"""What a run did, what it cost and how good it was: the same figures for the terminal, Prefect and scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tierwise.records import Status
from tierwise.text.amounts import rounded, usd

if TYPE_CHECKING:
    from tierwise.ledger import DeferredRow, Ledger, RunRow, SummaryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What a plan expected of one step on one model, beside what came of it. Costs are USD, None when unknown.

    Planned documents and calls are expected numbers; both count reused calls, as the ledger does.
    """

    step: str
    tier: str
    model: str
    planned_documents: float
    documents: int
    planned_calls: float
    calls: int
    planned_cost: Decimal | None
    cost: Decimal | None

    @property
    def deviation(self) -> float | None:
        """Cost above (or, negative, below) the plan as a share of it; None where there is no telling."""
        if not self.planned_cost or self.cost is None:
            return None
        return float(self.cost / self.planned_cost) - 1

    def cells(self) -> dict[str, Any]:
        """The row as it is shown."""
        return {
            "step": self.step,
            "tier": self.tier,
            "model": self.model,
            "documents planned": rounded(self.planned_documents),
            "documents": self.documents,
            "calls planned": rounded(self.planned_calls),
            "calls": self.calls,
            "cost planned": "unknown" if self.planned_cost is None else usd(self.planned_cost),
            "cost": "unknown" if self.cost is None else usd(self.cost),
            "deviation": "" if self.deviation is None else f"{self.deviation:+.0%}",
        }


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

    def against_plan(self) -> list[Against]:
        """The plan of this run beside what came of it, by step and model, the total last; empty without a plan."""
        plan = self.run.plan
        if not plan:
            return []
        planned = {(row["step"], row["tier"], row["model"]): row for row in plan["rows"]}
        actual = {(row.step, row.tier, row.model): row for row in self.rows}
        rows = [
            _against(key, planned.get(key), actual.get(key))
            for key in dict.fromkeys((*planned, *actual))
        ]
        total = Against(
            step="total",
            tier="",
            model="",
            planned_documents=plan["documents"],
            documents=self.run.documents,
            planned_calls=sum(row.planned_calls for row in rows),
            calls=self.run.attempts,
            planned_cost=_known(plan["expected"], plan["expected_unknown"]),
            cost=self.run.cost,
        )
        return [*(row for row in rows if row.planned_calls or row.calls), total]

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
            "against_plan": [
                asdict(row) | {"deviation": row.deviation} for row in self.against_plan()
            ],
        }


def summarize_run(ledger: Ledger, run_id: str) -> RunSummary:
    """Read a run's summary from the ledger. Raises UnknownName, Misuse."""
    return RunSummary(
        run=ledger.resolve_run(run_id),
        rows=ledger.summary(run_id),
        outcomes=ledger.outcome_counts(run_id),
        deferred=ledger.deferred(run_id),
    )


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


def _against(
    key: tuple[str, str, str], planned: Mapping[str, Any] | None, actual: SummaryRow | None
) -> Against:
    step, tier, model = key
    return Against(
        step=step,
        tier=tier,
        model=model,
        planned_documents=planned["documents"] if planned else 0,
        documents=actual.documents if actual else 0,
        planned_calls=planned["calls"] if planned else 0,
        calls=actual.attempts if actual else 0,
        planned_cost=_known(planned["expected"], planned["expected_unknown"])
        if planned
        else Decimal(0),
        cost=actual.cost if actual else Decimal(0),
    )


def _known(amount: str, unknown: float) -> Decimal | None:
    return None if unknown else Decimal(amount)


def document_cells(ledger: Ledger, run_id: str) -> list[dict[str, Any]]:
    """One row for every document and step of a run, as it is shown."""
    return [
        {
            "document": row.document_id,
            "step": row.outcome.step,
            "status": row.outcome.status,
            "model": row.outcome.model or "",
            "result": row.outcome.reason or _short(row.outcome.value),
        }
        for row in ledger.outcomes(run_id)
    ]


def _short(value: Any, most: int = 140) -> str:
    """An output in one line."""
    text = (
        ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    )
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
