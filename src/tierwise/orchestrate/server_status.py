"""Questions to the Prefect server for `tierwise status`: its deployments, pools and runs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from tierwise.ledger import Ledger
from tierwise.orchestrate.status import (
    LATE_AFTER_S,
    SLOT,
    Deployment,
    LateRun,
    Pool,
    RunStatus,
)

_BATCH = 200  # Prefect returns as many at once
_HOLDING = (
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
)
_BEGUN = (
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
    StateType.CANCELLED,
    StateType.COMPLETED,
    StateType.FAILED,
    StateType.CRASHED,
)


def configured_server() -> str | None:
    """Return the address of the API that Prefect's settings name."""
    return get_current_settings().api.url


def read_server_status() -> tuple[tuple[Deployment, ...], tuple[Pool, ...]]:
    """Return the deployments and work pools of the server that is configured."""
    # The screen is for now: it does not wait for a server that goes away meanwhile.
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True) as client,
    ):
        found = _all_deployments(client)
        flows = {flow.id: flow.name for flow in client.read_flows()}
        names = dict.fromkeys(
            each.work_pool_name for each in found if each.work_pool_name
        )
        pools = tuple(pool for name in names for pool in _pool(client, name))
        late = _late_runs(client, found)
        deployments = [
            _deployment(client, each, flows.get(each.flow_id, "?"), late[each.id])
            for each in found
        ]
    return tuple(sorted(deployments, key=lambda each: each.name)), pools


def with_ledger(
    deployments: Sequence[Deployment], ledger: Ledger
) -> tuple[Deployment, ...]:
    """Return deployments whose runs have the ledger's counts and signs of life."""
    runs = [run for each in deployments for run in _runs_of(each)]
    ids = [run.id for run in runs]
    signs = {each.flow_run_id: each.sign for each in ledger.runs.processes(ids)}
    counts = ledger.runs.of_flow_runs(ids)

    def known(run: RunStatus) -> RunStatus:
        row = counts.get(run.id)
        if row is None:
            return run
        return replace(
            run,
            documents=row.documents,
            waiting=row.deferred,
            sign=signs.get(run.id),
        )

    return tuple(
        replace(
            each,
            last=known(each.last) if each.last else None,
            holders=tuple(known(run) for run in each.holders),
        )
        for each in deployments
    )


def _runs_of(deployment: Deployment) -> list[RunStatus]:
    runs = list(deployment.holders)
    if deployment.last:
        runs.append(deployment.last)
    return runs


def _all_deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    while True:
        batch = client.read_deployments(limit=_BATCH, offset=len(found))
        found += batch
        if len(batch) < _BATCH:
            return found


def _pool(client: SyncPrefectClient, name: str) -> list[Pool]:
    """Return a work pool; nothing where it does not exist."""
    with suppress(ObjectNotFound):
        pool = client.read_work_pool(name)
        workers = client.read_workers_for_work_pool(name)
        online = [each for each in workers if each.status == WorkerStatus.ONLINE]
        limit = pool.concurrency_limit
        is_full = limit is not None and (pool.active_slots or 0) >= limit
        return [Pool(name, pool.is_paused, len(online), is_full)]
    return []


def _late_runs(
    client: SyncPrefectClient, deployments: Sequence[DeploymentResponse]
) -> dict[UUID, list[LateRun]]:
    """Return the runs that should have begun, by deployment, the oldest first."""
    late: dict[UUID, list[LateRun]] = defaultdict(list)
    if not deployments:
        return late
    before = datetime.now(UTC) - timedelta(seconds=LATE_AFTER_S)
    chosen = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[each.id for each in deployments]),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=before),
        state=_in_states(StateType.SCHEDULED),
    )
    runs = client.read_flow_runs(
        flow_run_filter=chosen, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=_BATCH
    )
    for run in runs:
        # A run that waits to be tried again has begun.
        if run.deployment_id and run.expected_start_time and not run.start_time:
            expected = run.expected_start_time.timestamp()
            # A run that waits for a slot is scheduled anew each time.
            is_for_slot = run.state_name == SLOT
            if is_for_slot and run.created:
                expected = min(expected, run.created.timestamp())
            late[run.deployment_id].append(
                LateRun(run.name, run.state_name or "Scheduled", expected)
            )
    return late


def _deployment(
    client: SyncPrefectClient,
    found: DeploymentResponse,
    flow: str,
    late: Sequence[LateRun],
) -> Deployment:
    of_this = FlowRunFilterDeploymentId(any_=[found.id])
    last = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(deployment_id=of_this, state=_in_states(*_BEGUN)),
        sort=FlowRunSort.START_TIME_DESC,
        limit=1,
    )
    holders = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=of_this, state=_in_states(*_HOLDING)
        )
    )
    coming = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=of_this,
            state=_in_states(StateType.SCHEDULED),
            expected_start_time=FlowRunFilterExpectedStartTime(
                after_=datetime.now(UTC)
            ),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=1,
    )
    next_at = None
    if coming and coming[0].expected_start_time:
        next_at = coming[0].expected_start_time.timestamp()
    return Deployment(
        name=f"{flow}/{found.name}",
        pool=found.work_pool_name,
        is_paused=bool(found.paused),
        has_schedule=bool(found.schedules),
        is_scheduled=any(schedule.active for schedule in found.schedules),
        last=_run_status(last[0]) if last else None,
        next_at=next_at,
        late=tuple(late),
        holders=tuple(_run_status(run) for run in holders),
    )


def _run_status(run: FlowRun) -> RunStatus:
    state = run.state
    at = state.timestamp.timestamp() if state else time.time()
    kind = run.state_type.value if run.state_type else ""
    return RunStatus(str(run.id), run.name, run.state_name or "", kind, at)


def _in_states(*kinds: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=[*kinds]))
