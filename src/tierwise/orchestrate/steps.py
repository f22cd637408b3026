"""Steps as Prefect tasks over batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar, overload

from prefect import unmapped
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFutureList
from pydantic import BaseModel, ValidationError

from tierwise.errors import Misuse
from tierwise.orchestrate.batch_task import (
    Batches,
    BatchTask,
    own_parameters,
    task_run_name,
)
from tierwise.orchestrate.parameters import say_what_was_meant
from tierwise.orchestrate.prefect_ui import log_to_run, tag_task_run
from tierwise.orchestrate.runs import current_run
from tierwise.orchestrate.server import tellable
from tierwise.records import Batch, Document
from tierwise.steps.checks import Check
from tierwise.steps.step import Correct, Gather, Stakes, Step
from tierwise.text.escape import escape_control

Condition = Callable[[Document], bool]
T = TypeVar("T", bound=BaseModel)
Other = TypeVar("Other", bound=BaseModel)


class StepTask(BatchTask, Generic[T]):
    """A Prefect task that runs a step over a batch; T is the step's output model.

    `spec` is the step itself.
    """

    spec: Step

    def map(  # type: ignore[override] # Prefect maps every list; this maps the batches alone
        self,
        batches: Batches,
        /,
        *,
        only: Condition | unmapped | None = None,
        returns: type[BaseModel] | unmapped | None = None,
        **parameters: Any,
    ) -> PrefectFutureList[Batch]:
        """Make one task run for each batch; every parameter goes to each of them as it is.

        `only` says which documents the step applies to, and `returns` is another output model.
        Lists and mappings need no `unmapped`. A future as a parameter is resolved. `wait_for` is
        Prefect's. Raises Misuse for a single batch.
        """
        if self.spec.own is not None:
            self.spec.own.check_parameters(self.name, own_parameters(parameters))
        # left out where it is not given, as the plan of a call shows what was given
        if only is not None:
            parameters["only"] = only
        if returns is not None:
            parameters["returns"] = returns
        return super().map(batches, **parameters)

    @overload
    def of(self, document: Document) -> T | None: ...
    @overload
    def of(self, document: Document, returns: type[Other]) -> Other | None: ...
    def of(
        self, document: Document, returns: type[BaseModel] | None = None
    ) -> BaseModel | None:
        """Return a document's accepted output of this step, or None where it has none.

        `returns` is the output model of the call, where that was another one. Raises Misuse for an
        output that does not fit the model.
        """
        value = document.value(self.spec.name)
        if value is None:
            return None
        output_model = returns or self.spec.returns
        try:
            # Outcomes have the fields' own names in place of aliases.
            return output_model.model_validate(value, by_alias=True, by_name=True)
        except ValidationError:
            name = self.spec.name
            raise Misuse(
                f"the output of {name} for {document.id} does not fit {output_model.__name__}; "
                f"where the call had `returns=Model`, write {name}.of(document, Model)"
            ) from None


def step(
    name: str,
    *,
    returns: type[T],
    checks: Sequence[Check] = (),
    prompt: str | None = None,
    choices: Mapping[str, str] | None = None,
    splits: str | None = None,
    gathers: Gather | None = None,
    sees_pages: bool = False,
    by_field: bool = False,
    stakes: Stakes = "normal",
    correct: Correct | None = None,
) -> StepTask[T]:
    """Return a step as a Prefect task: `classify.map(batches, labels=[…])`.

    Keyword arguments become parameters of the prompt and the checks. Two are for the task itself:
    `only`, a function of a document that returns whether the step applies to it, and `returns`,
    another output model for this call. See `tierwise.steps.step.Step` for the rest.
    """
    say_what_was_meant()
    spec = Step(
        name=name,
        returns=returns,
        prompt=prompt or name,
        checks=tuple(checks),
        choices=dict(choices or {}),
        splits=splits,
        gathers=gathers,
        sees_pages=sees_pages,
        by_field=by_field,
        stakes=stakes,
        correct=correct,
    )
    return task_of(spec, returns)


def task_of(spec: Step, output_model: type[T]) -> StepTask[T]:
    """Return the Prefect task that runs a step over a batch."""

    def run_step(
        batch: Batch,
        *,
        only: Condition | None = None,
        returns: type[BaseModel] | None = None,
        **parameters: Any,
    ) -> Batch:
        this_spec = replace(spec, returns=returns) if returns else spec
        return _run(this_spec, batch, parameters, only)

    task: StepTask[T] = StepTask(
        run_step,
        name=spec.name,
        description=output_model.__doc__,
        task_run_name=task_run_name(spec.name),  # type: ignore[arg-type] # Prefect asks for a class method of its own
        # the ledger is the memory: it outlives runs and knows what was paid
        cache_policy=NO_CACHE,
        persist_result=False,  # document text stays out of Prefect's storage
    )
    task.spec = spec
    return task


def _run(
    spec: Step,
    batch: Batch,
    parameters: Mapping[str, Any],
    only: Condition | None,
) -> Batch:
    """Run a step over a batch in the current run, and show its progress."""
    run = current_run()
    if spec.own is not None:
        spec.own.check_parameters(spec.name, parameters)
    done = run.engine.run_batch(run.context, spec, batch, parameters, only=only)
    _log_batch(spec.name, done)
    tag_task_run(spec.name, done)
    if run.progress:
        run.progress.add(spec.name, done)
    return run.hold(done)


def _log_batch(step_name: str, batch: Batch) -> None:
    """Log one line for the batch, and one for each deferred document."""
    outcomes = {document.id: document.outcomes[step_name] for document in batch.load()}
    accepted = sum(outcome.status == "accepted" for outcome in outcomes.values())
    escalated = sum(outcome.escalated for outcome in outcomes.values())
    deferred = {
        name: tellable(outcome)
        for name, outcome in outcomes.items()
        if outcome.status == "deferred"
    }
    waiting = sum(outcome.status == "waiting" for outcome in outcomes.values())
    log_to_run(
        "%s: %d accepted, %d escalated, %d deferred%s",
        step_name,
        accepted,
        escalated,
        len(deferred),
        f", {waiting} waiting for provider batches" if waiting else "",
    )
    for name, reason in deferred.items():
        log_to_run(
            "%s deferred %s: %s",
            step_name,
            escape_control(name),
            escape_control(reason),
            level=logging.WARNING,
        )
