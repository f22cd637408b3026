"""The circuit breaker and the concurrency limit of one model, as a frozen value.

A 429 halves the concurrency limit, and each full window of successes raises it by one (AIMD). A
model that keeps failing opens its circuit: no call is sent for a while, and then a single call tries
it (half open). The cooldown is a share of the outage so far, so that work goes on soon after it ends
and a long outage is not asked about all the time. What documents do meanwhile is decided in
`outages.py`. `Retry-After` applies to all calls of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierwise.cascade.faults import decision
from tierwise.errors import CallError, RateLimited

FAULTS_TO_OPEN = 5  # in a row
SHORTEST_COOLDOWN_S = 30.0
LONGEST_COOLDOWN_S = 300.0
COOLDOWN_SHARE = 0.25  # of the outage so far
# a longer `Retry-After` opens the circuit instead of delaying calls
LONGEST_WAIT_S = 30.0
LONGEST_RETRY_AFTER_S = 3600.0
NEVER = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSign:
    """Whether a model is out. `seconds` is the time since its first fault, or its latest answer."""

    is_out: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Circuit:
    """The state of one model. Times are seconds of a monotonic clock."""

    max_concurrency: int
    concurrency_limit: int  # calls in flight, now
    window: int = 0  # successes since `concurrency_limit` last changed
    last_decrease: float = NEVER
    last_success_begun: float = NEVER  # start of the latest call that succeeded
    faults: int = 0  # in a row, of calls that began later than that
    not_before: float = NEVER  # no call begins earlier
    # Once this is past, the circuit is half open until a call succeeds.
    open_until: float = NEVER
    out_since: float = NEVER  # the first fault after the last success
    last_fault: CallError | None = None

    def is_half_open(self, now: float) -> bool:
        """Return True if the cooldown is over and no call has succeeded since."""
        return NEVER < self.open_until <= now

    def last_sign(self, now: float) -> LastSign | None:
        """Return whether the model is out, and since when; None before its first answer or fault."""
        if self.out_since > NEVER:
            return LastSign(is_out=True, seconds=now - self.out_since)
        if self.last_success_begun > NEVER:
            return LastSign(is_out=False, seconds=now - self.last_success_begun)
        return None

    def after_success(self, begun: float) -> Circuit:
        """Return the state after a success: one more permit after each full window."""
        limit = self.concurrency_limit
        window = self.window + 1
        if limit < self.max_concurrency and window >= limit:
            limit += 1
            window = 0
        return replace(
            self._closed(begun),
            concurrency_limit=limit,
            window=window,
            last_success_begun=max(self.last_success_begun, begun),
        )

    def after_fault(self, error: CallError, begun: float, now: float) -> Circuit:
        """Return the state after a fault of a call that began at `begun`."""
        state = replace(self, last_fault=error)
        if error.retry_after is not None:
            state = state._after_retry_after(error.retry_after, now)
        if decision(error) != "retry":
            # the server answers
            return state._closed(begun)
        # The model has answered calls that began later, so this fault says nothing about now.
        is_stale = begun < state.last_success_begun
        if not is_stale and state.out_since == NEVER:
            state = replace(state, out_since=now)
        if isinstance(error, RateLimited):
            # Calls that were in flight together meet the same refusal: it counts once.
            if begun < state.last_decrease:
                return state
            halved = max(1, state.concurrency_limit // 2)
            state = replace(
                state, concurrency_limit=halved, window=0, last_decrease=now
            )
        if is_stale:
            return state
        state = replace(state, faults=state.faults + 1)
        if state.faults >= FAULTS_TO_OPEN and state.open_until <= now:
            return state._opened(now)
        return state

    def _closed(self, begun: float) -> Circuit:
        """Return the state after any sign of life: closed, unless it was opened since `begun`."""
        open_until = NEVER if begun >= self.open_until else self.open_until
        return replace(self, faults=0, open_until=open_until, out_since=NEVER)

    def _after_retry_after(self, seconds: float, now: float) -> Circuit:
        until = now + min(seconds, LONGEST_RETRY_AFTER_S)
        if seconds > LONGEST_WAIT_S:
            return replace(self, open_until=max(self.open_until, until))
        return replace(self, not_before=max(self.not_before, until))

    def _opened(self, now: float) -> Circuit:
        share = COOLDOWN_SHARE * (now - self.out_since)
        seconds = min(max(SHORTEST_COOLDOWN_S, share), LONGEST_COOLDOWN_S)
        return replace(self, open_until=now + seconds)
