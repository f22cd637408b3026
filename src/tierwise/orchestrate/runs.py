"""Recorded runs: a flow run on record in the ledger, under one budget, with a summary.

Prefect shows and schedules; cost, completeness and resume come from the ledger alone.

A run resumes after a crash because paid calls are reused: see `cascade/attempts.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import get_args

from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from tierwise.cascade import RunContext
from tierwise.documents import Origin
from tierwise.documents.spool import Spool, SpoolFolder
from tierwise.engine import RunOptions, StepRunner
from tierwise.errors import Misuse
from tierwise.ledger import RunState
from tierwise.orchestrate.alert_watch import alerts_watched, report_waiting
from tierwise.orchestrate.artifacts import (
    key_of,
    publish_desk_link,
    publish_summary,
)
from tierwise.orchestrate.batch_reader import BatchReader
from tierwise.orchestrate.batch_watch import batches_watched
from tierwise.orchestrate.canaries import restore_suspended
from tierwise.orchestrate.done_files import DoneFolder, move_files_of_run
from tierwise.orchestrate.failures import cause_raised
from tierwise.orchestrate.folders import folders_of
from tierwise.orchestrate.mapped_batches import ReadingThread
from tierwise.orchestrate.pause_for_top_up import ask_by_pausing
from tierwise.orchestrate.prefect_ui import (
    FAILED,
    IN_BATCHES,
    NEEDS_ATTENTION,
    NOTHING_NEW,
    FinalState,
    Progress,
    configure_prefect_logging,
    set_final_state,
    warn_on_failure,
    warnings_on_page,
)
from tierwise.orchestrate.process_state import STATE, step_runner
from tierwise.orchestrate.run_manifest import find_manifest, join_run, write_manifest
from tierwise.orchestrate.run_options import recorded_parameters
from tierwise.orchestrate.server import wait_until_recorded
from tierwise.orchestrate.services import desk_address
from tierwise.plan import take_plan
from tierwise.policy.transport import TransportSetting, rescue_at
from tierwise.records import Batch, Order
from tierwise.report import RunSummary, summarize_run
from tierwise.report.causes import by_cause, command_to_resume
from tierwise.text.amounts import plural

# A run that is resumed so shortly before its deadline is in danger waits for its batches.
_EARLY_S = 120.0


class Run:
    """A flow run on record. `summary()` returns what it did and cost."""

    def __init__(
        self, engine: StepRunner, context: RunContext, folder: SpoolFolder | None = None
    ) -> None:
        """`folder` is that of another process's run, which this process works for."""
        self.engine = engine
        self.context = context
        self.progress = None if folder else Progress()
        self.only_new = False  # leaves out documents that earlier runs completed
        self.sources: list[Path] = []  # that were read
        self.origins: list[Origin] = []  # the names of these sources, each once
        self.done_folders: list[DoneFolder] = []  # that files of the sources move to
        self.outputs: list[str] = []  # the names of the folders that were written
        self.has_shard = False  # reads only a part of its documents
        # of groups, and of documents that have such an id
        self.group_ids: set[str] = set()
        self.settled = 0  # the number of those documents
        self.still_written = 0  # files that are left for the next run
        self.documents = 0  # the number of documents that were read and not left out
        self.fail_when_waiting = engine.project.fail_when_waiting
        self._readers: list[BatchReader] = []
        self.is_stopped = False  # nothing that is read is recorded any more
        self.recording = threading.Lock()  # held while what was read is recorded
        self._reading = threading.RLock()
        self.parked = 0  # task runs that wait for provider batches
        self._threads: dict[BatchReader, ReadingThread] = {}
        self._spool = folder
        if folder is None and engine.spool:
            self._spool = Spool(engine.spool, context.id)

    @property
    def id(self) -> str:
        """The run's id in the ledger: what `tierwise show` takes."""
        return self.context.id

    def hold(self, batch: Batch) -> Batch:
        """Return the batch as a handle, its documents out of memory.

        A dry run has no spool: its documents stay in memory.
        """
        return self._spool.put(batch) if self._spool else batch

    def read(self, batches: Iterator[Batch]) -> BatchReader:
        """Read the first batch now, the others when they are needed or at the end of the run."""
        reader = BatchReader(batches, self._reading)
        self._readers.append(reader)
        bool(reader)  # what is wrong with the source is raised here
        return reader

    def reading_thread(self, batches: BatchReader) -> ReadingThread:
        """Return the thread that reads batches and submits them to steps."""
        if batches not in self._threads:
            self._threads[batches] = ReadingThread(
                batches, self._look_again, lambda: self.parked
            )
        return self._threads[batches]

    @property
    def is_mapping(self) -> bool:
        """True while the flow maps steps over batches, and further steps may follow."""
        threads = list(self._threads.values())
        return bool(threads) and not any(thread.is_awaited for thread in threads)

    def _look_again(self) -> None:
        self.context.costs.on_news()

    def note_parked(self, number: int) -> None:
        """Note how many task runs wait for provider batches: as many more are read meanwhile."""
        self.parked = number

    def stop_reading(self) -> None:
        """Read, record and submit no further batch. A file that is being read is not waited for."""
        with self.recording:
            self.is_stopped = True
        for thread in self._threads.values():
            thread.stop()

    def read_to_end(self) -> None:
        """Read what no step was mapped over, so that what cannot be read is on record."""
        for thread in self._threads.values():
            thread.wait()
        for reader in self._readers:
            reader.read_to_end()

    def close(self) -> None:
        """Delete the stored documents. Tasks that still run keep theirs in memory."""
        spool = self._spool
        self._spool = None
        if isinstance(spool, Spool):
            spool.close()

    def open_to_others(self, flow_run_id: str) -> None:
        """Let the processes that share the project's folder work for this run."""
        if self._spool:
            write_manifest(self._spool.path, flow_run_id, self.engine, self.context)

    def summary(self) -> RunSummary:
        """Return what the run did, by step, tier and model, from the ledger."""
        summary = summarize_run(self.engine.records, self.id)
        return replace(
            summary,
            settled=self.settled if self.only_new else None,
            fail_when_waiting=self.fail_when_waiting,
        )


@contextmanager
def recorded_run(
    *,
    budget_usd: float | Decimal | None = None,
    within: timedelta | None = None,
    patience: timedelta | None = None,
    order: Order | None = None,
    tags: Mapping[str, str] | None = None,
    transport: TransportSetting | None = None,
    detach: bool = False,
) -> Iterator[Run]:
    """Record everything that steps do inside this block as one run, under one budget.

    `budget_usd` is in USD; None is no limit. `within` sets a deadline that routes may look at
    (`minutes_left_max`), and after which no document waits for a model; with it, calls go in
    provider batches where there is time enough. `transport` is how calls go, whatever the routes
    say. With `detach`, the run ends once its calls are in provider batches, and the next run of the
    flow with these parameters, or `tierwise resume`, goes on with it. `patience` is how long
    documents wait for a model that does not answer (default: the project's setting). With `order`
    "depth", a batch goes through all steps before new batches begin; with "breadth", all batches go
    through a step before the next one begins (default: the project's setting). `tags` say whose run
    it is, such as {"team": "claims"}: limits in the rules may be for the runs with a tag.
    TIERWISE_FRESH=1 asks again for answers that were paid in earlier runs.
    """
    flow_run_id = flow_run.get_id()
    configure_prefect_logging()
    runner = step_runner()
    budget = None if budget_usd is None else Decimal(str(budget_usd))
    patience_s = None if patience is None else patience.total_seconds()
    options = RunOptions(
        within=within or runner.options.within,
        transport=_checked_transport(transport or runner.options.transport),
        detach=detach or runner.options.detach,
        continues=runner.options.continues,
    )
    context = _start(
        runner,
        flow_run_id,
        options,
        budget=budget,
        patience_s=patience_s,
        order=_checked_order(order),
        tags=tags,
    )
    run = Run(runner, context)
    STATE.begin_run(flow_run_id, run)
    try:
        if flow_run_id:
            run.open_to_others(flow_run_id)
            _link_to_desk(run)
        with (
            warnings_on_page(flow_run_id),
            cause_raised(),
            alerts_watched(runner, context, flow_run_id),
            batches_watched(runner, context, flow_run_id),
        ):
            yield run
            run.read_to_end()
    except BaseException as error:
        state: RunState = "failed" if isinstance(error, Exception) else "cancelled"
        run.stop_reading()
        try:
            # Batches go on in threads of their own: none of them makes a further call.
            runner.stop_run(context)
        finally:
            # Last, as it seals what is on record.
            runner.finish_run(context, state)
        raise
    else:
        runner.finish_run(context, _final_state(run), folders_of(run))
        move_files_of_run(run)
        if flow_run_id:
            _publish(run, flow_run_id)
            wait_until_recorded(flow_run_id, STATE.take_task_runs(flow_run_id))
    finally:
        run.close()
        STATE.end_run(flow_run_id)


def _link_to_desk(run: Run) -> None:
    """Link from the flow run's page in Prefect to the run's page at the desk, if that is up."""
    desk = desk_address(run.engine.project.root)
    flow = flow_run.get_flow_name()
    if desk is None or not flow or STATE.dry_run is not None:
        return
    with warn_on_failure():
        publish_desk_link(flow, run.id, desk)


def current_run() -> Run:
    """Return the recorded run that this code is part of, perhaps in another process.

    Raises Misuse outside of one.
    """
    flow = FlowRunContext.get()
    if flow and flow.detached and flow.flow_run:
        return _run_of_other_process(str(flow.flow_run.id))
    return STATE.run(flow_run.get_id())


def _start(
    runner: StepRunner,
    flow_run_id: str | None,
    options: RunOptions,
    *,
    budget: Decimal | None,
    patience_s: float | None,
    order: Order | None,
    tags: Mapping[str, str] | None,
) -> RunContext:
    """Put a new run on record, with the plan that was made for it, or go on with an earlier one."""
    restore_suspended(runner)
    flow = flow_run.get_flow_name()
    parameters = flow_run.get_parameters() or {}
    on_record = recorded_parameters(parameters, runner.options)
    continues = options.continues
    begins_anew = runner.retry is not None or STATE.dry_run is not None
    if continues is None and options.detach and flow and not begins_anew:
        continues = runner.ledger.detached.same(flow, on_record)
    deadline = None
    detached = options.detach
    if options.within is not None:
        began = time.time()
        if continues:
            began = runner.ledger.runs.resolve(continues).started_at
        deadline = began + options.within.total_seconds()
    if continues and detached and deadline is not None:
        # Nobody but this process moves calls online in time.
        steps = len(runner.ledger.runs.outcome_counts(continues))
        detached = time.time() < rescue_at(deadline, steps) - _EARLY_S
    plan = None
    if flow:
        texts = {name: str(value) for name, value in parameters.items()}
        plan = take_plan(runner.project.root, flow, texts)
    return runner.start_run(
        flow or "script",
        budget_usd=budget,
        parameters=on_record,
        flow_run_id=flow_run_id,
        flow_run_name=flow_run.get_name(),
        tags=tags,
        deadline=deadline,
        patience_s=patience_s,
        order=order,
        plan=plan,
        ask=ask_by_pausing() if flow_run_id else None,
        transport=options.transport,
        detached=detached,
        continues=continues,
    )


def _final_state(run: Run) -> RunState:
    """Return the state of a run whose flow has come to its end."""
    summary = run.summary()
    if summary.run.in_batches:
        return "detached"
    return "waiting" if summary.failed else "completed"


def _checked_transport(transport: TransportSetting | None) -> TransportSetting | None:
    """Return the transport. Raises Misuse for another word, which a flow's parameter may hold."""
    settings = get_args(TransportSetting)
    if transport is None or transport in settings:
        return transport
    raise Misuse(f"transport is '{transport}'; write {', '.join(settings)}")


def _checked_order(order: Order | None) -> Order | None:
    """Return the order. Raises Misuse for another word, which a flow's parameter may hold."""
    orders = get_args(Order)
    if order is None or order in orders:
        return order
    raise Misuse(f"order is '{order}'; write {' or '.join(orders)}")


def _publish(run: Run, flow_run_id: str) -> None:
    """Publish a run's result in Prefect.

    A run that found nothing new has no artifacts, only its final state.
    """
    summary = run.summary()
    with warn_on_failure():
        report_waiting(run.engine, flow_run_id, summary, _causes(summary))
    if run.only_new and not summary.run.documents:
        message = summary.empty()
        if run.still_written:
            files = plural(run.still_written, "file")
            written = f"{files} still being written: next run"
            # Where nothing was done before either, these files are all that is there.
            message = f"{message}; {written}" if run.settled else written
        nothing = StateType.COMPLETED, NOTHING_NEW, message
        set_final_state(flow_run_id, FinalState(*nothing, tag=NOTHING_NEW))
        return
    with warn_on_failure():
        publish_summary(summary)
    if summary.run.in_batches and not summary.failed:
        in_batches = plural(summary.run.in_batches, "document")
        message = f"{in_batches} in provider batches: {command_to_resume(run.id)}"
        waiting = StateType.COMPLETED, IN_BATCHES, message
        set_final_state(flow_run_id, FinalState(*waiting, tag=IN_BATCHES))
        return
    if not summary.run.deferred:
        return
    key = key_of(summary.flow, "attention")
    message = f"{_causes(summary)}; see {key}"
    state = StateType.COMPLETED, NEEDS_ATTENTION
    if summary.failed:
        state = StateType.FAILED, FAILED
        percent = run.fail_when_waiting
        message += f" (more than {percent:g} % fail a run, see `fail_when_waiting`)"
    final = FinalState(*state, message=message, tag=NEEDS_ATTENTION)
    set_final_state(flow_run_id, final)


def _causes(summary: RunSummary) -> str:
    """Return how many documents wait, and for what, in one line."""
    causes = [
        f"{remedy.title[0].lower()}{remedy.title[1:]}: {len(rows)}"
        for remedy, _, rows in by_cause(summary.deferred)
    ]
    run = summary.run
    waiting = f"{run.deferred} of {run.documents} documents wait"
    return f"{waiting} ({'; '.join(causes)})"


def _run_of_other_process(flow_run_id: str) -> Run:
    """Return the run of a flow that another process runs.

    Raises Misuse when it is over, or is not for this process.
    """
    engine = step_runner()
    manifest = find_manifest(engine.project.root, flow_run_id)

    def join() -> Run:
        return Run(engine, join_run(manifest, engine), SpoolFolder(manifest.parent))

    return STATE.joined_run(manifest, join)
