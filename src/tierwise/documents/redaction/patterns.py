"""What personal data looks like: kinds that are taken out, and traces that only raise doubt. The door to phonenumbers.

Patterns are generous: what is taken out by mistake costs a little sense, what is missed costs a secret. Each is
bounded, so that no text makes one slow. They see a text as `plain` spells it.
"""

from __future__ import annotations

import ipaddress
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple


class Span(NamedTuple):
    """Where something of a kind stands in a text."""

    start: int
    end: int
    kind: str


_SCHEME = r"\b(?:[a-z][a-z0-9+.-]{1,15}://|www\.)"
_MAIL = r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
# anna (at) kontor [dot] example
_AT = r" ?[\[({] ?(?:at|@) ?[\])}] ?"
_DOT = r"(?:\.| ?[\[({] ?(?:dot|\.) ?[\])}] ?)"
_SPELT_MAIL = rf"\b[\w.+-]{{1,64}}{_AT}[\w-]{{1,63}}(?:{_DOT}[\w-]{{1,63}})+"
_IDS = (
    r"\b(?=(?:[A-Z]{0,20}\d){5})(?=\d{0,40}[A-Z])[A-Z0-9]{8,40}\b",  # 1Z999AA10123456784, RSSMRA85T10A562S
    r"\b[A-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]\b",  # a British National Insurance number
)
_NUMBERS = (
    r"\d{9,}",
    r"\d{3,}(?:([ -])\d{3,})(?:\1\d{3,})*",  # 943 476 5919
    r"\d+(?:-\d+){2,}",  # 536-90-4399
)
_PATTERNS: dict[str, tuple[re.Pattern[str], ...]] = {
    "URL": (re.compile(_SCHEME + r"[^\s<>\"']*[^\s<>\"'.,;:!?)\]]", re.IGNORECASE),),
    "EMAIL": (re.compile(_MAIL), re.compile(_SPELT_MAIL, re.IGNORECASE)),
    "HANDLE": (re.compile(r"(?<![\w@])@\w{2,64}"),),
    "IBAN": (re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b"),),
    "ID": tuple(re.compile(pattern) for pattern in _IDS),
}
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:])"
)
_NUMBER = re.compile(rf"(?<!\d)(?:{'|'.join(_NUMBERS)})(?!\d)")
_FEWEST_DIGITS = 9  # of a number that is taken out whatever it is

_DATE = re.compile(r"(?<!\d)(?:\d{4}-\d{1,2}-\d{1,2}|\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2}))(?!\d)")
_DECIMALS = re.compile(r"(?<=\d)\.\d{1,2}(?![\d.])")
_DOUBTS = {
    "an @ between words": re.compile(r"\w@\w|\bat\b.{1,40}\bdot\b", re.IGNORECASE),
    "a number of seven digits or more": re.compile(r"\d(?:[ ./()-]{0,2}\d){6,}"),
}


def found(text: str, regions: Iterable[str]) -> Iterator[Span]:
    """Everything in a plain text that is taken out, with national phone numbers of `regions`; spans may overlap."""
    for kind, patterns in _PATTERNS.items():
        for pattern in patterns:
            yield from spans(kind, pattern, text)
    yield from spans("CARD", _CARD, text, _adds_up)
    yield from spans("IP", _IP, text, _is_address)
    yield from _phones(text, regions)
    yield from spans(
        "NUMBER", _NUMBER, text, lambda number: sum(map(str.isdigit, number)) >= _FEWEST_DIGITS
    )


def spans(
    kind: str, pattern: re.Pattern[str], text: str, holds: Callable[[str], bool] = lambda _: True
) -> Iterator[Span]:
    """Where a pattern matches and its test holds."""
    return (
        Span(*match.span(), kind)
        for match in pattern.finditer(text)
        if match[0] and holds(match[0])
    )


def doubts(text: str) -> Iterator[Span]:
    """What in a plain text may be personal data; dates and amounts are none."""
    bare = _DATE.sub(_blank, _DECIMALS.sub(_blank, text))
    for name, pattern in _DOUBTS.items():
        yield from spans(name, pattern, bare)


def _blank(match: re.Match[str]) -> str:
    return "," * len(match[0])


def plain(text: str) -> tuple[str, Sequence[int]]:
    """A text without accents and invisible characters, with one kind of spaces, hyphens and digits; and its places.

    The second value says where each character stood, and has one place more, for the end.
    """
    if text.isascii():
        return text, range(len(text) + 1)
    spelt = [(place, char) for place, original in enumerate(text) for char in _plain(original)]
    return "".join(char for _, char in spelt), [*(place for place, _ in spelt), len(text)]


@lru_cache(maxsize=4096)
def _plain(char: str) -> str:
    category = unicodedata.category(char)
    if char.isascii() or category in ("Cf", "Mn"):
        return char if char.isascii() else ""
    if category == "Nd":
        return str(unicodedata.digit(char))
    if category in ("Zs", "Pd"):
        return " " if category == "Zs" else "-"
    return "".join(
        part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part)
    )


def _phones(text: str, regions: Iterable[str]) -> Iterator[Span]:
    from phonenumbers import PhoneNumberMatcher

    for region in regions:
        for match in PhoneNumberMatcher(text, region, max_tries=sys.maxsize):
            if not _DATE.fullmatch(match.raw_string):
                yield Span(match.start, match.end, "PHONE")


def _adds_up(number: str) -> bool:
    """Luhn's checksum, which every payment card has."""
    digits = [int(char) for char in reversed(number) if char.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
