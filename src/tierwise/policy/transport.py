"""The transport of a call: online, or in a provider batch at half the price. Pure decisions.

A provider batch answers within its window, most of them much sooner. `auto` takes the batch where
the time left covers the expected turnaround of all the steps that remain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tierwise.records import Transport
from tierwise.text.amounts import duration, plural

# As a route or a run sets it: `auto` decides by the time that is left.
TransportSetting = Literal["online", "batch", "auto"]
# The share of batches that the expected turnaround covers.
QUANTILE = 0.9
# Fewer finished batches say less than the catalog does.
ENOUGH_BATCHES = 5
# For each step that remains, the least time that is kept for calls online.
LEAST_RESERVE_S = 60.0
# Online calls may take longer than expected: repairs, escalations, a rate limit.
_RESERVE_FACTOR = 2.0


class BatchTimes(Protocol):
    """The times of a model's batches, as the catalog has them under `batch:`."""

    @property
    def expected_minutes(self) -> float:
        """How long a batch usually takes."""
        ...

    @property
    def stores_days(self) -> float | None:
        """How long the provider keeps a batch's requests and answers; None when unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Turnaround:
    """How long a model's finished batches took, from their upload to their end."""

    batches: int
    median_s: float
    high_s: float  # 9 of 10 took at most this long

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Turnaround | None:
        """Return the quantiles of some finished batches; None without any."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        return cls(len(ordered), _quantile(ordered, 0.5), _quantile(ordered, QUANTILE))


@dataclass(frozen=True, slots=True)
class TransportChoice:
    """A transport and the reason for it, in words."""

    transport: Transport
    reason: str


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the least value that at least this share of the values does not exceed."""
    position = math.ceil(share * len(ordered)) - 1
    return ordered[max(0, position)]


def expected_turnaround(
    batch: BatchTimes, turnaround: Turnaround | None
) -> tuple[float, str]:
    """Return how long a batch is expected to take, in seconds, and where that is from."""
    if turnaround is not None and turnaround.batches >= ENOUGH_BATCHES:
        count = plural(turnaround.batches, "batch").replace("batchs", "batches")
        return turnaround.high_s, f"9 of 10 of its last {count} took at most that"
    seconds = batch.expected_minutes * 60
    if turnaround is None:
        return seconds, "`expected_minutes` in the catalog; none of its batches is over"
    return (
        seconds,
        f"`expected_minutes` in the catalog, until {ENOUGH_BATCHES} of its batches are over",
    )


def transport_for(
    setting: TransportSetting,
    batch: BatchTimes | None,
    *,
    time_left_s: float | None,
    steps_left: int,
    turnaround: Turnaround | None = None,
    forbidden: str | None = None,
) -> TransportChoice:
    """Return the transport of a call to a model with these batches.

    `time_left_s` is None without a deadline, and infinite where the run is detached. `steps_left`
    counts the call's own step. `forbidden` is the guard's reason against batches. Only `auto`
    compares the time left with the expected turnaround. A deadline that is too near for any batch
    always leads online.
    """
    if setting == "online":
        return TransportChoice("online", "`transport: online`")
    if batch is None:
        return TransportChoice("online", "the model has no `batch:` in the catalog")
    if forbidden is not None:
        return TransportChoice("online", forbidden)
    steps = max(1, steps_left)
    reserve_s = online_reserve(steps)
    if time_left_s is not None and time_left_s <= reserve_s:
        left = duration(max(0.0, time_left_s))
        reason = f"{left} left until the deadline, which is kept for calls online"
        return TransportChoice("online", reason)
    if setting == "batch":
        return TransportChoice("batch", "`transport: batch`")
    if time_left_s is None:
        reason = "no deadline is set: `within` says how much time there is for batches"
        return TransportChoice("online", reason)
    expected_s, basis = expected_turnaround(batch, turnaround)
    needed_s = expected_s * steps + reserve_s
    times = f"{plural(steps, 'step')} of {duration(expected_s)} ({basis})"
    if math.isinf(time_left_s):
        return TransportChoice(
            "batch", f"the run is detached and has no deadline; {times}"
        )
    left = f"{duration(time_left_s)} left"
    if time_left_s < needed_s:
        need = f"batches need {duration(needed_s)}: {times}"
        return TransportChoice("online", f"{left}, and {need}")
    return TransportChoice("batch", f"{left}, enough for {times}")


def online_reserve(steps_left: int, online_s: float = 0.0) -> float:
    """Return the seconds before a deadline that are kept for calls online.

    `online_s` is how long one step is expected to take online for all that is missing.
    """
    return max(1, steps_left) * max(LEAST_RESERVE_S, _RESERVE_FACTOR * online_s)


def rescue_at(deadline: float, steps_left: int, online_s: float = 0.0) -> float:
    """Return the time from which the deadline is in danger while a batch is not over.

    `deadline` and the result are in epoch seconds. What is still missing then goes online, as it
    can be done just in time.
    """
    return deadline - online_reserve(steps_left, online_s)


def online_seconds(items: int, latency_s: float | None, concurrency: int) -> float:
    """Return how long some calls take online, side by side; 0 where the latency is unknown."""
    if latency_s is None:
        return 0.0
    rounds = math.ceil(items / max(1, concurrency))
    return rounds * latency_s
