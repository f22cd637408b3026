"""The text of a provider's error, made fit for people: no key, no address's password, no prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tierwise.gateway.key_parts import mask_key_parts
from tierwise.records import Call

# Keys of whatever owner. A word such as "key-value" or "bearer authentication" is none.
_KEY = re.compile(
    r"\b(?:sk|pk|gsk|xai)[-_][A-Za-z0-9*_-]{12,}"
    r"|\b(?:sk|pk|key|pat|gsk|xai|AIza)[-_]?(?=[A-Za-z_-]*[0-9*])[A-Za-z0-9*_-]{12,}"
    r"|\b(?:sk|pk|gsk|xai)[-_][A-Za-z0-9_-]*(?:\*{2,}|\.{3}|…|•{2,})[A-Za-z0-9_-]*"
    r"|\b(?i:bearer)\s+(?!(?i:auth|tokens?\b|scheme|header|keys?\b|credential|realm))\S+"
    r"|\b(?i:basic)\s+(?=\S*[0-9=]|\S{24})\S{6,}"
)
# In two groups: without the password and without the parameters.
_ADDRESS = re.compile(r"(?i)(https?://)(?:[^/@\s]*@)?([^\s?#]*)[^\s]*")
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|[nrt\"\\/])")
# Such as `litellm.BadRequestError: OpenAIException - `.
_EXCEPTION_NAMES = re.compile(
    r"^(?:litellm\.)?(?:\w+(?:Error|Exception|Timeout)(?: \w+Error)?(?::| -) )+"
)
_LONGEST = 200  # characters
_QUOTATION = 12  # letters and digits in a row that are in the prompt too


def safe_detail(text: str, call: Call, secrets: Iterable[str]) -> str:
    """Return one short line without secrets and keys; empty when it quotes the prompt."""
    without_traceback = text.partition("\nTraceback")[0]
    line = " ".join(without_traceback.split())
    line = _EXCEPTION_NAMES.sub("", line)
    line = mask_key_parts(line, secrets)
    line = _ADDRESS.sub(r"\1\2", line)
    line = _KEY.sub("***", line)
    if len(line) > _LONGEST:
        line = line[: _LONGEST - 1] + "…"
    line = "".join(character if character.isprintable() else " " for character in line)
    return "" if quotes_prompt(line, call) else line


def quotes_prompt(line: str, call: Call) -> bool:
    """Return True if a line holds a piece of the prompt, in whatever case, spacing or escapes."""
    plain = _letters_and_digits(_ESCAPED.sub(_unescape, line))
    count = len(plain) - _QUOTATION + 1
    pieces = {plain[start : start + _QUOTATION] for start in range(count)}
    for message in call.messages:
        content = _letters_and_digits(message.content)
        if any(piece in content for piece in pieces):
            return True
    return False


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if not code:
        return " "
    return chr(int(code, 16))


def _letters_and_digits(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())
