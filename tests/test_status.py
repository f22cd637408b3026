"""`tierwise status` and `doctor`: what runs, what is late and why, and what needs a hand."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed, Pending, Running, Scheduled

from tests.kit.projects import make_project, model
from tests.kit.standin import Fault, Standin, status, unused_address
from tests.kit.terminal import Terminal
from tierwise.cli.render.status import print_status
from tierwise.ledger import Ledger, RunInfo
from tierwise.lint.job_variables import POOL
from tierwise.orchestrate.server_status import read_server_status, with_ledger
from tierwise.orchestrate.services import FOLDER, server_of
from tierwise.orchestrate.status import (
    SLOT,
    Deployment,
    LateRun,
    Pool,
    ProjectStatus,
    RunStatus,
    Server,
    ServiceStatus,
    WaitingFlow,
)
from tierwise.orchestrate.supervision import end_alone, start, want

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
URL = "http://127.0.0.1:4200/api"
NOW = time.time()
POOLS = (Pool(POOL, is_paused=False, workers=1),)
WELL = Deployment(
    name="inbox/inbox",
    pool=POOL,
    is_paused=False,
    has_schedule=True,
    is_scheduled=True,
    last=RunStatus("1", "calm-cat", "Completed", "COMPLETED", NOW),
)
LATE = (LateRun("late-lynx", "Late", NOW - 600),)
WAITS = (LateRun("late-lynx", SLOT, NOW - 600),)
HOLDER = RunStatus("2", "busy-bee", "Running", "RUNNING", NOW, sign="alive")
DEAD = replace(HOLDER, sign="dead")
FULL = Pool(POOL, is_paused=False, workers=1, is_full=True)


def problems(
    deployment: Deployment = WELL,
    pools: tuple[Pool, ...] = POOLS,
    waiting: tuple[WaitingFlow, ...] = (),
    services: tuple[ServiceStatus, ...] = (),
) -> list[tuple[str, str]]:
    """What needs a hand where a server answers."""
    server = Server(URL, is_own=True)
    status = ProjectStatus(services, server, pools, (deployment,), waiting)
    return [(problem.what, problem.remedy) for problem in status.problems()]


@pytest.mark.parametrize(
    ("deployment", "pools", "says"),
    [
        (replace(WELL, late=LATE), (Pool(POOL, True, 1),), "its work pool is paused"),
        (replace(WELL, late=LATE), (Pool(POOL, False, 0),), "no worker is online"),
        (replace(WELL, late=LATE, is_paused=True), POOLS, "the deployment is paused"),
        (replace(WELL, late=LATE), (FULL,), "the work pool has no free slot"),
        (replace(WELL, late=LATE), (), "its work pool does not exist"),
        (replace(WELL, late=LATE), POOLS, "a worker is online and has not taken it"),
        (replace(WELL, late=WAITS), POOLS, "no run has it"),
        (
            replace(WELL, late=WAITS, holders=(DEAD,)),
            POOLS,
            "held by busy-bee (Running",
        ),
        (replace(WELL, holders=(DEAD,)), POOLS, "the process of busy-bee is dead"),
        (
            replace(WELL, is_paused=True),
            POOLS,
            "paused, so its schedule starts nothing",
        ),
    ],
)
def test_what_is_late_is_said_with_its_cause(
    deployment: Deployment, pools: tuple[Pool, ...], says: str
) -> None:
    found = problems(deployment, pools)
    assert [remedy for what, remedy in found if says in what], found


def test_what_is_as_it_should_be_needs_no_hand() -> None:
    assert problems() == []
    # It waits for a run that is at work.
    assert problems(replace(WELL, late=WAITS, holders=(HOLDER,))) == []
    # Nobody wants a schedule, or a service, that was never switched on.
    assert problems(replace(WELL, is_scheduled=False, is_paused=True)) == []
    never = ServiceStatus("worker", None, None, is_wanted=False)
    assert problems(services=(never,)) == []


def test_ends_that_were_bad_dead_services_and_waiting_documents_need_a_hand() -> None:
    crashed = RunStatus("7", "calm-cat", "Crashed", "CRASHED", NOW)
    assert "ended Crashed" in problems(replace(WELL, last=crashed))[0][0]
    died = ServiceStatus("worker", None, None, is_wanted=True)
    assert problems(services=(died,)) == [("the worker died", "tierwise up")]
    waiting = (WaitingFlow("inbox", 3, 1, NOW),)
    review, retry = problems(waiting=waiting)
    assert review[0].startswith("inbox: 2 documents not decided")
    assert review[1] == "tierwise review"
    assert retry == (
        "inbox: 1 document decided, to be taken up by a run",
        "tierwise retry --all",
    )


@pytest.fixture
def no_server(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the tests' own server from Prefect's settings, as a project without one has them."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


def test_without_a_server_it_says_so_and_dead_services_are_named(
    tmp_path: Path, terminal: Terminal, no_server: None
) -> None:
    root = make_project(tmp_path / "p", model("small", "http://127.0.0.1:9"))
    (root / FOLDER).mkdir(parents=True)
    done = terminal("status", cwd=root)
    assert done.code == 1
    assert "no server runs, so nothing is scheduled" in done.out
    assert "-> tierwise up" in done.out
    want(root, {"server", "worker"})
    found = json.loads(terminal("status", "--json", cwd=root).out)
    assert {each["what"] for each in found["problems"]} >= {
        "no server runs, so nothing is scheduled",
        "the worker died",
        "the supervisor died",
    }
    doctor = terminal("doctor", "--json", cwd=root)
    services = [each for each in json.loads(doctor.out) if each["what"] == "services"]
    assert any("the worker died" in each["detail"] for each in services)
    assert doctor.code == 1


def test_a_server_that_hangs_is_said(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process lives, and nothing answers at its address."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    root = make_project(tmp_path / "p", model("small", "http://127.0.0.1:9"))
    service = server_of(root)
    start(service, SLEEPS, {}, root)
    (root / FOLDER / "server.url").write_text("http://127.0.0.1:9\n")
    try:
        found = json.loads(terminal("status", "--json", cwd=root).out)
    finally:
        end_alone(service)
    assert found["services"][0]["pid"]
    assert abs(found["services"][0]["since"] - time.time()) < 300
    says = "no Prefect server answers at http://127.0.0.1:9/api"
    assert says in [each["what"] for each in found["problems"]]


@pytest.fixture
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    assert prefect_server
    with get_client(sync_client=True) as opened:
        if not any(pool.name == POOL for pool in opened.read_work_pools()):
            opened.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        yield opened


def test_runs_of_a_real_server_are_read_with_their_documents(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    flow_id = client.create_flow_from_name("status-flow")
    name = f"status-{tmp_path.name}"
    made: list[UUID] = [
        client.create_deployment(flow_id, f"{name}-{number}", work_pool_name=POOL)
        for number in range(2)
    ]
    root = make_project(tmp_path / "p", model("small", "http://127.0.0.1:9"))

    def run(deployment: UUID, *states: object) -> FlowRun:
        created = client.create_flow_run_from_deployment(deployment)
        for state in states:
            client.set_flow_run_state(created.id, state, force=True)  # type: ignore[arg-type]
        return created

    def of(number: int) -> Deployment:
        deployments, _ = read_server_status()
        with Ledger.open(None, root=root) as ledger:
            known = with_ledger(deployments, ledger)
        full = f"status-flow/{name}-{number}"
        return next(each for each in known if each.name == full)

    try:
        assert of(0).last is None
        run(made[0], Pending(), Running(), Completed())
        last = run(made[0], Pending(), Running(), Failed())
        with Ledger.open(None, root=root) as ledger:
            info = RunInfo(
                id="run-1",
                flow="inbox",
                policy_hash="p",
                tierwise_version="0",
                started_at=time.time(),
                flow_run_id=str(last.id),
            )
            ledger.start_run(info)
        ended = of(0).last
        assert ended is not None
        assert (ended.name, ended.state, ended.documents) == (last.name, "Failed", 0)
        holder = run(made[1], Pending(), Running())
        hour_ago = client.read_flow_run(holder.id).created
        assert hour_ago
        waits = client.create_flow_run_from_deployment(
            made[1],
            state=Scheduled(scheduled_time=hour_ago.subtract(hours=1), name=SLOT),
        )
        coming = client.create_flow_run_from_deployment(
            made[1], state=Scheduled(scheduled_time=hour_ago.add(hours=1))
        )
        assert coming.expected_start_time
        busy = of(1)
        assert [each.name for each in busy.holders] == [holder.name]
        assert [(each.name, each.state) for each in busy.late] == [(waits.name, SLOT)]
        assert busy.next_at == coming.expected_start_time.timestamp()
        _, pools = read_server_status()
        ours = next(pool for pool in pools if pool.name == POOL)
        assert (ours.is_paused, ours.workers) == (False, 0)
    finally:
        for deployment in made:
            client.delete_deployment(deployment)


def test_each_models_server_is_asked_for_its_key_and_its_name(
    tmp_path: Path, terminal: Terminal, standin: Standin
) -> None:
    """By free requests where there are any; each fault is one line with its remedy."""
    dead = model("large", unused_address())
    misspelt = model("smal", standin.url)
    root = make_project(tmp_path / "p", model("small", standin.url), misspelt, dead)
    standin.serves = ["small", "large"]

    def asked() -> dict[str, tuple[bool, str]]:
        done = terminal("doctor", "--ask", "--json", cwd=root)
        found = {each["what"]: each for each in json.loads(done.out)}
        names = ("small", "smal", "large")
        rows = {name: found[f"ask {name}"] for name in names}
        return {name: (row["ok"], row["detail"]) for name, row in rows.items()}

    found = asked()
    assert found["small"][0] is True
    assert found["smal"][0] is False
    assert "did you mean 'small'?" in found["smal"][1]
    assert found["large"][0] is False
    assert "connection refused" in found["large"][1]
    # Both that answer, in whichever order they are asked.
    standin.faults([status(401, "bad key")] * 2)
    assert "put the right key" in asked()["small"][1]
    standin.faults([status(402, "empty", code="insufficient_quota")] * 2)
    assert "top up" in asked()["small"][1]
    paths = {request.path.rpartition("/")[2] for request in standin.requests}
    assert paths == {"models"}


def test_a_server_without_a_list_of_models_is_asked_by_the_smallest_call(
    tmp_path: Path, terminal: Terminal, standin: Standin
) -> None:
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    root = make_project(tmp_path / "p", model("small", standin.url), rules=rules)
    no_list = status(404, "no such page")

    def asked(*faults: Fault) -> tuple[bool, str]:
        standin.faults([no_list, *faults])
        done = terminal("doctor", "--ask", "--json", cwd=root)
        found = {each["what"]: each for each in json.loads(done.out)}["ask small"]
        return found["ok"], found["detail"]

    ok, detail = asked()
    assert ok is True
    assert "which cost 0.0000" in detail
    [call] = [each for each in standin.requests if each.path.endswith("completions")]
    assert call.body["max_tokens"] == 16
    assert asked(status(401, "bad key"))[0] is False
    ok, detail = asked(status(404, "no model small"))
    assert ok is False
    assert "correct `model` in the catalog" in detail


def test_the_screen_has_the_desks_address(capsys: pytest.CaptureFixture[str]) -> None:
    desk = ServiceStatus("desk", 7, NOW, True, "http://127.0.0.1:4281")
    server = Server(URL, is_own=True)
    print_status(ProjectStatus((desk,), server, POOLS, (WELL,), ()))
    assert "http://127.0.0.1:4281" in capsys.readouterr().out
