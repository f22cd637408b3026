"""A project of `tierwise init` with its provider, its server and its worker, for one case of the bed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.kit.standin import unused_address
from tests.oncall.provider import CONTROL, Line, read_invoice
from tests.oncall.table import Row, ledger_money
from tierwise.orchestrate.api_password import read_password

DOCUMENTS = 400
STEPS = 2
AT_ONCE = 8
RIGHT_KEY = "right-key"
MARK = "TIERWISE_ONCALL"  # in the environment of everything that a case starts
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_EVERY_S = 30  # the schedule
_POLL_S = 0.5
_CASE_TAKES_AT_MOST_S = 900.0

_CATALOG = """
version: 1
tiers:
  proprietary: {{description: the bed's provider}}
models:
  cheap: &cheap
    tier: proprietary
    litellm_params: {{model: openai/cheap, api_base: "{url}/v1", api_key: "${{ONCALL_KEY}}"}}
    context_tokens: 8000
    max_output_tokens: 500
    concurrency: {at_once}
    strength: 50
    timeout_s: {timeout_s}
    price: {{input: 1, output: 2, source: the bed, date: 2026-11-01}}
"""
_RULES = """
version: 1
routes: [{name: default, try: [cheap]}]
"""


@dataclass
class Supplier:
    """The provider's process: what it is asked, and what it has on its invoice."""

    url: str
    invoice_file: Path
    process: subprocess.Popen[bytes]

    def order(self, **order: Any) -> None:
        """Order one fault; see `provider.Order`."""
        self._post({"orders": [order]})

    def set_latency(self, seconds: float) -> None:
        self._post({"latency_s": seconds})

    def garble(self, word: str) -> None:
        """Answer letters that begin with a word so that no check passes."""
        self._post({"garbled": word})

    def slow(self, word: str, seconds: float) -> None:
        """Let letters that begin with a word take longer."""
        self._post({"slow": [word, seconds]})

    def state(self) -> dict[str, Any]:
        return dict(httpx.get(self.url + CONTROL, timeout=30).raise_for_status().json())

    def billed(self) -> int:
        return int(self.state()["billed"])

    def arrived(self) -> int:
        return int(self.state()["arrived"])

    def invoice(self) -> list[Line]:
        return read_invoice(self.invoice_file)

    def _post(self, body: dict[str, Any]) -> None:
        httpx.post(self.url + CONTROL, json=body, timeout=30).raise_for_status()


@contextmanager
def supplier(
    folder: Path,
    *,
    latency_s: float = 0.2,
    key: str | None = None,
    names_at: str | None = None,
) -> Iterator[Supplier]:
    """A provider while the block runs; with `names_at` a name server too, and one call a connection."""
    url = unused_address()
    invoice = folder / "invoice.jsonl"
    command = [sys.executable, "-m", "tests.oncall.provider"]
    command += ["--port", url.rpartition(":")[2], "--invoice", str(invoice)]
    command += ["--latency-ms", str(latency_s * 1000)]
    if key:
        command += ["--key", key]
    if names_at:
        command += ["--names", names_at, "--close"]
    process = subprocess.Popen(command, cwd=_REPOSITORY)
    try:
        made = Supplier(url, invoice, process)
        until(lambda: _answers(made), 60, "the provider starts")
        yield made
    finally:
        process.terminate()
        process.wait(10)


_REPOSITORY = Path(__file__).parent.parent.parent


def _answers(made: Supplier) -> bool:
    with suppress(httpx.HTTPError):
        return bool(made.state())
    return False


@dataclass
class Bed:
    """One project, and what runs in it."""

    root: Path
    provider: Supplier
    env: dict[str, str]
    mark: str
    port: str = ""
    before: Sequence[str] = ()  # a command that starts the services, such as unshare
    begun: float = 0.0
    notes: list[str] = field(default_factory=list)

    # ---- commands

    def start(
        self, *arguments: str, before: Sequence[str] = (), **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a command in a session of its own."""
        command = [*before, sys.executable, "-m", "tierwise", *arguments]
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("start_new_session", True)
        return subprocess.Popen(command, cwd=self.root, env=self.env, **options)

    def tierwise(self, *arguments: str, before: Sequence[str] = ()) -> str:
        """Run a command to its end; give what it printed to stdout."""
        process = self.start(
            *arguments,
            before=before,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, f"tierwise {arguments}: {out}\n{err}"
        return str(out)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.tierwise(*arguments, "--json"))

    # ---- services

    @contextmanager
    def up(self, prefect_yaml: str) -> Iterator[None]:
        """Server, worker and deployments while the block runs; ends all that is left."""
        self.port = unused_address().rpartition(":")[2]
        (self.root / "prefect.yaml").write_text(prefect_yaml)
        try:
            self.tierwise("up", "--port", self.port, before=self.before)
            yield
        finally:
            with suppress(Exception):
                self.tierwise("down", "--now")
            self.kill_all()

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server's API; again while its database is busy."""
        url = f"http://127.0.0.1:{self.port}/api{path}"
        while True:
            reply = httpx.request(
                method, url, json=body, timeout=60, auth=self._password()
            )
            if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(_POLL_S)
        return reply.raise_for_status().json() if reply.content else None

    def _password(self) -> tuple[str, str]:
        """The name and the password that the server's API takes."""
        name, _, password = str(read_password(self.root)).partition(":")
        return name, password

    def deployment(self, name: str = "inbox") -> dict[str, Any]:
        wanted = {"deployments": {"name": {"any_": [name]}}}
        return dict(self.request("POST", "/deployments/filter", wanted)[0])

    def run_deployment(self, name: str = "inbox", **parameters: Any) -> str:
        """Start a run through the API, as the UI does; give its id."""
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        return str(self.request("POST", path, {"parameters": parameters})["id"])

    def start_deployment(self) -> str:
        """Start its run, from when on the case's time counts; give its id."""
        self.begun = time.time()
        return self.run_deployment()

    def resume_schedule(self) -> None:
        """Turn the deployment's schedule on, as a person does in the UI."""
        found = self.deployment()
        for schedule in found["schedules"]:
            path = f"/deployments/{found['id']}/schedules/{schedule['id']}"
            self.request("PATCH", path, {"active": True})

    def has_ended(self, run_id: str) -> bool:
        return self.state_of(run_id)["type"] in ENDED

    def is_waiting(self, run_id: str) -> bool:
        """Whether a run waits for its worker or for its turn."""
        return self.state_of(run_id)["type"] in {"SCHEDULED", "PENDING"}

    def state_of(self, run_id: str) -> dict[str, Any]:
        return dict(self.request("GET", f"/flow_runs/{run_id}")["state"])

    def flow_runs(self, *, begun: bool = False) -> list[dict[str, Any]]:
        """The newest flow runs; those that only stand in the schedule are left out with `begun`."""
        body: dict[str, Any] = {"sort": "EXPECTED_START_TIME_DESC", "limit": 200}
        if begun:
            states = {"type": {"any_": sorted(ENDED | {"RUNNING", "CANCELLING"})}}
            body["flow_runs"] = {"state": states}
        return list(self.request("POST", "/flow_runs/filter", body))

    # ---- processes

    def processes(self) -> dict[int, str]:
        """Everything alive that this case started, by process id, with its command."""
        wanted = f"{MARK}={self.mark}".encode()
        alive = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    alive[int(entry.name)] = command.decode(errors="replace").strip()
        return {pid: command for pid, command in alive.items() if command}

    def kill_all(self) -> None:
        """End everything that this case started, at once, until nothing is left of it."""
        while alive := self.processes():
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    # ---- what came out

    def done(self, folder: str = "out/inbox") -> set[str]:
        """The ids of documents that were delivered with both steps, each with its own answer."""
        path = self.root / folder / "outcomes.jsonl"
        if not path.exists():
            return set()
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        ids = [row["id"] for row in rows if is_done(row)]
        assert len(ids) == len(set(ids)), "a document was delivered twice"
        return set(ids)

    def wait_until_done(
        self, number: int = DOCUMENTS, seconds: float = _CASE_TAKES_AT_MOST_S
    ) -> None:
        """Wait until so many documents are delivered, by whichever run."""
        until(lambda: len(self.done()) >= number, seconds, self.story)

    def story(self) -> str:
        """What is known when a wait is over in vain."""
        runs = ""
        with suppress(Exception):
            runs = self.tierwise("runs")
        states: Any = []
        with suppress(Exception):
            states = [
                (run["name"], run["state"]["name"], run["state"]["message"])
                for run in self.flow_runs()
            ]
        return (
            f"all documents are done; {len(self.done())} are\n{runs}\n"
            f"{states}\n{self.provider.state()}"
        )

    def row(self, case: str) -> Row:
        """The case's line in the table, from the invoice, the results and the ledger."""
        billed = [line for line in self.provider.invoice() if line.is_billed]
        questions = Counter(line.question for line in billed)
        twice = sum(number - 1 for number in questions.values())
        cost, unknown = ledger_money(self.json("runs", "--limit", "200"))
        last_answer = max((line.answered for line in billed), default=self.begun)
        return Row(
            case=case,
            documents=DOCUMENTS,
            done=len(self.done()),
            paid=len(billed),
            paid_twice=twice,
            unknown_cost=unknown,
            cost_usd=cost,
            seconds=last_answer - self.begun,
            note="; ".join(self.notes),
        )


def is_done(row: Mapping[str, Any]) -> bool:
    """Whether a document's line has both steps accepted, and the summary of its own text."""
    outcomes = row["outcomes"]
    accepted = [step for step, out in outcomes.items() if out["status"] == "accepted"]
    if sorted(accepted) != ["classify", "summarize"]:
        return False
    number = str(row["id"]).rpartition("-")[2]
    summary = outcomes["summarize"]["value"]["summary"]
    assert f"Letter {number} " in summary, f"{row['id']} has another's answer"
    return True


def make_bed(
    folder: Path,
    provider: Supplier,
    *,
    documents: int = DOCUMENTS,
    url: str | None = None,
    key: str = RIGHT_KEY,
    timeout_s: int = 20,
    at_once: int = AT_ONCE,
    settings: str = "",
    variables: Mapping[str, str] | None = None,
) -> Bed:
    """Make a project with `tierwise init`, its only model at the provider, and its letters."""
    mark = uuid.uuid4().hex
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "TIERWISE_"))
        and "proxy" not in name.lower()
    }
    env |= {MARK: mark, "ONCALL_KEY": key, "DO_NOT_TRACK": "1"}
    env |= dict(variables or {})
    root = folder / "project"
    bed = Bed(root, provider, env, mark)
    root.mkdir()
    bed.tierwise("init", ".")
    catalog = _CATALOG.format(
        url=url or provider.url, at_once=at_once, timeout_s=timeout_s
    )
    (root / "routing_rules/catalog.yaml").write_text(catalog)
    (root / "routing_rules/rules.yaml").write_text(_RULES)
    toml = root / "pyproject.toml"
    toml.write_text(
        toml.read_text().replace("[tool.tierwise]\n", f"[tool.tierwise]\n{settings}\n")
    )
    write_letters(root / "letters.jsonl", documents)
    return bed


def write_letters(path: Path, number: int, word: str = "Letter") -> None:
    """A file of letters, each with its number in its first line."""
    with path.open("w") as out:
        for n in range(number):
            line = {"id": f"{word.lower()}-{n:04}", "text": letter(n, word)}
            out.write(json.dumps(line) + "\n")


def letter(n: int, word: str = "Letter") -> str:
    """The text of one letter."""
    return (
        f"{word} {n:04} from the office in Larkfold.\n"
        "The invoice of March is still open, and it should be paid by Friday. "
        "My colleague has told you so before, and nobody has answered her letter.\n"
    )


def one_deployment(*, schedule: bool = True) -> str:
    """The prefect.yaml of a project with one deployment, `inbox`, over all letters."""
    parameters = {"source": "letters.jsonl", "out": "out/inbox"}
    return deployments({"inbox": parameters}, every_s=_EVERY_S, schedule=schedule)


def deployments(
    named: Mapping[str, Mapping[str, object]], *, every_s: int, schedule: bool = True
) -> str:
    """The starter's prefect.yaml with these deployments of its flow, each with a quick schedule."""
    starter = _REPOSITORY / "src/tierwise/starter/files/prefect.yaml"
    head, found, entry = starter.read_text().partition("  - name: inbox\n")
    assert found, "the starter's prefect.yaml has no deployment inbox"
    old_schedule = 'cron: "*/15 * * * *", timezone: UTC, active: false'
    old_source = "source: examples/inbox"
    assert old_schedule in entry
    assert old_source in entry
    entry = entry.replace("budget_usd: 1.0", "budget_usd: 100")
    new_schedule = f"interval: {every_s}, active: {str(schedule).lower()}"
    entry = entry.replace(old_schedule, new_schedule)
    entries = ""
    for name, parameters in named.items():
        words = ", ".join(f"{key}: {value}" for key, value in parameters.items())
        entries += f"  - name: {name}\n" + entry.replace(old_source, words)
    return head + entries


def until(
    ready: Callable[[], object], seconds: float, what: str | Callable[[], str]
) -> None:
    """Wait until something is true; say what was awaited if it never is."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"after {seconds:.0f} s, still not: {told}")
        time.sleep(_POLL_S)
