"""The body of a provider's error, in any of the forms in which providers write it.

An object, an array (Gemini), JSON inside a string, plain text, HTML, `{"detail": …}`,
`{"message": …}`, or an error inside a 200. It is read, not judged: `provider_errors` decides.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tierwise.gateway.retry_hints import (
    hint_in_words,
    hint_of_field,
    longest_sensible,
    retry_hint,
)

_DEEPEST = 8  # levels; a body may nest without end
_MOST_ITEMS = 20  # of a list
_LONGEST_WORDS = 2000  # characters
# What holds the error, in the order in which it is looked for.
_INNER = ("error", "errors", "Error", "detail", "details", "fault", "exception")
_WORDS = ("message", "msg", "Message", "error_msg", "errorMessage", "error_description")
_MORE_WORDS = ("status_msg", "detail", "reason", "title", "description")
_NAMES = ("code", "type", "status", "reason", "error_code", "errorCode", "Code", "name")
_MORE_NAMES = ("status_code", "quotaId", "quota_id", "param", "error")
# Further places of an error's parts, below the object with the words.
_PARTS = ("metadata", "details", "violations", "raw", "innererror", "cause", "headers")
_TAGS = re.compile(r"(?s)<(script|style|head)\b.*?</\1>|<!--.*?-->|<[^>]*>")
_TITLE = re.compile(r"(?is)<title[^>]*>(.*?)</title>")
_MARKUP = re.compile(r"(?is)\A\s*<(!doctype|html|head|body|\?xml)")


@dataclass(frozen=True, slots=True)
class ProviderWords:
    """What a provider says about an error: nothing of it is checked or fit to be shown yet.

    `names` has all its codes, types and states, in their spelling. `hints` are the waits that it
    asks for, in seconds.
    """

    words: str = field(default="", repr=False)
    code: str = ""
    type: str = ""
    names: tuple[str, ...] = ()
    hints: tuple[float, ...] = ()

    @property
    def retry_after(self) -> float | None:
        """The seconds to wait, by the body alone."""
        hint = longest_sensible(self.hints)
        return None if hint is None else hint.seconds

    @property
    def status(self) -> int | None:
        """The HTTP status among its codes, such as that of an error inside a 200."""
        for name in (self.code, *self.names):
            if len(name) == 3 and name.isdecimal() and "300" <= name <= "599":
                return int(name)
        return None


NO_WORDS = ProviderWords()


def error_in_body(body: object) -> ProviderWords | None:
    """Return the error that a reply carries, for a reply with status 200; None if it has none.

    `body` is the content (bytes or text), or its parsed JSON.
    """
    parsed = _parsed(body)
    if isinstance(parsed, list):
        parsed = next((item for item in parsed if isinstance(item, Mapping)), None)
    if not isinstance(parsed, Mapping):
        return None
    error = _carried_error(parsed)
    return None if error is None else words_of_error(error)


def words_of_error(body: object) -> ProviderWords:
    """Return what the body of an error says, for any other status; empty when it says nothing."""
    parsed = _parsed(body)
    if isinstance(parsed, Mapping):
        parsed = _carried_error(parsed) or parsed
    reader = _Reader()
    reader.read(parsed, 0)
    return reader.result()


def _carried_error(body: Mapping[str, Any]) -> object | None:
    """Return the part of a reply that is an error, if any."""
    for name in ("error", "errors", "Error"):
        if body.get(name):
            return body
    for choice in _items(body.get("choices")):
        if isinstance(choice, Mapping) and choice.get("error"):
            return {"error": choice["error"]}
    response = body.get("Response")
    if isinstance(response, Mapping) and response.get("Error"):
        return response
    base = body.get("base_resp")
    if isinstance(base, Mapping) and base.get("status_code"):
        return base
    if any(name in body for name in ("choices", "candidates", "content", "usage")):
        return None
    is_named = body.get("object") == "error" or body.get("type") == "error"
    if is_named or body.get("success") is False:
        return body
    for name in ("message", "detail", "msg", "error_msg"):
        words = body.get(name)
        if isinstance(words, str | list) and words:
            return body
    return None


class _Reader:
    """Collects the words, names and hints of a body."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._code = ""
        self._type = ""
        self._names: dict[str, None] = {}
        self._hints: list[float] = []

    def result(self) -> ProviderWords:
        """Return all that was read."""
        words = ": ".join(dict.fromkeys(self._words))[:_LONGEST_WORDS]
        hint = hint_in_words(words)
        hints = [*self._hints]
        if hint is not None:
            hints.append(hint)
        return ProviderWords(
            words, self._code, self._type, tuple(self._names), tuple(hints)
        )

    def read(self, body: object, depth: int) -> None:
        """Read a body or a part of it."""
        if depth > _DEEPEST:
            return
        if isinstance(body, str):
            self._read_text(body, depth)
        elif isinstance(body, list):
            for item in body[:_MOST_ITEMS]:
                self.read(item, depth + 1)
        elif isinstance(body, Mapping):
            self._read_object(body, depth)

    def _read_text(self, text: str, depth: int) -> None:
        nested = _parsed(text)
        if nested != text.strip():  # JSON inside a string
            self.read(nested, depth + 1)
            return
        words = " ".join(_without_markup(text).split())
        if words:
            self._words.append(words)

    def _read_object(self, body: Mapping[str, Any], depth: int) -> None:
        inner = next((body[name] for name in _INNER if _holds_error(body, name)), None)
        if inner is not None:
            self.read(inner, depth + 1)
        for name in (*_WORDS, *_MORE_WORDS):
            text = body.get(name)
            if isinstance(text, str) and text and not _is_name(name, text):
                self._read_text(text, depth)
                break
        self._read_names(body)
        for name, value in body.items():
            hint = hint_of_field(str(name), value)
            if hint is not None:
                self._hints.append(hint)
        for name in _PARTS:
            self._read_part(name, body.get(name), depth)

    def _read_part(self, name: str, part: object, depth: int) -> None:
        if name == "headers" and isinstance(part, Mapping):
            headers = {str(key): str(value) for key, value in part.items()}
            hint = retry_hint(headers)
            if hint is not None:
                self._hints.append(hint.seconds if hint.asked is None else hint.asked)
        elif isinstance(part, Mapping | list) or name == "raw":
            self.read(part, depth + 1)

    def _read_names(self, body: Mapping[str, Any]) -> None:
        for name in (*_NAMES, *_MORE_NAMES):
            value = body.get(name)
            if isinstance(value, bool) or not isinstance(value, str | int):
                continue
            text = str(value)
            if not text or len(text) > 100 or " " in text:
                continue  # words, not a name
            self._names.setdefault(text)
            if name in ("code", "error_code", "errorCode", "Code", "status_code"):
                self._code = self._code or text
            elif name == "type":
                self._type = self._type or text


def _holds_error(body: Mapping[str, Any], name: str) -> bool:
    """Return True if a field holds the error, rather than a word about it."""
    value = body.get(name)
    if name in ("detail", "details") and not isinstance(value, Mapping | list | str):
        return False
    if name == "details" and any(isinstance(body.get(key), str) for key in _WORDS):
        return False  # details of the error in this very object
    if name == "error" and isinstance(value, str) and body.get("message"):
        return False  # a type beside the words: {"error": "Forbidden", "message": …}
    return bool(value)


def _is_name(name: str, text: str) -> bool:
    """Return True if `reason` is a code such as RATE_LIMIT_EXCEEDED, not a sentence."""
    return name == "reason" and " " not in text


def _without_markup(text: str) -> str:
    """Return a text; of a page, its title, else its words."""
    if not _MARKUP.match(text):
        return text
    title = _TITLE.search(text)
    words = title[1] if title and title[1].strip() else _TAGS.sub(" ", text)
    return html.unescape(words)


def _parsed(body: object) -> object:
    """Return the JSON in bytes or a text; the text itself when it is no object or array."""
    if isinstance(body, bytes | bytearray):
        body = bytes(body).decode("utf-8-sig", errors="replace")
    if not isinstance(body, str):
        return body
    text = body.lstrip("\ufeff").strip()
    if not text.startswith(("{", "[", '"')):
        return text
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return _first_json(text)
    return parsed if isinstance(parsed, dict | list | str) else text


def _first_json(text: str) -> object:
    """Return the first JSON value of a text with more after it, else the text."""
    try:
        parsed, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return text
    return parsed if isinstance(parsed, dict | list) else text


def _items(value: object) -> list[object]:
    return value[:_MOST_ITEMS] if isinstance(value, list) else []
