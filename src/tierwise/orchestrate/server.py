"""What tierwise asks of a Prefect server: who runs, whether all is recorded, and what may be told to it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import (
    TERMINAL_STATES,
    DeploymentSchedule,
    FlowRun,
    StateType,
    WorkerStatus,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelling, Scheduled

from tierwise.policy.catalog import in_house
from tierwise.records import Sensitivity, rank

log = logging.getLogger(__name__)
PATIENCE_S = 60.0
POOL = "tierwise"  # the work pool of `tierwise up`, as prefect.yaml has it
_UNDER_WAY = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_QUIET_LOOKS = 3  # a second apart: the server writes its queue out every second
_BEGINS_IN_S = (
    90.0  # from a worker's taking a run to its first line; what takes longer has lost its worker
)
_STUCK_LOOKS = 8  # task runs of a run that was killed never end


class Tellable(Protocol):
    """What `tellable` needs of an outcome."""

    @property
    def reason(self) -> str:
        """It may quote the document."""
        ...

    @property
    def sensitivity(self) -> Sensitivity:
        """Of the outcome."""
        ...


def wait_until_recorded(flow_run_id: str, expected: int) -> None:
    """Wait until a temporary server has recorded all task runs of a flow run.

    Its queue would be lost with the process, and task runs with it, while the flow run says Completed.
    A server that stays is not waited for.
    """
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is not None:
        return
    deadline = time.monotonic() + PATIENCE_S
    with get_client(sync_client=True) as client:
        while (
            recorded := _count(client, {"id": {"any_": [flow_run_id]}}, list(TERMINAL_STATES))
        ) < expected:
            if time.monotonic() > deadline:
                log.warning(
                    "Prefect recorded %d of %d task runs; the ledger has them all",
                    recorded,
                    expected,
                )
                return
            time.sleep(0.25)


def wait_until_drained(seconds: float = PATIENCE_S) -> bool:
    """Wait until the server has written down what it was told of runs that are over; False if it takes longer."""
    over = {"state": {"type": {"any_": list(TERMINAL_STATES)}}}
    deadline = time.monotonic() + seconds
    seen = (-1, -1)
    quiet = 0
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            now = _count(client, over), _count(client, over, _UNDER_WAY)
            seen, quiet = now, quiet + 1 if now == seen else 0
            if quiet == (_STUCK_LOOKS if now[1] else _QUIET_LOOKS):
                return True
            time.sleep(1)
    return False


def runs_under_way() -> list[FlowRun]:
    """The flow runs that a process works on now, whoever started them."""
    with get_client(sync_client=True) as client:
        return [run for run in _runs_in(client, *_UNDER_WAY) if not _is_lost(run)]


def hand_out_again() -> list[str]:
    """Have the runs that a worker took and never began handed out again: it died. Gives their names."""
    with get_client(sync_client=True) as client:
        lost = [run for run in _runs_in(client, StateType.PENDING) if _is_lost(run)]
        for run in lost:
            client.set_flow_run_state(
                run.id, Scheduled()
            )  # unforced, so that its place among parallel runs is free
        return [run.name for run in lost]


def cancel(run: FlowRun) -> None:
    """Ask whoever runs it to stop it."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelling())


def hold_back(paused: bool) -> None:
    """Stop the work pool from handing out runs, or let it go on. A pool that is not there stays so."""
    with get_client(sync_client=True) as client:
        try:
            client.update_work_pool(POOL, WorkPoolUpdate(is_paused=paused))
        except ObjectNotFound:
            return


def healthy() -> bool:
    """Whether the server answers."""
    with get_client(sync_client=True) as client:
        return client.api_healthcheck() is None


def has_worker() -> bool:
    """Whether a worker looks after the work pool."""
    with get_client(sync_client=True) as client:
        try:
            workers = client.read_workers_for_work_pool(POOL)
        except PrefectHTTPStatusError:  # no pool yet: the worker makes it
            return False
    return any(worker.status == WorkerStatus.ONLINE for worker in workers)


def tellable(outcome: Tellable) -> str:
    """An outcome's reason as Prefect may hear it: it may quote the document, and the server may be elsewhere."""
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None or in_house(url) or rank(outcome.sensitivity) < rank("confidential"):
        return outcome.reason
    return f"it is {outcome.sensitivity}, and Prefect's server is outside the house; `tierwise show` says why"


def deployments() -> list[str]:
    """The names of all deployments, such as `support-inbox/support-inbox`."""
    with get_client(sync_client=True) as client:
        flows = {flow.id: flow.name for flow in client.read_flows()}
        return sorted(
            f"{flows.get(found.flow_id)}/{found.name}" for found in client.read_deployments()
        )


@contextmanager
def schedules_kept() -> Iterator[None]:
    """Deployments may be made anew in here; they and the schedules that were there are on or off as before."""
    with get_client(sync_client=True) as client:
        paused = [deployment.id for deployment in client.read_deployments() if deployment.paused]
        before = {(deployment.id, s.slug): s.active for deployment, s in _schedules(client)}
        yield
        for deployment_id in paused:
            client.pause_deployment(deployment_id)
        for deployment, schedule in _schedules(client):
            active = before.get((deployment.id, schedule.slug), schedule.active)
            if active != schedule.active:
                own = schedule.parameters  # Prefect would forget them
                client.update_deployment_schedule(
                    deployment.id, schedule.id, active=active, parameters=own
                )


def wait_for(ready: Callable[[], bool], alive: Callable[[], bool], seconds: float) -> bool:
    """Wait until `ready`; False when it is not `alive` any more, or takes longer."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not alive() or time.monotonic() > deadline:
            return False
        time.sleep(0.25)
    return True


def _schedules(
    client: SyncPrefectClient,
) -> Iterator[tuple[DeploymentResponse, DeploymentSchedule]]:
    """Every schedule with a name, and its deployment."""
    for deployment in client.read_deployments():
        yield from ((deployment, schedule) for schedule in deployment.schedules if schedule.slug)


def _runs_in(client: SyncPrefectClient, *kinds: StateType) -> list[FlowRun]:
    """The flow runs in states of these kinds."""
    wanted = FlowRunFilterState(type=FlowRunFilterStateType(any_=[*kinds]))
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=wanted))


def _is_lost(run: FlowRun) -> bool:
    """Whether a worker took the run and has not begun it for too long."""
    state = run.state
    return bool(
        state and state.is_pending() and time.time() - state.timestamp.timestamp() > _BEGINS_IN_S
    )


def _count(
    client: SyncPrefectClient, flow_runs: Mapping[str, Any], states: Sequence[StateType] = ()
) -> int:
    """How many task runs of these flow runs there are, in these states or in all."""
    body: dict[str, Any] = {"flow_runs": flow_runs}
    if states:
        body["task_runs"] = {"state": {"type": {"any_": states}}}
    return int(client.request("POST", "/task_runs/count", json=body).json())
