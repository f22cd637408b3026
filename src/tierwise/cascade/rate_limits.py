"""Rate limits of one model: calls in flight, requests and tokens a minute.

A call passes three permits in this order: a claim permit (it may be claimed in the ledger), an
in-flight permit (it may be sent), and a rate permit (the minute has room for it). The circuit
breaker in `circuit.py` decides when no call may be sent at all, such as after a 429 with a long
`Retry-After`. Calls wait for each permit in the order of their rank.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from tierwise.cascade.circuit import NEVER, Circuit
from tierwise.cascade.clock import Clock
from tierwise.cascade.faults import decision
from tierwise.cascade.outages import (
    OutagePatience,
    cause_of,
    in_words,
    remedy_for,
)
from tierwise.cascade.permits import FIRST_COME, Held, Permits, Rank
from tierwise.errors import CallError, CoolingDown, ModelUnavailable, TierwiseError
from tierwise.policy.catalog import Model
from tierwise.records import Usage
from tierwise.text.amounts import plural

MINUTE_S = 60.0
_POLL_S = 1.0  # while a call waits, the circuit may open
_TRIAL_S = 5.0  # a document that was let in makes its call within this time
_SAY_AFTER_S = 1.0  # a shorter wait is not worth a line
_SAY_EVERY_S = 60.0

log = logging.getLogger(__name__)


@dataclass
class Consumption:
    """Requests or tokens that were taken at a time."""

    at: float
    amount: int
    in_window: bool = True


class PerMinute:
    """At most `limit` requests or tokens in any 60 seconds. Times are of a monotonic clock."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._sum = 0
        self._taken: deque[Consumption] = deque()

    def wait(self, amount: int, now: float) -> float:
        """Return the seconds until an amount fits.

        An amount above the limit waits until the window is empty.
        """
        while self._taken and self._taken[0].at + MINUTE_S <= now:
            expired = self._taken.popleft()
            expired.in_window = False
            self._sum -= expired.amount
        excess = self._sum + amount - self.limit
        ready = now
        # The oldest consumptions leave the window first: wait for as many as are too much.
        for taken in self._taken:
            if excess <= 0:
                break
            excess -= taken.amount
            ready = taken.at + MINUTE_S
        return ready - now

    def take(self, amount: int, now: float) -> Consumption:
        """Take an amount now."""
        taken = Consumption(now, amount)
        self._sum += amount
        self._taken.append(taken)
        return taken

    def correct(self, taken: Consumption, amount: int) -> None:
        """Replace an estimated amount by the actual one."""
        if taken.in_window:
            self._sum += amount - taken.amount
            taken.amount = amount


class ServerPermits:
    """The permits of one embedded server, which all catalog entries with its weights share.

    The server answers as many calls at once as the largest `concurrency` among these entries.
    """

    def __init__(self) -> None:
        self.in_flight = Permits(1)
        self.claims = Permits(_claims_for(1))

    def serve(self, model: Model) -> None:
        """Grow to the concurrency of one more entry."""
        if model.concurrency > self.in_flight.total:
            self.in_flight.total = model.concurrency
            self.claims.total = _claims_for(model.concurrency)


class ModelLimits:
    """The limits of one model in this process. Lives on the engine's event loop."""

    def __init__(
        self,
        model: Model,
        server: ServerPermits | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`server` has the permits of an embedded model's server."""
        if server is not None:
            server.serve(model)
        self._server = server
        self._clock = clock or Clock()
        self.circuit = Circuit(model.concurrency, model.concurrency)
        self._name = model.name
        self._in_flight = Permits(model.concurrency)
        self._claims = Permits(_claims_for(model.concurrency))
        self._next_in_minute = Permits(1)  # the call that waits for the minute's room
        # why the model is out for the rest of the process
        self._stopped: str | None = None
        self._trial: RatePermit | None = None  # the call that tries a half-open circuit
        self._invited_until = NEVER  # a waiting document was let in to make that call
        self._changed = asyncio.Event()  # wakes the documents that wait
        self._waiting = 0  # documents
        self._closing = False
        self._said_at = NEVER
        self._fallback_said = False
        self._requests: PerMinute | None = None
        if model.requests_per_minute:
            self._requests = PerMinute(model.requests_per_minute)
        self._tokens: PerMinute | None = None
        if model.tokens_per_minute:
            self._tokens = PerMinute(model.tokens_per_minute)

    def claim_permit(
        self, rank: Rank = FIRST_COME, group: str = ""
    ) -> AbstractAsyncContextManager[None]:
        """Wait for one of the calls that may be claimed.

        These are a quarter more than may be in flight, so that no in-flight permit is idle while a
        claim is committed.
        """
        if self._server is None:
            return Held(rank, self._claims, group=group)
        return Held(rank, self._claims, self._server.claims, group=group)

    def in_flight_permit(
        self, rank: Rank = FIRST_COME, group: str = ""
    ) -> AbstractAsyncContextManager[None]:
        """Wait for one of the calls that may be in flight."""
        if self._server is None:
            return Held(rank, self._in_flight, group=group)
        return Held(rank, self._in_flight, self._server.in_flight, group=group)

    async def rate_permit(self, tokens: int, rank: Rank = FIRST_COME) -> RatePermit:
        """Wait until a call of at most `tokens` may begin.

        Raises CoolingDown while the circuit is open, or half open with a call that tries it;
        ModelUnavailable when the model was stopped in the meantime.
        """
        async with Held(rank, self._next_in_minute):
            while True:
                wait = self._seconds_to_wait(tokens, self._clock.monotonic())
                if wait <= 0:
                    break
                await self._clock.sleep(min(wait, _POLL_S))
            now = self._clock.monotonic()
            if self._requests:
                self._requests.take(1, now)
            taken = self._tokens.take(tokens, now) if self._tokens else None
            permit = RatePermit(self, now, taken)
            if self.circuit.is_half_open(now):
                self._trial = permit
            return permit

    async def wait_until_ready(
        self, patience: OutagePatience, fault: TierwiseError, *, pause: float = 0.0
    ) -> str | None:
        """Wait until the model may be called again, `pause` seconds at least.

        Return None then, and else why the document waits no longer, in words. It holds no permit.
        """
        begun = self._clock.monotonic()
        self._waiting += 1
        try:
            while True:
                now = self._clock.monotonic()
                if self._stopped is not None:
                    return None  # the call says why
                ready_at = max(self._ready_at(now), begun + pause)
                if ready_at <= now:
                    if self.circuit.is_half_open(now):
                        self._invited_until = now + _TRIAL_S
                    return None
                reason = self._reason_to_give_up(patience, fault, begun, ready_at)
                if reason is not None:
                    return reason
                seconds = ready_at - now
                if now < begun + _SAY_AFTER_S:
                    seconds = min(seconds, _SAY_AFTER_S)
                elif not self.circuit.is_half_open(now):
                    self._say(patience, fault, seconds)
                await self._clock.wait(self._changed, seconds)
        finally:
            self._waiting -= 1

    def say_fallback(self, fault: TierwiseError) -> None:
        """Say that documents go to another model, once an outage."""
        if self._fallback_said:
            return
        self._fallback_said = True
        cause = cause_of(fault)
        log.warning(
            "%s is out; its documents go to the next model of their route: %s%s",
            self._name,
            getattr(cause, "message", cause),
            remedy_for(cause),
        )

    def ready_at(self) -> float:
        """Return the time from which the model may be called, by the clock of the circuit."""
        return self._ready_at(self._clock.monotonic())

    def end_waits(self) -> None:
        """Let no document wait any longer."""
        self._closing = True
        self.wake_all()

    def wake_all(self) -> None:
        """Let every waiting document look again at what it waits for."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _ready_at(self, now: float) -> float:
        circuit = self.circuit
        ready_at = max(circuit.open_until, circuit.not_before)
        if circuit.is_half_open(now):
            if self._trial is not None:
                return max(ready_at, now + _TRIAL_S)  # sooner, once it has ended
            ready_at = max(ready_at, self._invited_until)
        return max(ready_at, now)

    def _reason_to_give_up(
        self,
        patience: OutagePatience,
        fault: TierwiseError,
        begun: float,
        ready_at: float,
    ) -> str | None:
        now = self._clock.monotonic()
        if self._closing:
            return "the process is ending"
        if ready_at - now > patience.seconds_to_deadline(self._clock.time()):
            return "the run's deadline comes first"
        since = begun if self.circuit.out_since == NEVER else self.circuit.out_since
        seconds = patience.shortened(fault, self.circuit)
        if ready_at <= since + seconds:
            return None
        if seconds == 0:
            return ""
        return f"out for {in_words(now - since)}, the patience is {in_words(seconds)}"

    def _say(
        self, patience: OutagePatience, fault: TierwiseError, seconds: float
    ) -> None:
        """Say what is waited for, once a minute."""
        now = self._clock.monotonic()
        if now < self._said_at + _SAY_EVERY_S:
            return
        self._said_at = now
        cause = cause_of(fault)
        log.warning(
            "waiting for %s (%s): next call in %s, given up after %s without an answer; %s%s",
            self._name,
            plural(self._waiting, "document"),
            in_words(seconds),
            in_words(patience.shortened(fault, self.circuit)),
            getattr(cause, "message", cause),
            remedy_for(cause),
        )

    def _seconds_to_wait(self, tokens: int, now: float) -> float:
        if self._stopped is not None:
            raise ModelUnavailable(self._stopped, model=self._name)
        cooldown = self.circuit.open_until - now
        if cooldown > 0:
            raise self._cooling_down(
                f"circuit open for another {cooldown:.0f} s", cooldown
            )
        if self.circuit.is_half_open(now) and self._trial is not None:
            raise self._cooling_down("circuit half open, and one call tries it", 0.0)
        waits = [self.circuit.not_before - now]
        if self._requests:
            waits.append(self._requests.wait(1, now))
        if self._tokens:
            waits.append(self._tokens.wait(tokens, now))
        return max(waits)

    def _cooling_down(self, state: str, seconds: float) -> CoolingDown:
        fault = self.circuit.last_fault
        words = f", after: {fault.message}" if fault else ""
        error = CoolingDown(f"{state}{words}", model=self._name, retry_after=seconds)
        error.after = fault
        return error

    def _end(self, permit: RatePermit, circuit: Circuit) -> None:
        """Take the state after a call, and wake the documents where it matters to them."""
        was_out = self.circuit.out_since > NEVER
        is_other = circuit.open_until != self.circuit.open_until
        self._update(circuit)
        if self._trial is permit:
            self._trial = None
            self._invited_until = NEVER
            is_other = True
        was_said = self._said_at > NEVER or self._fallback_said
        if was_out and circuit.out_since == NEVER and was_said:
            self._said_at = NEVER
            self._fallback_said = False
            log.warning("%s answers again", self._name)
        if is_other:
            self.wake_all()

    def _update(self, circuit: Circuit) -> None:
        limit = circuit.concurrency_limit
        if limit != self.circuit.concurrency_limit:
            self._in_flight.total = limit
            self._claims.total = _claims_for(limit)
        self.circuit = circuit


def _claims_for(in_flight: int) -> int:
    """Return how many calls may be claimed for a number of calls in flight."""
    return in_flight + max(1, in_flight // 4)


@dataclass(frozen=True, slots=True)
class RatePermit:
    """A call that has begun. Its end must be reported."""

    limits: ModelLimits
    begun: float
    tokens: Consumption | None

    def succeeded(self, usage: Usage | None) -> None:
        """Report that the model answered."""
        circuit = self.limits.circuit.after_success(self.begun)
        self.limits._end(self, circuit)
        self._correct_tokens(usage)

    def failed(self, error: CallError, usage: Usage | None = None) -> None:
        """Report that the call failed."""
        now = self.limits._clock.monotonic()
        circuit = self.limits.circuit.after_fault(error, self.begun, now)
        if decision(error) == "stop":
            self.limits._stopped = error.message
            self.limits.wake_all()
        self.limits._end(self, circuit)
        self._correct_tokens(usage)

    def given_up(self) -> None:
        """Report that nothing was sent, or that the call was cancelled."""
        self.limits._end(self, self.limits.circuit)

    def _correct_tokens(self, usage: Usage | None) -> None:
        if self.tokens and usage and self.limits._tokens:
            actual = usage.prompt_tokens + usage.completion_tokens
            self.limits._tokens.correct(self.tokens, actual)
