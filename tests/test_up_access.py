"""Strangers at the server of `tierwise up`: a page of another site, another user, a wrong password.

One real server and worker, and Debian's Chromium, so it runs with `make server-test`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.kit.projects import make_project, model
from tests.kit.standin import Standin, unused_address
from tests.test_access import files_with
from tests.test_comeback import patient, processes_of
from tests.test_up import House
from tests.ui.conftest import CHROMIUM
from tierwise.orchestrate.api_password import (
    password_file,
    read_password,
    shell_file,
)
from tierwise.orchestrate.services import server_of, supervisor_of, worker_of

pytestmark = [
    pytest.mark.skipif(
        "TIERWISE_SERVER_TEST" not in os.environ, reason="make server-test runs it"
    ),
    pytest.mark.timeout(400),
]
DEPLOYED = """
deployments:
  - name: long
    entrypoint: flows/contract_intake.py:contract_intake
    work_pool: {name: tierwise}
    concurrency_limit: 1
    parameters: {source: long, out: out/long}
"""
SECOND_USER = 65534
# Everything that a page can send, with the headers that the page knows. Gives what it got to read.
ATTEMPTS = """
async ([api, deployment, token]) => {
  const auth = token ? {Authorization: `Basic ${token}`} : {};
  const plain = {"Content-Type": "text/plain", ...auth};
  const typed = {"Content-Type": "application/json", ...auth};
  const one = `${api}/deployments/${deployment}`;
  const start = `${one}/create_flow_run`;
  const asked = {
    read: [one, {headers: auth}],
    readWithCookies: [`${api}/admin/settings`, {headers: auth, credentials: "include"}],
    postEmpty: [start, {method: "POST", headers: auth}],
    postBlind: [
      start, {method: "POST", mode: "no-cors", credentials: "include", body: "{}"}
    ],
    postText: [start, {method: "POST", headers: plain, body: "{}"}],
    postJson: [start, {method: "POST", headers: typed, body: "{}"}],
    pause: [`${api}/work_pools/tierwise`, {method: "PATCH", headers: typed, body: "{}"}],
  };
  const got = {};
  for (const [name, [url, options]] of Object.entries(asked)) {
    try {
      let reply = await fetch(url, options);
      while (reply.status === 503) {  // its database is busy
        reply = await fetch(url, options);
      }
      got[name] = `${reply.status} ${await reply.text()}`;
    } catch (error) {
      got[name] = "";
    }
  }
  const form = document.createElement("form");
  form.method = "post";
  form.action = start;
  form.enctype = "text/plain";
  form.target = "frame";
  const frame = document.createElement("iframe");
  frame.name = "frame";
  document.body.append(frame, form);
  const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
  form.submit();
  await Promise.race([loaded, new Promise((resolve) => setTimeout(resolve, 5000))]);
  for (const path of ["events/out", "events/in", "logs/out"]) {
    got[path] = await new Promise((resolve) => {
      const socket = new WebSocket(`${api.replace("http", "ws")}/${path}`, "prefect");
      let heard = "";
      socket.onopen = () => {
        socket.send(JSON.stringify({type: "auth", token: token ? atob(token) : ""}));
      };
      socket.onmessage = (message) => {
        heard += message.data;
        socket.close();
      };
      socket.onclose = () => resolve(heard);
    });
  }
  return got;
}
"""
# All that another user can find out by itself: files, processes, and the server's answers.
BY_SECOND_USER = """
import json, os, sys, urllib.error, urllib.request
from pathlib import Path
root, pids, start = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3]
read = []
def open_all(paths):
    for path in paths:
        try:
            path.read_bytes()
        except OSError:
            continue
        read.append(str(path))
listed = os.access(root, os.X_OK) and os.listdir(root)
services = root / ".tierwise" / "services"
open_all([services / name for name in ("api-password", "prefect.env", "server.log")])
open_all([root / ".tierwise" / "ledger.db", root / ".tierwise" / "prefect" / "prefect.db"])
open_all([Path("/proc") / pid / name for pid in pids for name in ("environ", "mem")])
lines = [(Path("/proc") / pid / "cmdline").read_text() for pid in pids]
answers = []
for token in (None, "Basic Og==", "Bearer x"):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = token
    request = urllib.request.Request(start, b"{}", headers)
    try:
        answers.append(urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        answers.append(error.code)
print(json.dumps({"listed": listed, "read": read, "lines": lines, "answers": answers}))
"""


class Page(BaseHTTPRequestHandler):
    """An empty page of another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>page</title><body></body>")

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """In a folder that another user may enter, as a home often is."""
    with Standin() as provider, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        provider.latency_s = 3600
        models = [patient(model(name, provider.url)) for name in ("small", "large")]
        root = make_project(Path(folder) / "p", *models)
        (root / "prefect.yaml").write_text(DEPLOYED)
        (root / "long").mkdir()
        (root / "long" / "a.txt").write_text("The first contract binds.")
        house = House(root, provider, unused_address().rpartition(":")[2])
        try:
            house.tierwise("up", "--port", house.port)
            yield house
        finally:
            provider.latency_s = 0
            house.tierwise("down", "--now")


@pytest.fixture
def other_site() -> Iterator[str]:
    """The port of another site on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield str(server.server_port)
    server.shutdown()
    server.server_close()


def pids(house: House) -> list[int]:
    """The processes of all services."""
    services = [of(house.root) for of in (server_of, worker_of, supervisor_of)]
    return [pid for service in services if (pid := service.pid())]


def start_address(house: House) -> str:
    """Where a run of the deployment is started."""
    deployment = house.deployment("long")["id"]
    api = f"http://127.0.0.1:{house.port}/api"
    return f"{api}/deployments/{deployment}/create_flow_run"


def test_another_user_reads_no_password_and_starts_nothing(house: House) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    numbers = " ".join(str(pid) for pid in pids(house))
    command = [sys.executable, "-I", "-c", BY_SECOND_USER]
    done = subprocess.run(
        [*command, str(house.root), numbers, start_address(house)],
        user=SECOND_USER,
        group=SECOND_USER,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "flows" in found["listed"]
    assert found["read"] == []
    assert found["answers"] == [401, 401, 401]
    assert len(found["lines"]) == 3
    assert house.auth[1] not in done.stdout
    assert house.post("/flow_runs/count", {}) == 0


def test_the_password_is_in_two_files_of_its_owner_and_in_no_argument(
    house: House,
) -> None:
    password = str(read_password(house.root))
    files = files_with(house.root, password)
    assert sorted(files) == sorted([password_file(house.root), shell_file(house.root)])
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o600
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_bytes())
        except OSError:  # it has ended
            continue
    assert any(house.port.encode() in line for line in lines)
    assert not any(house.auth[1].encode() in line for line in lines)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
def test_a_page_of_another_site_reads_nothing_and_starts_nothing(
    house: House, other_site: str
) -> None:
    """Also one whose name comes to mean this machine; the server's own page can do all of it."""
    from playwright.sync_api import sync_playwright

    api = f"http://127.0.0.1:{house.port}/api"
    deployment = house.deployment("long")["id"]
    token = base64.b64encode(str(read_password(house.root)).encode()).decode()
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP *.example 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = browser.new_context()
        own = context.new_page()
        own.goto(f"http://127.0.0.1:{house.port}/api/health")
        # As the UI keeps it for a person who has signed in.
        own.evaluate(f"localStorage.setItem('prefect-password', '{token}')")
        attempts = partial(attempt, context, deployment=deployment)

        there = attempts(f"http://hostile.example:{other_site}/", api)
        near = attempts(f"http://127.0.0.1:{other_site}/", api)
        rebound = f"http://rebound.example:{house.port}"
        context.route(f"{rebound}/page", answer_as_hostile)
        same_origin = attempts(f"{rebound}/page", f"{rebound}/api")
        count = house.post("/flow_runs/count", {})
        by_owner = own.evaluate(ATTEMPTS, [api, deployment, token])
        browser.close()
    for got in (there, near):
        blind = got.pop("postBlind")
        assert blind == "0 "  # the browser hides the refusal, too
        assert not any(got.values()), got
    for name, text in same_origin.items():
        assert text == "" or text.startswith("401 "), name
    assert count == 0
    assert by_owner["read"].startswith("200 ")
    assert by_owner["postJson"].startswith("201 ")
    assert "auth_success" in by_owner["events/out"]
    assert house.post("/flow_runs/count", {}) >= 1


def attempt(context: Any, page_address: str, api: str, deployment: str) -> Any:
    """What a page at an address gets from the API without the password."""
    page = context.new_page()
    page.goto(page_address)
    return page.evaluate(ATTEMPTS, [api, deployment, ""])


def answer_as_hostile(route: Any) -> None:
    """The page came from the hostile server, before its name was changed to this machine."""
    body = "<title>page</title><body></body>"
    route.fulfill(status=200, content_type="text/html", body=body)


def test_where_the_password_file_was_replaced_a_run_ends_only_with_now(
    house: House,
) -> None:
    """`up` and `down` change nothing, and say what does."""
    house.post(start_address(house).partition("/api")[2], {})
    run = house.run_in("Running", "contract-intake")
    house.wait(lambda: house.provider.count >= 1)
    [process] = processes_of(house, run)
    before = pids(house)
    file = password_file(house.root)
    real = file.read_text()
    file.write_text("tierwise:another\n")
    for arguments in (["up"], ["up", "--port", "4999"], ["down"]):
        started = house.started(*arguments)
        out, err = started.communicate()
        assert started.returncode == 2, out
        assert f"does not take the password in {file}" in err
        assert "tierwise down --now" in err
    assert pids(house) == before
    # What the owner's shell uses is not replaced by what the server refuses.
    assert real.strip() in shell_file(house.root).read_text()

    house.tierwise("down", "--now")
    assert pids(house) == []
    house.wait(lambda: not Path(f"/proc/{process}").exists())
    assert house.newest("long")["state"] == "cancelled"
    assert "nothing runs" in house.tierwise("down")
