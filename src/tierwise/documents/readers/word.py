"""Word files (.docx), converted by markitdown."""

from __future__ import annotations

import io
import zipfile

from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError

MOST_UNPACKED_BYTES = 50_000_000
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # how old Word files and encrypted ones begin
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_PIECE_BYTES = 1 << 16


def read_docx(data: bytes) -> Extracted:
    """Return the text of a Word file. Raises DocumentError for an old or encrypted one."""
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    if data.startswith(_OLE):
        if _ENCRYPTED in data:
            raise DocumentError("the file is encrypted; save a copy without a password")
        raise DocumentError("it is an old .doc; save it as .docx")
    _check_unpacked_size(data)
    converter = DocxConverter()  # type: ignore[no-untyped-call]
    converted = converter.convert(io.BytesIO(data), StreamInfo(extension=".docx"))
    return Extracted(str(converted.markdown))


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
