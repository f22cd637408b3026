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
    charset = _CHARSET.search(data[:_HEAD_BYTES])
    declared = charset[1].decode() if charset else None
    html, notes = decode(data, declared)
    return Extracted(html_to_text(html), notes)


def html_to_text(html: str) -> str:
    """Convert HTML to Markdown."""
    from markitdown.converters import HtmlConverter

    converted = HtmlConverter().convert_string(html)
    return str(converted.markdown)
