"""`tierwise runs` and `tierwise show`: what was run, what it cost and how good it was."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import console, print_csv, print_json, print_table

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, RunRow
    from tierwise.report import RunSummary

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def runs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many runs, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs on record, the newest first."""
    with open_ledger() as ledger:
        rows = [_run_cells(row) for row in ledger.runs(limit)]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, empty="no runs yet; start with: tierwise run support_inbox")


def show(
    run: Annotated[str, typer.Argument(help="A run's id, the beginning of one, or `latest`.")] = "latest",
    documents: Annotated[bool, typer.Option("--documents", "-d", help="A line for every document and step.")] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
) -> None:
    """Show what a run cost and how good it was, by step, tier and model."""
    from tierwise.report import document_cells, summarize_run

    with open_ledger() as ledger:
        summary = summarize_run(ledger, ledger.resolve_run(run).id)
        lines = document_cells(ledger, summary.run.id) if documents else []
    if as_json:
        print_json(summary.data() | ({"documents": lines} if documents else {}))
    elif as_csv:
        print_csv(lines if documents else summary.cells())
    else:
        print_summary(summary)
        if documents:
            print_table(lines, title="Documents")


def print_summary(summary: RunSummary) -> None:
    """A run's table, what waits, and its totals."""
    print_table(summary.cells(), title=f"{summary.flow} · run {summary.run.id}", empty="no calls were made")
    if summary.deferred:
        rows = [{"document": d.document_id, "step": d.step, "reason": d.reason} for d in summary.deferred[:20]]
        more = len(summary.deferred) - len(rows)
        print_table(rows, title=f"Deferred: {len(summary.deferred)}" + (f" (the first {len(rows)})" if more else ""))
    if against := summary.against_plan():
        print_table([row.cells() for row in against], title="Planned, and what came of it")
    console().print(summary.headline(), markup=False)


def open_ledger() -> Ledger:
    """The ledger of the project around the current folder. Raises Misuse, LedgerError."""
    from tierwise.ledger import Ledger
    from tierwise.project import Project

    project = Project.find()
    return Ledger.open(project.ledger_url, root=project.root)


def _run_cells(row: RunRow) -> dict[str, Any]:
    from tierwise.report import usd

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
