"""The engine of one process: one event loop that owns connections, limits and the ledger's writer.

Everything outside is synchronous and plain; async lives behind `run_batch`. A flow sees an engine
as a `StepRunner`, and so may run with a planner or a sampler in its place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, TypeVar

from anyio.from_thread import start_blocking_portal

from tierwise import __version__
from tierwise.cascade import Cascade, Job, RunContext
from tierwise.cascade.batch_waits import ON_PARKED, BatchWaits
from tierwise.cascade.batches import BatchLane
from tierwise.cascade.circuit import LastSign
from tierwise.cascade.clock import Clock
from tierwise.cascade.empty_budget import AskForTopUp, TopUp
from tierwise.cascade.job import rank_of
from tierwise.cascade.known_outcomes import Retry, known_outcomes, sent_again
from tierwise.cascade.outages import SHORT_PATIENCE_S
from tierwise.documents import write_documents
from tierwise.documents.places import place_of, source_of
from tierwise.errors import (
    BudgetExceeded,
    LedgerAway,
    Misuse,
    RunStopped,
    TierwiseError,
    describe_exception,
)
from tierwise.gateway import Gateway
from tierwise.gateway.local import LocalServers
from tierwise.identity import current_of, examples_of
from tierwise.ledger import (
    DeferredRow,
    Ledger,
    RunFolders,
    RunInfo,
    RunRow,
    RunState,
    SummaryRow,
)
from tierwise.ledger.people.demotions import with_suspensions
from tierwise.ledger.people.samples import demoted
from tierwise.ledger.rows import WENT_THROUGH
from tierwise.policy.budget import Limit
from tierwise.policy.certificates import Current
from tierwise.policy.own_model import (
    missing_for,
    model_of,
    resolved_work,
    with_own_model,
)
from tierwise.policy.router import Policy
from tierwise.policy.sentinel import Key, Suspension
from tierwise.policy.transport import TransportSetting
from tierwise.project import Project
from tierwise.records import GROUP_BY, Batch, Document, Order, Outcome, Status
from tierwise.steps.examples import ExampleSelector
from tierwise.steps.prompts import prompt_without_model
from tierwise.steps.step import Step
from tierwise.text.tokens import TokenCounts
from tierwise.text.variables import is_on
from tierwise.text.vectors import Encoder

log = logging.getLogger(__name__)

STOPS_IN_S = 8.0  # for calls under way when a run is stopped
_LEDGER_STOPS_IN_S = 5.0  # for a ledger that is away when a run is stopped
SPOOL = Path(".tierwise/spool")  # below the project's root
OnOutcome = Callable[[Document, Outcome], None]
T = TypeVar("T")


class Unknown(Enum):
    """What only a run can say; see `StepRunner.evaluate`."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a command says of the run that it starts, for any flow.

    A flow that has a parameter of the same name gets the value as well. `continues` is the id of an
    earlier run that goes on.
    """

    within: timedelta | None = None
    transport: TransportSetting | None = None
    detach: bool = False
    continues: str | None = None


class RunRecords(Protocol):
    """The records of runs that a summary is made of: `ledger.runs`, or those of a dry run."""

    def resolve(self, name: str, /) -> RunRow:
        """Return a run's totals."""
        ...

    def summary(self, run_id: str, /) -> Sequence[SummaryRow]:
        """Return a row for each step, tier and model."""
        ...

    def outcome_counts(self, run_id: str, /) -> Mapping[str, Mapping[Status, int]]:
        """Return the number of outcomes by step and status."""
        ...

    def deferred(self, run_id: str, /) -> Sequence[DeferredRow]:
        """Return the deferred documents."""
        ...


class StepRunner(Protocol):
    """Runs the steps of a flow: the engine for real, a planner or a sampler in a dry run."""

    project: Project
    ledger: Ledger
    policy: Policy
    expected_documents: int  # documents that were read, for progress
    expected_groups: int  # groups that were made of them
    left_out: list[str]  # files that were not read, in words
    moved: list[str]  # files that moved to a done folder, in words
    retry: Retry | None
    options: RunOptions
    batches_text: str  # how far the run's provider batches are, in words

    @property
    def records(self) -> RunRecords:
        """The records that a run's summary is read from."""
        ...

    @property
    def spool(self) -> Path | None:
        """The folder for documents between steps; None keeps them in memory."""
        ...

    @property
    def followed_batches(self) -> frozenset[str]:
        """The ids of the provider batches that this process waits for."""
        ...

    def start_run(
        self,
        flow: str,
        *,
        budget_usd: Decimal | None = None,
        parameters: Mapping[str, Any] | None = None,
        flow_run_id: str | None = None,
        flow_run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        deadline: float | None = None,
        patience_s: float | None = None,
        order: Order | None = None,
        plan: Mapping[str, Any] | None = None,
        ask: AskForTopUp | None = None,
        transport: TransportSetting | None = None,
        detached: bool = False,
        continues: str | None = None,
    ) -> RunContext:
        """Begin a run, record it, and return it; a planner records nothing.

        For the parameters see `Engine.start_run`.
        """
        ...

    def stop_run(self, run: RunContext) -> None:
        """Begin no call of a run any more; see `Engine.stop_run`."""
        ...

    def finish_run(
        self, run: RunContext, state: RunState, folders: Sequence[RunFolders] = ()
    ) -> None:
        """End a run, with the folders that it read and wrote."""
        ...

    def select(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """Return the batches of documents that the run is about."""
        ...

    def record(self, run: RunContext, document: Document, outcome: Outcome) -> None:
        """Record an outcome that no model gave, such as that of reading."""
        ...

    def evaluate(
        self, function: Callable[[Document], T], document: Document
    ) -> T | Unknown:
        """Return what a flow's function gives for a document; UNKNOWN where only a run can say."""
        ...

    def assumed_group_size(self, flow: str, documents: int) -> int:
        """Return the size of groups whose keys are not known yet; a planner notes the assumption."""
        ...

    def start_groups(
        self, run: RunContext, groups: Sequence[tuple[Document, Sequence[Document]]]
    ) -> list[Document]:
        """Record groups with their members, and return them as they go on."""
        ...

    def run_batch(
        self,
        run: RunContext,
        step: Step,
        batch: Batch,
        parameters: Mapping[str, Any] | None = None,
        *,
        only: Callable[[Document], bool] | None = None,
    ) -> Batch:
        """Return the batch with every document's outcome of this step."""
        ...

    def write_documents(
        self,
        batches: Iterable[Batch],
        folder: Path,
        *,
        keep: bool,
        html: bool = False,
    ) -> Path:
        """Write the results and return the path of outcomes.jsonl."""
        ...


class Engine:
    """Runs batches through steps. Thread-safe; one a process.

    Close it, or use it as a context manager.
    """

    def __init__(
        self,
        project: Project,
        env: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`clock` is for tests: it measures the waits for models."""
        self.project = project
        self.env = os.environ if env is None else env
        self.policy = project.policy(self.env)
        self.prompts = project.prompts
        self.expected_documents = 0  # documents that were read, for progress
        self.expected_groups = 0  # groups that were made of them
        self.left_out: list[str] = []  # files that were not read, in words
        self.moved: list[str] = []  # files that moved to a done folder, in words
        # True asks again for answers that were paid in earlier runs
        self.fresh = is_on(self.env, "TIERWISE_FRESH")
        self.retry: Retry | None = None  # an earlier run that is repeated
        self.options = RunOptions()  # what a command says of the next run
        self.batches_text = ""  # how far the run's provider batches are, in words
        self._questions: set[str] = set()  # hashes of those on record
        self._tokens = TokenCounts()
        self._listeners: list[OnOutcome] = []
        self._selectors: dict[str, ExampleSelector | None] = {}
        # the certificates whose server reports another model
        self.suspended: Mapping[Key, Suspension] = {}
        self._refuted: dict[Key, str] = {}  # certificates, by labels
        # by watched model: its names that suspend no certificate
        self._fitting: Mapping[str, frozenset[str]] = {}
        self._is_served_otherwise = False  # since suspensions were looked at
        self._lock = threading.Lock()
        # by run: its documents that are under way, on the event loop
        self._tasks: dict[str, set[asyncio.Task[Document]]] = {}
        # What has been opened is closed again when a later part fails to open.
        with ExitStack() as stack:
            # One that never answered may be at a wrong address: no long wait for it.
            self.ledger = Ledger.open(
                project.ledger_url,
                root=project.root,
                patience_s=min(project.patience_s, SHORT_PATIENCE_S),
            )
            stack.callback(self.ledger.close)
            self._local = LocalServers()
            stack.callback(self._local.close)
            self._portal = stack.enter_context(start_blocking_portal("asyncio"))
            self._gateway = Gateway(
                project.catalog, self.env, self._local, root=project.root
            )
            stack.callback(self._portal.call, self._gateway.aclose)
            self._batches = BatchLane(
                lambda: self._gateway.batches,
                self.ledger,
                clock,
                linger_s=project.settings.batch_linger,
            )
            stack.callback(self._portal.call, self._batches.aclose)
            self._cascade = Cascade(
                self._gateway,
                self.ledger,
                project.scale.workers,
                clock,
                self._batches,
            )
            stack.callback(self._cascade.close)
            # first of all: the event loop ends once its tasks have
            stack.callback(self._portal.call, self._cascade.end_waits)
            self.update_demotions()
            self._closing = stack.pop_all()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections, stop embedded models, flush the ledger. May be called twice."""
        self._closing.close()

    @property
    def records(self) -> RunRecords:
        """The ledger, which a run's summary is read from."""
        return self.ledger.runs

    def last_signs(self) -> dict[str, LastSign]:
        """Return whether each model that was called is out, and since when."""
        return self._portal.call(self._cascade.last_signs)

    @property
    def spool(self) -> Path | None:
        """The folder for documents between steps."""
        return self.project.root / SPOOL

    @property
    def followed_batches(self) -> frozenset[str]:
        """The ids of the provider batches that this process waits for, of whatever run."""
        return self._batches.followed

    @property
    def loading(self) -> str | None:
        """The embedded model whose server is being started, if there is one."""
        return self._local.loading

    @contextmanager
    def on_outcome(self, notify: OnOutcome) -> Iterator[None]:
        """Call a function with every outcome inside this block, on the engine's thread."""
        self.expected_documents = 0
        self.expected_groups = 0
        self.left_out = []
        self.moved = []
        self._listeners.append(notify)
        try:
            yield
        finally:
            self._listeners.remove(notify)

    def start_run(
        self,
        flow: str,
        *,
        budget_usd: Decimal | None = None,
        budget_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        fresh: bool | None = None,
        flow_run_id: str | None = None,
        flow_run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        deadline: float | None = None,
        patience_s: float | None = None,
        order: Order | None = None,
        plan: Mapping[str, Any] | None = None,
        ask: AskForTopUp | None = None,
        transport: TransportSetting | None = None,
        detached: bool = False,
        continues: str | None = None,
    ) -> RunContext:
        """Begin a run, record it, and return it.

        With `fresh` (default: the engine's), answers paid earlier are asked for again. `tags` say
        whose run it is, such as {"team": "claims"}; `deadline` is in epoch seconds; `patience_s` is
        how long documents wait for a model that is out (default: the project's setting); `order` is
        depth or breadth (default: the project's setting); `plan` is the plan that it is compared
        with. Runs with the same `budget_name` share one budget. `ask` is called in a thread of its
        own for a top-up, when the rules say `when_empty: pause`. `transport` is how calls go, whatever
        the routes say. With `detached`, a call that is in a provider batch is not waited for: its
        document is `waiting`. `continues` is an earlier run that goes on, under its own id, budget
        and tags.
        """
        if patience_s is None:
            patience_s = self.project.patience_s
        self.ledger.be_patient(patience_s)
        self.update_demotions()
        now = time.time()
        run_id = continues or _new_run_id(now)
        since = now
        if continues:
            earlier = self.ledger.runs.resolve(continues)
            budget_usd = earlier.budget_usd
            tags = earlier.tags
            since = earlier.started_at
        budget_rules = self.policy.rules.budget
        limits = list(budget_rules.shared(tags or {}))
        if budget_usd is not None:
            limits.insert(0, Limit(budget_name or f"run {run_id}", budget_usd))
        run_budget = self.ledger.run_budget(limits)
        info = RunInfo(
            id=run_id,
            flow=flow,
            flow_run_id=flow_run_id,
            flow_run_name=flow_run_name,
            policy_hash=self.policy.hash,
            budget_usd=budget_usd,
            parameters=dict(parameters or {}),
            tierwise_version=__version__,
            started_at=now,
            tags=tags or {},
            plan=plan,
        )
        if continues:
            self.ledger.reopen_run(
                run_id, flow_run_id=flow_run_id, flow_run_name=flow_run_name
            )
            self._cascade.reopen(run_id)
        else:
            self.ledger.start_run(info)
        top_up = None
        if ask and budget_rules.when_empty == "pause":
            top_up = TopUp(ask, self.ledger)
        asks_again = self.fresh if fresh is None else fresh
        run = RunContext(
            id=run_id,
            policy=self.policy,
            budget=run_budget,
            fresh_since=since if asks_again else None,
            deadline=deadline,
            patience_s=patience_s,
            order=order or self.project.settings.order,
            top_up=top_up,
            retry=self.retry,
            transport=transport,
            detached=detached,
            is_continued=continues is not None,
        )
        # Answers of earlier processes' batches are collected meanwhile.
        self._portal.start_task_soon(
            self._batches.adopt_open, run_id, self.policy.catalog
        )
        return run

    def stop_run(self, run: RunContext) -> None:
        """Begin no call of a run any more, and wait until those under way are on record.

        Those that take longer than STOPS_IN_S are cut off, and recorded with an unknown cost.
        Batches of the run raise RunStopped. Where the ledger is away, what was paid is written to a
        file, and recorded by the next run.
        """
        self.ledger.hurry(_LEDGER_STOPS_IN_S)
        self._portal.call(self._stop_run, run.id)

    async def _stop_run(self, run_id: str) -> None:
        await self._cascade.stop(run_id, STOPS_IN_S)
        # What is left waits: for a permit, for another process, or for a call that takes too long.
        tasks = self._tasks.get(run_id, set())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def finish_run(
        self, run: RunContext, state: RunState, folders: Sequence[RunFolders] = ()
    ) -> None:
        """Close a run on record: completed, waiting, failed or cancelled.

        `folders` are those that it read and wrote. Of a run that did not go through all documents,
        the end may wait for the next run's start, where the ledger is away. With `keep_text =
        "never"`, the texts of one that did are deleted.
        """
        if run.top_up:
            run.top_up.close()
        self._tasks.pop(run.id, None)
        try:
            self.ledger.folders.record(run.id, folders)
            self.ledger.finish_run(run.id, state)
        except LedgerAway as error:
            if state in WENT_THROUGH:
                raise
            # Something else has ended the run, and is what its caller must hear of.
            log.warning("run %s ended, which is not on record yet: %s", run.id, error)
            return
        if state in WENT_THROUGH and self.project.settings.keep_text == "never":
            self.ledger.retention.forget_ended(by="keep_text = never")

    @contextmanager
    def recorded_run(
        self,
        name: str,
        *,
        budget_usd: Decimal | None = None,
        budget_name: str | None = None,
        fresh: bool | None = None,
        patience_s: float | None = None,
    ) -> Iterator[RunContext]:
        """Begin a run that is no flow's, and end it as the block ends; see `start_run`."""
        run = self.start_run(
            name,
            budget_usd=budget_usd,
            budget_name=budget_name,
            fresh=fresh,
            patience_s=patience_s,
        )
        try:
            yield run
        except Exception:
            self.finish_run(run, "failed")
            raise
        except BaseException:  # a person stopped it, such as by a KeyboardInterrupt
            self.finish_run(run, "cancelled")
            raise
        self.finish_run(run, "completed")

    def select(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """Return all batches as they are: a run is about every document."""
        return batches

    def record(self, run: RunContext, document: Document, outcome: Outcome) -> None:
        """Put an outcome on record that no model gave, such as that of reading."""
        self._portal.call(self.ledger.record_outcome, run.id, document, outcome)
        self._notify(document, outcome)

    def evaluate(
        self, function: Callable[[Document], T], document: Document
    ) -> T | Unknown:
        """Return what a flow's function gives for a document."""
        return function(document)

    def assumed_group_size(self, flow: str, documents: int) -> int:  # noqa: ARG002
        """Raise RuntimeError: in a run, every key is known."""
        raise RuntimeError("only a plan assumes the size of groups")

    def start_groups(
        self, run: RunContext, groups: Sequence[tuple[Document, Sequence[Document]]]
    ) -> list[Document]:
        """Record groups with their members, and return them.

        A group that waits has the outcome of `group_by` that says why. That of any other is on
        record alone: it is no answer that later steps look at. A member that no step has seen is
        put on record, too: without an outcome, nothing would know that it was read.
        """
        started = [group for group, _ in groups]
        self.ledger.groups.record(run.id, started)
        self.expected_groups += len(started)

        async def record_all() -> None:
            recordings = [
                self.ledger.record_outcome(
                    run.id, group, group.outcomes.get(GROUP_BY) or _grouped(group)
                )
                for group in started
            ]
            for group, members in groups:
                recordings += [
                    self.ledger.record_outcome(run.id, member, _seated(member, group))
                    for member in members
                    if not member.outcomes
                ]
            await asyncio.gather(*recordings)

        self._portal.call(record_all)
        for group in started:
            if group.stopped:
                self._notify(group, group.stopped)
        return started

    def write_documents(
        self,
        batches: Iterable[Batch],
        folder: Path,
        *,
        keep: bool,
        html: bool = False,
    ) -> Path:
        """Write the results below a folder of the project; return the path of outcomes.jsonl.

        With `keep`, the results of earlier runs stay in it; with `html`, there are HTML pages, too.
        """
        root = self.project.root
        output = place_of(folder, root)

        def find_owner(source: str) -> str:
            return self.ledger.folders.owner(output, source, earlier_source)

        def earlier_source(folders: RunFolders) -> str | None:
            """Return the source of a run of an earlier version that wrote to this folder."""
            named = folders.naming
            if folders.source is not None or not {"source", "out"} <= set(named):
                return None
            if place_of(named["out"], root) != output:
                return None
            return source_of(named["source"], root)

        return write_documents(
            batches, root / folder, keep=keep, html=html, find_owner=find_owner
        )

    def run_batch(
        self,
        run: RunContext,
        step: Step,
        batch: Batch,
        parameters: Mapping[str, Any] | None = None,
        *,
        only: Callable[[Document], bool] | None = None,
        models: tuple[str, ...] = (),
        thresholds: Mapping[str, float] | None = None,
    ) -> Batch:
        """Return the batch with every document's outcome of this step. Blocks.

        Documents go concurrently. `models` replaces the router's choice when they are measured,
        and `thresholds` are the confidences that their answers need; guards apply all the same.
        """
        job = self.job(
            run, step, parameters or {}, only=only, models=models, thresholds=thresholds
        )
        # Stored documents are read once; everything below sees them in memory.
        documents = batch.load()
        if not models:
            job = self._with_known_outcomes(job, documents)
        return self.run_job(job, batch.with_documents(documents))

    def run_job(self, job: Job, batch: Batch) -> Batch:
        """Return the batch with every document's outcome of a job's step. Blocks.

        Documents go concurrently. Raises BudgetExceeded where the rules say `when_empty: fail`, and
        RunStopped once the run was stopped; everything that was paid is on record then.
        """
        _stop_without_budget(job.run)
        job.run.steps.note(job.step.name)
        documents = batch.load()
        # Counted here, in the caller's thread: the event loop is busy.
        tokens = {
            document.id: self._tokens.count(document.text, document.hash)
            for document in documents
            if not document.stopped and document.id not in job.known
        }
        waits = BatchWaits(ON_PARKED.get())
        rank = rank_of(job.run, batch)
        job = replace(job, tokens=tokens, rank=rank, waits=waits)

        async def run_one(document: Document) -> Document:
            try:
                done = await self._cascade.run(job, document)
            except RunStopped:
                # Ends this document alone; the group would cut off calls of the others.
                raise asyncio.CancelledError from None
            self._notify(done, done.outcomes[job.step.name])
            return done

        async def run_all() -> tuple[Document, ...]:
            under_way = self._tasks.setdefault(job.run.id, set())
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run_one(document)) for document in documents]
                under_way.update(tasks)
                for task in tasks:
                    task.add_done_callback(under_way.discard)
            if any(task.cancelled() for task in tasks):
                raise RunStopped(f"run {job.run.id} was stopped")
            return tuple(task.result() for task in tasks)

        try:
            done = batch.with_documents(self._portal.call(run_all))
        except KeyboardInterrupt:
            self.stop_run(job.run)
            raise
        except ExceptionGroup as group:
            # Every document meets a project file's error: raise it once.
            own_errors = group.subgroup(TierwiseError)
            if own_errors:
                raise own_errors.exceptions[0] from None
            raise _without_words(job.step, group.exceptions[0]) from None
        _stop_without_budget(job.run)
        return done

    def job(
        self,
        run: RunContext,
        step: Step,
        parameters: Mapping[str, Any],
        *,
        only: Callable[[Document], bool] | None = None,
        models: tuple[str, ...] = (),
        thresholds: Mapping[str, float] | None = None,
        keeps: Mapping[str, Mapping[str, float | None]] | None = None,
    ) -> Job:
        """Return a step with everything that its documents need.

        Raises ConfigError if the rules escalate on a check that does not exist.
        """
        self.project.refuse_unknown_checks()
        run = self._with_suspensions(run)
        if step.own is not None:
            return self._job_without_model(run, step, parameters, only=only)
        return Job(
            run=run,
            step=step,
            prompt=self.prompts[step.prompt],
            parameters=parameters,
            current=self.current(step, parameters),
            selector=self._selector(step.name),
            only=only,
            models=models,
            thresholds=thresholds or {},
            keeps=keeps or {},
        )

    def _job_without_model(
        self,
        run: RunContext,
        step: Step,
        parameters: Mapping[str, Any],
        *,
        only: Callable[[Document], bool] | None,
    ) -> Job:
        """Return the job of a step that the project does itself."""
        if step.own is None:
            raise Misuse(f"{step.name} has a model")
        tiers = run.policy.catalog.tiers
        missing = missing_for(step.own, tiers, self.env)
        own = resolved_work(step.own, self.env)
        step = replace(step, own=own)
        model = model_of(step, own, tiers)
        return Job(
            run=replace(run, policy=with_own_model(run.policy, model, missing)),
            step=step,
            prompt=prompt_without_model(step.name),
            parameters=parameters,
            current=current_of(self.project, self.env, step, parameters),
            only=only,
        )

    def current(
        self, step: Step, parameters: Mapping[str, Any], golden: str | None = None
    ) -> Current:
        """Return what a certificate for this step with these parameters must agree with today.

        `golden` is the file name of a golden set that no certificate may name yet.
        """
        selector = self._selector(step.name)
        examples_hash = selector.hash if selector else None
        current = current_of(
            self.project, self.env, step, parameters, examples_hash, golden
        )
        demoted_here = {
            models: reason
            for (step_name, models), reason in self.policy.demoted.items()
            if step_name == step.name
        }
        return replace(current, demoted=demoted_here)

    def update_demotions(self) -> None:
        """Take certificates out of the policy that labels or a server contradict by now."""
        policy = self.policy
        refuted = demoted(
            self.ledger.samples, policy.certificates, policy.rules.share_floors
        )
        self._refuted = dict(refuted)
        self._update_suspensions()

    def _update_suspensions(self) -> None:
        """Take certificates out of the policy whose server reports another model by now."""
        policy = self.policy
        watch = self.ledger.served.watch(
            policy.certificates.of_correctness, policy.catalog
        )
        self.suspended = watch.suspended
        self._fitting = watch.fitting
        demotions = with_suspensions(self._refuted, self.suspended)
        if demotions == policy.demoted:
            return
        for (step, models), reason in demotions.items() - policy.demoted.items():
            chain = " > ".join(models)
            log.warning(
                "the certificate of %s for %s no longer counts: %s", chain, step, reason
            )
        self.policy = replace(policy, demoted=demotions)

    def _note_served(self, outcome: Outcome) -> None:
        """Notice an answer of a model under a name that may suspend its certificates."""
        for attempt in outcome.attempts:
            fitting = self._fitting.get(attempt.model)
            name = attempt.served_model
            if fitting is None or name is None or attempt.reused:
                continue
            if name not in fitting:
                self._is_served_otherwise = True

    def _with_suspensions(self, run: RunContext) -> RunContext:
        """Return the run without certificates that were suspended since it began.

        So a model that changes during a run is no longer chosen from the next batch on.
        """
        if self._is_served_otherwise:
            self._is_served_otherwise = False
            self._update_suspensions()
        suspended = {
            key: suspension.reason
            for key, suspension in self.suspended.items()
            if key not in run.policy.demoted
        }
        if not suspended:
            return run
        demotions = {**run.policy.demoted, **suspended}
        return replace(run, policy=replace(run.policy, demoted=demotions))

    def _selector(self, step: str) -> ExampleSelector | None:
        """Return the example selector of a step, where it has examples and a model uses them."""
        with self._lock:
            if step not in self._selectors:
                examples = examples_of(self.project, step)
                self._selectors[step] = (
                    ExampleSelector(examples, self._selecting_encoders())
                    if examples
                    else None
                )
            return self._selectors[step]

    def _selecting_encoders(self) -> dict[str, Encoder]:
        """Return the embedders that select few-shot examples, by name, those that can be used."""
        models = self.policy.catalog.models.values()
        usable = [
            model for model in models if model.name not in self.policy.unavailable
        ]
        names = {model.example_embedder for model in usable} - {""}
        encoders: dict[str, Encoder] = {}
        for name in sorted(names):
            from tierwise.gateway.embedders import open_embedder

            encoders[name] = open_embedder(self.project.catalog, name, self.env)
        return encoders

    def _with_known_outcomes(self, job: Job, documents: tuple[Document, ...]) -> Job:
        """Return the job with the outcomes that need no call.

        Its question goes on record, and so do texts that are to be kept.
        """
        step = job.step.name
        if job.question not in self._questions:
            self.ledger.reviews.ask(job.question, step, job.step.schema(job.parameters))
            self._questions.add(job.question)
        if self.project.settings.keep_text == "all":
            self.ledger.retention.keep(documents)
        known = known_outcomes(
            self.ledger, step, job.question, documents, job.run.retry
        )
        again = sent_again(self.ledger, job.question, documents)
        return replace(job, known=known, sent_again=again)

    def _notify(self, document: Document, outcome: Outcome) -> None:
        self._note_served(outcome)
        for notify in self._listeners:
            notify(document, outcome)


def _grouped(group: Document) -> Outcome:
    """Return the outcome of a group that has all of its members."""
    return Outcome(
        step=GROUP_BY,
        status="accepted",
        value={"members": [member.id for member in group.members]},
        sensitivity=group.sensitivity,
    )


def _seated(member: Document, group: Document) -> Outcome:
    """Return the outcome of a document that went into a group before any step."""
    return Outcome(
        step=GROUP_BY,
        status="accepted",
        value={"group": group.id},
        sensitivity=member.strictest,
    )


def _new_run_id(now: float) -> str:
    """Return an id that sorts by time: its second in UTC, and four random digits."""
    second = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{second}-{uuid.uuid4().hex[:4]}"


def _without_words(step: Step, error: Exception) -> TierwiseError:
    """Return an error for what a project's own function raised, such as the one behind `only`.

    Its words are left out, as they may quote the document.
    """
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.info("%s raised %s\n%s", step.name, type(error).__name__, frames)
    return TierwiseError(
        f"{step.name} raised {describe_exception(error)}; "
        "its words are left out, as they may quote a document"
    )


def _stop_without_budget(run: RunContext) -> None:
    shortfall = run.budget.last_shortfall
    if shortfall and run.policy.rules.budget.when_empty == "fail":
        raise BudgetExceeded(
            f"the run stops, as the rules say `when_empty: fail`: {shortfall}"
        )
