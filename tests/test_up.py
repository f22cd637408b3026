"""`tierwise up` on one machine, for real: a server, a worker, deployments by schedule and by API, and `down`.

Takes a minute or two, so it runs with `make server-test` and not with `make test`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.projects import ROOT, make_project, model
from tests.standin import Standin, unused_address
from tierwise.services import worker_of

pytestmark = [
    pytest.mark.skipif("TIERWISE_SERVER_TEST" not in os.environ, reason="make server-test runs it"),
    pytest.mark.timeout(400),
]
PATIENCE_S = 180


@dataclass
class House:
    """A project with everything up, its provider and its server's API."""

    root: Path
    provider: Standin
    port: str
    first: str  # what the first `up` printed

    def tierwise(self, *arguments: str) -> str:
        """Run a command as a user would; gives what it printed."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        command = [sys.executable, "-m", "tierwise", *arguments]
        done = subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the server's API."""
        reply = httpx.post(f"http://127.0.0.1:{self.port}/api{path}", json=body, timeout=30)
        reply.raise_for_status()
        return reply.json()

    def run_in(self, state: str, flow: str) -> dict[str, Any]:
        """The first run of a flow that is in this state; waits for one."""
        wanted = {"flow_runs": {"state": {"name": {"any_": [state]}}}, "flows": {"name": {"any_": [flow]}}}
        deadline = time.monotonic() + PATIENCE_S
        while not (found := self.post("/flow_runs/filter", wanted)):
            assert time.monotonic() < deadline, self.post("/flow_runs/filter", {})
            time.sleep(1)
        return dict(found[0])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Standin() as provider:
        root = make_project(
            tmp_path_factory.mktemp("p") / "p", model("small", provider.url), model("large", provider.url)
        )
        often = (
            (ROOT / "prefect.yaml")
            .read_text()
            .replace('cron: "*/15 * * * *", timezone: UTC, active: false', "interval: 15")
        )
        assert "interval: 15" in often
        (root / "prefect.yaml").write_text(often)
        for folder, text in (("inbox", "My desk has not arrived."), ("contracts", "This contract binds A and B.")):
            (root / "examples" / folder).mkdir(parents=True)
            (root / "examples" / folder / "a.txt").write_text(text)
        (root / "examples/inbox/<b>[x](y).txt").write_text("")
        house = House(root, provider, unused_address().rpartition(":")[2], "")
        try:
            house.first = house.tierwise("up", "--port", house.port)
            yield house
        finally:
            house.tierwise("down", "--now")


def test_a_schedule_runs_the_flow_and_shows_what_waits(house: House) -> None:
    """The run ends in a state of its own, and its page says what waits and what to do."""
    assert "deployments: contract-intake/contract-intake, support-inbox/support-inbox" in house.first
    run = house.run_in("NeedsAttention", "support-inbox")
    assert run["state_type"] == "COMPLETED"
    assert "auto-scheduled" in run["tags"]
    this = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    artifacts = {found["key"] or found["description"]: found["data"] for found in house.post("/artifacts/filter", this)}
    assert {"support-inbox-summary", "support-inbox-attention"} <= artifacts.keys()
    assert "`<b>[x](y).txt` in `read`: `the file is empty`" in artifacts["support-inbox-attention"]
    assert artifacts["classify, share of documents"] == 100
    logs = [line["message"] for line in house.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})]
    assert "2 documents are new, 0 were done before" in logs
    tags = {task["name"]: task["tags"] for task in house.post("/task_runs/filter", this)}
    assert tags["classify · documents 1-2 of 2"] == ["tier:local"]


def test_the_next_scheduled_run_finds_nothing_new_and_pays_nothing(house: House) -> None:
    house.run_in("NeedsAttention", "support-inbox")
    calls = house.provider.count
    run = house.run_in("NothingNew", "support-inbox")
    assert run["state"]["message"] == "nothing new: 2 documents were done before"
    assert house.provider.count == calls


def test_the_api_runs_a_deployment_with_parameters_and_a_fault_is_one_line(house: House) -> None:
    found = house.post("/deployments/filter", {"deployments": {"name": {"any_": ["contract-intake"]}}})
    where = f"/deployments/{found[0]['id']}/create_flow_run"
    house.post(where, {"parameters": {"source": "examples/contracts", "budget_usd": 2}})
    house.post(where, {"parameters": {"source": "no/such"}})
    run = house.run_in("Failed", "contract-intake")
    assert "there is no such file or folder" in run["state"]["message"]
    logs = [line["message"] for line in house.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})]
    assert not any("Traceback" in line for line in logs)
    ended = [house.post("/flow_runs/filter", {"flows": {"name": {"any_": ["contract-intake"]}}})]
    assert ended


def test_runs_from_the_command_line_go_to_the_same_server(house: House) -> None:
    printed = house.tierwise("run", "support_inbox")
    assert f"http://127.0.0.1:{house.port}/runs/flow-run/" in printed


def test_a_second_up_mends_what_died_and_leaves_the_rest(house: House) -> None:
    pid = worker_of(house.root).pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    while worker_of(house.root).pid():
        time.sleep(0.1)
    printed = house.tierwise("up")
    assert f"server: runs already at http://127.0.0.1:{house.port}" in printed
    assert "worker: started" in printed


def test_down_ends_all_of_it(house: House) -> None:
    assert "server: ended" in house.tierwise("down", "--now")
    assert house.tierwise("down") == "nothing runs\n"
