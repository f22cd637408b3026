"""The parts of a multipart body: between its boundaries, also where the header names a wrong one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# A line that can be a boundary: a part's header follows it.
_LIKELY = re.compile(
    rb"(?m)^--([^\s-][^\r\n]{0,99}|-[^\r\n]{0,99}\w[^\r\n]{0,99})\r?\n(?=content-[a-z-]+[ \t]*:)",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(r"mime|multi-?part", re.IGNORECASE)
_LONGEST_PREAMBLE = 400


@dataclass(frozen=True, slots=True)
class Multipart:
    """The pieces of a body in their order: parts, and texts outside of parts.

    `is_closed` is False when the closing boundary is missing.
    """

    pieces: tuple[Piece, ...] = field(repr=False)
    is_closed: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A part with its headers, or a text that stands before or behind the parts."""

    data: bytes = field(repr=False)
    is_part: bool


def split_parts(body: bytes, boundary: str) -> Multipart | None:
    """Return the pieces of a body; None when no boundary is in it."""
    named = boundary.strip().encode("utf-8", "replace")
    opens = False
    if named:
        opens = any(not line[1] for line in _delimiter(named).finditer(body))
    if opens:
        return _split(body, named)
    likely = likely_boundary(body)
    if likely:
        return _split(body, likely)
    return None


def likely_boundary(body: bytes) -> bytes | None:
    """Return the boundary that a body uses, whatever its header says."""
    match = _LIKELY.search(body)
    return match[1].rstrip() if match else None


def starts_with_boundary(body: bytes) -> bool:
    """Return True if a body whose type is not declared consists of parts."""
    return bool(_LIKELY.match(body.lstrip()))


def is_note_to_old_programs(text: str) -> bool:
    """Return True for `This is a multi-part message in MIME format.` and the like."""
    return len(text) <= _LONGEST_PREAMBLE and bool(_PREAMBLE.search(text))


def _delimiter(boundary: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?m)^--" + re.escape(boundary) + rb"(--)?[ \t]*\r?$")


def _split(body: bytes, boundary: bytes) -> Multipart:
    pieces: list[Piece] = []
    start = 0
    is_part = False
    for line in _delimiter(boundary).finditer(body):
        pieces.append(
            Piece(_without_last_line_end(body[start : line.start()]), is_part)
        )
        start = min(line.end() + 1, len(body))  # behind the line's end
        is_part = not line[1]
    pieces.append(Piece(body[start:], is_part))
    return Multipart(tuple(pieces), is_closed=not is_part)


def _without_last_line_end(data: bytes) -> bytes:
    """Return a piece without the line end that belongs to the boundary behind it."""
    if data.endswith(b"\r\n"):
        return data[:-2]
    if data.endswith(b"\n"):
        return data[:-1]
    return data
