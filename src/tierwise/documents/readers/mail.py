"""E-mail files (.eml), read with the standard library alone."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.html import html_to_text
from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError

_HEADERS = ("subject", "from", "to", "date")
_ENCRYPTED = (
    "multipart/encrypted",
    "application/pkcs7-mime",
    "application/x-pkcs7-mime",
)
# The values of RFC 4021's header `Sensitivity`, as our levels.
_SENSITIVITY = {
    "normal": "",
    "personal": "confidential",
    "private": "confidential",
    "company-confidential": "confidential",
}


def read_mail(data: bytes) -> Extracted:
    """Return an e-mail's subject and body as text, with its headers as metadata.

    Attachments are named in the metadata, never opened. Raises DocumentError when the file is
    not an e-mail, or is encrypted.
    """
    message = message_from_bytes(data, policy=policy.default)
    metadata: dict[str, str] = {}
    for name in _HEADERS:
        value = _header(message, name)
        if value:
            metadata[name] = value
    if not metadata:
        raise DocumentError(
            "it has none of an e-mail's headers; give it the ending of its real format"
        )
    if message.get_content_type() in _ENCRYPTED:
        raise DocumentError("the e-mail is encrypted; save a decrypted copy")

    body, notes = _read_body(message)
    metadata.update(notes)
    attachments = ", ".join(_attachment_names(message))
    if attachments:
        metadata["attachments"] = attachments

    subject = metadata.get("subject", "")
    text = ""
    if subject or body.strip():
        text = f"Subject: {subject or '(none)'}\n\n{body}"
    sensitivity = _header(message, "sensitivity").casefold()
    declared = _SENSITIVITY.get(sensitivity, sensitivity)
    return Extracted(text, metadata, (declared,))


def _header(message: EmailMessage, name: str) -> str:
    """Return a header on one line; empty when it is missing."""
    try:
        value = str(message.get(name, ""))
    except Exception:  # noqa: BLE001 - the standard parser raises a dozen errors on bad headers
        raw = [value for key, value in message.raw_items() if key.lower() == name]
        value = str(raw[0]) if raw else ""
    return " ".join(value.split())


def _read_body(message: EmailMessage) -> tuple[str, dict[str, str]]:
    """Return the plain body, or the HTML one as text where the plain one is missing or blank."""
    for kind in ("plain", "html"):
        part = message.get_body((kind,))
        if part is None:  # not `if not part`: a part without headers is falsy
            continue
        payload = part.get_payload(decode=True)
        if not isinstance(payload, bytes):
            continue
        text, notes = decode(payload, part.get_content_charset())
        if kind == "html":
            text = html_to_text(text)
        if text.strip():
            return text, notes
    return "", {}


def _attachment_names(message: EmailMessage) -> Iterator[str]:
    if not message.is_multipart():
        return
    for part in message.iter_attachments():
        name = part.get_filename() or f"unnamed {part.get_content_type()}"
        yield " ".join(name.split())
