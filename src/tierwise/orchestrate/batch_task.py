"""Prefect tasks over a batch, and their log lines."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from prefect import Task, unmapped
from prefect.futures import PrefectConcurrentFuture, PrefectFuture, PrefectFutureList
from prefect.runtime import flow_run
from prefect.utilities.annotations import BaseAnnotation
from prefect.utilities.callables import (
    call_with_parameters,
    expand_mapping_parameters,
    get_call_parameters,
)
from prefect.utilities.collections import visit_collection

from tierwise.errors import Misuse
from tierwise.orchestrate.batch_reader import BatchReader
from tierwise.orchestrate.batch_runner import is_ordered
from tierwise.orchestrate.mapped_batches import MappedBatches
from tierwise.orchestrate.process_state import STATE
from tierwise.orchestrate.runs import current_run
from tierwise.records import Batch

T = TypeVar("T")
# What steps are mapped over: batches, or the futures of an earlier step.
Batches = (
    Iterable[Batch | PrefectFuture[Batch]]
    | PrefectFuture[list[Batch]]
    | PrefectFutureList[Batch]
)
# arguments that are not the function's
_FOR_PREFECT = ("wait_for", "return_state", "deferred")


class BatchTask(Task[..., Batch]):
    """A Prefect task over a batch, which is a plain function call in a dry run."""

    def map(  # type: ignore[override] # Prefect maps every list; this maps the batches alone
        self, batches: Batches, /, **parameters: Any
    ) -> PrefectFutureList[Batch]:
        """Make one task run for each batch; every parameter goes to each of them as it is.

        Lists and mappings need no `unmapped`. A future as a parameter is resolved. `wait_for` is
        Prefect's. Raises Misuse for a single batch.
        """
        if isinstance(batches, Batch | unmapped):
            raise Misuse(
                f"{self.name}.map takes a list of batches, as read_documents returns it; "
                f"give a single batch to {self.name}.submit"
            )
        shared = {
            name: value if name in _FOR_PREFECT else _as_it_is(value)
            for name, value in parameters.items()
        }
        if STATE.dry_run:
            return map_now(self.fn, batches, **shared)
        is_future = not shared.get("return_state")
        if is_future and isinstance(batches, BatchReader | MappedBatches):
            return self._map_while_reading(batches, shared)
        futures: PrefectFutureList[Batch]
        futures = super().map(batches, **shared)
        STATE.count_task_runs(flow_run.get_id(), len(futures))
        return futures

    def _map_while_reading(
        self, batches: BatchReader | MappedBatches, parameters: Mapping[str, Any]
    ) -> PrefectFutureList[Batch]:
        """Submit each batch once it is read, so that the first are worked on meanwhile.

        In the order `depth`, a thread reads, so that the next steps can be mapped meanwhile.
        """

        def submit(source: Batch | PrefectFuture[Batch]) -> PrefectFuture[Batch]:
            STATE.count_task_runs(flow_run.get_id())
            futures: PrefectFutureList[Batch]
            futures = super(BatchTask, self).map([source], **parameters)
            return futures[0]

        if isinstance(batches, MappedBatches):
            return batches.map(submit, self.name)
        run = current_run()
        if run.context.order == "depth" and is_ordered():
            return run.reading_thread(batches).map(submit, self.name)
        mapped = MappedBatches([submit(batch) for batch in batches])
        mapped.note_step(self.name, {})
        return mapped

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit as Prefect does; in a dry run, make a call."""
        if STATE.dry_run:
            return call_now(self.fn, *args, **kwargs)
        STATE.count_task_runs(flow_run.get_id())
        return super().submit(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as Prefect does; in a dry run, make a plain call."""
        if STATE.dry_run:
            return call_now(self.fn, *args, **kwargs).result()
        STATE.count_task_runs(flow_run.get_id())
        return super().__call__(*args, **kwargs)


def task_run_name(task: str) -> Callable[[dict[str, Any]], str]:
    """Return the function that names task runs: `classify · documents 1-50 of 640`."""

    def name(parameters: dict[str, Any]) -> str:
        batch = parameters.get("batch")
        return f"{task} · {batch.label}" if isinstance(batch, Batch) else task

    return name


def own_parameters(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments without those for Prefect."""
    return {name: value for name, value in kwargs.items() if name not in _FOR_PREFECT}


def _as_it_is(value: Any) -> Any:
    """Return a parameter in Prefect's wrapper that keeps `.map` from spreading it."""
    if isinstance(value, unmapped):
        return value
    if isinstance(value, BaseAnnotation):  # such as `quote`, which says something else
        return value.rewrap(_as_it_is(value.unwrap()))
    return unmapped(value)


def call_now(
    function: Callable[..., T], *arguments: Any, **named: Any
) -> PrefectFuture[T]:
    """Call a task's function as `submit` would, and return its result as a settled future."""
    parameters = get_call_parameters(function, arguments, own_parameters(named))
    return _settled_call(function, parameters)


def map_now(
    function: Callable[..., T], *arguments: Any, **named: Any
) -> PrefectFutureList[T]:
    """Call a task's function as `map` would, one call after the other."""
    given = get_call_parameters(
        function, arguments, own_parameters(named), apply_defaults=False
    )
    lists = {name: _settled(value) for name, value in given.items()}
    calls = expand_mapping_parameters(function, lists)
    futures = [_settled_call(function, call) for call in calls]
    return PrefectFutureList(futures)  # type: ignore[abstract] # as Prefect does


def _settled_call(
    function: Callable[..., T], parameters: Mapping[str, Any]
) -> PrefectFuture[T]:
    # futures inside lists are resolved as well, as Prefect does
    settled = visit_collection(dict(parameters), visit_fn=_settled, return_data=True)
    result = call_with_parameters(function, settled)
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    future: Future[T] = Future()
    future.set_result(result)
    return PrefectConcurrentFuture(uuid.uuid4(), future)


def _settled(value: Any) -> Any:
    """Return a future's result, and any other value as it is."""
    return value.result() if isinstance(value, PrefectFuture) else value
