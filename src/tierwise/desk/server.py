"""The desk's own server: uvicorn on one socket, and the rules for the address it may have."""

from __future__ import annotations

import getpass
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from tierwise.desk import overview_facts
from tierwise.desk.access import Access, ensure_key
from tierwise.desk.app import build_app
from tierwise.desk.comparing import variants_of
from tierwise.desk.desk import Desk, compile_templates
from tierwise.desk.desk_watch import alerts_reported
from tierwise.desk.ended_sessions import EndedSessions
from tierwise.desk.labelling import order_of
from tierwise.desk.pages.run import summary_of
from tierwise.desk.people import People
from tierwise.desk.telemetry import calls_sent
from tierwise.errors import Misuse, TierwiseError
from tierwise.ledger import Ledger
from tierwise.policy.desk_settings import DeskSettings
from tierwise.project import Project

_FRESH_S = 10.0  # between two looks at the figures


def access_for(
    root: Path,
    settings: DeskSettings,
    host: str,
    port: int,
    *,
    is_secure: bool = False,
) -> Access:
    """Return how people get into a desk at this address.

    On loopback there is a link for the user who started it. Raises Misuse for another address
    without a password file or a proxy, since anyone may reach it there.
    """
    people = People.of(root)
    is_local = is_loopback(host)
    if not is_local and not people.accounts() and settings.proxy is None:
        raise Misuse(
            f"at {host} others can reach the desk, and there is nobody who may sign in: add people "
            "with `tierwise desk add NAME`, or name a proxy in [tool.tierwise.desk.proxy]"
        )
    return Access(
        key=ensure_key(root),
        hosts=hosts_of(host, port, settings.names),
        # Browsers keep one set of cookies for all ports of a machine.
        cookie=f"tierwise-desk-{port}",
        people=people,
        ended=EndedSessions(root),
        link_user=_user_name() if is_local else None,
        proxy=settings.proxy,
        sees=settings.sees,
        is_secure=is_secure,
    )


def hosts_of(host: str, port: int, names: Iterable[str]) -> frozenset[str]:
    """Return the values of the Host header that a desk answers."""
    hosts = {name.lower() for name in names}
    # A name of its own without a port is on this one, or behind a proxy on a usual one.
    hosts |= {f"{name}:{port}" for name in hosts if ":" not in name}
    shown = f"[{host}]" if ":" in host else host
    hosts.add(f"{shown}:{port}".lower())
    if is_loopback(host):
        hosts |= {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    return frozenset(hosts)


def is_loopback(host: str) -> bool:
    """Return True for an address that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket at an address. Raises Misuse where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Misuse(
            f"the desk cannot listen at {host}, port {port}: {error.strerror}; "
            "choose another port with --port"
        ) from None
    return listener


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a desk listens, and what it speaks there."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    @property
    def url(self) -> str:
        """The desk's address."""
        scheme = "http" if self.certificate is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    def access(self, root: Path, settings: DeskSettings) -> Access:
        """Return how people get in: see `access_for`."""
        is_secure = self.certificate is not None
        return access_for(root, settings, self.host, self.port, is_secure=is_secure)


def link_of(access: Access, url: str) -> str:
    """Return the address to open first: with the token where there is a link."""
    if access.link_user is None:
        return url
    return f"{url}/enter?token={access.link_token}"


def serve(
    project: Project,
    ledger: Ledger,
    access: Access,
    place: Place,
    listener: socket.socket,
    prefect_url: Callable[[], str | None],
) -> None:
    """Serve a project's desk until a signal ends it."""
    app = build_app(project, ledger, access, prefect_url=prefect_url)
    desk: Desk = app.state.desk
    # The first look at a large ledger takes seconds, so it does not wait for a visitor.
    threading.Thread(target=warm_up, args=[app], daemon=True).start()
    with alerts_reported(desk, place.url), calls_sent(desk), kept_fresh(desk):
        server = make_server(app, certificate=place.certificate, key=place.key)
        server.run(sockets=[listener])


def warm_up(app: FastAPI) -> None:
    """Read what the first visitor of each page would wait for.

    The reads are those of the pages, so that a page which comes meanwhile waits for the same one.
    """
    desk: Desk = app.state.desk
    reads: tuple[Callable[[], object], ...] = (
        compile_templates,
        lambda: overview_facts.all_spending(desk),
        lambda: overview_facts.running(desk, time.time()),
        lambda: [summary_of(desk, run) for run, _ in overview_facts.all_runs(desk)[:1]],
        lambda: overview_facts.all_answers(desk),
        lambda: overview_facts.all_labels(desk),
        lambda: overview_facts.files_facts(desk),
        lambda: overview_facts.waiting(desk, time.time()),
        lambda: desk.queue.rows(desk),
        lambda: order_of(desk),
        lambda: variants_of(desk),
    )
    for read in reads:
        # The first page says what is wrong, and one fault keeps no other page waiting.
        with suppress(TierwiseError):
            read()
    # From now on these read what is new alone: how long that takes says how often they may.
    desk.kept.renew()
    for again in (overview_facts.all_runs, overview_facts.all_answers):
        with suppress(TierwiseError):
            again(desk)


@contextmanager
def kept_fresh(desk: Desk) -> Iterator[None]:
    """Read new figures now and then while the block runs, so that no visitor waits for them."""
    over = threading.Event()

    def look_now_and_then() -> None:
        while not over.wait(_FRESH_S):
            with suppress(TierwiseError):
                for read in (
                    overview_facts.all_runs,
                    overview_facts.all_spending,
                    overview_facts.all_answers,
                    overview_facts.all_labels,
                    overview_facts.files_facts,
                    overview_facts.queue,
                ):
                    read(desk)

    thread = threading.Thread(target=look_now_and_then, name="figures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def make_server(
    app: FastAPI, *, certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Server:
    """Return a server for an application; `run(sockets=[...])` serves until a signal."""
    config = uvicorn.Config(
        app,
        # Addresses would be in the log, and that of the link has its token.
        access_log=False,
        server_header=False,
        # The peer of the socket is the only address that a sender cannot choose.
        proxy_headers=False,
        log_level="warning",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=3,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    return uvicorn.Server(config)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "owner"
