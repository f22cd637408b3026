"""Steps without a model as Prefect tasks: `function_step`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar, overload

from pydantic import BaseModel

from tierwise.errors import Misuse
from tierwise.orchestrate.parameters import say_what_was_meant
from tierwise.orchestrate.steps import StepTask, task_of
from tierwise.steps.checks import Check
from tierwise.steps.own_work import FunctionWork
from tierwise.steps.step import Correct, Stakes, Step

T = TypeVar("T", bound=BaseModel)
Function = Callable[..., Any]


@overload
def function_step(
    name: str,
    function: Function,
    *,
    returns: type[T],
    checks: Sequence[Check] = (),
    price_usd: float | Decimal = 0,
    retries: int = 2,
    retry_on: Sequence[type[Exception]] = (),
    timeout_s: float = 120.0,
    concurrency: int = 8,
    requests_per_minute: int | None = None,
    reuse: bool = True,
    stakes: Stakes = "normal",
    correct: Correct | None = None,
) -> StepTask[T]: ...
@overload
def function_step(
    name: str,
    function: None = None,
    *,
    returns: type[T],
    checks: Sequence[Check] = (),
    price_usd: float | Decimal = 0,
    retries: int = 2,
    retry_on: Sequence[type[Exception]] = (),
    timeout_s: float = 120.0,
    concurrency: int = 8,
    requests_per_minute: int | None = None,
    reuse: bool = True,
    stakes: Stakes = "normal",
    correct: Correct | None = None,
) -> Callable[[Function], StepTask[T]]: ...
def function_step(
    name: str,
    function: Function | None = None,
    *,
    returns: type[T],
    checks: Sequence[Check] = (),
    price_usd: float | Decimal = 0,
    retries: int = 2,
    retry_on: Sequence[type[Exception]] = (),
    timeout_s: float = 120.0,
    concurrency: int = 8,
    requests_per_minute: int | None = None,
    reuse: bool = True,
    stakes: Stakes = "normal",
    correct: Correct | None = None,
) -> StepTask[T] | Callable[[Function], StepTask[T]]:
    """Return a step that a Python function does, in place of a model; also as a decorator.

    `policy = function_step("policy", decide, returns=Policy)`, then `policy.map(batches, limit=50)`.
    The function takes a document and the keyword arguments of `.map`, and returns an instance of
    `returns` or a dict of its fields. It may be `async`; then it must not block.

    A call costs `price_usd`, which is reserved in the run's budget. An exception of a class in
    `retry_on`, and `tierwise.TryAgain`, pass by themselves: the function is called again `retries`
    times. Any other exception, and no result within `timeout_s`, defers the document. At most
    `concurrency` calls run at once, and `requests_per_minute` begin. A result is reused for the
    same code, document and parameters; with `reuse=False`, in the same run alone.

    Raises Misuse for settings that cannot be.
    """

    def make(function: Function) -> StepTask[T]:
        if not callable(function):
            raise Misuse(f"{name}: function_step takes a function")
        own = FunctionWork(
            function=function,
            price_usd=_price(name, price_usd),
            retries=_checked(name, "retries", retries, 0),
            retry_on=tuple(retry_on),
            timeout_s=_checked(name, "timeout_s", timeout_s, 0.001),
            concurrency=_checked(name, "concurrency", concurrency, 1),
            requests_per_minute=_rate(name, requests_per_minute),
            reuse=reuse,
        )
        spec = Step(
            name=name,
            returns=returns,
            prompt=name,
            checks=tuple(checks),
            own=own,
            stakes=stakes,
            correct=correct,
        )
        return task_of(spec, returns)

    say_what_was_meant()
    return make if function is None else make(function)


def _rate(name: str, limit: int | None) -> int | None:
    if limit is None:
        return None
    return _checked(name, "requests_per_minute", limit, 1)


Number = TypeVar("Number", int, float)


def _checked(name: str, setting: str, value: Number, least: Number) -> Number:
    """Return a setting. Raises Misuse for one that is too small."""
    if value < least:
        raise Misuse(f"{name}: {setting} is {value}; it is at least {least}")
    return value


def _price(name: str, usd: float | Decimal) -> Decimal:
    """Return a price as an exact number. Raises Misuse for one below 0."""
    price = Decimal(str(usd))
    if not price.is_finite() or price < 0:
        raise Misuse(f"{name}: price_usd is {usd}; it is 0 or more")
    return price
