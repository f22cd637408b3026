"""The lines of a file of results: each is an item's result, or nothing that can be used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from tierwise.gateway.connection_pool import Line

# An item's id is a call's hash, at the beginning of its line.
_ID = re.compile(rb'"(?:custom_id|key)"\s*:\s*"([0-9a-f]{64})"')
_LONGEST_ID = 200  # characters


def read_line(line: Line, id_name: str) -> tuple[str | None, dict[str, Any] | None]:
    """Return an item's id and its line as an object; None for what cannot be read.

    A line without a readable object may still have an id.
    """
    if line.is_whole:
        try:
            value = orjson.loads(line.content)
        except orjson.JSONDecodeError:
            value = None
        if isinstance(value, dict):
            return read_object(value, id_name), value
    match = _ID.search(line.content)
    return (match[1].decode() if match else None), None


def read_object(value: Mapping[str, Any], id_name: str) -> str | None:
    """Return the id in an item's result; None where there is no usable one."""
    own_id = value.get(id_name)
    if isinstance(own_id, str) and 0 < len(own_id) <= _LONGEST_ID:
        return own_id
    return None


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object, empty for anything else."""
    return value if isinstance(value, Mapping) else {}


def as_text(value: object) -> str:
    """Return a text, empty for anything else."""
    return value if isinstance(value, str) else ""


def as_count(value: object) -> int:
    """Return a count, 0 for anything else. Gemini writes its counts as texts."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return max(0, value)
