"""Text that is safe to show: nothing in it controls a terminal, a log or a spreadsheet."""

from __future__ import annotations

import re

# Control characters except line feeds and tabs, marks that turn the direction of writing, other
# line ends, and lone surrogates.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COLOURS = re.compile(r"(\x1b\[[0-9;]*m)")
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[\d.,]+(?:[eE][+-]?\d+)? ?%?")


def escape_control(text: str) -> str:
    """Return a text with its control characters spelt out, as in JSON: so JSON stays JSON."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escape_control_keep_colours(text: str) -> str:
    """Return a text as `escape_control` does, but keep the colours that libraries write."""
    # split() puts what the group matched, the colours, at the odd places
    parts = _COLOURS.split(text)
    parts[::2] = map(escape_control, parts[::2])
    return "".join(parts)


def escape_formula(value: object) -> object:
    """Return a value for a CSV file, with an apostrophe before a text that looks like a formula."""
    if not isinstance(value, str):
        return value
    if not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"
