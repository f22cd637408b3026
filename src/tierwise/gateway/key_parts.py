"""Parts of a key that a server quotes back: its ends, a masked or split form, another encoding.

A few characters of a key are no secret by themselves, but many messages show many. An ordinary word
that happens to be in a key stays, unless it is shown as a part of one.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MASK = "***"
_SHORTEST_KEY = 12  # characters; fewer do not tell a key from a word
_LONGEST_TEXT = 4000  # characters of a message that are looked at
_IN_A_ROW = 12  # letters and digits of a key, whatever is between them
_PIECE = 8  # characters of a key, with nothing between them
_END = 4  # characters of its beginning or its end
_WORD = r"[A-Za-z0-9_\-]"
# In the place of the characters that are left out.
_HIDDEN = re.compile(
    rf"({_WORD}*)(\*{{2,}}|\.{{2,}}|…+|•{{2,}}|·{{2,}}|[xX]{{4,}}|#{{2,}}|\[[.…*]+\])"
    rf"({_WORD}*)"
)
_TOKEN = re.compile(rf"{_WORD}+")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{8,}={0,2}")
# Such as "ending in", "the last four characters:".
_NAMES_END = re.compile(
    r"(?i)\b(?:end(?:s|ing)?|start(?:s|ing)?|begin(?:s|ning)?|suffix|prefix|first|last)\b"
    r"[^.;]{0,40}$"
)
_WORDS = re.compile(
    r"[-_]*(?:[A-Za-z]?[a-z]*|[A-Z]+)(?:[-_]+(?:[A-Za-z]?[a-z]*|[A-Z]+))*"
)
Span = tuple[int, int]


def mask_key_parts(text: str, secrets: Iterable[str]) -> str:
    """Return a text with asterisks in the place of secrets, and of parts of those that are keys.

    A text that is far longer than a message is cut.
    """
    text = text[:_LONGEST_TEXT]
    keys: set[str] = set()
    for secret in secrets:
        for form in sorted(_forms(secret), key=len, reverse=True):
            text = re.sub(re.escape(form), MASK, text, flags=re.IGNORECASE)
        # A header such as "Bearer KEY" has words, too.
        keys.update(word for word in secret.split() if _is_key(word))
    if not keys:
        return text
    spans: list[Span] = []
    for key in keys:
        spans += _runs(text, key)
        spans += _pieces(text, key)
        spans += _hidden(text, key)
        spans += _ends(text, key)
        spans += _encoded(text, key)
    return _without(text, spans)


def _is_key(word: str) -> bool:
    """Return True for a value that is no name, word or address: its parts mean nothing else."""
    has_digit = any(character.isdigit() for character in word)
    has_letter = any(character.isalpha() for character in word)
    is_long = len(word) >= _SHORTEST_KEY
    return is_long and has_digit and has_letter and "://" not in word


def _forms(secret: str) -> set[str]:
    """Return a secret as it may be written in an address, in JSON and in HTML."""
    in_json = json.dumps(secret)[1:-1]
    return {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        in_json,
        in_json.replace("/", "\\/"),
        html.escape(secret),
    }


def _runs(text: str, key: str) -> Iterator[Span]:
    """Yield where many letters and digits of a key follow each other, split or not."""
    places = [place for place, character in enumerate(text) if character.isalnum()]
    plain = "".join(text[place].lower() for place in places)
    wanted = "".join(character.lower() for character in key if character.isalnum())
    for start, end in _common(plain, wanted, _IN_A_ROW):
        yield places[start], places[end - 1] + 1


def _pieces(text: str, key: str) -> Iterator[Span]:
    for start, end in _common(text, key, _PIECE):
        if not _is_wordlike(text[start:end]):
            yield start, end


def _common(text: str, key: str, shortest: int) -> Iterator[Span]:
    """Yield the parts of a text that are in a key, the longest at each place."""
    start = 0
    while start + shortest <= len(text):
        end = start + shortest
        if text[start:end] not in key:
            start += 1
            continue
        while end < len(text) and text[start : end + 1] in key:
            end += 1
        yield start, end
        start = end


def _hidden(text: str, key: str) -> Iterator[Span]:
    """Yield the masked forms of a key, such as `sk-ab…wxyz`."""
    for match in _HIDDEN.finditer(text):
        before = match[1]
        after = match[3]
        is_beginning = len(before) > 2 and key.startswith(before)
        is_end = len(after) > 2 and key.endswith(after)
        if is_beginning or is_end:
            yield match.span()


def _ends(text: str, key: str) -> Iterator[Span]:
    """Yield the beginning or the end of a key as a word of its own."""
    for match in _TOKEN.finditer(text):
        word = match[0].strip("-_") if match[0] not in key else match[0]
        if len(word) < _END or not (key.startswith(word) or key.endswith(word)):
            continue
        is_unusual = not (_is_wordlike(word) or word.isdigit())
        if is_unusual or _NAMES_END.search(text[: match.start()]):
            yield match.span()


def _encoded(text: str, key: str) -> Iterator[Span]:
    """Yield what is a key, or the better part of one, in base64."""
    for match in _BASE64.finditer(text):
        token = match[0].rstrip("=").replace("-", "+").replace("_", "/")
        # A text that was cut ends within a group of four.
        whole = token[: len(token) // 4 * 4]
        rest = token[len(whole) :]
        padded = token + "=" * (-len(token) % 4) if len(rest) > 1 else whole
        try:
            decoded = base64.b64decode(padded, validate=True).decode("latin-1")
        except binascii.Error:
            continue
        if any(True for _ in _common(decoded, key, _PIECE)):
            yield match.span()


def _is_wordlike(part: str) -> bool:
    """Return True for words, with hyphens or without: no digit, and no capital within a word."""
    return _WORDS.fullmatch(part) is not None


def _without(text: str, spans: list[Span]) -> str:
    """Return a text with asterisks in the place of these parts, which may overlap."""
    kept: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if end <= done:
            continue
        if start >= done:
            kept += [text[done:start], MASK]
        done = end
    return "".join([*kept, text[done:]])
