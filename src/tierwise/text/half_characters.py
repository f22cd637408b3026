"""Halves of characters: lone surrogates, as in an emoji that a server cut in two.

No database, file or JSON parser takes them, so a replacement character is put in their place.
"""

from __future__ import annotations

import re

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_HALF = re.compile("[\ud800-\udfff]")
# In a JSON text: an escaped backslash, a whole pair, or (in the group) half of one.
_ESCAPED = re.compile(
    r"\\\\"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def without_halves(text: str) -> str:
    """Return a text with its surrogate pairs joined, and lone surrogates replaced."""
    if _HALF.search(text) is None:
        return text
    encoded = text.encode("utf-16-le", "surrogatepass")
    return encoded.decode("utf-16-le", "replace")


def without_escaped_halves(json_text: str) -> str:
    """Return a JSON text in which no string has a lone surrogate, escaped or not."""

    def replacement(match: re.Match[str]) -> str:
        is_half = match[1] is not None
        return _REPLACEMENT if is_half else match[0]

    return _ESCAPED.sub(replacement, without_halves(json_text))
