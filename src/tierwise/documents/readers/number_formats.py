"""Values of cells as a spreadsheet program shows them, by the format of their numbers.

Dates are written as 2026-11-28, whatever their format: 03/04/2026 could be two days. Numbers have
the decimals, the thousands separator, the percent sign and the currency of their format, with a
point for decimals.
"""

from __future__ import annotations

import datetime
import re
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

# colours and conditions; a currency is in `[$€-407]`
_BRACKETS = re.compile(r"\[(?:\$([^\]-]*)[^\]]*|[^\]]*)\]")
_NUMBER = re.compile(r"[#0?][#0?,]*(?:\.[#0?]*)?,*|\.[#0?]+")
_MOST_DIGITS = 15  # that a spreadsheet keeps
_MOST_DECIMALS = 30
_MOST_PLACES = 400  # of the largest number there is, with its decimals


def shown(value: Any, number_format: str) -> str:
    """Return a value as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return shown_number(value, number_format)
    if isinstance(value, datetime.datetime):
        if value.time() == datetime.time():
            return value.date().isoformat()
        return value.isoformat(" ", "seconds" if value.second else "minutes")
    if isinstance(value, datetime.time):
        return value.isoformat("seconds" if value.second else "minutes")
    return str(value)


def shown_number(value: float, number_format: str) -> str:
    """Return a number by its format; by none where that is one for dates, fractions or powers."""
    sections = _sections(number_format)
    section = sections[0]
    is_negative = value < 0
    if is_negative and len(sections) > 1:
        # this section has its own sign, or brackets in the place of one
        section = sections[1]
        value = -value
        is_negative = False
    elif value == 0 and len(sections) > 2:
        section = sections[2]
    before, pattern, after = _split(section)
    if not pattern and before.strip():
        return before
    if not pattern:
        return _general(-value if is_negative and value > 0 else value)
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        return str(value)
    number *= Decimal(100) ** (before + after).count("%")
    text = _by_pattern(abs(number), pattern)
    return f"{before}{'-' if is_negative else ''}{text}{after}".strip()


def _sections(number_format: str) -> list[str]:
    """Return the formats of positive, negative and zero values, without what has no width."""
    text = _BRACKETS.sub(
        lambda match: f'"{match[1]}"' if match[1] else "", number_format
    )
    sections: list[str] = [""]
    is_quoted = False
    at = 0
    while at < len(text):
        character = text[at]
        if character == '"':
            is_quoted = not is_quoted
        if is_quoted or character not in "_*\\;":
            sections[-1] += character
            at += 1
        elif character == ";":
            sections.append("")
            at += 1
        else:
            # `_x` is a space of the width of x, `*x` fills the cell with x, `\x` is x
            literal = text[at + 1 : at + 2]
            sections[-1] += f'"{literal}"' if character == "\\" else ""
            at += 2
    return sections


def _split(section: str) -> tuple[str, str, str]:
    """Return the text before the digits, their pattern, and the text after them."""
    pieces = section.split('"')
    plain = "".join(
        piece if index % 2 == 0 else "\0" * len(piece)
        for index, piece in enumerate(pieces)
    )
    text = "".join(pieces)
    match = _NUMBER.search(plain)
    rest = _NUMBER.sub("", plain, count=1)
    # a General, a date, a power or a fraction
    if re.search(r"[A-Za-z/@]", rest):
        return "", "", ""
    if match is None:
        return text, "", ""
    return text[: match.start()], match[0], text[match.end() :]


def _by_pattern(number: Decimal, pattern: str) -> str:
    # each comma at the end divides by a thousand
    unscaled = pattern.rstrip(",")
    scale = len(pattern) - len(unscaled)
    whole, _, decimals = unscaled.partition(".")
    places = min(len(decimals), _MOST_DECIMALS)
    with localcontext(prec=_MOST_PLACES):
        number /= Decimal(1000) ** scale
        rounded = number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    digits, _, fraction = f"{rounded:f}".partition(".")
    least = decimals.rstrip("#?").count("0")
    while len(fraction) > least and fraction.endswith("0"):
        fraction = fraction[:-1]
    digits = digits.lstrip("0").rjust(whole.count("0"), "0")
    if "," in whole and digits.isdigit():
        digits = f"{int(digits):,}".rjust(len(digits), "0")
    digits = digits or ("" if fraction else "0")
    return f"{digits}.{fraction}" if fraction else digits


def _general(value: float) -> str:
    """Return a number with the digits that a spreadsheet keeps."""
    if isinstance(value, int):
        return str(value)
    if value == int(value) and abs(value) < 10**_MOST_DIGITS:
        return str(int(value))
    return f"{value:.{_MOST_DIGITS}g}"
