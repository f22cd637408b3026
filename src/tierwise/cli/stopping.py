"""Ctrl-C and signals that end a process, while a command makes calls."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

STOPPED = "stopped; everything that was paid is on record, run it again to continue"
EXIT_CODE = 130  # of a process that Ctrl-C ended
_STOPPING = (
    b"\nstopping: no further call is made, and calls under way may end; "
    b"once more to end at once\n"
)
# A closed terminal sends SIGHUP; services, containers and `kill` send SIGTERM.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
]


@contextmanager
def stoppable() -> Iterator[None]:
    """Stop what runs inside at a first signal, with exit code 130; end the process at a second one.

    The first signal is a KeyboardInterrupt in the main thread. What the process started ends with
    it: Prefect's temporary server and servers of embedded models look at their parent. Used as a
    decorator, it does so for each call of a function.
    """
    signals_so_far = 0

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal signals_so_far
        signals_so_far += 1
        if signals_so_far > 1:
            # At once, without cleaning up: a person asked twice.
            os._exit(EXIT_CODE)
        # A signal may arrive in the middle of a print, where typer.echo could fail; this cannot.
        os.write(2, _STOPPING)
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(STOPPED, err=True)
        raise typer.Exit(EXIT_CODE) from None
    finally:
        # Outside of a flow, Ctrl-C ends the command as usual.
        for number, handler in handlers.items():
            signal.signal(number, handler)
