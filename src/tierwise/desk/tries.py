"""Wrong passwords, counted, so that nobody tries out thousands."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_TRIES_OF_NAME = 5  # within WAIT_S, then the name waits
_TRIES_OF_ADDRESS = 60  # with any names, then the address waits
_AT_ONCE = 2  # a check takes 32 MiB and a core for a moment
_WAITS_FOR_TURN_S = 3.0
WAIT_S = 60.0


class Tries:
    """Passwords that were tried lately, by name and by the sender's address.

    A try counts before its password is checked: many at once are no way around the limit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tried: dict[tuple[str, str], list[float]] = {}
        self._turns = threading.Semaphore(_AT_ONCE)

    def begin(self, name: str, address: str) -> bool:
        """Count a try; return False if the name or the address has to wait."""
        now = time.monotonic()
        keys = {("name", name): _TRIES_OF_NAME}
        keys["address", address] = _TRIES_OF_ADDRESS
        with self._lock:
            self._forget_old(now)
            for key, most in keys.items():
                if len(self._tried.get(key, ())) >= most:
                    return False
            for key in keys:
                self._tried.setdefault(key, []).append(now)
        return True

    def succeed(self, name: str) -> None:
        """Forget the wrong passwords of a person who gave the right one."""
        with self._lock:
            self._tried.pop(("name", name), None)

    def give_back(self, name: str, address: str) -> None:
        """Take a try back whose password was not checked."""
        with self._lock:
            for key in (("name", name), ("address", address)):
                if self._tried.get(key):
                    self._tried[key].pop()

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait a moment for a turn to check a password; True if it came.

        Who floods the desk with passwords must not keep all of its threads.
        """
        has_turn = self._turns.acquire(timeout=_WAITS_FOR_TURN_S)
        try:
            yield has_turn
        finally:
            if has_turn:
                self._turns.release()

    def _forget_old(self, now: float) -> None:
        """Drop what is too old to count: names that a stranger makes up must not pile up."""
        for key in list(self._tried):
            recent = [at for at in self._tried[key] if at > now - WAIT_S]
            if recent:
                self._tried[key] = recent
            else:
                del self._tried[key]
