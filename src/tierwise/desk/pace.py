"""How fast runs were of late: from the looks of people at the desk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

_LOOKS = 30  # at a run's progress


class Pace:
    """Remembers how many documents a run had done, and when, for its throughput of late."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[str, deque[tuple[float, int]]] = {}

    def look(self, run_id: str, now: float, done: int) -> tuple[float, int] | None:
        """Note a look, and return the earliest one that is remembered; None for the first."""
        with self._lock:
            looks = self._looks.setdefault(run_id, deque(maxlen=_LOOKS))
            first = looks[0] if looks else None
            if not looks or now - looks[-1][0] >= 2:
                looks.append((now, done))
            return first

    def forget(self, running: Sequence[str]) -> None:
        """Forget the runs that ended."""
        with self._lock:
            for run_id in self._looks.keys() - set(running):
                del self._looks[run_id]
