"""`tierwise down`: the services of `tierwise up`, stopped without losing a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.output import console

if TYPE_CHECKING:
    from pathlib import Path

_CANCELLED_IN_S = 30.0


def down(
    now: Annotated[
        bool, typer.Option("--now", help="Cancel the current runs instead of waiting for them.")
    ] = False,
) -> None:
    """Stop the server and the worker of `tierwise up`.

    No new run starts. Running ones finish first, and the server records them. Ctrl-C while it waits
    leaves everything running. `--now` cancels the runs. Their paid calls are on record, so running
    them again continues from there.
    """
    from filelock import FileLock, Timeout

    from tierwise.errors import Misuse
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.orchestrate.services import FOLDER, address, worker_of
    from tierwise.project import Project

    root = Project.find().root
    if address(root) is None:
        worker_of(root).stop()
        typer.echo("nothing runs")
        return
    prepare_prefect(root, log_level="CRITICAL")
    try:
        with FileLock(root / FOLDER / "up.lock", timeout=0):
            _down(root, now=now)
    except Timeout:
        raise Misuse("another `tierwise up` or `down` is at work in this project") from None


def _down(root: Path, *, now: bool) -> None:
    from tierwise.orchestrate.server import healthy, hold_back, wait_until_drained
    from tierwise.orchestrate.services import server_of, worker_of

    if healthy():
        hold_back(paused=True)
        try:
            _end_runs(now=now)
        except BaseException:
            hold_back(paused=False)
            typer.echo("everything still runs", err=True)
            raise
        with console(err=True).status("waiting until the server has recorded all"):
            if not wait_until_drained():
                typer.echo(
                    "the server has not recorded all task runs; the ledger has them all", err=True
                )
    for service in (worker_of(root), server_of(root)):
        if service.pid() is not None:
            service.stop()
            typer.echo(f"{service.name}: ended")


def _end_runs(*, now: bool) -> None:
    """Wait for the runs under way, or cancel them and wait a little."""
    from tierwise.orchestrate.server import cancel, runs_under_way

    told: set[str] = set()
    deadline = time.monotonic() + _CANCELLED_IN_S
    while runs := runs_under_way():
        for run in runs:
            if run.name not in told:
                typer.echo(f"{'cancelling' if now else 'waiting for'} the run {run.name}", err=True)
                if now:
                    cancel(run)
        told |= {run.name for run in runs}
        if now and time.monotonic() > deadline:
            return
        time.sleep(1)
