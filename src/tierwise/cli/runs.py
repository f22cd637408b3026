"""`tierwise runs` and `tierwise show`: what was run, what it cost and how good it was."""

from __future__ import annotations

import time
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import console, print_csv, print_json, print_table

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, RunRow
    from tierwise.report import RunSummary
    from tierwise.report.build import RunReport
    from tierwise.report.figures import CheckRate, Saving

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def runs(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many runs, the newest first.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List the recorded runs, newest first."""
    with open_ledger() as ledger:
        rows = ledger.runs(limit)
    if as_json:
        print_json([_run_data(row) for row in rows])
    else:
        print_table(
            [_run_cells(row) for row in rows],
            empty="no runs yet; start with: tierwise run support_inbox",
        )


def show(
    run: Annotated[
        str, typer.Argument(help="A run's id, the beginning of one, or `latest`.")
    ] = "latest",
    documents: Annotated[
        bool, typer.Option("--documents", "-d", help="A line for every document and step.")
    ] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
) -> None:
    """Show the cost, quality and deferrals of one run.

    `tierwise report` writes the same as a page, with the trends and a receipt for every document.
    """
    from tierwise.cli.report import read
    from tierwise.project import Project
    from tierwise.report import document_cells

    with open_ledger() as ledger:
        report = read(ledger, [ledger.resolve_run(run)], Project.find())
        [summary] = report.summaries
        lines = document_cells(ledger, summary.run.id) if documents else []
    if as_json:
        print_json(summary.data() | report.data() | ({"documents": lines} if documents else {}))
    elif as_csv:
        print_csv(lines if documents else _with_intervals(summary))
    else:
        told = "failed checks"  # by the table of checks
        rows = [
            {name: cell for name, cell in row.items() if name != told}
            for row in _with_intervals(summary)
        ]
        print_table(rows, **_heading(summary))
        _print_figures(report)
        _print_rest(summary)
        if report.attention:
            print_table(
                [{"attention": item.text, "command": item.command} for item in report.attention]
            )
        if documents:
            print_table(lines, title="Documents")


def print_summary(summary: RunSummary) -> None:
    """A run's table, what waits, and its totals."""
    print_table(summary.cells(), **_heading(summary))
    _print_rest(summary)


def _print_rest(summary: RunSummary) -> None:
    """What waits in a run, its plan, and its totals."""
    if summary.deferred:
        rows = [
            {"document": d.document_id, "step": d.step, "reason": d.reason}
            for d in summary.deferred[:20]
        ]
        more = len(summary.deferred) - len(rows)
        print_table(
            rows,
            title=f"Deferred: {len(summary.deferred)}"
            + (f" (the first {len(rows)})" if more else ""),
        )
    if against := summary.against_plan():
        print_table([row.cells() for row in against], title="Planned, and what came of it")
    console().print(summary.headline(), markup=False)


def _print_figures(report: RunReport) -> None:
    """What answers passed, which calls failed, and what was saved at which quality."""
    if report.checks:
        print_table(
            [_check_cells(row) for row in report.checks],
            title="Checks, with the exact 95 % interval",
        )
    if report.errors:
        print_table([asdict(row) for row in report.errors], title="Errors")
    if report.savings:
        print_table(
            [_saving_cells(row) for row in report.savings], title=f"Against always {report.best}"
        )
    if report.saving and report.saving.estimated:
        told = f"{report.saving.estimated} documents have no token counts, like all that a trained classifier answers"
        typer.echo(f"{told}: what they would have cost is estimated from prompt and answer.")
    if report.saving and report.saving.uncounted:
        typer.echo(
            f"{report.saving.uncounted} calls have no token counts and are left out of what would have been paid."
        )


def _heading(summary: RunSummary) -> dict[str, str]:
    return {"title": f"{summary.flow} · run {summary.run.id}", "empty": "no calls were made"}


def _with_intervals(summary: RunSummary) -> list[dict[str, Any]]:
    """The summary's rows, each pass rate followed by its exact 95 % interval."""
    from tierwise.report.interval import interval

    found = []
    for cells, row in zip(summary.cells(), summary.rows, strict=True):
        told = "" if row.shadow else _range(interval(row.accepted, row.documents))
        names = [
            part
            for name in cells
            for part in ([name, "95 % interval"] if name == "pass rate" else [name])
        ]
        found.append({name: cells.get(name, told) for name in names})
    return found


def _range(found: tuple[float, float] | None) -> str:
    return f"{found[0]:.0%} to {found[1]:.0%}" if found else ""


def _check_cells(row: CheckRate) -> dict[str, Any]:
    return {
        "step": row.step,
        "model": row.model,
        "check": row.check,
        "passed": f"{row.passed} of {row.scored}",
        "unscored": row.unscored or "",
        "pass rate": "" if row.rate is None else f"{row.rate:.0%}",
        "95 % interval": _range(row.interval),
    }


def _saving_cells(row: Saving) -> dict[str, Any]:
    from tierwise.text.amounts import usd

    def amount(value: Decimal | None) -> str:
        return "unknown" if value is None else usd(value)

    return {
        "step": row.step,
        "cost": amount(row.cost),
        "would have cost": ("about " if row.estimated and row.best_cost is not None else "")
        + amount(row.best_cost),
        "saved": amount(row.saved),
        "share": "" if row.share is None else f"{row.share:.0%}",
        "quality": "unknown" if row.quality is None else f"{100 * row.quality:+.1f} points",
        "quality rests on": row.evidence,
    }


def open_ledger() -> Ledger:
    """The ledger of the project around the current folder. Raises Misuse, LedgerError."""
    from tierwise.ledger import Ledger
    from tierwise.project import Project

    project = Project.find()
    return Ledger.open(project.ledger_url, root=project.root)


def _run_data(row: RunRow) -> dict[str, Any]:
    """A run as plain data, without its plan: `tierwise show --json` has that."""
    return {name: value for name, value in asdict(row).items() if name != "plan"} | {
        "cost": row.cost
    }


def _run_cells(row: RunRow) -> dict[str, Any]:
    from tierwise.text.amounts import usd

    return {
        "run": row.id,
        "flow": row.flow,
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.started_at)),
        "state": row.state,
        "documents": row.documents,
        "deferred": row.deferred,
        "attempts": row.attempts,
        "reused": row.reused,
        "cost": usd(row.cost_known, row.cost_unknown),
    }
