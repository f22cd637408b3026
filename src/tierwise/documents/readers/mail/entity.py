"""A message or a part of one: headers, type and name, and the decoded content."""

from __future__ import annotations

import binascii
import codecs
import quopri
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import policy
from urllib.parse import unquote_to_bytes

from tierwise.documents.readers.decoding import decode
from tierwise.errors import DocumentError

MESSAGES = ("message/rfc822", "message/global", "message/news", "message/partial")
Headers = tuple[tuple[str, str], ...]

_HEADER_LINE = re.compile(rb"[!-9;-~]+[ \t]*:|[ \t]|>?From ")
_CHARSET = re.compile(rb'charset\s*=\s*"?([\w.:-]+)', re.IGNORECASE)
_KIND = re.compile(
    r"\s*([a-z0-9.+_-]{1,60}/[a-z0-9.+_-]{1,100})", re.IGNORECASE | re.ASCII
)
_ENCODING = re.compile(r"[A-Za-z0-9-]+")
_PARAMETER = re.compile(
    r'[;\s]\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_WORD = re.compile(r"=\?([^?\s*]+)(?:\*[^?\s]*)?\?([bq])\?([^?]*)\?=", re.IGNORECASE)
_WORDS = re.compile(rf"{_WORD.pattern}(?:\s*{_WORD.pattern})*", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]")
_SPACE = b" \t\r\n"
LONGEST_VALUE = 100_000  # of a header that is parsed; longer ones are cut
_LONGEST_STRUCTURE = 20_000  # of a header that says what a part is


@dataclass(frozen=True, slots=True)
class Entity:
    """A message or a part of one. `kind` is its media type, in lower case.

    `name` is its file name, empty when it has none. `disposition` is `inline`, `attachment` or
    empty.
    """

    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    kind: str
    parameters: Mapping[str, str] = field(repr=False)
    disposition: str
    name: str = field(repr=False)

    def header(self, name: str) -> str:
        """Return a header as it is in the file; empty when it is missing."""
        for key, value in self.headers:
            if key == name:
                return value
        return ""

    def shown(self, name: str) -> str:
        """Return a header decoded, on one line."""
        raw = self.header(name)[:LONGEST_VALUE]
        if not raw:
            return ""
        try:
            value = str(policy.default.header_factory(name, raw))
        except Exception:  # noqa: BLE001 - the standard parser raises a dozen errors on bad headers
            value = raw
        if "=?" in value or "\ufffd" in value or _has_surrogate(value):
            # Words in a wrong encoding, or a character that two words share.
            value = decode_words(raw)
        return " ".join(value.split())

    @property
    def charset(self) -> str | None:
        """The declared encoding of the text."""
        return self.parameters.get("charset", "").partition("(")[0].strip() or None

    @property
    def encoding(self) -> str:
        """The transfer encoding, in lower case."""
        match = _ENCODING.search(self.header("content-transfer-encoding"))
        return match[0].lower() if match else ""


@dataclass(frozen=True, slots=True)
class Content:
    """A part's decoded content.

    `tail` is plain text that stands behind base64, such as a mailing list's footer. `is_damaged`
    is True when a piece of the content is missing.
    """

    data: bytes = field(repr=False)
    tail: bytes = field(default=b"", repr=False)
    is_damaged: bool = False


def parse_entity(
    data: bytes, *, default_kind: str = "text/plain", is_part: bool = False
) -> Entity:
    """Return a message, or with `is_part` a part of one, from its bytes."""
    block, body = _split_headers(data)
    headers = _parse_headers(block)
    if is_part and not any(_describes_a_part(key) for key, _ in headers):
        # A text without headers, whose first line happens to have a colon.
        headers = ()
        body = _without_blank_line(data)
    if default_kind in MESSAGES and any(
        key in ("from", "subject") for key, _ in headers
    ):
        # A digest whose parts are the messages themselves.
        headers = ()
        body = data
    values = dict(reversed(headers))  # the first of equal names counts
    content_type = values.get("content-type", "")[:_LONGEST_STRUCTURE]
    match = _KIND.match(content_type)
    kind = match[1].lower() if match else default_kind
    parameters = _parse_parameters(
        content_type[match.end() :] if match else content_type
    )
    disposition_header = values.get("content-disposition", "")[:_LONGEST_STRUCTURE]
    disposition = disposition_header.partition(";")[0].strip().lower()
    disposition_parameters = _parse_parameters(";" + disposition_header)
    name = disposition_parameters.get("filename") or parameters.get("name", "")
    return Entity(headers, body, kind, parameters, disposition, name)


def _without_blank_line(data: bytes) -> bytes:
    return data.removeprefix(b"\r").removeprefix(b"\n")


def _describes_a_part(header: str) -> bool:
    return header.startswith(("content-", "mime-", "x-"))


def _split_headers(data: bytes) -> tuple[bytes, bytes]:
    """Return the header lines, and the body behind the blank line.

    The body begins earlier at a line that is no header, as mailers forget the blank line.
    """
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        following = len(data) if end < 0 else end + 1
        if not data[at:following].strip(b"\r\n"):
            return data[:at], data[following:]
        if not _HEADER_LINE.match(data, at):
            return data[:at], data[at:]
        at = following
    return data, b""


def _parse_headers(block: bytes) -> Headers:
    """Return the names in lower case, and the values without their line ends."""
    lines: list[list[str]] = []
    for line in re.split(r"\r?\n", _header_text(block)):
        if line[:1] in (" ", "\t") and lines:
            lines[-1].append(line)
        elif ":" in line:
            lines.append([line])
    headers = []
    for folded in lines:
        name, _, value = "".join(folded).partition(":")
        headers.append((name.strip().lower(), value.strip()))
    return tuple(headers)


def _header_text(block: bytes) -> str:
    """Decode headers: ASCII by the standard, UTF-8 or the body's encoding in practice."""
    declared = _CHARSET.search(block)
    return to_text(block, declared[1].decode() if declared else None, first="utf-8")


def to_text(data: bytes, charset: str | None, *, first: str | None = None) -> str:
    """Decode a short text, with replacement characters where nothing fits."""
    for name in (first, charset):
        try:
            if name:
                return data.decode(codecs.lookup(name).name)
        except (LookupError, ValueError):
            continue
    try:
        return decode(data, charset)[0]
    except DocumentError:
        return data.decode("utf-8", "replace")


def _parse_parameters(text: str) -> dict[str, str]:
    """Return a header's parameters, with those of RFC 2231 (`name*0*=…`) put together."""
    parameters: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for match in _PARAMETER.finditer(text):
        name = match[1].lower()
        value = _unquote(match[2].strip())
        base, star, rest = name.partition("*")
        if star:
            number = rest.rstrip("*")
            index = int(number) if number.isascii() and number.isdigit() else 0
            pieces.setdefault(base, {})[index] = (value, name.endswith("*"))
        else:
            parameters.setdefault(name, decode_words(value))
    for base, numbered in pieces.items():
        parameters[base] = _join_pieces([numbered[index] for index in sorted(numbered)])
    return parameters


def _unquote(value: str) -> str:
    if value.startswith('"'):
        return _ESCAPED.sub(r"\1", value.strip('"'))
    return value


def _join_pieces(pieces: list[tuple[str, bool]]) -> str:
    """Decode a parameter whose first piece may say its encoding: `utf-8'en'na%C3%AFve`."""
    charset = None
    data = b""
    for index, (value, is_encoded) in enumerate(pieces):
        text = value
        if index == 0 and is_encoded and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        raw = text.encode("utf-8", "surrogatepass")
        data += unquote_to_bytes(raw) if is_encoded else raw
    return to_text(data, charset or None)


def decode_words(text: str) -> str:
    """Decode the encoded words of RFC 2047, also where they must not be."""
    if "=?" not in text:
        return text
    return _WORDS.sub(_decode_run, text)


def _decode_run(run: re.Match[str]) -> str:
    """Decode words that follow each other; a character may be split between two of them."""
    pieces: list[tuple[str, bytes]] = []
    for word in _WORD.finditer(run[0]):
        charset = word[1].lower()
        payload = word[3].encode("utf-8", "surrogatepass")
        if word[2].lower() == "b":
            data = _decode_base64(payload).data
        else:
            data = quopri.decodestring(payload, header=True)
        if pieces and pieces[-1][0] == charset:
            data = pieces.pop()[1] + data
        pieces.append((charset, data))
    return "".join(to_text(data, charset) for charset, data in pieces)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def decode_content(entity: Entity) -> Content:
    """Undo the transfer encoding, as far as it goes."""
    encoding = entity.encoding
    if encoding == "base64":
        return _decode_base64(entity.body)
    if encoding == "quoted-printable":
        return Content(quopri.decodestring(entity.body))
    return Content(entity.body)


def _decode_base64(body: bytes) -> Content:
    """Decode base64 that may be damaged, cut off, or followed by plain text."""
    compact = body.translate(None, _SPACE)
    if len(compact) % 4 == 0 and _BASE64.fullmatch(compact):
        return Content(binascii.a2b_base64(compact))
    decoded = bytearray()
    pending = b""
    is_damaged = False
    at = 0
    for line in body.splitlines(keepends=True):
        stripped = line.strip(_SPACE)
        if _is_plain_text(stripped):
            break
        at += len(line)
        if _NOT_BASE64.search(stripped):
            is_damaged = True
            pending = b""
            continue
        for run in _BASE64_RUN.findall(stripped):
            pending += run
            whole = len(pending) // 4 * 4
            if run.endswith(b"="):
                decoded += _decode_quads(pending)
                pending = b""
            else:
                decoded += _decode_quads(pending[:whole])
                pending = pending[whole:]
    # What is left of the last four characters holds at most two bytes.
    decoded += _decode_quads(pending)
    return Content(bytes(decoded), body[at:], is_damaged or len(pending) % 4 == 1)


def _is_plain_text(line: bytes) -> bool:
    """Return True for a line that is no base64, not even a damaged one."""
    foreign = len(_NOT_BASE64.findall(line))
    has_words = any(space in line for space in b" \t")
    return bool(foreign) and (has_words or foreign > len(line) / 10)


def _decode_quads(data: bytes) -> bytes:
    """Decode base64 of any length; a last character that stands alone is left out."""
    data = data.rstrip(b"=")
    if len(data) % 4 == 1:
        data = data[:-1]
    return binascii.a2b_base64(data + b"=" * (-len(data) % 4))
