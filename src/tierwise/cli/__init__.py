"""The command line."""

import sys

_STOPPED = 130  # `stopping.EXIT_CODE`, whose module is not loaded yet


def main() -> None:
    """Run the command line; a Ctrl-C while Python still loads it ends quietly."""
    try:
        from tierwise.cli import program

        program.main()
    except KeyboardInterrupt:
        # Nothing has begun, so nothing has to be said about what is paid.
        sys.exit(_STOPPED)


__all__ = ["main"]
