"""The only door to Prefect: steps as tasks, runs as recorded flow runs.

Prefect shows and schedules; cost, completeness and resume come from the ledger alone.
"""

from __future__ import annotations

import atexit
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from pydantic import BaseModel

from tierwise import documents
from tierwise.cascade import RunContext
from tierwise.documents.spool import Spool, SpoolFolder
from tierwise.engine import Engine
from tierwise.errors import Misuse
from tierwise.orchestrate.artifacts import key_of, publish_summary
from tierwise.orchestrate.dry_run import BatchTask, rehearsal, rehearsed_flow, submitted
from tierwise.orchestrate.pause_for_top_up import ask_by_pausing
from tierwise.orchestrate.run_manifest import SPOOL, find_note, join, leave_note
from tierwise.orchestrate.secrets import variables
from tierwise.orchestrate.server import tellable, wait_until_recorded
from tierwise.orchestrate.watching import (
    NEEDS_ATTENTION,
    NOTHING_NEW,
    Progress,
    end_in,
    only_shown,
    tag_task_run,
    tell_foreseen_in_one_line,
)
from tierwise.plan import Planner, Sampler, take_plan
from tierwise.project import Project
from tierwise.records import Batch, Document, Sensitivity
from tierwise.report import RunSummary, summarize_run
from tierwise.steps.checks import Check
from tierwise.steps.step import Correct, Gather, Stakes, Step
from tierwise.text.escape import escape_control

_lock = threading.Lock()
_engines: dict[Path, Engine] = {}  # by project root
_runs: dict[str | None, Run] = {}  # by flow run id; None outside Prefect
_over: set[str | None] = set()  # flow runs whose block has ended
_joined: dict[Path, Run] = {}  # runs of other processes that this one works for, by their note


def engine() -> Engine:
    """The engine of this process for the project around the current folder; made at the first call."""
    if rehearsing := rehearsal():
        return rehearsing
    project = Project.find()
    with _lock:
        if project.root not in _engines:
            _engines[project.root] = made = Engine(project, variables(project))
            atexit.register(made.close)
            gc.freeze()  # else full collections walk through all that was imported: a tenth of a document's CPU
        return _engines[project.root]


@contextmanager
def using(made: Engine) -> Iterator[None]:
    """Have steps and flows of a project use this engine, in this block, in place of their own."""
    root = made.project.root
    with _lock:
        before = _engines.get(root)
        _engines[root] = made
    try:
        yield
    finally:
        with _lock:
            del _engines[root]
            if before:
                _engines[root] = before


class Run:
    """A flow run on record. `summary()` tells what it did and cost."""

    def __init__(
        self, engine: Engine, context: RunContext, folder: SpoolFolder | None = None
    ) -> None:
        """`folder` is that of another process's run, for which this one works."""
        self.engine = engine
        self.context = context
        self.progress = None if folder else Progress()
        # whether what was done before is left out, and how much that is
        self.only_new = False
        self.settled = 0
        self._spool = folder or (
            None if rehearsal() else Spool(engine.project.root / SPOOL, context.id)
        )

    @property
    def id(self) -> str:
        """The run's id in the ledger: what `tierwise show` takes."""
        return self.context.id

    def hold(self, batch: Batch) -> Batch:
        """The batch as a handle, its documents out of memory; in a rehearsal they stay as they are."""
        return self._spool.put(batch) if self._spool else batch

    def close(self) -> None:
        """Let go of all documents; what tasks still bring stays with them."""
        spool = self._spool
        self._spool = None
        if isinstance(spool, Spool):
            spool.close()

    def open_to_others(self, flow_run_id: str) -> None:
        """Let the processes that share the project's folder work for this run."""
        if self._spool:
            leave_note(self._spool.path, flow_run_id, self.engine, self.context)

    def summary(self) -> RunSummary:
        """What the run did, by step, tier and model, from the ledger."""
        if isinstance(self.engine, Planner):
            return self.engine.summary(self.context)
        return summarize_run(self.engine.ledger, self.id)


@contextmanager
def recorded_run(
    *,
    budget_usd: float | Decimal | None = None,
    within: timedelta | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Record everything that steps do inside this block as one run, under one budget (USD, None: no limit).

    `within` sets a deadline that routes may look at (`minutes_left_max`); `tags` say whose run it is, such as
    {"team": "claims"}: limits in the rules may be for the runs with a tag.
    TIERWISE_FRESH=1 asks again for answers that were paid in earlier runs.
    """
    flow_run_id = flow_run.get_id()
    tell_foreseen_in_one_line()
    current = engine()
    flow = flow_run.get_flow_name()
    given = flow_run.get_parameters() or {}
    told = {name: str(value) for name, value in given.items()}
    context = current.start_run(
        flow or "script",
        budget_usd=None if budget_usd is None else Decimal(str(budget_usd)),
        parameters={name: _plain(value) for name, value in given.items()},
        flow_run_id=flow_run_id,
        flow_run_name=flow_run.get_name(),
        tags=tags,
        deadline=None if within is None else time.time() + within.total_seconds(),
        plan=take_plan(current.project.root, flow, told) if flow else None,
        ask=ask_by_pausing() if flow_run_id else None,
    )
    run = _runs[flow_run_id] = Run(current, context)
    try:
        if flow_run_id:
            run.open_to_others(flow_run_id)
        yield run
    except BaseException as error:
        current.finish_run(context, "failed" if isinstance(error, Exception) else "cancelled")
        raise
    else:
        current.finish_run(context, "completed")
        if flow_run_id:
            _show(run, flow_run_id)
            wait_until_recorded(flow_run_id, submitted.pop(flow_run_id, 0))
    finally:
        run.close()
        del _runs[flow_run_id]
        _over.add(flow_run_id)


def _show(run: Run, flow_run_id: str) -> None:
    """Put what came of the run where operators look; a look that found nothing new leaves no trace but its state."""
    summary = run.summary()
    if run.settled and not summary.run.documents:
        end_in(flow_run_id, NOTHING_NEW, f"nothing new: {run.settled} documents were done before")
        return
    with only_shown():
        publish_summary(summary)
    if waiting := summary.run.deferred:
        where = key_of(summary.flow, "attention")
        message = f"{waiting} of {summary.run.documents} documents wait: see {where}"
        end_in(flow_run_id, NEEDS_ATTENTION, message)


def current_run() -> Run:
    """The recorded run that this code is part of, perhaps in another process. Raises Misuse outside of one."""
    flow = FlowRunContext.get()
    if flow and flow.detached and flow.flow_run:
        return _run_elsewhere(str(flow.flow_run.id))
    run = _runs.get(flow_run.get_id())
    if run is None and flow_run.get_id() in _over:
        raise Misuse("the run is over, so nothing more is asked; run it again to go on")
    if run is None:
        raise Misuse("steps run inside `with recorded_run():`, so that their cost is on record")
    return run


def _run_elsewhere(flow_run_id: str) -> Run:
    """The run of a flow that another process runs. Raises Misuse when it is over, or is not for this process."""
    current = engine()
    note = find_note(current.project.root, flow_run_id)
    with _lock:
        for over in [known for known in _joined if not known.exists()]:
            del _joined[over]
        if note not in _joined:
            _joined[note] = Run(current, join(note, current), SpoolFolder(note.parent))
        return _joined[note]


class StepTask(BatchTask):
    """A Prefect task that runs a step over a batch. `spec` is the step itself."""

    spec: Step


def step(
    name: str,
    *,
    returns: type[BaseModel],
    checks: Sequence[Check] = (),
    prompt: str | None = None,
    choices: Mapping[str, str] | None = None,
    splits: str | None = None,
    gathers: Gather | None = None,
    stakes: Stakes = "normal",
    correct: Correct | None = None,
) -> StepTask:
    """A step as a Prefect task over a batch: `classify.map(batches, labels=unmapped([…]))`.

    Keyword arguments become parameters of the prompt and the checks. Two are taken by the task itself:
    `only`, a function of a document that says whether the step applies to it, and `returns`, another
    output model for this call. See `tierwise.steps.step.Step` for the rest.
    """
    spec = Step(
        name=name,
        returns=returns,
        prompt=prompt or name,
        checks=tuple(checks),
        choices=dict(choices or {}),
        splits=splits,
        gathers=gathers,
        stakes=stakes,
        correct=correct,
    )

    def run_step(
        batch: Batch,
        *,
        only: Callable[[Document], bool] | None = None,
        returns: type[BaseModel] | None = None,
        **parameters: Any,
    ) -> Batch:
        run = current_run()
        done = run.engine.run_batch(
            run.context,
            replace(spec, returns=returns) if returns else spec,
            batch,
            parameters,
            only=only,
        )
        _log_batch(name, done)
        if not rehearsal():
            tag_task_run(name, done)
        if run.progress and not rehearsal():
            run.progress.add(name, done.size)
        return run.hold(done)

    made = StepTask(
        run_step,
        name=name,
        description=returns.__doc__,
        task_run_name=_task_run_name(name),  # type: ignore[arg-type] # Prefect asks for a class method of its own
        cache_policy=NO_CACHE,  # the ledger is the memory: it outlives runs and knows what was paid
        persist_result=False,  # document text stays out of Prefect's storage
    )
    made.spec = spec
    return made


def read_documents(
    source: Path,
    *,
    sensitivity: Sensitivity = "restricted",
    batch_size: int = 50,
    text_column: str = "text",
    max_bytes: int = 20_000_000,
    only_new: bool = False,
    shard: str = "1/1",
) -> list[Batch]:
    """The documents of a folder or file in batches; those that cannot be read are on record as deferred.

    Batches are handles: their documents wait on disk until a task works on them. `text_column` holds the text in
    CSV and JSON Lines files; what has more than `max_bytes` is deferred. Raises Misuse when there is nothing to read.
    `only_new` leaves out what an earlier run of this flow brought to an end, accepted or deferred, under the same
    id and with the same text; then no documents at all are fine. `shard` takes the documents of one part alone:
    with "2/8", those of the second of eight, which together hold every document once.
    """
    run = current_run()
    folder = run.engine.project.root / source
    run.only_new = only_new
    if only_new and _is_empty(folder):
        return []
    found = documents.iter_documents(
        folder,
        sensitivity=sensitivity,
        text_column=text_column,
        max_bytes=max_bytes,
        shard=documents.Shard.parse(shard),
    )
    if only_new:
        found = _new(run, found)
    if retry := run.engine.retry:
        found = (document for document in found if document.id in retry.documents)
    batches = [run.hold(_recorded(run, batch)) for batch in documents.in_batches(found, batch_size)]
    total = sum(batch.size for batch in batches)
    run.engine.expected += total
    if run.progress:
        run.progress.total += total
    if only_new:
        _log("%d documents are new, %d were done before", total, run.settled)
    batches = [batch.with_total(total) for batch in batches]
    return run.engine.selected(batches) if isinstance(run.engine, Sampler) else batches


def _is_empty(folder: Path) -> bool:
    """Whether there is a folder, but no file in it."""
    return folder.is_dir() and not any(path.is_file() for path in folder.rglob("[!.]*"))


def _new(run: Run, found: Iterable[Document]) -> Iterator[Document]:
    """Those that no earlier run of the flow brought to an end; the others are counted."""
    flow = flow_run.get_flow_name() or rehearsed_flow()
    settled = run.engine.ledger.settled(flow) if flow else frozenset()
    for document in found:
        if (document.id, document.hash) in settled:
            run.settled += 1
        else:
            yield document


def _recorded(run: Run, batch: Batch) -> Batch:
    """The batch, after what could not be read is on record."""
    for document in batch.load():
        if unread := document.outcomes.get("read"):
            run.engine.record(run.context, document, unread)
    return batch


def write_documents(batches: Iterable[Batch | PrefectFuture[Batch]], folder: Path) -> Path:
    """Wait for the batches and write every document's outcomes below `folder`; gives the path of outcomes.jsonl.

    After `read_documents(…, only_new=True)` the results of earlier runs stay in it.
    """
    run = current_run()
    if rehearsal():
        return run.engine.project.root / folder / "outcomes.jsonl"
    done = (batch.result() if isinstance(batch, PrefectFuture) else batch for batch in batches)
    return documents.write_documents(done, run.engine.project.root / folder, keep=run.only_new)


def _plain(value: Any) -> Any:
    """A parameter as it can be given again: JSON's own types as they are, a path and the like as text."""
    return (
        value
        if value is None or isinstance(value, bool | int | float | str | list | dict)
        else str(value)
    )


def _task_run_name(step_name: str) -> Callable[[dict[str, Any]], str]:
    def name(parameters: dict[str, Any]) -> str:
        batch = parameters.get("batch")
        return f"{step_name} · {batch.label}" if isinstance(batch, Batch) else step_name

    return name


def _log(message: str, *values: object, level: int = logging.INFO) -> None:
    """A line in the log of the flow or task run; none without Prefect."""
    with suppress(MissingContextError):
        get_run_logger().log(level, message, *values)


def _log_batch(step_name: str, batch: Batch) -> None:
    """One line a person can act on, and one for each document that waits."""
    outcomes = [(document.id, document.outcomes[step_name]) for document in batch.load()]
    waiting = [
        (name, tellable(outcome)) for name, outcome in outcomes if outcome.status == "deferred"
    ]
    accepted = sum(outcome.status == "accepted" for _, outcome in outcomes)
    escalated = sum(outcome.escalated for _, outcome in outcomes)
    _log("%s: %d accepted, %d escalated, %d deferred", step_name, accepted, escalated, len(waiting))
    for name, reason in waiting:
        _log(
            "%s deferred %s: %s",
            step_name,
            escape_control(name),
            escape_control(reason),
            level=logging.WARNING,
        )
