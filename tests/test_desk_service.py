"""The desk's commands and its process, and the alerts that it reports."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.desk import PASSWORD, desk_at
from tests.kit.ledgers import RUN
from tests.kit.projects import make_project, model
from tests.kit.reported_runs import record
from tests.kit.terminal import Done, Terminal
from tierwise.desk.alerts import batch_alerts, certificate_alerts, reported_alerts
from tierwise.desk.desk_watch import report
from tierwise.desk.overview_facts import CertificateRow
from tierwise.ledger import Ledger
from tierwise.orchestrate import alert_watch
from tierwise.orchestrate.supervision import desk_command, restart_functions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", model("large", "http://127.0.0.1:1"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_people_are_added_listed_and_removed(
    root: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def desk(*words: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        return terminal("desk", *words, cwd=root)

    assert desk("people").code == 0
    added = desk(
        "add", "ann", "--role", "viewer", "--password-stdin", stdin=f"{PASSWORD}\n"
    )
    assert added.code == 0
    assert "ann: viewer" in desk("people").out
    assert PASSWORD not in (root / ".tierwise" / "desk" / "people.json").read_text()
    for words, stdin in (
        (("add", "bob", "--password-stdin"), "short\n"),
        (("add", " bob", "--password-stdin"), f"{PASSWORD}\n"),
        (("add", "bob", "--role", "king", "--password-stdin"), f"{PASSWORD}\n"),
    ):
        assert desk(*words, stdin=stdin).code == 2
    assert desk("remove", "ann").code == 0
    assert desk("remove", "ann").code in (1, 2)


def test_it_starts_for_others_only_where_somebody_may_sign_in(
    root: Path, terminal: Terminal
) -> None:
    refused = terminal("desk", "--host", "0.0.0.0", cwd=root)
    assert refused.code == 2
    assert terminal("desk", "--certificate", "x.pem", cwd=root).code == 2
    token = terminal("desk", "--metrics-token", cwd=root).out
    assert re.fullmatch(r"[\w-]{43}\n", token)


def test_the_link_is_that_of_a_desk_that_runs(
    root: Path, tmp_path: Path, terminal: Terminal
) -> None:
    """Another program at that port would get the token from the person who opens it."""
    port = free_port()
    down = terminal("desk", "--port", port, "--link", cwd=root)
    assert (down.code, down.out) == (2, "")
    other = make_project(tmp_path / "other", model("large", "http://127.0.0.1:1"))
    with desk_at(root) as desk:
        port = int(desk.url.rpartition(":")[2])
        link = terminal("desk", "--port", port, "--link", cwd=root).out
        assert re.fullmatch(rf"{desk.url}/enter\?token=[\w-]{{43}}\n", link)
        # A desk of another project is none of this one.
        foreign = terminal("desk", "--port", port, "--link", cwd=other)
        assert (foreign.code, foreign.out) == (2, "")


def test_a_password_is_asked_at_a_terminal_alone(root: Path) -> None:
    """Python's own prompt would warn on a pipe, and show what is typed."""
    done = subprocess.run(
        [sys.executable, "-m", "tierwise", "desk", "add", "ann"],
        cwd=root,
        input=f"{PASSWORD}\n{PASSWORD}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--password-stdin" in done.stderr
    assert "GetPassWarning" not in done.stderr
    assert not (root / ".tierwise" / "desk" / "people.json").exists()


def test_the_desk_runs_in_the_foreground_as_its_unit_starts_it(
    root: Path, terminal: Terminal
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "tierwise", "up", "--foreground", "desk"]
    process = subprocess.Popen(
        [*command, "--port", str(port)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            found = terminal("desk", "--link", cwd=root)
            answers = terminal("desk", "--port", port, "--link", cwd=root)
            if answers.code == 0:
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert found.out == answers.out
        # What its unit would start again is not ended by `down`.
        assert terminal("down", cwd=root).code == 2
        second = subprocess.run(command, cwd=root, capture_output=True, check=False)
        assert second.returncode == 2
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert output == ""


def test_the_process_of_up_serves_the_desk_and_logs_no_token(root: Path) -> None:
    port = free_port()
    command = desk_command(f"http://127.0.0.1:{port}")
    assert command[0] == sys.executable
    assert "desk" in restart_functions(root)
    process = subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "TIERWISE_PROJECT": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False
        ) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    assert client.get("/healthz").text == "ok\n"
                    break
                except httpx.TransportError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            assert client.get("/").status_code == 401
            token = "A" * 43
            assert client.get(f"/enter?token={token}").status_code == 401
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert "token" not in output
    assert not output.strip()


def test_the_desks_alerts_are_reported_once_and_once_when_over(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A review that is older than a day: an event of Prefect's, with the page to open."""
    text = '[tool.tierwise.alerts]\nwebhook = "HOOK"\n'
    (root / "pyproject.toml").write_text(text)
    with Ledger.open(root=root) as ledger:
        ledger.start_run(replace(RUN, started_at=time.time() - 200_000))
        record(
            ledger, "a.txt", status="deferred", value=None, cause="review", model=None
        )
        ledger.finish_run(RUN.id, "completed")
    sent: list[tuple[str, dict[str, Any]]] = []

    def note(event: str, _resource: Any, payload: dict[str, Any]) -> None:
        sent.append((event, payload))

    monkeypatch.setattr(alert_watch, "emit_event", note)
    with desk_at(root) as served:
        desk = served.app.state.desk
        day_s = 86_400.0
        now = time.time()
        report(desk, served.url)
        assert sent == []
        later = now + 2 * day_s
        monkeypatch.setattr("tierwise.desk.desk_watch.time.time", lambda: later)
        report(desk, served.url)
        report(desk, served.url)
        [(event, payload)] = sent
        assert event == "tierwise.alert.began"
        # The page lists exactly what the alert is about.
        assert payload["page"] == f"{served.url}/review?flow=support-inbox&older=1d"
        monkeypatch.setattr("tierwise.desk.desk_watch.time.time", lambda: now)
        report(desk, served.url)
        assert [event for event, _ in sent] == [
            "tierwise.alert.began",
            "tierwise.alert.over",
        ]


def test_each_kind_of_alert_has_a_page() -> None:
    import datetime

    certificate = CertificateRow(
        step="classify",
        models="small",
        proof="",
        expires=datetime.date(2026, 12, 1),
        days=3,
        ends_by="its date",
        is_over=False,
        is_soon=True,
    )
    void = replace(certificate, is_over=True, is_soon=False)
    served = replace(certificate, is_over=True, is_suspended=True)
    found = certificate_alerts([certificate, void, served])
    assert [alert.kind for alert in found] == ["certificate", "served"]

    class Batch:
        """A batch as the ledger lists it."""

        id = "b1"
        model = "large"
        run_id = "r 1"
        created_at = 0.0
        submitted_at: float | None = None
        expires_at: float | None = None

    batch = Batch()
    assert batch_alerts([batch], 3000.0) == []
    [stuck] = batch_alerts([batch], 4000.0)
    assert stuck.path == "/runs/r%201"
    batch.submitted_at = 100.0
    assert batch_alerts([batch], 4000.0) == []
    assert len(batch_alerts([batch], 90_000.0)) == 1
    batch.expires_at = 200_000.0
    assert batch_alerts([batch], 90_000.0) == []
    holding = {
        "outage: large": 5.0,
        "demoted: classify: small": None,
        "budget: day": 1.0,
    }
    assert [alert.kind for alert in reported_alerts(holding)] == ["demoted", "outage"]
