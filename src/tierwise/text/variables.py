"""Environment variables that switch something on or off, read in one way."""

from __future__ import annotations

from collections.abc import Mapping

from tierwise.errors import Misuse

_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off")


def is_on(env: Mapping[str, str], name: str) -> bool:
    """Return True if a variable is switched on; an unset or empty one is off.

    Raises Misuse, with the allowed values, for any other value.
    """
    value = env.get(name, "").strip()
    if value.lower() in _ON:
        return True
    if not value or value.lower() in _OFF:
        return False
    allowed = f"{', '.join(_ON)} to switch it on, {', '.join(_OFF)} to switch it off"
    raise Misuse(f"{name} is '{value}'; write {allowed}")
