"""What an operator sees while a run goes on: bars, tags on task runs, a state that says when documents wait.

Prefect only shows: whatever it cannot take is a warning, never the end of a run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Completed

from tierwise.errors import TierwiseError
from tierwise.records import Batch

log = logging.getLogger(__name__)
NEEDS_ATTENTION = "NeedsAttention"
NOTHING_NEW = "NothingNew"
_EVERY_S = 2.0  # at most one update of a bar

_ends: dict[str, State] = {}  # flow run id -> the state it is to end in, until it is set


class Progress:
    """A bar for each step on the flow run's page, moved by every batch. Thread-safe."""

    def __init__(self) -> None:
        self.total = 0  # documents that were read
        self._lock = threading.Lock()
        self._done: Counter[str] = Counter()
        self._bars: dict[
            str, tuple[UUID, float]
        ] = {}  # by step: its artifact, and when it was last moved

    def add(self, step: str, documents: int) -> None:
        """So many more documents went through a step."""
        if TaskRunContext.get() is None:  # called without Prefect
            return
        with self._lock, only_shown():
            self._done[step] += documents
            share = 100 * min(1.0, self._done[step] / max(self.total, 1))
            bar, moved = self._bars.get(step, (None, 0.0))
            if bar is None:
                made: Any = create_progress_artifact(
                    progress=share, description=f"{step}, share of documents"
                )
                self._bars[step] = made, time.monotonic()
            elif share == 100 or time.monotonic() - moved > _EVERY_S:
                update_progress_artifact(bar, progress=share)
                self._bars[step] = bar, time.monotonic()


@contextmanager
def only_shown() -> Iterator[None]:
    """What goes wrong here is a warning."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a Prefect server may fail in any way; the run goes on
        log.warning("Prefect could not be told: %s", error)


def tag_task_run(step: str, batch: Batch) -> None:
    """Tags on the task run under way: the tiers that answered, and whether documents were escalated or deferred.

    Prefect has no call for this, but the task run's last event carries the tags that it has by then.
    """
    context = TaskRunContext.get()
    if context is None:  # called without Prefect
        return
    outcomes = [document.outcomes[step] for document in batch.load()]
    tags = {
        f"tier:{attempt.tier}"
        for o in outcomes
        for attempt in o.attempts
        if attempt.kind != "shadow"
    }
    tags |= {"escalated"} if any(o.escalated for o in outcomes) else set()
    tags |= {"deferred"} if any(o.status == "deferred" for o in outcomes) else set()
    context.task_run.tags = [*dict.fromkeys([*context.task_run.tags, *sorted(tags)])]


def end_in(flow_run_id: str, name: str, message: str) -> None:
    """Have the flow run under way end in a kind of Completed that has this name and message."""
    context = FlowRunContext.get()
    if context is None or context.flow is None:
        return
    _ends[flow_run_id] = Completed(name=name, message=message)
    if _set_end not in (context.flow.on_completion_hooks or []):
        context.flow.on_completion(_set_end)


def _set_end(flow: Any, flow_run: FlowRun, state: State) -> None:  # noqa: ARG001 - Prefect's signature
    end = _ends.pop(str(flow_run.id), None)
    if end:
        with only_shown(), get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, end, force=True)
            client.update_flow_run(flow_run.id, tags=[*flow_run.tags, str(end.name)])


class _Foreseen(logging.Filter):
    """Tells what was foreseen in one line, without the stack."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True; the record is changed."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, TierwiseError):
            record.msg = "%s"
            record.args = (str(error),)
            record.exc_info = None
            record.exc_text = None
        return True


_foreseen = _Foreseen()


def tell_foreseen_in_one_line() -> None:
    """Have Prefect log our errors without stack traces, and all lines to its server. May be called again."""
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_foreseen)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not logger.isEnabledFor(
            logging.INFO
        ):  # the terminal is to be quiet; the run's page is not
            logger.setLevel(logging.INFO)
            logger.propagate = False
