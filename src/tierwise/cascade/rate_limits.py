"""What one model can take now: so many calls at once and a minute, and none while it rests.

A 429 halves how many calls go at once, and every round of calls that succeed adds one again. `Retry-After` holds
for all calls of the model. A model that keeps failing rests for a while, twice as long the next time, and its
documents take the next model of their route at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from anyio import CapacityLimiter, WouldBlock

from tierwise.cascade.faults import decision
from tierwise.errors import CallError, CoolingDown, ModelUnavailable, RateLimited
from tierwise.policy.catalog import Model
from tierwise.records import Usage

FAULTS_IN_A_ROW = 5  # then a model rests
FIRST_REST_S = 30.0
LONGEST_REST_S = 300.0
WORTH_WAITING_S = 30.0  # a longer wait that a server asks for is a rest
LONGEST_ASKED_S = 3600.0
MINUTE_S = 60.0
_LOOK_AGAIN_S = 1.0


@dataclass
class Taken:
    """An amount that was taken at a time."""

    at: float
    amount: int
    counted: bool = True


class PerMinute:
    """At most so much in any 60 seconds. Times are seconds of a clock that never goes back."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._sum = 0
        self._taken: deque[Taken] = deque()

    def wait(self, amount: int, now: float) -> float:
        """Seconds until this amount fits; what is more than a minute holds, waits for an empty one."""
        while self._taken and self._taken[0].at + MINUTE_S <= now:
            self._taken[0].counted = False
            self._sum -= self._taken.popleft().amount
        over = self._sum + amount - self.most
        ready = now
        for taken in self._taken:
            if over <= 0:
                break
            over = over - taken.amount
            ready = taken.at + MINUTE_S
        return ready - now

    def take(self, amount: int, now: float) -> Taken:
        """Take an amount now."""
        self._sum += amount
        self._taken.append(taken := Taken(now, amount))
        return taken

    def correct(self, taken: Taken, amount: int) -> None:
        """What it was in truth."""
        if taken.counted:
            self._sum += amount - taken.amount
            taken.amount = amount


@dataclass(frozen=True, slots=True)
class Health:
    """How a model does, and what follows from it; times are seconds of a clock that never goes back."""

    most: int  # calls at once, at best
    width: int  # calls at once, now
    round: int = 0  # successes since `width` last changed
    narrowed_at: float = float("-inf")
    alive_at: float = float("-inf")  # when the latest call began that succeeded
    faults: int = 0  # in a row, of calls that began later than that
    rests: int = 0  # in a row
    not_before: float = float("-inf")  # no call begins earlier
    resting_until: float = float("-inf")

    def after_success(self, begun: float) -> Health:
        """One more slot after each full round of successes."""
        wider = self.width < self.most and self.round + 1 >= self.width
        width, done = (self.width + 1, 0) if wider else (self.width, self.round + 1)
        return replace(
            self, width=width, round=done, faults=0, rests=0, alive_at=max(self.alive_at, begun)
        )

    def after_fault(self, error: CallError, begun: float, now: float) -> Health:
        """What a fault of a call that began at `begun` changes."""
        health = self if error.retry_after is None else self._asked(error.retry_after, now)
        if decision(error) != "retry":
            return replace(health, faults=0)  # it answers
        if isinstance(error, RateLimited):
            if begun < health.narrowed_at:
                return health  # one of many that met the same refusal
            health = replace(health, width=max(1, health.width // 2), round=0, narrowed_at=now)
        if (
            begun < health.alive_at
        ):  # it has answered younger calls: this one says nothing about now
            return health
        health = replace(health, faults=health.faults + 1)
        return (
            health._rest(now)
            if health.faults >= FAULTS_IN_A_ROW and health.resting_until <= now
            else health
        )

    def _asked(self, seconds: float, now: float) -> Health:
        until = now + min(seconds, LONGEST_ASKED_S)
        if seconds > WORTH_WAITING_S:
            return replace(self, resting_until=max(self.resting_until, until))
        return replace(self, not_before=max(self.not_before, until))

    def _rest(self, now: float) -> Health:
        seconds = min(FIRST_REST_S * 2**self.rests, LONGEST_REST_S)
        return replace(self, resting_until=now + seconds, rests=self.rests + 1)


class ModelLimits:
    """The limits of one model in this process. Lives on the engine's event loop."""

    def __init__(self, model: Model) -> None:
        self.health = Health(model.concurrency, model.concurrency)
        self._name = model.name
        self._slots = CapacityLimiter(model.concurrency)
        self._places = CapacityLimiter(_with_those_ahead(model.concurrency))
        self._turn = asyncio.Lock()  # first come, first served
        self._out: str | None = None  # why the model is out for the rest of the process
        self._requests = PerMinute(model.requests_per_minute) if model.requests_per_minute else None
        self._tokens = PerMinute(model.tokens_per_minute) if model.tokens_per_minute else None

    def place(self) -> AbstractAsyncContextManager[None]:
        """One of the calls that may be claimed: a quarter more than go at once, so that no slot waits for a commit."""
        return _one_of(self._places)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """One of the calls that may go at once."""
        return _one_of(self._slots)

    async def turn(self, tokens: int) -> Turn:
        """Wait until a call of at most so many tokens may begin.

        Raises CoolingDown while the model rests, ModelUnavailable when it was found to be out of order meanwhile.
        """
        async with self._turn:
            while (wait := self._wait(tokens, time.monotonic())) > 0:
                await asyncio.sleep(min(wait, _LOOK_AGAIN_S))
            now = time.monotonic()
            if self._requests:
                self._requests.take(1, now)
            return Turn(self, now, self._tokens.take(tokens, now) if self._tokens else None)

    async def rested(self) -> bool:
        """Wait for the end of a rest that is worth waiting for; whether it was."""
        wait = self.health.resting_until - time.monotonic()
        if wait > WORTH_WAITING_S:
            return False
        await asyncio.sleep(max(0.0, wait))
        return True

    def _wait(self, tokens: int, now: float) -> float:
        if self._out is not None:
            raise ModelUnavailable(self._out, model=self._name)
        if (rest := self.health.resting_until - now) > 0:
            reason = f"rests for {rest:.0f} s more, as it kept failing or asked for it"
            raise CoolingDown(reason, model=self._name, retry_after=rest)
        waits = [self.health.not_before - now]
        if self._requests:
            waits.append(self._requests.wait(1, now))
        if self._tokens:
            waits.append(self._tokens.wait(tokens, now))
        return max(waits)

    def _became(self, health: Health) -> None:
        if health.width != self.health.width:
            self._slots.total_tokens = health.width
            self._places.total_tokens = _with_those_ahead(health.width)
        self.health = health


@asynccontextmanager
async def _one_of(limiter: CapacityLimiter) -> AsyncIterator[None]:
    borrower = object()  # one task may hold one while another of its calls waits for one
    try:
        limiter.acquire_on_behalf_of_nowait(borrower)
    except WouldBlock:
        await limiter.acquire_on_behalf_of(borrower)
    try:
        yield
    finally:
        limiter.release_on_behalf_of(borrower)


def _with_those_ahead(width: int) -> int:
    return width + max(1, width // 4)


@dataclass(frozen=True, slots=True)
class Turn:
    """A call that has begun; tell how it ended."""

    limits: ModelLimits
    begun: float
    tokens: Taken | None

    def succeeded(self, usage: Usage | None) -> None:
        """The model answered."""
        self.limits._became(self.limits.health.after_success(self.begun))
        self._used(usage)

    def failed(self, error: CallError, usage: Usage | None = None) -> None:
        """The call failed."""
        now = time.monotonic()
        self.limits._became(self.limits.health.after_fault(error, self.begun, now))
        if decision(error) == "stop":
            self.limits._out = error.message
        self._used(usage)

    def _used(self, usage: Usage | None) -> None:
        if self.tokens and usage and self.limits._tokens:
            self.limits._tokens.correct(self.tokens, usage.prompt_tokens + usage.completion_tokens)
