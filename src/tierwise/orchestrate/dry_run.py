"""A dry run of a flow: its own function runs, without Prefect's server and with another engine.

The engine is a planner, which calls no model, or a sampler, which runs a few documents.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

from prefect import Flow, Task
from prefect.logging import disable_run_logger

from tierwise.engine import StepRunner
from tierwise.errors import TierwiseError
from tierwise.orchestrate.batch_task import BatchTask
from tierwise.orchestrate.process_state import STATE, DryRun


def dry_run(flow: Any, parameters: Mapping[str, Any], runner: StepRunner) -> None:
    """Run a Prefect flow's function, its steps going to `runner`.

    Raises TierwiseError, also for what the flow itself raises.
    """
    try:
        with STATE.in_dry_run(DryRun(runner, flow.name)), disable_run_logger():
            flow.fn(**parameters)
    except TierwiseError:
        raise
    except Exception as error:  # a flow is the user's code, so it may raise anything
        place = traceback.extract_tb(error.__traceback__)[-1]
        raised = f"{type(error).__name__}: {error}"
        raise TierwiseError(
            f"the flow {flow.name} raised {raised} ({place.filename}:{place.lineno})"
        ) from error


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
