"""What a machine may have around a project: proxies, no home, other terminals, damaged files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.kit.sorting import sorting_project, tierwise
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.orchestrate.environment import answers, database_problem

# A user without an entry in /etc/passwd, and without the rights of root over files.
STRANGER = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
CAN_BE_A_STRANGER = (
    sys.platform == "linux"
    and subprocess.run([*STRANGER, "true"], capture_output=True).returncode == 0
)
DEAD_PROXY = "127.0.0.1:9"


class NotPrefect(BaseHTTPRequestHandler):
    """A web server that knows no page."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def other_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), NotPrefect)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    """A project with a document whose name is in Japanese."""
    return sorting_project(tmp_path / "project", standin, "日本.txt")


def test_requests_to_this_machine_go_past_a_proxy_and_a_terminal_may_lack_characters(
    project: Path,
) -> None:
    """Prefect's server and the model are on this machine; nothing answers at the proxies."""
    proxies = {
        "HTTP_PROXY": f"http://{DEAD_PROXY}",
        "ALL_PROXY": f"socks5://{DEAD_PROXY}",
        "NO_PROXY": "example.org",
    }
    done = tierwise(project, "run", "sort", **proxies, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "1 by small" in done.stdout
    shown = tierwise(project, "show", "--documents", PYTHONIOENCODING="latin-1")
    assert shown.returncode == 0, shown.stderr
    assert "??.txt" in shown.stdout
    for encoding in ("ascii", "latin-1", "cp1252"):
        helped = tierwise(project, "--help", PYTHONIOENCODING=encoding)
        assert (helped.returncode, helped.stderr) == (0, "")


@pytest.mark.skipif(not CAN_BE_A_STRANGER, reason="needs Linux with user namespaces")
def test_a_user_without_a_home_can_run(project: Path) -> None:
    """As in a container that is started with a number in place of a name."""
    bare = {"PATH": os.environ["PATH"]}
    done = tierwise(project, "run", "sort", env=bare, before=STRANGER)
    assert done.returncode == 0, done.stderr
    assert "1 by small" in done.stdout
    checked = tierwise(project, "check", env=bare, before=STRANGER)
    assert checked.returncode == 0, checked.stdout
    assert not list(project.glob("~*"))
    outside = tierwise(project.parent, "--version", env=bare, before=STRANGER)
    assert outside.returncode == 0, outside.stderr


@pytest.mark.skipif(not CAN_BE_A_STRANGER, reason="needs Linux with user namespaces")
def test_a_project_that_may_not_be_written_is_one_line(project: Path) -> None:
    folder = project.resolve() / ".tierwise"
    project.chmod(0o555)
    commands = (["run", "sort"], ["retry"], ["show"], ["up"], ["plan", "sort"])
    for command in commands:
        done = tierwise(project, *command, before=STRANGER)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("tierwise: ")
        assert str(folder) in last
        assert last.endswith("check that its folder exists and may be written")
        assert "Traceback" not in done.stderr
    project.chmod(0o755)


def test_a_damaged_database_of_prefects_is_named_with_the_remedy(
    project: Path, terminal: Terminal
) -> None:
    """Nothing but Prefect's own pages is lost with it."""
    assert tierwise(project, "run", "sort").returncode == 0
    database = project / ".tierwise" / "prefect.db"
    assert database_problem(project) is None
    with database.open("r+b") as file:
        file.truncate(100_000)
    says = f"Prefect's database {database} is damaged"
    done = tierwise(project, "run", "sort")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"tierwise: {says}")
    assert "move it away" in last
    assert "Traceback" not in done.stderr
    found = json.loads(terminal("doctor", "--json", cwd=project).out)
    prefect = next(each for each in found if each["what"] == "Prefect")
    assert prefect["ok"] is False
    assert prefect["detail"].startswith(says)
    database.unlink()
    assert tierwise(project, "run", "sort").returncode == 0


def test_an_address_where_no_prefect_answers_is_one_line(
    project: Path,
    other_server: str,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another program listens there, or the path is wrong."""
    done = tierwise(project, "run", "sort", PREFECT_API_URL=other_server)
    assert done.returncode == 1
    says = f"no Prefect server answers at {other_server}"
    remedy = "start it, or `unset PREFECT_API_URL`"
    assert done.stderr.splitlines()[-1] == f"tierwise: {says}; {remedy}"
    assert "Traceback" not in done.stderr
    monkeypatch.setenv("PREFECT_API_URL", other_server)
    shown = terminal("doctor", cwd=project)
    assert shown.code == 1
    assert says in " ".join(shown.out.split())


def test_only_a_prefect_server_counts_as_an_answer(other_server: str) -> None:
    assert not answers(other_server)
    assert not answers("http://nowhere.invalid:4200/api")
    assert not answers("http://127.0.0.1:9/api")
