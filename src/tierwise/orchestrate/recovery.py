"""Recovery after a crash or a reboot: end the flow runs whose process is dead, free their slots.

`up`, a worker's start and the supervisor call `Recovery.look`. What is dead is decided in
`liveness`, from the ledger's leases and Prefect's heartbeats.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Scheduled

from tierwise.ledger import Ledger, RunProcess
from tierwise.ledger.processes import is_running, name_of_place, started_at
from tierwise.lint.job_variables import POOL
from tierwise.orchestrate.liveness import (
    Process,
    RunFacts,
    Stage,
    needs_heartbeats,
    verdict,
)

if TYPE_CHECKING:
    from tierwise.project import Project

log = logging.getLogger(__name__)
_STAGES: dict[StateType, Stage] = {
    StateType.PENDING: "pending",
    StateType.RUNNING: "running",
    StateType.PAUSED: "paused",
    StateType.CANCELLING: "cancelling",
}
_HEARTBEAT = "prefect.flow-run.heartbeat"
_HEARTBEAT_S = 30.0
_WORKER = "prefect.worker.name"
# A longer break between two looks says nothing of the runs: the server or this process was away.
_BREAK_S = 60.0
# A process is put down as begun in whole ticks, and a clock may be set.
_CLOCK_S = 5.0
_BATCH = 200  # Prefect returns as many runs at once


@dataclass(frozen=True)
class Recovered:
    """A flow run that was ended or queued again, and the line that says so."""

    name: str
    line: str


class _Silence:
    """How long each run has sent no heartbeat, in time in which the server was seen to answer.

    Of the clock that stands still while the machine is suspended.
    """

    def __init__(self) -> None:
        self._looked_at: float | None = None
        self._last: dict[UUID, datetime | None] = {}
        self._since: dict[UUID, float] = {}

    def begin(self, now: float) -> None:
        """Begin a look at all runs; after a break, all silences begin again."""
        if self._looked_at is None or now - self._looked_at > _BREAK_S:
            self._last.clear()
            self._since.clear()
        self._looked_at = now

    def observe(self, run_id: UUID, heartbeat: datetime | None, now: float) -> float:
        """Return for how many seconds a run, whose last heartbeat is this, has been silent."""
        if run_id not in self._since or self._last[run_id] != heartbeat:
            self._last[run_id] = heartbeat
            self._since[run_id] = now
        return now - self._since[run_id]


class Recovery:
    """Looks for dead runs on the server that is configured; keeps what earlier looks have seen."""

    def __init__(
        self, project: Project, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` stands still while the machine is suspended."""
        self._project = project
        self._clock = clock
        self._silence = _Silence()

    def look(self) -> list[Recovered]:
        """End what is dead, queue again what a dead worker took; return what was done.

        Raises what Prefect's client raises, and LedgerError: then nothing was decided.
        """
        now = self._clock()
        with get_client(sync_client=True) as client:
            runs = _not_over(client)
            self._silence.begin(now)
            if not runs:
                return []
            recorded = self._recorded(runs)
            done = []
            for run in runs:
                facts = _facts(run, recorded[str(run.id)])
                if needs_heartbeats(facts):
                    facts = self._with_heartbeats(client, run, facts, now)
                done += _act(client, run, facts)
            return done

    def _recorded(self, runs: Sequence[FlowRun]) -> dict[str, list[RunProcess]]:
        """Return the processes that the ledger has for these runs, by flow run."""
        recorded: dict[str, list[RunProcess]] = defaultdict(list)
        with Ledger.open(self._project.ledger_url, root=self._project.root) as ledger:
            for process in ledger.runs.processes([str(run.id) for run in runs]):
                recorded[process.flow_run_id].append(process)
        return recorded

    def _with_heartbeats(
        self, client: SyncPrefectClient, run: FlowRun, facts: RunFacts, now: float
    ) -> RunFacts:
        times = _heartbeats(client, run.id)
        silent_s = self._silence.observe(run.id, times[0] if times else None, now)
        heartbeat_s = _HEARTBEAT_S
        if len(times) > 1:
            # Plain flows and older workers send one less often.
            heartbeat_s = (times[0] - times[1]).total_seconds()
        return replace(facts, silent_s=silent_s, heartbeat_s=heartbeat_s)


def _act(client: SyncPrefectClient, run: FlowRun, facts: RunFacts) -> list[Recovered]:
    """Do what the facts demand of one run, unless it has moved on since it was read."""
    decided = verdict(facts)
    if decided == "leave":
        return []
    if not _is_as_it_was(client, run):
        return []
    if decided == "reschedule":
        line = f"rescheduled, as a worker died before it began them: {run.name}"
        done = _set(client, run, Scheduled())
        return [Recovered(run.name, line)] if done else []
    state = _last_state(run, facts)
    # Subflows ran in the same process.
    children = _children(client, run)
    if not _set(client, run, state):
        return []
    for child in children:
        _set(client, child, state)
    return [Recovered(run.name, f"{state.name}: the run {run.name}: {state.message}")]


def _set(client: SyncPrefectClient, run: FlowRun, state: State) -> bool:
    """Put a run into a state; return False where the server refuses, as the run has moved on.

    Not forced, so that its place among parallel runs is freed.
    """
    try:
        result = client.set_flow_run_state(run.id, state)
    except PrefectHTTPStatusError as error:
        # The others are looked at all the same.
        log.warning("the run %s stays as it is: %s", run.name, error)
        return False
    return result.status is SetStateStatus.ACCEPT


def _last_state(run: FlowRun, facts: RunFacts) -> State:
    """Return the state in which a dead run ends, with the cause and what happens next."""
    latest = facts.recorded[-1] if facts.recorded else None
    who = (
        latest.process
        if latest
        else f"its process {run.infrastructure_pid or ''}".strip()
    )
    if facts.stage == "cancelling":
        return Cancelled(message=f"cancelled; {who} ended before it could report it")
    # The ledger has the end of a run that could not report it, as its server was away.
    if latest and latest.state == "completed":
        return Completed(message=f"completed, says the ledger; {who} ended unreported")
    if latest and latest.state in ("failed", "waiting"):
        return Failed(
            message=f"{latest.state}, says the ledger; {who} ended unreported"
        )
    if latest and latest.state == "cancelled":
        return Cancelled(message=f"cancelled, says the ledger; {who} ended unreported")
    cause = f"{who} died: killed, crashed, or its machine restarted"
    if run.deployment_id:
        remedy = "the deployment's next run continues from the paid answers on record"
    else:
        remedy = "the same command continues from the paid answers on record"
    return Crashed(message=f"{cause}; {remedy}")


def _facts(run: FlowRun, recorded: Sequence[RunProcess]) -> RunFacts:
    state = run.state or Pending()  # every run has one; Prefect's type says otherwise
    since = state.timestamp.timestamp()
    return RunFacts(
        stage=_STAGES[state.type],
        is_ours=bool(recorded) or run.work_pool_name == POOL,
        since=since,
        age_s=time.time() - since,
        recorded=tuple(recorded),
        process=_process(run, since),
        is_suspended=bool(state.state_details.pause_reschedule),
    )


def _process(run: FlowRun, since: float) -> Process:
    """Return what is known of the process that a run's worker started."""
    pid = run.infrastructure_pid
    if not pid:
        return "unnamed"
    # Prefect gives the number alone; the name that our workers have says where it counts.
    worker = str(run.labels.get(_WORKER, ""))
    here = name_of_place()
    if not pid.isdecimal() or worker.rpartition("-")[0] != here.rpartition("-")[0]:
        return "elsewhere"
    # Of an earlier boot.
    if worker != here or not is_running(int(pid)):
        return "dead"
    # A process that is younger than the run's state has only taken over the number.
    began = started_at(int(pid))
    return "dead" if began and began > since + _CLOCK_S else "alive"


def _not_over(client: SyncPrefectClient) -> list[FlowRun]:
    """Return all flow runs that a process should be at work on."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[*_STAGES]))
    chosen = FlowRunFilter(state=state)
    runs: list[FlowRun] = []
    while True:
        batch = client.read_flow_runs(
            flow_run_filter=chosen, limit=_BATCH, offset=len(runs)
        )
        runs += batch
        if len(batch) < _BATCH:
            return runs


def _is_as_it_was(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Return True if a run is still in the state in which it was read."""
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    found = client.read_flow_runs(flow_run_filter=chosen)
    return any(now.state_id == run.state_id for now in found)


def _children(client: SyncPrefectClient, run: FlowRun) -> list[FlowRun]:
    """Return the subflows that ran in a run's process and did not end with it."""
    parent = FlowRunFilterParentFlowRunId(any_=[run.id])
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[*_STAGES]))
    children = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(parent_flow_run_id=parent, state=state)
    )
    # One of a deployment has a process of its own.
    return [child for child in children if child.deployment_id is None]


def _heartbeats(client: SyncPrefectClient, run_id: UUID) -> list[datetime]:
    """Return the times of a run's last two heartbeats, newest first."""
    chosen = {
        "event": {"name": [_HEARTBEAT]},
        "resource": {"id": [f"prefect.flow-run.{run_id}"]},
    }
    reply = client.request(
        "POST", "/events/filter", json={"filter": chosen, "limit": 2}
    )
    events = reply.json()["events"]
    times = [datetime.fromisoformat(event["occurred"]) for event in events]
    return sorted(times, reverse=True)
