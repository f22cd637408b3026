"""What waits over all runs, by flow, as tables and data."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from tierwise.cli.output import print_table
from tierwise.cli.render.review import item_cells, item_data
from tierwise.review.backlog import Backlog, count_documents
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.ledger.views.waiting import WaitingRow
    from tierwise.review.queue import ReviewItem

_DAY = 86_400


def print_backlog(
    backlog: Backlog,
    rows: Sequence[WaitingRow],
    items: Sequence[ReviewItem],
    empty: str,
) -> None:
    """Print a table for each flow, the total, and the commands to type next.

    `rows` are those to list, `items` the same ones in full; `empty` is the line where nothing waits.
    """
    if backlog.waiting:
        _print_tables(backlog, rows, items)
    elif backlog.total:
        verb = "waits" if backlog.total == 1 else "wait"
        typer.echo(
            f"nothing that fits these options; {plural(backlog.total, 'document')} "
            f"{verb} over all runs: tierwise review"
        )
    else:
        typer.echo(empty)
    if backlog.decided:
        documents = plural(count_documents(backlog.decided), "decided document")
        verb = "waits" if count_documents(backlog.decided) == 1 else "wait"
        typer.echo(f"{documents} {verb} for the later steps: tierwise retry --all")


def _print_tables(
    backlog: Backlog, rows: Sequence[WaitingRow], items: Sequence[ReviewItem]
) -> None:
    now = time.time()
    of_flows: dict[str, list[WaitingRow]] = {}
    for row in backlog.waiting:
        of_flows.setdefault(row.flow, []).append(row)
    # A document alone names its run, unless one of the same name waits elsewhere.
    runs_and_names = {(row.run_id, row.document_id) for row in backlog.waiting}
    names = {row.document_id for row in backlog.waiting}
    is_ambiguous = len(names) < len(runs_and_names)
    for flow, waiting in of_flows.items():
        # the first one is the oldest
        age = age_text(now - waiting[0].waits_since)
        title = f"{flow}: {count_documents(waiting)} wait, the oldest for {age}"
        sources = {row.source for row in waiting}
        if len(sources) == 1 and waiting[0].source:
            title += f"; from {waiting[0].source}"
        cells = [
            _cells(row, item, now, has_source=len(sources) > 1, has_run=is_ambiguous)
            for row, item in zip(rows, items, strict=True)
            if row.flow == flow
        ]
        print_table(cells, title=title, empty=f"{title} (none listed)")
    left_out = len(backlog.waiting) - len(rows)
    if left_out:
        typer.echo(
            f"The {len(rows)} longest waits of {len(backlog.waiting)}; "
            f"{left_out} more with: tierwise review --limit {len(backlog.waiting)}"
        )
    first = rows[0]
    typer.echo(
        f"One in full: tierwise review {first.run_id} {shlex.quote(first.document_id)}   "
        "All in turn: tierwise review -i   Ask again: tierwise retry --all"
    )


def backlog_data(
    rows: Sequence[WaitingRow], items: Sequence[ReviewItem]
) -> list[dict[str, Any]]:
    """Return what waits as plain data, with flow, source and age."""
    now = time.time()
    return [
        item_data(item)
        | {
            "flow": row.flow,
            "source": row.source,
            "cause": row.cause,
            "waits_since": row.waits_since,
            "age_s": round(now - row.waits_since, 3),
        }
        for row, item in zip(rows, items, strict=True)
    ]


def age_text(seconds: float) -> str:
    """Return an age: `5 min`, `3 h`, `2 days`."""
    if seconds < 3600:
        return f"{max(seconds, 0) / 60:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / _DAY:.0f} days"


def _cells(
    row: WaitingRow, item: ReviewItem, now: float, *, has_source: bool, has_run: bool
) -> dict[str, Any]:
    cells = item_cells(item)
    source = {"source": row.source or ""} if has_source else {}
    run = {"run": row.run_id} if has_run else {}
    return {
        "document": row.document_id,
        "age": age_text(now - row.waits_since),
        "cause": row.cause or "",
        "step": row.step,
        **source,
        **run,
        "sensitivity": cells["sensitivity"],
        "failed": cells["failed"],
        "answer": cells["answer"],
        "reason": cells["reason"],
    }
