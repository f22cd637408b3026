"""`tierwise up`: start Prefect's server, a worker and the deployments on one machine."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tierwise.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierwise.orchestrate.services import Service

_RUNS_NAMED = 10


class Foreground(Enum):
    """A service that can run in the foreground."""

    SERVER = "server"
    WORKER = "worker"
    DESK = "desk"


_PORTS_TRIED = 20  # for the desk
_STARTS_IN_S = 120.0  # the first start creates the server's database


def up(
    port: Annotated[
        int | None,
        typer.Option(help="The server's port; default: its last one, else 4200."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="With --port: leave the last port although current runs report to it.",
        ),
    ] = False,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker/--no-worker", help="Start a worker, which runs deployments."
        ),
    ] = True,
    desk: Annotated[
        bool,
        typer.Option("--desk/--no-desk", help="Start the desk, the pages for people."),
    ] = True,
    foreground: Annotated[
        Foreground | None,
        typer.Option(
            help="Be one of them in this process, as a unit of systemd does.",
        ),
    ] = None,
    systemd: Annotated[
        bool,
        typer.Option(
            "--systemd", help="Print units for systemd instead, for this user."
        ),
    ] = False,
    system: Annotated[
        bool,
        typer.Option(
            "--system", help="With --systemd: units for root to install, as this user."
        ),
    ] = False,
) -> None:
    """Start Prefect's server, a worker and the deployments.

    They keep running in the background, and `tierwise run` reports to this server too. What dies is
    started again. After a reboot, `tierwise up` starts all of it at the same address, and ends the
    runs that died. `tierwise down` stops everything. Process ids and logs are in
    .tierwise/services/.
    """
    from filelock import FileLock, Timeout

    from tierwise.errors import Misuse
    from tierwise.orchestrate.services import FOLDER
    from tierwise.orchestrate.supervision import LOCK, LOCKED_S
    from tierwise.project import Project
    from tierwise.text.private import FILE_MODE, private_folder

    root = Project.find().root
    if systemd:
        _print_units(root, port, system=system)
        return
    # Only the user may read this folder, since logs may quote documents.
    private_folder(root / FOLDER)
    if foreground is not None:
        _become(root, port, foreground, force=force)
    try:
        with FileLock(root / FOLDER / LOCK, timeout=LOCKED_S, mode=FILE_MODE):
            _up(root, port, worker=worker, desk=desk, force=force)
    except Timeout:
        raise Misuse(
            "another `tierwise up` or `down` is at work in this project"
        ) from None


def _become(
    root: Path, port: int | None, service: Foreground, *, force: bool
) -> NoReturn:
    """Become a service. Raises Misuse where it runs already, or its port is taken."""
    from tierwise.cli.foreground import become_desk, become_server, become_worker
    from tierwise.cli.server_address import address_for
    from tierwise.errors import Misuse
    from tierwise.orchestrate.services import desk_of, server_of, worker_of

    services = {
        Foreground.SERVER: server_of,
        Foreground.WORKER: worker_of,
        Foreground.DESK: desk_of,
    }
    running = services[service](root)
    if running.pid() is not None:
        raise Misuse(
            f"the {running.name} runs already (process {running.pid()}); `tierwise down` ends it"
        )
    if service is Foreground.WORKER:
        become_worker(root)
    if service is Foreground.DESK:
        become_desk(root, port)
    become_server(root, address_for(root, port, force=force))


def _print_units(root: Path, port: int | None, *, system: bool) -> None:
    """Print the units for systemd, and how to install them."""
    from getpass import getuser

    from tierwise.cli.systemd import instructions, units

    user = getuser() if system else None
    typer.echo(instructions(root, system_user=user))
    for unit in units(root, system_user=user, port=port):
        typer.echo(f"# {unit.path}\n{unit.text}")


def _up(root: Path, port: int | None, *, worker: bool, desk: bool, force: bool) -> None:
    """Start all that does not run yet, or nothing: a failure stops what this call started."""
    from tierwise.orchestrate.api_password import sign_in_note
    from tierwise.orchestrate.services import (
        desk_of,
        remembered_address,
        server_of,
        worker_of,
        write_address,
    )
    from tierwise.orchestrate.supervision import want, wanted

    _refuse_faulty_deployments(root)
    _refuse_faulty_alerts(root)
    before = wanted(root)
    address_before = remembered_address(root)
    started: list[Service] = []
    try:
        url = _start_server(root, port, started, force=force)
        restrict_pool(root)
        recover(root)
        if worker:
            _start_worker(root, worker_of(root), started)
        desk_line = _start_desk(root, started) if desk else ""
        # What systemd keeps is not for our supervisor to start again.
        want(
            root,
            {
                service.name
                for service in (server_of(root), worker_of(root), desk_of(root))
                if service.pid() is not None and not service.is_in_foreground()
            },
        )
        _start_supervisor(root, started)
        # Last, since deploying asks the server, and may wait for it.
        deploy(root)
        alert(root, url)
    except BaseException:  # Ctrl-C too
        # A supervisor that was there before must not start again what is stopped here.
        want(root, before - {service.name for service in started})
        # The supervisor first, then the worker, which would log errors without its server.
        for service in reversed(started):
            service.stop()
        if server_of(root) in started and address_before:
            # Else a plain `up` would start at a port at which nothing ever ran.
            write_address(root, address_before)
        if started:
            names_started = ", ".join(service.name for service in started)
            typer.echo(f"ended again: {names_started}", err=True)
        raise
    typer.echo(f"Look: {url}/deployments   (logs: {server_of(root).folder})")
    typer.echo(sign_in_note(root))
    if desk_line:
        typer.echo(desk_line)
    typer.echo("Next: run or schedule a deployment there, or `tierwise run FLOW` here.")
    typer.echo("End:  tierwise down")


def _refuse_faulty_deployments(root: Path) -> None:
    """Raise ConfigError for a deployment that could never run, before anything is started."""
    from tierwise.errors import ConfigError
    from tierwise.lint.deployments import deployment_findings

    for finding in deployment_findings(root):
        path = finding.path.relative_to(root)
        raise ConfigError(finding.message, path=path, line=finding.line)


def _refuse_faulty_alerts(root: Path) -> None:
    """Raise for alerts without an address, before anything is started."""
    from tierwise.project import Project

    settings = Project(root).settings.alerts
    if settings.is_on:
        # This imports Prefect, which takes seconds.
        from tierwise.orchestrate.automations import refuse_missing_addresses

        refuse_missing_addresses(settings, os.environ)


def alert(root: Path, url: str) -> None:
    """Make the alerts of the settings in Prefect, and say where they go to."""
    from tierwise.orchestrate.automations import make_alerts
    from tierwise.project import Project

    project = Project(root)
    flows = [name.replace("_", "-") for name in project.flow_names()]
    typer.echo(make_alerts(project.settings.alerts, os.environ, url, flows))


def _start_server(
    root: Path, port: int | None, started: list[Service], *, force: bool
) -> str:
    """Start the project's server unless it runs; return its address once it answers."""
    from tierwise.cli.server_address import address_for
    from tierwise.errors import Misuse
    from tierwise.orchestrate.api_password import use_server
    from tierwise.orchestrate.services import address, server_of, write_address
    from tierwise.orchestrate.supervision import (
        forget_lease_lock,
        server_command,
        server_variables,
        start,
        wanted,
    )

    service = server_of(root)
    url = address(root)
    if url and not _asks_for_our_password(root, url):
        # The port is kept for those who have noted it.
        port = port or int(url.rpartition(":")[2])
        url = None
    # Moving a running server to another port would cut off the runs that report to it.
    if url and port and not url.endswith(f":{port}"):
        raise Misuse(f"the server runs already at {url}; `tierwise down` ends it")
    how = f"runs already at {url}"
    if url is None:
        # Where it was before: its worker, its runs and people's bookmarks are for this address.
        url = address_for(root, port, force=force)
        how = f"started at {url}"
        if "server" in wanted(root):
            how = f"had died, started again at {url}"
        # Written before the start, so that `tierwise down` finds a server whose start was interrupted.
        write_address(root, url)
    # For the worker and the deployments below, which are started from this process.
    use_server(root, url)
    if service.pid() is None:
        forget_lease_lock(root)
        start(service, server_command(url), server_variables(root, url), root)
        started.append(service)
    # This imports Prefect, which takes seconds, while the server starts.
    from tierwise.orchestrate.server import healthy

    # Appended above before this wait, so that a failure here stops it, too.
    _await(root, service, healthy)
    typer.echo(f"server: {how}")
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


def restrict_pool(root: Path) -> None:
    """Have the work pool take from a run nothing that could start another program."""
    from tierwise.lint.job_variables import POOL
    from tierwise.orchestrate.work_pool import restrict_work_pool

    removed = restrict_work_pool(root)
    if removed:
        names = ", ".join(removed)
        typer.echo(f"work pool {POOL}: a run can no longer set {names}")


def recover(root: Path) -> None:
    """End the flow runs whose process is dead, so that the schedule goes on, and say so."""
    from tierwise.errors import LedgerError
    from tierwise.orchestrate.recovery import Recovery
    from tierwise.project import Project

    try:
        recovered = Recovery(Project(root)).look()
    except LedgerError as error:
        # Without the ledger nothing is known; the supervisor looks again.
        typer.echo(f"runs that may have died are left for now: {error}", err=True)
        return
    for run in recovered[:_RUNS_NAMED]:
        typer.echo(run.line)
    if len(recovered) > _RUNS_NAMED:
        typer.echo(f"and {len(recovered) - _RUNS_NAMED} more runs that died earlier")


def _start_worker(root: Path, service: Service, started: list[Service]) -> None:
    """Start the worker unless it runs and is for this server."""
    from tierwise.lint.job_variables import POOL
    from tierwise.orchestrate.server import has_worker, hold_back
    from tierwise.orchestrate.supervision import (
        end_alone,
        is_current,
        start,
        wanted,
        worker_command,
        worker_variables,
    )

    how = f"started on the work pool {POOL}"
    if service.pid() is not None and not is_current(service):
        how += "; the one before was for another address or password of the server"
        # Its flows go on: what they do is in the ledger.
        end_alone(service)
    elif "worker" in wanted(root):
        how = f"started again on the work pool {POOL}, as it had died"
    if service.pid() is not None:
        typer.echo(f"worker: runs already on the work pool {POOL}")
    else:
        start(service, worker_command(), worker_variables(), root)
        started.append(service)
        _await(root, service, has_worker)
        typer.echo(f"worker: {how}")
    # A `tierwise down` that was killed leaves the pool paused.
    hold_back(paused=False)


def _start_desk(root: Path, started: list[Service]) -> str:
    """Start the desk unless it runs; return the line that says where it is.

    It is at its last port, else at the first free one from the setting on.
    """
    from tierwise.desk.server import Place, link_of
    from tierwise.orchestrate.ports import is_taken, listener
    from tierwise.orchestrate.services import (
        desk_address,
        desk_of,
        remembered_desk_address,
        write_desk_address,
    )
    from tierwise.orchestrate.supervision import desk_command, start
    from tierwise.project import Project

    settings = Project(root).settings.desk
    url = desk_address(root)
    if url is None:
        remembered = remembered_desk_address(root)
        first = int(remembered.rpartition(":")[2]) if remembered else settings.port
        ports = [first, *range(settings.port, settings.port + _PORTS_TRIED)]
        free = next((port for port in ports if not is_taken(port)), None)
        if free is None:
            taken = listener(settings.port)
            return f"Desk: not started, as port {settings.port} is taken by {taken}"
        url = Place(host="127.0.0.1", port=free).url
        write_desk_address(root, url)
        service = desk_of(root)
        start(service, desk_command(url), {}, root)
        started.append(service)
        _await(root, service, lambda: is_taken(free))
    place = Place(host="127.0.0.1", port=int(url.rpartition(":")[2]))
    return f"Desk: {link_of(place.access(root, settings), url)}"


def _start_supervisor(root: Path, started: list[Service]) -> None:
    """Start the process that starts the others again, unless it runs and is for this server."""
    from tierwise.orchestrate.services import supervisor_of
    from tierwise.orchestrate.supervision import (
        is_current,
        start,
        supervisor_command,
        supervisor_variables,
    )

    service = supervisor_of(root)
    if service.pid() is not None:
        if is_current(service):
            return
        service.stop()
    start(service, supervisor_command(), supervisor_variables(), root)
    started.append(service)


def deploy(root: Path) -> None:
    """Deploy all of prefect.yaml; a schedule that was paused or resumed by hand stays so."""
    from tierwise.errors import TierwiseError
    from tierwise.orchestrate.services import FOLDER

    if not (root / "prefect.yaml").exists():
        typer.echo("deployments: none, as there is no prefect.yaml")
        return
    from tierwise.orchestrate.parameters import refuse_unknown_parameters
    from tierwise.orchestrate.server import deployments, schedules_kept
    from tierwise.text.private import open_private

    log = root / FOLDER / "deploy.log"
    # Prefect would ask questions on a terminal.
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    # A new deployment takes the schedule's state from the file, which would undo a person's choice.
    with (
        console(err=True).status("deploying"),
        schedules_kept(),
        open(log, "wb", opener=open_private) as out,
    ):
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
    refuse_unknown_parameters()
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
