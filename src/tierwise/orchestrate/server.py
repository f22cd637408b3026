"""What tierwise asks of a Prefect server: a run's summary as an artifact, and proof that its task runs are recorded."""

from __future__ import annotations

import logging
import re
import time
from uuid import UUID

from tierwise.catalog import in_house
from tierwise.records import Outcome, rank
from tierwise.report import RunSummary

log = logging.getLogger(__name__)
PATIENCE_S = 60.0


def publish_summary(summary: RunSummary) -> None:
    """Show the summary on the flow run's page; its versions over the runs are the trend."""
    from prefect.artifacts import create_table_artifact

    flow = re.sub(r"[^a-z0-9]+", "-", summary.flow.lower()).strip("-")
    create_table_artifact(table=summary.cells(), key=f"{flow}-summary", description=summary.headline())
    if against := summary.against_plan():
        table = [row.cells() for row in against]
        create_table_artifact(table=table, key=f"{flow}-plan", description="Planned, and what came of it")


def wait_until_recorded(flow_run_id: str, expected: int) -> None:
    """Wait until a temporary server has recorded all task runs of a flow run.

    Its queue would be lost with the process, and task runs with it, while the flow run says Completed.
    A server that stays is not waited for.
    """
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is not None:
        return
    deadline = time.monotonic() + PATIENCE_S
    while (recorded := _recorded(flow_run_id)) < expected:
        if time.monotonic() > deadline:
            log.warning("Prefect recorded %d of %d task runs; the ledger has them all", recorded, expected)
            return
        time.sleep(0.25)


def _recorded(flow_run_id: str) -> int:
    """How many task runs of a flow run have reached a final state on the server."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
    count, page = 0, 200
    with get_client(sync_client=True) as client:
        for offset in range(0, 100_000, page):
            found = client.read_task_runs(flow_run_filter=chosen, limit=page, offset=offset)
            count += sum(bool(run.state and run.state.is_final()) for run in found)
            if len(found) < page:
                return count
    return count


def tellable(outcome: Outcome) -> str:
    """An outcome's reason as Prefect may hear it: it may quote the document, and the server may be elsewhere."""
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None or in_house(url) or rank(outcome.sensitivity) < rank("confidential"):
        return outcome.reason
    return f"it is {outcome.sensitivity}, and Prefect's server is outside the house; `tierwise show` says why"
