"""The task runner of threads: batches go through all steps before new ones begin."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from prefect import Task
from prefect.context import FlowRunContext
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.collections import visit_collection

from tierwise.cascade.batch_waits import ON_PARKED
from tierwise.errors import Misuse
from tierwise.orchestrate.ready_queue import Place, ReadyQueue
from tierwise.orchestrate.runs import Run, current_run
from tierwise.records import Batch
from tierwise.steps.step import Step

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Submission:
    """A task run that is submitted. Inside of a task run, it is that task run itself."""

    runner: BatchTaskRunner[Any]
    place: Place
    inputs: tuple[Future[Any], ...]


_SUBMISSION: ContextVar[_Submission | None] = ContextVar("submission", default=None)


class BatchTaskRunner(ThreadPoolTaskRunner[T]):
    """Runs tasks in threads, in the order of the recorded run that they are part of.

    With `order: depth`, a batch's later steps come before the first step of other batches. With
    `breadth`, task runs begin in the order of their submission. In both, a task run takes a thread
    only when the task runs that it depends on are done. `max_workers` is for each step.
    """

    def __enter__(self) -> BatchTaskRunner[T]:
        super().__enter__()
        self._numbers = itertools.count()
        self._places: dict[uuid.UUID, Place] = {}
        # By identity: the batches of first steps, kept so that no other gets the same one.
        self._numbered: dict[int, tuple[Batch, int]] = {}
        self._queue = ReadyQueue(
            self._max_workers,
            may_begin=self._is_affordable,
            on_parked=self._note_parked,
        )
        self._run: Run | None = None  # the latest one
        self._steps: dict[str, None] = {}  # that were submitted
        self._batch_size = 1  # of the largest batch
        self._executor = _Executor(self._queue)  # type: ignore[assignment] # all that Prefect uses
        return self

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> PrefectConcurrentFuture[Any]:
        """Submit a task run, as Prefect does, with its place among the others."""
        self._note(task, parameters)
        inputs = _futures_in([parameters, wait_for])
        place = self._place_after(inputs, parameters)
        done = tuple(future.wrapped_future for future in inputs)
        # Prefect copies the context for the task run, so that it knows its own place.
        token = _SUBMISSION.set(_Submission(self, place, done))
        parking = ON_PARKED.set(self._queue.parking(place))
        try:
            future = super().submit(task, parameters, wait_for, dependencies)
        finally:
            ON_PARKED.reset(parking)
            _SUBMISSION.reset(token)
        self._places[future.task_run_id] = place
        return future

    def _place_after(
        self,
        inputs: Iterable[PrefectConcurrentFuture[Any]],
        parameters: Mapping[str, Any],
    ) -> Place:
        """Return the place of a task run with these inputs."""
        outer = _SUBMISSION.get()
        if outer and outer.runner is self:
            # A task run waits for those that it submits itself, so they need other threads.
            return Place(outer.place.step + 1, outer.place.batch)
        if self._run and self._run.context.order == "breadth":
            return Place(0, next(self._numbers))
        places = [self._places.get(future.task_run_id) for future in inputs]
        known = [place for place in places if place]
        if not known:
            return Place(0, self._number_of(parameters.get("batch")))
        step = max(place.step for place in known) + 1
        return Place(step, min(place.batch for place in known))

    def _number_of(self, batch: Any) -> int:
        """Return a batch's number: the same for all steps that begin with this batch."""
        if not isinstance(batch, Batch):
            return next(self._numbers)
        if id(batch) not in self._numbered:
            self._numbered[id(batch)] = (batch, next(self._numbers))
        return self._numbered[id(batch)][1]

    def _note(self, task: Task[..., Any], parameters: Mapping[str, Any]) -> None:
        """Note what a task run says about the costs to come."""
        run = _current_run_or_none()
        if run is not self._run:
            self._run = run
            self._steps.clear()
        if run:
            run.context.costs.on_news = self._queue.look_again
        step = getattr(task, "spec", None)
        if isinstance(step, Step):
            self._steps[step.name] = None
            if run:
                run.context.steps.note(step.name)
        for value in parameters.values():
            if isinstance(value, Batch):
                self._batch_size = max(self._batch_size, value.size)

    def _note_parked(self, number: int) -> None:
        """Let the run read further batches in place of those that wait for provider batches."""
        if self._run:
            self._run.note_parked(number)

    def _is_affordable(self, under_way: int) -> bool:
        """Return True if there is money for one more batch, besides those under way.

        Without it, a batch would take the money that another one needs for its later steps. While
        the flow still maps steps, or the cost of one is unknown, one batch finds it out.
        """
        run = self._run
        left = run.context.budget.left if run else None
        if run is None or left is None or run.context.order == "breadth":
            return True
        if run.is_mapping:
            return False
        usd = run.context.costs.of_document(tuple(self._steps), self._batch_size)
        if usd is None:
            return False
        return usd * self._batch_size * (under_way + 1) <= left

    def _warn_if_nested_submit_would_deadlock(self, task: Task[Any, Any]) -> None:
        """Do nothing: task runs inside of task runs have threads of their own."""


class _Executor:
    """The part of a ThreadPoolExecutor that Prefect's task runner uses."""

    def __init__(self, queue: ReadyQueue) -> None:
        self._queue = queue

    def submit(
        self, function: Callable[..., Any], *arguments: Any, **named: Any
    ) -> Future[Any]:
        submission = _SUBMISSION.get()
        if submission is None:  # `BatchTaskRunner.submit` is the only caller
            raise RuntimeError("a call is submitted without its place")
        call = partial(function, *arguments, **named)
        return self._queue.submit(submission.place, submission.inputs, call)

    def shutdown(self, *, cancel_futures: bool = True) -> None:  # noqa: ARG002 - always
        self._queue.shutdown()


def is_ordered() -> bool:
    """Return True in a flow with this task runner, which is asked for a batch at a time."""
    flow = FlowRunContext.get()
    return flow is not None and isinstance(flow.task_runner, BatchTaskRunner)


def _current_run_or_none() -> Run | None:
    """Return the recorded run that this code is part of, if there is one."""
    try:
        return current_run()
    except Misuse:
        return None


def _futures_in(value: Any) -> list[PrefectConcurrentFuture[Any]]:
    """Return the futures of threads that are somewhere in a value."""
    futures: dict[uuid.UUID, PrefectConcurrentFuture[Any]] = {}

    def collect(part: Any) -> Any:
        if isinstance(part, PrefectConcurrentFuture):
            futures[part.task_run_id] = part
        return part

    visit_collection(value, visit_fn=collect, return_data=False)
    return list(futures.values())
