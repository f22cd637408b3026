"""The time that a conversion may take; each page that text recognition reads has it again.

The limit is on processor time, so that a document is not deferred because the machine is busy. A
conversion that waits and computes nothing ends after `WALL_FACTOR` times as long by the clock.
"""

from __future__ import annotations

import signal

WALL_FACTOR = 10

_seconds = 0  # 0: no limit, as in a process that is no sandbox


def start(seconds: int) -> None:
    """End this process after N seconds of processor time, even inside C code."""
    global _seconds  # noqa: PLW0603 - one process converts one file at a time
    _seconds = seconds
    _set(seconds)


def start_page() -> None:
    """Give the next page the time of a file, where there is a limit."""
    if _seconds:
        _set(_seconds)


def stop() -> None:
    """Lift the limit."""
    global _seconds  # noqa: PLW0603
    _seconds = 0
    _set(0)


def _set(seconds: int) -> None:
    # This timer counts the processor time of all threads.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(seconds * WALL_FACTOR)
