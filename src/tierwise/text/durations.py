"""Durations and moments as people and providers write them: `6m0s`, `250 ms`, HTTP dates."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS_OF = {
    "ms": 0.001,
    "msec": 0.001,
    "millis": 0.001,
    "millisecond": 0.001,
    "milliseconds": 0.001,
    "s": 1,
    "sec": 1,
    "secs": 1,
    "second": 1,
    "seconds": 1,
    "sekunde": 1,
    "sekunden": 1,
    "seconde": 1,
    "secondes": 1,
    "segundo": 1,
    "segundos": 1,
    "secondi": 1,
    "秒": 1,
    "초": 1,
    "m": 60,
    "min": 60,
    "mins": 60,
    "minute": 60,
    "minutes": 60,
    "minuten": 60,
    "minuto": 60,
    "minutos": 60,
    "minuti": 60,
    "分": 60,
    "分钟": 60,
    "분": 60,
    "h": 3600,
    "hr": 3600,
    "hrs": 3600,
    "hour": 3600,
    "hours": 3600,
    "stunde": 3600,
    "stunden": 3600,
    "小时": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
}
_UNITS = "|".join(sorted(_SECONDS_OF, key=len, reverse=True))
_PART = rf"(\d+(?:\.\d+)?)\s*({_UNITS})(?![a-z])"
# Such as `1h 2m 3.5s` or `1 minute and 30 seconds`. Bounded, as it is searched in what servers say:
# a text of digits alone must not take a time that grows with its square.
_AMOUNT = r"(?<![\d.])\d{1,12}(?:\.\d{1,12})?"
DURATION = rf"(?:{_AMOUNT}\s?(?:{_UNITS})(?![a-z])(?:\s?(?:,|and)?\s?(?=\d))?){{1,5}}"
_WHOLE = re.compile(DURATION, re.IGNORECASE)
_PARTS = re.compile(_PART, re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:e\+?\d{1,3})?", re.IGNORECASE)
# A number is a moment when it is that of a year around now; any other is a duration.
_YEAR_S = 366 * 86400.0


def number(text: str) -> float | None:
    """Return a plain number; None for anything else, such as `nan`."""
    if not _NUMBER.fullmatch(text.strip()):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def duration(text: str) -> float | None:
    """Return the seconds of a text such as `6m0s`; None when it is no duration with units."""
    text = text.strip()
    if text[:2].upper() == "PT":  # ISO 8601
        text = text[2:]
    if not _WHOLE.fullmatch(text):
        return None
    parts = [
        float(amount) * _SECONDS_OF[unit.lower()]
        for amount, unit in _PARTS.findall(text)
    ]
    seconds = math.fsum(parts)
    return seconds if math.isfinite(seconds) else None


def seconds_until(text: str, now: float) -> float | None:
    """Return the seconds from `now` (epoch) until a moment; negative when it is past.

    It is an HTTP date, an ISO date, or epoch seconds or milliseconds near `now`.
    """
    moment = _epoch(text, now)
    if moment is None:
        moment = _date(text.strip())
    return None if moment is None else moment - now


def _epoch(text: str, now: float) -> float | None:
    value = number(text)
    if value is None:
        return None
    for moment in (value, value / 1000):
        if abs(moment - now) < _YEAR_S:
            return moment
    return None


def _date(text: str) -> float | None:
    if len(text) < len("2026-01-01") or number(text) is not None:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
    date = date.replace(tzinfo=date.tzinfo or UTC)
    try:
        return date.timestamp()
    except (OverflowError, ValueError):
        return None
