"""What a server of one's own truly costs: load it with one's own documents until more at once is no more in all.

A GPU is paid by the hour, whatever it does. Its price a token is what an hour costs, divided by what an hour
gets done at the knee of the throughput curve, and split between reading and writing by two loads of one mix each.
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
from tierwise.records import Call, Document, Reply
from tierwise.steps.prompts import Prompt
from tierwise.steps.step import Step

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NEAR = 0.9  # the knee is the least concurrency with this share of the most throughput
GAIN = 1.05  # twice less than this from one level to the next, and the curve is flat
UNCOUNTED = 0.1  # of the replies may lack usage; more, and the rest may be other ones
SECOND = Decimal(1) / 3600


class Server(Protocol):
    """What is loaded."""

    async def complete(self, call: Call) -> Reply:
        """The reply to one request. Raises CallError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What came back at one concurrency within `seconds`.

    Tokens are what the server reported, which it did not for `uncounted` of the replies.
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
    """A server's curve, its knee, and what a million tokens cost there in USD."""

    levels: tuple[Level, ...]
    knee: Level
    input: Decimal
    output: Decimal


def calls_of(
    step: Step,
    prompt: Prompt,
    documents: Sequence[Document],
    parameters: Mapping[str, Any],
    model: str,
) -> Iterator[Call]:
    """Calls of a step over the documents in turn, without end; none twice, so that no server answers from memory."""
    for number, document in zip(count(), cycle(documents)):
        fresh = replace(document, text=f"[{number}] {document.text}")
        yield Call(
            model=model,
            identity="calibration",
            messages=prompt.render(fresh, {"part": None, **parameters}),
            max_tokens=prompt.head.max_output_tokens,
            response_schema=step.schema(parameters),
            schema_name=step.name,
        )


def reading_only(calls: Iterator[Call]) -> Iterator[Call]:
    """The same questions, each answered by one token: what is left is the cost of reading."""
    return (replace(call, max_tokens=1, response_schema=None) for call in calls)


async def load(server: Server, calls: Iterator[Call], concurrency: int, seconds: float) -> Level:
    """Keep so many calls under way for so long; those that are under way at the end are waited for, and counted."""
    begun = time.monotonic()
    replies: list[Reply] = []
    failed = 0

    async def one_after_the_other() -> None:
        nonlocal failed
        while True:
            try:
                replies.append(await server.complete(next(calls)))
            except CallError:
                failed += 1
            if time.monotonic() - begun >= seconds:
                return

    await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    usages = [reply.usage for reply in replies if reply.usage]
    latencies = sorted(reply.latency_s for reply in replies)
    marks = quantiles(latencies, n=20, method="inclusive") if len(latencies) > 1 else latencies * 19
    return Level(
        concurrency=concurrency,
        replies=len(replies),
        failed=failed,
        seconds=time.monotonic() - begun,
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        latency_p50_s=marks[9] if marks else None,
        latency_p95_s=marks[18] if marks else None,
        uncounted=len(replies) - len(usages),
    )


async def calibrate(
    server: Server,
    calls: Iterator[Call],
    *,
    hour_usd: Decimal,
    seconds: float,
    levels: Sequence[int] = LEVELS,
    told: Callable[[Level], None] = lambda _: None,
) -> Calibration:
    """Load a server at rising concurrency, find the knee, and price its tokens there. `calls` never end.

    Raises Misuse when the first call fails, hardly anything comes back, or the server does not report usage.
    """
    try:
        await server.complete(next(calls))  # not counted, as it may load the model
    except CallError as error:
        raise Misuse(
            f"the first call failed: {error}; `tierwise doctor` and the server's own log say more"
        ) from None
    curve: list[Level] = []
    for concurrency in levels:
        curve.append(await load(server, calls, concurrency, seconds))
        told(curve[-1])
        if curve[-1].failed > curve[-1].replies or _is_flat(curve):
            break
    knee = knee_of(curve)
    reading = await load(server, reading_only(calls), knee.concurrency, seconds)
    told(reading)
    read, written = token_prices(knee, reading, hour_usd)
    return Calibration(levels=tuple(curve), knee=knee, input=read, output=written)


def knee_of(levels: Sequence[Level]) -> Level:
    """The least concurrency that gets nearly as much done as the best one. Raises Misuse when nothing came back."""
    best = max(level.per_second for level in levels)
    if best == 0:
        raise Misuse("no call was answered; the server's own log says more")
    return next(level for level in levels if level.per_second >= NEAR * best)


def token_prices(knee: Level, reading: Level, hour_usd: Decimal) -> tuple[Decimal, Decimal]:
    """USD for a million tokens in and out, so that both loads together cost what their seconds cost.

    Seconds of the whole server = tokens in x a + tokens out x b, solved for both loads with a and b of at least 0
    (Lawson and Hanson's NNLS, "Solving Least Squares Problems", 1974). Replies without usage are taken to be like
    the others. Raises Misuse where more than a tenth, or all, are without.
    """
    from scipy.optimize import nnls

    if not (knee.prompt_tokens and knee.completion_tokens and reading.prompt_tokens):
        raise Misuse("the server reports no usage, so nothing can be said of its tokens")
    for level in (knee, reading):
        if level.uncounted > UNCOUNTED * level.replies:
            raise Misuse(
                f"the server left usage out of {level.uncounted} of {level.replies} replies, too many to go by the rest"
            )
    # both loads in seconds a reply, so that neither weighs more for having run longer
    rows = [[level.prompt_tokens_each, level.completion_tokens_each] for level in (knee, reading)]
    solved, _ = nnls(rows, [level.seconds / level.replies for level in (knee, reading)])
    read, written = (round(Decimal(float(s)) * SECOND * hour_usd * 1_000_000, 6) for s in solved)
    return read, written


def _is_flat(curve: Sequence[Level]) -> bool:
    """Whether the last two doublings gained next to nothing."""
    if len(curve) < 3:
        return False
    return max(level.per_second for level in curve[-2:]) < curve[-3].per_second * GAIN
