"""The figures of one run as tables."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

from tierwise.cli.output import console, print_table
from tierwise.text.amounts import usd

if TYPE_CHECKING:
    from tierwise.report import RunSummary
    from tierwise.report.build import RunReport
    from tierwise.report.figures import CheckRate, Saving

_MOST_DEFERRED = 20  # lines
_INTERVAL = "95 % interval"


def print_summary(summary: RunSummary) -> None:
    """Print a run's table, its deferred documents, and its totals."""
    print_table(summary.cells(), **_heading(summary))
    _print_rest(summary)


def print_report(report: RunReport, documents: list[dict[str, Any]]) -> None:
    """Print everything about one run; `documents` is a row for each document and step, or empty."""
    # A report of several runs is an HTML page; the terminal shows one.
    [summary] = report.summaries
    rows = rows_with_intervals(summary)
    for row in rows:
        row.pop("failed checks", None)  # the table of checks says it in detail
    print_table(rows, **_heading(summary))
    _print_quality(report)
    _print_rest(summary)
    if report.attention:
        print_table(
            [
                {"attention": item.text, "command": item.command}
                for item in report.attention
            ]
        )
    if documents:
        print_table(documents, title="Documents")


def rows_with_intervals(summary: RunSummary) -> list[dict[str, Any]]:
    """Return the summary's rows, each pass rate followed by its exact 95 % interval."""
    from tierwise.report.interval import interval

    rows = []
    for cells, figures in zip(summary.cells(), summary.rows, strict=True):
        row: dict[str, Any] = {}
        # A new dict, as the interval has to follow its rate: keys are columns in order.
        for name, cell in cells.items():
            row[name] = cell
            if name == "pass rate" and figures.pass_rate is None:
                row[_INTERVAL] = ""
            elif name == "pass rate":
                row[_INTERVAL] = _interval_text(
                    interval(figures.passed, figures.answers)
                )
        rows.append(row)
    return rows


def _print_quality(report: RunReport) -> None:
    """Print which checks passed, which calls failed, and what was saved at which quality."""
    if report.checks:
        checks = [_check_cells(row) for row in report.checks]
        print_table(checks, title="Checks, with the exact 95 % interval")
    if report.errors:
        print_table([asdict(row) for row in report.errors], title="Errors")
    if report.savings:
        savings = [_saving_cells(row) for row in report.savings]
        print_table(savings, title=f"Against always {report.best}")
    if report.saving and report.saving.estimated:
        typer.echo(
            f"{report.saving.estimated} documents have no token counts, such as all answered by a "
            "trained classifier: what they would have cost is estimated from prompt and answer."
        )
    if report.saving and report.saving.uncounted:
        typer.echo(
            f"{report.saving.uncounted} calls have no token counts and are left out of what "
            "would have been paid."
        )


def _print_rest(summary: RunSummary) -> None:
    """Print the deferred documents of a run, its plan, and its totals."""
    if summary.deferred:
        rows = [
            {"document": row.document_id, "step": row.step, "reason": row.reason}
            for row in summary.deferred[:_MOST_DEFERRED]
        ]
        title = f"Deferred: {len(summary.deferred)}"
        if len(summary.deferred) > len(rows):
            title += f" (the first {len(rows)})"
        print_table(rows, title=title)
    # While calls are in batches, every figure would be far below its plan.
    against_plan = [] if summary.run.in_batches else summary.against_plan()
    if against_plan:
        print_table(
            [row.cells() for row in against_plan], title="Planned, and what came of it"
        )
    console().print(summary.headline(), markup=False)


def _heading(summary: RunSummary) -> dict[str, str]:
    """Return the title of a run's table, and what to print in place of an empty one."""
    title = f"{summary.flow} · run {summary.run.id}"
    return {"title": title, "empty": "no calls were made"}


def _interval_text(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f"{low:.0%} to {high:.0%}"


def _check_cells(row: CheckRate) -> dict[str, Any]:
    return {
        "step": row.step,
        "model": row.model,
        "check": row.check,
        "passed": f"{row.passed} of {row.scored}",
        "unscored": row.unscored or "",
        "pass rate": _percent(row.rate),
        _INTERVAL: _interval_text(row.interval),
    }


def _saving_cells(row: Saving) -> dict[str, Any]:
    would_have_cost = _amount(row.best_cost)
    if row.estimated and row.best_cost is not None:
        # An estimate must not look like a bill.
        would_have_cost = f"about {would_have_cost}"
    quality = "unknown"
    if row.quality is not None:
        # Percentage points, since it is a difference of two shares.
        quality = f"{100 * row.quality:+.1f} points"
    return {
        "step": row.step,
        "cost": usd(row.cost_known, row.cost_unknown),
        "would have cost": would_have_cost,
        "saved": _amount(row.saved),
        "share": _percent(row.share),
        "quality": quality,
        "quality rests on": row.evidence,
    }


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{share:.0%}"


def _amount(value: Decimal | None) -> str:
    return "unknown" if value is None else usd(value)
