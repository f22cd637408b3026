"""Values that take long to load: loaded once, whichever threads need them first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import TypeVar

T = TypeVar("T")


def once(load: Callable[[], T]) -> Callable[[], T]:
    """Return a function that loads a value at its first call.

    Threads that call it meanwhile wait for that value. `functools.cache` would load one for each.
    """
    lock = threading.Lock()
    cached = cache(load)

    def get() -> T:
        with lock:
            return cached()

    return get
