"""Numbers in a text, however they are written: digits of any script, separators, and words."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from tierwise.text.number_words import numbers_in_words

NUMBER = re.compile(r"\d[\d.,']*")  # with its separators: 2,140.00
_GROUPED = re.compile(r"(?<![\d.,'])\d{1,3}(?: \d{3})+(?:[.,]\d+)?(?!\d)")
_DIGITS = re.compile(r"\d+")
_FRACTION = re.compile(r"(?:(?<!\d)(\d{1,6})\s?)?([\u00bc-\u00be\u2150-\u215e])")
_SEPARATORS = {
    **dict.fromkeys(
        "\u066b\uff0e", "."
    ),  # the decimal signs of Arabic and of full width
    **dict.fromkeys("\u066c\uff0c", ","),
    **dict.fromkeys("\u2019\u02bc\uff07", "'"),
    **dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000", " "),
}
# Invisible ones: they get lost in copies, or stand between a digit and its neighbours.
_INVISIBLE = (
    "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2066\u2067\u2068\u2069\u20e3\ufe0e\ufe0f\ufeff"
)
_TABLE = str.maketrans({**_SEPARATORS, **dict.fromkeys(_INVISIBLE)})


def plain_digits(text: str) -> str:
    """Return a text with ASCII digits and separators, and without invisible characters."""
    translated = text.translate(_TABLE)
    if translated.isascii():
        return translated
    return "".join(_plain_digit(character) for character in translated)


def _plain_digit(character: str) -> str:
    if character.isascii() or not character.isdecimal():
        return character
    return str(unicodedata.decimal(character))


@dataclass
class Numbers:
    """The numbers of a text."""

    groups: set[str] = field(default_factory=set)  # digits between separators
    values: set[str] = field(default_factory=set)  # as `_canonical` writes them

    def has(self, number: str) -> bool:
        """Return True if a number, in plain digits, is among them.

        The first comparison is of the digits between separators, so that a date may have others,
        the second of values, so that 2140 equals 2,140.00.
        """
        if _groups(number) <= self.groups:
            return True
        return not self.values.isdisjoint(_values(number))

    def add(self, text: str, language: str | None) -> None:
        """Add the numbers of a text."""
        plain = plain_digits(text)
        self.groups |= _groups(plain)
        if "\u00ad" in text:
            # A reader may take a soft hyphen for a hyphen: 55-21.
            self.groups |= _groups(plain_digits(text.replace("\u00ad", "-")))
        for number in NUMBER.findall(plain):
            self.values |= _values(number)
        for number in _GROUPED.findall(plain):
            self.values |= _values(number.replace(" ", ""))
        self._add_signs(plain)
        for value in numbers_in_words(plain, language):
            self._add_value(value)

    def _add_signs(self, text: str) -> None:
        """Add single characters that are numbers, such as ½ and ⑫, but not exponents."""
        if text.isascii():
            return
        for whole, sign in _FRACTION.findall(text):
            # numeric() gives a float: ⅓ is 0.333…, and its nearest fraction is meant
            part = Fraction(unicodedata.numeric(sign)).limit_denominator(100)
            self.groups |= {str(part.numerator), str(part.denominator)}
            value = Decimal(part.numerator) / Decimal(part.denominator)
            self.values.add(_canonical(str(Decimal(whole or 0) + value)))
        for character in set(text):
            if unicodedata.category(character) not in ("No", "Nl"):
                continue
            number = unicodedata.numeric(character, -1.0)
            # "<super>" or "<sub>"
            is_exponent = "<su" in unicodedata.decomposition(character)
            if number >= 0 and number.is_integer() and not is_exponent:
                self._add_value(int(number))

    def _add_value(self, value: int) -> None:
        self.values.add(str(value))
        self.groups.add(str(value))


def numbers_of(text: str, language: str | None) -> Numbers:
    """Return all numbers of a text, in the forms that its language has."""
    numbers = Numbers()
    numbers.add(text, language)
    return numbers


def missing_number(text: str, known: Numbers) -> str | None:
    """Return the first number in the digits of a text that is not known; None if all are."""
    plain = plain_digits(text)
    # 12 500 is one number if the source has 12500; its parts are then not looked at
    whole = {
        match.span()
        for match in _GROUPED.finditer(plain)
        if known.has(match[0].replace(" ", ""))
    }
    for match in NUMBER.finditer(plain):
        in_whole = any(start <= match.start() < end for start, end in whole)
        if not in_whole and not known.has(match[0]):
            return match[0]
    return None


def _groups(text: str) -> set[str]:
    """Return the digits between separators; a zero before a day or a month does not count."""
    groups: set[str] = set()
    for digits in _DIGITS.findall(text):
        group = digits
        if len(digits) <= 2:
            group = digits.lstrip("0") or "0"
        groups.add(group)
    return groups


def _values(number: str) -> set[str]:
    """Return what a number with separators may mean: 2.140 is 2140, or a little more than 2."""
    number = number.rstrip(".,'")
    separators = re.sub(r"\d", "", number)
    if not separators:
        return {_canonical(number)}
    parts = re.split(r"[.,']", number)
    joined = "".join(parts)
    values: set[str] = set()
    kinds = set(separators)
    is_grouped = len(kinds) == 1 and all(len(part) == 3 for part in parts[1:])
    if is_grouped:
        values.add(_canonical(joined))
    # the last separator is a decimal point where no other is like it: 1.234,5
    before_last = separators[:-1]
    if separators[-1] not in before_last:
        whole = "".join(parts[:-1])
        values.add(_canonical(f"{whole}.{parts[-1]}"))
    if len(separators) > 1 and len(kinds) == 1:
        values.add(_canonical(joined))  # a date, a telephone number, or 1,00,000
    return values or {_canonical(joined)}


def _canonical(number: str) -> str:
    """Return a decimal number without the zeros that change nothing."""
    whole, _, part = number.partition(".")
    whole = whole.lstrip("0") or "0"
    part = part.rstrip("0")
    return f"{whole}.{part}" if part else whole
