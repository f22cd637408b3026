"""A Prefect server that lives as long as this process, started while everything else is imported.

Prefect starts one itself where none is configured, but only at the first request, and after it has
imported the whole server here, too. This one imports beside this process, takes its database from a
template, and is the same in all other respects.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tierwise.errors import TierwiseError
from tierwise.gateway.local.weights import cache_folder
from tierwise.orchestrate.api_password import protect_temporary_server
from tierwise.orchestrate.environment import (
    ADDRESS,
    database_problem,
    database_url,
    prefect_database,
)
from tierwise.orchestrate.services import FOLDER
from tierwise.text.private import open_private, private_folder

CHILD = Path(__file__).with_name("temporary_server_child.py")
_ENDS_IN_S = 5.0


@dataclass(frozen=True)
class TemporaryServer:
    """The process of a temporary server, its address, and the file with its errors."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    root: Path

    def wait_until_ready(self) -> None:
        """Wait for the server. Raises TierwiseError with its last words when it ended."""
        stdout = cast("IO[str]", self.process.stdout)
        for line in stdout:
            if line == "ready\n":
                return
        self.process.wait()
        problem = database_problem(self.root)
        if problem:
            raise TierwiseError(problem)
        lines = self.log.read_text(errors="replace").splitlines()
        reason = lines[-1] if lines else "it gave no reason"
        raise TierwiseError(
            f"Prefect's temporary server did not start: {reason}; see {self.log}"
        )

    def stop(self) -> None:
        """Have the server finish its requests and end; kill it when that takes too long."""
        stdin = cast("IO[str]", self.process.stdin)
        with suppress(BrokenPipeError):
            stdin.close()
        try:
            self.process.wait(_ENDS_IN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Current:
    """The temporary server of this process, if there is one."""

    server: TemporaryServer | None = None


def start_temporary_server(root: Path) -> TemporaryServer | None:
    """Start a server for a project, and have Prefect use it; return at once.

    Call it after `prepare_prefect` and before Prefect is imported. Return None where it is imported
    already, where another server may be configured, and on Windows: then Prefect chooses.
    """
    if _Current.server or "prefect" in sys.modules or os.name == "nt":
        return _Current.server
    # Prefect's database goes there, too, where Prefect starts a server of its own.
    log = root / FOLDER / "temporary-server.log"
    private_folder(log.parent)
    if not protect_temporary_server(root):
        return None
    # The socket listens from now on, so that a request waits for the server instead of failing.
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        open(log, "wb", opener=open_private) as errors,
    ):
        port = listening.getsockname()[1]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [*_command(root), "--fd", str(listening.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            pass_fds=[listening.fileno()],
            # Ctrl-C is for this process, which still reports the end of its run.
            start_new_session=True,
        )
    server = TemporaryServer(process, f"http://127.0.0.1:{port}", log, root)
    atexit.register(server.stop)
    os.environ[ADDRESS] = f"{server.url}/api"
    _Current.server = server
    return server


def temporary_server() -> TemporaryServer | None:
    """Return the temporary server of this process."""
    return _Current.server


def _command(root: Path) -> list[str]:
    command = [sys.executable, "-P", str(CHILD)]
    # Another database is another program's to create.
    if os.environ.get("PREFECT_SERVER_DATABASE_CONNECTION_URL") == database_url(root):
        templates = cache_folder(os.environ) / "prefect"
        command += ["--database", str(prefect_database(root))]
        command += ["--templates", str(templates)]
    return command
