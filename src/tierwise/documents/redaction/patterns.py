"""The forms of personal data: kinds that are taken out, and traces that only raise doubt.

Patterns are generous: data taken out by mistake costs a little sense, missed data costs a secret.
Each pattern is bounded, so that no text makes it slow. All of them see a text as `normalize`
returns it. The only door to phonenumbers.
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
    """The place in a text of something of a kind."""

    start: int
    end: int
    kind: str


class NormalizedText(NamedTuple):
    """A text in one spelling.

    `offsets` has each character's place in the original text, and one place more, for the end.
    """

    text: str
    offsets: Sequence[int]


_SCHEME = r"\b(?:[a-z][a-z0-9+.-]{1,15}://|www\.)"
_MAIL = r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
# anna (at) kontor [dot] example
_AT = r" ?[\[({] ?(?:at|@) ?[\])}] ?"
_DOT = r"(?:\.| ?[\[({] ?(?:dot|\.) ?[\])}] ?)"
_SPELT_MAIL = rf"\b[\w.+-]{{1,64}}{_AT}[\w-]{{1,63}}(?:{_DOT}[\w-]{{1,63}})+"
_IDS = (
    # 1Z999AA10123456784, RSSMRA85T10A562S
    r"\b(?=(?:[A-Z]{0,20}\d){5})(?=\d{0,40}[A-Z])[A-Z0-9]{8,40}\b",
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
    "IBAN": (
        re.compile(
            r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b"
        ),
    ),
    "ID": tuple(re.compile(pattern) for pattern in _IDS),
}
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:])"
)
_NUMBER = re.compile(rf"(?<!\d)(?:{'|'.join(_NUMBERS)})(?!\d)")
_FEWEST_DIGITS = 9  # of a number that is taken out whatever it is

_DATE = re.compile(
    r"(?<!\d)(?:\d{4}-\d{1,2}-\d{1,2}|\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2}))(?!\d)"
)
_DECIMALS = re.compile(r"(?<=\d)\.\d{1,2}(?![\d.])")
_DOUBTS = {
    "an @ between words": re.compile(r"\w@\w|\bat\b.{1,40}\bdot\b", re.IGNORECASE),
    "a number of seven digits or more": re.compile(r"\d(?:[ ./()-]{0,2}\d){6,}"),
}


def find_personal_data(text: str, regions: Iterable[str]) -> Iterator[Span]:
    """Find everything in a normalized text that is taken out; spans may overlap.

    `regions` are the countries whose national phone numbers are found.
    """
    for kind, patterns in _PATTERNS.items():
        for pattern in patterns:
            yield from find_matches(kind, pattern, text)
    yield from find_matches("CARD", _CARD, text, _has_luhn_checksum)
    yield from find_matches("IP", _IP, text, _is_ip_address)
    yield from _find_phones(text, regions)
    yield from find_matches("NUMBER", _NUMBER, text, _is_long_number)


def find_doubtful(text: str) -> Iterator[Span]:
    """Find what may be personal data in a normalized text; dates and amounts do not count."""
    without_decimals = _DECIMALS.sub(_commas, text)
    without_dates = _DATE.sub(_commas, without_decimals)
    for kind, pattern in _DOUBTS.items():
        yield from find_matches(kind, pattern, without_dates)


def find_matches(
    kind: str,
    pattern: re.Pattern[str],
    text: str,
    is_valid: Callable[[str], bool] | None = None,
) -> Iterator[Span]:
    """Find the matches of a pattern that are not empty and, where asked, valid."""
    for match in pattern.finditer(text):
        if match[0] and (is_valid is None or is_valid(match[0])):
            yield Span(match.start(), match.end(), kind)


def normalize(text: str) -> NormalizedText:
    """Return a text without accents and invisible characters.

    It has one kind of spaces, hyphens and digits, so that a pattern needs to know no other.
    """
    if text.isascii():
        return NormalizedText(text, range(len(text) + 1))
    characters: list[str] = []
    offsets: list[int] = []
    for offset, original in enumerate(text):
        # One character can become none, or several: `ﬁ` becomes `fi`.
        for character in _normalize_character(original):
            characters.append(character)
            offsets.append(offset)
    offsets.append(len(text))
    return NormalizedText("".join(characters), offsets)


@lru_cache(maxsize=4096)
def _normalize_character(character: str) -> str:
    if character.isascii():
        return character
    match unicodedata.category(character):
        case "Cf" | "Mn":  # invisible characters and accents
            return ""
        case "Nd":
            return str(unicodedata.digit(character))
        case "Zs":
            return " "
        case "Pd":
            return "-"
    parts = unicodedata.normalize("NFKD", character)
    return "".join(part for part in parts if not unicodedata.combining(part))


def _commas(match: re.Match[str]) -> str:
    """Return commas in the place of a match, so that the text keeps its length."""
    return "," * len(match[0])


def _find_phones(text: str, regions: Iterable[str]) -> Iterator[Span]:
    from phonenumbers import PhoneNumberMatcher

    for region in regions:
        for match in PhoneNumberMatcher(text, region, max_tries=sys.maxsize):
            if not _DATE.fullmatch(match.raw_string):
                yield Span(match.start, match.end, "PHONE")


def _is_long_number(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    return digits >= _FEWEST_DIGITS


def _has_luhn_checksum(number: str) -> bool:
    """Return True if Luhn's checksum is right, as it is for every payment card."""
    digits = [int(character) for character in number if character.isdecimal()]
    digits.reverse()
    total = sum(digits[::2])
    for digit in digits[1::2]:
        # Every second digit counts double, and the digits of the product are added up.
        tens, ones = divmod(2 * digit, 10)
        total += tens + ones
    return total % 10 == 0


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
