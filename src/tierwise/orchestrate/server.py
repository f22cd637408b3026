"""Questions to a Prefect server: the runs under way, and whether everything is recorded.

A reason that may quote a confidential document is not sent to a server outside of the house.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import (
    TERMINAL_STATES,
    DeploymentSchedule,
    FlowRun,
    StateType,
    WorkerStatus,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.states import Cancelling

from tierwise.errors import TierwiseError
from tierwise.lint.job_variables import POOL
from tierwise.orchestrate.environment import answers, no_server_at
from tierwise.orchestrate.liveness import BEGINS_IN_S
from tierwise.orchestrate.temporary_server import temporary_server
from tierwise.policy.addresses import in_house
from tierwise.records import Sensitivity, rank

log = logging.getLogger(__name__)
PATIENCE_S = 60.0
_UNDER_WAY = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_QUIET_LOOKS = 3  # a second apart: the server writes its queue out every second
_STUCK_LOOKS = 8  # task runs of a run that was killed never end


class Tellable(Protocol):
    """The fields that `tellable` needs of an outcome."""

    @property
    def reason(self) -> str:
        """The reason in words, which may quote the document."""
        ...

    @property
    def sensitivity(self) -> Sensitivity:
        """The sensitivity of the outcome."""
        ...


def wait_until_recorded(flow_run_id: str, expected: int) -> None:
    """Wait until a temporary server has recorded all task runs of a flow run.

    Its queue would be lost with the process, and task runs with it, while the flow run says
    Completed. A server that outlives this process needs no waiting.
    """
    if get_current_settings().api.url is not None and temporary_server() is None:
        return
    deadline = time.monotonic() + PATIENCE_S
    with get_client(sync_client=True) as client:
        while True:
            recorded = _count(
                client, {"id": {"any_": [flow_run_id]}}, list(TERMINAL_STATES)
            )
            if recorded >= expected:
                return
            if time.monotonic() > deadline:
                message = "Prefect recorded %d of %d task runs; the ledger has them all"
                log.warning(message, recorded, expected)
                return
            time.sleep(0.25)


def wait_until_drained(seconds: float = PATIENCE_S) -> bool:
    """Wait until the server has recorded all ended runs; return False if it takes longer.

    Its queue has no length to ask for, so the counts of task runs must stay the same for a while.
    """
    over = {"state": {"type": {"any_": list(TERMINAL_STATES)}}}
    deadline = time.monotonic() + seconds
    seen = (-1, -1)
    quiet = 0
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            ended = _count(client, over)
            under_way = _count(client, over, _UNDER_WAY)
            counts = (ended, under_way)
            quiet = quiet + 1 if counts == seen else 0
            seen = counts
            if quiet == (_STUCK_LOOKS if under_way else _QUIET_LOOKS):
                return True
            time.sleep(1)
    return False


def runs_under_way() -> list[FlowRun]:
    """Return the flow runs that a process works on now, whatever started them."""
    with get_client(sync_client=True) as client:
        return [run for run in _runs_in(client, *_UNDER_WAY) if not _is_lost(run)]


def cancel(run: FlowRun) -> None:
    """Ask the process that runs it to stop it."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelling())


def hold_back(paused: bool) -> None:
    """Pause or resume the work pool. A missing pool is not created."""
    with get_client(sync_client=True) as client:
        try:
            client.update_work_pool(POOL, WorkPoolUpdate(is_paused=paused))
        except ObjectNotFound:
            return


def healthy() -> bool:
    """Return True if the server answers."""
    with get_client(sync_client=True) as client:
        return client.api_healthcheck() is None


def require_server() -> None:
    """Raise TierwiseError where a server is configured that does not answer."""
    url = get_current_settings().api.url
    if url and temporary_server() is None and not answers(url):
        raise TierwiseError(no_server_at(url))


def has_worker() -> bool:
    """Return True if a worker is online for the work pool."""
    with get_client(sync_client=True) as client:
        try:
            workers = client.read_workers_for_work_pool(POOL)
        except PrefectHTTPStatusError:  # no pool yet: the worker makes it
            return False
    return any(worker.status == WorkerStatus.ONLINE for worker in workers)


def tellable(outcome: Tellable) -> str:
    """Return an outcome's reason, unless it must not be sent to Prefect's server.

    It may quote the document, and the server may be outside of the house.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None or in_house(url) or rank(outcome.sensitivity) < rank("confidential"):
        return outcome.reason
    return (
        f"it is {outcome.sensitivity}, and Prefect's server is outside the house; "
        "`tierwise show` says why"
    )


def deployments() -> list[str]:
    """Return the names of all deployments, such as `support-inbox/support-inbox`."""
    with get_client(sync_client=True) as client:
        flows = {flow.id: flow.name for flow in client.read_flows()}
        return sorted(
            f"{flows.get(deployment.flow_id)}/{deployment.name}"
            for deployment in client.read_deployments()
        )


@contextmanager
def schedules_kept() -> Iterator[None]:
    """Keep schedules and deployments paused or active while they are created again inside."""
    with get_client(sync_client=True) as client:
        paused = [
            deployment.id
            for deployment in client.read_deployments()
            if deployment.paused
        ]
        before = {
            (deployment.id, s.slug): s.active for deployment, s in _schedules(client)
        }
        yield
        for deployment_id in paused:
            client.pause_deployment(deployment_id)
        for deployment, schedule in _schedules(client):
            active = before.get((deployment.id, schedule.slug), schedule.active)
            if active != schedule.active:
                client.update_deployment_schedule(
                    deployment.id,
                    schedule.id,
                    active=active,
                    parameters=schedule.parameters,  # Prefect would forget them
                )


def wait_for(
    ready: Callable[[], bool], alive: Callable[[], bool], seconds: float
) -> bool:
    """Wait until `ready`; return False when it is no longer `alive`, or takes longer."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not alive() or time.monotonic() > deadline:
            return False
        time.sleep(0.25)
    return True


def _schedules(
    client: SyncPrefectClient,
) -> Iterator[tuple[DeploymentResponse, DeploymentSchedule]]:
    """Yield every schedule with a name, and its deployment."""
    for deployment in client.read_deployments():
        for schedule in deployment.schedules:
            if schedule.slug:
                yield deployment, schedule


def _runs_in(client: SyncPrefectClient, *kinds: StateType) -> list[FlowRun]:
    """Return the flow runs in states of these kinds."""
    wanted = FlowRunFilterState(type=FlowRunFilterStateType(any_=[*kinds]))
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=wanted))


def _is_lost(run: FlowRun) -> bool:
    """Return True if a worker took the run and has not begun it for too long."""
    state = run.state
    if state is None or not state.is_pending():
        return False
    return time.time() - state.timestamp.timestamp() > BEGINS_IN_S


def _count(
    client: SyncPrefectClient,
    flow_runs: Mapping[str, Any],
    states: Sequence[StateType] = (),
) -> int:
    """Return the number of task runs of these flow runs, in these states or in all."""
    body: dict[str, Any] = {"flow_runs": flow_runs}
    if states:
        body["task_runs"] = {"state": {"type": {"any_": states}}}
    return int(client.request("POST", "/task_runs/count", json=body).json())
