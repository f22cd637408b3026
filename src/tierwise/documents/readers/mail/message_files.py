"""Outlook's own files (.msg), made into an e-mail that the reader of .eml reads.

The file is an OLE container with a stream for each property ([MS-OXMSG]); olefile opens it.
"""

from __future__ import annotations

import base64
import datetime
import io
import struct
from email.utils import format_datetime
from typing import Any

from tierwise.documents.readers.mail.entity import to_text
from tierwise.documents.readers.mail.outlook import unpack_rtf
from tierwise.documents.readers.mail.reading import read_mail
from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.settings import Request
from tierwise.documents.readers.unpacking import DAMAGED, OLE
from tierwise.errors import DocumentError

_CLASS = 0x001A
_SUBJECT = 0x0037
_HEADERS = 0x007D
_SENT = 0x0039
_RECEIVED = 0x0E06
_SENDER_NAME = 0x0C1A
_SENDER_ADDRESSES = (0x5D01, 0x0C1F)
_TO = 0x0E04
_SENSITIVITY = 0x0036
_CODE_PAGE = 0x3FFD
_PLAIN = 0x1000
_RTF = 0x1009
_HTML = 0x1013
_LONG_NAME = 0x3707
_SHORT_NAME = 0x3704
_TYPE = 0x370E
_CONTENT_ID = 0x3712
_DATA = 0x3701
_UNICODE = 0x001F
_TEXT = 0x001E
_BINARY = 0x0102
_STORAGE = 0x000D
_LEVELS = {1: "Personal", 2: "Private", 3: "Company-Confidential"}
_ENTRY = struct.Struct("<HHI8s")  # type, name, flags, value
# Bytes before the entries: of the file, of a message in it, of an attachment.
_HEAD_OF_FILE = 32
_HEAD_OF_MESSAGE = 24
_HEAD_OF_ATTACHMENT = 8
_EPOCH = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)
_DEEPEST = 10
_MOST_ATTACHMENTS = 1000
_LINE = 57  # bytes of a line in base64

Folder = tuple[str, ...]


def read_msg(data: bytes, request: Request) -> Extracted:
    """Return an Outlook message as `read_mail` returns an e-mail. Raises DocumentError."""
    import olefile

    if not data.startswith(OLE):
        raise DocumentError(DAMAGED)
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as container:
            message = _Message(container, (), _HEAD_OF_FILE)
            if not message.is_message():
                raise DocumentError(
                    "it is no Outlook message; give it the ending of its real format"
                )
            mail = message.mail(0)
    except (OSError, ValueError, struct.error, IndexError) as error:
        raise DocumentError("the file is damaged; ask for a new copy") from error
    return read_mail(mail, request)


class _Message:
    """A message in the container: that of the file, or an attached one in a folder of it."""

    def __init__(self, container: Any, folder: Folder, head: int) -> None:
        self._container = container
        self._folder = folder
        self._values = self._fixed(folder, head)
        page = int.from_bytes(self._values.get(_CODE_PAGE, b"")[:4], "little")
        self._charset = f"cp{page}" if page and page != 65001 else "utf-8"

    def is_message(self) -> bool:
        """Return True where there is anything of a message."""
        names = (_CLASS, _SUBJECT, _PLAIN, _HTML, _RTF, _SENDER_NAME)
        return any(self._raw(self._folder, name) for name in names)

    def mail(self, depth: int) -> bytes:
        """Return the message as an e-mail with MIME parts."""
        if self._text(_CLASS).upper().startswith("IPM.NOTE.SMIME"):
            return self._secured()
        bodies = self._bodies()
        files = self._attachments(depth)
        if len(bodies) > 1:
            body = _multipart("alternative", bodies)
        elif bodies:
            body = bodies[0]
        else:
            body = _part("text/plain; charset=utf-8", b"")
        if files:
            body = _multipart("mixed", [body, *files])
        return self._headers() + body

    def _secured(self) -> bytes:
        """Return a signed or encrypted message: its one attachment is the whole of it."""
        for folder in self._folders():
            content = self._raw(folder, _DATA)
            kind = self._text(_TYPE, folder) or "application/pkcs7-mime"
            if kind.lower().startswith("multipart/"):
                return self._headers() + content
            return self._headers() + _part(f"{kind}; name=smime.p7m", content)
        return self._headers() + _part("application/pkcs7-mime; name=smime.p7m", b"")

    def _headers(self) -> bytes:
        """Return the lines of the headers that the reader shows."""
        sender = self._text(_SENDER_NAME)
        addresses = [self._text(name) for name in _SENDER_ADDRESSES]
        address = next((each for each in addresses if "@" in each), "")
        if address and address != sender:
            sender = f"{sender} <{address}>".strip()
        level = int.from_bytes(self._values.get(_SENSITIVITY, b"")[:4], "little")
        values = {
            "Subject": self._text(_SUBJECT),
            "From": sender,
            "To": self._text(_TO).rstrip("\0; "),
            "Date": self._date(),
            "Sensitivity": _LEVELS.get(level, ""),
        }
        lines = [_header(name, value) for name, value in values.items() if value]
        if not lines:
            # The reader takes a file without any header for something else.
            lines = [b"Subject: \r\n"]
        return b"".join(lines) + b"MIME-Version: 1.0\r\n"

    def _date(self) -> str:
        for name in (_SENT, _RECEIVED):
            ticks = int.from_bytes(self._values.get(name, b""), "little")
            if ticks:
                try:
                    moment = _EPOCH + datetime.timedelta(microseconds=ticks // 10)
                except OverflowError:
                    continue
                return format_datetime(moment)
        return ""

    def _bodies(self) -> list[bytes]:
        """Return the versions of the text. RTF alone where there is no other one."""
        bodies: list[bytes] = []
        plain = self._text(_PLAIN)
        if plain.strip():
            bodies.append(_part("text/plain; charset=utf-8", plain.encode()))
        html = self._raw(self._folder, _HTML, _BINARY)
        if not html:
            html = self._text(_HTML).encode()
        if html.strip():
            bodies.append(_part("text/html", html))
        packed = self._raw(self._folder, _RTF, _BINARY)
        if packed and not bodies:
            try:
                bodies.append(_part("text/rtf", unpack_rtf(packed)))
            except (ValueError, struct.error):
                bodies.append(_part("text/rtf", packed))
        return bodies

    def _folders(self) -> list[Folder]:
        """Return the folders of the attachments."""
        depth = len(self._folder)
        found: list[Folder] = []
        for path in self._container.listdir(streams=False, storages=True):
            is_here = len(path) == depth + 1 and tuple(path[:depth]) == self._folder
            if is_here and path[-1].startswith("__attach_version1.0_"):
                found.append(tuple(path))
        return sorted(found)[:_MOST_ATTACHMENTS]

    def _attachments(self, depth: int) -> list[bytes]:
        parts: list[bytes] = []
        for folder in self._folders():
            inner = (*folder, f"__substg1.0_{_DATA:04X}{_STORAGE:04X}")
            name = self._text(_LONG_NAME, folder) or self._text(_SHORT_NAME, folder)
            kind = self._text(_TYPE, folder).partition(";")[0].strip()
            if self._container.exists(list(inner)) and depth < _DEEPEST:
                message = _Message(self._container, inner, _HEAD_OF_MESSAGE)
                if message.is_message():
                    mail = message.mail(depth + 1)
                    parts.append(b"Content-Type: message/rfc822\r\n\r\n" + mail)
                    continue
            content = self._raw(folder, _DATA, _BINARY)
            disposition = "attachment"
            headers: list[bytes] = []
            content_id = self._text(_CONTENT_ID, folder)
            if content_id:
                disposition = "inline"
                headers.append(_header("Content-ID", f"<{content_id}>"))
            if not kind.isascii() or "/" not in kind:
                kind = "application/octet-stream"
            headers.append(_disposition(disposition, name))
            parts.append(_part(kind, content, headers))
        return parts

    def _text(self, name: int, folder: Folder | None = None) -> str:
        """Return a property that is a text."""
        where = self._folder if folder is None else folder
        wide = self._raw(where, name, _UNICODE)
        if wide:
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        narrow = self._raw(where, name, _TEXT)
        return to_text(narrow.rstrip(b"\0"), self._charset) if narrow else ""

    def _raw(self, folder: Folder, name: int, kind: int | None = None) -> bytes:
        """Return the bytes of a property that has a stream; empty where there is none."""
        for each in (kind,) if kind else (_UNICODE, _TEXT, _BINARY):
            path = [*folder, f"__substg1.0_{name:04X}{each:04X}"]
            if self._container.exists(path):
                with self._container.openstream(path) as stream:
                    return bytes(stream.read())
        return b""

    def _fixed(self, folder: Folder, head: int) -> dict[int, bytes]:
        """Return the properties without a stream, such as dates, by name."""
        path = [*folder, "__properties_version1.0"]
        if not self._container.exists(path):
            return {}
        with self._container.openstream(path) as stream:
            data = bytes(stream.read())[head:]
        values: dict[int, bytes] = {}
        for at in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
            _, name, _, value = _ENTRY.unpack_from(data, at)
            values[name] = value
        return values


def _header(name: str, value: str) -> bytes:
    """Return a header's line, its value in encoded words where it is not ASCII."""
    line = " ".join(value.split())
    if line.isascii():
        return f"{name}: {line}\r\n".encode()
    words = [
        _encoded_word(line[start : start + 12]) for start in range(0, len(line), 12)
    ]
    return f"{name}: {' '.join(words)}\r\n".encode()


def _encoded_word(text: str) -> str:
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return f"=?utf-8?b?{encoded}?="


def _disposition(kind: str, name: str) -> bytes:
    """Return the header with a file's name, as RFC 2231 writes it."""
    encoded = "".join(f"%{byte:02X}" for byte in name.encode("utf-8", "replace"))
    return f"Content-Disposition: {kind}; filename*=utf-8''{encoded}\r\n".encode()


def _part(kind: str, content: bytes, headers: list[bytes] | None = None) -> bytes:
    head = b"".join(headers or [])
    head += (
        f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
    )
    lines = [
        base64.b64encode(content[start : start + _LINE])
        for start in range(0, len(content), _LINE)
    ]
    return head + b"\r\n".join(lines)


def _multipart(kind: str, parts: list[bytes]) -> bytes:
    """Return parts between boundaries that none of them has."""
    number = 0
    while any(f"--part{number}".encode() in part for part in parts):
        number += 1
    boundary = f"part{number}"
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode()
    body = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts)
    return head + body + f"--{boundary}--\r\n".encode()
