"""What editors and mailbox files do to a message."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tierwise.documents.readers.decoding import byte_order_mark, decode

# An envelope line of a mailbox file, with the first header of its message.
_NEXT_MESSAGE = re.compile(rb"\n\r?\nFrom \S[^\n]*\d{4}\r?\n(?=[!-9;-~]+:)")
_LEADING_BLANK_LINES = re.compile(rb"(?:[ \t]*\r?\n)+")
_PROBE_BYTES = 200


@dataclass(frozen=True, slots=True)
class SavedMail:
    """The messages of a file, one unless it is a mailbox.

    `charset` is the encoding of 8-bit text, whatever the headers declare: the editor that saved
    the file converted it. It is None for a file that no editor converted.
    """

    messages: tuple[bytes, ...] = field(repr=False)
    charset: str | None = None


def open_saved(data: bytes) -> SavedMail:
    """Return the messages of a file. Raises DocumentError when it is cut UTF-16."""
    charset = None
    wide = _wide_encoding(data)
    if wide:
        data = data.decode(wide, "replace").encode()
        charset = "utf-8"
    elif byte_order_mark(data):
        text, _ = decode(data)
        data = text.encode("utf-8", "surrogatepass")
        charset = "utf-8"
    data = _with_plain_line_ends(data)
    blank = _LEADING_BLANK_LINES.match(data)
    if blank:
        data = data[blank.end() :]
    if not data.startswith(b"From "):
        return SavedMail((data,), charset)
    return SavedMail(tuple(_NEXT_MESSAGE.split(data)), charset)


def _wide_encoding(data: bytes) -> str | None:
    """Return UTF-16's name for a text in it that has no byte order mark."""
    probe = data[:_PROBE_BYTES]
    if len(probe) < 8 or byte_order_mark(data):
        return None
    even = probe[::2].count(0)
    odd = probe[1::2].count(0)
    # Headers are ASCII but for a few letters: nearly every second byte is zero.
    most = len(probe) * 0.4
    if odd > most and not even:
        return "utf-16-le"
    if even > most and not odd:
        return "utf-16-be"
    return None


def _with_plain_line_ends(data: bytes) -> bytes:
    """Mend line ends that a transfer doubled (CR CR LF) or left without LF."""
    if b"\n" not in data:
        return data.replace(b"\r", b"\n")
    if b"\r\r\n" in data[:_PROBE_BYTES]:
        return data.replace(b"\r\r\n", b"\n")
    return data
