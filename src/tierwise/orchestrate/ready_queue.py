"""A pool of threads for task runs whose inputs are there, in the order of their place.

A task run that waits for an earlier one takes no thread. So a pool of any size comes to its end,
and the order of submission does not decide what runs first.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

# Task runs that wait for provider batches, at most: each keeps its documents in memory.
MOST_PARKED = 400
AHEAD = 2  # times the batches of one step: those that are begun and not finished
_MOST_THREADS = 10_000  # the places limit them, long before


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task run is in its flow: its number of earlier steps, and its batch's number."""

    step: int
    batch: int


@dataclass(frozen=True, slots=True)
class _Item:
    place: Place
    future: Future[Any]
    call: Callable[[], Any]


class ReadyQueue:
    """Runs calls in threads: those of later steps first, then those of the oldest batch.

    At most `width` of one step run at once, so that a slow step leaves threads to the others. A new
    batch begins while fewer than AHEAD times `width` batches are under way, and `may_begin` agrees.
    One begins in any case where nothing else is under way. A call that is parked, as it waits for a
    provider batch, leaves its place to others: up to MOST_PARKED at once. Thread-safe.
    """

    def __init__(
        self,
        width: int,
        may_begin: Callable[[int], bool],
        on_parked: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`may_begin` gets the number of batches under way, `on_parked` that of parked calls."""
        self._width = width
        self._may_begin = may_begin
        self._on_parked = on_parked
        self._parked: Counter[int] = Counter()  # calls, by batch
        self._threads = ThreadPoolExecutor(_MOST_THREADS)
        self._lock = threading.RLock()
        self._arrivals = itertools.count()
        # by step: the calls that may run, by batch and arrival
        self._ready: dict[int, list[tuple[int, int, _Item]]] = {}
        self._running: Counter[int] = Counter()  # by step
        self._batches: Counter[int] = Counter()  # running, by batch
        self._unfinished: set[Future[Any]] = set()
        self._closed = False

    def submit(
        self, place: Place, inputs: Iterable[Future[Any]], call: Callable[[], Any]
    ) -> Future[Any]:
        """Run a call once its inputs are done; return its future."""
        item = _Item(place, Future(), call)
        missing = list(inputs)
        left = len(missing)
        with self._lock:
            self._unfinished.add(item.future)
        item.future.add_done_callback(self._forget)

        def one_less(_: Future[Any]) -> None:
            nonlocal left
            with self._lock:
                left -= 1
                is_ready = left == 0
            if is_ready:
                self._add(item)

        for future in missing:
            future.add_done_callback(one_less)
        if not missing:
            self._add(item)
        return item.future

    def shutdown(self) -> None:
        """Cancel what has not begun, and wait for the rest."""
        with self._lock:
            self._closed = True
            unfinished = list(self._unfinished)
        for future in unfinished:
            future.cancel()  # does nothing to one that runs
        self._threads.shutdown()

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._unfinished.discard(future)

    def _add(self, item: _Item) -> None:
        with self._lock:
            if not self._closed:
                queue = self._ready.setdefault(item.place.step, [])
                entry = (item.place.batch, next(self._arrivals), item)
                heapq.heappush(queue, entry)
                self._start()
                return
        # Without the lock, as this calls who waits for the future.
        item.future.cancel()

    def _start(self) -> None:
        """Start what may run. Holds the lock."""
        while not self._closed:
            item = self._next()
            if item is None:
                return
            self._running[item.place.step] += 1
            self._batches[item.place.batch] += 1
            self._threads.submit(self._run, item)

    def _next(self) -> _Item | None:
        """Take the next call that may run."""
        for step in sorted(self._ready, reverse=True):
            queue = self._ready[step]
            while queue and queue[0][2].future.cancelled():
                heapq.heappop(queue)
            if not queue or self._running[step] >= self._width:
                continue
            is_begun = self._batches[queue[0][0]] > 0  # by another branch
            if step == 0 and not is_begun and not self._has_room():
                continue
            return heapq.heappop(queue)[2]
        return None

    def _has_room(self) -> bool:
        """Return True if a new batch may begin."""
        batches = {batch for batch, number in self._batches.items() if number}
        # A batch whose next step waits for a thread is under way, too. One that waits for other
        # batches is not: those may have to begin first.
        for step, queue in self._ready.items():
            if step:
                batches.update(batch for batch, _, _ in queue)
        if not batches:
            return True
        if len(batches) >= AHEAD * self._width:
            return False
        # Those that are parked need money for their later steps, too.
        return self._may_begin(len(batches | self._parked.keys()))

    def parking(self, place: Place) -> Callable[[bool], None]:
        """Return the function that parks the call at a place, or takes it back."""
        is_parked = False

        def park(wanted: bool) -> None:
            nonlocal is_parked
            with self._lock:
                if wanted and self._parked.total() < MOST_PARKED:
                    is_parked = True
                    self._move(place, self._parked, 1)
                elif not wanted and is_parked:
                    is_parked = False
                    self._move(place, self._parked, -1)
                parked = self._parked.total()
                self._start()
            self._on_parked(parked)

        return park

    def _move(self, place: Place, parked: Counter[int], number: int) -> None:
        """Count a call as parked in place of running, or (-1) the other way round."""
        parked[place.batch] += number
        if not parked[place.batch]:
            del parked[place.batch]
        self._running[place.step] -= number
        self._batches[place.batch] -= number

    def look_again(self) -> None:
        """Start what may run by now, as `may_begin` depends on more than this queue."""
        with self._lock:
            self._start()

    def _run(self, item: _Item) -> None:
        try:
            if not item.future.set_running_or_notify_cancel():
                return
            try:
                result = item.call()
            except BaseException as error:  # noqa: BLE001 - it belongs to who waits for it
                item.future.set_exception(error)
            else:
                item.future.set_result(result)
        finally:
            with self._lock:
                self._running[item.place.step] -= 1
                self._batches[item.place.batch] -= 1
                if not self._batches[item.place.batch]:
                    del self._batches[item.place.batch]
                self._start()
