"""Dead runs on a real Prefect server: ended with the cause, the slot free, live ones untouched."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Paused, Pending, Running

from tests.kit.projects import make_project, model
from tierwise.ledger import Ledger, RunInfo
from tierwise.ledger.processes import name_of_place, new_process_identity
from tierwise.lint.job_variables import POOL
from tierwise.orchestrate.recovery import Recovery
from tierwise.project import Project

pytestmark = pytest.mark.usefixtures("prefect_server")


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass
class Bench:
    """A project, the server of these tests, and a deployment with one slot."""

    client: SyncPrefectClient
    project: Project
    clock: Clock
    recovery: Recovery
    flow_id: UUID
    deployment_id: UUID
    others: set[UUID]

    def run_in(self, state: State, *, deployed: bool = True) -> FlowRun:
        """A flow run in this state, taken by a worker before if it is of the deployment."""
        if deployed:
            run = self.client.create_flow_run_from_deployment(self.deployment_id)
        else:
            body = {"flow_id": str(self.flow_id), "state": {"type": "PENDING"}}
            reply = self.client.request("POST", "/flow_runs/", json=body)
            run = self.client.read_flow_run(UUID(reply.json()["id"]))
        if deployed:
            self.client.set_flow_run_state(run.id, Pending())
        if not state.is_pending():
            self.client.set_flow_run_state(run.id, Running())
            if not state.is_running():
                self.client.set_flow_run_state(run.id, state)
        return run

    def on_record(self, run: FlowRun, owner: str, lease_s: float = 60) -> str:
        """Put the run on record in the ledger, under way in this process; return its id there."""
        with Ledger.open(None, root=self.project.root) as ledger:
            info = RunInfo(
                id=f"run-{run.id}",
                flow="inbox",
                policy_hash="p",
                tierwise_version="0",
                started_at=time.time(),
                flow_run_id=str(run.id),
            )
            ledger.start_run(info)
            url = ledger.url
        change = "UPDATE runs SET owner = ?, lease_until = ? WHERE id = ?"
        database = sqlite3.connect(str(url.database))
        with database:
            database.execute(change, (owner, time.time() + lease_s, info.id))
        database.close()
        return info.id

    def by_worker(self, run: FlowRun, worker: str, pid: int) -> None:
        """Say of a run which worker started which process for it, as a worker does."""
        labels = {"prefect.worker.name": worker}
        self.client.update_flow_run_labels(run.id, labels)
        self.client.update_flow_run(run.id, infrastructure_pid=str(pid))

    def look(self, seconds: float = 0.0) -> list[str]:
        """Look every ten seconds for so long; return what was said."""
        said = []
        end = self.clock.now + seconds
        while True:
            said += [found.line for found in self.recovery.look()]
            if self.clock.now >= end:
                return said
            self.clock.now += 10

    def state_of(self, run: FlowRun) -> State:
        """The state of a run now."""
        state = self.client.read_flow_run(run.id).state
        assert state
        return state

    def slots(self) -> int:
        """How many slots of the deployment are taken."""
        reply = self.client.request("GET", f"/deployments/{self.deployment_id}")
        return int(reply.json()["global_concurrency_limit"]["active_slots"])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    root = make_project(tmp_path / "p", model("small", "http://127.0.0.1:9"))
    project = Project(root)
    clock = Clock()
    with get_client(sync_client=True) as client:
        if not any(pool.name == POOL for pool in client.read_work_pools()):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        flow_id = client.create_flow_from_name("inbox")
        deployment_id = client.create_deployment(
            flow_id,
            f"inbox-{tmp_path.name}",
            work_pool_name=POOL,
            concurrency_limit=1,
            concurrency_options={"collision_strategy": "ENQUEUE"},
        )
        others = {run.id for run in client.read_flow_runs()}
        recovery = Recovery(project, clock=clock)
        yield Bench(client, project, clock, recovery, flow_id, deployment_id, others)
        for run in client.read_flow_runs():
            if run.id not in others:
                client.delete_flow_run(run.id)


def dead_process() -> tuple[str, int]:
    """An owner on this machine that has ended, and its number."""
    code = "from tierwise.ledger.processes import new_process_identity as n; print(n())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    owner = done.stdout.strip()
    return owner, int(owner.split(" ")[1])


def of_earlier_boot() -> str:
    """An owner on this machine before its last start; its number is in use again."""
    host, _, _ = new_process_identity().partition("/")
    return f"{host}/00000000-boot/pid:[1] {os.getpid()} 0a0a 77"


ELSEWHERE = "mail-2/00000000-boot/pid:[1] 4711 0a0a 77"


def test_a_dead_run_ends_as_crashed_and_its_slot_is_free(bench: Bench) -> None:
    """At once, with cause and remedy; the next run of the deployment gets the slot."""
    run = bench.run_in(Running())
    owner, pid = dead_process()
    bench.on_record(run, owner)
    assert bench.slots() == 1
    [line] = bench.look()
    state = bench.state_of(run)
    assert state.is_crashed()
    assert f"process {pid} on " in str(state.message)
    assert "the deployment's next run continues from the paid answers" in line
    assert bench.slots() == 0
    assert bench.run_in(Running())
    assert bench.slots() == 1


def test_what_the_ledger_has_as_completed_does_not_end_as_crashed(bench: Bench) -> None:
    """Its server was away when it ended."""
    run = bench.run_in(Running())
    run_id = bench.on_record(run, dead_process()[0])
    with Ledger.open(None, root=bench.project.root) as ledger:
        ledger.finish_run(run_id, "completed")
    bench.look()
    assert bench.state_of(run).is_completed()
    assert bench.slots() == 0


def test_a_cancelled_run_whose_process_is_dead_ends_as_cancelled(bench: Bench) -> None:
    run = bench.run_in(Cancelling())
    bench.on_record(run, dead_process()[0])
    bench.look()
    assert bench.state_of(run).is_cancelled()
    assert bench.slots() == 0


def test_after_a_reboot_a_silent_run_ends_within_a_minute(bench: Bench) -> None:
    """Its lease would count for an hour. A second machine of the same name sends heartbeats."""
    run = bench.run_in(Running())
    bench.on_record(run, of_earlier_boot(), lease_s=3600)
    assert bench.look(seconds=50) == []
    assert bench.state_of(run).is_running()
    bench.look(seconds=10)
    assert bench.state_of(run).is_crashed()


def test_a_break_of_the_observer_is_no_silence(bench: Bench) -> None:
    """The server was away for five minutes, or this machine was suspended: it counts from then."""
    run = bench.run_in(Running())
    bench.on_record(run, of_earlier_boot())
    bench.look(seconds=50)
    bench.clock.now += 300
    bench.look(seconds=50)
    assert bench.state_of(run).is_running()


def _heartbeat(bench: Bench, run: FlowRun) -> None:
    from prefect.types._datetime import now

    event: dict[str, Any] = {
        "occurred": now("UTC").isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run.id}"},
        "related": [],
        "payload": {},
        "id": str(UUID(bytes=os.urandom(16), version=4)),
    }
    bench.client.request("POST", "/events", json=[event])
    of_run = {"resource": {"id": [event["resource"]["prefect.resource.id"]]}}
    heartbeats = {"filter": {**of_run, "event": {"name": [event["event"]]}}}

    def is_stored() -> bool:
        reply = bench.client.request("POST", "/events/filter", json=heartbeats)
        return bool(reply.json()["events"])

    while not is_stored():
        time.sleep(0.1)


def test_a_heartbeat_begins_the_silence_again(bench: Bench) -> None:
    run = bench.run_in(Running())
    bench.on_record(run, of_earlier_boot())
    bench.look(seconds=50)
    _heartbeat(bench, run)
    bench.look(seconds=50)
    assert bench.state_of(run).is_running()


LIVE: dict[str, Callable[[Bench], FlowRun]] = {}


def live(make: Callable[[Bench], FlowRun]) -> Callable[[Bench], FlowRun]:
    """Note a kind of live run."""
    LIVE[make.__name__] = make
    return make


def _recorded(bench: Bench, owner: str, state: State, **options: Any) -> FlowRun:
    run = bench.run_in(state, **options)
    bench.on_record(run, owner)
    return run


@live
def of_this_process(bench: Bench) -> FlowRun:
    """Its lease is over, as after a suspension, but its process is there."""
    run = bench.run_in(Running())
    bench.on_record(run, new_process_identity(), lease_s=-60)
    return run


@live
def paused_for_a_top_up(bench: Bench) -> FlowRun:
    """Its process waits for money."""
    return _recorded(bench, new_process_identity(), Paused(timeout_seconds=9999))


@live
def of_another_host(bench: Bench) -> FlowRun:
    """It renews its lease in the same ledger, and reports to another server."""
    return _recorded(bench, ELSEWHERE, Running())


@live
def plain_flow(bench: Bench) -> FlowRun:
    """Not of tierwise: no pool of ours, nothing in the ledger."""
    return bench.run_in(Running(), deployed=False)


@live
def plain_flow_pending(bench: Bench) -> FlowRun:
    """Such as one whose container is being fetched."""
    return bench.run_in(Pending(), deployed=False)


@live
def not_on_record_yet(bench: Bench) -> FlowRun:
    """Its flow is still being imported."""
    run = bench.run_in(Running())
    bench.by_worker(run, name_of_place(), os.getpid())
    return run


@live
def begun_again(bench: Bench) -> FlowRun:
    """An earlier process died with it; the present one is not on record yet."""
    run = _recorded(bench, dead_process()[0], Running())
    bench.client.set_flow_run_state(run.id, Running(), force=True)
    bench.by_worker(run, name_of_place(), os.getpid())
    return run


@live
def suspended_on_purpose(bench: Bench) -> FlowRun:
    """A flow that Prefect's `suspend_flow_run` ended, to go on in another process."""
    suspended = Paused(reschedule=True, timeout_seconds=9999)
    return _recorded(bench, dead_process()[0], suspended)


def test_live_runs_are_never_ended(bench: Bench) -> None:
    """However long no heartbeat comes."""
    bench.client.update_deployment(
        bench.deployment_id, DeploymentUpdate(concurrency_limit=len(LIVE))
    )
    runs = {kind: make(bench) for kind, make in LIVE.items()}
    before = {kind: bench.state_of(run).id for kind, run in runs.items()}
    assert bench.look(seconds=200) == []
    assert {kind: bench.state_of(run).id for kind, run in runs.items()} == before


def test_a_run_that_died_before_its_first_record_ends_when_it_stays_silent(
    bench: Bench,
) -> None:
    """The worker's name says on which machine its process had this number."""
    run = bench.run_in(Running())
    bench.by_worker(run, name_of_place(), dead_process()[1])
    assert bench.look(seconds=50) == []
    [line] = bench.look(seconds=10)
    assert "died" in line
    assert bench.slots() == 0


def test_a_number_that_another_process_has_by_now_is_no_life(bench: Bench) -> None:
    """After a reboot of a container, numbers come back at once."""
    run = bench.run_in(Running())
    host, _, digest = name_of_place().rpartition("-")
    bench.by_worker(run, f"{host}-{digest[::-1]}", os.getpid())
    [line] = bench.look(seconds=60)
    assert "Crashed" in line
    run = bench.run_in(Running())
    owner = new_process_identity()
    bench.on_record(run, f"{owner.rpartition(' ')[0]} 1")
    [line] = bench.look()
    assert "Crashed" in line


def test_a_subflow_ends_with_its_parent(bench: Bench) -> None:
    parent = _recorded(bench, dead_process()[0], Running())
    task = {
        "flow_run_id": str(parent.id),
        "task_key": "t",
        "dynamic_key": "0",
        "state": {"type": "RUNNING"},
    }
    task_id = bench.client.request("POST", "/task_runs/", json=task).json()["id"]
    body = {
        "flow_id": str(bench.flow_id),
        "parent_task_run_id": task_id,
        "state": {"type": "RUNNING"},
    }
    child_id = bench.client.request("POST", "/flow_runs/", json=body).json()["id"]
    bench.look()
    child = bench.client.read_flow_run(UUID(child_id))
    assert bench.state_of(child).is_crashed()
