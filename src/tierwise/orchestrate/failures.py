"""Failures of a flow: their cause among its task runs, and one line about it for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException, UnfinishedRun, UpstreamTaskError
from prefect.futures import PrefectFuture

from tierwise.errors import TierwiseError
from tierwise.project import own_line

_LONGEST_TEXT = 300  # characters of a foreign error's own words


@contextmanager
def cause_raised() -> Iterator[None]:
    """Raise the cause when a task run of the flow fails inside this block.

    A task run that waits for a failed one never starts, and Prefect raises that it has no result,
    without a word about the cause. This raises the error of the task run that failed.
    """
    with _futures_noted() as futures:
        try:
            yield
        except (UnfinishedRun, UpstreamTaskError):
            cause = _first_failure(futures)
            if cause is None:
                raise
            raise cause from None


@contextmanager
def _futures_noted() -> Iterator[Sequence[PrefectFuture[Any]]]:
    """Give the futures of all task runs that the current flow submits inside this block.

    Prefect keeps no list of them, so its task runner's `submit` is replaced meanwhile: everything
    that is submitted or mapped goes through it, the project's own tasks, too.
    """
    futures: list[PrefectFuture[Any]] = []
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield futures
        return
    runner: Any = context.task_runner
    submit = runner.submit

    def submit_and_note(*arguments: Any, **named: Any) -> Any:
        future = submit(*arguments, **named)
        futures.append(future)
        return future

    runner.submit = submit_and_note
    try:
        yield futures
    finally:
        runner.submit = submit
        futures.clear()


def _first_failure(futures: Sequence[PrefectFuture[Any]]) -> BaseException | None:
    """Return the error of the first task run that failed by itself, in the order of submission."""
    for future in futures:
        try:
            result = future.result(timeout=0, raise_on_failure=False)
        except (TimeoutError, PrefectException):
            continue  # it still runs, or it waited for one that failed
        # a task may also return an exception as its result
        if isinstance(result, BaseException) and not future.state.is_completed():
            return result
    return None


@contextmanager
def failures_described(flow: str, root: Path) -> Iterator[None]:
    """Raise TierwiseError, in one line, for everything that a flow's own code raises inside."""
    try:
        yield
    except TierwiseError:
        raise
    except Exception as error:  # a flow is the user's code, so it may raise anything
        raise describe_failure(flow, error, root) from error


def describe_failure(flow: str, error: Exception, root: Path) -> TierwiseError:
    """Return a foreign error with its class, its words and its place in the project."""
    words = shorten(str(error), _LONGEST_TEXT, placeholder=" …")
    raised = f"{type(error).__name__}: {words}" if words else type(error).__name__
    path, line = own_line(error, root)
    return TierwiseError(f"the flow {flow} raised {raised} ({path}:{line})")
