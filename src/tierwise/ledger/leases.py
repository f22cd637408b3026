"""Leases of runs under way: their process renews them, so others can see when it died."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tierwise.errors import LedgerError
from tierwise.ledger.operations import Operation
from tierwise.ledger.processes import (
    describe_owner,
    is_dead,
    is_here,
    is_of_earlier_boot,
    pid_here,
)

if TYPE_CHECKING:
    from tierwise.ledger.rows import Row
    from tierwise.ledger.writer import Writer

LEASE_S = 3600.0  # without a renewal for so long, a process elsewhere counts as dead


def is_over(owner: str | None, lease_until: float | None, now: float) -> bool:
    """Return True if a run's process died.

    That is known on its own machine; elsewhere its lease tells (seconds since the epoch).
    """
    if owner and is_here(owner):
        return is_dead(owner)
    return (lease_until or 0) < now


# What the ledger knows of a run's process: it is `alive` or `dead` on this machine; it ran here
# before the machine's last start (`earlier`); or it runs on another machine, where its lease still
# counts (`leased`) or is over (`expired`).
Sign = Literal["alive", "dead", "earlier", "leased", "expired"]


@dataclass(frozen=True)
class RunProcess:
    """The process of one recorded run, with the flow run of Prefect's that it works for.

    `pid` is its number while it is alive on this machine.
    """

    flow_run_id: str
    run_id: str
    state: str
    started_at: float
    sign: Sign
    process: str
    pid: int | None = None


def run_process(row: Row, now: float) -> RunProcess:
    """Return what a run's row says of its process."""
    owner: str | None = row["owner"]
    sign = _sign(owner, row["lease_until"], now)
    return RunProcess(
        flow_run_id=row["flow_run_id"],
        run_id=row["id"],
        state=row["state"],
        started_at=row["started_at"],
        sign=sign,
        process=describe_owner(owner) if owner else "its process",
        pid=pid_here(owner) if owner and sign == "alive" else None,
    )


def _sign(owner: str | None, lease_until: float | None, now: float) -> Sign:
    if owner and is_here(owner):
        return "dead" if is_dead(owner) else "alive"
    if (lease_until or 0) < now:
        return "expired"
    if owner and is_of_earlier_boot(owner):
        return "earlier"
    return "leased"


class RunLeases:
    """The runs of this process in progress; a thread renews their leases while there are any."""

    def __init__(self, writer: Writer, owner: str) -> None:
        self._writer = writer
        self._owner = owner
        self._runs: set[str] = set()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def begin(self, run_id: str) -> Row:
        """Begin to renew a run's lease, and return the owner and lease for the run's row."""
        with self._lock:
            self._runs.add(run_id)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._renew, name="tierwise-leases", daemon=True
                )
                self._thread.start()
        return {"owner": self._owner, "lease_until": time.time() + LEASE_S}

    def end(self, run_id: str) -> None:
        """Stop renewing a run's lease."""
        with self._lock:
            self._runs.discard(run_id)

    def close(self) -> None:
        """Stop renewing. A second call does nothing."""
        self._closed.set()

    def _renew(self) -> None:
        # One renewal may fail: the next one comes before the lease runs out.
        while not self._closed.wait(LEASE_S / 3):
            with self._lock:
                rows: list[Row] = [
                    {"run": run_id, "until": time.time() + LEASE_S}
                    for run_id in self._runs
                ]
            if rows:
                with suppress(LedgerError):  # closed meanwhile
                    self._writer.submit(Operation(rows={"alive": rows}))
