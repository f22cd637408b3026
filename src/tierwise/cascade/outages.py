"""Waiting for a model that is out: for which faults, for how long, and in what words.

A model is out from its first fault after an answer until the next answer. Its documents wait for
it within the patience of run and route, and hold no permit, claim or reservation meanwhile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tierwise.cascade.circuit import NEVER, Circuit
from tierwise.cascade.faults import decision
from tierwise.errors import (
    BadReply,
    CallError,
    CoolingDown,
    Overloaded,
    RateLimited,
    TierwiseError,
    Unreachable,
)
from tierwise.policy.rules import OnOutage

# Faults that are never the document's: the same call is answered later.
_OF_CAPACITY = (RateLimited, Overloaded)
# For a server that never answered (its address may be wrong), or whose answers are unusable.
SHORT_PATIENCE_S = 60.0
# Before a further round of tries, where neither a server nor a circuit says when: doubled.
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_REMEDY = "; `requests_per_minute` in the catalog keeps calls below a limit"


@dataclass(frozen=True, slots=True)
class OutagePatience:
    """How long a document waits for a model.

    `seconds` count from the model's last answer; `deadline` is the run's, in epoch seconds.
    """

    seconds: float
    deadline: float | None
    on_outage: OnOutage

    def shortened(self, fault: TierwiseError, circuit: Circuit) -> float:
        """Return the seconds for a fault: few where waiting is unlikely to help."""
        cause = cause_of(fault)
        never_answered = circuit.last_success_begun == NEVER
        if isinstance(cause, BadReply):
            return min(self.seconds, SHORT_PATIENCE_S)
        if isinstance(cause, Unreachable) and never_answered:
            return min(self.seconds, SHORT_PATIENCE_S)
        return self.seconds

    def seconds_to_deadline(self, now: float) -> float:
        """Return the seconds until the run's deadline, by a time since 1970."""
        if self.deadline is None:
            return math.inf
        return self.deadline - now


def is_worth_waiting(
    fault: TierwiseError,
    circuit: Circuit,
    *,
    begun: float,
    other_left: bool,
    on_outage: OnOutage,
) -> bool:
    """Return True if a document should wait for the model that has just failed.

    `begun` is the time before the document's first try. With another model left, it waits only for
    a model that asked for it, or that has answered before and whose circuit is open.
    """
    cause = cause_of(fault)
    if not isinstance(cause, CallError) or decision(cause) != "retry":
        return False
    is_open = isinstance(fault, CoolingDown)
    asks_for_it = isinstance(cause, _OF_CAPACITY)
    if other_left:
        if on_outage == "fallback" or isinstance(cause, BadReply):
            return False
        has_answered = circuit.last_success_begun > NEVER
        return asks_for_it or (is_open and has_answered)
    if is_open or asks_for_it:
        return True
    # A model that answers others meanwhile is not out: the document is at fault.
    return not isinstance(cause, BadReply) and circuit.last_success_begun < begun


def cause_of(fault: TierwiseError) -> TierwiseError:
    """Return the fault that opened a circuit, for the refusal of a call while it is open."""
    if isinstance(fault, CoolingDown) and fault.after is not None:
        return fault.after
    return fault


def pause_before(fault: TierwiseError, rounds: int) -> float:
    """Return the seconds before a further round of tries, where nothing else says when."""
    if isinstance(fault, CoolingDown):
        return 0.0  # nothing was sent
    return min(_FIRST_PAUSE_S * 2.0 ** min(rounds, 10), _LONGEST_PAUSE_S)


def remedy_for(fault: TierwiseError) -> str:
    """Return the remedy of a fault, to be added to its words; empty for most."""
    return _REMEDY if isinstance(cause_of(fault), RateLimited) else ""


def in_words(seconds: float) -> str:
    """Return a time for people: `45 s`, `30 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
