"""The services of `tierwise up`: how each is started, what is wanted, what starts again.

A supervisor is a service, too: it starts the others again when they die, and ends the flow runs
whose process is dead. Where systemd does the first, it does the second alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from tierwise.errors import TierwiseError
from tierwise.ledger.processes import name_of_place
from tierwise.lint.job_variables import POOL
from tierwise.orchestrate.api_password import ADDRESS, CLIENT, server_environment
from tierwise.orchestrate.environment import FLOW_RETRIES, RETRIES, prefect_home
from tierwise.orchestrate.log_rotation import rotate
from tierwise.orchestrate.services import (
    FOLDER,
    Service,
    desk_of,
    remembered_address,
    remembered_desk_address,
    server_of,
    supervisor_of,
    worker_of,
)
from tierwise.text.files import write_atomically
from tierwise.text.private import FILE_MODE, PRIVATE_UMASK

LOCK = "up.lock"  # held by `up`, by `down`, and by a supervisor that starts something
LOCKED_S = 3.0  # a supervisor is done by then; another command may take minutes
# This environment's Prefect, and not whichever comes first on the path.
_PREFECT = (sys.executable, "-m", "prefect")
_WANTED = "wanted.json"
_EVERY_S = 10.0
# A service that dies again soon is started less and less often.
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0
_LEASES = "tierwise.orchestrate.lease_storage"


def server_command(url: str) -> list[str]:
    """Return the command of a Prefect server at an address of this machine."""
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    return [*_PREFECT, "server", "start", "--host", host, "--port", str(parts.port)]


def worker_command() -> list[str]:
    """Return the command of a worker on the work pool of `tierwise up`."""
    # Recovery reads from the name where the number of a run's process counts.
    named = ["--name", name_of_place()]
    return [*_PREFECT, "worker", "start", "--pool", POOL, "--type", "process", *named]


def desk_command(url: str) -> list[str]:
    """Return the command of the desk at an address of this machine."""
    return [sys.executable, "-m", "tierwise.cli.desk_service", str(urlsplit(url).port)]


def supervisor_command(*, only_runs: bool = False) -> list[str]:
    """Return the command of a supervisor; `only_runs`: it starts no services, and ends with its
    parent.
    """
    command = [sys.executable, "-m", "tierwise.cli.supervise"]
    return [*command, "--only-runs"] if only_runs else command


def server_variables(root: Path, url: str) -> dict[str, str]:
    """Return the variables of a server at an address, on top of this process's."""
    return {
        **server_environment(root, url),
        # Leases in memory would be lost with the server, and live runs with them.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
    }


def worker_variables() -> dict[str, str]:
    """Return the variables of a worker and its flows, on top of this process's."""
    return {
        # The worker's log is where a failed run is looked up.
        "PREFECT_LOGGING_LEVEL": "INFO",
        RETRIES: FLOW_RETRIES,
    }


def supervisor_variables() -> dict[str, str]:
    """Return the variables of a supervisor, on top of this process's."""
    # It asks again at its next look, and must not wait for a server that it has to start.
    return {RETRIES: "0"}


def start(
    service: Service, command: list[str], variables: Mapping[str, str], root: Path
) -> None:
    """Start a service for the server that this process is configured for."""
    # The server's files are its owner's alone; those of a worker's flows follow the umask.
    is_private = service in (server_of(root), desk_of(root))
    umask = PRIVATE_UMASK if is_private else -1
    service.start(command, {**os.environ, **variables}, root, umask=umask)
    write_atomically(_mark(service), _server_in_use() + "\n", private=True)


def is_current(service: Service) -> bool:
    """Return True if a service was started for the server's present address and password."""
    with suppress(OSError):
        return _mark(service).read_text().strip() == _server_in_use()
    return False


def end_alone(service: Service) -> None:
    """End a service and leave its children, such as the flows of a worker, alive."""
    pid = service.pid()
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while service.pid() is not None:
        time.sleep(0.05)


def forget_lease_lock(root: Path) -> None:
    """Remove the lock of the slots' leases before a server starts.

    Prefect tells a stale one by the number of its process, which another process may have after a
    reboot. Then the server would wait for ever.
    """
    leases = Path(os.environ.get("PREFECT_HOME") or prefect_home(root))
    (leases / "concurrency_leases" / "expirations.lock").unlink(missing_ok=True)


def wanted(root: Path) -> set[str]:
    """Return the names of the services that should run in this project."""
    try:
        return set(json.loads((root / FOLDER / _WANTED).read_text()))
    except (OSError, ValueError):
        return set()


def want(root: Path, names: set[str]) -> None:
    """Remember which services should run, for the supervisor and the next `up`."""
    path = root / FOLDER / _WANTED
    if names:
        write_atomically(path, json.dumps(sorted(names)) + "\n", private=True)
    else:
        path.unlink(missing_ok=True)


class Supervisor:
    """Starts again what died, ends dead runs and rotates logs, until nothing is wanted any more."""

    def __init__(
        self,
        root: Path,
        look: Callable[[], None],
        starts: Mapping[str, Callable[[], None]],
        say: Callable[[str], None],
    ) -> None:
        """`look` ends dead runs; `starts` starts each service by its name."""
        self._root = root
        self._look = look
        self._starts = starts
        self._say = say
        self._pauses = dict.fromkeys(starts, _FIRST_PAUSE_S)
        self._not_before = dict.fromkeys(starts, 0.0)
        self._log_problem = ""

    def run(self, is_wanted: Callable[[], bool]) -> None:
        """Look every few seconds for as long as it `is_wanted`."""
        while is_wanted():
            self.once(time.monotonic())
            time.sleep(_EVERY_S)

    def once(self, now: float) -> None:
        """Look once. A failure is said and tried again at the next look."""
        self._start_dead(now)
        self._rotate_logs()
        self._look()

    def _rotate_logs(self) -> None:
        """Rotate the logs that are too long; a failure is said once until it is over."""
        services = (server_of, worker_of, desk_of, supervisor_of)
        try:
            for service_of in services:
                rotate(service_of(self._root).log)
        except OSError as error:
            problem = f"the logs cannot be rotated: {error}"
            if problem != self._log_problem:
                self._say(problem)
            self._log_problem = problem
        else:
            self._log_problem = ""

    def _start_dead(self, now: float) -> None:
        dead = self._dead()
        if not dead:
            return
        try:
            # Not waited for: `up` or `down` is at work, and knows better.
            with FileLock(self._root / FOLDER / LOCK, timeout=0, mode=FILE_MODE):
                # Again under the lock: `down` may have ended it meanwhile.
                for name in self._dead():
                    self._start(name, now)
        except Timeout:
            return

    def _dead(self) -> list[str]:
        """Return the wanted services that do not run, the server first."""
        names = wanted(self._root)
        services = {
            "server": server_of(self._root),
            "worker": worker_of(self._root),
            "desk": desk_of(self._root),
        }
        return [
            name
            for name, service in services.items()
            if name in names and name in self._starts and service.pid() is None
        ]

    def _start(self, name: str, now: float) -> None:
        if now < self._not_before[name]:
            return
        self._say(f"{name}: died, started again")
        try:
            self._starts[name]()
        except (OSError, TierwiseError) as error:
            self._say(f"{name}: not started: {error}")
        pause = self._pauses[name]
        # One that lived for long begins with the first pause again.
        if now - self._not_before[name] > _LONGEST_PAUSE_S:
            pause = _FIRST_PAUSE_S
        self._not_before[name] = now + pause
        self._pauses[name] = min(2 * pause, _LONGEST_PAUSE_S)


def restart_functions(root: Path) -> dict[str, Callable[[], None]]:
    """Return how a supervisor starts each service, by its name."""

    def start_server() -> None:
        url = remembered_address(root)
        if url:
            forget_lease_lock(root)
            start(
                server_of(root), server_command(url), server_variables(root, url), root
            )

    def start_worker() -> None:
        start(worker_of(root), worker_command(), worker_variables(), root)

    def start_desk() -> None:
        url = remembered_desk_address(root)
        if url:
            start(desk_of(root), desk_command(url), {}, root)

    return {"server": start_server, "worker": start_worker, "desk": start_desk}


def _mark(service: Service) -> Path:
    return service.folder / f"{service.name}.for"


def _server_in_use() -> str:
    """Return a digest of the address and the password that this process is configured for."""
    values = [os.environ.get(name, "") for name in (ADDRESS, CLIENT)]
    return hashlib.sha256("\0".join(values).encode()).hexdigest()
