"""The state of a project's services, deployments and waiting documents, and what needs a hand.

Frozen facts and pure decisions, without Prefect: `server_status` asks the server for its part.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.ledger.processes import started_at
from tierwise.lint.job_variables import POOL
from tierwise.orchestrate.services import (
    Service,
    desk_address,
    desk_of,
    server_of,
    supervisor_of,
    worker_of,
)
from tierwise.orchestrate.supervision import wanted
from tierwise.report.batch_progress import BatchProgress, batch_progress
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, Sign
    from tierwise.ledger.batches import BatchRow
    from tierwise.ledger.views.waiting import WaitingRow
    from tierwise.policy.catalog import Catalog

SLOT = "AwaitingConcurrencySlot"
# Prefect calls a run Late after 15 s; a worker looks for runs every 15 s.
LATE_AFTER_S = 30.0
_BAD_ENDS = frozenset({"FAILED", "CRASHED"})


@dataclass(frozen=True)
class Problem:
    """Something that needs a hand: what it is, and what to type or do."""

    what: str
    remedy: str


@dataclass(frozen=True)
class ServiceStatus:
    """One service of `tierwise up`. `since` is in seconds since the epoch.

    `url` is the desk's address; None of the other services, and while the desk is down.
    """

    name: str
    pid: int | None
    since: float | None
    is_wanted: bool
    url: str | None = None


@dataclass(frozen=True)
class Server:
    """The Prefect server in use. `fault` is why it cannot be asked."""

    url: str | None
    is_own: bool
    fault: Problem | None = None


@dataclass(frozen=True)
class Pool:
    """A work pool and its workers that are online."""

    name: str
    is_paused: bool
    workers: int
    is_full: bool = False


@dataclass(frozen=True)
class RunStatus:
    """A flow run. `at` is when its state began; `sign` is the ledger's of its process.

    `documents` and `waiting` are the ledger's counts; None where it does not have the run.
    """

    id: str
    name: str
    state: str
    kind: str
    at: float
    documents: int | None = None
    waiting: int | None = None
    sign: Sign | None = None


@dataclass(frozen=True)
class RunInBatches:
    """A recorded run with open provider batches, and how far they were at the last look."""

    run_id: str
    flow: str
    is_detached: bool
    progress: BatchProgress


@dataclass(frozen=True)
class LateRun:
    """A run that should have begun at `expected`."""

    name: str
    state: str
    expected: float


@dataclass(frozen=True)
class Deployment:
    """A deployment, with its last run, its next, the late ones, and the holders of its slots."""

    name: str
    pool: str | None
    is_paused: bool
    has_schedule: bool
    is_scheduled: bool
    last: RunStatus | None = None
    next_at: float | None = None
    late: tuple[LateRun, ...] = ()
    holders: tuple[RunStatus, ...] = ()


@dataclass(frozen=True)
class WaitingFlow:
    """The documents of a flow that wait, over all its runs; `since` is the longest wait's start.

    `decided` are those whose answer a person accepted: they wait for the next run alone.
    """

    flow: str
    documents: int
    decided: int
    since: float


@dataclass(frozen=True)
class SuspendedCertificate:
    """A certificate whose server reports another model; `is_open`: canaries may restore it."""

    step: str
    models: str
    change: str
    is_open: bool


@dataclass(frozen=True)
class ProjectStatus:
    """Everything that `tierwise status` shows."""

    services: tuple[ServiceStatus, ...]
    server: Server
    pools: tuple[Pool, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    waiting: tuple[WaitingFlow, ...] = ()
    ledger_fault: str | None = None
    suspended: tuple[SuspendedCertificate, ...] = ()
    in_batches: tuple[RunInBatches, ...] = ()

    @property
    def is_supervised(self) -> bool:
        """True where `tierwise up` is there to resume detached runs."""
        return any(
            service.name == "supervisor" and service.pid for service in self.services
        )

    def problems(self) -> list[Problem]:
        """Return everything that needs a hand, the cause of others first."""
        found = list(self.service_problems())
        for deployment in self.deployments:
            found += _problems_of(deployment, self.pools)
        if self.ledger_fault:
            found.append(Problem(f"the ledger: {self.ledger_fault}", "tierwise doctor"))
        for suspension in self.suspended:
            found.append(_suspension_problem(suspension))
        for flow in self.waiting:
            found += _waiting_problems(flow)
        return found

    def service_problems(self) -> list[Problem]:
        """Return what is wrong with the server, the worker and the work pools."""
        found = []
        up = "tierwise up"
        if self.server.fault:
            found.append(self.server.fault)
        for service in self.services:
            # Without a server, its own problem says so.
            if service.name == "server" and self.server.fault:
                continue
            if service.is_wanted and service.pid is None:
                found.append(Problem(f"the {service.name} died", up))
        for pool in self.pools:
            if pool.is_paused:
                resume = f"prefect work-pool resume {pool.name}"
                remedy = up if pool.name == POOL else resume
                found.append(Problem(f"the work pool {pool.name} is paused", remedy))
            if not pool.workers:
                what = f"no worker is online for the work pool {pool.name}"
                start = f"prefect worker start --pool {pool.name}"
                found.append(Problem(what, up if pool.name == POOL else start))
        return found


def why_late(deployment: Deployment, run: LateRun, pools: Sequence[Pool]) -> Problem:
    """Return why a run of a deployment has not begun, with the remedy."""
    pool = next((pool for pool in pools if pool.name == deployment.pool), None)
    if pool and pool.is_paused:
        return Problem("its work pool is paused", "tierwise up")
    if pool and not pool.workers:
        return Problem("no worker is online", "tierwise up")
    if run.state == SLOT:
        if not deployment.holders:
            what = "its slot is taken, and no run has it; its lease will run out"
            return Problem(what, "wait 5 minutes, then: tierwise up")
        names = ", ".join(_holder(holder) for holder in deployment.holders)
        return Problem(f"the slot is held by {names}", "wait, or cancel that run")
    if deployment.is_paused:
        return Problem("the deployment is paused", _resume(deployment))
    if pool and pool.is_full:
        return Problem("the work pool has no free slot", "wait, or raise its limit")
    if pool is None:
        return Problem("its work pool does not exist", "tierwise up")
    return Problem(
        "a worker is online and has not taken it",
        "see .tierwise/services/worker.log",
    )


def is_waiting_for_live_run(deployment: Deployment, run: LateRun) -> bool:
    """Return True if a run only waits for an earlier one that is at work."""
    signs = {holder.sign for holder in deployment.holders}
    return run.state == SLOT and bool(signs) and "dead" not in signs


def service_statuses(root: Path) -> tuple[ServiceStatus, ...]:
    """Return the project's own services on this machine."""
    names = wanted(root)
    services = [server_of(root), worker_of(root), supervisor_of(root)]
    desk = desk_of(root)
    # An `up` of an earlier version, or one without a desk, has none to show.
    if "desk" in names or desk.pid() is not None:
        services.append(desk)
    found = [_service_status(service, names) for service in services]
    return tuple(
        replace(status, url=desk_address(root)) if status.name == "desk" else status
        for status in found
    )


def runs_in_batches(ledger: Ledger, catalog: Catalog) -> tuple[RunInBatches, ...]:
    """Return the runs with open provider batches, the oldest first."""
    by_run: dict[str, list[BatchRow]] = defaultdict(list)
    for row in ledger.batches.open_batches():
        by_run[row.run_id].append(row)
    found = []
    for run_id, rows in by_run.items():
        run = ledger.runs.resolve(run_id)
        progress = batch_progress(rows, catalog, ledger.batches.seconds_taken)
        if progress is not None:
            is_detached = run.state != "running"
            found.append(RunInBatches(run_id, run.flow, is_detached, progress))
    return tuple(found)


def waiting_flows(ledger: Ledger) -> tuple[WaitingFlow, ...]:
    """Return the flows with documents that wait, over all runs."""
    by_flow: dict[str, list[WaitingRow]] = defaultdict(list)
    for row in ledger.runs.queue():
        by_flow[row.flow].append(row)
    return tuple(_waiting_flow(flow, rows) for flow, rows in sorted(by_flow.items()))


def _waiting_flow(flow: str, rows: Sequence[WaitingRow]) -> WaitingFlow:
    # A document may wait in several steps.
    undecided = {(row.source, row.document_id) for row in rows if not row.is_decided}
    documents = {(row.source, row.document_id) for row in rows}
    since = min(row.waits_since for row in rows)
    return WaitingFlow(flow, len(documents), len(documents - undecided), since)


def _waiting_problems(flow: WaitingFlow) -> list[Problem]:
    found = []
    day = time.strftime("%Y-%m-%d", time.localtime(flow.since))
    undecided = flow.documents - flow.decided
    if undecided:
        documents = plural(undecided, "document")
        what = f"{flow.flow}: {documents} not decided, the first waits since {day}"
        found.append(Problem(what, "tierwise review"))
    if flow.decided:
        documents = plural(flow.decided, "document")
        what = f"{flow.flow}: {documents} decided, to be taken up by a run"
        found.append(Problem(what, "tierwise retry --all"))
    return found


def _suspension_problem(suspended: SuspendedCertificate) -> Problem:
    what = (
        f"the certificate of {suspended.models} for {suspended.step} is out of use: "
        f"{suspended.change}"
    )
    remedy = f"tierwise certify {suspended.step} --fresh"
    if suspended.is_open:
        remedy = f"tierwise canaries {suspended.step}"
    return Problem(what, remedy)


def _service_status(service: Service, names: set[str]) -> ServiceStatus:
    pid = service.pid()
    since = started_at(pid) if pid else None
    # It is not in the list, as it keeps the others; without anything to keep it ends.
    is_wanted = bool(names) if service.name == "supervisor" else service.name in names
    return ServiceStatus(service.name, pid, since, is_wanted)


def _problems_of(deployment: Deployment, pools: Sequence[Pool]) -> list[Problem]:
    found = []
    last = deployment.last
    if last and last.kind in _BAD_ENDS:
        what = f"{deployment.name}: its last run, {last.name}, ended {last.state}"
        found.append(Problem(what, f"see its page in the UI: /runs/flow-run/{last.id}"))
    for holder in deployment.holders:
        if holder.sign == "dead":
            what = f"{deployment.name}: the process of {holder.name} is dead"
            found.append(Problem(what, "tierwise up"))
    if deployment.is_paused and deployment.is_scheduled:
        what = f"{deployment.name}: paused, so its schedule starts nothing"
        found.append(Problem(what, _resume(deployment)))
    late = [
        run for run in deployment.late if not is_waiting_for_live_run(deployment, run)
    ]
    if late:
        oldest = late[0]
        why = why_late(deployment, oldest, pools)
        minutes = max(1, round((time.time() - oldest.expected) / 60))
        what = (
            f"{deployment.name}: {len(late)} late, the first for {minutes} min: "
            f"{oldest.state}; {why.what}"
        )
        found.append(Problem(what, why.remedy))
    return found


def _holder(run: RunStatus) -> str:
    since = time.strftime("%H:%M", time.localtime(run.at))
    end = ", whose process is dead" if run.sign == "dead" else ""
    return f"{run.name} ({run.state} since {since}{end})"


def _resume(deployment: Deployment) -> str:
    return f"resume {deployment.name} in the UI"
