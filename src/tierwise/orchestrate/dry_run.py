"""A dry run of a flow: its own function runs, without Prefect's server and with another engine.

The engine is a planner, which calls no model, or a sampler, which runs a few documents.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import CodeType
from typing import Any

from prefect import Flow, Task
from prefect.logging import disable_run_logger

from tierwise.engine import StepRunner
from tierwise.orchestrate.batch_task import BatchTask, call_now, map_now
from tierwise.orchestrate.failures import failures_described
from tierwise.orchestrate.process_state import STATE, DryRun


def dry_run(flow: Any, parameters: Mapping[str, Any], runner: StepRunner) -> None:
    """Run a Prefect flow's function, its steps going to `runner`.

    Raises TierwiseError, also for what the flow itself raises.
    """
    described = failures_described(flow.name, runner.project.root)
    given = inspect.signature(flow.fn).bind(**parameters)
    given.apply_defaults()
    steps_dry = STATE.in_dry_run(DryRun(runner, flow.name, given.arguments))
    with described, steps_dry, _tasks_as_functions(), disable_run_logger():
        flow.fn(**parameters)


@contextmanager
def _tasks_as_functions() -> Iterator[None]:
    """Make Prefect's tasks and flows plain functions inside this block.

    They ask a server for a flow run, which a dry run does not have. What they do is done for real.
    """

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        return call_now(self.fn, *arguments, **named).result()

    def submit(self: Any, *arguments: Any, **named: Any) -> Any:
        return call_now(self.fn, *arguments, **named)

    def map_all(self: Any, *arguments: Any, **named: Any) -> Any:
        return map_now(self.fn, *arguments, **named)

    replaced: list[tuple[type, str, Any]] = [
        (Task, "__call__", call),
        (Task, "submit", submit),
        (Task, "map", map_all),
        (Flow, "__call__", call),
    ]
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in replaced]
    for owner, name, function in replaced:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)


def tasks_run_for_real(flow: Any) -> tuple[str, ...]:
    """Return the names of the tasks and flows that a dry run of this flow runs for real.

    They are found by the names in the flow's own code: everything from Prefect that is not a step.
    """
    called = [
        flow.fn.__globals__.get(name)
        for name in dict.fromkeys(_names(flow.fn.__code__))
    ]
    return tuple(
        each.name
        for each in called
        if isinstance(each, Task | Flow) and not isinstance(each, BatchTask)
    )


def _names(code: CodeType) -> Iterator[str]:
    """Yield the global names in a function's code, inner functions included."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)
