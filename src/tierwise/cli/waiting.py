"""What commands say about the documents that wait over all runs."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, get_args

from tierwise.errors import Misuse, UnknownName
from tierwise.records import Cause
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, RunRow
    from tierwise.project import Project
    from tierwise.review.backlog import QueueFilter

_SPAN = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def queue_filter(
    flow: str | None,
    cause: str | None,
    older_than: str | None,
    step: str | None,
    reason: str = "",
) -> QueueFilter:
    """Return what the options select. Raises Misuse for a misspelt span or cause."""
    from tierwise.review.backlog import QueueFilter

    causes = get_args(Cause)
    if cause is not None and cause not in causes:
        raise UnknownName("cause", cause, causes)
    return QueueFilter(
        flow=flow,
        cause=cause,
        older_than_s=None if older_than is None else _seconds(older_than),
        step=step,
        reason=reason,
    )


def nothing_waits(ledger: Ledger) -> str:
    """Return the line for an empty queue: what was looked at."""
    span = ledger.runs.span()
    if span.since is None:
        return "nothing waits: the ledger has no runs yet"
    day = time.strftime("%Y-%m-%d", time.localtime(span.since))
    runs = plural(span.runs, "run")
    return f"nothing waits in {runs} of {plural(span.flows, 'flow')} since {day}"


def after_newest(ledger: Ledger, project: Project, run: RunRow) -> str:
    """Return a line about the runs after this one, and about what waits over all runs."""
    from tierwise.review.backlog import read_backlog

    parts = []
    empty = ledger.runs.empty_since(run)
    if empty:
        last = time.strftime("%Y-%m-%d %H:%M", time.localtime(empty[0].started_at))
        had = "had" if len(empty) > 1 else f"({last}) had"
        until = f" (the last one {last})" if len(empty) > 1 else ""
        parts.append(f"{plural(len(empty), 'later run')}{until} {had} nothing new")
    waiting = read_backlog(ledger, project).total
    if waiting:
        verb = "waits" if waiting == 1 else "wait"
        parts.append(
            f"{plural(waiting, 'document')} {verb} over all runs: tierwise review"
        )
    else:
        parts.append(nothing_waits(ledger))
    return "; ".join(parts)


def _seconds(span: str) -> float:
    match = _SPAN.fullmatch(span.strip())
    if match is None:
        raise Misuse(
            f"--older-than takes a span such as 30m, 12h, 2d or 1w; not '{span}'"
        )
    return int(match[1]) * _SECONDS[match[2]]
