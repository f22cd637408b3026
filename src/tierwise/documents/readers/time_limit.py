"""The time that a conversion may take; each page that text recognition reads has it anew."""

from __future__ import annotations

import signal

_seconds = 0  # 0: no limit, as in a process that is no sandbox


def start(seconds: int) -> None:
    """End this process in N seconds, even inside C code."""
    global _seconds  # noqa: PLW0603 - one process converts one file at a time
    _seconds = seconds
    signal.alarm(seconds)


def start_page() -> None:
    """Give the next page the time of a file, where there is a limit."""
    if _seconds:
        signal.alarm(_seconds)


def stop() -> None:
    """Lift the limit."""
    global _seconds  # noqa: PLW0603
    _seconds = 0
    signal.alarm(0)
