"""How long a server asks to wait: headers, fields and words, in the spellings of all providers.

The longest sensible hint counts, since a call before it would be refused again. To add a
provider's spelling, add its header or field to a table below.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tierwise.text.durations import DURATION, duration, number, seconds_until

LONGEST_HINT_S = 3600.0  # what asks for more is asked again after it
# Clocks differ by this much; a moment further in the past is nonsense.
_SKEW_S = 300.0

# Each with the seconds that a plain number in it counts.
_HEADERS = {
    "retry-after": 1.0,
    "retry-after-ms": 0.001,
    "x-retry-after": 1.0,
    "x-ms-retry-after-ms": 0.001,
    "x-retry-after-ms": 0.001,
}
# The same for the fields of an error's body, in lower case without `_`.
_FIELDS = {
    "retrydelay": 1.0,
    "retryafter": 1.0,
    "retryafterseconds": 1.0,
    "retryafterms": 0.001,
    "retryaftermilliseconds": 0.001,
    "waitseconds": 1.0,
}
# Headers that say when a limit is full again, such as `x-ratelimit-reset-tokens`.
_RESET = re.compile(r"rate-?limit.*reset")
# The IETF's draft has all in one header: `"default";r=0;t=30` or `remaining=0, reset=30`.
_COMBINED = re.compile(r"\b(r|t|remaining|reset)\s*=\s*(\d+)")

_ASKS_BEFORE = re.compile(
    r"(?:try(?:ing)?(?: your request)? again|retry(?:ing)?|back ?off|wait|available|resets?|"
    r"erneut|réessay\w*|intent\w*|riprov\w*|tente)"
    rf"\b[^.\d]{{0,40}}?({DURATION})",
    re.IGNORECASE,
)
_ASKS_AFTER = re.compile(
    rf"({DURATION})\s*(?:后|後|之后|以后|뒤|후|erneut|noch einmal|try again)",
    re.IGNORECASE,
)
_LONGEST_WORDS = 2000  # characters that are searched


@dataclass(frozen=True, slots=True)
class RetryHint:
    """Seconds to wait; `asked` are those that the server said, where they were out of bounds."""

    seconds: float
    asked: float | None = None


def retry_hint(
    headers: Mapping[str, str],
    hints: Iterable[float] = (),
    *,
    refused: bool = False,
    now: float | None = None,
) -> RetryHint | None:
    """Return how long to wait; None when the server does not say.

    `hints` are those of the body, in seconds. With `refused` (a 429), a limit counts as exhausted
    that does not say how much of it remains, where there is no other hint. Moments are compared
    with the server's own clock where it sends its `Date`.
    """
    named = {name.lower(): str(value) for name, value in headers.items()}
    server_now = _server_time(named, time.time() if now is None else now)
    asked = [*hints, *_named_hints(named, server_now)]
    exhausted, unknown = _resets(named, server_now)
    asked += exhausted
    if not asked and refused:
        asked = unknown
    return longest_sensible(asked)


def longest_sensible(asked: Iterable[float]) -> RetryHint | None:
    """Return the longest hint within bounds, else the nearest bound with what was asked."""
    asked = sorted(asked)
    if not asked:
        return None
    sensible = [seconds for seconds in asked if -_SKEW_S < seconds <= LONGEST_HINT_S]
    if sensible:
        longest = sensible[-1]
        # a moment that has just passed, by a clock that differs
        return RetryHint(max(0.0, longest), longest if longest <= -1 else None)
    longest = asked[-1]
    bounded = LONGEST_HINT_S if longest > 0 else 0.0
    return RetryHint(bounded, longest)


def hint_of_field(name: str, value: Any) -> float | None:
    """Return the seconds of one field of an error's body; None when it is no hint."""
    unit = _FIELDS.get(name.lower().replace("_", "").replace("-", ""))
    if unit is None or isinstance(value, bool):
        return None
    if isinstance(value, Mapping):  # protobuf's Duration
        seconds = number(str(value.get("seconds", 0)))
        nanos = number(str(value.get("nanos", 0)))
        if seconds is None or nanos is None:
            return None
        return seconds + nanos / 1e9
    return _wait(str(value), unit, time.time())


def hint_in_words(words: str) -> float | None:
    """Return the seconds of a sentence such as `Please try again in 1m30s`."""
    words = words[:_LONGEST_WORDS]
    found = [*_ASKS_BEFORE.findall(words), *_ASKS_AFTER.findall(words)]
    seconds = [duration(text) for text in found]
    return max((asked for asked in seconds if asked is not None), default=None)


def _named_hints(headers: Mapping[str, str], now: float) -> Iterator[float]:
    """Yield the hints of headers that ask for a wait."""
    for name, unit in _HEADERS.items():
        value = headers.get(name)
        if value is None:
            continue
        seconds = _wait(value, unit, now)
        if seconds is not None:
            yield seconds
            continue
        # a header that was sent twice, such as `2, 2`
        for part in value.split(","):
            seconds = _wait(part, unit, now)
            if seconds is not None:
                yield seconds


def _wait(text: str, unit: float, now: float) -> float | None:
    """Return the seconds of a duration or a moment; a plain number counts `unit` seconds."""
    until = seconds_until(text, now)
    if until is not None:
        return until
    seconds = duration(text)
    if seconds is not None:
        return seconds
    value = number(text)
    return None if value is None else value * unit


def _resets(headers: Mapping[str, str], now: float) -> tuple[list[float], list[float]]:
    """Return the waits until limits are full again: of exhausted ones, and of unknown ones."""
    exhausted: list[float] = []
    unknown: list[float] = []
    for name, value in headers.items():
        if not _RESET.search(name):
            continue
        unit = 0.001 if name.endswith("-ms") else 1.0
        seconds = _wait(value, unit, now)
        if seconds is None:
            continue
        counterpart = name.replace("reset", "remaining")
        for ending in ("-after", "-ms"):
            counterpart = counterpart.removesuffix(ending)
        remaining = number(headers.get(counterpart, ""))
        if remaining is None:
            unknown.append(seconds)
        elif remaining <= 0:
            exhausted.append(seconds)
    combined = dict(_COMBINED.findall(headers.get("ratelimit", "")))
    left = combined.get("r", combined.get("remaining"))
    reset = combined.get("t", combined.get("reset"))
    if left == "0" and reset is not None:
        exhausted.append(float(reset))
    return exhausted, unknown


def _server_time(headers: Mapping[str, str], now: float) -> float:
    """Return the time by the server's `Date`, else ours: only differences count."""
    ahead = seconds_until(headers.get("date", ""), now)
    return now if ahead is None else now + ahead
