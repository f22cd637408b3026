"""Text as a terminal, a log or a CSV file may hold it: nothing in it controls what shows it."""

from __future__ import annotations

import re

# Control characters but line ends and tabs, what turns the direction of writing, other line ends, half characters.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COLOURS = re.compile(r"(\x1b\[[0-9;]*m)")
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[\d.,]+(?:[eE][+-]?\d+)? ?%?")


def escape_control(text: str) -> str:
    """A text whose control characters are spelt out, by the same signs as in JSON, so that JSON stays JSON."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escape_control_keep_colours(text: str) -> str:
    """As `escape_control`, but colours stay: for what other libraries write onto a terminal."""
    return "".join(
        part if place % 2 else escape_control(part)
        for place, part in enumerate(_COLOURS.split(text))
    )


def escape_formula(value: object) -> object:
    """A value for a CSV file that no spreadsheet takes for a formula: such a text gets an apostrophe in front."""
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"
