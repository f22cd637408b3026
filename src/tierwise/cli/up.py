"""`tierwise up`: start Prefect's server, a worker and the deployments on one machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierwise.orchestrate.services import Service

# This environment's Prefect, and not whichever comes first on the path.
_PREFECT = (sys.executable, "-m", "prefect")
_STARTS_IN_S = 120.0  # the first start creates the server's database


def up(
    port: Annotated[
        int | None, typer.Option(help="The server's port; default: 4200.")
    ] = None,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker/--no-worker", help="Start a worker, which runs deployments."
        ),
    ] = True,
) -> None:
    """Start Prefect's server, a worker and the deployments.

    They keep running in the background, and `tierwise run` reports to this server too. A second
    `tierwise up` restarts a dead service and deploys again. `tierwise down` stops everything.
    Process ids and logs are in .tierwise/services/.
    """
    from filelock import FileLock, Timeout

    from tierwise.errors import Misuse
    from tierwise.orchestrate.services import FOLDER
    from tierwise.project import Project

    root = Project.find().root
    # Only the user may read this folder, since logs may quote documents.
    (root / FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        # Not waited for: the other command may take minutes.
        with FileLock(root / FOLDER / "up.lock", timeout=0):
            _up(root, port, worker=worker)
    except Timeout:
        raise Misuse(
            "another `tierwise up` or `down` is at work in this project"
        ) from None


def _up(root: Path, port: int | None, *, worker: bool) -> None:
    """Start all that does not run yet, or nothing: a failure stops what this call started."""
    from tierwise.orchestrate.api_password import sign_in_note
    from tierwise.orchestrate.services import server_of, worker_of

    started: list[Service] = []
    try:
        url = _start_server(root, port, started)
        _restrict_work_pool(root)
        if worker:
            _start_worker(root, worker_of(root), started)
        # Last, since deploying asks the server.
        _deploy(root)
    except BaseException:  # Ctrl-C too
        # The worker first: it would log errors once its server is gone.
        for service in reversed(started):
            service.stop()
        if started:
            names = ", ".join(service.name for service in started)
            typer.echo(f"ended again: {names}", err=True)
        raise
    typer.echo(f"Look: {url}/deployments   (logs: {server_of(root).folder})")
    typer.echo(sign_in_note(root))
    typer.echo("Next: run or schedule a deployment there, or `tierwise run FLOW` here.")
    typer.echo("End:  tierwise down")


def _start_server(root: Path, port: int | None, started: list[Service]) -> str:
    """Start the project's server unless it runs; return its address once it answers."""
    from tierwise.errors import Misuse
    from tierwise.orchestrate.api_password import server_environment, use_server
    from tierwise.orchestrate.services import address, server_of, write_address

    service = server_of(root)
    url = address(root)
    if url and not _asks_for_our_password(root, url):
        # The port is kept for those who have noted it.
        port = port or int(url.rpartition(":")[2])
        url = None
    # Moving a running server to another port would cut off the runs that report to it.
    if url and port and not url.endswith(f":{port}"):
        raise Misuse(f"the server runs already at {url}; `tierwise down` ends it")
    if url:
        typer.echo(f"server: runs already at {url}")
    else:
        # This machine only: whoever has the password may run programs here.
        url = f"http://127.0.0.1:{port or 4200}"
        _refuse_taken(port or 4200)
        # Written before the start, so that `tierwise down` finds a server whose start was interrupted.
        write_address(root, url)
    # For the worker and the deployments below, which are started from this process.
    use_server(root, url)
    # An address without a process is that of a server which died; it starts again there.
    if service.pid() is None:
        port_text = url.rpartition(":")[2]
        command = (
            *_PREFECT,
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            port_text,
        )
        env = {**os.environ, **server_environment(root, url)}
        service.start(command, env, root)
        started.append(service)
        # This imports Prefect, which takes seconds, while the server starts.
        from tierwise.orchestrate.server import healthy

        # Appended above before this wait, so that a failure here stops it, too.
        _await(root, service, healthy)
        typer.echo(f"server: started at {url}")
    return url


def _asks_for_our_password(root: Path, url: str) -> bool:
    """Return True if the running server takes the project's password; end one that asks for none.

    Raises Misuse where the server has another password.
    """
    from tierwise.cli.down import stop_services
    from tierwise.errors import Misuse
    from tierwise.orchestrate.api_password import (
        Access,
        access,
        ensure_password,
        password_file,
        use_server,
    )

    answer = access(f"{url}/api", ensure_password(root))
    if answer is Access.REFUSED:
        file = password_file(root)
        raise Misuse(
            f"the server at {url} does not take the password in {file}; "
            "`tierwise down --now` ends it, and cancels its runs"
        )
    if answer is not Access.OPEN:
        return True
    typer.echo(
        "server: asks for no password, as of an older version; starting it again"
    )
    use_server(root, url)
    stop_services(root, now=False)
    return False


def _restrict_work_pool(root: Path) -> None:
    """Have the work pool take from a run nothing that could start another program."""
    from tierwise.orchestrate.server import POOL
    from tierwise.orchestrate.work_pool import restrict_work_pool

    removed = restrict_work_pool(root)
    if removed:
        names = ", ".join(removed)
        typer.echo(f"work pool {POOL}: a run can no longer set {names}")


def _start_worker(root: Path, service: Service, started: list[Service]) -> None:
    """Start the worker unless it runs, and reschedule the runs that a dead one left behind."""
    from tierwise.orchestrate.server import POOL, hand_out_again, has_worker, hold_back

    if service.pid() is not None:
        typer.echo(f"worker: runs already on the work pool {POOL}")
    else:
        # The worker's log is where a failed run is looked up; this terminal stays quiet.
        env = {**os.environ, "PREFECT_LOGGING_LEVEL": "INFO"}
        command = (*_PREFECT, "worker", "start", "--pool", POOL, "--type", "process")
        service.start(command, env, root)
        started.append(service)
        _await(root, service, has_worker)
        typer.echo(f"worker: started on the work pool {POOL}")
    # A `tierwise down` that was killed leaves the pool paused.
    hold_back(paused=False)
    rescheduled = hand_out_again()
    if rescheduled:
        names = ", ".join(rescheduled)
        typer.echo(f"rescheduled, as a worker died before it began them: {names}")


def _deploy(root: Path) -> None:
    """Deploy all of prefect.yaml; a schedule that was paused or resumed by hand stays so."""
    from tierwise.errors import TierwiseError
    from tierwise.orchestrate.services import FOLDER

    if not (root / "prefect.yaml").exists():
        typer.echo("deployments: none, as there is no prefect.yaml")
        return
    from tierwise.orchestrate.server import deployments, schedules_kept

    log = root / FOLDER / "deploy.log"
    # Prefect would ask questions on a terminal.
    command = [*_PREFECT, "--no-prompt", "deploy", "--all"]
    # A new deployment takes the schedule's state from the file, which would undo a person's choice.
    with console(err=True).status("deploying"), schedules_kept(), log.open("wb") as out:
        done = subprocess.run(  # noqa: S603 - our own interpreter and fixed arguments
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=False,
        )
    if done.returncode:
        raise TierwiseError(f"prefect.yaml could not be deployed; see {log}")
    typer.echo(f"deployments: {', '.join(deployments()) or 'none in prefect.yaml'}")


def _await(root: Path, service: Service, ready: Callable[[], bool]) -> None:
    """Wait until a service is ready. Raises TierwiseError when it ends first, or takes too long."""
    from tierwise.errors import TierwiseError
    from tierwise.orchestrate.environment import database_problem
    from tierwise.orchestrate.server import wait_for

    # Asked meanwhile: a service that died is reported at once, and not after the whole time.
    def is_running() -> bool:
        return service.pid() is not None

    with console(err=True).status(f"starting the {service.name}"):
        is_ready = wait_for(ready, is_running, _STARTS_IN_S)
    if not is_ready:
        # It has a remedy of its own, where the log would only have a traceback.
        problem = database_problem(root)
        if problem:
            raise TierwiseError(problem)
        raise TierwiseError(
            f"the {service.name} did not start: {service.last_words()}; see {service.log}"
        )


def _refuse_taken(port: int) -> None:
    """Raise Misuse where another program listens on the port."""
    from tierwise.errors import Misuse

    # The server itself would report this only in its log.
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise Misuse(
                f"port {port} is taken; choose another one: tierwise up --port {port + 1}"
            )
