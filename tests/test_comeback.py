"""Server, worker and flow killed at once, for real: the schedule goes on, live runs are not ended.

Takes some minutes, so it runs with `make server-test` and not with `make test`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.projects import ROOT, make_project, model
from tests.kit.standin import Standin, unused_address
from tests.test_up import House
from tierwise.ledger import Ledger
from tierwise.orchestrate.services import server_of, supervisor_of, worker_of

pytestmark = [
    pytest.mark.skipif(
        "TIERWISE_SERVER_TEST" not in os.environ, reason="make server-test runs it"
    ),
    pytest.mark.timeout(600),
]
LONG = """
  - name: long
    entrypoint: flows/contract_intake.py:contract_intake
    work_pool: *process
    concurrency_limit: *one_at_a_time
    parameters: {source: long, out: out/long}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Standin() as provider:
        root = make_project(
            tmp_path_factory.mktemp("p") / "p",
            *(patient(model(name, provider.url)) for name in ("small", "large")),
        )
        often = (
            (ROOT / "prefect.yaml")
            .read_text()
            .replace(
                'cron: "*/15 * * * *", timezone: UTC, active: false', "interval: 60"
            )
        )
        (root / "prefect.yaml").write_text(often + LONG)
        for folder in ("examples/inbox", "long"):
            (root / folder).mkdir(parents=True)
            (root / folder / "a.txt").write_text(f"The first of {folder}: it binds.")
        house = House(root, provider, unused_address().rpartition(":")[2])
        try:
            yield house
        finally:
            provider.latency_s = 0
            house.tierwise("down", "--now")


def patient(entry: str) -> str:
    """A model whose calls may take as long as this test."""
    assert "timeout_s: 20" in entry
    return entry.replace("timeout_s: 20", "timeout_s: 3600")


def processes_of(house: House, run: dict[str, Any]) -> list[int]:
    """The processes on record for a flow run."""
    with Ledger.open(None, root=house.root) as ledger:
        found = ledger.runs.processes([run["id"]])
    return [int(process.process.split()[1]) for process in found]


def kill(pid: int | None) -> None:
    """End a process at once, as a power cut does."""
    assert pid
    os.kill(pid, signal.SIGKILL)


def slots(house: House, name: str) -> int:
    """How many slots of a deployment are taken."""
    return int(house.deployment(name)["global_concurrency_limit"]["active_slots"])


def test_after_a_kill_of_all_the_schedule_goes_on_and_a_live_run_stays(
    house: House,
) -> None:
    """Of a deployment with one slot; the other run loses its server and its worker, too."""
    house.provider.latency_s = 3600  # until it is set to 0
    house.tierwise("up", "--port", house.port)
    where = f"/deployments/{house.deployment('long')['id']}/create_flow_run"
    live = house.post(where, {})
    victim = house.run_in("Running", "support-inbox")
    house.wait(lambda: processes_of(house, live) and processes_of(house, victim))
    house.wait(lambda: house.provider.count >= 2)
    [victims] = processes_of(house, victim)
    [living] = processes_of(house, live)
    assert slots(house, "support-inbox") == 1
    for service in (supervisor_of, worker_of, server_of):
        kill(service(house.root).pid())
    kill(victims)
    house.wait(lambda: house.services() == [None, None])

    printed = house.tierwise("up")
    assert (
        f"server: had died, started again at http://127.0.0.1:{house.port}" in printed
    )
    assert "worker: started again on the work pool tierwise, as it had died" in printed
    assert f"Crashed: the run {victim['name']}: process {victims} on " in printed
    assert live["name"] not in printed
    ended = house.get(f"/flow_runs/{victim['id']}")["state"]
    assert ended["type"] == "CRASHED"
    assert "killed, crashed, or its machine restarted" in ended["message"]
    next_run = house.run_in("Running", "support-inbox")
    assert next_run["id"] != victim["id"]

    # Its lease outlived the server, so Prefect's engine does not end it when it renews the lease.
    state = house.get(f"/flow_runs/{live['id']}")["state"]
    assert state["type"] == "RUNNING"
    lease = state["state_details"]["deployment_concurrency_lease_id"]
    house.post(f"/v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 300})
    os.kill(living, 0)
    assert slots(house, "long") == 1


def test_the_supervisor_starts_a_dead_server_again_at_its_address(house: House) -> None:
    """Nobody types anything."""
    before = server_of(house.root).pid()
    kill(before)
    house.wait(lambda: server_of(house.root).pid() not in (before, None))
    house.wait(lambda: answers(house))


def answers(house: House) -> bool:
    """Whether the server is there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(house.port))) == 0


def test_a_port_that_another_program_took_is_named_and_runs_hold_to_theirs(
    house: House,
) -> None:
    """Never another port, which the worker and the live run would not know."""
    kill(supervisor_of(house.root).pid())
    kill(server_of(house.root).pid())
    house.wait(lambda: server_of(house.root).pid() is None and not answers(house))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(house.port)))
        other.listen()
        process = house.started("up")
        _, err = process.communicate()
    assert process.returncode == 2
    assert f"port {house.port} is taken by " in err
    assert f"(process {os.getpid()})" in err
    assert "tierwise up --port" in err

    elsewhere = unused_address().rpartition(":")[2]
    process = house.started("up", "--port", elsewhere)
    _, err = process.communicate()
    assert process.returncode == 2
    assert f"that report to http://127.0.0.1:{house.port} are under way" in err
    assert house.newest("long")["id"] in err
    assert server_of(house.root).pid() is None


def test_a_second_up_says_what_runs_and_what_had_died(house: House) -> None:
    worker = worker_of(house.root).pid()
    printed = house.tierwise("up")
    assert "server: had died, started again" in printed
    assert "worker: runs already" in printed
    assert worker_of(house.root).pid() == worker
    kill(supervisor_of(house.root).pid())
    kill(worker)
    house.wait(lambda: worker_of(house.root).pid() is None)
    printed = house.tierwise("up")
    assert f"server: runs already at http://127.0.0.1:{house.port}" in printed
    assert "worker: started again" in printed
    assert supervisor_of(house.root).pid()


def test_the_live_run_ends_as_any_other_does(house: House) -> None:
    """Its server was killed again and again, and came back at the address that it reports to."""
    house.provider.latency_s = 0
    [run] = [
        run
        for run in house.post("/flow_runs/filter", {})
        if run["parameters"].get("source") == "long"
    ]
    house.wait(lambda: house.newest("long").get("state") == "completed")
    house.wait(
        lambda: house.get(f"/flow_runs/{run['id']}")["state"]["type"] == "COMPLETED"
    )


def test_a_new_port_brings_a_new_worker(house: House) -> None:
    """The one before would poll an address at which nothing is any more.

    By force, as a run of the schedule may be under way.
    """
    kill(supervisor_of(house.root).pid())
    kill(server_of(house.root).pid())
    house.wait(lambda: server_of(house.root).pid() is None)
    worker = worker_of(house.root).pid()
    house.port = unused_address().rpartition(":")[2]
    printed = house.tierwise("up", "--port", house.port, "--force")
    assert "the one before was for another address or password of the server" in printed
    assert worker_of(house.root).pid() not in (worker, None)


def test_in_the_foreground_both_run_as_units_of_systemd_would(house: House) -> None:
    """`down` leaves them to systemd; the next run of the schedule is done."""
    house.tierwise("down", "--now")
    server = house.started("up", "--foreground", "server", "--port", house.port)
    worker = house.started("up", "--foreground", "worker")
    try:
        house.wait(lambda: worker_of(house.root).pid() == worker.pid)
        assert server_of(house.root).pid() == server.pid
        seen = {run["id"] for run in house.post("/flow_runs/filter", {})}
        house.wait(
            lambda: any(
                run["state_type"] == "COMPLETED" and run["id"] not in seen
                for run in house.post("/flow_runs/filter", {})
            )
        )
        down = house.started("down")
        _, err = down.communicate()
        assert down.returncode == 2
        assert "systemctl" in err
        again = house.started("up", "--foreground", "worker")
        _, err = again.communicate()
        assert again.returncode == 2
        assert f"the worker runs already (process {worker.pid})" in err
    finally:
        for process in (worker, server):
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
