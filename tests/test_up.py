"""`tierwise up` on one machine, for real: a server, a worker, deployments by schedule and by API, and `down`.

Takes some minutes, so it runs with `make server-test` and not with `make test`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.projects import ROOT, make_project, model
from tests.kit.standin import Standin, unused_address
from tierwise.orchestrate.api_password import read_password
from tierwise.orchestrate.services import (
    desk_address,
    desk_of,
    server_of,
    supervisor_of,
    worker_of,
)

pytestmark = [
    pytest.mark.skipif(
        "TIERWISE_SERVER_TEST" not in os.environ, reason="make server-test runs it"
    ),
    pytest.mark.timeout(400),
]
PATIENCE_S = 180
LOST_AFTER_S = 95
TAKEN = """
  - name: taken
    entrypoint: flows/contract_intake.py:contract_intake
    work_pool: *process
    parameters: {source: examples/contracts, out: out/taken}
"""
# Ctrl-C reaches it even if the tests themselves run in the background.
AT_A_TERMINAL = """
import signal
from tierwise.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
SLOW = ("slow-1", "slow-2")  # folders of contracts

NOBODY = "http://127.0.0.1:9/"  # no server is there


@dataclass
class House:
    """A project with everything up, its provider and its server's API."""

    root: Path
    provider: Standin
    port: str
    first: str = ""  # what the first `up` printed
    taken: dict[str, Any] = field(default_factory=dict)  # a run that its worker lost
    since: float = 0  # when that was

    def started(self, *arguments: str) -> subprocess.Popen[str]:
        """A command as a user would start it, in a process of its own."""
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PREFECT_")
        }
        env["HOOK"] = NOBODY
        command = [sys.executable, "-c", AT_A_TERMINAL, *arguments]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tierwise(self, *arguments: str) -> str:
        """Run a command; gives what it printed."""
        process = self.started(*arguments)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return out

    @property
    def auth(self) -> tuple[str, str]:
        """The name and the password that the server's API takes."""
        name, _, password = str(read_password(self.root)).partition(":")
        return name, password

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the server's API, as Prefect does: again while its database is busy."""
        url = f"http://127.0.0.1:{self.port}/api{path}"
        while (
            reply := httpx.post(url, json=body, auth=self.auth, timeout=30)
        ).status_code == httpx.codes.SERVICE_UNAVAILABLE:
            time.sleep(0.5)
        return reply.raise_for_status().json() if reply.content else None

    def get(self, path: str) -> Any:
        """Read from the server's API."""
        return (
            httpx.get(
                f"http://127.0.0.1:{self.port}/api{path}", auth=self.auth, timeout=30
            )
            .raise_for_status()
            .json()
        )

    def run_in(self, state: str, flow: str) -> dict[str, Any]:
        """The first run of a flow that is in this state; waits for one."""
        wanted = {
            "flow_runs": {"state": {"name": {"any_": [state]}}},
            "flows": {"name": {"any_": [flow]}},
        }
        self.wait(lambda: self.post("/flow_runs/filter", wanted))
        return dict(self.post("/flow_runs/filter", wanted)[0])

    def wait(self, ready: Callable[[], object]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert time.monotonic() < deadline, self.post("/flow_runs/filter", {})
            time.sleep(0.5)

    def log_of(self, run: dict[str, Any]) -> list[str]:
        """The log of a run that has ended; Prefect sends its last lines after its state."""
        of_run = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}

        def lines() -> list[str]:
            return [line["message"] for line in self.post("/logs/filter", of_run)]

        self.wait(lambda: any("Finished in state" in line for line in lines()))
        return lines()

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment as the server has it."""
        return dict(
            self.post(
                "/deployments/filter", {"deployments": {"name": {"any_": [name]}}}
            )[0]
        )

    def slow_run(self, source: str) -> dict[str, Any]:
        """A run of a deployment whose calls take long; gives it as soon as the provider was asked."""
        self.provider.latency_s = 5
        before = self.provider.count
        where = (
            f"/deployments/{self.deployment('contract-intake')['id']}/create_flow_run"
        )
        run: dict[str, Any] = self.post(
            where, {"parameters": {"source": source, "out": f"out/{source}"}}
        )
        self.wait(lambda: self.provider.count > before)
        return run

    def take(self, deployment: str) -> None:
        """A run that a worker took and never begins, as if it had died at that moment."""
        tomorrow = {
            "type": "SCHEDULED",
            "state_details": {"scheduled_time": "2999-01-01T00:00:00Z"},
        }
        run = self.post(
            f"/deployments/{self.deployment(deployment)['id']}/create_flow_run",
            {"state": tomorrow},
        )
        taken = {"state": {"type": "PENDING", "name": "Submitting"}, "force": True}
        self.post(f"/flow_runs/{run['id']}/set_state", taken)
        self.taken, self.since = run, time.monotonic()

    def services(self) -> list[int | None]:
        """The processes of the server, the worker and the desk."""
        services = (server_of(self.root), worker_of(self.root), desk_of(self.root))
        return [service.pid() for service in services]

    def newest(self, source: str) -> dict[str, Any]:
        """What the ledger says of the newest run over a source."""
        runs = json.loads(self.tierwise("runs", "--json"))
        return next(
            (dict(run) for run in runs if run["parameters"].get("source") == source), {}
        )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Standin() as provider:
        few = "    concurrency: 2\n"
        root = make_project(
            tmp_path_factory.mktemp("p") / "p",
            model("small", provider.url) + few,
            model("large", provider.url) + few,
        )
        often = (
            (ROOT / "prefect.yaml")
            .read_text()
            .replace(
                'cron: "*/15 * * * *", timezone: UTC, active: false', "interval: 15"
            )
        )
        assert "interval: 15" in often
        (root / "prefect.yaml").write_text(often + TAKEN)
        # With alerts, `up` needs Prefect before it knows where its server will be.
        alerts = '[tool.tierwise.alerts]\nwebhook = "HOOK"\non = ["worker"]\n'
        (root / "pyproject.toml").write_text(alerts)
        for folder, text in (
            ("inbox", "My desk has not arrived."),
            ("contracts", "This contract binds A and B."),
        ):
            (root / "examples" / folder).mkdir(parents=True)
            (root / "examples" / folder / "a.txt").write_text(text)
        (root / "examples/inbox/<b>[x](y).txt").write_text("")
        for folder in SLOW:
            (root / folder).mkdir()
            for number in range(12):
                (root / folder / f"{number}.txt").write_text(
                    f"This contract, number {number} of {folder}, binds."
                )
        house = House(root, provider, unused_address().rpartition(":")[2])
        try:
            house.first = house.tierwise("up", "--port", house.port)
            house.take("taken")
            yield house
        finally:
            house.tierwise("down", "--now")


def test_a_schedule_runs_the_flow_and_shows_what_waits(house: House) -> None:
    """The run ends in a state of its own, and its page says what waits and what to do."""
    for name in ("contract-intake", "support-inbox"):
        assert f"{name}/{name}" in house.first
    assert "alerts: to webhook ($HOOK), on worker" in house.first
    run = house.run_in("NeedsAttention", "support-inbox")
    assert run["state_type"] == "COMPLETED"
    assert "auto-scheduled" in run["tags"]
    this = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    artifacts = {
        found["key"] or found["description"]: found["data"]
        for found in house.post("/artifacts/filter", this)
    }
    assert {"support-inbox-summary", "support-inbox-attention"} <= artifacts.keys()
    assert (
        "`<b>[x](y).txt` in `read`: `the file is empty`"
        in artifacts["support-inbox-attention"]
    )
    assert artifacts["classify, share of documents"] == 100
    logs = house.log_of(run)
    assert "2 documents are new, 0 were done before" in logs
    tags = {
        task["name"]: task["tags"] for task in house.post("/task_runs/filter", this)
    }
    assert tags["classify · documents 1-2 of 2"] == ["tier:local"]


def test_the_next_scheduled_run_finds_nothing_new_and_pays_nothing(
    house: House,
) -> None:
    house.run_in("NeedsAttention", "support-inbox")
    calls = house.provider.count
    run = house.run_in("NothingNew", "support-inbox")
    message = run["state"]["message"]
    assert message == "nothing new in examples/inbox: 2 documents were done before"
    assert house.provider.count == calls


def test_the_api_runs_a_deployment_with_parameters_and_a_fault_is_one_line(
    house: House,
) -> None:
    where = f"/deployments/{house.deployment('contract-intake')['id']}/create_flow_run"
    house.post(where, {"parameters": {"source": "examples/contracts", "budget_usd": 2}})
    house.post(where, {"parameters": {"source": "no/such"}})
    run = house.run_in("Failed", "contract-intake")
    assert "there is no such file or folder" in run["state"]["message"]
    logs = house.log_of(run)
    assert not any("Traceback" in line for line in logs)
    ended = [
        house.post(
            "/flow_runs/filter", {"flows": {"name": {"any_": ["contract-intake"]}}}
        )
    ]
    assert ended


def test_runs_from_the_command_line_go_to_the_same_server(house: House) -> None:
    printed = house.tierwise("run", "support_inbox")
    assert f"http://127.0.0.1:{house.port}/runs/flow-run/" in printed


def test_the_desk_is_up_starts_again_and_is_linked_with_the_runs(house: House) -> None:
    """A run's page in Prefect has a link to its page at the desk, which links back."""
    url = desk_address(house.root)
    assert url
    assert f"Desk: {url}/enter?token=" in house.first

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    house.wait(answers)
    house.tierwise("run", "support_inbox")
    links = house.post(
        "/artifacts/filter", {"artifacts": {"key": {"any_": ["support-inbox-desk"]}}}
    )
    run = json.loads(house.tierwise("runs", "--json"))[0]
    assert f"{url}/runs/{run['id']}" in str(links)
    pid = desk_of(house.root).pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    house.wait(lambda: desk_of(house.root).pid() not in (None, pid))
    house.wait(answers)
    log = desk_of(house.root).log.read_text()
    assert "token" not in log


def test_a_second_up_mends_what_died_and_leaves_the_rest(house: House) -> None:
    """The worker is there again, and so is the run that it took when it died."""
    supervisor = supervisor_of(house.root)
    pids = [supervisor.pid(), worker_of(house.root).pid()]
    # The supervisor first, which would be faster than `up`.
    for pid in pids:
        assert pid
        os.kill(pid, signal.SIGKILL)
    house.wait(lambda: worker_of(house.root).pid() is None)
    house.wait(lambda: time.monotonic() - house.since > LOST_AFTER_S)
    printed = house.tierwise("up")
    assert f"server: runs already at http://127.0.0.1:{house.port}" in printed
    assert "worker: started again" in printed
    said = printed + supervisor.log.read_text()
    assert (
        f"rescheduled, as a worker died before it began them: {house.taken['name']}"
        in said
    )
    house.wait(
        lambda: (
            house.get(f"/flow_runs/{house.taken['id']}")["state"]["type"] == "COMPLETED"
        )
    )


def test_ctrl_c_while_down_waits_for_a_run_leaves_everything_running(
    house: House,
) -> None:
    """Server, worker, the run, and what starts runs."""
    before = house.services()
    house.post(
        f"/deployments/{house.deployment('support-inbox')['id']}/pause_deployment", {}
    )
    run = house.slow_run("slow-1")
    down = house.started("down")
    assert down.stderr
    for line in down.stderr:
        if run["name"] in line:
            break
    down.send_signal(signal.SIGINT)
    _, rest = down.communicate()
    assert down.returncode != 0, rest
    assert "everything still runs" in rest
    assert house.services() == before
    assert house.get("/work_pools/tierwise")["is_paused"] is False
    assert house.get(f"/flow_runs/{run['id']}")["state"]["type"] == "RUNNING"


def test_down_waits_for_the_run_and_for_the_server_to_record_all_of_it(
    house: House,
) -> None:
    """Started again, the server has every task run as ended, and the schedule that was paused is paused."""
    [run] = house.post(
        "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    )
    down = house.started("down")
    assert down.stderr
    assert any(f"waiting for the run {run['name']}" in line for line in down.stderr)
    house.provider.latency_s = 0
    out, err = down.communicate()
    assert down.returncode == 0, err
    assert "worker: ended" in out
    assert "server: ended" in out
    assert house.services() == [None, None, None]
    assert house.newest("slow-1")["state"] == "completed"
    house.tierwise("up", "--port", house.port)
    assert house.get(f"/flow_runs/{run['id']}")["state"]["type"] == "COMPLETED"
    tasks = house.post(
        "/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}}
    )
    assert [task["state"]["type"] for task in tasks] == ["COMPLETED"] * 3
    assert house.deployment("support-inbox")["paused"] is True


def test_down_now_cancels_the_run_and_what_it_paid_is_on_record(house: House) -> None:
    """All but the calls that were under way; nothing is left running."""
    before = house.provider.count
    run = house.slow_run("slow-2")
    house.wait(lambda: house.newest("slow-2").get("attempts"))
    down = house.started("down", "--now")
    out, err = down.communicate()
    assert down.returncode == 0, err
    assert f"cancelling the run {run['name']}" in err
    assert "server: ended" in out
    assert house.services() == [None, None, None]
    made, ended = house.provider.count - before, house.newest("slow-2")
    assert ended["state"] == "cancelled"
    assert made - 4 <= ended["attempts"] <= made, (
        "two calls at once to each of two models"
    )
    assert float(ended["cost"]) > 0
    assert house.tierwise("down") == "nothing runs\n"
