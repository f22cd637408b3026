"""Archives (.zip): their members, within limits on number, size and compression.

Nothing is written to disk. A member's name becomes a part of a document's id, never a path.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator

from tierwise.documents.readers.results import Extracted, Part
from tierwise.documents.readers.settings import Request
from tierwise.documents.readers.unpacking import unpack
from tierwise.errors import DocumentError

MOST_MEMBERS = 10_000  # of an archive, with those of the archives in it
MOST_ARCHIVE_BYTES = 200_000_000  # of all members, unpacked
# Documents pack to a tenth; only a file made for it unpacks to this many times its size.
_MOST_RATIO = 200
_ANY_RATIO_BYTES = 1_000_000
_UNLIMITED = (
    ".csv",
    ".jsonl",
    ".zip",
)  # their rows and members have limits of their own
_LONGEST_NAME = 200
_DRIVE = re.compile(r"[A-Za-z]:")
_ENCRYPTED = 0x1
_UTF8 = 0x800


def read_zip(data: bytes, request: Request) -> Extracted:
    """Return the members of an archive as parts.

    Raises DocumentError for a damaged or empty archive, and for one over the limits.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if not infos:
            raise DocumentError("the archive is empty; ask for a new copy")
        if len(infos) > MOST_MEMBERS:
            raise DocumentError(
                f"it has {len(infos):,} members, more than {MOST_MEMBERS:,}; split it"
            )
        parts = tuple(_parts(archive, infos, request))
    return Extracted("", parts=parts, is_document=False)


def _parts(
    archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], request: Request
) -> Iterator[Part]:
    """Yield the members. Raises DocumentError once they unpack to too much."""
    left = MOST_ARCHIVE_BYTES
    keys: set[str] = set()
    for info in infos:
        name, problem = _safe_name(_name_of(info))
        key = unique(f"/{name}", keys)
        content = b""
        problem = problem or _why_refused(info)
        if not problem:
            limit = left
            if not name.lower().endswith(_UNLIMITED):
                limit = min(left, request.max_bytes)
            try:
                content = _content(archive, info, limit, left)
            except DocumentError:
                raise
            except _TooLarge as error:
                problem = str(error)
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError):
                problem = "it is damaged inside of the archive; pack it again"
            except (RuntimeError, NotImplementedError):
                # another password, or a compression that Python does not know
                problem = "the archive packs it in a way that is not read; pack it again as .zip"
        left -= len(content)
        yield Part(
            key=key, name=name, data=None if problem else content, problem=problem
        )


class _TooLarge(Exception):
    """A member that is over the limit for one."""


def _content(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int, left: int
) -> bytes:
    """Return a member's bytes. Raises DocumentError, or _TooLarge for this member alone."""
    by_ratio = max(_ANY_RATIO_BYTES, info.compress_size * _MOST_RATIO)
    with archive.open(info) as member:
        content = unpack(member, min(limit, by_ratio))
    if content is not None:
        return content
    if by_ratio < limit:
        raise _TooLarge(
            f"it unpacks to more than {_MOST_RATIO} times its size, as files do that are made to "
            "fill a memory; unpack it yourself"
        )
    if limit == left:
        raise DocumentError(
            f"it would unpack to more than {MOST_ARCHIVE_BYTES:,} bytes; split it"
        )
    raise _TooLarge(f"it has more than the limit of {limit:,} bytes; split it")


def _why_refused(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _ENCRYPTED:
        return "the archive's member is encrypted; pack it into one without a password"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "it is a link; put the file itself into the archive"
    return ""


def _name_of(info: zipfile.ZipInfo) -> str:
    """Return a member's name; many programs write UTF-8 and do not say so."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except ValueError:
        return info.filename


def _safe_name(name: str) -> tuple[str, str]:
    """Return a member's name as a path below the archive, and why it is not read if it is none."""
    path = name.replace("\\", "/")
    folders = [folder for folder in path.split("/") if folder not in ("", ".")]
    leads_out = path.startswith("/") or ".." in folders or _DRIVE.match(path)
    safe = "/".join("_" if folder == ".." else folder for folder in folders)
    if leads_out:
        return (
            safe.replace(":", "_") or "_",
            "its name in the archive leads out of it, as names do that are made to overwrite "
            "files; pack it under another name",
        )
    if len(safe) > _LONGEST_NAME:
        return f"{safe[:_LONGEST_NAME]}…", "its name is too long; pack it under another"
    return safe or "_", ""


def unique(key: str, seen: set[str]) -> str:
    """Return a key that no part had before, and remember it."""
    number = 1
    found = key
    while found in seen:
        number += 1
        found = f"{key}~{number}"
    seen.add(found)
    return found
