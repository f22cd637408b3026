"""The command line."""

from tierwise.cli.program import main

__all__ = ["main"]
