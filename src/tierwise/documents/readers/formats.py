"""The only door to markitdown: foreign formats become text, and every failure a DocumentError.

Its converters are called one by one, by the file's ending. The library's own front end is left
out: it guesses formats from content, unpacks archives, and knows how to fetch web addresses.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass, field

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.mail import read_mail
from tierwise.errors import DocumentError

MOST_UNPACKED_BYTES = 50_000_000
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_HTML_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_UNMAPPED = re.compile(r"\(cid:\d+\)")
_DAMAGED = "the file is damaged or not what its ending says; ask for a new copy"
_REASONS = {  # by the class of the foreign error; its text may quote the document, so it stays out
    "PDFPasswordIncorrect": "the PDF is encrypted; save a copy without a password",
    "PDFEncryptionError": "the PDF is encrypted in an unknown way; save a copy without a password",
    "PDFSyntaxError": _DAMAGED,
    "PSEOF": _DAMAGED,
    "PDFNoValidXRef": _DAMAGED,
    "BadZipFile": _DAMAGED,
    "MemoryError": "converting it needs too much memory; split it or save it as plain text",
}


@dataclass(frozen=True, slots=True)
class Extracted:
    """Text, metadata, and what the document says of its own sensitivity."""

    text: str = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict, repr=False)
    declared: tuple[str, ...] = ()


def extract(data: bytes, suffix: str) -> Extracted:
    """The content of a `.pdf`, `.docx`, `.html`, `.htm` or `.eml` file. Raises DocumentError, nothing else."""
    try:
        extracted = _extract(data, suffix)
    except DocumentError:
        raise
    except Exception as error:  # parsers raise anything on hostile bytes; none may stop a batch
        name = type(error).__name__
        reason = _REASONS.get(
            name, f"it could not be converted ({name}); save it again or as plain text"
        )
        raise DocumentError(reason) from error
    if len(extracted.text) > MOST_UNPACKED_BYTES:
        raise DocumentError(f"it holds more than {MOST_UNPACKED_BYTES:,} characters; split it")
    return extracted


def _extract(data: bytes, suffix: str) -> Extracted:
    match suffix:
        case ".eml":
            return Extracted(*read_mail(data, _html_to_text))
        case ".html" | ".htm":
            declared = _HTML_CHARSET.search(data[:2048])
            text, notes = decode(data, declared[1].decode() if declared else None)
            return Extracted(_html_to_text(text), notes)
        case ".docx":
            return Extracted(_docx_to_text(data))
        case ".pdf":
            return Extracted(_pdf_to_text(data))
    raise DocumentError(f"{suffix} files are not read")


def _html_to_text(html: str) -> str:
    from markitdown.converters import HtmlConverter

    return str(HtmlConverter().convert_string(html).markdown)


def _docx_to_text(data: bytes) -> str:
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    _check_docx(data)
    converter = DocxConverter()  # type: ignore[no-untyped-call]
    return str(converter.convert(io.BytesIO(data), StreamInfo(extension=".docx")).markdown)


def _pdf_to_text(data: bytes) -> str:
    from markitdown import StreamInfo
    from markitdown.converters import PdfConverter

    text = str(PdfConverter().convert(io.BytesIO(data), StreamInfo(extension=".pdf")).markdown)
    if not text.strip():
        raise DocumentError(
            "no text found; it may be a scan: run text recognition (OCR) on it first"
        )
    if sum(map(len, _UNMAPPED.findall(text))) > len(text) / 4:
        raise DocumentError(
            "its fonts do not say which letters they show; run text recognition (OCR) on it first"
        )
    return text


def _check_docx(data: bytes) -> None:
    """Refuse what is no Word archive, or one that would fill the memory when unpacked."""
    if data.startswith(_OLE):
        encrypted = _ENCRYPTED in data
        raise DocumentError(
            "the file is encrypted; save a copy without a password"
            if encrypted
            else "it is an old .doc; save it as .docx"
        )
    room = MOST_UNPACKED_BYTES
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            with archive.open(
                info
            ) as member:  # unpacked piece by piece: the sizes in the directory can lie
                while piece := member.read(1 << 16):
                    room -= len(piece)
                    if room < 0:
                        raise DocumentError(
                            f"it would unpack to more than {MOST_UNPACKED_BYTES:,} bytes; split it"
                        )
