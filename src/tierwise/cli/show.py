"""`tierwise show`: the figures of one run."""

from __future__ import annotations

from typing import Annotated

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson, OptionalRunArgument
from tierwise.cli.output import print_csv, print_json


def show(
    run: OptionalRunArgument = None,
    documents: Annotated[
        bool,
        typer.Option(
            "--documents", "-d", help="Add a line for every document and step."
        ),
    ] = False,
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the table as CSV.")
    ] = False,
) -> None:
    """Show the cost, quality and deferrals of one run.

    Lists cost and pass rates by step, tier and model, the checks, the errors and the savings,
    the deferred documents, and what needs attention. Without a run, the newest one that did
    something is shown, and what waits over all runs is counted. `tierwise report` writes the same figures
    as a page, with trends and details of every document.
    """
    from tierwise.cli.render.run_report import print_report, rows_with_intervals
    from tierwise.cli.reporting import read_report
    from tierwise.cli.waiting import after_newest
    from tierwise.report import document_cells

    project = find_project()
    with open_ledger(project) as ledger:
        shown = ledger.runs.resolve(run or "latest")
        report = read_report(ledger, [shown], project)
        # One run was asked for, so there is one summary.
        [summary] = report.summaries
        rows = document_cells(ledger, summary.run.id) if documents else []
        note = ""
        if run is None and not (as_json or as_csv):
            note = after_newest(ledger, project, shown)
    if as_json:
        data = summary.data() | report.data()
        if documents:
            data["documents"] = rows
        print_json(data)
    elif as_csv:
        print_csv(rows if documents else rows_with_intervals(summary))
    else:
        print_report(report, rows)
        if note:
            typer.echo(note)
