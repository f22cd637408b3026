"""A run's results, cost and quality: the same figures for the terminal, Prefect and scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tierwise.policy.waiting import too_many_wait
from tierwise.records import Outcome, Status
from tierwise.report.causes import waiting_documents
from tierwise.text.amounts import plural, rounded, usd

if TYPE_CHECKING:
    from tierwise.engine import RunRecords
    from tierwise.ledger import DeferredRow, Ledger, RunRow, SummaryRow


IN_BATCHES = 3  # the exit code of a run that goes on once its provider batches are over


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanComparison:
    """The plan for one step on one model compared with the run. Costs are USD, None when unknown.

    Planned documents and calls are expected numbers; both sides count reused calls, as the ledger
    does.
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
    # USD of the calls of known cost, and the number of the others
    cost_known: Decimal
    cost_unknown: int

    @property
    def deviation(self) -> float | None:
        """Cost above (or, negative, below) the plan as a share of it; None where one is unknown."""
        # a planned cost of 0 has no share either
        if not self.planned_cost or self.cost is None:
            return None
        return float(self.cost / self.planned_cost) - 1

    def cells(self) -> dict[str, Any]:
        """Return the row as it is displayed."""
        deviation = "" if self.deviation is None else f"{self.deviation:+.0%}"
        return {
            "step": self.step,
            "tier": self.tier,
            "model": self.model,
            "documents planned": rounded(self.planned_documents),
            "documents": self.documents,
            "calls planned": rounded(self.planned_calls),
            "calls": self.calls,
            "cost planned": _usd_or_unknown(self.planned_cost),
            "cost": usd(self.cost_known, self.cost_unknown),
            "deviation": deviation,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run: its totals, a row for each step x tier x model, and the deferred documents.

    `settled` documents were left out by `only_new`, as earlier runs are done with them; None
    where that is not known, as for a run that is read from the ledger. `fail_when_waiting` is the
    run's own setting, for a summary that is taken before the run's end.
    """

    run: RunRow
    rows: Sequence[SummaryRow]
    outcomes: Mapping[str, Mapping[Status, int]]
    deferred: Sequence[DeferredRow]
    settled: int | None = None
    fail_when_waiting: float | None = None

    @property
    def flow(self) -> str:
        """Name of the flow."""
        return self.run.flow

    def headline(self) -> str:
        """Return the run in one line."""
        run = self.run
        documents = [f"{run.documents} documents", f"{run.deferred} deferred"]
        if run.in_batches:
            documents.append(f"{run.in_batches} in batches")
        if not run.documents:
            documents = [self.empty()]
        parts = [*documents, f"{run.attempts} calls"]
        if run.reused:
            parts.append(f"{run.reused} reused")
        if run.finished_at:
            parts.append(f"{run.finished_at - run.started_at:.0f} s")
        cost = f"cost {usd(run.cost_known, run.cost_unknown)}"
        if run.repriced:
            cost += f" ({plural(run.repriced, 'call')} repriced)"
        parts.append(cost)
        if run.usage_unclear:
            parts.append(
                f"usage of {plural(run.usage_unclear, 'call')} unclear (the largest reading is billed)"
            )
        return ", ".join(parts)

    def cells(self) -> list[dict[str, Any]]:
        """Return the rows as they are displayed: one dict a row, in order.

        Re-asks have a column where there are any.
        """
        # most runs have none, and the table is wide already
        has_reasks = any(row.reasks for row in self.rows)
        return [_summary_cells(row, has_reasks=has_reasks) for row in self.rows]

    def against_plan(self) -> list[PlanComparison]:
        """Compare the run with its plan, by step and model, the total last; empty without one."""
        plan = self.run.plan
        if not plan:
            return []
        # both sides by the same key: a model may be planned and not called, or the other way round
        planned = {
            (row["step"], row["tier"], row["model"]): row for row in plan["rows"]
        }
        actual = {(row.step, row.tier, row.model): row for row in self.rows}
        rows = [
            _compare_with_plan(key, planned.get(key), actual.get(key))
            # each key once: the planned ones in the plan's order, then the unplanned ones
            for key in dict.fromkeys((*planned, *actual))
        ]
        total = PlanComparison(
            step="total",
            tier="",
            model="",
            # not a sum of the rows, since one document takes several steps
            planned_documents=plan["documents"],
            documents=self.run.documents,
            planned_calls=sum(row.planned_calls for row in rows),
            calls=self.run.attempts,
            planned_cost=_planned_cost(plan),
            cost=self.run.cost,
            cost_known=self.run.cost_known,
            cost_unknown=self.run.cost_unknown,
        )
        # a candidate that neither side called would be a row of zeros
        shown = [row for row in rows if row.planned_calls or row.calls]
        return [*shown, total]

    @property
    def waiting(self) -> int:
        """The number of documents that wait, without those that a route sends to a person."""
        return waiting_documents(self.deferred)

    @property
    def failed(self) -> bool:
        """True if the run has more waiting documents than `fail_when_waiting` allows."""
        if self.fail_when_waiting is None or self.run.finished_at:
            return self.run.state == "waiting"
        documents = self.run.documents
        return too_many_wait(self.waiting, documents, self.fail_when_waiting)

    @property
    def exit_code(self) -> int:
        """The exit code for a script that runs the flow.

        1 for a failed run, 3 for one whose documents wait for provider batches, else 0.
        """
        if self.failed:
            return 1
        return IN_BATCHES if self.run.in_batches else 0

    def empty(self) -> str:
        """Return why no document went through the run, in words; empty where one did."""
        run = self.run
        if run.documents:
            return ""
        source = run.parameters.get("source")
        looked_at = f" in {source}" if source else ""
        if self.settled:
            done = plural(self.settled, "document")
            was = "was" if self.settled == 1 else "were"
            return f"nothing new{looked_at}: {done} {was} done before"
        if self.settled == 0:
            return f"nothing new{looked_at}: there are no documents"
        if run.state == "running":
            return f"no document{looked_at} has gone through this run yet"
        return f"no document{looked_at} went through this run"

    def ui_path(self) -> str:
        """Return the address of the run in Prefect's UI, on its usual port."""
        return f"http://127.0.0.1:4200/runs/flow-run/{self.run.flow_run_id}"

    def data(self) -> dict[str, Any]:
        """Return everything as plain data, for scripts."""
        comparison = [
            {**asdict(row), "deviation": row.deviation} for row in self.against_plan()
        ]
        return {
            "run": asdict(self.run),
            "waiting": self.waiting,
            "settled": self.settled,
            "rows": [asdict(row) for row in self.rows],
            "outcomes": {step: dict(counts) for step, counts in self.outcomes.items()},
            "deferred": [asdict(row) for row in self.deferred],
            "against_plan": comparison,
        }


def summarize_run(records: RunRecords, run_id: str) -> RunSummary:
    """Read a run's summary from the ledger. Raises UnknownName, Misuse."""
    return RunSummary(
        run=records.resolve(run_id),
        rows=records.summary(run_id),
        outcomes=records.outcome_counts(run_id),
        deferred=records.deferred(run_id),
    )


def _summary_cells(row: SummaryRow, *, has_reasks: bool) -> dict[str, Any]:
    pass_rate = "" if row.pass_rate is None else f"{row.pass_rate:.0%}"
    failed = [f"{name} {count}" for name, count in row.checks_failed.items()]
    reasks = {"re-asked": row.reasks} if has_reasks else {}
    return {
        "step": row.step,
        "tier": row.tier,
        "model": row.model,
        "documents": row.documents,
        "attempts": row.attempts,
        "reused": row.reused,
        **reasks,
        "escalations": row.escalations,
        "cost": usd(row.cost_known, row.cost_unknown),
        "pass rate": pass_rate,
        "p50": _latency(row.latency_p50_s),
        "p95": _latency(row.latency_p95_s),
        "failed checks": ", ".join(failed),
    }


def _latency(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


def _compare_with_plan(
    key: tuple[str, str, str],
    planned: Mapping[str, Any] | None,
    actual: SummaryRow | None,
) -> PlanComparison:
    """Return one row; nothing was planned, or nothing was done, where one side is missing."""
    step, tier, model = key
    return PlanComparison(
        step=step,
        tier=tier,
        model=model,
        planned_documents=planned["documents"] if planned else 0,
        documents=actual.documents if actual else 0,
        planned_calls=planned["calls"] if planned else 0,
        calls=actual.attempts if actual else 0,
        planned_cost=_planned_cost(planned) if planned else Decimal(0),
        cost=actual.cost if actual else Decimal(0),
        cost_known=actual.cost_known if actual else Decimal(0),
        cost_unknown=actual.cost_unknown if actual else 0,
    )


def _planned_cost(planned: Mapping[str, Any]) -> Decimal | None:
    """Return the expected cost of a plan or of one of its rows; None where a part is unknown."""
    # a plan is JSON, where amounts are text: a float would round them
    return None if planned["expected_unknown"] else Decimal(planned["expected"])


def _usd_or_unknown(cost: Decimal | None) -> str:
    return "unknown" if cost is None else usd(cost)


def document_cells(ledger: Ledger, run_id: str) -> list[dict[str, Any]]:
    """Return one row for every document and step of a run, as it is displayed."""
    rows: list[dict[str, Any]] = []
    for row in ledger.runs.outcomes(run_id):
        outcome = row.outcome
        cells = {
            "document": row.document_id,
            "step": outcome.step,
            "status": outcome.status,
            "model": _answered_by(outcome),
            # a reason says why no answer was accepted; without one, the value is the result
            "result": outcome.reason or _shorten(outcome.value),
            "incomplete": _tag(outcome, "incomplete"),
        }
        rows.append(cells)
    return rows


def _answered_by(outcome: Outcome) -> str:
    """Return the model of an outcome, or which model gave which field."""
    of_fields = outcome.fields_by_source
    if len(of_fields) > 1 or outcome.open_fields:
        return "; ".join(of_fields)
    return outcome.model or ""


def _tag(outcome: Outcome, name: str) -> str:
    """Return a field of the document's metadata, as the outcome's route has it."""
    # only the router records features, and some documents never come to it
    if outcome.route is None:
        return ""
    return str(outcome.route.features.get("tags", {}).get(name, ""))


def _shorten(value: Any, most: int = 140) -> str:
    """Return an output in one line of at most `most` characters."""
    text = str(value)
    if isinstance(value, dict):
        text = ", ".join(f"{name}: {content}" for name, content in value.items())
    # a document's line breaks would break the table
    text = " ".join(text.split())
    if len(text) > most:
        return f"{text[: most - 1]}…"
    return text
