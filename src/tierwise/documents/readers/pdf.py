"""PDF files, converted by markitdown, with the parts that it does not see.

The text is markitdown's as it is, unless a page cannot be parsed, shows no known letters or lies
on its side: then each page is extracted by itself. Form values and comments follow at the end of
their page where the text has page ends, else at the end of the text, with the page's number.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError

if TYPE_CHECKING:
    from pdfminer.pdfdocument import PDFDocument

    from tierwise.documents.readers.pdf_pages import Page
    from tierwise.documents.readers.pdf_parts import Parts

_UNMAPPED = re.compile(r"\(cid:\d+\)")  # a glyph whose letter the font does not say
_PAGE_END = "\f"
_COVER_LETTERS = 200  # more than a portfolio's `open this in …` has
_REPEATED_LETTERS = 20  # a value as long is no chance find on its page
_OCR = "run text recognition (OCR) on the file"
_NEW_COPY = "ask for a new copy"
_FILES = "save the attached files as files of their own"
_PRINT = "print the form to a PDF"


def read_pdf(data: bytes) -> Extracted:
    """Return the text of a PDF, and what is not in it.

    Raises DocumentError when it has no text, such as a scan.
    """
    from pdfminer.pdfdocument import PDFDocument
    from pdfminer.pdfparser import PDFParser

    from tierwise.documents.readers.pdf_pages import pages_named, survey
    from tierwise.documents.readers.pdf_parts import read_parts

    document = PDFDocument(PDFParser(io.BytesIO(data)))
    surveyed = survey(document)
    parts = read_parts(document)
    text = None
    failed: list[int] = []
    if not surveyed.needs_own_text:
        text = _converted(data)
    if text is None:
        text, failed = _by_page(document, surveyed.pages)
    drawn = text
    text = _with_lines(text, _lines(surveyed.pages, parts), len(surveyed.pages))
    _check(text)
    damaged = list(surveyed.damaged)
    if failed:
        damaged.append(f"{pages_named(failed)} cannot be laid out")
    unread_pages = [*surveyed.without_text, *damaged]
    unread = [*surveyed.parts, *dict.fromkeys(parts.unread)]
    remedies = []
    if surveyed.without_text:
        remedies.append(_OCR)
    if damaged:
        remedies.append(_NEW_COPY)
    if parts.is_xfa:
        unread_pages.append("the XFA form is not read")
        remedies.append(_PRINT)
    metadata: dict[str, str] = {}
    if parts.files:
        names = ", ".join(parts.files)
        metadata["attachments"] = names
        is_cover = len("".join(drawn.split())) < _COVER_LETTERS
        if parts.is_portfolio or is_cover:
            unread_pages.append(f"the attached files are not read: {names}")
            remedies.append(_FILES)
        else:
            unread.append(f"the attached files {names}")
    return Extracted(
        text,
        metadata,
        unread=tuple(unread),
        unread_pages=tuple(unread_pages),
        remedy=" and ".join(remedies),
    )


def _converted(data: bytes) -> str | None:
    """Return markitdown's text; None where it fails."""
    from markitdown import StreamInfo
    from markitdown.converters import PdfConverter

    stream = io.BytesIO(data)
    try:
        converted = PdfConverter().convert(stream, StreamInfo(extension=".pdf"))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - its parsers raise anything
        return None
    return str(converted.markdown)


def _by_page(document: PDFDocument, pages: Sequence[Page]) -> tuple[str, list[int]]:
    """Return the text of the pages, each extracted by itself, and the pages where that failed.

    Pages that cannot be parsed or have no known letters are empty.
    """
    from pdfminer.converter import TextConverter
    from pdfminer.layout import LAParams
    from pdfminer.pdfinterp import PDFPageInterpreter, PDFResourceManager
    from pdfminer.pdfpage import PDFPage

    manager = PDFResourceManager()
    texts = []
    failed = []
    for page, surveyed in zip(PDFPage.create_pages(document), pages, strict=False):
        output = io.StringIO()
        if not (surveyed.failed or surveyed.is_garbled):
            page.rotate = (page.rotate + surveyed.turn) % 360
            device = TextConverter(manager, output, laparams=LAParams())
            try:
                PDFPageInterpreter(manager, device).process_page(page)
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - the layout fails on absurd coordinates
                failed.append(surveyed.number)
        texts.append(output.getvalue().removesuffix(_PAGE_END))
    return "".join(f"{text}{_PAGE_END}" for text in texts), failed


def _lines(pages: Sequence[Page], parts: Parts) -> dict[int, list[str]]:
    """Return the lines to add, by page; those of no page are under 0."""
    lines = {number: list(found) for number, found in parts.lines.items()}
    for page in pages:
        if page.turned_lines and not page.is_garbled:
            turned = " / ".join(page.turned_lines)
            lines.setdefault(page.number, []).append(f"Turned text: {turned}")
    return lines


def _with_lines(text: str, lines: Mapping[int, Sequence[str]], total: int) -> str:
    """Return the text with the lines at the end of their pages, or at its own end."""
    if not lines:
        return text
    texts = text.split(_PAGE_END)
    has_page_ends = len(texts) == total + 1
    rest = []
    for number in sorted(lines, key=lambda number: number or total + 1):
        page = texts[number - 1] if number and has_page_ends else text
        drawn = "".join(page.split())
        new = [line for line in lines[number] if not _is_in(line, drawn)]
        if not new:
            continue
        block = "\n".join(new)
        if number and has_page_ends:
            texts[number - 1] = f"{page.rstrip()}\n\n{block}\n\n".lstrip()
        elif number and total > 1:
            rest.append(f"Page {number}:\n{block}")
        else:
            rest.append(block)
    if has_page_ends:
        text = _PAGE_END.join(texts)
    if rest:
        text = "\n\n".join([text.rstrip(), *rest]).lstrip()
    return text


def _is_in(line: str, drawn: str) -> bool:
    """Return True if a page draws the value, too, as some programs do with a filled form.

    `drawn` is the page's text without spaces.
    """
    value = "".join(line.partition(": ")[2].split())
    return len(value) >= _REPEATED_LETTERS and value in drawn


def _check(text: str) -> None:
    """Raise DocumentError for a text of nothing, or of unknown letters."""
    if not text.strip():
        message = (
            "no text found; it may be a scan: run text recognition (OCR) on it first"
        )
        raise DocumentError(message)
    unmapped = sum(len(glyph) for glyph in _UNMAPPED.findall(text))
    if unmapped > len(text) / 4:
        raise DocumentError(
            "its fonts do not say which letters they show; run text recognition (OCR) on it first"
        )
