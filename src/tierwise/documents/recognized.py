"""What text recognition read, kept by the file's content: no run, review or export repeats it.

It quotes documents, so only its owner can read the folder, and what is in it is encrypted with a
key from the file's own bytes: whoever does not have the file cannot read what it says. It is
bounded by size and age, and `tierwise retention` removes all of it. It can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zlib
from contextlib import suppress
from pathlib import Path

from tierwise.documents.readers import Extracted, ReadingSettings, Request, Sandbox
from tierwise.documents.readers.formats import PAGED
from tierwise.documents.readers.messages import parse_reply, reply_messages
from tierwise.documents.readers.pages.recognizer import installed_version
from tierwise.documents.seen_files import reader_version
from tierwise.records import canonical_hash
from tierwise.text.files import write_atomically
from tierwise.text.private import private_folder

FOLDER = Path(".tierwise/recognized")  # below the project's root
_MOST_BYTES = 200_000_000
_MOST_AGE_S = 30 * 24 * 3600.0
# Writes between two looks at the size of the folder.
_LOOK_EVERY = 100
# Of a page of 100 million dots there is no more text.
_MOST_UNPACKED = 100_000_000


class RecognizedPages:
    """The recognized files of a project; none without a project, or where settings say so."""

    def __init__(self, settings: ReadingSettings) -> None:
        self._folder: Path | None = None
        if settings.root is not None and settings.ocr and settings.keep_recognized:
            self._folder = settings.root / FOLDER
        self._written = 0

    def extract(self, sandbox: Sandbox, data: bytes, request: Request) -> Extracted:
        """Return what the sandbox reads, from the folder where it was recognized before.

        Raises DocumentError.
        """
        is_own = request.suffix in request.settings.own
        if self._folder is None or is_own or request.suffix not in PAGED:
            return sandbox.extract(data, request)
        path = self._folder / f"{_name(data, request.suffix)}.z"
        kept = _load(path, data)
        if kept is not None:
            return kept
        extracted = sandbox.extract(data, request)
        if "ocr" in extracted.metadata and not extracted.parts:
            self._keep(path, data, extracted)
        return extracted

    def _keep(self, path: Path, data: bytes, extracted: Extracted) -> None:
        [head] = reply_messages(extracted)
        packed = _crypt(zlib.compress(head, 1), path.name, data)
        # A full disk, or a folder that is read-only: the file is recognized again.
        with suppress(OSError):
            private_folder(path.parent)
            write_atomically(path, packed, private=True)
            if self._written % _LOOK_EVERY == 0:
                _remove_surplus(path.parent, time.time())
            self._written += 1


def forget_recognized(root: Path) -> int:
    """Remove what was recognized in a project; return the number of files."""
    folder = root / FOLDER
    number = sum(1 for _ in folder.glob("*.z"))
    shutil.rmtree(folder, ignore_errors=True)
    return number


def count_recognized(root: Path) -> int:
    """Return the number of files whose recognized text is kept."""
    return sum(1 for _ in (root / FOLDER).glob("*.z"))


def _name(data: bytes, suffix: str) -> str:
    """Return a name that changes with all that decides what is recognized."""
    digest = hashlib.blake2b(data, person=b"tierwise-name").hexdigest()
    return canonical_hash([digest, suffix, reader_version(), installed_version()])


def _crypt(content: bytes, name: str, data: bytes) -> bytes:
    """Encrypt or decrypt content by a stream that only these bytes give, and for this name alone.

    The name does not give away the key: both are hashes of the bytes, of different families.
    """
    key = hashlib.blake2b(data, person=b"tierwise-key").digest()
    stream = hashlib.shake_256(key + name.encode()).digest(len(content))
    mixed = int.from_bytes(content) ^ int.from_bytes(stream)
    return mixed.to_bytes(len(content))


def _load(path: Path, data: bytes) -> Extracted | None:
    """Return a kept result; None where there is none, or a damaged one."""
    try:
        packed = _crypt(path.read_bytes(), path.name, data)
        unpacker = zlib.decompressobj()
        head = unpacker.decompress(packed, _MOST_UNPACKED)
        extracted = parse_reply(json.loads(head), bytes)
        # The least recently used ones go first.
        os.utime(path)
    except (OSError, zlib.error, ValueError, KeyError, TypeError):
        return None
    return extracted


def _remove_surplus(folder: Path, now: float) -> None:
    """Remove what was not used for a month, and the oldest beyond the size."""
    facts = [(path, path.stat()) for path in folder.glob("*.z")]
    facts.sort(key=lambda each: each[1].st_mtime, reverse=True)
    size = 0
    for path, fact in facts:
        size += fact.st_size
        if size > _MOST_BYTES or now - fact.st_mtime > _MOST_AGE_S:
            path.unlink(missing_ok=True)
