"""The JSON of a response, in the dialects and wrappings that servers send.

NaN and Infinity (Python), a byte order mark, half of a surrogate pair, numbers beyond 64 bits,
line ends inside of strings, another encoding than UTF-8, and a stream of events though none was
asked for. Every other body holds no JSON.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

_NO_WHITESPACE = re.compile(r"\S")
# Fields that a stream sends in pieces; of all others the last value counts.
_PIECES = frozenset(
    {
        "arguments",
        "content",
        "reasoning",
        "reasoning_content",
        "refusal",
        "response",
        "text",
        "thinking",
    }
)
# Lists whose items are pieces of one item, by their `index`.
_INDEXED = frozenset({"choices", "tool_calls"})
_MOST_ITEMS = 256  # of such a list
_EVENTS = ("data:", "event:", "id:", "retry:", ":")  # begin a stream of events
_MOST_VALUES = 100_000  # one after the other


def json_object(content: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the JSON object of a response; empty where there is none.

    Of a list, the first object counts. Pieces of a stream are put together.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        text = decoded(content, content_type).lstrip()
        if text.startswith(_EVENTS):
            return _whole(_events(text))
        return _joined(_objects_of(text))
    if isinstance(value, list):
        return _joined([item for item in value if isinstance(item, dict)])
    return value if isinstance(value, dict) else {}


def decoded(content: bytes, content_type: str | None) -> str:
    """Return the text of a response. Bytes that are UTF-8 count more than a declared encoding."""
    encoding: str = json.detect_encoding(content)
    if encoding.startswith("utf-8"):
        encoding = "utf-8"
        errors = "surrogatepass"
    else:
        errors = "replace"
    try:
        text = content.decode(encoding, errors)
    except UnicodeDecodeError:
        encoding = _declared(content_type) or _single_byte_or_utf8(content)
        text = content.decode(encoding, "replace")
    return text.removeprefix("\ufeff")


def _single_byte_or_utf8(content: bytes) -> str:
    """Return UTF-8 for bytes with damage in it; a Western encoding where no byte is UTF-8."""
    has_utf8 = not content.decode("utf-8", "ignore").isascii()
    return "utf-8" if has_utf8 else "cp1252"


def _declared(content_type: str | None) -> str | None:
    """Return the encoding that a content type declares; None without one that is possible."""
    match = re.search(
        r"charset\s*=\s*[\"']?([^\s\"';,]+)", content_type or "", re.IGNORECASE
    )
    if match is None:
        return None
    try:
        name = codecs.lookup(match[1]).name
        b"".decode(name)  # not one of Python's codecs that make no text
    except (LookupError, ValueError):
        return None
    if name.startswith("utf-8"):
        return None  # the bytes are not
    # As browsers do: who declares Latin-1 means Windows' superset of it.
    return "cp1252" if name in ("iso8859-1", "ascii") else name


def _objects_of(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a text: those of a list, or one after the other."""
    values = _values(text)
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    return [value for value in values if isinstance(value, dict)]


def _events(text: str) -> list[dict[str, Any]]:
    """Return the objects of a stream of server-sent events.

    None where one of them cannot be read: an answer with a hole is worse than no answer.
    """
    objects: list[dict[str, Any]] = []
    for event in re.split(r"\r?\n\r?\n", text):
        lines = [
            line.removeprefix("data:").removeprefix(" ")
            for line in event.splitlines()
            if line.startswith("data:")
        ]
        data = "\n".join(lines).strip()
        if not data or data == "[DONE]":
            continue
        values = _values(data)
        if not values or len(objects) >= _MOST_VALUES:
            return []
        objects.extend(value for value in values if isinstance(value, dict))
    return objects


def _values(text: str) -> list[Any]:
    """Return the JSON objects and lists that a text begins with, in any number of lines."""
    decoder = json.JSONDecoder(strict=False, parse_int=_number)
    values: list[Any] = []
    begin = _NO_WHITESPACE.search(text)
    while begin is not None:
        try:
            value, end = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            break
        if not isinstance(value, dict | list) or len(values) == _MOST_VALUES:
            break
        values.append(value)
        begin = _NO_WHITESPACE.search(text, end)
    return values


def _number(digits: str) -> int | float:
    """Return a whole number; a float for one with more digits than Python reads."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _joined(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the pieces of a stream as one object; of several whole replies, the first."""
    if not objects:
        return {}
    if len(objects) == 1 or not any(map(_is_piece, objects)):
        return objects[0]
    return _whole(objects)


def _whole(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the pieces of a stream as one object."""
    whole: dict[str, Any] = {}
    for piece in objects:
        _add(whole, piece)
    return whole


def _is_piece(body: Mapping[str, Any]) -> bool:
    """Return True for a piece of a stream: it has a `delta`, or says that it is not done."""
    if body.get("done") is False:
        return True
    choices = body.get("choices")
    if not isinstance(choices, list):
        return False
    if not choices:
        return True  # such as Azure's first piece, about the prompt
    first = choices[0]
    return isinstance(first, dict) and "delta" in first


def _add(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Add a piece of a stream to what came before it."""
    for name, value in piece.items():
        before = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif name in _INDEXED and isinstance(value, list):
            items = before if isinstance(before, list) else []
            whole[name] = items
            _add_items(items, value)
        elif isinstance(before, dict) and isinstance(value, dict):
            _add(before, value)
        elif isinstance(value, dict):
            whole[name] = {}
            _add(whole[name], value)
        elif name in _PIECES and isinstance(before, str) and isinstance(value, str):
            whole[name] = before + value
        elif isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        else:
            whole[name] = value


def _add_items(items: list[Any], pieces: list[Any]) -> None:
    """Add each piece to the item with its index, or at its own place in the list."""
    for position, piece in enumerate(pieces[:_MOST_ITEMS]):
        if not isinstance(piece, dict):
            continue
        index = piece.get("index")
        if type(index) is not int or not 0 <= index < _MOST_ITEMS:
            index = position
        while len(items) <= index:
            items.append({})
        _add(items[index], piece)
