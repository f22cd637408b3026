"""Functions that compare an output with the expected fields of a golden example."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tierwise.errors import Misuse
from tierwise.steps.checks import squeezed
from tierwise.steps.step import Correct
from tierwise.text.numbers import plain_digits

# Amounts with a decimal point, such as 1,234.50, and with a decimal comma, such as 1.234,50.
_POINT = re.compile(r"(?:[1-9]\d{0,2}(?:[ ,']\d{3})+|0|[1-9]\d*)(?:\.\d+)?")
_COMMA = re.compile(
    r"(?:[1-9]\d{0,2}(?:[ .']\d{3})+|0|[1-9]\d*),\d+"
    r"|[1-9]\d{0,2}(?:\.\d{3}){2,}"
)
# A currency, a minus sign, the digits with their separators, a currency.
_AMOUNT = re.compile(
    r"([^\d\s.,-]{0,4}) ?(-?)((?:0|[1-9])[\d .,']*?) ?([^\d\s.,-]{0,4})"
)
# Punctuation between two digits stays: 1.5 is not 15.
_PUNCTUATION = re.compile(r"(?<!\d)[\W_]+|[\W_]+(?!\d)")
_DATE = re.compile(r"\d\D+\d")  # a bare number is not a date
_IDEOGRAPHIC_DATE = re.compile(r"(\d{4}) ?年 ?(\d{1,2}) ?月 ?(\d{1,2}) ?日")
_SPANISH_OF = re.compile(r" de(?= )")  # 12 de mayo de 2026
_WORDS = re.compile(r"[^\W\d_]+")
# The months in German, French and Spanish where they differ from English, in one case.
_MONTH_NAMES = {
    "january": "januar jänner janvier enero",
    "february": "februar février febrero",
    "march": "märz mars marzo",
    "april": "avril abril",
    "may": "mai mayo",
    "june": "juni juin junio",
    "july": "juli juillet julio",
    "august": "août agosto",
    "september": "septembre septiembre",
    "october": "oktober octobre octubre",
    "november": "novembre noviembre",
    "december": "dezember décembre diciembre",
}
_MONTHS = {
    name: month for month, names in _MONTH_NAMES.items() for name in names.split()
}
# Two dates without a common year, month or day. A text that parses to the same date with both as
# the default names year, month and day itself.
_DEFAULTS = (datetime(2000, 1, 1), datetime(2004, 2, 2))
_EMPTY = (None, "")


def same(*fields: str) -> Correct:
    """Return a comparison of these fields that ignores white space, case and kinds of quotes.

    Raises Misuse without a field: then every answer would be right.
    """
    if not fields:
        raise Misuse(
            "same() compares no field; name those of a right answer: same('label')"
        )

    def correct(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        for name in fields:
            given = squeezed(str(output.get(name)))
            wanted = squeezed(str(expected.get(name)))
            if given != wanted:
                return False
        return True

    return correct


def same_fields(*fields: str) -> Correct:
    """Return a comparison of the meaning of these fields, by default of all expected ones.

    - Case, white space and punctuation are ignored.
    - Amounts are compared as numbers: `RM 1,200.00` equals 1200. An expected currency is required.
    - Full dates are compared as dates: `2026-03-15` equals March 15, 2026. 03/04/2026 equals no
      written-out date, because its month is ambiguous.
    - Of a `{quote, value}` pair, the value is compared.
    - Where a list is expected and the output is a single value, any item of the list is right.
    - Where null is expected, only null or an empty text is right.
    """

    def correct(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        names = fields or tuple(expected)
        if not names:
            return False
        return all(
            is_equivalent(output.get(name), expected.get(name)) for name in names
        )

    return correct


def mentions(field: str) -> Correct:
    """Return a test that a text has every `must_mention` and no `must_not` of the example.

    Case is ignored. This is necessary, but not sufficient: a text can mention everything and still
    mislead, so this alone is weak evidence.
    """

    def correct(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        text = _comparable(output.get(field))
        required = expected.get("must_mention", ())
        forbidden = expected.get("must_not", ())
        if not all(_comparable(phrase) in text for phrase in required):
            return False
        return not any(_comparable(phrase) in text for phrase in forbidden)

    return correct


@dataclass(frozen=True)
class Rubric:
    """Yes-or-no criteria for a judge. A call of the rubric itself tests `needs` alone."""

    criteria: tuple[str, ...]
    needs: Correct | None = None

    def __call__(self, output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        """Return True if the output passes the part of the rubric that needs no judge."""
        if self.needs is None:
            return True
        return self.needs(output, expected)


def rubric(*criteria: str, needs: Correct | None = None) -> Rubric:
    """Return a rubric: an output is right if it passes `needs` and a judge affirms each criterion.

    A criterion is a sentence such as "promises no refund". A judge never certifies alone: see
    `tierwise certify --judge`. Raises Misuse without a criterion.
    """
    if not criteria or not all(text.strip() for text in criteria):
        raise Misuse(
            "a rubric needs criteria, one sentence each, to be answered by yes or no"
        )
    return Rubric(criteria, needs)


def is_equivalent(given: Any, expected: Any) -> bool:
    """Return True if an output's value means the same as the expected one, at any depth."""
    if isinstance(given, Mapping) and set(given) == {"quote", "value"}:
        given = given["value"]
    if isinstance(given, Mapping) and isinstance(expected, Mapping):
        # Fields of the output that the example does not name are not compared.
        return all(
            is_equivalent(given.get(name), value) for name, value in expected.items()
        )
    if isinstance(expected, list):
        if not isinstance(given, list):
            return any(is_equivalent(given, alternative) for alternative in expected)
        return len(given) == len(expected) and all(map(is_equivalent, given, expected))
    if expected in _EMPTY or given in _EMPTY:
        return given in _EMPTY and expected in _EMPTY
    return _same_meaning(_normalized(given), _normalized(expected))


def _comparable(value: Any) -> str:
    """Return a text without white space, in one case, its digits as those of ASCII."""
    return plain_digits(squeezed(str(value)))


def _normalized(value: Any) -> str:
    """Return a value as text with normalized words, one space between them."""
    words = str(value).split()
    return plain_digits(" ".join(squeezed(word) for word in words))


def _same_meaning(given: str, expected: str) -> bool:
    """Compare two texts as amounts if both are amounts, as dates if both are, else as words."""
    given_amount = _amount(given)
    expected_amount = _amount(expected)
    if given_amount and expected_amount:
        given_number, given_currency = given_amount
        expected_number, expected_currency = expected_amount
        same_currency = expected_currency in ("", given_currency)
        return given_number == expected_number and same_currency
    given_date = _readings_of_date(given)
    # reading dates is slow
    expected_date = _readings_of_date(expected) if given_date else None
    if given_date and expected_date:
        return given_date == expected_date
    return _PUNCTUATION.sub("", given) == _PUNCTUATION.sub("", expected)


def _amount(text: str) -> tuple[Decimal, str] | None:
    """Return the number and the currency of a text that is nothing but an amount."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        return None
    before, sign, digits, after = match.groups()
    if before and after:
        return None  # two currencies, or words around a number
    if _POINT.fullmatch(digits):
        number = re.sub("[ ,']", "", digits)
    elif _COMMA.fullmatch(digits):
        number = re.sub("[ .']", "", digits).replace(",", ".")
    else:
        return None
    return Decimal(sign + number), before or after


def _with_ascii_date(text: str) -> str:
    """Return a date of Chinese or Japanese as 2026-05-12, and months by their English names."""
    date = _IDEOGRAPHIC_DATE.fullmatch(text)
    if date:
        return "-".join(date.groups())
    in_english = _WORDS.sub(lambda match: _MONTHS.get(match[0], match[0]), text)
    return _SPANISH_OF.sub(" ", in_english)


def _readings_of_date(text: str) -> tuple[datetime, datetime] | None:
    """Return the date read with the day first and with the month first, or None for other texts."""
    if not _DATE.search(text):
        return None
    text = _with_ascii_date(text)
    try:
        day_first = _full_date(text, day_first=True)
        month_first = _full_date(text, day_first=False)
    except (ValueError, OverflowError):
        return None
    if day_first is None or month_first is None:
        return None
    return day_first, month_first


def _full_date(text: str, *, day_first: bool) -> datetime | None:
    """Return a date, or None if the parser had to complete it from the default.

    Raises ValueError or OverflowError for a text that is not a date.
    """
    from dateutil.parser import parse  # type: ignore[import-untyped]

    dates: set[datetime] = {
        parse(text, dayfirst=day_first, default=default, ignoretz=True)
        for default in _DEFAULTS
    }
    return dates.pop() if len(dates) == 1 else None
