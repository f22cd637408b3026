"""Decide from facts whether a flow run's process is dead. Pure: nothing here asks or changes.

The ledger decides first, by the processes and leases of the runs on record. Prefect's heartbeats
come second: they confirm what the ledger only suspects. Whatever may be alive is left alone. A
machine that is suspended keeps its lease, and a server that was away hears no heartbeat.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tierwise.ledger import RunProcess, Sign

# Two heartbeats were missed while the server answered all the time. A worker of `tierwise up` has
# its flows send one every 30 s.
SILENT_S = 60.0
# As long as a lease of the ledger: without one, a run elsewhere has as much time.
UNKNOWN_SILENT_S = 3600.0
# From a worker's taking a run to its first line; a run that takes longer has lost its worker.
BEGINS_IN_S = 90.0
ITS_PROCESS_DIED_S = 30.0  # a worker that lives would have reported it by then
BEGINS_ELSEWHERE_IN_S = 600.0

# Of the process that a worker started: it runs on this machine, it ended there or with an earlier
# boot, Prefect does not name it, or it is elsewhere.
Process = Literal["alive", "dead", "unnamed", "elsewhere"]
Stage = Literal["pending", "running", "paused", "cancelling"]
Verdict = Literal["leave", "reschedule", "end"]


@dataclass(frozen=True)
class RunFacts:
    """The facts about one flow run of Prefect's that is not over.

    `is_ours`: it is in the ledger, or its deployment is on the work pool of `tierwise up`.
    `since` is when its present state began (seconds since the epoch), `age_s` how long ago.
    `silent_s` is how long no heartbeat came while the server was seen to answer.
    """

    stage: Stage
    is_ours: bool
    since: float
    age_s: float
    recorded: Sequence[RunProcess] = ()
    process: Process = "unnamed"
    silent_s: float = 0.0
    heartbeat_s: float = 30.0
    is_suspended: bool = (
        False  # its process ended on purpose, and another one will resume it
    )


def verdict(run: RunFacts) -> Verdict:
    """Return what to do with a run: leave it, have it run again, or end it as crashed."""
    if not run.is_ours or run.is_suspended:
        return "leave"
    signs = {recorded.sign for recorded in run.recorded}
    if "alive" in signs or run.process == "alive":
        return "leave"
    if run.stage == "pending":
        return _verdict_before_start(run)
    return "end" if run.silent_s >= _silence_to_end(run) else "leave"


def needs_heartbeats(run: RunFacts) -> bool:
    """Return True if only heartbeats can say more of a run than the other facts do."""
    if verdict(run) != "leave" or run.stage == "pending":
        return False
    silent_for_ever = replace(run, silent_s=sys.float_info.max)
    return verdict(silent_for_ever) == "end"


def _verdict_before_start(run: RunFacts) -> Verdict:
    """Return what to do with a run that a worker took and has not begun."""
    limits = {
        "dead": ITS_PROCESS_DIED_S,
        "unnamed": BEGINS_IN_S,
        "elsewhere": BEGINS_ELSEWHERE_IN_S,
    }
    return "reschedule" if run.age_s > limits[run.process] else "leave"


def _silence_to_end(run: RunFacts) -> float:
    """Return how long a run has to be silent before it counts as dead; infinity: for ever."""
    missed = max(SILENT_S, 2 * run.heartbeat_s)
    if not run.recorded:
        return missed if run.process == "dead" else UNKNOWN_SILENT_S
    latest = run.recorded[-1]
    sign: Sign = latest.sign
    if sign == "leased":
        return float("inf")
    # A run that was begun once more may be in a process that is not on record yet.
    is_of_this_start = latest.started_at >= run.since or run.process == "dead"
    if sign == "dead" and is_of_this_start:
        return 0.0
    return missed
