"""Background services: started detached from the terminal, found by their lock, and stopped.

A service holds the lock of its pid file as long as it lives, so another process with the same
number is never mistaken for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tierwise.errors import Misuse
from tierwise.text.files import write_atomically
from tierwise.text.private import (
    FILE_MODE,
    PRIVATE_UMASK,
    open_private,
    private_folder,
)

FOLDER = Path(".tierwise/services")  # below the project's root
_ADDRESS = "server.url"
_DESK_ADDRESS = "desk.url"
_SERVER = "server"
_DESK = "desk"
_LOCKED_S = 1.0  # a lock that is held for longer is a living service's


@dataclass(frozen=True)
class Service:
    """One process of a project, with its pid and its log in `folder`."""

    folder: Path
    name: str

    @property
    def log(self) -> Path:
        """The file with what it printed, over its starts; `log_rotation` keeps it short."""
        return self.folder / f"{self.name}.log"

    def pid(self) -> int | None:
        """Return its process id while it lives."""
        try:
            with self._file.open("rb") as file:
                if not _is_locked(file.fileno()):
                    return None
                return int(file.read() or 0)
        except FileNotFoundError:
            return None

    def start(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        *,
        umask: int = -1,
    ) -> None:
        """Start it, out of reach of this terminal's Ctrl-C.

        `umask` is for the files that it creates; by default that of this process.
        Raises Misuse where it runs already, or the system has no such locks.
        """
        private_folder(self.folder)
        self.foreground_mark.unlink(missing_ok=True)
        with (
            open(self._file, "a+b", opener=open_private) as file,
            open(self.log, "ab", opener=open_private) as log,
        ):
            if not _lock(file.fileno()):
                raise Misuse(f"the {self.name} runs already (process {self.pid()})")
            process = subprocess.Popen(  # noqa: S603 - the caller's own command
                list(command),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[file.fileno()],
                umask=umask,
            )
            file.truncate(0)
            file.write(str(process.pid).encode())

    def become(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path
    ) -> NoReturn:
        """Turn this process into the service, in the foreground, under the same lock.

        Raises Misuse where the service runs already.
        """
        private_folder(self.folder)
        file = open(self._file, "a+b", opener=open_private)  # noqa: SIM115
        if not _lock(file.fileno()):
            raise Misuse(f"the {self.name} runs already (process {self.pid()})")
        # Before its number: whoever reads that finds the mark too.
        self.foreground_mark.touch(mode=FILE_MODE)
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        # The lock lives as long as the program that takes this one's place.
        os.set_inheritable(file.fileno(), True)
        # The files of server and desk are their owner's alone; those of a worker's flows follow
        # the umask.
        if self.name in (_SERVER, _DESK):
            os.umask(PRIVATE_UMASK)
        os.chdir(cwd)
        os.execvpe(command[0], list(command), dict(env))  # noqa: S606 - the caller's own command

    @property
    def foreground_mark(self) -> Path:
        """The file that says who starts it again: systemd or the like, and not `up`."""
        return self.folder / f"{self.name}.foreground"

    def is_in_foreground(self) -> bool:
        """Return True if it runs in the foreground of systemd or the like."""
        return self.pid() is not None and self.foreground_mark.exists()

    def stop(self, seconds: float = 20) -> None:
        """Stop it and its children: by SIGTERM, and after `seconds` by SIGKILL.

        Does nothing when it has ended.
        """
        pid = self.pid()
        if not pid:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            if not self._ended_within(seconds):
                os.killpg(pid, signal.SIGKILL)
                self._ended_within(5)

    def last_words(self) -> str:
        """Return the last line of its log that is not empty."""
        if not self.log.exists():
            return "it said nothing"
        for line in reversed(self.log.read_text(errors="replace").splitlines()):
            if line.strip():
                return line.strip()
        return "it said nothing"

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pid() is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.pid() is None


def server_of(root: Path) -> Service:
    """Return the service of a project's Prefect server."""
    return Service(root / FOLDER, _SERVER)


def worker_of(root: Path) -> Service:
    """Return the service of the worker that runs a project's deployments."""
    return Service(root / FOLDER, "worker")


def supervisor_of(root: Path) -> Service:
    """Return the service that starts the others again when they die."""
    return Service(root / FOLDER, "supervisor")


def desk_of(root: Path) -> Service:
    """Return the service of the desk's pages."""
    return Service(root / FOLDER, _DESK)


def desk_address(root: Path) -> str | None:
    """Return the address of the desk of `tierwise up`; None while it is down."""
    return remembered_desk_address(root) if desk_of(root).pid() is not None else None


def remembered_desk_address(root: Path) -> str | None:
    """Return the address that the desk had last; None before its first start."""
    try:
        return (root / FOLDER / _DESK_ADDRESS).read_text().strip() or None
    except FileNotFoundError:
        return None


def write_desk_address(root: Path, url: str) -> None:
    """Store the address at which the desk will listen."""
    folder = private_folder(root / FOLDER)
    write_atomically(folder / _DESK_ADDRESS, url + "\n", private=True)


def address(root: Path) -> str | None:
    """Return the address of the project's own Prefect server; None while it is down.

    It is such as `http://127.0.0.1:4200`.
    """
    return remembered_address(root) if server_of(root).pid() is not None else None


def remembered_address(root: Path) -> str | None:
    """Return the address that the project's own server had last; None before its first start."""
    try:
        return (root / FOLDER / _ADDRESS).read_text().strip() or None
    except FileNotFoundError:
        return None


def write_address(root: Path, url: str) -> None:
    """Store the address at which the server will listen, for `address`."""
    folder = private_folder(root / FOLDER)
    write_atomically(folder / _ADDRESS, url + "\n", private=True)


def _lock(descriptor: int) -> bool:
    """Hold a file's lock until every copy of this descriptor is closed; False if it is held.

    Raises Misuse where the system has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        raise Misuse(
            "services need Linux or macOS; elsewhere start Prefect's server and worker by hand"
        ) from None
    deadline = time.monotonic() + _LOCKED_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Whoever asks for the process id holds it for a moment.
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _is_locked(descriptor: int) -> bool:
    """Return True if another process holds a file's lock; False where the system has none."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except ImportError:
        return False
    except BlockingIOError:
        return True
    return False
