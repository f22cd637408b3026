"""PDF files, converted by markitdown."""

from __future__ import annotations

import io
import re

from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError

_UNMAPPED = re.compile(r"\(cid:\d+\)")  # a glyph whose letter the font does not say


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
    return Extracted(text)
