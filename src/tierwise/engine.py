"""The engine of one process: one event loop that owns connections, limits and the ledger's writer.

Everything outside is synchronous and plain; async lives behind `run_batch`.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from anyio.from_thread import start_blocking_portal

from tierwise import __version__
from tierwise.cascade import Cascade, Job, RunContext
from tierwise.cascade.known_outcomes import Retry, known_outcomes
from tierwise.cascade.top_up import AskForTopUp, TopUp
from tierwise.errors import BudgetExceeded, TierwiseError, describe_exception
from tierwise.gateway import Gateway
from tierwise.gateway.local import LocalServers
from tierwise.ledger import Ledger, RunInfo, RunState
from tierwise.ledger.people.samples import demoted
from tierwise.policy.budget import Limit
from tierwise.policy.catalog import Model
from tierwise.policy.certificates import Current
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome, canonical_hash
from tierwise.steps.examples import ExampleSelector, GoldenSet, load_golden
from tierwise.steps.step import Step
from tierwise.text.tokens import count_tokens

log = logging.getLogger(__name__)

Watcher = Callable[[Document, Outcome], None]


class Engine:
    """Runs batches through steps. Thread-safe; one a process. Close it, or use it as a context manager."""

    def __init__(self, project: Project, env: Mapping[str, str] | None = None) -> None:
        self.project = project
        self._env = os.environ if env is None else env
        self.policy = project.policy(self._env)
        self.prompts = project.prompts
        self.expected = 0  # documents that were read, for progress
        self.fresh = (
            self._env.get("TIERWISE_FRESH") == "1"
        )  # ask again for answers paid in earlier runs
        self.retry: Retry | None = None  # an earlier run that is gone through once more
        self._questions: set[str] = set()  # those on record
        self._watchers: list[Watcher] = []
        self._teachers: dict[str, ExampleSelector | None] = {}
        self._lock = threading.Lock()
        with ExitStack() as stack:
            self.ledger = Ledger.open(project.ledger_url, root=project.root)
            stack.callback(self.ledger.close)
            self._local = LocalServers()
            stack.callback(self._local.close)
            self._portal = stack.enter_context(start_blocking_portal("asyncio"))
            self._gateway = Gateway(project.catalog, self._env, self._local, root=project.root)
            stack.callback(self._portal.call, self._gateway.aclose)
            self._cascade = Cascade(self._gateway, self.ledger, project.scale.workers)
            self._demote()
            self._closing = stack.pop_all()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections, stop embedded models, flush the ledger. May be called twice."""
        self._closing.close()

    @contextmanager
    def watched_by(self, watcher: Watcher) -> Iterator[None]:
        """Have a function called with every outcome, on the engine's thread."""
        self.expected = 0
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

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
        plan: Mapping[str, Any] | None = None,
        ask: AskForTopUp | None = None,
    ) -> RunContext:
        """Put a new run on record. With `fresh` (default: the engine's), answers paid earlier are asked for again.

        `tags` say whose run it is, such as {"team": "claims"}; `deadline` is in epoch seconds; `plan` is what was
        expected of it. Runs with the same `budget_name` share one budget. `ask` is asked for more money, in a thread
        of its own, where the rules say `when_empty: pause`.
        """
        self._demote()
        run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:4]}"
        now = time.time()
        own = [] if budget_usd is None else [Limit(budget_name or f"run {run_id}", budget_usd)]
        run_budget = self.ledger.run_budget([*own, *self.policy.rules.budget.shared(tags or {})])
        self.ledger.start_run(
            RunInfo(
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
        )
        pauses = ask if self.policy.rules.budget.when_empty == "pause" else None
        return RunContext(
            id=run_id,
            policy=self.policy,
            budget=run_budget,
            fresh_since=now if (self.fresh if fresh is None else fresh) else None,
            deadline=deadline,
            top_up=TopUp(pauses, self.ledger) if pauses else None,
            retry=self.retry,
        )

    def finish_run(self, run: RunContext, state: RunState) -> None:
        """Close a run on record: completed, failed or cancelled. Where no text is kept, it goes at completion."""
        if run.top_up:
            run.top_up.close()
        self.ledger.finish_run(run.id, state)
        if state == "completed" and self.project.settings.keep_text == "never":
            self.ledger.retention.forget_ended(by="keep_text = never")

    def record(self, run: RunContext, document: Document, outcome: Outcome) -> None:
        """Put an outcome on record that no step gave, such as that of reading."""
        self._portal.call(self.ledger.record_outcome, run.id, document, outcome)
        self._tell(document, outcome)

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
        """The batch with every document's outcome of this step. Blocks; documents go concurrently.

        `models` takes the place of the router's choice, to measure them, with the confidences in `thresholds`
        that their answers need; guards hold all the same.
        """
        job = self.job(run, step, parameters or {}, only=only, models=models, thresholds=thresholds)
        # Stored documents are read once; everything below sees them in memory.
        documents = batch.load()
        if not models:
            job = self._with_known_outcomes(job, documents)
        return self.run_job(job, batch.with_documents(documents))

    def run_job(self, job: Job, batch: Batch) -> Batch:
        """The batch with every document's outcome of a job's step. Blocks; documents go concurrently.

        Raises BudgetExceeded where the rules say `when_empty: fail`, once all that was paid is on record.
        """
        _stop_without_money(job.run)
        documents = batch.load()
        asked = (d for d in documents if not (d.stopped or d.id in job.known))
        job = replace(
            job, tokens={d.id: count_tokens(d.text) for d in asked}
        )  # here, beside the busy event loop

        async def run_one(document: Document) -> Document:
            done = await self._cascade.run(job, document)
            self._tell(done, done.outcomes[job.step.name])
            return done

        async def run_all() -> tuple[Document, ...]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run_one(document)) for document in documents]
            return tuple(task.result() for task in tasks)

        try:
            done = batch.with_documents(self._portal.call(run_all))
        except (
            ExceptionGroup
        ) as group:  # a project file's error is met by every document: tell it once
            ours = group.subgroup(TierwiseError)
            raise ours.exceptions[0] if ours else _foreign(job.step, group.exceptions[0]) from None
        _stop_without_money(job.run)
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
    ) -> Job:
        """A step with all that its documents need."""
        return Job(
            run=run,
            step=step,
            prompt=self.prompts[step.prompt],
            parameters=parameters,
            current=self.current(step, parameters),
            selector=self._teacher(step.name),
            only=only,
            models=models,
            thresholds=thresholds or {},
        )

    def current(self, step: Step, parameters: Mapping[str, Any]) -> Current:
        """What a certificate for this step with these parameters has to agree with today."""
        selector = self._teacher(step.name)
        found = current_of(self.project, step, parameters, selector.hash if selector else None)
        against = {
            models: why for (name, models), why in self.policy.demoted.items() if name == step.name
        }
        return replace(found, demoted=against)

    def _demote(self) -> None:
        """Take out of the policy the certificates that labels speak against by now."""
        found = demoted(self.ledger.audits, self.policy.certificates, self.policy.rules.floors)
        for (step, models), why in found.items() - self.policy.demoted.items():
            log.warning(
                "the certificate of %s for %s no longer counts: %s", " > ".join(models), step, why
            )
        if found != self.policy.demoted:
            self.policy = replace(self.policy, demoted=found)

    def _teacher(self, step: str) -> ExampleSelector | None:
        """The examples of a step, where there are some and a model is to be shown them."""
        with self._lock:
            if step not in self._teachers:
                examples = examples_of(self.project, step)
                self._teachers[step] = ExampleSelector(examples) if examples else None
            return self._teachers[step]

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
        known = known_outcomes(self.ledger, step, job.question, documents, job.run.retry)
        return replace(job, known=known)

    def _tell(self, document: Document, outcome: Outcome) -> None:
        for watcher in self._watchers:
            watcher(document, outcome)


def _foreign(step: Step, error: Exception) -> TierwiseError:
    """What a project's own function raised, such as the one behind `only`; its words may quote the document."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s raised %s\n%s", step.name, type(error).__name__, frames)
    return TierwiseError(
        f"{step.name} raised {describe_exception(error)}; its words are left out, as they may quote a document"
    )


def _stop_without_money(run: RunContext) -> None:
    if run.budget.refused and run.policy.rules.budget.when_empty == "fail":
        raise BudgetExceeded(
            f"the run stops, as the rules say `when_empty: fail`: {run.budget.refused}"
        )


def examples_of(project: Project, step: str) -> GoldenSet | None:
    """The examples of a step, where there are some and a model is to be shown them."""
    path = project.root / "golden" / f"{step}-examples.jsonl"
    wanted = path.exists() and any(model.uses_few_shot for model in project.catalog.models.values())
    return load_golden(path) if wanted else None


def current_of(
    project: Project, step: Step, parameters: Mapping[str, Any], examples_hash: str | None
) -> Current:
    """Return what a certificate for a step must agree with today, by the project's files alone."""
    return current_for(project, step.prompt, step.hash(parameters), examples_hash)


def current_for(
    project: Project, prompt: str, step_hash: str, examples_hash: str | None
) -> Current:
    """Return what a certificate must agree with today, for a step of this prompt and hash."""
    return Current(
        identities={
            model.name: _identity(project, model, examples_hash)
            for model in project.catalog.models.values()
        },
        prompt_hash=project.prompts[prompt].hash,
        step_hash=step_hash,
        today=datetime.date.today(),
    )


def _identity(project: Project, model: Model, examples_hash: str | None) -> str:
    """What a model's answers depend on; for one that is shown examples, those too."""
    if examples_hash is None or not model.uses_few_shot:
        return project.identity(model)
    return canonical_hash([model.identity, model.examples, model.fixed_examples, examples_hash])
