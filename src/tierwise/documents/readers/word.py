"""Word files (.docx), converted by markitdown, with the parts that it leaves out."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.unpacking import (
    check_declarations,
    check_office,
    check_unpacked_size,
)
from tierwise.errors import DocumentError

if TYPE_CHECKING:
    from tierwise.documents.readers.word_parts import WordArchive, WordParts


def read_docx(data: bytes) -> Extracted:
    """Return the text of a Word file, and what is not in it.

    Raises DocumentError for an old or encrypted one, and for one of pictures alone.
    """
    from tierwise.documents.readers.word_parts import (
        WordArchive,
        has_words,
        readable,
    )

    check_office(data, old=".doc", new=".docx")
    check_declarations(data)
    archive = WordArchive(data)
    text = _converted(readable(archive, data))
    parts = _parts(archive, text)
    text = "\n\n".join([text, *parts.lines])
    if parts.unread_pages and not has_words(text):
        message = f"no text found: {'; '.join(parts.unread_pages)}; {parts.remedies[0]}"
        raise DocumentError(message)
    return Extracted(
        text,
        {"attachments": ", ".join(parts.files)} if parts.files else {},
        unread=tuple(dict.fromkeys(parts.unread)),
        unread_pages=tuple(dict.fromkeys(parts.unread_pages)),
        remedy=" and ".join(dict.fromkeys(parts.remedies)),
    )


def _parts(archive: WordArchive, text: str) -> WordParts:
    """Return what is not in the text; where its XML is damaged, a word about that."""
    from tierwise.documents.readers.word_parts import WordParts, read_parts

    try:
        return read_parts(archive, text, _converted_inside)
    except (DocumentError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - parsers raise anything on hostile bytes
        return WordParts(unread=["headers, footers, comments and text boxes"])


def _converted(data: bytes) -> str:
    """Return markitdown's text."""
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    converter = DocxConverter()  # type: ignore[no-untyped-call]
    converted = converter.convert(io.BytesIO(data), StreamInfo(extension=".docx"))
    return str(converted.markdown)


def _converted_inside(data: bytes) -> str:
    """Return the text of a Word file inside another, which was unpacked with it."""
    check_unpacked_size(data)
    return _converted(data)
