"""Prices for a server of your own: load it with your documents, and divide what an hour costs.

A GPU is paid by the hour, busy or idle. The price of a token is the hourly cost divided by the
hourly throughput at the knee of the throughput curve. It is split between reading and writing by
two loads with different mixes of the two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import count, cycle
from statistics import quantiles
from typing import Any, Protocol

from tierwise.errors import CallError, Misuse
from tierwise.policy.catalog import Model
from tierwise.records import Call, Document, Reply
from tierwise.steps.prompts import Prompt
from tierwise.steps.step import Step

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# the knee is the least concurrency with this share of the highest throughput
NEAR = 0.9
GAIN = 1.05  # the curve is flat when two doublings in a row gain less than this factor
# share of replies that may lack usage; with more, the rest may differ from them
UNCOUNTED = 0.1
SECOND = Decimal(1) / 3600  # of an hour
MILLION = 1_000_000


class Server(Protocol):
    """The server under load."""

    async def complete(self, call: Call) -> Reply:
        """Return the reply to one request. Raises CallError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLevel:
    """The replies that came back at one concurrency within `seconds`.

    Tokens are the server's own figures, which are missing for `uncounted` of the replies.
    """

    concurrency: int
    replies: int
    failed: int
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    uncounted: int = 0

    @property
    def prompt_tokens_each(self) -> float:
        """Tokens of a prompt, on average over the replies with usage."""
        return self.prompt_tokens / max(1, self.replies - self.uncounted)

    @property
    def completion_tokens_each(self) -> float:
        """Tokens of an answer, on average over the replies with usage."""
        return self.completion_tokens / max(1, self.replies - self.uncounted)

    @property
    def per_second(self) -> float:
        """Replies a second."""
        return self.replies / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A server's throughput curve, its knee, and the USD for a million tokens there."""

    levels: tuple[LoadLevel, ...]
    knee: LoadLevel
    input: Decimal
    output: Decimal


def calls_of(
    step: Step,
    prompt: Prompt,
    documents: Sequence[Document],
    parameters: Mapping[str, Any],
    model: Model,
) -> Iterator[Call]:
    """Yield calls of a step over the documents in turn, without end.

    Each prompt has a number in it, so that no server answers from its cache.
    """
    max_tokens = prompt.head.max_output_tokens + model.thinking_tokens
    for number, document in zip(count(), cycle(documents)):
        numbered = replace(document, text=f"[{number}] {document.text}")
        yield Call(
            model=model.name,
            identity="calibration",
            messages=prompt.render(numbered, {"part": None, **parameters}),
            max_tokens=max_tokens,
            response_schema=step.schema(parameters),
            schema_name=step.name,
        )


def reading_only(calls: Iterator[Call]) -> Iterator[Call]:
    """Yield the same calls with answers of one token: what is left is the cost of reading."""
    return (replace(call, max_tokens=1, response_schema=None) for call in calls)


async def load(
    server: Server, calls: Iterator[Call], concurrency: int, seconds: float
) -> LoadLevel:
    """Keep `concurrency` calls under way for `seconds`, then wait for the last ones.

    These are counted, and their time is too.
    """
    started = time.monotonic()
    replies: list[Reply] = []
    failed = 0

    async def call_until_the_end() -> None:
        nonlocal failed
        while True:
            try:
                replies.append(await server.complete(next(calls)))
            except CallError:
                failed += 1
            if time.monotonic() - started >= seconds:
                return

    await asyncio.gather(*(call_until_the_end() for _ in range(concurrency)))
    usages = [reply.usage for reply in replies if reply.usage]
    median, p95 = _percentiles([reply.latency_s for reply in replies])
    return LoadLevel(
        concurrency=concurrency,
        replies=len(replies),
        failed=failed,
        seconds=time.monotonic() - started,
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        latency_p50_s=median,
        latency_p95_s=p95,
        uncounted=len(replies) - len(usages),
    )


def _percentiles(latencies: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the median and the 95th percentile."""
    if not latencies:
        return None, None
    if len(latencies) == 1:
        return latencies[0], latencies[0]
    twentieths = quantiles(latencies, n=20, method="inclusive")
    return twentieths[9], twentieths[18]


async def calibrate(
    server: Server,
    calls: Iterator[Call],
    *,
    hour_usd: Decimal,
    seconds: float,
    levels: Sequence[int] = LEVELS,
    on_level: Callable[[LoadLevel], None] = lambda _: None,
) -> Calibration:
    """Load a server at rising concurrency, find the knee, and price its tokens there.

    `calls` must not end. Raises Misuse when the first call fails, hardly anything comes back, or
    the server does not report usage.
    """
    try:
        await server.complete(next(calls))  # not counted, as it may load the model
    except CallError as error:
        raise Misuse(
            f"the first call failed: {error}; `tierwise doctor` and the server's own log say more"
        ) from None
    curve: list[LoadLevel] = []
    for concurrency in levels:
        level = await load(server, calls, concurrency, seconds)
        curve.append(level)
        on_level(level)
        if level.failed > level.replies or _is_flat(curve):
            break
    knee = knee_of(curve)
    reading = await load(server, reading_only(calls), knee.concurrency, seconds)
    on_level(reading)
    input_price, output_price = token_prices(knee, reading, hour_usd)
    return Calibration(
        levels=tuple(curve), knee=knee, input=input_price, output=output_price
    )


def knee_of(levels: Sequence[LoadLevel]) -> LoadLevel:
    """Return the least concurrency that is nearly as fast as the best one.

    Raises Misuse when nothing came back.
    """
    best = max(level.per_second for level in levels)
    if best == 0:
        raise Misuse("no call was answered; the server's own log says more")
    return next(level for level in levels if level.per_second >= NEAR * best)


def token_prices(
    knee: LoadLevel, reading: LoadLevel, hour_usd: Decimal
) -> tuple[Decimal, Decimal]:
    """Return USD for a million tokens in and out.

    They explain the seconds that both loads took: seconds = tokens in x a + tokens out x b, with a
    and b of at least 0 (Lawson and Hanson's NNLS, "Solving Least Squares Problems", 1974). Replies
    without usage are taken to be like the others. Raises Misuse if more than a tenth lack it.
    """
    from scipy.optimize import nnls

    if not (knee.prompt_tokens and knee.completion_tokens and reading.prompt_tokens):
        raise Misuse(
            "the server reports no usage, so nothing can be said of its tokens"
        )
    loads = (knee, reading)
    for level in loads:
        if level.uncounted > UNCOUNTED * level.replies:
            raise Misuse(
                f"the server left usage out of {level.uncounted} of {level.replies} replies, "
                "too many to go by the rest"
            )
    # both loads in seconds a reply, so that neither weighs more for having run longer
    tokens = [
        [level.prompt_tokens_each, level.completion_tokens_each] for level in loads
    ]
    seconds = [level.seconds / level.replies for level in loads]
    seconds_a_token, _ = nnls(tokens, seconds)
    input_price, output_price = [
        round(Decimal(float(share)) * SECOND * hour_usd * MILLION, 6)
        for share in seconds_a_token
    ]
    return input_price, output_price


def _is_flat(curve: Sequence[LoadLevel]) -> bool:
    """Return True if the last two doublings gained next to nothing."""
    if len(curve) < 3:
        return False
    before = curve[-3].per_second
    best_since = max(level.per_second for level in curve[-2:])
    return best_since < before * GAIN
