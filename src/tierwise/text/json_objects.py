"""JSON objects inside a text: their positions, and keys that one of them repeats."""

from __future__ import annotations

import json
from typing import Any

# Not strict: models write line ends inside of strings.
_DECODER = json.JSONDecoder(strict=False)


def find_objects(text: str) -> list[slice]:
    """Return the positions of all complete JSON objects that are inside no other, in order."""
    found: list[slice] = []
    start = text.find("{")
    while start >= 0:
        try:
            _, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1  # not an object: continue after this brace
        else:
            found.append(slice(start, end))
        start = text.find("{", end)
    return found


def repeated_key(text: str) -> str | None:
    """Return a key that an object of a JSON text has twice with different values, if any.

    Parsers keep the last value without a word.
    """
    repeated: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values and values[key] != value:
                repeated.append(key)
            values[key] = value
        return values

    decoder = json.JSONDecoder(strict=False, object_pairs_hook=check)
    try:
        decoder.decode(text)
    except (ValueError, RecursionError):
        return None
    return repeated[0] if repeated else None
