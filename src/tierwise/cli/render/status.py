"""The screen of `tierwise status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from tierwise.cli.output import print_table
from tierwise.orchestrate.status import is_waiting_for_live_run, why_late
from tierwise.report.batch_progress import moment
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.orchestrate.status import (
        Deployment,
        ProjectStatus,
        RunInBatches,
        RunStatus,
    )


def print_status(status: ProjectStatus) -> None:
    """Print the services, the deployments, and what needs a hand."""
    print_table([*_service_rows(status)])
    if status.deployments:
        print_table([_deployment_cells(each, status) for each in status.deployments])
    if status.in_batches:
        rows = [_in_batches_cells(run, status) for run in status.in_batches]
        print_table(rows)
    typer.echo(_how_to_open_the_desk(status))
    problems = status.problems()
    if not problems:
        typer.echo("All is well.")
        return
    typer.echo(f"{plural(len(problems), 'thing')} to look at:")
    for problem in problems:
        typer.echo(f"  {problem.what}")
        typer.echo(f"      -> {problem.remedy}")


def _how_to_open_the_desk(status: ProjectStatus) -> str:
    for service in status.services:
        if service.name == "desk" and service.pid is not None:
            return "Desk: `tierwise desk --link` prints the link that signs you in."
    return "Desk: `tierwise desk` serves the pages about runs, cost and reviews."


def _service_rows(status: ProjectStatus) -> list[dict[str, Any]]:
    rows = []
    for service in status.services:
        state = "runs" if service.pid else "does not run"
        if service.is_wanted and service.pid is None:
            state = "DIED"
        where = service.url or ""
        if service.name == "server" and status.server.is_own:
            where = status.server.url or ""
        rows.append(
            {
                "service": service.name,
                "state": state,
                "process": service.pid,
                "since": _moment(service.since),
                "where": where,
            }
        )
    if status.server.url and not status.server.is_own:
        state = "does not answer" if status.server.fault else "answers"
        rows.append(_row("other server", state, status.server.url))
    for pool in status.pools:
        state = "paused" if pool.is_paused else "ready"
        rows.append(
            _row(f"work pool {pool.name}", state, plural(pool.workers, "worker"))
        )
    return rows


def _row(name: str, state: str, where: str) -> dict[str, Any]:
    return {
        "service": name,
        "state": state,
        "process": None,
        "since": "",
        "where": where,
    }


def _deployment_cells(deployment: Deployment, status: ProjectStatus) -> dict[str, Any]:
    last = deployment.last
    return {
        "deployment": deployment.name,
        "last run": f"{last.name}: {last.state}" if last else "none yet",
        "since": _moment(last.at) if last else "",
        "documents": _documents(last),
        "next": _next(deployment),
        "late": _late(deployment, status),
    }


def _in_batches_cells(run: RunInBatches, status: ProjectStatus) -> dict[str, Any]:
    now = time.time()
    end = run.progress.expected_end
    goes_on = f"with `tierwise resume {run.run_id}`"
    if not run.is_detached:
        goes_on = "in its process"
    elif status.is_supervised:
        goes_on = "by itself"
    return {
        "run in provider batches": run.run_id,
        "flow": run.flow,
        "items done": f"{run.progress.done:,} of {run.progress.items:,}",
        "sent": _moment(run.progress.since),
        "expected end": "" if end is None else moment(end, now),
        "goes on": goes_on,
    }


def _documents(run: RunStatus | None) -> str:
    if run is None or run.documents is None:
        return ""
    done = run.documents - (run.waiting or 0)
    return f"{done} done, {run.waiting} waiting" if run.waiting else f"{done} done"


def _next(deployment: Deployment) -> str:
    if deployment.is_paused:
        return "none: paused"
    if deployment.next_at:
        return _moment(deployment.next_at)
    if not deployment.has_schedule:
        return "none: no schedule"
    return "being planned" if deployment.is_scheduled else "none: schedule inactive"


def _late(deployment: Deployment, status: ProjectStatus) -> str:
    if not deployment.late:
        return ""
    oldest = deployment.late[0]
    why = why_late(deployment, oldest, status.pools)
    verb = "waits" if is_waiting_for_live_run(deployment, oldest) else "late"
    return f"{len(deployment.late)} {verb}: {why.what}"


def _moment(at: float | None) -> str:
    """Return a moment as a person reads it: the time alone when it is today."""
    if at is None:
        return ""
    moment = time.localtime(at)
    is_today = moment[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M", moment)
