"""Prefect as every command meets it: quiet, private to the project, and without a dead server."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.kit.old_project import restore
from tests.kit.rooms import FILES
from tests.kit.sorting import FLOW, sorting_project, tierwise
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.cli.commands import COMMANDS
from tierwise.errors import Misuse
from tierwise.orchestrate import temporary_server
from tierwise.text.variables import is_on

RUN = "20261128-045248-fb48"  # ten letters, with answers of every kind
# A use of each command that goes far enough to import Prefect, where the command does.
USES = {
    "run": "run post --source documents/noon",
    "plan": "plan post --source documents/noon",
    "retry": f"retry {RUN}",
    "resume": "resume 20261128-045300-765f",
    "show": f"show {RUN}",
    "runs": "runs",
    "report": f"report {RUN} --out report.html",
    "explain": "explain --step classify --tokens 100 --sensitivity internal",
    "budgets": "budgets",
    "review": f"review {RUN}",
    "label": "label --list",
    "golden": f"golden add {RUN}",
    "check": "check",
    "certify": "certify classify -m small --threshold none --yes",
    "canaries": "canaries",
    "distil": "distil classify --teacher small --source documents/noon --yes",
    "try": "try classify documents/noon/22-shelf.txt",
    "train": "train classify --yes",
    "diff": "diff routing_rules/rules.yaml routing_rules/rules.yaml --since 9000w",
    "replay": "replay --fit past.csv --on past.csv --labels 6",
    "calibrate": "calibrate small --gpu-hour-usd 1 --documents documents/noon "
    "--sensitivity internal --dry-run",
    "doctor": "doctor",
    "models": "models",
    "fetch": "fetch",
    "up": "up --port 4307",
    "down": "down",
    "status": "status",
    "batches": "batches --all",
    "ui": "ui --port 4307",
    "desk": "desk people",
    "audit": "audit verify",
    "reprice": "reprice",
    "retention": "retention --older-than 0h --dry-run --by eve",
    "docs": "docs tutorial",
    "init": "init other",
    "new": "new step urgency",
    "export": "export --step reply --sensitivity-max restricted --validation 0",
}
# Each command in a process of its own, which ends as soon as Prefect is imported or started.
SCRIPT = """
import json, os, sys
import tierwise.cli.program as program

def seen(environment):
    os.write(3, (json.dumps([name, dict(environment)]) + "\\n").encode())
    os._exit(0)

def hook(event, arguments):
    if event == "import" and arguments[0] == "prefect":
        seen(os.environ)
    if event == "subprocess.Popen" and "prefect" in arguments[1]:
        seen(os.environ if arguments[3] is None else arguments[3])

for name, use in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        sys.argv = ["tierwise", *use.split()]
        sys.addaudithook(hook)
        try:
            program.main()
        finally:
            os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def witnessed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The environment in which each command imports or starts Prefect; without those that do not."""
    folder = tmp_path_factory.mktemp("commands")
    root = restore(folder / "project")
    (folder / "home").mkdir()
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "DO_NOT_TRACK", "TIERWISE_LEDGER"))
    }
    read, write = os.pipe()
    on_descriptor_3 = ["bash", "-c", f'exec 3>&{write}; exec "$@"', "bash"]
    with subprocess.Popen(
        [*on_descriptor_3, sys.executable, "-c", SCRIPT, json.dumps(USES)],
        cwd=root,
        env={**env, "HOME": str(folder / "home")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[write],
    ):
        os.close(write)
        with os.fdopen(read) as lines:
            found: dict[str, Any] = dict(json.loads(line) for line in lines)
    assert not (folder / "home" / ".prefect").exists()
    return {**found, "root": {"path": str(root)}}


def test_every_command_is_asked() -> None:
    """A new command needs a use in this list."""
    assert set(USES) == {row.name for row in COMMANDS}


def test_commands_meet_prefect(witnessed: dict[str, dict[str, str]]) -> None:
    """Else the next test would ask nothing."""
    assert set(witnessed) > {"run", "plan", "retry", "certify", "try", "up", "ui"}


@pytest.mark.parametrize("name", USES)
def test_prefect_is_quiet_and_keeps_to_the_project(
    witnessed: dict[str, dict[str, str]], name: str
) -> None:
    """No telemetry, and nothing is written outside of the project, whatever imports Prefect."""
    env = witnessed.get(name)
    if env is None:  # a command without Prefect
        return
    root = Path(witnessed["root"]["path"])
    assert env["DO_NOT_TRACK"] == "1"
    assert env["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert Path(env["PREFECT_HOME"]).is_relative_to(root)
    assert str(root) in env["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert env["PREFECT_LOGGING_LEVEL"] in ("CRITICAL", "ERROR", "WARNING")


def prepare(database: Path, templates: Path) -> None:
    """Have a server's process prepare a database."""
    code = (
        "import sys, runpy\n"
        f"child = runpy.run_path({str(temporary_server.CHILD)!r})\n"
        "from pathlib import Path\n"
        "child['ensure_database'](Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    url = f"sqlite+aiosqlite:///{database}"
    env = {**os.environ, "PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
    command = [sys.executable, "-c", code, str(database), str(templates)]
    subprocess.run(command, env=env, check=True)


def is_alive(pid: int) -> bool:
    """Whether a process that is no child of this one runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().split()[2] != "Z"


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def small_project(tmp_path: Path, standin: Standin) -> Path:
    """A project with one flow whose only model is the stand-in."""
    return sorting_project(tmp_path / "project", standin)


def test_a_run_after_down_ignores_the_address_that_the_shell_still_exports(
    small_project: Path,
) -> None:
    """It says so in one line, runs, and leaves no server behind."""
    dead = f"http://127.0.0.1:{free_port()}/api"
    done = tierwise(small_project, "run", "sort", PREFECT_API_URL=dead)
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if dead in line]
    assert len(notes) == 1
    assert "is ignored" in notes[0]
    assert "1 by small" in done.stdout
    shown = tierwise(small_project, "show", PREFECT_API_URL=dead)
    assert shown.returncode == 0
    assert dead not in shown.stderr
    database = small_project / ".tierwise" / "prefect.db"
    with closing(sqlite3.connect(database)) as connection:
        states = connection.execute("SELECT state_type FROM flow_run").fetchall()
        tasks = connection.execute("SELECT state_type FROM task_run").fetchall()
    assert states == [("COMPLETED",)]
    assert tasks == [("COMPLETED",)]


def test_a_new_project_takes_prefects_database_from_the_template(
    tmp_path: Path,
) -> None:
    """Only the first start of a version of Prefect creates the tables; the template has no run."""
    templates = tmp_path / "templates"
    first = tmp_path / "first.db"
    second = tmp_path / "second.db"
    prepare(first, templates)
    [template] = templates.glob("*.db")
    with closing(sqlite3.connect(template)) as connection:
        connection.execute("CREATE TABLE from_the_template (id INTEGER)")
        connection.commit()
    prepare(second, templates)
    with closing(sqlite3.connect(second)) as connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master")
        }
        blocks = connection.execute("SELECT count(*) FROM block_type").fetchone()[0]
    assert {"from_the_template", "flow_run", "task_run"} <= tables
    assert blocks > 5


def test_a_server_that_cannot_start_is_one_line(small_project: Path) -> None:
    """The line names the database, and what to do."""
    broken = small_project / ".tierwise" / "prefect.db"
    broken.parent.mkdir(exist_ok=True)
    broken.mkdir()
    done = tierwise(small_project, "run", "sort")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"tierwise: Prefect's database {broken} is damaged")
    assert "move it away" in last
    assert "Traceback" not in done.stderr


def test_a_server_ends_with_a_process_that_is_killed(small_project: Path) -> None:
    """However the process dies, its temporary server does not stay behind."""
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from tierwise.orchestrate.environment import prepare_prefect\n"
        "from tierwise.orchestrate.temporary_server import start_temporary_server\n"
        "root = Path.cwd()\n"
        "prepare_prefect(root)\n"
        "server = start_temporary_server(root)\n"
        "server.wait_until_ready()\n"
        "print(server.process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_")
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=small_project,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(pid)


def test_an_idle_server_sleeps(small_project: Path) -> None:
    """Prefect's recorder sleeps whole seconds between looks; with none, it occupies a core."""
    script = (
        "from pathlib import Path\n"
        "from tierwise.orchestrate.environment import prepare_prefect\n"
        "prepare_prefect(Path.cwd())\n"
        "from prefect.server.services.task_run_recorder import TaskRunRecorder\n"
        "print(int(TaskRunRecorder.service_settings().flush_interval))\n"
    )
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_")
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=small_project,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) >= 1


@pytest.mark.parametrize("command", ["run", "plan"])
def test_help_of_a_flow_command_needs_no_project(
    command: str, tmp_path: Path, terminal: Terminal
) -> None:
    """It lists the command's own options, and says where a flow's are."""
    for arguments in ([command, "--help"], [command, "inbox", "--help"]):
        done = terminal(*arguments, cwd=tmp_path)
        assert done.code == 0
        assert "--fresh" in done.out
        assert "inside a project" in done.out
    assert terminal(command, cwd=tmp_path).code == 2


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        *((word, True) for word in ("1", "true", "TRUE", "yes", "on")),
        *((word, False) for word in ("", "0", "false", "No", "off")),
    ],
)
@pytest.mark.parametrize("name", ["TIERWISE_FRESH", "TIERWISE_YES"])
def test_a_switch_has_the_usual_values(name: str, value: str, meaning: bool) -> None:
    assert is_on({name: value}, name) is meaning
    assert not is_on({}, name)


@pytest.mark.parametrize("value", ["maybe", "2", "y"])
def test_another_value_of_a_switch_is_refused_with_the_allowed_ones(value: str) -> None:
    """Silence would spend money, or reuse what was to be asked again."""
    with pytest.raises(Misuse, match=f"TIERWISE_FRESH is '{value}'; write 1, true"):
        is_on({"TIERWISE_FRESH": value}, "TIERWISE_FRESH")


def test_switches_are_read_by_one_reader() -> None:
    """No other code compares such a variable with a value."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for name in ("TIERWISE_FRESH", "TIERWISE_YES"):
            for place in re.finditer(name, text):
                start = text.rfind("\n", 0, place.start())
                line = text[start : text.find("\n", place.end())]
                assert "environ.get" not in line, path
                assert "==" not in line, path


def test_a_missing_option_of_a_flow_is_named_with_its_meaning(
    small_project: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a misuse, found before anything starts; `plan` and `retry` share the check."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "flows":  # those of another test's project
            monkeypatch.delitem(sys.modules, name)
    flow = FLOW.replace(' = Path("inbox")', "").replace(
        "Sort a folder.", "Sort a folder.\n\n    source: folder with the letters\n    "
    )
    (small_project / "flows" / "strict_sort.py").write_text(
        flow.replace("def sort", "def strict_sort")
    )
    for command in ("run", "plan"):
        done = terminal(command, "strict_sort", cwd=small_project)
        assert done.code == 2
        line = "tierwise: --source is required: folder with the letters"
        assert done.err.splitlines()[-1] == line
    listed = terminal("run", "strict_sort", "--help", cwd=small_project)
    assert "[required]" in listed.out
