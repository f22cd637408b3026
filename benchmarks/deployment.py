"""A large run through a deployment: what it takes, and whether Prefect's server still answers meanwhile.

    python -m benchmarks.deployment
    python -m benchmarks.deployment --documents 500

`tierwise up` starts a server and a worker in a folder of its own, and Prefect's API starts the flow support_inbox
(three steps) over one file of messages. Its one model is a stand-in in a process of its own. Each second, what the UI
asks for a flow run's page is asked and timed. At the end, when the server has written down all that it was told, the
task runs that it has are held against those that there were.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx

from benchmarks.gateway import serving
from benchmarks.overhead import MODEL, RULES
from tests.kit.projects import make_project
from tests.kit.standin import unused_address
from tierwise.orchestrate.api_password import read_password
from tierwise.orchestrate.services import server_of, worker_of

BATCH = 50
STEPS = 3
IN_FLIGHT = 32
SETTLED_S = 20.0  # the number of ended task runs has to stand still so long
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
DEPLOYMENT = """
name: bench
deployments:
  - name: support-inbox
    entrypoint: flows/support_inbox.py:support_inbox
    work_pool: {name: tierwise}
    parameters: {source: inbox.jsonl, sensitivity: internal, budget_usd: 1000, out: out}
"""
OPENINGS = (
    "The parcel with my desk has not arrived.",
    "The invoice is still open.",
    "How is the shelf put up?",
)
REST = (
    "I have written to you twice about it, and nobody has answered so far. Please tell me what happens next. "
    * 4
)


@dataclass
class Place:
    """A project that is up, and how its server answered so far."""

    root: Path
    url: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request to the server's API. Raises HTTPError."""
        name, _, password = str(read_password(self.root)).partition(":")
        reply = httpx.request(
            method,
            f"{self.url}/api{path}",
            json=body,
            auth=(name, password),
            timeout=60,
        )
        return reply.raise_for_status().json()

    def insist(self, method: str, path: str, body: Any = None) -> Any:
        """The same, again and again while the server's database is busy, as Prefect's own client does."""
        while True:
            try:
                return self.ask(method, path, body)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    raise
                time.sleep(1)

    def sample(self, run_id: str) -> None:
        """Ask once for everything that a flow run's page shows, and note how long each took."""
        this = {"flow_runs": {"id": {"any_": [run_id]}}}
        asked: dict[str, Callable[[], Any]] = {
            "health": lambda: self.ask("GET", "/health"),
            "flow run": lambda: self.ask("GET", f"/flow_runs/{run_id}"),
            "timeline": lambda: self.ask("GET", f"/flow_runs/{run_id}/graph-v2"),
            "task runs": lambda: self.ask(
                "POST", "/task_runs/filter", {**this, "limit": 50}
            ),
            "log": lambda: self.ask(
                "POST",
                "/logs/filter",
                {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 100},
            ),
        }
        for name, request in asked.items():
            begun = time.perf_counter()
            try:
                request()
            except httpx.HTTPError:
                self.failed += 1
            self.seconds.setdefault(name, []).append(time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=10_000)
    number = parser.parse_args().documents
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load()}\n"
    )
    with tempfile.TemporaryDirectory() as folder, serving(0) as url:
        root = prepared(Path(folder) / "project", url, number)
        with up(root) as place:
            figures = measured(place, number)
    figures["load at the end"] = load()
    print("| measure | value |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value} |")


def prepared(root: Path, url: str, number: int) -> Path:
    """A project whose one model is the stand-in, and its messages."""
    make_project(
        root, MODEL.format(lane="lean", url=url, in_flight=IN_FLIGHT), rules=RULES
    )
    (root / "prefect.yaml").write_text(DEPLOYMENT)
    with (root / "inbox.jsonl").open("w") as out:
        for n in range(number):
            out.write(
                json.dumps(
                    {
                        "id": f"mail-{n:05}",
                        "text": f"{OPENINGS[n % 3]} Order {n}. {REST}",
                    }
                )
                + "\n"
            )
    return root


@contextmanager
def up(root: Path) -> Iterator[Place]:
    """The project's server and worker, while the block runs."""
    url = unused_address()
    tierwise(root, "up", "--port", url.rpartition(":")[2])
    try:
        yield Place(root, url)
    finally:
        tierwise(root, "down", "--now")


def tierwise(root: Path, *arguments: str) -> None:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_")
    }
    command = [sys.executable, "-m", "tierwise", *arguments]
    subprocess.run(command, cwd=root, env=env, check=True, stdout=sys.stderr)


def measured(place: Place, number: int) -> dict[str, str]:
    """Run the deployment once, and say what it took."""
    server = server_of(place.root).pid()
    worker = worker_of(place.root).pid()
    assert server
    assert worker
    before = (
        cpu_s(server),
        cpu_s(worker),
        children_cpu_s(worker),
        size(place.root, "prefect"),
        size(place.root, "ledger"),
    )
    [deployment] = place.insist("POST", "/deployments/filter", {})
    begun = time.perf_counter()
    run_id = place.insist(
        "POST", f"/deployments/{deployment['id']}/create_flow_run", {}
    )["id"]
    while (run := place.insist("GET", f"/flow_runs/{run_id}"))["state"][
        "type"
    ] not in ENDED:
        place.sample(run_id)
        time.sleep(1)
    ended = time.perf_counter() - begun
    at_once = recorded(place, run_id)
    drained = until_settled(place, run_id)
    [artifact] = place.insist(
        "POST",
        "/artifacts/filter",
        {"artifacts": {"key": {"any_": ["support-inbox-summary"]}}},
    )
    batches = -(-number // BATCH)
    return {
        "documents": f"{number:,}",
        "batches": f"{batches:,}",
        "state of the flow run": run["state"]["name"],
        "its summary": artifact["description"].partition(". ")[0],
        "seconds from the request to the end": f"{ended:.0f}",
        "seconds that the flow ran": f"{run['total_run_time']:.0f}",
        "documents a second": f"{number / run['total_run_time']:.0f}",
        "flow process, CPU seconds": f"{children_cpu_s(worker) - before[2]:.0f}",
        "server, CPU seconds": f"{cpu_s(server) - before[0]:.0f}",
        "worker, CPU seconds": f"{cpu_s(worker) - before[1]:.1f}",
        "server, most memory": f"{peak_mb(server):.0f} MB",
        "Prefect's database grew by": megabytes(
            size(place.root, "prefect") - before[3]
        ),
        "the ledger grew by": megabytes(size(place.root, "ledger") - before[4]),
        "task runs submitted": f"{batches * STEPS:,}",
        "recorded as Completed at the end of the run": f"{at_once:,}",
        f"recorded as Completed {drained:.0f} s later": f"{recorded(place, run_id):,}",
        "requests for the page": f"{sum(map(len, place.seconds.values())):,}, {place.failed} failed",
        **{
            f"{name}, p50 / p95 / most": spread(seconds)
            for name, seconds in place.seconds.items()
        },
    }


def recorded(place: Place, run_id: str) -> int:
    """How many task runs of the flow run the server has as Completed."""
    body = {
        "flow_runs": {"id": {"any_": [run_id]}},
        "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    return int(place.insist("POST", "/task_runs/count", body))


def until_settled(place: Place, run_id: str) -> float:
    """Seconds until the number of recorded task runs stood still."""
    begun = changed = time.perf_counter()
    seen = -1
    while time.perf_counter() - changed < SETTLED_S:
        if (now := recorded(place, run_id)) != seen:
            seen = now
            changed = time.perf_counter()
        time.sleep(1)
    return changed - begun


def cpu_s(pid: int) -> float:
    """CPU seconds that a process itself has taken."""
    return sum(_times(pid)[:2]) / os.sysconf("SC_CLK_TCK")


def children_cpu_s(pid: int) -> float:
    """CPU seconds that its children had taken when they ended."""
    return sum(_times(pid)[2:]) / os.sysconf("SC_CLK_TCK")


def _times(pid: int) -> list[int]:
    """Ticks: user, system, and those of ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(ticks) for ticks in fields[11:15]]


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return (
        int(
            next(
                line.split()[1]
                for line in status.splitlines()
                if line.startswith("VmHWM")
            )
        )
        / 1000
    )


def size(root: Path, name: str) -> int:
    """Bytes of a database, with what waits beside it."""
    return sum(path.stat().st_size for path in (root / ".tierwise").glob(f"{name}.db*"))


def megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB"


def spread(seconds: list[float]) -> str:
    """Milliseconds."""
    if len(seconds) < 2:
        return "too few"
    cuts = quantiles(seconds, n=20, method="inclusive")
    return (
        " / ".join(f"{1000 * value:.0f}" for value in (cuts[9], cuts[18], max(seconds)))
        + " ms"
    )


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
