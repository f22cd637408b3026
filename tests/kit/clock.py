"""A clock that runs faster than real time, so that waits of minutes take moments."""

from __future__ import annotations

import asyncio
import time

from tierwise.cascade.clock import Clock


class FastClock(Clock):
    """Counts `speed` seconds for each real one, from now on."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._monotonic = time.monotonic()
        self._time = time.time()

    def monotonic(self) -> float:
        """Return fast seconds."""
        return self._monotonic + self.elapsed()

    def time(self) -> float:
        """Return the seconds since 1970, were time so fast."""
        return self._time + self.elapsed()

    def elapsed(self) -> float:
        """Return the fast seconds since the clock was made."""
        return (time.monotonic() - self._monotonic) * self._speed

    async def sleep(self, seconds: float) -> None:
        """Wait for fast seconds."""
        await super().sleep(seconds / self._speed)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for an event, at most for some fast seconds."""
        await super().wait(event, seconds / self._speed)
