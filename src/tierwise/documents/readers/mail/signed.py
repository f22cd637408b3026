"""S/MIME: the content of signed data, taken out of its envelope (CMS, RFC 5652).

A signature hides nothing: the message lies in the envelope as it is. Nothing is verified here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_SIGNED = bytes.fromhex("2a864886f70d010702")
_ENCRYPTED = (
    bytes.fromhex("2a864886f70d010703"),  # enveloped data
    bytes.fromhex("2a864886f70d010706"),  # encrypted data
    bytes.fromhex("2a864886f70d0109100117"),  # authenticated enveloped data
)
_SEQUENCE = 0x30
_IDENTIFIER = 0x06
_FIRST_OPTION = 0xA0
_OCTETS = 0x04
_OCTETS_IN_PIECES = 0x24
_MOST_NESTED = 30

Envelope = Literal["signed", "encrypted", "unknown"]


@dataclass(frozen=True, slots=True)
class _Element:
    """A value's tag, and where it lies: from `start` to `end`, the next one at `following`."""

    tag: int
    start: int
    end: int
    following: int


def envelope_of(data: bytes) -> Envelope:
    """Return the kind of an S/MIME file."""
    try:
        identifier, _ = _content_info(data)
    except ValueError:
        return "unknown"
    if identifier == _SIGNED:
        return "signed"
    return "encrypted" if identifier in _ENCRYPTED else "unknown"


def signed_content(data: bytes) -> bytes | None:
    """Return the message in signed data; None when it is damaged or has none in it."""
    try:
        _, signed = _content_info(data)
        if signed is None:
            return None
        inner = _first(data, signed, _SEQUENCE)
        content = _first(data, inner, _SEQUENCE)
        wrapped = _first(data, content, _FIRST_OPTION)
        for element in _children(data, wrapped.start, wrapped.end):
            return b"".join(_octets(data, element, 0))
    except ValueError:
        pass
    return None


def _content_info(data: bytes) -> tuple[bytes, _Element | None]:
    """Return what the file says that it is, and its content. Raises ValueError."""
    outer = _element(data, 0, 0, whole=False)
    if outer.tag != _SEQUENCE:
        raise ValueError("no sequence")
    identifier = b""
    for element in _children(data, outer.start, outer.end, whole=False):
        if element.tag == _IDENTIFIER:
            identifier = data[element.start : element.end]
        elif element.tag == _FIRST_OPTION:
            return identifier, element
    return identifier, None


def _first(data: bytes, parent: _Element, tag: int) -> _Element:
    """Return the first child with this tag. Raises ValueError."""
    for element in _children(data, parent.start, parent.end):
        if element.tag == tag:
            return element
    raise ValueError("a value is missing")


def _octets(data: bytes, element: _Element, depth: int) -> Iterator[bytes]:
    """Yield the pieces of a byte string."""
    if depth > _MOST_NESTED:
        raise ValueError("nested too deeply")
    if element.tag == _OCTETS:
        yield data[element.start : element.end]
    elif element.tag == _OCTETS_IN_PIECES:
        for child in _children(data, element.start, element.end):
            yield from _octets(data, child, depth + 1)
    else:
        raise ValueError("no byte string")


def _children(
    data: bytes, start: int, end: int, *, whole: bool = True
) -> Iterator[_Element]:
    at = start
    while at < end:
        element = _element(data, at, 0, whole=whole)
        yield element
        at = element.following


def _element(data: bytes, at: int, depth: int, *, whole: bool = True) -> _Element:
    """Return the value at a place. Raises ValueError when it is none, or `whole` and cut off."""
    if depth > _MOST_NESTED or at + 2 > len(data):
        raise ValueError("nested too deeply, or cut off")
    tag = data[at]
    length = data[at + 1]
    start = at + 2
    if length == 0x80:
        # Its end is marked, not told.
        if not whole:
            return _Element(tag, start, len(data), len(data))
        inner = start
        while data[inner : inner + 2] != b"\0\0":
            inner = _element(data, inner, depth + 1).following
        return _Element(tag, start, inner, inner + 2)
    if length > 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[start : start + size])
        start += size
    end = start + length
    if end > len(data):
        if whole:
            raise ValueError("cut off")
        end = len(data)
    return _Element(tag, start, end, end)
