"""E-mails as mail programs, scanners and servers send them, byte by byte."""

from __future__ import annotations

import base64
import itertools
import quopri
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

HEADERS = (
    b"From: Ann <ann@example.org>\r\nTo: desk@example.com\r\nSubject: Order 7\r\n"
    b"Date: Mon, 23 Nov 2026 09:00:00 +0100\r\nMIME-Version: 1.0\r\n"
)


def message(part: bytes, headers: bytes = HEADERS) -> bytes:
    """A message that consists of one part, which may be a multipart."""
    return headers + part


def part(
    content: str | bytes,
    kind: str = "text/plain",
    *,
    charset: str = "utf-8",
    encoding: str = "8bit",
    headers: Sequence[str] = (),
) -> bytes:
    """A part: its headers, a blank line, its encoded content."""
    data = content
    parameters = ""
    if isinstance(data, str):
        data = data.encode(charset)
        parameters = f"; charset={charset}"
    if encoding == "base64":
        data = base64.encodebytes(data).replace(b"\n", b"\r\n")
    elif encoding == "quoted-printable":
        data = quopri.encodestring(data)
    lines = [f"Content-Type: {kind}{parameters}"]
    lines += [f"Content-Transfer-Encoding: {encoding}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


def attached(content: bytes, name: str, kind: str = "application/pdf") -> bytes:
    """An attached file."""
    disposition = f'Content-Disposition: attachment; filename="{name}"'
    return part(content, kind, encoding="base64", headers=[disposition])


def forwarded(original: bytes) -> bytes:
    """A message as an attachment of another one."""
    return (
        b"Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n"
        + original
    )


def multipart(
    kind: str,
    *parts: bytes,
    boundary: str = "b0",
    named: str | None = None,
    end: str = "--",
) -> bytes:
    """Parts between boundaries; the header may name another boundary, or the end be missing."""
    header = f'Content-Type: multipart/{kind}; boundary="{boundary if named is None else named}"'
    if named == "":
        header = f"Content-Type: multipart/{kind}"
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), piece) for piece in parts)
    last = f"--{boundary}{end}\r\n".encode() if end else b""
    return header.encode() + b"\r\n\r\n" + body + last


def calendar(summary: str, description: str = "", method: str = "REQUEST") -> str:
    lines = [
        "BEGIN:VCALENDAR",
        f"METHOD:{method}",
        "BEGIN:VTIMEZONE",
        "TZID:Europe/Berlin",
        "BEGIN:STANDARD",
        "DTSTART:19701025T030000",
        "END:STANDARD",
        "END:VTIMEZONE",
        "BEGIN:VEVENT",
        f"SUMMARY:{summary}",
        "DTSTART;TZID=Europe/Berlin:20261201T090000",
        "DTEND:20261201T093000Z",
        "LOCATION:Hall 3\\, gate B",
        'ORGANIZER;CN="Marsh, Ann":mailto:ann@example.org',
        "ATTENDEE;ROLE=REQ-PARTICIPANT;RSVP=TRUE;CN=Desk:mailto:desk@example.com",
        f"DESCRIPTION:{description[:40]}",
        f" {description[40:]}",
        "BEGIN:VALARM",
        "DESCRIPTION:Reminder",
        "END:VALARM",
        "END:VEVENT",
        "END:VCALENDAR",
    ]
    return "\r\n".join(lines)


# --- winmail.dat ---------------------------------------------------------------------------------


def winmail(
    *,
    body: bytes = b"",
    properties: dict[int, tuple[int, bytes]] | None = None,
    files: Sequence[tuple[str, bytes]] = (),
) -> bytes:
    """Outlook's own format, with a body, MAPI properties (number: type, value) and files."""
    data = struct.pack("<IH", 0x223E9F78, 1)
    data += _attribute(1, 0x00069007, struct.pack("<II", 1252, 0))
    if body:
        data += _attribute(1, 0x0002800C, body + b"\0")
    if properties:
        data += _attribute(1, 0x00069003, _mapi(properties))
    for name, content in files:
        data += _attribute(2, 0x00069002, b"\0" * 14)
        data += _attribute(2, 0x00018010, name.encode("cp1252") + b"\0")
        data += _attribute(2, 0x0006800F, content)
    return data


def _attribute(level: int, name: int, value: bytes) -> bytes:
    head = struct.pack("<BII", level, name, len(value))
    return head + value + struct.pack("<H", sum(value) & 0xFFFF)


def _mapi(properties: dict[int, tuple[int, bytes]]) -> bytes:
    # Before those that count: a number, a truth value, and a property with a name.
    data = struct.pack("<I", len(properties) + 3)
    data += struct.pack("<HHI", 0x0003, 0x0017, 1)
    data += struct.pack("<HHI", 0x000B, 0x0E1F, 1)
    data += struct.pack(
        "<HH16sII8sII4s", 0x001E, 0x8001, b"g" * 16, 1, 6, b"a\0b\0\0\0", 1, 2, b"x"
    )
    for number, (kind, value) in properties.items():
        padding = b"\0" * (-len(value) % 4)
        data += struct.pack("<HHII", kind, number, 1, len(value)) + value + padding
    return data


def plain_compressed_rtf(rtf: bytes) -> bytes:
    """RTF in Outlook's compression, without a repetition used."""
    packed = b""
    for start in range(0, len(rtf), 8):
        packed += b"\0" + rtf[start : start + 8]
    return struct.pack("<II4sI", len(packed) + 12, len(rtf), b"LZFu", 0) + packed


# --- S/MIME --------------------------------------------------------------------------------------

SIGNED = bytes.fromhex("06092a864886f70d010702")
ENVELOPED = bytes.fromhex("06092a864886f70d010703")
_DATA = bytes.fromhex("06092a864886f70d010701")
_VERSION_AND_DIGESTS = bytes.fromhex("020101") + bytes.fromhex("3100")


def _value(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size) + content


def _open_value(tag: int, content: bytes) -> bytes:
    return bytes([tag, 0x80]) + content + b"\0\0"


def smime(content: bytes, kind: bytes = SIGNED, *, streamed: bool = False) -> bytes:
    """A CMS envelope; streamed ones have no lengths, and their content in pieces."""
    if streamed:
        pieces = b"".join(
            _value(0x04, content[start : start + 50])
            for start in range(0, len(content), 50)
        )
        octets = _open_value(0x24, pieces)
        wrap = _open_value
    else:
        octets = _value(0x04, content)
        wrap = _value
    inner = wrap(0x30, _DATA + wrap(0xA0, octets))
    signed = wrap(0x30, _VERSION_AND_DIGESTS + inner + bytes.fromhex("3100"))
    return wrap(0x30, kind + wrap(0xA0, signed))


# --- one of each kind ----------------------------------------------------------------------------


def samples() -> tuple[bytes, ...]:
    """One mail of each kind that is read in a way of its own, for damage to be done to it."""
    lamp = "The lamp is late."
    event = part(calendar("Delivery"), "text/calendar", encoding="quoted-printable")
    outlook = winmail(
        body=lamp.encode(),
        properties={
            0x1009: (0x102, plain_compressed_rtf(rb"{\rtf1\ansi lamp\'fc\par}"))
        },
        files=[("plan.pdf", b"%PDF")],
    )
    return (
        message(
            multipart(
                "alternative", part("Use HTML."), part(f"<p>{lamp}", "text/html"), event
            )
        ),
        message(
            multipart(
                "mixed", part(lamp), forwarded(message(part(lamp, encoding="base64")))
            )
        ),
        message(
            multipart(
                "mixed",
                part(""),
                attached(outlook, "winmail.dat", "application/ms-tnef"),
            )
        ),
        message(
            multipart("digest", forwarded(message(part(lamp))), named="other", end="")
        ),
        message(part(smime(part(lamp)), "application/pkcs7-mime", encoding="base64")),
        message(
            part(
                smime(part(lamp), streamed=True),
                "application/pkcs7-mime",
                encoding="8bit",
            )
        ),
        message(part(f"See\nbegin 644 a.txt\n#0V%T\n`\nend\n{lamp}")),
        message(
            part(rb"{\rtf1{\fonttbl{\f1\fcharset204 A;}}\f1\'cf\u8364?}", "text/rtf")
        ),
        message(part("<bold>lamp</bold><<", "text/enriched")),
        message(part("The la \r\n> is \r\n", "text/plain; format=flowed; delsp=yes")),
        b"From a Mon Nov 23 09:00:00 2026\n" + message(part(lamp)) * 2,
        message(part(lamp)).decode().encode("utf-16"),
        b"Subject: =?utf-8?B?R3LD?= =?utf-8?q?=C3=A4?=\r\n"
        b"Content-Disposition: attachment; filename*0*=utf-8''Gr%C3%B6; filename*1=e.pdf\r\n\r\nx",
    )


# --- any mail, with a marker in every part -------------------------------------------------------

_CHARSETS = ("utf-8", "iso-8859-1", "windows-1252", "utf-16", "iso-8859-15")
_ENCODINGS = ("8bit", "quoted-printable", "base64")


@dataclass
class MarkedMail:
    """A mail, the markers of its texts, and those of its attachments by the attachments' names.

    `subjects` are markers in the subjects of attached messages.
    """

    data: bytes
    markers: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    attached: dict[str, str] = field(default_factory=dict)


class _Maker:
    """Draws the parts of one mail; each boundary and marker is used once."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.numbers = itertools.count(1)
        self.mail = MarkedMail(b"")

    def marker(self) -> str:
        word = self.word()
        self.mail.markers.append(word)
        return word

    def word(self) -> str:
        return f"marke{next(self.numbers)}ß"

    def text(self, kind: str = "text/plain") -> bytes:
        charset = self.draw(st.sampled_from(_CHARSETS))
        encoding = self.draw(st.sampled_from(_ENCODINGS))
        if charset == "utf-16":
            encoding = "base64"
        words = self.draw(
            st.lists(st.sampled_from(["The", "lamp", "is", "late"]), max_size=8)
        )
        content = " ".join([*words, self.marker(), "äöü."]) + "\n"
        if kind == "text/html":
            content = f"<html><body><p>{content}</p></body></html>"
        return part(content, kind, charset=charset, encoding=encoding)

    def file(self) -> bytes:
        number = next(self.numbers)
        name = f"file{number}.bin"
        word = f"datei{number}"
        self.mail.attached[name] = word
        return attached(word.encode(), name, "application/octet-stream")

    def invitation(self) -> bytes:
        return part(calendar(self.marker(), self.marker()), "text/calendar")

    def forward(self, depth: int) -> bytes:
        word = self.word()
        self.mail.subjects.append(word)
        subject = f"Subject: {word}\r\n".encode()
        return forwarded(message(self.part(depth + 1), subject))

    def group(self, depth: int) -> bytes:
        kind = self.draw(
            st.sampled_from(
                ["mixed", "related", "alternative", "report", "digest", "signed"]
            )
        )
        boundary = f"=_{next(self.numbers)}=:?"
        count = self.draw(st.integers(1, 3))
        if kind == "digest":
            parts = [self.forward(depth) for _ in range(count)]
        else:
            parts = [self.part(depth + 1) for _ in range(count)]
        if kind == "alternative":
            parts = [self.text(), self.text("text/html"), *parts]
        return multipart(kind, *parts, boundary=boundary)

    def part(self, depth: int = 0) -> bytes:
        kinds = ["plain", "html", "file", "invitation"]
        if depth < 4:
            kinds += ["group", "group", "forward"]
        kind = self.draw(st.sampled_from(kinds))
        if kind == "group":
            return self.group(depth)
        if kind == "forward":
            return self.forward(depth)
        if kind == "file":
            return self.file()
        if kind == "invitation":
            return self.invitation()
        return self.text(f"text/{kind}")


@st.composite
def marked_mails(draw: st.DrawFn) -> MarkedMail:
    """Mails of nested parts, with a marker in each of them."""
    maker = _Maker(draw)
    content = maker.group(0)
    maker.mail.data = message(content)
    return maker.mail
