"""The circuit breaker and the concurrency limit of one model, as a frozen value.

A 429 halves the concurrency limit, and each full window of successes raises it by one (AIMD). A
model that keeps failing opens its circuit: no call is sent for a while, twice as long the next
time, and its documents take the next model of their route at once. `Retry-After` applies to all
calls of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierwise.cascade.faults import decision
from tierwise.errors import CallError, RateLimited

FAULTS_TO_OPEN = 5  # in a row
FIRST_COOLDOWN_S = 30.0
LONGEST_COOLDOWN_S = 300.0
# a longer `Retry-After` opens the circuit instead of delaying calls
LONGEST_WAIT_S = 30.0
LONGEST_RETRY_AFTER_S = 3600.0
NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Circuit:
    """The state of one model. Times are seconds of a monotonic clock."""

    max_concurrency: int
    concurrency_limit: int  # calls in flight, now
    window: int = 0  # successes since `concurrency_limit` last changed
    last_decrease: float = NEVER
    last_success_begun: float = NEVER  # start of the latest call that succeeded
    faults: int = 0  # in a row, of calls that began later than that
    openings: int = 0  # in a row
    not_before: float = NEVER  # no call begins earlier
    open_until: float = NEVER

    def after_success(self, begun: float) -> Circuit:
        """Return the state after a success: one more permit after each full window."""
        limit = self.concurrency_limit
        window = self.window + 1
        if limit < self.max_concurrency and window >= limit:
            limit += 1
            window = 0
        return replace(
            self,
            concurrency_limit=limit,
            window=window,
            faults=0,
            openings=0,
            last_success_begun=max(self.last_success_begun, begun),
        )

    def after_fault(self, error: CallError, begun: float, now: float) -> Circuit:
        """Return the state after a fault of a call that began at `begun`."""
        state = self
        if error.retry_after is not None:
            state = state._after_retry_after(error.retry_after, now)
        if decision(error) != "retry":
            return replace(state, faults=0)  # the server answers
        if isinstance(error, RateLimited):
            # Calls that were in flight together meet the same refusal: it counts once.
            if begun < state.last_decrease:
                return state
            halved = max(1, state.concurrency_limit // 2)
            state = replace(
                state, concurrency_limit=halved, window=0, last_decrease=now
            )
        # The model has answered calls that began later, so this fault says nothing about now.
        if begun < state.last_success_begun:
            return state
        state = replace(state, faults=state.faults + 1)
        if state.faults >= FAULTS_TO_OPEN and state.open_until <= now:
            return state._opened(now)
        return state

    def _after_retry_after(self, seconds: float, now: float) -> Circuit:
        until = now + min(seconds, LONGEST_RETRY_AFTER_S)
        if seconds > LONGEST_WAIT_S:
            return replace(self, open_until=max(self.open_until, until))
        return replace(self, not_before=max(self.not_before, until))

    def _opened(self, now: float) -> Circuit:
        seconds = min(FIRST_COOLDOWN_S * 2**self.openings, LONGEST_COOLDOWN_S)
        return replace(self, open_until=now + seconds, openings=self.openings + 1)
