"""An e-mail file becomes text and metadata, with the standard library alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage

from tierwise.documents.readers.decoding import decode
from tierwise.errors import DocumentError

HEADERS = ("subject", "from", "to", "date")
# RFC 4021's own words for how an e-mail is to be treated
_SENSITIVITY = {
    "normal": "",
    "personal": "confidential",
    "private": "confidential",
    "company-confidential": "confidential",
}


def read_mail(
    data: bytes, html_to_text: Callable[[str], str]
) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """Text (subject, blank line, body), metadata and declared sensitivity of an e-mail.

    Attachments are named in the metadata, never opened. Raises DocumentError when it is none or encrypted.
    """
    message = message_from_bytes(data, policy=policy.default)
    metadata = {name: value for name in HEADERS if (value := _header(message, name))}
    if not metadata:
        raise DocumentError(
            "it has none of an e-mail's headers; give it the ending of its real format"
        )
    if message.get_content_type() in (
        "multipart/encrypted",
        "application/pkcs7-mime",
        "application/x-pkcs7-mime",
    ):
        raise DocumentError("the e-mail is encrypted; save a decrypted copy")
    body, notes = _body(message, html_to_text)
    if names := ", ".join(_attachments(message)):
        notes["attachments"] = names
    sensitivity = _header(message, "sensitivity").casefold()
    subject = metadata.get("subject", "")
    text = f"Subject: {subject or '(none)'}\n\n{body}" if subject or body.strip() else ""
    return text, metadata | notes, (_SENSITIVITY.get(sensitivity, sensitivity),)


def _header(message: EmailMessage, name: str) -> str:
    """A header on one line; empty when it is missing."""
    try:
        value = str(message.get(name, ""))
    except Exception:  # noqa: BLE001 - the standard parser raises a dozen unrelated errors on malformed headers
        value = next((str(raw) for key, raw in message.raw_items() if key.lower() == name), "")
    return " ".join(value.split())


def _body(message: EmailMessage, html_to_text: Callable[[str], str]) -> tuple[str, dict[str, str]]:
    """The plain body, or the HTML one as text where the plain one is missing or blank."""
    for kind in ("plain", "html"):
        part = message.get_body((kind,))
        payload = part.get_payload(decode=True) if part else None
        if part and isinstance(payload, bytes):
            text, notes = decode(payload, part.get_content_charset())
            text = html_to_text(text) if kind == "html" else text
            if text.strip():
                return text, notes
    return "", {}


def _attachments(message: EmailMessage) -> Iterator[str]:
    if message.is_multipart():
        for part in message.iter_attachments():
            yield " ".join((part.get_filename() or f"unnamed {part.get_content_type()}").split())
