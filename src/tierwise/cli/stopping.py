"""Ctrl-C and signals that end a process, while a command makes calls."""

from __future__ import annotations

import _thread
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

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


# Until the stop is asked for again, where Python has dropped it.
_AGAIN_S = 0.05


@contextmanager
def stoppable() -> Iterator[None]:
    """Stop what runs inside at a first signal, with exit code 130; end the process at a second one.

    The first signal is a KeyboardInterrupt in the main thread. What the process started ends with
    it: Prefect's temporary server and servers of embedded models look at their parent. Used as a
    decorator, it does so for each call of a function.
    """
    signals_so_far = 0
    is_asked_again = False
    is_over = False
    report_as_usual = sys.unraisablehook

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal signals_so_far, is_asked_again
        if is_asked_again:
            is_asked_again = False
            raise KeyboardInterrupt
        signals_so_far += 1
        if signals_so_far > 1:
            # At once, without cleaning up: a person asked twice.
            os._exit(EXIT_CODE)
        # What is printed on the way out would raise, and hide the stop.
        _mute_closed_terminal()
        # A signal may arrive in the middle of a print, where typer.echo could fail; this cannot.
        os.write(2, _STOPPING)
        raise KeyboardInterrupt

    def report_or_ask_again(unraisable: UnraisableHookArgs) -> None:
        """Ask again to stop where Python drops the exception of `stop`.

        It drops what is raised in a finalizer or a weak reference's callback; each import has one.
        """
        if signals_so_far and issubclass(unraisable.exc_type, KeyboardInterrupt):
            timer = threading.Timer(_AGAIN_S, ask_again)
            timer.daemon = True
            timer.start()
            return
        report_as_usual(unraisable)

    def ask_again() -> None:
        nonlocal is_asked_again
        if is_over:
            return
        is_asked_again = True
        _thread.interrupt_main(_SIGNALS[0])

    handlers = {number: signal.signal(number, stop) for number in _SIGNALS}
    sys.unraisablehook = report_or_ask_again
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(STOPPED, err=True)
        raise typer.Exit(EXIT_CODE) from None
    finally:
        is_over = True
        sys.unraisablehook = report_as_usual
        # Outside of a flow, Ctrl-C ends the command as usual.
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _mute_closed_terminal() -> None:
    """Let output to a terminal that was closed go nowhere; every write to it would fail."""
    try:
        import termios
    except ImportError:  # Windows has no such terminals
        return
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
