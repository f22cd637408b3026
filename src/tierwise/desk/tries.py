"""Wrong passwords, counted."""

from __future__ import annotations

import threading
import time

_TRIES = 5  # wrong passwords for a name, then it waits
WAIT_S = 60.0


class Tries:
    """Wrong passwords by name, so that nobody tries out thousands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong: dict[str, list[float]] = {}
        # A check takes 32 MiB and a core for a moment.
        self.one_at_a_time = threading.Semaphore(2)

    def are_too_many(self, name: str) -> bool:
        """Return True if a name has to wait."""
        since = time.monotonic() - WAIT_S
        with self._lock:
            recent = [at for at in self._wrong.get(name, []) if at > since]
            return len(recent) >= _TRIES

    def note(self, name: str) -> None:
        """Note a wrong password."""
        since = time.monotonic() - WAIT_S
        with self._lock:
            # Names that a stranger makes up must not pile up.
            for known in list(self._wrong):
                recent = [at for at in self._wrong[known] if at > since]
                if recent:
                    self._wrong[known] = recent
                else:
                    del self._wrong[known]
            self._wrong.setdefault(name, []).append(time.monotonic())
