"""The command line."""

from __future__ import annotations

from tierwise.cli.app import main

__all__ = ["main"]
