"""Compressed members of a file, unpacked piece by piece: the sizes in a directory can lie."""

from __future__ import annotations

import io
import re
import zipfile
from typing import IO

from tierwise.errors import DocumentError

MOST_UNPACKED_BYTES = 50_000_000
OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # how old Office files and encrypted ones begin
DAMAGED = "the file is damaged or not what its ending says; ask for a new copy"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_PIECE_BYTES = 1 << 16
# What may be before the root element, then a declaration.
_DECLARES = re.compile(
    rb"(?:[^<]++|<\?.*?\?>|<!--.*?-->)*+<!(?:DOCTYPE|ENTITY)", re.IGNORECASE | re.DOTALL
)


def unpack(member: IO[bytes], most: int) -> bytes | None:
    """Return a member's bytes; None where there are more than `most`."""
    pieces: list[bytes] = []
    size = 0
    while piece := member.read(_PIECE_BYTES):
        size += len(piece)
        if size > most:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def check_unpacked_size(data: bytes) -> None:
    """Raise DocumentError for an archive that would fill the memory when unpacked."""
    unpacked = 0
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            with archive.open(info) as member:
                while piece := member.read(_PIECE_BYTES):
                    unpacked += len(piece)
                    if unpacked > MOST_UNPACKED_BYTES:
                        raise DocumentError(
                            f"it would unpack to more than {MOST_UNPACKED_BYTES:,} bytes; split it"
                        )


def check_office(data: bytes, *, old: str, new: str) -> None:
    """Raise DocumentError for an Office file that is old, encrypted, or would fill the memory.

    `old` and `new` are endings, such as `.xls` and `.xlsx`.
    """
    if data.startswith(OLE):
        if _ENCRYPTED in data:
            raise DocumentError("the file is encrypted; save a copy without a password")
        raise DocumentError(f"it is an old {old}; save it as {new}")
    check_unpacked_size(data)


def check_declarations(data: bytes) -> None:
    """Raise DocumentError where a member in XML declares a document type: no Office program does.

    The size of what the file unpacks to has been checked before.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if not info.filename.endswith((".xml", ".rels")):
                continue
            with archive.open(info) as member:
                # UTF-16 is a declaration's letters with zeros between them.
                xml = member.read().replace(b"\0", b"")
                if _DECLARES.match(xml):
                    raise DocumentError(
                        "it declares entities, which could fill the memory or fetch a file; "
                        "save it again"
                    )
