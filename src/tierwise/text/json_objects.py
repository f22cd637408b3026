"""JSON objects inside a text: their positions, and keys that one of them repeats."""

from __future__ import annotations

import json
import re
from typing import Any

# Not strict: models write line ends inside of strings.
_DECODER = json.JSONDecoder(strict=False)
# A text, or anything else that is no bracket, comma, colon or white space. Texts come first, so that
# nothing in them is taken for a leaf of its own.
_LEAF = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s{}\[\],:"]+', re.DOTALL)
_SPACE = (" ", "\t", "\n", "\r")


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


def value_spans(text: str, start: int) -> list[tuple[str, slice]]:
    """Return key and position of each value of the JSON object that begins at `start`, in order.

    An object that is not complete has none.
    """
    spans: list[tuple[str, slice]] = []
    position = _after_space(text, start + 1)
    try:
        while text[position] != "}":
            if text[position] == ",":
                position = _after_space(text, position + 1)
            key, position = _DECODER.raw_decode(text, position)
            position = _after_space(text, position)
            begin = _after_space(text, position + 1)  # after the colon
            _, position = _DECODER.raw_decode(text, begin)
            spans.append((key, slice(begin, position)))
            position = _after_space(text, position)
    except (ValueError, IndexError, RecursionError):
        return []
    return spans


def leaf_spans(text: str, value: slice) -> list[slice]:
    """Return the positions of the texts, numbers, truth values and nulls in a JSON value.

    Keys, brackets and white space are none of them. An empty object or list is its own leaf.
    """
    leaves: list[slice] = []
    for found in _LEAF.finditer(text, value.start, value.stop):
        after = _after_space(text, found.end())
        is_key = text[after : after + 1] == ":" and after < value.stop
        if not is_key:
            leaves.append(slice(found.start(), found.end()))
    return leaves or [value]


def _after_space(text: str, position: int) -> int:
    """Return the next position that is no white space of JSON."""
    while text[position : position + 1] in _SPACE:
        position += 1
    return position


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
