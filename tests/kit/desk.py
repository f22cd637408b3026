"""A desk on a real socket, and a browser's view of it without a browser."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from fastapi import FastAPI

from tierwise.desk.access import Access
from tierwise.desk.app import build_app
from tierwise.desk.server import access_for, listen, make_server
from tierwise.ledger import Ledger
from tierwise.policy.desk_settings import Role, Sees
from tierwise.project import Project

PASSWORD = "correct horse battery"


@dataclass
class ServedDesk:
    """A desk that answers at `url`."""

    url: str
    ledger: Ledger
    access: Access
    project: Project
    app: FastAPI
    _clients: list[httpx.Client] = field(default_factory=list)

    def browser(self, **settings: Any) -> Browser:
        """Return a browser without a session."""
        client = httpx.Client(
            base_url=self.url, timeout=30, trust_env=False, **settings
        )
        self._clients.append(client)
        return Browser(client, self.url)

    def signed_in(self, role: Role = "admin", name: str | None = None) -> Browser:
        """Return the browser of a person with a role, who has signed in by password or link."""
        browser = self.browser()
        if role == "admin" and name is None:
            browser.get(f"/enter?token={self.access.link_token}")
            return browser
        person = name or f"some {role}"
        self.access.people.add(person, role, PASSWORD)
        answer = browser.post("/sign-in", {"name": person, "password": PASSWORD})
        assert answer.status_code == 303
        return browser

    def close(self) -> None:
        """End all browsers."""
        for client in self._clients:
            client.close()


@dataclass
class Browser:
    """One browser: its cookies, the pages that it loads and the forms that it sends."""

    client: httpx.Client
    url: str
    csrf: str = ""

    def get(self, path: str, **settings: Any) -> httpx.Response:
        """Load a page, without following where it leads; remember its CSRF token."""
        answer = self.client.get(path, **settings)
        token = re.search('name="csrf" value="([^"]*)"', answer.text)
        if token:
            self.csrf = token[1]
        return answer

    def post(
        self,
        path: str,
        form: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a form as a page of the desk does: with its token and its origin."""
        if path != "/sign-in" and not self.csrf:
            self.get("/")
        fields = {"csrf": self.csrf, **(form or {})}
        origin = {"origin": self.url, "sec-fetch-site": "same-origin"}
        # As a hostile client sends them: half characters, which no browser sends, as bytes.
        body = urlencode(fields, doseq=True, errors="surrogatepass")
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.client.post(
            path, content=body, headers={**kind, **origin, **(headers or {})}
        )


@contextmanager
def desk_at(
    root: Path, *, sees: Sees | None = None, keep_s: float = 0.0, **access: Any
) -> Iterator[ServedDesk]:
    """Serve a project's desk on a free port of this machine; `access` replaces parts of it."""
    project = Project(root)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    made = access_for(root, project.settings.desk, "127.0.0.1", port)
    if sees is not None:
        access["sees"] = sees
    made = replace(made, **access)
    with Ledger.open(project.ledger_url, root=root) as ledger:
        app = build_app(project, ledger, made, keep_s=keep_s)
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        served = ServedDesk(f"http://127.0.0.1:{port}", ledger, made, project, app)
        try:
            _await(port)
            yield served
        finally:
            served.close()
            server.should_exit = True
            thread.join(20)
            listener.close()


def _await(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the desk does not answer")
