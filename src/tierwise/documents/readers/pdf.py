"""PDF files, converted by markitdown, with the parts that it does not see.

The text is markitdown's as it is, unless a page cannot be parsed, shows no known letters, lies on
its side or is read by text recognition: then each page is extracted by itself. Form values and
comments follow at the end of their page where the text has page ends, else at the end of the text,
with the page's number.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierwise.documents.readers import time_limit
from tierwise.documents.readers.page_numbers import pages_named
from tierwise.documents.readers.pages.page_text import (
    PageText,
    describe_recognition,
    page_text,
)
from tierwise.documents.readers.pages.pictures import LOOK
from tierwise.documents.readers.pages.recognizer import Recognizer, missing_remedy
from tierwise.documents.readers.pages.rendering import MOST_PAGES, PdfPages
from tierwise.documents.readers.pages.text_layer import placed_pages
from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError
from tierwise.records import PageWords

if TYPE_CHECKING:
    from pdfminer.pdfdocument import PDFDocument

    from tierwise.documents.readers.pdf_pages import Page, Survey
    from tierwise.documents.readers.pdf_parts import Parts

_UNMAPPED = re.compile(r"\(cid:\d+\)")  # a glyph whose letter the font does not say
_PAGE_END = "\f"
_COVER_LETTERS = 200  # more than a portfolio's `open this in …` has
_REPEATED_LETTERS = 20  # a value as long is no chance find on its page
_NEW_COPY = "ask for a new copy"
_FILES = "save the attached files as files of their own"
_PRINT = "print the form to a PDF"


def read_pdf(data: bytes, recognizer: Recognizer | None = None) -> Extracted:
    """Return the text of a PDF, and what is not in it.

    Pages without text in letters are read by text recognition, where it is installed. Raises
    DocumentError when the file has no text.
    """
    from pdfminer.pdfdocument import PDFDocument
    from pdfminer.pdfparser import PDFParser

    from tierwise.documents.readers.pdf_pages import survey
    from tierwise.documents.readers.pdf_parts import read_parts

    document = PDFDocument(PDFParser(io.BytesIO(data)))
    surveyed = survey(document)
    parts = read_parts(document)
    recognized: dict[int, PageText] = {}
    if recognizer and surveyed.to_recognize:
        recognized = _recognized(data, surveyed, recognizer)
    text = None
    failed: list[int] = []
    if not surveyed.needs_own_text and not recognized:
        text = _converted(data)
    if text is None:
        text, failed = _by_page(document, surveyed.pages, recognized)
    # One kind of line end now: a later change would move the words of the pages.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    drawn = text
    lines = _lines(surveyed.pages, parts, recognized)
    text = _with_lines(text, lines, len(surveyed.pages))
    _check(text, has_recognizer=recognizer is not None)
    losses = _losses(
        surveyed, recognized, failed, has_recognizer=recognizer is not None
    )
    unread = [*surveyed.parts, *dict.fromkeys(parts.unread), *losses.unread]
    unread_pages = losses.pages
    remedies = losses.remedies
    if parts.is_xfa:
        unread_pages.append("the XFA form is not read")
        remedies.append(_PRINT)
    pages = _placed(text, recognized)
    metadata = describe_recognition(pages)
    # Lines that are at the end of the text, and not of a page, are on none.
    of_pages = len(drawn.rstrip()) if text.startswith(drawn.rstrip()) else len(text)
    lettered = placed_pages(
        data,
        text,
        len(surveyed.pages),
        length=of_pages,
        without=[page.page for page in pages],
    )
    pages = tuple(sorted((*pages, *lettered), key=lambda page: page.page))
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
        pages=pages,
        page_total=len(surveyed.pages),
    )


@dataclass
class _Losses:
    """What is not in the text of the pages, and what to do about it."""

    pages: list[str]
    unread: list[str]
    remedies: list[str]


def _losses(
    surveyed: Survey,
    recognized: Mapping[int, PageText],
    failed: Sequence[int],
    *,
    has_recognizer: bool,
) -> _Losses:
    """Say which pages are not in the text, or not surely; `failed` could not be laid out."""
    damaged = list(surveyed.damaged)
    if failed:
        damaged.append(f"{pages_named(failed)} cannot be laid out")
    without_text = surveyed.without_text(recognized)
    losses = _Losses([*without_text, *damaged], [], [])
    guessed = [page.words.page for page in recognized.values() if not page.is_legible]
    if guessed:
        losses.pages.append(f"{pages_named(guessed)} hardly legible")
    for page in recognized.values():
        loss = page.describe_losses()
        if loss and page.is_legible:
            losses.unread.append(loss)
    if without_text and not has_recognizer:
        losses.remedies.append(missing_remedy())
    elif without_text or guessed:
        losses.remedies.append(LOOK)
    if damaged:
        losses.remedies.append(_NEW_COPY)
    return losses


def _recognized(
    data: bytes, surveyed: Survey, recognizer: Recognizer
) -> dict[int, PageText]:
    """Return what text recognition reads on the pages without text in letters."""
    found: dict[int, PageText] = {}
    try:
        pages = PdfPages(data)
    except DocumentError:
        return found
    # Where both libraries count differently, a number may mean another page.
    if pages.total == len(surveyed.pages):
        for number in surveyed.to_recognize[:MOST_PAGES]:
            time_limit.start_page()
            image = pages.draw(number)
            if image is None:
                continue
            page = page_text(recognizer.read(image), number)
            if page is not None:
                found[number] = page
    pages.close()
    return found


def _placed(text: str, recognized: Mapping[int, PageText]) -> tuple[PageWords, ...]:
    """Return the pages with the spans that they have in the whole text."""
    placed = []
    start = 0
    for number, page in enumerate(text.split(_PAGE_END), 1):
        found = recognized.get(number)
        if found is not None and page.startswith(found.text):
            placed.append(found.words.moved(start))
        start += len(page) + len(_PAGE_END)
    return tuple(placed)


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


def _by_page(
    document: PDFDocument, pages: Sequence[Page], recognized: Mapping[int, PageText]
) -> tuple[str, list[int]]:
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
        if surveyed.number in recognized:
            output.write(recognized[surveyed.number].text)
        elif not (surveyed.failed or surveyed.is_garbled):
            page.rotate = (page.rotate + surveyed.turn) % 360
            device = TextConverter(manager, output, laparams=LAParams())
            try:
                PDFPageInterpreter(manager, device).process_page(page)
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - the layout fails on absurd coordinates
                failed.append(surveyed.number)
        # One kind of line end, as the text of a recognized page is compared with it below.
        text = output.getvalue().replace("\r\n", "\n").replace("\r", "\n")
        texts.append(text.removesuffix(_PAGE_END))
    return "".join(f"{text}{_PAGE_END}" for text in texts), failed


def _lines(
    pages: Sequence[Page], parts: Parts, recognized: Mapping[int, PageText]
) -> dict[int, list[str]]:
    """Return the lines to add, by page; those of no page are under 0."""
    lines = {number: list(found) for number, found in parts.lines.items()}
    for page in pages:
        is_left_out = page.is_garbled or page.number in recognized
        if page.turned_lines and not is_left_out:
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


def _check(text: str, *, has_recognizer: bool) -> None:
    """Raise DocumentError for a text of nothing, or of unknown letters."""
    remedy = LOOK if has_recognizer else missing_remedy()
    if not text.strip():
        raise DocumentError(f"no text found; it may be a scan: {remedy}")
    unmapped = sum(len(glyph) for glyph in _UNMAPPED.findall(text))
    if unmapped > len(text) / 4:
        raise DocumentError(f"its fonts do not say which letters they show: {remedy}")
