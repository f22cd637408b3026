"""HTML files, converted by markitdown."""

from __future__ import annotations

import re

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.results import Extracted

_CHARSET = re.compile(
    rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)
_HEAD_BYTES = 2048  # where a file declares its encoding


def read_html(data: bytes) -> Extracted:
    """Return the content of an HTML file, in the encoding that it declares."""
    html, notes = decode(data, declared_charset(data))
    return Extracted(html_to_text(html), notes)


def declared_charset(data: bytes) -> str | None:
    """Return the encoding that an HTML page declares in its head."""
    charset = _CHARSET.search(data[:_HEAD_BYTES])
    return charset[1].decode() if charset else None


def html_to_text(html: str) -> str:
    """Convert HTML to Markdown."""
    from markitdown.converters import HtmlConverter

    converted = HtmlConverter().convert_string(html)
    return str(converted.markdown)
