"""Permits of which a number may be held at once, in the order of a rank.

A semaphore with a priority queue: a waiting call of a lower rank gets the next permit, and the
first to come among equal ones. Calls may belong to a group, such as the one of their prompt's
beginning: those of the last call's group go before all others, a number of times.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import AbstractAsyncContextManager

# The order of calls that wait: the lowest first. See `Job.rank`.
Rank = tuple[int, int]
FIRST_COME: Rank = (0, 0)
# So many calls of one group in a row while others wait: enough to make a change of group cheap.
_LONGEST_STREAK = 32


class Permits:
    """At most `total` permits at once. Lives on one event loop."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._held = 0
        self._arrivals = itertools.count()
        self._waiting: list[tuple[Rank, int, asyncio.Future[None], str]] = []
        self._group = ""  # of the last call
        self._streak = 0  # calls of this group in a row

    @property
    def total(self) -> int:
        """The number of permits; a lower one takes none away from their holders."""
        return self._total

    @total.setter
    def total(self, number: int) -> None:
        self._total = number
        self._grant()

    async def acquire(self, rank: Rank = FIRST_COME, group: str = "") -> None:
        """Wait for a permit. An empty group is none."""
        if self._held < self._total and not self._waiting:
            self._hold(group)
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._arrivals), turn, group))
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
            _, _, turn, group = self._next()
            if not turn.done():  # else it was cancelled
                self._hold(group)
                turn.set_result(None)

    def _hold(self, group: str) -> None:
        self._held += 1
        self._streak = self._streak + 1 if group == self._group else 1
        self._group = group

    def _next(self) -> tuple[Rank, int, asyncio.Future[None], str]:
        """Take the next one out of those that wait."""
        lowest = self._waiting[0]
        goes_on = self._group and self._streak < _LONGEST_STREAK
        if not goes_on or lowest[3] == self._group:
            return heapq.heappop(self._waiting)
        same_group = [each for each in self._waiting if each[3] == self._group]
        if not same_group:
            return heapq.heappop(self._waiting)
        chosen = min(same_group)
        self._waiting.remove(chosen)
        heapq.heapify(self._waiting)
        return chosen


class Held(AbstractAsyncContextManager[None]):
    """One permit of each kind for the time of a block, taken in their order."""

    def __init__(self, rank: Rank, *kinds: Permits, group: str = "") -> None:
        self._rank = rank
        self._group = group
        self._kinds = kinds
        self._taken: list[Permits] = []

    async def __aenter__(self) -> None:
        try:
            for permits in self._kinds:
                await permits.acquire(self._rank, self._group)
                self._taken.append(permits)
        except BaseException:  # cancelled while it waits for a later one
            self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        while self._taken:
            self._taken.pop().release()
