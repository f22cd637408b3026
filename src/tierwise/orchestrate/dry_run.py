"""A flow as a rehearsal: its own function runs, without Prefect's server, and steps go to a planner or a sampler."""

from __future__ import annotations

import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import CodeType
from typing import Any

from prefect import Flow, Task
from prefect.futures import PrefectConcurrentFuture, PrefectFuture, PrefectFutureList
from prefect.logging import disable_run_logger
from prefect.runtime import flow_run
from prefect.utilities.callables import (
    call_with_parameters,
    expand_mapping_parameters,
    get_call_parameters,
)

from tierwise.errors import TierwiseError
from tierwise.plan import Planner, Sampler
from tierwise.records import Batch

Rehearsal = Planner | Sampler
submitted: Counter[str] = (
    Counter()
)  # by flow run: how many of its task runs were asked for, wherever they run
_current: list[
    tuple[Rehearsal, str]
] = []  # the engine of the rehearsal that is on, if any, and the flow's name


def rehearsal() -> Rehearsal | None:
    """What stands in for the engine while a flow is rehearsed; None otherwise."""
    return _current[-1][0] if _current else None


def rehearsed_flow() -> str | None:
    """The name of the flow that is rehearsed; None otherwise."""
    return _current[-1][1] if _current else None


def rehearse(flow: Any, parameters: Mapping[str, Any], engine: Rehearsal) -> None:
    """Run a Prefect flow's function with this engine. Raises TierwiseError, also for what the flow itself raises."""
    _current.append((engine, flow.name))
    try:
        with disable_run_logger():
            flow.fn(**parameters)
    except TierwiseError:
        raise
    except Exception as error:  # a flow is the user's code, so it may raise anything
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error}"
        raise TierwiseError(
            f"the flow {flow.name} raised {what} ({place.filename}:{place.lineno})"
        ) from error
    finally:
        _current.pop()


def plain_tasks(flow: Any) -> tuple[str, ...]:
    """What a flow calls that no rehearsal stands in for, by the names in its text: other Prefect tasks, and flows."""
    known = (flow.fn.__globals__.get(name) for name in _names(flow.fn.__code__))
    return tuple(
        found.name
        for found in known
        if isinstance(found, Task | Flow) and not isinstance(found, BatchTask)
    )


def _names(code: CodeType) -> dict[str, None]:
    """The global names in a function's code, what is defined inside it included."""
    inner = (name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part))
    return dict.fromkeys((*code.co_names, *inner))


class BatchTask(Task[..., Batch]):
    """A Prefect task over a batch that simply runs while its flow is rehearsed."""

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """As Prefect's; in a rehearsal one call after the other."""
        if not rehearsal():
            futures = super().map(*args, **kwargs)
            submitted[flow_run.get_id() or ""] += len(futures)
            return futures
        given = get_call_parameters(self.fn, args, _of_the_task(kwargs), apply_defaults=False)
        calls = expand_mapping_parameters(
            self.fn, {name: _settled(value) for name, value in given.items()}
        )
        return PrefectFutureList(_done(self.fn, call) for call in calls)  # type: ignore[abstract] # as Prefect does

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """As Prefect's; in a rehearsal a call."""
        if not rehearsal():
            submitted[flow_run.get_id() or ""] += 1
            return super().submit(*args, **kwargs)
        return _done(self.fn, get_call_parameters(self.fn, args, _of_the_task(kwargs)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As Prefect's; in a rehearsal a plain call."""
        if not rehearsal():
            submitted[flow_run.get_id() or ""] += 1
            return super().__call__(*args, **kwargs)
        return _done(self.fn, get_call_parameters(self.fn, args, _of_the_task(kwargs))).result()


def _of_the_task(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is meant for Prefect."""
    return {
        name: value
        for name, value in kwargs.items()
        if name not in ("wait_for", "return_state", "deferred")
    }


def _done(function: Callable[..., Batch], parameters: Mapping[str, Any]) -> PrefectFuture[Batch]:
    """A future that is settled already."""
    future: Future[Batch] = Future()
    future.set_result(
        call_with_parameters(
            function, {name: _settled(value) for name, value in parameters.items()}
        )
    )
    return PrefectConcurrentFuture(uuid.uuid4(), future)


def _settled(value: Any) -> Any:
    return value.result() if isinstance(value, PrefectFuture) else value
