"""Alerts: the settings, the automations made from them, and what a real webhook gets."""

from __future__ import annotations

import email
import email.message
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.events.utilities import emit_event

from tests.kit.projects import make_project, model
from tests.kit.standin import Standin, status, unused_address
from tests.kit.terminal import OwnProcess, Terminal
from tests.test_situations import Inbox, good
from tierwise.cascade.circuit import LastSign
from tierwise.errors import ConfigError, Misuse
from tierwise.orchestrate import alert_watch
from tierwise.orchestrate.alerts import (
    PREFIX,
    Condition,
    Reported,
    alerts_of,
    budget_conditions,
    outage_conditions,
    waiting_condition,
)
from tierwise.orchestrate.automations import make_alerts, refuse_missing_addresses
from tierwise.policy.alerts import DESK_KINDS, KINDS, AlertSettings
from tierwise.policy.budget import BudgetState, Limit
from tierwise.project import Project

RULES = "version: 1\nroutes:\n  - {name: default, try: [small]}\n"
TOKEN = "token-0123456789"


def project_with(folder: Path, alerts: str) -> Path:
    root = make_project(folder, model("small", "http://127.0.0.1:1"), rules=RULES)
    (root / "pyproject.toml").write_text(f"[tool.tierwise.alerts]\n{alerts}\n")
    return root


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f'webhook = "https://example.com/{TOKEN}"', "name of a variable"),
        (f'slack = "{TOKEN}"', "name of a variable"),
        ('on = ["failed", "lost"]', "'failed'"),
        ('waiting = "120 %"', "share below 100"),
        ("budget = 80", "share below 100"),
        ('worker = "2 s"', "at least 10 s"),
        ('outage = "soon"', "with its unit"),
        ('webhok = "X"', "webhok"),
    ],
)
def test_wrong_settings_are_refused_without_repeating_an_address(
    line: str, words: str, tmp_path: Path
) -> None:
    root = project_with(tmp_path / "project", line)
    with pytest.raises(ConfigError) as caught:
        _ = Project(root).settings
    assert words in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_check_reports_a_wrong_setting(tmp_path: Path, terminal: Terminal) -> None:
    root = project_with(tmp_path / "project", f'webhook = "https://x.y/{TOKEN}"')
    result = terminal("check", "--no-flows", cwd=root)
    assert result.code == 1
    assert "webhook takes the name" in result.out
    assert TOKEN not in result.out


def test_there_are_no_alerts_without_an_address() -> None:
    assert alerts_of(AlertSettings(), "http://127.0.0.1:4300", "pool") == ()
    nothing = AlertSettings(webhook="HOOK", on=())
    assert alerts_of(nothing, "http://127.0.0.1:4300", "pool") == ()


def test_every_kind_has_an_alert_and_one_for_its_end_with_the_servers_address() -> None:
    url = "http://127.0.0.1:4321"
    alerts = alerts_of(AlertSettings(webhook="HOOK"), url, "pool")
    for kind in KINDS:
        assert [a.is_over for a in alerts if a.kind == kind] == [False, True]
    for alert in alerts:
        # The desk's page comes with the event, and Prefect's is there without a desk.
        assert (f"{url}/" in alert.link) != (alert.kind in DESK_KINDS)
        is_of_prefect = alert.kind in ("failed", "worker")
        assert ("event.payload.page" in alert.link) != is_of_prefect
    assert all(alert.name.startswith(PREFIX) for alert in alerts)
    # An error's words may quote a document.
    assert not any("message" in alert.text for alert in alerts)


def test_what_a_run_reports_leads_to_the_desks_page_where_there_is_a_desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def note(_event: str, _resource: Any, payload: dict[str, Any]) -> None:
        pages.append(payload["page"])

    monkeypatch.setattr(alert_watch, "emit_event", note)
    settings = AlertSettings(webhook="HOOK")
    for number, desk in enumerate(("http://127.0.0.1:4280", None)):
        monkeypatch.setattr(alert_watch, "desk_address", lambda _root, at=desk: at)
        conditions = [
            Condition("outage", f"m{number}", True, "out", "answers"),
            Condition("waiting", f"f{number}", True, "wait", "fine", page="/runs/r1"),
        ]
        alert_watch.report_conditions(tmp_path, settings, conditions)
    at_desk = ["http://127.0.0.1:4280/#running", "http://127.0.0.1:4280/runs/r1"]
    assert pages == [*at_desk, "", ""]


@pytest.mark.parametrize("channel", ["webhook", "slack", "email"])
def test_a_variable_that_is_missing_or_no_address_is_named_and_not_shown(
    channel: str,
) -> None:
    settings = AlertSettings.model_validate({channel: "HOOK"})
    with pytest.raises(Misuse, match="HOOK is not set"):
        refuse_missing_addresses(settings, {})
    with pytest.raises(Misuse, match="HOOK has no usable address") as caught:
        refuse_missing_addresses(settings, {"HOOK": TOKEN})
    assert TOKEN not in str(caught.value)


def test_a_condition_is_reported_when_it_begins_and_when_it_is_over() -> None:
    now = 1_800_000_000.0
    limits = [Limit("", Decimal(10), per="day"), Limit("run 1", Decimal(2))]
    full = [
        BudgetState(limits[0].name(now), Decimal(10), Decimal("7.99")),
        BudgetState(limits[1].name(now), Decimal(2), Decimal("1.6")),
    ]
    budgets = list(budget_conditions(limits, full, 80, now))
    assert [(c.name, c.holds) for c in budgets] == [("day", False), ("run 1", True)]
    # A model that is out for a short time says nothing: neither begun nor over.
    signs = {"long": out(700), "short": out(60), "good": answered(5)}
    outages = outage_conditions(signs, 600, now)
    assert [(c.name, c.holds) for c in outages] == [("long", True), ("good", False)]
    waits = waiting_condition("inbox", 1, 5, 20, "1 of 5 documents wait")
    assert not waits.holds
    more = waiting_condition("inbox", 2, 5, 20, "2 of 5 documents wait")
    nothing = Reported()
    reported = nothing.after([more])
    assert nothing.news([more]) == [more]
    assert reported.news([more]) == []
    assert reported.news([waits]) == [waits]
    assert nothing.news([waits]) == []
    assert reported.after([waits]) == nothing


def out(seconds: float) -> LastSign:
    return LastSign(is_out=True, seconds=seconds)


def answered(seconds: float) -> LastSign:
    return LastSign(is_out=False, seconds=seconds)


def test_an_outage_that_several_runs_see_is_reported_once() -> None:
    """Each run has its own view of a model: when it failed first, and when it answered last."""
    reported = Reported()
    told: list[tuple[float, bool]] = []

    def look(now: float, sign: LastSign) -> None:
        nonlocal reported
        news = reported.news(outage_conditions({"m": sign}, 20, now))
        told.extend((now, condition.holds) for condition in news)
        reported = reported.after(news)

    look(1000, out(30))  # one run: out since 970
    look(1005, answered(60))  # another has not asked since 945
    look(1010, out(21))
    look(1020, answered(2))  # the model answers a third run, at 1018
    look(1025, out(55))  # the first does not know yet
    assert told == [(1000, True), (1020, False)]
    look(1100, out(25))  # out again, since 1075
    assert told[-1] == (1100, True)


class Receiver:
    """A webhook on a real socket, with the JSON objects that it got."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{TOKEN}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def texts(self, count: int) -> list[str]:
        """The messages, once there are so many and no more come for a while."""
        deadline = time.monotonic() + 60
        while len(self.got) < count and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(3)
        return [got["text"] for got in self.got]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Prefect server of its own, which this process is configured for."""
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    url = unused_address()
    port = url.rpartition(":")[2]
    env = {n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")}
    env["PREFECT_HOME"] = str(tmp_path / "prefect")
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", port]
    with open(tmp_path / "server.log", "wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    from tierwise.orchestrate.server import healthy, wait_for

    try:
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):

            def answers() -> bool:
                try:
                    return healthy()
                except Exception:  # noqa: BLE001 - not there yet
                    return False

            assert wait_for(answers, lambda: process.poll() is None, 120)
            yield f"http://127.0.0.1:{port}"
    finally:
        # The process keeps its connection for events, which the next server would not get.
        EventsWorker.drain_all(timeout=10, at_exit=False)
        process.terminate()
        process.wait(30)


def end_run(flow_id: Any, kind: str, name: str) -> None:
    """A flow run that ends in a state, as a process reports it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State, StateType

    with get_client(sync_client=True) as client:
        body = {"flow_id": str(flow_id), "state": {"type": "RUNNING"}}
        run = client.request("POST", "/flow_runs/", json=body).json()
        state = State(type=StateType[kind], name=name, message=f"of {TOKEN}")
        client.set_flow_run_state(run["id"], state, force=True)


class _Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as one mail needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            word = line.split()[0].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go\r\n")
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                MAILS.append(email.message_from_bytes(text))
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


MAILS: list[email.message.Message] = []


def mail_server() -> str:
    """The address of a mail server on a real socket, whose mails are in MAILS."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mail)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    return f"mailto://127.0.0.1:{port}?from=alerts@example.com&to=ops@example.com"


def wait_for_texts(receiver: Receiver, words: set[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        text = "\n".join(got["text"] for got in receiver.got)
        if all(word in text for word in words):
            return
        time.sleep(0.2)
    raise AssertionError(receiver.got)


@pytest.mark.timeout(300)
@pytest.mark.skipif(
    "TIERWISE_SERVER_TEST" not in os.environ, reason="make server-test runs it"
)
def test_runs_and_a_worker_report_to_a_webhook_and_by_mail(
    server: str, tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    receiver = Receiver()
    inbox = Inbox(tmp_path / "p", standin)
    (inbox.root / "pyproject.toml").write_text(
        '[tool.tierwise.alerts]\nwebhook = "HOOK"\nemail = "MAIL"\noutage = "0"\nworker = "10 s"\n'
    )
    monkeypatch.setenv("PREFECT_API_URL", f"{server}/api")
    with get_client(sync_client=True) as client:
        pool = client.create_work_pool(WorkPoolCreate(name="tierwise", type="process"))
    settings = Project(inbox.root).settings.alerts
    env = {"HOOK": receiver.url, "MAIL": mail_server()}
    refuse_missing_addresses(settings, env)
    make_alerts(settings, env, server, ["sort-letters"])
    resource = {"prefect.resource.id": f"prefect.work-pool.{pool.id}"}
    emit_event("prefect.work-pool.not-ready", resource)

    standin.answer(lambda _: status(500, "boom"))
    run = OwnProcess()
    assert run("run", "sort_letters", cwd=inbox.root).code == 1
    began = {
        "sort-letters: run ",
        "sort-letters: 4 of 4 documents wait (",
        "model small: out for",
        "worker gone",
    }
    wait_for_texts(receiver, began)
    assert run("run", "sort_letters", cwd=inbox.root).code == 1
    time.sleep(5)
    assert len(receiver.got) == len(began)
    emit_event("prefect.work-pool.ready", resource)
    standin.answer(good)
    assert run("run", "sort_letters", cwd=inbox.root).code == 0
    over = {
        "sort-letters: good again",
        "sort-letters: no more than 20 % of the documents wait",
        "model small: answers again",
        "worker back",
    }
    wait_for_texts(receiver, over)
    time.sleep(3)
    assert len(receiver.got) == len(began) + len(over)
    assert len(MAILS) == len(receiver.got)
    assert {mail["to"] for mail in MAILS} == {"ops@example.com"}
    assert "Letter" not in json.dumps(receiver.got)
    assert "boom" not in json.dumps(receiver.got)


@pytest.mark.timeout(300)
@pytest.mark.skipif(
    "TIERWISE_SERVER_TEST" not in os.environ, reason="make server-test runs it"
)
def test_a_webhook_gets_each_alert_once_and_its_end(server: str) -> None:
    from prefect.client.orchestration import get_client

    receiver = Receiver()
    settings = AlertSettings(webhook="HOOK", on=("failed", "worker", "outage"))
    env = {"HOOK": receiver.url}
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("claims")

    line = make_alerts(settings, env, server, [])
    assert line == "alerts: to webhook ($HOOK), on failed, worker, outage"
    time.sleep(2)
    for kind, name in (("FAILED", "Failed"), ("CRASHED", "Crashed")):
        end_run(flow, kind, name)
    assert len(receiver.texts(1)) == 1
    first = receiver.got[0]
    assert first["text"].startswith("claims: run ")
    assert first["text"].endswith(" ended Failed")
    assert first["link"].startswith(f"{server}/runs/flow-run/")
    assert first["alert"] == "failed"
    assert first["over"] is False
    end_run(flow, "COMPLETED", "NeedsAttention")
    end_run(flow, "COMPLETED", "Completed")
    assert "good again" in receiver.texts(2)[1]
    # The same settings change nothing, and a later failure is a new one.
    make_alerts(settings, env, server, [])
    end_run(flow, "CRASHED", "Crashed")
    texts = receiver.texts(3)
    assert texts[2].endswith("ended Crashed")
    assert len(texts) == 3
    assert TOKEN not in json.dumps(receiver.got)
    with get_client(sync_client=True) as client:
        names = {automation.name for automation in client.read_automations()}
        assert f"{PREFIX}run failed" in names
        make_alerts(AlertSettings(), {}, server, [])
        assert client.read_automations() == []
