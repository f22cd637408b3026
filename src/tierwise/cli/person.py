"""The person at the keyboard, whose name goes on record with a decision."""

from __future__ import annotations

import getpass

from tierwise.errors import Misuse


def user_name() -> str:
    """Return the user's name on this machine. Raises Misuse where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise Misuse(
            "your user name is unknown here; say who decides with --by"
        ) from None
