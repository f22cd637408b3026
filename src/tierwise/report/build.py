"""Everything that a report shows, read from the ledger at once."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tierwise.ledger.rows import RunRow, SummaryRow
from tierwise.ledger.views.summary import ErrorRow, EstimateRow
from tierwise.records import is_own
from tierwise.report.attention import Attention, attention_items
from tierwise.report.figures import (
    CertificateState,
    Charge,
    CheckRate,
    ProjectFacts,
    Saving,
    StepRate,
    TrendPoint,
    chargeback,
    check_rate,
    savings,
    step_rate,
    total_saving,
    trend,
)
from tierwise.report.summary import RunSummary, summarize_run
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.ledger import Ledger

# Run and document of everything that waits over all runs.
Waiting = Collection[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """One or more runs, newest first, and their figures.

    `best` names the model that savings are compared with.
    """

    summaries: Sequence[RunSummary]
    rows: Sequence[SummaryRow]
    steps: Sequence[StepRate]
    checks: Sequence[CheckRate]
    errors: Sequence[ErrorRow]
    best: str | None
    savings: Sequence[Saving]
    certificates: Sequence[CertificateState]
    trend: Sequence[TrendPoint]
    charges: Sequence[Charge]
    attention: Sequence[Attention]
    # steps that ran and have a floor; None where the project's files could not be read
    certified_steps: Sequence[str] | None

    @property
    def runs(self) -> list[RunRow]:
        """The runs, newest first."""
        return [summary.run for summary in self.summaries]

    @cached_property
    def saving(self) -> Saving | None:
        """All steps together; None without a priced model to compare with."""
        return total_saving(self.savings) if self.savings else None

    def all_clear(self) -> str:
        """Return what was looked at and found right, where nothing needs attention."""
        documents = sum(run.documents for run in self.runs)
        if not documents:
            nothing = "; ".join(dict.fromkeys(each.empty() for each in self.summaries))
            return f"Nothing was looked at: {nothing}."
        checked = [f"none of {plural(documents, 'document')} is deferred"]
        deferred = sum(len(each.deferred) for each in self.summaries)
        if deferred:
            checked = [f"later runs took up what was deferred ({deferred})"]
        if self.rows:
            checked.append("no call failed because of the setup")
        if self.certified_steps is None:
            checked.append("certificates were not looked at")
        elif self.certified_steps:
            steps = ", ".join(self.certified_steps)
            checked.append(f"certificates are in force for {steps}")
        elif self.rows:
            checked.append("no step that ran has a floor, so none needs a certificate")
        return f"Nothing: {'; '.join(checked)}."

    def data(self) -> dict[str, Any]:
        """Return what a run's summary does not say, as plain data for scripts."""
        total = None if self.saving is None else _saving_data(self.saving)
        return {
            "quality": [asdict(row) for row in self.steps],
            "checks": [asdict(row) for row in self.checks],
            "errors": [asdict(row) for row in self.errors],
            "savings": {
                "against": self.best,
                "steps": [_saving_data(row) for row in self.savings],
                "total": total,
            },
            "attention": [asdict(item) for item in self.attention],
        }


def build_report(
    ledger: Ledger,
    runs: Sequence[RunRow],
    facts: ProjectFacts,
    today: datetime.date,
    waiting: Waiting | None = None,
) -> RunReport:
    """Read the figures of some runs, newest first. Raises LedgerError.

    A document that is not `waiting` any more needs no attention; None: all that these runs
    deferred do. The trend of a single run is that of its flow until then.
    """
    run_ids = [run.id for run in runs]
    summaries = [summarize_run(ledger.runs, run_id) for run_id in run_ids]
    rows: Sequence[SummaryRow]
    if len(summaries) == 1:
        # the summary has read them already
        rows = summaries[0].rows
    else:
        # by the ledger and not from the summaries: percentiles of runs cannot be added up
        rows = ledger.summaries.of_runs(run_ids)
    errors = ledger.summaries.error_rows(run_ids)
    steps = {row.step for row in rows}
    certificates = [
        state for state in facts.certificates if state.certificate.step in steps
    ]
    if len(runs) == 1:
        trend_runs = ledger.runs.before(runs[0])
    else:
        trend_runs = _runs_of_one_flow(runs)
    open_summaries = [_without_settled(summary, waiting) for summary in summaries]
    answers = ledger.summaries.answers(run_ids).by_step
    verdicts = ledger.summaries.verdict_counts([run.id for run in trend_runs])
    return RunReport(
        summaries=summaries,
        rows=rows,
        steps=[step_rate(step, answers[step]) for step in sorted(answers)],
        checks=[check_rate(row) for row in ledger.summaries.check_rows(run_ids)],
        errors=errors,
        best=facts.best.name if facts.best else None,
        savings=_read_savings(ledger, run_ids, facts),
        certificates=certificates,
        trend=trend(trend_runs, verdicts),
        charges=chargeback(runs),
        attention=attention_items(open_summaries, errors, facts, today),
        certified_steps=_certified_steps(rows, facts),
    )


def total_saving_of(
    ledger: Ledger, run_ids: Sequence[str], facts: ProjectFacts
) -> Saving | None:
    """Return the cost of some runs beside the best model's; None without anything to compare."""
    rows = _read_savings(ledger, run_ids, facts)
    return total_saving(rows) if rows else None


def _certified_steps(
    rows: Sequence[SummaryRow], facts: ProjectFacts
) -> list[str] | None:
    """Return the steps that ran and have a floor, so that they need a certificate."""
    if facts.catalog is None:
        return None
    floors = {**facts.floors, **facts.agreement_floors}
    return list(dict.fromkeys(row.step for row in rows if row.step in floors))


def _without_settled(summary: RunSummary, waiting: Waiting | None) -> RunSummary:
    """Return a summary without the deferred documents that a later run took up."""
    if waiting is None:
        return summary
    run_id = summary.run.id
    deferred = [row for row in summary.deferred if (run_id, row.document_id) in waiting]
    return replace(summary, deferred=deferred)


def _runs_of_one_flow(runs: Sequence[RunRow]) -> list[RunRow]:
    """Return the runs, oldest first; none when they are of several flows: these share no trend."""
    flows = {run.flow for run in runs}
    if len(flows) != 1:
        return []
    # the report has the newest run first, a drawing has time from left to right
    return list(reversed(runs))


def _read_savings(
    ledger: Ledger, run_ids: Sequence[str], facts: ProjectFacts
) -> list[Saving]:
    best = facts.best
    # without a price to compare with there is no saving, not one of 0
    if best is None or best.price == "unknown":
        return []
    # the prompt length from which the best model has another price
    long_from = best.price.above.prompt_tokens if best.price.above else None
    needed = ledger.summaries.needed_rows(run_ids, best.name, long_from)
    # No model could do the work of a step without one.
    rows = ledger.summaries.of_runs(run_ids)
    without_model = {row.step for row in rows if is_own(row.model)}
    needed = [row for row in needed if row.step not in without_model]
    # only calls without token counts need an estimate
    estimates: list[EstimateRow] = []
    if any(row.uncounted for row in needed):
        estimates = ledger.summaries.estimate_rows(run_ids, best.name, long_from)
    chains = ledger.summaries.chain_rows(run_ids)
    return savings(needed, estimates, chains, best, facts.certificates)


def _saving_data(row: Saving) -> dict[str, Any]:
    # asdict leaves out properties
    return {**asdict(row), "saved": row.saved, "share": row.share}
