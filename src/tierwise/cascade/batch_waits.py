"""Calls of a task run that are in a provider batch: while there are some, other batches may begin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _ignore(is_parked: bool) -> None:
    """Do nothing: no task run has to know."""


# Called as a task run begins to wait for provider batches (True), and once it does not any more.
# Set by the task runner around each task run.
ON_PARKED: ContextVar[Callable[[bool], None]] = ContextVar("on_parked", default=_ignore)


class BatchWaits:
    """The number of calls of one task run that are in provider batches.

    Counted on the event loop; the task run's thread is asleep meanwhile.
    """

    def __init__(self, on_parked: Callable[[bool], None] = _ignore) -> None:
        self._on_parked = on_parked
        self._calls = 0
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a call as being in a batch while the context is open."""
        with self._lock:
            self._calls += 1
            if self._calls == 1:
                self._on_parked(True)
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if self._calls == 0:
                    self._on_parked(False)
