"""Prefect tasks over a batch, and their log lines."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from prefect import Task, get_run_logger
from prefect.exceptions import MissingContextError
from prefect.futures import PrefectConcurrentFuture, PrefectFuture, PrefectFutureList
from prefect.runtime import flow_run
from prefect.utilities.callables import (
    call_with_parameters,
    expand_mapping_parameters,
    get_call_parameters,
)

from tierwise.orchestrate.process_state import STATE
from tierwise.records import Batch

# arguments that are not the function's
_FOR_PREFECT = ("wait_for", "return_state", "deferred")


class BatchTask(Task[..., Batch]):
    """A Prefect task over a batch, which is a plain function call in a dry run."""

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Map as Prefect does; in a dry run, make one call after the other."""
        if STATE.dry_run:
            given = get_call_parameters(
                self.fn, args, _own(kwargs), apply_defaults=False
            )
            settled = {name: _settled(value) for name, value in given.items()}
            calls = expand_mapping_parameters(self.fn, settled)
            return PrefectFutureList(_call(self.fn, call) for call in calls)  # type: ignore[abstract] # as Prefect does
        futures = super().map(*args, **kwargs)
        STATE.count_task_runs(flow_run.get_id(), len(futures))
        return futures

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit as Prefect does; in a dry run, make a call."""
        if STATE.dry_run:
            return _call(self.fn, get_call_parameters(self.fn, args, _own(kwargs)))
        STATE.count_task_runs(flow_run.get_id())
        return super().submit(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as Prefect does; in a dry run, make a plain call."""
        if STATE.dry_run:
            return _call(
                self.fn, get_call_parameters(self.fn, args, _own(kwargs))
            ).result()
        STATE.count_task_runs(flow_run.get_id())
        return super().__call__(*args, **kwargs)


def task_run_name(task: str) -> Callable[[dict[str, Any]], str]:
    """Return the function that names task runs: `classify · documents 1-50 of 640`."""

    def name(parameters: dict[str, Any]) -> str:
        batch = parameters.get("batch")
        return f"{task} · {batch.label}" if isinstance(batch, Batch) else task

    return name


def log_to_run(message: str, *values: object, level: int = logging.INFO) -> None:
    """Write a line into the log of the flow or task run; none without Prefect."""
    with suppress(MissingContextError):
        get_run_logger().log(level, message, *values)


def _own(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments without those for Prefect."""
    return {name: value for name, value in kwargs.items() if name not in _FOR_PREFECT}


def _call(
    function: Callable[..., Batch], parameters: Mapping[str, Any]
) -> PrefectFuture[Batch]:
    """Call the function and return its result as a settled future."""
    settled = {name: _settled(value) for name, value in parameters.items()}
    future: Future[Batch] = Future()
    future.set_result(call_with_parameters(function, settled))
    return PrefectConcurrentFuture(uuid.uuid4(), future)


def _settled(value: Any) -> Any:
    return value.result() if isinstance(value, PrefectFuture) else value
