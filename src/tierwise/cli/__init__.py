"""The command line."""

import os
import signal
from types import FrameType

_EXIT_CODE = 130  # `stopping.EXIT_CODE`, whose module is not loaded yet


def main() -> None:
    """Run the command line."""
    usual = signal.getsignal(signal.SIGINT)
    # Only where Ctrl-C would raise KeyboardInterrupt: `nohup` and `&` have it ignored.
    is_usual = usual is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, _end)
    try:
        from tierwise.cli import program

        program.main()
    finally:
        if is_usual:
            signal.signal(signal.SIGINT, usual)


def _end(_number: int, _frame: FrameType | None) -> None:
    """End at once while the program and the command are loaded: nothing has begun.

    Python drops a KeyboardInterrupt in a weak reference's callback, and each import has one: the
    command would go on as if nobody had stopped it.
    """
    os._exit(_EXIT_CODE)


def loaded() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from here on."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


__all__ = ["main"]
