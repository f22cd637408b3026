"""The flow runs of a server on this machine, ended as a person would: by a signal.

Needed where the server cannot be asked to cancel them.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.errors import LedgerError
from tierwise.ledger import Ledger
from tierwise.ledger.processes import is_running
from tierwise.orchestrate.api_password import ADDRESS

if TYPE_CHECKING:
    from tierwise.project import Project


def end_flows(project: Project, url: str, seconds: float) -> list[str]:
    """End the current runs whose process was started for the server at `url`, and wait for them.

    Return the processes that were asked to end; none where Linux or the ledger cannot say.
    """
    try:
        with Ledger.open(project.ledger_url, root=project.root) as ledger:
            runs = ledger.runs.under_way()
    except LedgerError:
        return []
    asked: dict[int, str] = {}
    for run in runs:
        if run.pid is None or run.pid in asked or not _is_for(run.pid, url):
            continue
        with suppress(OSError):
            os.kill(run.pid, signal.SIGTERM)
            asked[run.pid] = run.process
    deadline = time.monotonic() + seconds
    while any(map(is_running, asked)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return list(asked.values())


def _is_for(pid: int, url: str) -> bool:
    """Return True if a process was started with the address of this server."""
    wanted = f"{ADDRESS}={url}/api".encode()
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return wanted in variables.split(b"\0")
