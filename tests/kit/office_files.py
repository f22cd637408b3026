"""Small files in foreign formats."""

from __future__ import annotations

import io
import zipfile
from email.message import EmailMessage


def pdf(text: str = "") -> bytes:
    from fpdf import FPDF  # here, since every process of the tests imports this file

    page = FPDF()
    page.add_page()
    page.set_font("Helvetica", size=12)
    if text:
        page.cell(text=text)
    return bytes(page.output())


def word(
    *,
    replaced: dict[str, tuple[bytes, bytes]] | None = None,
    added: dict[str, bytes] | None = None,
) -> bytes:
    """A Word file with a heading and a paragraph; parts can be changed and added."""
    import docx

    document = docx.Document()
    document.add_heading("Offer", 1)
    document.add_paragraph("We deliver on Monday.")
    document.save(original := io.BytesIO())
    with (
        zipfile.ZipFile(original) as old,
        zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(
                name, old.read(name).replace(*(replaced or {}).get(name, (b"", b"")), 1)
            )
        for name, content in (added or {}).items():
            new.writestr(name, content)
    return file.getvalue()


def mail(
    plain: str | None = "Where is my order?", html: str | None = None, **headers: str
) -> EmailMessage:
    message = EmailMessage()
    for name, value in (
        {"Subject": "Order 7", "From": "Ann <ann@example.com>", "To": "us@example.com"}
        | headers
    ).items():
        message[name] = value
    if plain is not None:
        message.set_content(plain)
    if html is not None:
        message.add_alternative(
            html, subtype="html"
        ) if plain is not None else message.set_content(html, subtype="html")
    return message
