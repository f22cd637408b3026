"""Invitations and other calendar parts (text/calendar, RFC 5545) as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_FOLD = re.compile(r"\r?\n[ \t]")
_LINE = re.compile(r'([A-Za-z0-9-]+)((?:[^":]|"[^"]*")*):(.*)')
_NAME_PARAMETER = re.compile(r';CN=(?:"([^"]*)"|([^;:"]*))', re.IGNORECASE)
_ZONE_PARAMETER = re.compile(r';TZID=(?:"([^"]*)"|([^;:"]*))', re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?")
_EVENTS = {"VEVENT": "event", "VTODO": "task", "VJOURNAL": "note", "VFREEBUSY": "times"}
_LABELS = {
    "SUMMARY": "Summary",
    "DTSTART": "Start",
    "DTEND": "End",
    "DUE": "Due",
    "DURATION": "Duration",
    "RRULE": "Repeats",
    "RDATE": "Also on",
    "EXDATE": "Not on",
    "FREEBUSY": "Busy",
    "LOCATION": "Where",
    "ORGANIZER": "Organizer",
    "ATTENDEE": "Attendee",
    "CONTACT": "Contact",
    "STATUS": "Status",
    "DESCRIPTION": "Description",
    "COMMENT": "Comment",
    "CATEGORIES": "Categories",
    "RESOURCES": "Resources",
    "URL": "Link",
}
_TIMES = ("DTSTART", "DTEND", "DUE", "RDATE", "EXDATE")
_PEOPLE = ("ORGANIZER", "ATTENDEE")


@dataclass(frozen=True, slots=True)
class _Property:
    name: str
    parameters: str = field(repr=False)
    value: str = field(repr=False)


def calendar_to_text(calendar: str) -> str:
    """Return the events as lines such as `Start: 2026-12-01 09:00 UTC`.

    A calendar without an event that can be read is returned as it is.
    """
    method = ""
    events: list[list[str]] = []
    nested: list[str] = []  # the open components, the innermost last
    for prop in _properties(calendar):
        if prop.name == "BEGIN":
            component = prop.value.strip().upper()
            nested.append(component)
            if component in _EVENTS:
                events.append([f"Calendar {_EVENTS[component]}:"])
        elif prop.name == "END":
            if nested:
                nested.pop()
        elif prop.name == "METHOD":
            method = prop.value.strip().lower()
        elif nested and nested[-1] in _EVENTS and prop.name in _LABELS:
            events[-1].append(f"{_LABELS[prop.name]}: {_shown(prop)}")
    if not any(len(lines) > 1 for lines in events):
        return calendar
    blocks = ["\n".join(lines) for lines in events]
    if method:
        blocks.insert(0, f"Calendar method: {method}")
    return "\n\n".join(blocks)


def _properties(calendar: str) -> Iterator[_Property]:
    unfolded = _FOLD.sub("", calendar)
    for line in unfolded.split("\n"):
        match = _LINE.match(line.rstrip("\r"))
        if match:
            yield _Property(match[1].upper(), match[2], match[3])


def _shown(prop: _Property) -> str:
    if prop.name in _TIMES:
        return _time(prop)
    if prop.name in _PEOPLE:
        return _person(prop)
    return _unescape(prop.value)


def _time(prop: _Property) -> str:
    """Return a time as `2026-12-01 09:00 Europe/Berlin`; as it is where it is no time."""
    match = _TIME.fullmatch(prop.value.strip())
    if not match:
        return _unescape(prop.value)
    year, month, day, hour, minute, second, is_utc = match.groups()
    text = f"{year}-{month}-{day}"
    if hour:
        text += f" {hour}:{minute}"
        if second != "00":
            text += f":{second}"
    zone = _first_group(_ZONE_PARAMETER, prop.parameters)
    if is_utc:
        zone = "UTC"
    return f"{text} {zone}".rstrip()


def _person(prop: _Property) -> str:
    name = _first_group(_NAME_PARAMETER, prop.parameters)
    address = prop.value.strip()
    if address.lower().startswith("mailto:"):
        address = address[len("mailto:") :]
    if not name or name == address:
        return address
    return f"{name} <{address}>"


def _first_group(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return (match[1] or match[2] or "").strip() if match else ""


def _unescape(value: str) -> str:
    return _ESCAPE.sub(
        lambda escape: "\n" if escape[1] in "nN" else escape[1], value
    ).strip()
