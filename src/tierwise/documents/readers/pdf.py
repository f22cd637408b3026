"""PDF files, converted by markitdown."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator

from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError

_UNMAPPED = re.compile(r"\(cid:\d+\)")  # a glyph whose letter the font does not say
_OCR = "run text recognition (OCR) on the file"


def read_pdf(data: bytes) -> Extracted:
    """Return the text of a PDF. Raises DocumentError when it has none, such as a scan."""
    from markitdown import StreamInfo
    from markitdown.converters import PdfConverter

    converted = PdfConverter().convert(io.BytesIO(data), StreamInfo(extension=".pdf"))
    text = str(converted.markdown)
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
    return Extracted(text, unread_pages=tuple(_unread_pages(data)), remedy=_OCR)


def _unread_pages(data: bytes) -> Iterator[str]:
    """Say which pages have no text although something is drawn on them."""
    from pdfminer.high_level import extract_pages
    from pdfminer.layout import LTChar, LTFigure, LTImage

    def things(parent: Iterable[object]) -> Iterator[object]:
        for item in parent:
            if isinstance(item, LTFigure):
                yield from things(item)
            yield item

    silent = []
    total = 0
    for page in extract_pages(io.BytesIO(data), laparams=None):
        total += 1
        kinds = {type(item) for item in things(page)}
        if LTImage in kinds and LTChar not in kinds:
            silent.append(total)
    if silent:
        verb = "has" if len(silent) == 1 else "have"
        yield f"{pages_named(silent)} of {total} {verb} no text"


def pages_named(numbers: Iterable[int]) -> str:
    """Return page numbers as ranges: `page 3`, `pages 2-4, 7`."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    single = len(ranges) == 1 and len(ranges[0]) == 1
    named = ", ".join("-".join(map(str, part)) for part in ranges)
    return f"{'page' if single else 'pages'} {named}"
