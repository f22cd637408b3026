"""The command line."""

from __future__ import annotations

from tierwise.cli.commands import main

__all__ = ["main"]
