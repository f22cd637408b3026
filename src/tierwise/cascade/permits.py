"""Permits of which a number may be held at once, in the order of a rank.

A semaphore with a priority queue: a waiting call of a lower rank gets the next permit, and the
first to come among equal ones.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import AbstractAsyncContextManager

# The order of calls that wait: the lowest first. See `Job.rank`.
Rank = tuple[int, int]
FIRST_COME: Rank = (0, 0)


class Permits:
    """At most `total` permits at once. Lives on one event loop."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._held = 0
        self._arrivals = itertools.count()
        self._waiting: list[tuple[Rank, int, asyncio.Future[None]]] = []

    @property
    def total(self) -> int:
        """The number of permits; a lower one takes none away from their holders."""
        return self._total

    @total.setter
    def total(self, number: int) -> None:
        self._total = number
        self._grant()

    async def acquire(self, rank: Rank = FIRST_COME) -> None:
        """Wait for a permit."""
        if self._held < self._total and not self._waiting:
            self._held += 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._arrivals), turn))
        self._grant()  # those before it may all have been cancelled
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # granted at the same moment
                self.release()
            raise

    def release(self) -> None:
        """Give a permit back."""
        self._held -= 1
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._held < self._total:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():  # else it was cancelled
                self._held += 1
                turn.set_result(None)


class Held(AbstractAsyncContextManager[None]):
    """One permit of each kind for the time of a block, taken in their order."""

    def __init__(self, rank: Rank, *kinds: Permits) -> None:
        self._rank = rank
        self._kinds = kinds
        self._taken: list[Permits] = []

    async def __aenter__(self) -> None:
        try:
            for permits in self._kinds:
                await permits.acquire(self._rank)
                self._taken.append(permits)
        except BaseException:  # cancelled while it waits for a later one
            self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        while self._taken:
            self._taken.pop().release()
