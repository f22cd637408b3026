"""Steps without a model as Prefect tasks: `function_step` and `http_step`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar, get_args, overload

from pydantic import BaseModel

from tierwise.errors import Misuse
from tierwise.orchestrate.parameters import say_what_was_meant
from tierwise.orchestrate.steps import StepTask, task_of
from tierwise.steps.checks import Check
from tierwise.steps.own_work import FunctionWork, HttpMethod, HttpWork, text_of
from tierwise.steps.step import Correct, Stakes, Step

T = TypeVar("T", bound=BaseModel)
Function = Callable[..., Any]
_VARIABLE_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
# Headers of every request: another value would break it, or its promise to be sent once.
_OWN_HEADERS = frozenset(
    {
        *("host", "content-length", "content-encoding", "transfer-encoding"),
        *("connection", "te", "trailer", "upgrade", "expect", "idempotency-key"),
    }
)


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
    times. Any other exception defers the document. So does no result within `timeout_s`, unless
    `retry_on` names TimeoutError itself. At most `concurrency` calls run at once, and
    `requests_per_minute` begin. A result is reused for the same code, document and parameters; with
    `reuse=False`, in the same run alone.

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


def http_step(
    name: str,
    *,
    url: str,
    returns: type[T],
    body: Function | None = None,
    method: HttpMethod = "POST",
    headers: Mapping[str, str] | None = None,
    tier: str | None = None,
    checks: Sequence[Check] = (),
    price_usd: float | Decimal = 0,
    retries: int = 2,
    timeout_s: float = 60.0,
    concurrency: int = 8,
    requests_per_minute: int | None = None,
    max_bytes: int = 1_000_000,
    reuse: bool = True,
    stakes: Stakes = "normal",
    correct: Correct | None = None,
) -> StepTask[T]:
    """Return a step that an HTTP service does, in place of a model.

    `vat = http_step("vat", url="${VAT_URL}", body=number_of, returns=Vat)`, then `vat.map(batches)`.
    Each document is one request: `body` is a function of the document and the keyword arguments of
    `.map` that returns what JSON can hold; by default `{"text": …}`. The answer is a JSON object
    that fits `returns`, of at most `max_bytes`. `headers` names an environment variable for each
    header: `{"authorization": "VAT_TOKEN"}`. `${NAME}` in `url` is one, too.

    The address decides the tier: in the house (this machine, a private network, a host of an
    in-house tier), or `hosted`, which every guard about tiers refuses; `tier` names another one of
    the catalog. No redirect is followed. A 429 with Retry-After, a 5xx and a lost connection are
    tried again as for a model. Each request has an `Idempotency-Key`, the same for the same call.
    The rest is as in `function_step`. Raises Misuse for settings that cannot be.
    """
    if method not in get_args(HttpMethod):
        methods = ", ".join(get_args(HttpMethod))
        raise Misuse(f"{name}: method is '{method}'; write {methods}")
    if body is not None and not callable(body):
        raise Misuse(f"{name}: body takes a function of a document")
    for header, variable in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(header) or header.lower() in _OWN_HEADERS:
            raise Misuse(
                f"{name}: headers cannot have {header!r}, which is no header's name, or one that "
                "each request has by itself"
            )
        if not _VARIABLE_NAME.fullmatch(variable):
            raise Misuse(
                f"{name}: headers names an environment variable for {header}, such as "
                "`VAT_TOKEN`: keys stay out of the code"
            )
    own = HttpWork(
        url=url,
        method=method,
        headers=dict(headers or {}),
        body=body or text_of,
        tier=tier,
        price_usd=_price(name, price_usd),
        retries=_checked(name, "retries", retries, 0),
        timeout_s=_checked(name, "timeout_s", timeout_s, 0.001),
        concurrency=_checked(name, "concurrency", concurrency, 1),
        requests_per_minute=_rate(name, requests_per_minute),
        max_bytes=_checked(name, "max_bytes", max_bytes, 1),
        reuse=reuse,
    )
    say_what_was_meant()
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
