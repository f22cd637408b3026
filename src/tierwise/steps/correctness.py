"""What a right answer is, for golden sets: functions of an output and the expected fields of an example."""

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

_POINT = re.compile(r"(?:[1-9]\d{0,2}(?:[ ,']\d{3})+|0|[1-9]\d*)(?:\.\d+)?")  # 1,234.50
_COMMA = re.compile(
    r"(?:[1-9]\d{0,2}(?:[ .']\d{3})+|0|[1-9]\d*),\d+|[1-9]\d{0,2}(?:\.\d{3}){2,}"
)  # 1.234,50
_AMOUNT = re.compile(r"([^\d\s.,-]{0,4}) ?(-?)((?:0|[1-9])[\d .,']*?) ?([^\d\s.,-]{0,4})")
_PUNCTUATION = re.compile(r"(?<!\d)[\W_]+|[\W_]+(?!\d)")  # what stands between two digits stays
_DATE = re.compile(r"\d\D+\d")  # a bare number is none
_DEFAULTS = (datetime(2000, 1, 1), datetime(2004, 2, 2))  # alike in nothing


def same(*fields: str) -> Correct:
    """Right when these fields equal the expected ones, but for white space, case and kinds of quotes."""

    def correct(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        return all(
            squeezed(str(output.get(name))) == squeezed(str(expected.get(name))) for name in fields
        )

    return correct


def same_fields(*fields: str) -> Correct:
    """Right when these fields (none named: all that are expected) say the same as the expected ones.

    Case, white space and punctuation do not count. Amounts are compared as numbers (`RM 1,200.00` is 1200; a
    currency that is expected must be there) and full dates as dates (`2026-03-15` is March 15, 2026; 03/04/2026
    equals no written-out date, since nobody knows which is the month). Of a `{quote, value}` the value counts.
    Where a list is expected and the output is none, any of the list is right; null is right where null is expected.
    """

    def correct(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        names = fields or tuple(expected)
        return bool(names) and all(_alike(output.get(name), expected.get(name)) for name in names)

    return correct


def mentions(field: str) -> Correct:
    """Right when a text has every `must_mention` of the example and no `must_not`, whatever their case.

    Necessary, not sufficient: a text can mention all and still mislead, so this alone is thin evidence.
    """

    def correct(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        text = squeezed(str(output.get(field)))
        wanted = expected.get("must_mention", ())
        forbidden = expected.get("must_not", ())
        return all(squeezed(w) in text for w in wanted) and not any(
            squeezed(f) in text for f in forbidden
        )

    return correct


@dataclass(frozen=True)
class Rubric:
    """Yes-or-no criteria that a judge goes through; called itself, it says whether `needs` holds."""

    criteria: tuple[str, ...]
    needs: Correct | None = None

    def __call__(self, output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        """Whether the output has what can be seen without a judge."""
        return self.needs is None or self.needs(output, expected)


def rubric(*criteria: str, needs: Correct | None = None) -> Rubric:
    """Right when `needs` holds and a judge says yes to every criterion, such as "promises no refund".

    A judge never certifies alone: see `tierwise certify --judge`. Raises Misuse without a criterion.
    """
    if not criteria or not all(text.strip() for text in criteria):
        raise Misuse("a rubric needs criteria, one sentence each, to be answered by yes or no")
    return Rubric(criteria, needs)


def _alike(given: Any, expected: Any) -> bool:
    if isinstance(given, Mapping) and set(given) == {"quote", "value"}:
        given = given["value"]
    if isinstance(given, Mapping) and isinstance(expected, Mapping):
        return all(_alike(given.get(name), value) for name, value in expected.items())
    if isinstance(expected, list):
        if not isinstance(given, list):
            return any(_alike(given, one) for one in expected)
        return len(given) == len(expected) and all(map(_alike, given, expected))
    if expected in (None, "") or given in (None, ""):
        return given in (None, "") and expected in (None, "")
    return _same_text(_tidy(given), _tidy(expected))


def _tidy(value: Any) -> str:
    return " ".join(squeezed(word) for word in str(value).split())


def _same_text(given: str, expected: str) -> bool:
    if (amount := _amount(given)) and (wanted := _amount(expected)):
        return amount[0] == wanted[0] and wanted[1] in ("", amount[1])
    if (day := _readings(given)) and (wanted_day := _readings(expected)):
        return day == wanted_day
    return _PUNCTUATION.sub("", given) == _PUNCTUATION.sub("", expected)


def _amount(text: str) -> tuple[Decimal, str] | None:
    """The number and the currency, where a text is nothing but an amount."""
    found = _AMOUNT.fullmatch(text)
    if found is None or (found[1] and found[4]):
        return None
    digits = found[3]
    if _POINT.fullmatch(digits):
        plain = re.sub("[ ,']", "", digits)
    elif _COMMA.fullmatch(digits):
        plain = re.sub("[ .']", "", digits).replace(",", ".")
    else:
        return None
    return Decimal(found[2] + plain), found[1] or found[4]


def _readings(text: str) -> tuple[datetime, datetime] | None:
    """What a full date means with the day first and with the month first; None for anything else."""
    from dateutil.parser import parse  # type: ignore[import-untyped]

    if not _DATE.search(text):
        return None
    try:
        days, months = (
            {parse(text, dayfirst=day_first, default=other, ignoretz=True) for other in _DEFAULTS}
            for day_first in (True, False)
        )
    except (ValueError, OverflowError):
        return None
    whole = len(days) == len(months) == 1  # what is left out would be taken from the default
    return (days.pop(), months.pop()) if whole else None
