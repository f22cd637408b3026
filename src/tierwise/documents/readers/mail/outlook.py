"""winmail.dat: Outlook's own format (TNEF), with the text and the attached files of a mail.

The format is described in [MS-OXTNEF] and [MS-OXCDATA], its compressed RTF in [MS-OXRTFCP].
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from tierwise.documents.readers.html import html_to_text
from tierwise.documents.readers.mail.entity import to_text
from tierwise.documents.readers.rtf import rtf_to_text

_SIGNATURE = b"\x78\x9f\x3e\x22"
_ATTRIBUTE = struct.Struct("<BII")  # level, name, length
_NUMBER = struct.Struct("<I")
_TYPE_AND_NAME = struct.Struct("<HH")

_BODY = 0x0002800C
_CODE_PAGE = 0x00069007
_PROPERTIES = 0x00069003
_ATTACHMENT_BEGINS = 0x00069002
_ATTACHMENT_NAME = 0x00018010
_ATTACHMENT_DATA = 0x0006800F
_ATTACHMENT_PROPERTIES = 0x00069005

_PLAIN = 0x1000
_RTF = 0x1009
_HTML = 0x1013
_LONG_NAME = 0x3707
_CONTENT = 0x3701
_TEXT = 0x001E
_UNICODE = 0x001F
_OBJECT = 0x000D
_BINARY = 0x0102
_SEVERAL = 0x1000  # a flag of the type
_IN_PIECES = (_TEXT, _UNICODE, _OBJECT, _BINARY)
_SIZES = {2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 10: 4, 11: 4, 20: 8, 64: 8, 72: 16}

_RTF_START = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern "
    b"\\fscript \\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0"
    b"\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)
_WINDOW = 4096


@dataclass(slots=True)
class OutlookFile:
    """A file inside winmail.dat."""

    name: str = field(default="", repr=False)
    data: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class OutlookMail:
    """The content of winmail.dat. `is_complete` is False when its end is missing or damaged."""

    texts: list[str] = field(default_factory=list, repr=False)
    files: list[OutlookFile] = field(default_factory=list, repr=False)
    is_complete: bool = True


def read_outlook(data: bytes) -> OutlookMail:
    """Return the text and the files of winmail.dat, as far as it can be read."""
    mail = OutlookMail()
    charset = None
    bodies: dict[int, str] = {}
    if not data.startswith(_SIGNATURE):
        return OutlookMail(is_complete=False)
    try:
        for name, value in _attributes(data):
            if name == _CODE_PAGE:
                charset = f"cp{_NUMBER.unpack_from(value)[0]}"
            elif name == _BODY:
                bodies[_PLAIN] = to_text(value.rstrip(b"\0"), charset)
            elif name == _PROPERTIES:
                bodies.update(_bodies(value, charset))
            elif name == _ATTACHMENT_BEGINS:
                mail.files.append(OutlookFile())
            elif mail.files:
                _complete_file(mail.files[-1], name, value, charset)
    except (ValueError, struct.error, IndexError):
        mail.is_complete = False
    # The same text in up to three formats: the first one is enough.
    for body in (_PLAIN, _HTML, _RTF):
        if bodies.get(body, "").strip():
            mail.texts.append(bodies[body])
            break
    return mail


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield names and values. Raises ValueError where one is cut off."""
    at = len(_SIGNATURE) + 2
    while at < len(data):
        _, name, length = _ATTRIBUTE.unpack_from(data, at)
        start = at + _ATTRIBUTE.size
        at = start + length + 2  # a sum of its bytes follows
        if at > len(data):
            raise ValueError("cut off")
        yield name, data[start : start + length]


def _complete_file(
    file: OutlookFile, name: int, value: bytes, charset: str | None
) -> None:
    if name == _ATTACHMENT_NAME and not file.name:
        file.name = to_text(value.rstrip(b"\0"), charset)
    elif name == _ATTACHMENT_DATA:
        file.data = value
    elif name == _ATTACHMENT_PROPERTIES:
        for number, kind, content in _properties(value):
            if number == _LONG_NAME:
                file.name = _property_text(kind, content, charset)
            elif number == _CONTENT and not file.data:
                file.data = content


def _bodies(value: bytes, charset: str | None) -> dict[int, str]:
    bodies: dict[int, str] = {}
    for number, kind, content in _properties(value):
        if number == _PLAIN:
            bodies[_PLAIN] = _property_text(kind, content, charset)
        elif number == _HTML:
            bodies[_HTML] = html_to_text(_property_text(kind, content, charset))
        elif number == _RTF:
            bodies[_RTF] = rtf_to_text(unpack_rtf(content).decode("latin-1"))
    return bodies


def _property_text(kind: int, content: bytes, charset: str | None) -> str:
    if kind == _UNICODE:
        return content.decode("utf-16-le", "replace").rstrip("\0")
    return to_text(content.rstrip(b"\0"), charset)


def _properties(value: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, type and content of the properties. Raises ValueError and struct.error."""
    (count,) = _NUMBER.unpack_from(value)
    at = _NUMBER.size
    for _ in range(count):
        kind, number = _TYPE_AND_NAME.unpack_from(value, at)
        at += _TYPE_AND_NAME.size
        if number >= 0x8000:
            at = _behind_name(value, at)
        single = kind & ~_SEVERAL
        values = 1
        if kind & _SEVERAL or single in _IN_PIECES:
            (values,) = _NUMBER.unpack_from(value, at)
            at += _NUMBER.size
        for _ in range(values):
            if single in _IN_PIECES:
                (length,) = _NUMBER.unpack_from(value, at)
                at += _NUMBER.size
            elif single in _SIZES:
                length = _SIZES[single]
            else:
                raise ValueError("a type that is unknown")
            if at + length > len(value):
                raise ValueError("cut off")
            yield number, single, value[at : at + length]
            at += length + -length % 4


def _behind_name(value: bytes, at: int) -> int:
    """Return where a named property goes on behind its name."""
    at += 16
    (kind,) = _NUMBER.unpack_from(value, at)
    at += _NUMBER.size
    length: int = _NUMBER.unpack_from(value, at)[0]
    at += _NUMBER.size
    if kind == 0:  # the name is a number
        return at
    return at + length + -length % 4


def unpack_rtf(data: bytes) -> bytes:
    """Decompress RTF. Raises ValueError and struct.error."""
    _, size, kind, _ = struct.unpack_from("<II4sI", data)
    packed = data[16:]
    if kind == b"MELA":
        return packed[:size]
    if kind != b"LZFu":
        raise ValueError("an unknown compression")
    text = bytearray(_RTF_START)
    at = 0
    while at < len(packed) and len(text) - len(_RTF_START) < size:
        flags = packed[at]
        at += 1
        for bit in range(8):
            if at >= len(packed):
                break
            if not flags >> bit & 1:
                text.append(packed[at])
                at += 1
                continue
            if at + 1 >= len(packed):
                break
            reference = packed[at] << 8 | packed[at + 1]
            at += 2
            offset = reference >> 4
            if offset == len(text) % _WINDOW:
                # A reference to the place that is written next is the end.
                return bytes(text[len(_RTF_START) :])
            _repeat(text, offset, (reference & 15) + 2)
    return bytes(text[len(_RTF_START) :])


def _repeat(text: bytearray, offset: int, length: int) -> None:
    """Append bytes that stand at an offset of the last 4,096 ones."""
    distance = (len(text) - offset) % _WINDOW
    start = len(text) - distance
    if start < 0:
        raise ValueError("a reference before the begin")
    for index in range(start, start + length):
        text.append(text[index])
