"""All runs, and one run: its cost, its quality, what waits, and its documents."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from tierwise.desk import overview_facts
from tierwise.desk.access import Viewer
from tierwise.desk.addresses import from_parameter
from tierwise.desk.desk import Desk, TheDesk
from tierwise.desk.prefect_link import flow_run_url
from tierwise.ledger import RunRow
from tierwise.records import SENSITIVITIES, Status
from tierwise.report.batch_progress import BatchProgress, batch_progress
from tierwise.report.causes import by_cause
from tierwise.report.summary import RunSummary, summarize_run

router = APIRouter()
_RUNS_ON_PAGE = 50
_DOCUMENTS_ON_PAGE = 100
_ENDED_S = 300.0  # a run that has ended changes only by decisions
STATUSES: tuple[Status, ...] = (
    "deferred",
    "rejected",
    "waiting",
    "accepted",
    "skipped",
)


@router.get("/runs")
def runs_page(
    desk: TheDesk,
    request: Request,
    person: Viewer,  # noqa: ARG001
    flow: Annotated[str, Query(max_length=300)] = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    """Return the list of runs."""
    runs = [run for run, _ in overview_facts.all_runs(desk)]
    flows = sorted({run.flow for run in runs})
    if flow:
        runs = [run for run in runs if run.flow == flow]
    # A page that was past the end: runs may have been removed since the link was made.
    page = min(page, max(1, -(-len(runs) // _RUNS_ON_PAGE)))
    first = (page - 1) * _RUNS_ON_PAGE
    return desk.page(
        request,
        "runs.html.j2",
        runs=runs[first : first + _RUNS_ON_PAGE],
        number=len(runs),
        page_number=page,
        has_more=first + _RUNS_ON_PAGE < len(runs),
        flows=flows,
        flow=flow,
    )


@router.get("/runs/{run_id}")
def run_page(
    desk: TheDesk,
    request: Request,
    person: Viewer,  # noqa: ARG001
    run_id: str,
    status: Status | Literal[""] = "",  # the form sends an empty one for any
    find: Annotated[str, Query(max_length=300)] = "",
    after: Annotated[str, Query(max_length=5000)] = "",
) -> Response:
    """Return one run."""
    run = find_run(desk, run_id)
    summary = summary_of(desk, run)
    documents = desk.ledger.overview.documents(
        run.id,
        status=status or None,
        part_of_id=find,
        after=from_parameter(after),
        limit=_DOCUMENTS_ON_PAGE + 1,
    )
    has_more = len(documents) > _DOCUMENTS_ON_PAGE
    documents = documents[:_DOCUMENTS_ON_PAGE]
    now = time.time()
    under_way = [
        each for each in overview_facts.running(desk, now) if each.run.id == run.id
    ]
    return desk.page(
        request,
        "run.html.j2",
        run=summary.run,
        summary=summary,
        progress=under_way[0] if under_way else None,
        waiting=[
            (remedy, cause, len({row.document_id for row in rows}))
            for remedy, cause, rows in by_cause(summary.deferred)
        ],
        batches=batches_of(desk, run),
        comparisons=summary.against_plan(),
        documents=documents,
        has_more=has_more,
        levels=SENSITIVITIES,
        statuses=STATUSES,
        status=status,
        find=find,
        after=after,
        prefect=flow_run_url(desk.prefect_url(), run.flow_run_id),
    )


def batches_of(desk: Desk, run: RunRow) -> BatchProgress | None:
    """Return how far the run's open provider batches are; None without any."""
    rows = [row for row in overview_facts.open_batches(desk) if row.run_id == run.id]
    catalog = desk.project.catalog
    return batch_progress(rows, catalog, desk.ledger.batches.seconds_taken)


def find_run(desk: Desk, run_id: str) -> RunRow:
    """Return a run. Raises UnknownName."""
    for run, _ in overview_facts.all_runs(desk):
        if run.id == run_id:
            return run
    # One that began a moment ago, or the beginning of an id.
    return desk.ledger.runs.resolve(run_id)


def summary_of(desk: Desk, run: RunRow) -> RunSummary:
    """Return a run's summary, kept for longer once it has ended."""
    seconds = 0.0 if run.finished_at is None else _ENDED_S
    # A decision makes another row, and another row another summary.
    key = ("summary", run.id, run.state, run.accepted, run.deferred, run.cost_known)
    return desk.kept.get(key, lambda: summarize_run(desk.ledger.runs, run.id), seconds)
