"""`tierwise down`: stop the services of `tierwise up` without losing a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.output import console

if TYPE_CHECKING:
    from pathlib import Path

# a run that ignores its cancellation must not keep the services up
_CANCELLED_IN_S = 30.0


def down(
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Cancel the current runs instead of waiting for them."
        ),
    ] = False,
) -> None:
    """Stop the server and the worker of `tierwise up`.

    No new run starts. Running ones finish first, and the server records them. Ctrl-C while it waits
    leaves everything running. `--now` cancels the runs. Their paid calls are on record, so running
    them again continues from there.
    """
    from filelock import FileLock, Timeout

    from tierwise.errors import Misuse
    from tierwise.orchestrate.api_password import use_server
    from tierwise.orchestrate.services import FOLDER, address
    from tierwise.orchestrate.supervision import LOCK, LOCKED_S
    from tierwise.project import Project
    from tierwise.text.private import FILE_MODE

    root = Project.find().root
    _refuse_foreground(root)
    url = address(root)
    if url is None:
        # A worker may have survived its server.
        if not _end_services(root):
            typer.echo("nothing runs")
        return
    try:
        with FileLock(root / FOLDER / LOCK, timeout=LOCKED_S, mode=FILE_MODE):
            if _takes_our_password(root, url, now=now):
                # Whatever server this shell uses otherwise: the one to stop is this project's.
                use_server(root, url)
                stop_services(root, now=now)
            else:
                _end_flows(root, url)
                _end_services(root)
    except Timeout:
        raise Misuse(
            "another `tierwise up` or `down` is at work in this project"
        ) from None


def _takes_our_password(root: Path, url: str, *, now: bool) -> bool:
    """Return True if the runs of the server can be asked for.

    Raises Misuse where they cannot and are not to be cancelled.
    """
    from tierwise.errors import Misuse
    from tierwise.orchestrate.api_password import (
        Access,
        access,
        password_file,
        read_password,
    )

    if access(f"{url}/api", read_password(root)) is not Access.REFUSED:
        return True
    if now:
        return False
    file = password_file(root)
    raise Misuse(
        f"the server at {url} does not take the password in {file}, so its runs are not "
        "known; `tierwise down --now` ends them with it"
    )


def _end_flows(root: Path, url: str) -> None:
    """End the runs by a signal, as the server would not take their cancellation."""
    from tierwise.orchestrate.flow_processes import end_flows
    from tierwise.orchestrate.supervision import want
    from tierwise.project import Project

    # A worker that is started again would take the next run.
    want(root, set())
    for process in end_flows(Project(root), url, _CANCELLED_IN_S):
        typer.echo(f"ended the run in {process}", err=True)


def stop_services(root: Path, *, now: bool) -> None:
    """End the runs, then the worker, then the server that records what the worker reports."""
    from tierwise.orchestrate.server import healthy, hold_back, wait_until_drained

    if healthy():
        hold_back(paused=True)  # no new run may start while the others are awaited
        try:
            _end_runs(now=now)
        except BaseException:  # Ctrl-C too: resume as if nothing had been asked
            hold_back(paused=False)
            typer.echo("everything still runs", err=True)
            raise
        with console(err=True).status("waiting until the server has recorded all"):
            # The server writes with a delay; ending it at once would lose the last states.
            drained = wait_until_drained()
        if not drained:
            message = (
                "the server has not recorded all task runs; the ledger has them all"
            )
            typer.echo(message, err=True)
    _end_services(root)


def _end_services(root: Path) -> list[str]:
    """End what runs; return the names."""
    from tierwise.orchestrate.services import (
        desk_of,
        server_of,
        supervisor_of,
        worker_of,
    )
    from tierwise.orchestrate.supervision import want

    # So that nothing is started again.
    want(root, set())
    supervisor_of(root).stop()
    ended = []
    # The worker first: it would log errors once its server is gone.
    for service in (desk_of(root), worker_of(root), server_of(root)):
        if service.pid() is not None:
            service.stop()
            typer.echo(f"{service.name}: ended")
            ended.append(service.name)
    return ended


def _refuse_foreground(root: Path) -> None:
    """Raise Misuse where systemd or the like would only start again what this command ends."""
    from tierwise.errors import Misuse
    from tierwise.orchestrate.services import desk_of, server_of, worker_of

    services = (server_of(root), worker_of(root), desk_of(root))
    names = [service.name for service in services if service.is_in_foreground()]
    if names:
        raise Misuse(
            f"{' and '.join(names)} run in the foreground; end them where they were started, "
            "such as with `systemctl --user stop`"
        )


def _end_runs(*, now: bool) -> None:
    """Wait for the current runs, or cancel them and wait a little."""
    from tierwise.orchestrate.server import cancel, runs_under_way

    # Said once for each run, however often the loop comes round.
    verb = "cancelling" if now else "waiting for"
    seen: set[str] = set()
    deadline = time.monotonic() + _CANCELLED_IN_S
    runs = runs_under_way()
    while runs:
        for run in runs:
            if run.name in seen:
                continue
            typer.echo(f"{verb} the run {run.name}", err=True)
            if now:
                cancel(run)
        seen |= {run.name for run in runs}
        if now and time.monotonic() > deadline:
            return
        time.sleep(1)
        # Asked each time, as a run may have been submitted just before the pool was paused.
        runs = runs_under_way()
