"""A run that is stopped: no further call, calls under way on record, no process left behind."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from tests.kit.golden_sets import golden_rows, write_golden
from tests.kit.projects import make_project, model
from tests.kit.sorting import own_environment
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.cli.stopping import stoppable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
DOCUMENTS = 400
AT_ONCE = 4
LATENCY_S = 0.5
RULES = "version: 1\nroutes: [{name: default, try: [small]}]\n"
FLOW = """
from pathlib import Path

from prefect import flow
from tasks.classify import classify
from tierwise import RunSummary, read_documents, recorded_run, task_runner


@flow(task_runner=task_runner())
def sort(source: Path = Path("rows.jsonl")) -> RunSummary:
    \"\"\"Sort rows.\"\"\"
    with recorded_run() as run:
        rows = read_documents(source, sensitivity="internal")
        for future in classify.map(rows, labels=["delivery", "invoice"]):
            future.result()
    return run.summary()
"""


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    """A project whose one flow would take most of a minute."""
    standin.latency_s = LATENCY_S
    standin.answer(json.dumps({"label": "delivery", "evidence": "has not arrived"}))
    root = tmp_path / "project"
    small = model("small", standin.url) + f"    concurrency: {AT_ONCE}\n"
    make_project(root, small, rules=RULES)
    rows = [
        json.dumps({"id": f"row-{number}", "text": f"Parcel {number} has not arrived."})
        for number in range(DOCUMENTS)
    ]
    (root / "rows.jsonl").write_text("\n".join(rows))
    (root / "flows").mkdir(exist_ok=True)
    (root / "flows" / "sort.py").write_text(FLOW)
    return root


class Started:
    """A process whose output is read all the time, as a terminal does."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process = process
        self._output = output
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._output, 65536)
            except OSError:  # a terminal whose processes are gone
                break
            if not part:
                break
            self._parts.append(part)
        os.close(self._output)

    def end(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for the end; return the exit code, and what was printed."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code, b"".join(self._parts).decode(errors="replace")


def start(project: Path, *arguments: str, on_terminal: bool = False) -> Started:
    """Start a command as the leader of a session, as a terminal or a service does."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_")
    }
    output, side = pty.openpty() if on_terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tierwise", *arguments],
        cwd=project,
        env=env,
        stdin=side if on_terminal else subprocess.DEVNULL,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    return Started(process, output)


def processes_of(project: Path) -> list[str]:
    """Return the command lines of processes that work in a project's folder."""
    return list(_processes(project.resolve()))


def _processes(root: Path) -> Iterator[str]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            folder = (entry / "cwd").resolve()
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if folder == root and words != [b""]:
            yield b" ".join(words).decode(errors="replace")


def wait_for_calls(standin: Standin, number: int) -> None:
    deadline = time.monotonic() + 120
    while standin.count < number:
        assert time.monotonic() < deadline, "no call was made"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "to_group", "on_terminal"),
    [
        (signal.SIGINT, True, True),
        (signal.SIGINT, False, False),
        (signal.SIGTERM, False, False),
        (signal.SIGTERM, True, False),
        (signal.SIGHUP, True, True),
    ],
)
def test_a_signal_ends_a_run_without_a_further_call(
    project: Path,
    standin: Standin,
    terminal: Terminal,
    number: signal.Signals,
    to_group: bool,
    on_terminal: bool,
) -> None:
    started = start(project, "run", "sort", on_terminal=on_terminal)
    wait_for_calls(standin, 10)
    if to_group:
        os.killpg(started.process.pid, number)
    else:
        started.process.send_signal(number)
    # A call that is being sent right now still arrives.
    time.sleep(0.2)
    calls = standin.count
    code, text = started.end()
    assert code == 130, text
    assert standin.count == calls
    assert "stopping: no further call is made" in text
    assert "stopped; everything that was paid is on record" in text
    assert "Traceback" not in text
    assert processes_of(project) == []
    shown = json.loads(terminal("show", "--json", cwd=project).out)
    assert shown["run"]["state"] == "cancelled"
    assert shown["run"]["attempts"] == calls
    assert terminal("audit", "verify", cwd=project).code == 0


def test_a_second_signal_ends_it_at_once(project: Path, standin: Standin) -> None:
    """Calls that take long are not waited for."""
    standin.latency_s = 60
    started = start(project, "run", "sort")
    wait_for_calls(standin, AT_ONCE)
    started.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert started.process.poll() is None
    started.process.send_signal(signal.SIGINT)
    code, text = started.end(5)
    assert code == 130
    assert "Traceback" not in text


def test_a_closed_terminal_ends_a_run_as_ctrl_c_does(
    project: Path, standin: Standin, terminal: Terminal
) -> None:
    """Nothing can be said any more; the exit code is the same, and so is the record."""
    output, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tierwise", "run", "sort"],
        cwd=project,
        env=own_environment(),
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - it only makes one system call
    )
    os.close(side)
    reader = threading.Thread(target=read_until_closed, args=[output], daemon=True)
    reader.start()
    wait_for_calls(standin, 10)
    os.close(output)
    assert process.wait(60) == 130
    assert processes_of(project) == []
    shown = json.loads(terminal("show", "--json", cwd=project).out)
    assert shown["run"]["state"] == "cancelled"
    assert terminal("audit", "verify", cwd=project).code == 0


def take_terminal() -> None:
    """Make standard input the terminal that controls this session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_until_closed(output: int) -> None:
    with suppress(OSError):
        while select.select([output], [], [], 0.1) and os.read(output, 65536):
            pass


class SignalsInItsFinalizer:
    """Python drops what is raised in a finalizer, as in the callbacks of each import."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        # The handler runs between two instructions; here it is still in the finalizer.
        for _ in range(1000):
            pass


def test_a_stop_that_python_drops_is_asked_for_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @stoppable()
    def work() -> None:
        SignalsInItsFinalizer()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            time.sleep(0.01)

    with pytest.raises(typer.Exit) as exit_info:
        work()
    assert exit_info.value.exit_code == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_certify_stops_in_the_same_way(
    project: Path, standin: Standin, terminal: Terminal, number: signal.Signals
) -> None:
    """What was paid is not asked again."""
    write_golden(project, golden_rows(DOCUMENTS))
    certify = ("certify", "classify", "-m", "small", "--threshold", "none", "--yes")
    started = start(project, *certify)
    wait_for_calls(standin, 10)
    started.process.send_signal(number)
    time.sleep(0.2)
    calls = standin.count
    code, text = started.end()
    assert code == 130, text
    assert standin.count == calls
    assert "stopped; everything that was paid is on record" in text
    assert "Traceback" not in text
    shown = json.loads(terminal("show", "--json", cwd=project).out)
    assert (shown["run"]["state"], shown["run"]["attempts"]) == ("cancelled", calls)
    assert terminal("audit", "verify", cwd=project).code == 0
