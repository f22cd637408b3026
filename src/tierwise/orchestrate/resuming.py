"""Detached runs that can go on: a batch of theirs is over, or their deadline is in danger.

A worker or a schedule begins a flow again; `tierwise up` has its supervisor do so for every
detached run, each in a process of its own.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tierwise.errors import TierwiseError
from tierwise.ledger import Ledger, RunRow
from tierwise.orchestrate.run_options import WITHIN, span_of
from tierwise.orchestrate.secrets import variables
from tierwise.policy.transport import rescue_at

if TYPE_CHECKING:
    from tierwise.ledger.batches import BatchRow
    from tierwise.project import Project

log = logging.getLogger(__name__)
_LOOKS_EVERY_S = 60.0
# Before the deadline is in danger: a process has to start first.
_EARLY_S = 90.0


def deadline_of(run: RunRow) -> float | None:
    """Return the deadline of a run by its parameters on record, in epoch seconds."""
    within = span_of(run.parameters.get(WITHIN))
    return None if within is None else run.started_at + within.total_seconds()


def danger_begins(ledger: Ledger, run: RunRow) -> float | None:
    """Return when a run's deadline is in danger, from its steps so far; None without one."""
    deadline = deadline_of(run)
    if deadline is None:
        return None
    steps = len(ledger.runs.outcome_counts(run.id))
    return rescue_at(deadline, steps)


def ready_runs(project: Project) -> list[str]:
    """Return the detached runs that can go on by now, the oldest first."""
    with Ledger.open(project.ledger_url, root=project.root) as ledger:
        ready = []
        for run_id in ledger.detached.ids():
            run = ledger.runs.resolve(run_id)
            danger = danger_begins(ledger, run)
            open_batches = ledger.batches.open_batches(run_id)
            is_late = danger is not None and time.time() >= danger - _EARLY_S
            if is_late or not open_batches or _any_is_over(project, open_batches):
                ready.append(run_id)
        return ready


def _any_is_over(project: Project, rows: Sequence[BatchRow]) -> bool:
    """Ask the providers whether one of some batches is over."""
    # One that is on record as ended, or was never seen at its provider, needs a process.
    if any(row.ended_at is not None or row.provider_id is None for row in rows):
        return True
    return asyncio.run(_ask_providers(project, rows))


async def _ask_providers(project: Project, rows: Sequence[BatchRow]) -> bool:
    from tierwise.gateway import Gateway
    from tierwise.gateway.local import LocalServers

    servers = LocalServers()
    gateway = Gateway(project.catalog, variables(project), servers, root=project.root)
    try:
        for row in rows:
            try:
                batch = await gateway.batches.status(row.model, row.provider_id or "")
            except TierwiseError as error:
                log.info("batch %s: %s", row.id, error)
                continue
            if batch.has_ended:
                return True
        return False
    finally:
        await gateway.aclose()
        servers.close()


class Resuming:
    """Resumes detached runs one after the other. A failure is said, and tried again later."""

    def __init__(
        self,
        project: Project,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._project = project
        self._say = say
        self._clock = clock
        self._not_before = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._run_id = ""

    def look(self) -> None:
        """Begin the next run that can go on, unless one is under way."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            self._say(f"run {self._run_id}: resumed, exit code {code}")
        now = self._clock()
        if now < self._not_before:
            return
        self._not_before = now + _LOOKS_EVERY_S
        ready = ready_runs(self._project)
        if ready:
            self._run_id = ready[0]
            self._process = self._begin(ready[0])

    def _begin(self, run_id: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tierwise", "resume", run_id, "--json"]
        return subprocess.Popen(  # noqa: S603 - this very program
            command,
            cwd=self._project.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
