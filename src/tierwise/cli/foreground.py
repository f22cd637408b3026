"""`tierwise up --foreground SERVICE`: one service in the place of this process, for systemd.

The process becomes Prefect's server, a worker or the desk, under the same lock and at the same
address as in the background. The worker's start ends dead runs and deploys, as `tierwise up` does.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, NoReturn

import typer

from tierwise.errors import TierwiseError

if TYPE_CHECKING:
    from pathlib import Path

_SERVER_ANSWERS_IN_S = 120.0  # after that, systemd tries again


def become_server(root: Path, url: str) -> NoReturn:
    """Become the project's server at an address."""
    from tierwise.orchestrate.api_password import use_server
    from tierwise.orchestrate.services import server_of, write_address
    from tierwise.orchestrate.supervision import (
        forget_lease_lock,
        server_command,
        server_variables,
    )

    forget_lease_lock(root)
    write_address(root, url)
    # Before it runs, so that a worker that waits for it has the password.
    use_server(root, url)
    env = {**os.environ, **server_variables(root, url)}
    server_of(root).become(server_command(url), env, root)


def become_worker(root: Path) -> NoReturn:
    """Become a worker, once the server answers; beside it, a supervisor ends dead runs."""
    from tierwise.cli.up import deploy, recover, restrict_pool
    from tierwise.orchestrate.services import worker_of
    from tierwise.orchestrate.supervision import (
        supervisor_command,
        supervisor_variables,
        worker_command,
        worker_variables,
    )

    _await_server(root)
    from tierwise.orchestrate.server import hold_back

    recover(root)
    # Another machine's server keeps what its own project has deployed.
    if _is_own_server(root):
        restrict_pool(root)
        deploy(root)
        hold_back(paused=False)
    # It ends by itself when the worker that this process becomes has ended.
    subprocess.Popen(  # noqa: S603 - our own interpreter and module
        supervisor_command(only_runs=True),
        env={**os.environ, **supervisor_variables()},
        cwd=root,
        stdin=subprocess.DEVNULL,
    )
    env = {**os.environ, **worker_variables()}
    worker_of(root).become(worker_command(), env, root)


def become_desk(root: Path, port: int | None) -> NoReturn:
    """Become the desk, at a port, else at its last one, else at that of the settings."""
    from tierwise.desk.server import Place, listen
    from tierwise.orchestrate.services import (
        desk_of,
        remembered_desk_address,
        write_desk_address,
    )
    from tierwise.orchestrate.supervision import desk_command
    from tierwise.project import Project

    if port is None:
        remembered = remembered_desk_address(root)
        port = Project(root).settings.desk.port
        if remembered:
            port = int(remembered.rpartition(":")[2])
    place = Place(host="127.0.0.1", port=port)
    # Before it becomes the desk: a port that another process has is said in words.
    listen(place.host, port).close()
    write_desk_address(root, place.url)
    desk_of(root).become(desk_command(place.url), dict(os.environ), root)


def _await_server(root: Path) -> None:
    """Wait for the server that is configured, else for the project's own. Raises TierwiseError."""
    from tierwise.orchestrate.api_password import use_server
    from tierwise.orchestrate.environment import ADDRESS, answers, no_server_at
    from tierwise.orchestrate.services import remembered_address

    if ADDRESS not in os.environ:
        own = remembered_address(root)
        if own is None:
            raise TierwiseError(
                "no server is known; start it first: tierwise up --foreground server"
            )
        use_server(root, own)
    url = os.environ[ADDRESS]
    typer.echo(f"worker: waiting for the server at {url}", err=True)
    # Prefect is imported after it, and reads the address then.
    deadline = time.monotonic() + _SERVER_ANSWERS_IN_S
    while not answers(url):
        if time.monotonic() > deadline:
            raise TierwiseError(no_server_at(url))
        time.sleep(0.5)


def _is_own_server(root: Path) -> bool:
    """Return True if the server in use is that of this project on this machine."""
    from tierwise.orchestrate.environment import ADDRESS
    from tierwise.orchestrate.services import remembered_address

    return os.environ[ADDRESS] == f"{remembered_address(root)}/api"
