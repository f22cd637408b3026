"""Word files (.docx), converted by markitdown, with the parts that it leaves out."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError

if TYPE_CHECKING:
    from tierwise.documents.readers.word_parts import WordArchive, WordParts

MOST_UNPACKED_BYTES = 50_000_000
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # how old Word files and encrypted ones begin
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_PIECE_BYTES = 1 << 16


def read_docx(data: bytes) -> Extracted:
    """Return the text of a Word file, and what is not in it.

    Raises DocumentError for an old or encrypted one, and for one of pictures alone.
    """
    from tierwise.documents.readers.word_parts import (
        WordArchive,
        has_words,
        readable,
    )

    if data.startswith(_OLE):
        if _ENCRYPTED in data:
            raise DocumentError("the file is encrypted; save a copy without a password")
        raise DocumentError("it is an old .doc; save it as .docx")
    _check_unpacked_size(data)
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
    _check_unpacked_size(data)
    return _converted(data)


def _check_unpacked_size(data: bytes) -> None:
    """Raise DocumentError for an archive that would fill the memory when unpacked."""
    unpacked = 0
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            # Unpacked piece by piece and counted: the sizes in the archive's directory can lie.
            with archive.open(info) as member:
                while piece := member.read(_PIECE_BYTES):
                    unpacked += len(piece)
                    if unpacked > MOST_UNPACKED_BYTES:
                        raise DocumentError(
                            f"it would unpack to more than {MOST_UNPACKED_BYTES:,} bytes; split it"
                        )
