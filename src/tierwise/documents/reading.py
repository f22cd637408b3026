"""A folder or a file becomes documents; what cannot be read becomes a deferred document."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.front_matter import front_matter, raised
from tierwise.documents.readers.rows import RowFile
from tierwise.documents.readers.sandbox import Sandbox
from tierwise.documents.sources import ACCEPTED, FOREIGN, ROWS, Raw, SourceFile, find_files
from tierwise.errors import DocumentError, Misuse
from tierwise.records import Batch, Document, Outcome, Sensitivity
from tierwise.text.language import detect


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `of` parts of a source, counted from 1. Each document is in one of them, whatever else there is."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Such as `2/8`. Raises Misuse."""
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text)
        if not found or int(found[1]) > int(found[2]):
            raise Misuse(f"shard is '{text}'; write 2/8 for the second of eight parts")
        return cls(int(found[1]), int(found[2]))

    def holds(self, id: str) -> bool:  # noqa: A002 - the document's
        """Whether a document is in this part, by a hash of its id that is the same everywhere."""
        hashed = hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(hashed[:8]) % self.of == self.number - 1


_ALL = Shard()
_OWN = ("path", "format", "duplicate_of", "sensitivity_note")


def read_documents(
    source: Path,
    *,
    sensitivity: Sensitivity,
    batch_size: int = 50,
    max_bytes: int = 20_000_000,
    text_column: str = "text",
    max_seconds: int = 60,
) -> list[Batch]:
    """All documents of a folder or file, in batches. Arguments and errors as for `iter_documents`."""
    documents = iter_documents(
        source,
        sensitivity=sensitivity,
        max_bytes=max_bytes,
        text_column=text_column,
        max_seconds=max_seconds,
    )
    batches = list(in_batches(documents, batch_size))
    total = sum(batch.size for batch in batches)
    return [batch.of(total) for batch in batches]


def in_batches(documents: Iterator[Document], size: int) -> Iterator[Batch]:
    """The documents in batches of `size`, one batch in memory at a time; their total is not known yet."""
    if size < 1:
        raise Misuse(f"batch_size is {size}; a batch holds at least 1 document")
    first = 1
    while documents_now := tuple(islice(documents, size)):
        yield Batch(documents_now, first=first)
        first += len(documents_now)


def iter_documents(
    source: Path,
    *,
    sensitivity: Sensitivity,
    max_bytes: int = 20_000_000,
    text_column: str = "text",
    max_seconds: int = 60,
    shard: Shard = _ALL,
) -> Iterator[Document]:
    """The documents of a folder (sorted, without hidden files) or of one file, one at a time.

    A CSV or JSON Lines file gives a document a row, with its text from `text_column`. `sensitivity`
    is the least that any document gets: what a document says of itself can raise it, never lower it.
    A file or row over `max_bytes`, or one that takes longer than `max_seconds` to convert, is
    deferred, as is whatever else cannot be read. Files of other shards are not opened. Raises Misuse
    when `source` is missing or empty.
    """
    return _documents(
        find_files(Path(source)), sensitivity, max_bytes, text_column, max_seconds, shard
    )


def _documents(
    files: Iterator[SourceFile],
    sensitivity: Sensitivity,
    max_bytes: int,
    text_column: str,
    max_seconds: int,
    shard: Shard,
) -> Iterator[Document]:
    ids: set[str] = set()
    firsts: dict[bytes, str] = {}
    with Sandbox(seconds=max_seconds) as sandbox:
        for file in files:
            if file.suffix not in ROWS and not shard.holds(file.id):
                continue
            for raw in _read(file, sandbox, max_bytes, text_column):
                if shard.holds(
                    raw.id
                ):  # those with the same id are together, so that they are told apart as ever
                    yield _document(
                        replace(raw, id=_unique(raw.id, ids)), file, sensitivity, firsts
                    )


def _read(file: SourceFile, sandbox: Sandbox, max_bytes: int, text_column: str) -> Iterator[Raw]:
    """What one file holds; its problem instead when it cannot be read, or cannot be read further."""
    try:
        if problem := file.problem or _unfit(file, max_bytes):
            yield Raw(id=file.id, problem=problem)
        elif file.suffix in ROWS:
            yield from RowFile(file, text_column, max_bytes).documents()
        else:
            yield _whole(file, file.path.read_bytes(), sandbox)
    except DocumentError as error:
        yield Raw(id=file.id, problem=str(error))
    except OSError as error:
        yield Raw(
            id=file.id, problem=f"it cannot be opened: {error.strerror}; check its permissions"
        )


def _unfit(file: SourceFile, max_bytes: int) -> str:
    """Why a file is not even opened; empty when it is."""
    if file.suffix not in ACCEPTED:
        return f"files like this are not read; save it as one of {', '.join(ACCEPTED)}"
    size = file.path.stat().st_size
    if size > max_bytes and file.suffix not in ROWS:
        return f"it has {size:,} bytes, more than the limit of {max_bytes:,}; split it"
    return "" if size else "the file is empty"


def _whole(file: SourceFile, data: bytes, sandbox: Sandbox) -> Raw:
    """A file that is one document."""
    if file.suffix in FOREIGN:
        found = sandbox.extract(data, file.suffix)
        return Raw(id=file.id, text=found.text, metadata=found.metadata, declared=found.declared)
    text, notes = decode(data)
    fields, declared, body = front_matter(_clean(text))
    return Raw(id=file.id, text=body, metadata=fields | notes, declared=declared)


def _document(raw: Raw, file: SourceFile, base: Sensitivity, firsts: dict[bytes, str]) -> Document:
    """The document of a Raw. `firsts` maps the hash of every text so far to the first id that had it."""
    text = _clean(raw.text).strip()
    problem = _clean(raw.problem) or ("" if text else "no text found in it")
    level, note = raised(base, raw.declared)
    own = {"path": file.id, "format": file.suffix[1:]} | (
        {"sensitivity_note": note} if note else {}
    )
    theirs = {f"{key}_" if key in _OWN else key: value for key, value in raw.metadata.items()}
    metadata = {_clean(key): _clean(value) for key, value in (theirs | own).items()}
    setter = "flow" if level == base else "document"
    unread = Document(
        id=raw.id, text="", sensitivity=level, sensitivity_source=setter, metadata=metadata
    )
    if problem:
        outcome = Outcome(step="read", status="deferred", reason=problem, sensitivity=level)
        return replace(unread, outcomes={"read": outcome})
    document = replace(unread, text=text, language=detect(text))
    first = firsts.setdefault(bytes.fromhex(document.hash)[:16], raw.id)
    return (
        document
        if first == raw.id
        else replace(document, metadata={**metadata, "duplicate_of": first})
    )


def _unique(wanted: str, ids: set[str]) -> str:
    """An id that no document had before; `a.csv#1` may be a row and a file."""
    number = 1
    unique = wanted
    while unique in ids:
        number += 1
        unique = f"{wanted}~{number}"
    ids.add(unique)
    return unique


def _clean(text: str) -> str:
    """One kind of line end, and nothing that a database or UTF-8 refuses."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    return unified.encode("utf-8", "replace").decode()
