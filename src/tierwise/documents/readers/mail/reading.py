"""One file becomes text and metadata, or the reason why it waits for a person."""

from __future__ import annotations

from tierwise.documents.readers.mail.entity import parse_entity
from tierwise.documents.readers.mail.left_out import (
    DECRYPT,
    attached_parts,
    attachment_names,
    attachments_line,
    encrypted_phrases,
    is_document,
    unread_phrases,
    why_it_waits,
)
from tierwise.documents.readers.mail.parts import PartReader, join_texts
from tierwise.documents.readers.mail.saved import open_saved
from tierwise.documents.readers.results import Extracted, Part
from tierwise.documents.readers.settings import Request
from tierwise.errors import DocumentError

_HEADERS = ("subject", "from", "to", "date")
# The values of RFC 4021's header `Sensitivity`, as our levels.
_SENSITIVITY = {
    "normal": "",
    "personal": "confidential",
    "private": "confidential",
    "company-confidential": "confidential",
}


def read_mail(data: bytes, request: Request) -> Extracted:
    """Return an e-mail's subject and texts, with its headers as metadata.

    All text parts are read in their order, those of attached messages too. Other attachments are
    named at the text's end and in the metadata; unless the settings want their names alone, they
    are parts. Raises DocumentError when the file is not an e-mail, is encrypted, or has its text
    in something that is neither read nor a part.
    """
    saved = open_saved(data)
    message = parse_entity(saved.messages[0])
    metadata: dict[str, str] = {}
    for name in _HEADERS:
        value = message.shown(name)
        if value:
            metadata[name] = value
    if not metadata:
        raise DocumentError(
            "it has none of an e-mail's headers; give it the ending of its real format"
        )

    reader = PartReader(saved.charset)
    texts = reader.read_message(message)
    for other in saved.messages[1:]:
        texts += reader.read_attached(other)
    encrypted = any(part.status == "encrypted" for part in reader.left_out)
    if not reader.has_text and not encrypted:
        texts += reader.read_text_attachments()
    parts: tuple[Part, ...] = ()
    missing = reader.left_out
    if request.settings.attachments == "documents":
        parts = attached_parts(reader.left_out)
        missing = [part for part in reader.left_out if not is_document(part)]
    if not reader.has_text:
        reason = ""
        if not parts or encrypted:
            doubts = [*reader.doubts, *reader.pictures]
            reason = why_it_waits(missing, doubts)
        if reason:
            raise DocumentError(reason)

    metadata.update(reader.notes)
    names = attachment_names(reader.left_out)
    if names:
        metadata["attachments"] = names
    subject = metadata.get("subject", "")
    body = join_texts(texts)
    text = ""
    if subject or body.strip() or parts:
        text = f"Subject: {subject or '(none)'}\n\n{body}"
    attachments = attachments_line(reader.left_out)
    if attachments:
        text = f"{text.rstrip()}\n\n{attachments}"
    declared = [_SENSITIVITY.get(level, level) for level in reader.declared]
    return Extracted(
        text,
        metadata,
        tuple(declared),
        unread=unread_phrases(missing, reader.doubts),
        unread_pages=encrypted_phrases(reader.left_out),
        remedy=DECRYPT if encrypted else "",
        parts=parts,
    )
