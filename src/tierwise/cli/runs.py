"""`tierwise runs`: the recorded runs."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.opening import open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json, print_table
from tierwise.text.amounts import usd

if TYPE_CHECKING:
    from tierwise.ledger import RunRow


def runs(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="The number of runs to list.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List the recorded runs, newest first."""
    with open_ledger() as ledger:
        rows = ledger.runs.newest(limit)
    if as_json:
        print_json([_data(row) for row in rows])
        return
    print_table(
        [_cells(row) for row in rows],
        empty="no runs yet; start with: tierwise run support_inbox",
    )
    detached = [row.id for row in rows if row.state == "detached"]
    if detached:
        typer.echo(f"a detached run goes on with: tierwise resume {detached[0]}")
    if rows:
        typer.echo("as pages, with documents and reviews: tierwise desk")


def _data(row: RunRow) -> dict[str, Any]:
    """Return a run as plain data, without its plan, which `tierwise show --json` has."""
    data = asdict(row)
    del data["plan"]
    # A property, which asdict leaves out.
    return data | {"cost": row.cost}


def _cells(row: RunRow) -> dict[str, Any]:
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
