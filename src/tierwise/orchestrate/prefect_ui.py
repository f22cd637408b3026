"""A run in Prefect's UI: progress bars, tags on task runs, the final state, log lines.

Prefect only shows: anything that fails here is a warning, never the end of a run.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging.handlers import APILogHandler

from tierwise.errors import TierwiseError
from tierwise.records import Batch

log = logging.getLogger(__name__)
FAILED = "Failed"  # the name that automations on failed runs look for
NEEDS_ATTENTION = "NeedsAttention"
NOTHING_NEW = "NothingNew"
IN_BATCHES = "WaitsForBatches"
_SECONDS_BETWEEN_UPDATES = 2.0  # of a bar


def log_to_run(message: str, *values: object, level: int = logging.INFO) -> None:
    """Write a line into the log of the flow or task run; none without Prefect."""
    with suppress(MissingContextError):
        get_run_logger().log(level, message, *values)


class Progress:
    """A progress bar for each step on the flow run's page, moved by every batch. Thread-safe."""

    def __init__(self) -> None:
        self.total = 0  # documents that were read
        self._lock = threading.Lock()
        self._done: Counter[str] = Counter()  # documents by step
        self._bars: dict[str, UUID] = {}  # artifacts by step
        self._updated_at: dict[str, float] = {}  # by step

    def add(self, step: str, batch: Batch) -> None:
        """Add the documents of a batch that went through a step."""
        if TaskRunContext.get() is None:  # called without Prefect
            return
        with self._lock, warn_on_failure():
            self._done[step] += batch.size
            # How many groups there are is known before their first step.
            of_groups = batch.noun != "documents" and batch.total
            total = of_groups or self.total
            percent = 100 * min(1.0, self._done[step] / max(total, 1))
            now = time.monotonic()
            bar = self._bars.get(step)
            if bar is None:
                created: Any = create_progress_artifact(
                    progress=percent, description=f"{step}, share of documents"
                )
                self._bars[step] = created
                self._updated_at[step] = now
            elif (
                percent == 100
                or now - self._updated_at[step] > _SECONDS_BETWEEN_UPDATES
            ):
                update_progress_artifact(bar, progress=percent)
                self._updated_at[step] = now


@contextmanager
def warn_on_failure() -> Iterator[None]:
    """Log a warning for anything that fails inside this block."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a Prefect server may fail in any way
        log.warning("Prefect could not be told: %s", error)


def tag_task_run(step: str, batch: Batch) -> None:
    """Tag the task run under way: the tiers that answered, and `escalated` or `deferred`.

    Prefect has no call for this, but the task run's last event carries the tags that it has by
    then.
    """
    context = TaskRunContext.get()
    if context is None:  # called without Prefect
        return
    tags: set[str] = set()
    for document in batch.load():
        outcome = document.outcomes[step]
        for attempt in outcome.attempts:
            if attempt.kind != "shadow":
                tags.add(f"tier:{attempt.tier}")
        if outcome.escalated:
            tags.add("escalated")
        if outcome.status == "deferred":
            tags.add("deferred")
    # Without duplicates, and in the order in which they were set.
    context.task_run.tags = list(dict.fromkeys([*context.task_run.tags, *sorted(tags)]))


@dataclass(frozen=True, slots=True)
class FinalState:
    """The state that a flow run ends in, in place of Prefect's own Completed."""

    type: StateType
    name: str
    message: str
    tag: str  # of the flow run


def set_final_state(flow_run_id: str, final: FinalState) -> None:
    """Have the flow run under way end in this state once its function has returned.

    The function's result is the caller's as ever. Prefect proposes Completed to its server; this
    changes that proposal, so that the run has never been Completed for hooks and automations. A
    state that fails is set by force: the run's retries are for flows that raised, and would only
    find the same documents waiting.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    client: Any = context.client
    propose = client.set_flow_run_state

    def propose_final(run_id: UUID, state: State, force: bool = False) -> Any:
        if str(run_id) != flow_run_id or not state.is_completed():
            return propose(run_id, state, force=force)
        client.set_flow_run_state = propose
        state.type = final.type
        state.name = final.name
        state.message = final.message
        if state.is_failed():
            state.data = None  # a result of a failed run would have to be an exception
        return propose(run_id, state, force=force or state.is_failed())

    with warn_on_failure(), get_client(sync_client=True) as server:
        tags = [*context.flow_run.tags, final.tag]
        server.update_flow_run(context.flow_run.id, tags=tags)
    client.set_flow_run_state = propose_final


class _OwnErrorsInOneLine(logging.Filter):
    """Logs our own errors in one line, without the stack."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record where it has such an error; return True always."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, TierwiseError):
            record.msg = "%s"
            record.args = (str(error),)
            record.exc_info = None
            record.exc_text = None
        return True


# One filter object: a logger takes the same one only once.
_own_errors_in_one_line = _OwnErrorsInOneLine()


class _ToRunPage(logging.Handler):
    """Sends warnings of tierwise to a flow run's page, from whatever thread."""

    def __init__(self, flow_run_id: str) -> None:
        super().__init__(logging.WARNING)
        self._flow_run_id = flow_run_id
        self._api = APILogHandler()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a copy: the record goes to other handlers, too."""
        sent = copy.copy(record)
        sent.flow_run_id = self._flow_run_id
        self._api.handle(sent)


@contextmanager
def warnings_on_page(flow_run_id: str | None) -> Iterator[None]:
    """Show what is waited for, such as a model or the ledger, on the run's page, too."""
    if flow_run_id is None:
        yield
        return
    logger = logging.getLogger("tierwise")
    handler = _ToRunPage(flow_run_id)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def configure_prefect_logging() -> None:
    """Have Prefect log our errors without stack traces, and all lines to its server.

    May be called again.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_own_errors_in_one_line)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not logger.isEnabledFor(logging.INFO):
            # The terminal is to be quiet; the run's page is not.
            logger.setLevel(logging.INFO)
            logger.propagate = False
