"""The walk over a mail's parts: each one is read, or kept as left out."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Sequence

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.html import declared_charset, html_content
from tierwise.documents.readers.mail.alternatives import (
    has_text,
    lines_with_more,
    merge_versions,
    words_of,
)
from tierwise.documents.readers.mail.blocks import cut_pgp, cut_uuencoded
from tierwise.documents.readers.mail.entity import (
    LONGEST_VALUE,
    MESSAGES,
    Content,
    Entity,
    decode_content,
    parse_entity,
)
from tierwise.documents.readers.mail.invitations import calendar_to_text
from tierwise.documents.readers.mail.left_out import (
    OUTLOOK,
    LeftOut,
    LeftOutStatus,
    left_out,
)
from tierwise.documents.readers.mail.markup import (
    enriched_to_text,
    unflow,
)
from tierwise.documents.readers.mail.multipart import (
    Multipart,
    Piece,
    is_note_to_old_programs,
    split_parts,
    starts_with_boundary,
)
from tierwise.documents.readers.mail.outlook import read_outlook
from tierwise.documents.readers.mail.signed import envelope_of, signed_content
from tierwise.documents.readers.rtf import rtf_to_text
from tierwise.errors import DocumentError

_SHOWN_HEADERS = ("From", "To", "Date", "Subject")

_CALENDARS = ("text/calendar", "application/ics")
_HTML = ("text/html", "application/xhtml+xml", "text/x-amp-html", "text/watch-html")
_RTF = ("text/rtf", "application/rtf")
_ENRICHED = ("text/enriched", "text/richtext")
# Texts that no reader of a mail sees.
_HIDDEN_TEXTS = ("text/css", "text/javascript", "text/vcard", "text/x-vcard")
_SMIME = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_ENCRYPTED = ("multipart/encrypted", "application/x-microsoft-rpmsg-message")
_PGP_PARTS = ("application/pgp-encrypted",)
_SIGNATURES = (
    "application/pkcs7-signature",
    "application/x-pkcs7-signature",
    "application/pgp-signature",
)
_UNKNOWN_FILES = ("application/octet-stream", "application/x-download")
_TEXT_ENDINGS = (".txt", ".md", ".csv", ".html", ".htm", ".log")
_PGP_START = b"-----BEGIN PGP MESSAGE"

_MOST_NESTED = 50
_MOST_PARTS = 5000
_MOST_VERSIONS = 20
# Bytes: logos and the like have fewer, scans and photographs have more.
_LARGEST_LAYOUT_PICTURE = 50_000
_MOST_ZEROS = 0.1  # of the bytes of a text
_LARGEST_TEXT_ATTACHMENT = 200_000  # bytes


class PartReader:
    """Reads a mail part by part. What is not in the returned texts is in `left_out` or `doubts`.

    `charset` is the encoding of 8-bit text when an editor converted the file. `has_text` is True
    when more was read than headers and pictures.
    """

    def __init__(self, charset: str | None = None) -> None:
        self.charset = charset
        self.has_text = False
        self.left_out: list[LeftOut] = []
        self.doubts: list[str] = []  # what else may be missing
        self.pictures: list[str] = []  # shown in place of text, and not in the mail
        self.declared: list[str] = []  # sensitivity, in the messages' words
        self.notes: dict[str, str] = {}
        self._outlook_texts: list[str] = []
        self._calendars: set[str] = set()
        self._parts = 0

    def read_message(self, message: Entity) -> list[str]:
        """Return a message's texts, without its headers."""
        self.declared.append(message.shown("sensitivity").casefold())
        self._note_cut_headers(message)
        parts = None
        if not message.header("content-type") and starts_with_boundary(message.body):
            parts = split_parts(message.body, "")
        if parts:
            self._note_missing_end(parts)
            texts = self._pieces(parts, "text/plain", 0)
        else:
            texts = self._read(message, 0, is_root=True)
        for outlook_text in self._outlook_texts:
            # Most mails have the same text twice.
            known = words_of("\n".join(texts))
            more = lines_with_more(outlook_text, known) if known else outlook_text
            if has_text(more):
                texts.append(more)
                self.has_text = True
        return texts

    def read_attached(self, data: bytes, depth: int = 0) -> list[str]:
        """Return a message inside another one as text, with its headers."""
        message = parse_entity(data)
        self.declared.append(message.shown("sensitivity").casefold())
        self._note_cut_headers(message)
        lines = ["---------- Attached message ----------"]
        for name in _SHOWN_HEADERS:
            value = message.shown(name.lower())
            if value:
                lines.append(f"{name}: {value}")
        body = join_texts(self._read(message, depth + 1))
        lines += ["", body.strip(), "---------- End of attached message ----------"]
        return ["\n".join(lines)]

    def read_text_attachments(self) -> list[str]:
        """Return the small attachments that are text, for a mail that has no other one."""
        texts: list[str] = []
        for index, part in enumerate(self.left_out):
            if part.status != "attached" or not _is_text_file(part):
                continue
            with contextlib.suppress(DocumentError):
                text = self._decode(Content(part.data), part.kind, part.charset)
                if has_text(text):
                    texts.append(text)
                    self.has_text = True
                    self._set_read(index)
        return texts

    def _set_read(self, index: int) -> None:
        part = self.left_out[index]
        self.left_out[index] = left_out(
            part.name, part.data, status="read", kind=part.kind
        )

    # --- the kinds of parts ----------------------------------------------------------------------

    def _read(self, entity: Entity, depth: int, *, is_root: bool = False) -> list[str]:
        """Return the texts of a part, in their order."""
        self._parts += 1
        kind = entity.kind
        if depth > _MOST_NESTED:
            return self._leave_out(
                entity,
                "unreadable",
                f"a part nested more than {_MOST_NESTED} levels deep",
            )
        if kind in _ENCRYPTED:
            return self._leave_out(entity, "encrypted", "an encrypted part")
        if kind.startswith("multipart/"):
            return self._multipart(entity, depth, is_root=is_root)
        if kind in MESSAGES or _is_message_file(entity):
            return self._attached_message(entity, depth)
        if kind in _SIGNATURES or entity.name.lower().endswith(".p7s"):
            return self._leave_out(entity, "signature")
        if kind in _SMIME or entity.name.lower().endswith(".p7m"):
            return self._smime(entity, depth)
        if kind in OUTLOOK or entity.name.lower() == "winmail.dat":
            return self._outlook(entity)
        if kind in _CALENDARS:
            return self._calendar(entity)
        if self._is_file(entity):
            return self._file(entity)
        return self._text(entity)

    def _is_file(self, entity: Entity) -> bool:
        """Return True for a part that mail programs show as an attached file."""
        kind = entity.kind
        is_attached = entity.disposition == "attachment"
        if is_attached and not entity.name and kind in ("text/plain", "text/html"):
            # A text that some servers mark so: it is no file.
            return False
        if is_attached or kind in _HIDDEN_TEXTS:
            return True
        if kind in (*_HTML, *_RTF):
            return False
        if kind == "message/external-body":
            return True
        return not kind.startswith(("text/", "message/"))

    def _multipart(self, entity: Entity, depth: int, *, is_root: bool) -> list[str]:
        parts = split_parts(entity.body, entity.parameters.get("boundary", ""))
        if parts is None and entity.encoding in ("base64", "quoted-printable"):
            body = decode_content(entity).data
            parts = split_parts(body, entity.parameters.get("boundary", ""))
        if parts is None:
            # No boundary at all: whatever is there is text.
            return self._text(entity)
        if is_root:
            self._note_missing_end(parts)
        if entity.kind == "multipart/alternative":
            return self._alternatives(parts, depth)
        is_digest = entity.kind == "multipart/digest"
        return self._pieces(
            parts, "message/rfc822" if is_digest else "text/plain", depth
        )

    def _note_cut_headers(self, message: Entity) -> None:
        for name in _SHOWN_HEADERS:
            if len(message.header(name.lower())) > LONGEST_VALUE:
                self.doubts.append(f"the end of its header {name}")

    def _note_missing_end(self, parts: Multipart) -> None:
        if not parts.is_closed:
            self.doubts.append(
                "what came after its end, as its closing boundary is missing"
            )

    def _pieces(self, parts: Multipart, default_kind: str, depth: int) -> list[str]:
        """Return the texts of all parts, and those between them."""
        texts: list[str] = []
        for index, piece in enumerate(parts.pieces):
            if self._parts >= _MOST_PARTS:
                self._leave_out_rest(parts.pieces[index:])
                break
            if piece.is_part:
                part = parse_entity(piece.data, default_kind=default_kind, is_part=True)
                texts += self._read(part, depth + 1)
            else:
                texts += self._between(piece.data, is_first=index == 0)
        return texts

    def _leave_out_rest(self, pieces: Sequence[Piece]) -> None:
        rest = b"".join(piece.data for piece in pieces)
        phrase = f"the parts beyond the first {_MOST_PARTS:,}"
        self._keep("", rest, "unreadable", "multipart/mixed", phrase)

    def _between(self, data: bytes, *, is_first: bool) -> list[str]:
        """Return a text outside of the parts, such as a mailing list's footer."""
        if not data.strip():
            return []
        try:
            text = self._decode(Content(data), "text/plain", None)
        except DocumentError:
            return self._keep(
                "", data, "unreadable", "text/plain", "a text between its parts"
            )
        if is_first and is_note_to_old_programs(text):
            return []
        self.has_text = self.has_text or has_text(text)
        return [text]

    def _alternatives(self, parts: Multipart, depth: int) -> list[str]:
        """Return one text that holds every word of the versions, then the invitations."""
        plain: list[str] = []
        others: list[str] = []
        additions: list[str] = []
        if len(parts.pieces) > _MOST_VERSIONS:
            # No mail program writes so many: they are not versions of one text.
            return self._pieces(parts, "text/plain", depth)
        for index, piece in enumerate(parts.pieces):
            if not piece.is_part:
                additions += self._between(piece.data, is_first=index == 0)
                continue
            part = parse_entity(piece.data, is_part=True)
            texts = self._read(part, depth + 1)
            if part.kind in _CALENDARS:
                additions += texts
            elif part.kind == "text/plain":
                plain.append(join_texts(texts))
            else:
                others.append(join_texts(texts))
        merged = ""
        for version in (*plain, *others):
            merged = merge_versions(merged, version)
        return [merged, *additions] if merged.strip() else additions

    def _attached_message(self, entity: Entity, depth: int) -> list[str]:
        if entity.kind == "message/partial":
            self.doubts.append("the other pieces of a message that was sent in pieces")
        body = entity.body
        if _is_encoded_message(entity):
            body = decode_content(entity).data
        return self.read_attached(body.lstrip(b"\r\n"), depth)

    def _smime(self, entity: Entity, depth: int) -> list[str]:
        data = decode_content(entity).data
        declared = entity.parameters.get("smime-type", "").lower()
        envelope = envelope_of(data)
        if envelope == "signed" or declared == "signed-data":
            content = signed_content(data)
            if content is not None:
                return self._read(parse_entity(content), depth + 1)
            return self._leave_out(
                entity,
                "unreadable",
                "an S/MIME message that is signed, not encrypted, but damaged or without content; "
                "save a copy without the signature",
            )
        if declared == "certs-only":
            return self._leave_out(entity, "signature")
        phrase = "a part encrypted with S/MIME"
        return self._keep("S/MIME", data, "encrypted", entity.kind, phrase)

    def _outlook(self, entity: Entity) -> list[str]:
        name = entity.name or "winmail.dat"
        data = decode_content(entity).data
        mail = read_outlook(data)
        self._outlook_texts += mail.texts
        for file in mail.files:
            self._keep(file.name, file.data, "attached", _UNKNOWN_FILES[0])
        is_read = mail.is_complete and bool(mail.texts or mail.files)
        return self._keep(name, data, "read" if is_read else "attached", OUTLOOK[0])

    def _calendar(self, entity: Entity) -> list[str]:
        texts = self._text(entity)
        if entity.disposition == "attachment" and texts:
            self._keep(entity.name, decode_content(entity).data, "read", entity.kind)
        if texts and texts[0] in self._calendars:
            return []  # invitations are often there twice
        self._calendars.update(texts)
        return texts

    def _file(self, entity: Entity) -> list[str]:
        content = decode_content(entity)
        kind = entity.kind
        if kind in _PGP_PARTS:
            # Says that the next part is encrypted.
            return []
        if content.data.lstrip().startswith(_PGP_START):
            phrase = "a part encrypted with PGP"
            return self._keep(
                entity.name or "PGP", content.data, "encrypted", kind, phrase
            )
        is_inline = entity.disposition == "inline" or bool(entity.header("content-id"))
        is_small = len(content.data) <= _LARGEST_LAYOUT_PICTURE
        status: LeftOutStatus = "attached"
        if kind.startswith("image/") and is_inline and is_small:
            status = "picture"
        return self._keep(
            entity.name, content.data, status, kind, charset=entity.charset
        )

    def _text(self, entity: Entity) -> list[str]:
        content = decode_content(entity)
        try:
            text = self._decode(content, entity.kind, self._charset_of(entity))
        except DocumentError as error:
            phrase = f"a part of the type {entity.kind}: {error}"
            return self._keep(
                entity.name, content.data, "unreadable", entity.kind, phrase
            )
        if content.is_damaged:
            self.doubts.append(f"pieces of a damaged part of the type {entity.kind}")
        if entity.kind == "text/plain":
            if entity.parameters.get("format", "").lower() == "flowed":
                deletes_space = entity.parameters.get("delsp", "").lower() == "yes"
                text = unflow(text, deletes_space=deletes_space)
            text, files = cut_uuencoded(text)
            for file in files:
                self._keep(file.name, file.data, "attached", _UNKNOWN_FILES[0])
        text, messages = cut_pgp(text)
        for message in messages:
            phrase = "a block encrypted with PGP"
            self._keep("PGP", message.data, "encrypted", "application/pgp", phrase)
        self.has_text = self.has_text or has_text(text)
        return [text] if text.strip() else []

    # --- helpers ---------------------------------------------------------------------------------

    def _charset_of(self, entity: Entity) -> str | None:
        if self.charset and entity.encoding not in ("base64", "quoted-printable"):
            return self.charset
        return entity.charset

    def _decode(self, content: Content, kind: str, charset: str | None) -> str:
        """Return a part's content as text. Raises DocumentError."""
        if kind in _RTF and content.data.lstrip().startswith(b"{\\rtf"):
            text = rtf_to_text(content.data.decode("latin-1"))
        else:
            declared = charset
            if kind in _HTML and not charset:
                declared = declared_charset(content.data)
            text = self._decode_bytes(content, declared)
            if kind in _HTML:
                text = self._html_to_text(text)
            elif kind in _ENRICHED:
                text = enriched_to_text(text)
            elif kind in _CALENDARS:
                text = calendar_to_text(text)
        if not content.tail.strip():
            return text
        tail = self._decode_bytes(Content(content.tail), None)
        return f"{text}\n\n{tail}" if text else tail

    def _html_to_text(self, html: str) -> str:
        """Convert HTML. Raises DocumentError when its tags are nested too deeply to be read."""
        try:
            content = html_content(html)
        except RecursionError as error:
            raise DocumentError(
                "its tags are nested too deeply; save it as plain text"
            ) from error
        self.doubts += content.unread
        # Signatures have pictures too: they count where there is nothing else.
        if "![](" in content.text and not has_text(content.text):
            self.pictures.append("a picture in place of text")
        return content.text

    def _decode_bytes(self, content: Content, charset: str | None) -> str:
        if content.is_damaged:
            with contextlib.suppress(LookupError, ValueError):
                return content.data.decode(_codec(charset), "replace")
        try:
            text, notes = decode(content.data, charset)
        except DocumentError:
            zeros = content.data.count(0)
            if not zeros or zeros > len(content.data) * _MOST_ZEROS:
                raise
            # Stray zeros say nothing.
            text, notes = decode(content.data.replace(b"\0", b""), charset)
        for key, value in notes.items():
            self.notes.setdefault(key, value)
        return text

    def _leave_out(
        self, entity: Entity, status: LeftOutStatus, phrase: str = ""
    ) -> list[str]:
        data = decode_content(entity).data
        name = entity.name
        if b"BEGIN PGP" in data:
            name = "PGP"
        return self._keep(name, data, status, entity.kind, phrase)

    def _keep(
        self,
        name: str,
        data: bytes,
        status: LeftOutStatus,
        kind: str,
        phrase: str = "",
        charset: str | None = None,
    ) -> list[str]:
        """Keep a part that is not in the text; return that it has no texts."""
        part = left_out(
            name, data, status=status, kind=kind, phrase=phrase, charset=charset
        )
        self.left_out.append(part)
        return []


def join_texts(texts: Sequence[str]) -> str:
    """Return texts one below the other; a single one stays as it is."""
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(text.strip() for text in texts)


def _codec(charset: str | None) -> str:
    return codecs.lookup(charset or "utf-8").name


def _is_encoded_message(entity: Entity) -> bool:
    """Return True for an attached message in a transfer encoding, which the standard forbids.

    Some programs declare one and do not use it.
    """
    if entity.encoding == "base64":
        return not parse_entity(entity.body).headers
    if entity.encoding == "quoted-printable":
        message = parse_entity(entity.body)
        return not message.encoding and not message.kind.startswith("multipart/")
    return False


def _is_message_file(entity: Entity) -> bool:
    """Return True for an e-mail that was attached as a file of an unknown type."""
    if entity.kind not in _UNKNOWN_FILES or not entity.name.lower().endswith(".eml"):
        return False
    message = parse_entity(decode_content(entity).data)
    return bool(message.header("from") or message.header("subject"))


def _is_text_file(part: LeftOut) -> bool:
    if len(part.data) > _LARGEST_TEXT_ATTACHMENT:
        return False
    if part.kind in _UNKNOWN_FILES:
        return part.name.lower().endswith(_TEXT_ENDINGS)
    return part.kind.startswith("text/") and part.kind not in _HIDDEN_TEXTS
