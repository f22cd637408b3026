"""The lane of steps without a model: the project's function, in a thread or on the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from pydantic import BaseModel, TypeAdapter

from tierwise.errors import (
    FunctionBusy,
    FunctionFailed,
    TryAgain,
    describe_exception,
)
from tierwise.records import Call, Reply, Usage
from tierwise.steps.own_work import FunctionCall, FunctionWork

# Dates, amounts, enums and models in it become plain JSON; any other object is refused.
_OBJECT = TypeAdapter(dict[Any, Any])
_LONGEST_RETRY_AFTER_S = 3600.0
_WHAT_IT_RETURNS = "return an instance of the step's output model, or a dict"


async def call_function(call: Call, own: FunctionCall) -> Reply:
    """Return a function's output as a reply. Raises FunctionBusy and FunctionFailed.

    Their texts name the exception and its place, without its words, which may quote a document.
    """
    begun = time.monotonic()
    try:
        result = await _result(own)
    except Exception as error:  # noqa: BLE001 - project code raises anything
        raise _fault(call, own.work, error) from None
    return Reply(
        text=_as_json(call, result),
        finish_reason="stop",
        usage=Usage(0, 0),
        latency_s=time.monotonic() - begun,
    )


class _Raised(Exception):
    """A function raised its cause, which may be what no task can raise, such as SystemExit."""


class _TooLong(Exception):
    """A function took longer than its timeout."""


async def _result(own: FunctionCall) -> Any:
    work = own.work

    def run() -> Any:
        return work.function(own.document, **own.parameters)

    called = _awaited(run) if work.is_async else _in_thread(run)
    task = asyncio.ensure_future(called)
    try:
        done, _ = await asyncio.wait({task}, timeout=work.timeout_s)
        if not done:
            raise _TooLong
        if task.cancelled():  # by itself: the run goes on
            raise RuntimeError("it was cancelled")
        return task.result()
    finally:
        task.cancel()


async def _awaited(run: Callable[[], Any]) -> Any:
    """Return the result of an async function."""
    try:
        return await run()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        raise _Raised from error


async def _in_thread(run: Callable[[], Any]) -> Any:
    """Return a function's result from a thread of its own.

    No thread of a pool: a function that hangs would keep the others waiting, and the process from
    ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = copy_context()

    def deliver(outcome: tuple[Any, BaseException | None]) -> None:
        if not future.done():
            future.set_result(outcome)

    def body() -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (context.run(run), None)
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            outcome = (None, error)
        with suppress(RuntimeError):  # the loop is closed: no one waits any more
            loop.call_soon_threadsafe(deliver, outcome)

    threading.Thread(target=body, name="tierwise-function", daemon=True).start()
    result, error = await future
    if error is None:
        return result
    raise _Raised from error


def _fault(
    call: Call, work: FunctionWork, error: BaseException
) -> FunctionBusy | FunctionFailed:
    if isinstance(error, _TooLong):
        message = f"no result within {work.timeout_s:g} s"
        # Only where it is named, and not as an OSError: the function may still run in its thread.
        if TimeoutError in work.retry_on:
            return FunctionBusy(message, model=call.model)
        return FunctionFailed(message, model=call.model)
    if isinstance(error, _Raised) and error.__cause__ is not None:
        error = error.__cause__
    message = f"it raised {describe_exception(error)}"
    if isinstance(error, TryAgain):
        return FunctionBusy(
            message, model=call.model, retry_after=_seconds(error.retry_after)
        )
    if isinstance(error, work.retry_on):
        return FunctionBusy(message, model=call.model)
    return FunctionFailed(message, model=call.model)


def _seconds(asked: float | None) -> float | None:
    if asked is None:
        return None
    return min(max(0.0, float(asked)), _LONGEST_RETRY_AFTER_S)


def _as_json(call: Call, result: Any) -> str:
    """Return an output as JSON. Raises FunctionFailed for what is no output."""
    try:
        if isinstance(result, BaseModel):
            return result.model_dump_json()
        if isinstance(result, Mapping):
            return _OBJECT.dump_json(dict(result)).decode()
    except Exception as error:  # noqa: BLE001 - serializers are project code
        message = f"its output is not JSON: {type(error).__name__}; {_WHAT_IT_RETURNS}"
        raise FunctionFailed(message, model=call.model) from None
    message = f"it returned {type(result).__name__}; {_WHAT_IT_RETURNS}"
    raise FunctionFailed(message, model=call.model)
