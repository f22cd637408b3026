"""Files become documents; a file that cannot be read becomes a deferred document."""

from __future__ import annotations

import hashlib
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tierwise.documents.done_folder import ReadFile
from tierwise.documents.file_contents import Content, ContentReader, clean
from tierwise.documents.left_out import LeftOut
from tierwise.documents.readers import (
    DEFAULTS,
    ROWS,
    ConversionStopped,
    RawDocument,
    ReadingSettings,
    RowFile,
    Sandbox,
    row_document,
)
from tierwise.documents.seen_files import (
    Known,
    SeenFiles,
    Signature,
    signature_of,
)
from tierwise.documents.sensitivity import raise_sensitivity
from tierwise.documents.sources import SourceFile, find_files
from tierwise.errors import DocumentError, Misuse, UnknownName
from tierwise.records import (
    INCOMPLETE,
    SENSITIVITIES,
    Batch,
    Document,
    Incomplete,
    Outcome,
    PageFile,
    PageWords,
    Sensitivity,
    id_in_run,
    text_hash,
)
from tierwise.text.amounts import plural
from tierwise.text.language import detect

# Letters and symbols without a glyph: Hangul fillers, the blank Braille pattern, and the sign for
# a character that was lost.
_BLANK_CHARACTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\ufffd")
_INVISIBLE_CATEGORIES = ("Cc", "Cf", "Cs")
_SHARD = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `of` parts of a source, counted from 1.

    Each document is in exactly one part, and stays there when other documents come or go.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse a shard such as `2/8`. Raises Misuse."""
        match = _SHARD.fullmatch(text)
        if match:
            number = int(match[1])
            of = int(match[2])
            if number <= of:
                return cls(number, of)
        raise Misuse(f"shard is '{text}'; write 2/8 for the second of eight parts")

    def holds(self, id: str) -> bool:  # noqa: A002 - the document's
        """Return True if a document is in this part, by a hash of its id."""
        data = id.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(data).digest()
        part = int.from_bytes(digest[:8]) % self.of
        return part + 1 == self.number


_WHOLE_SOURCE = Shard()


def _is_unknown(document: Known) -> bool:  # noqa: ARG001
    return False


def _not_known(file: SourceFile) -> bool:  # noqa: ARG001
    return False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where documents are from: the name of their source, as `places` gives it.

    `is_further` says that the run has read another source before: then ids name the source.
    """

    source: str = ""
    is_further: bool = False


_NOWHERE = Origin()


@dataclass
class Watch:
    """A folder that is read again and again: what earlier polls know, and what this one leaves.

    A file that has changed within `minimum_age_s` seconds is left for the next poll. One whose
    documents all `are_done` is not opened, where it is unchanged since a poll that is on record in
    `seen`. `waiting` and `unopened` are the names of the former and the documents of the latter.
    `files`, where it is given, gets the files that can move to a done folder: those that were read
    to their end, and those that were not opened.
    """

    minimum_age_s: float = 0.0
    seen: SeenFiles | None = None
    is_done: Callable[[Known], bool] = _is_unknown
    waiting: list[str] = field(default_factory=list)
    unopened: int = 0
    files: list[ReadFile] | None = None

    def is_document(self, file: SourceFile) -> bool:
        """Return True for an unchanged file that was read as documents before."""
        return self._documents_of(file) is not None

    def is_young(self, file: SourceFile) -> bool:
        """Return True for a file that is left for the next poll, and remember it."""
        if file.facts is None or not self.minimum_age_s:
            return False
        signature = signature_of(file.facts)
        if self.seen:
            is_young = self.seen.is_young(file.id, signature, self.minimum_age_s)
        else:
            age = time.time() - file.facts.st_mtime
            is_young = 0 <= age < self.minimum_age_s
        if is_young:
            self.waiting.append(file.id)
        return is_young

    def done_documents(self, file: SourceFile) -> Sequence[Known]:
        """Return the documents of an unchanged file that are all done; none for any other."""
        documents = self._documents_of(file)
        if not documents or self.seen is None or file.facts is None:
            return ()
        self.seen.keep(file.id)
        if not all(self.is_done((known[0], known[1])) for known in documents):
            return ()
        self.unopened += len(documents)
        self.note_file(file, signature_of(file.facts), documents, time.time_ns())
        return documents

    def note_file(
        self,
        file: SourceFile,
        signature: Signature,
        documents: Sequence[Known],
        read_at_ns: int,
    ) -> None:
        """Remember a file with all of its documents, where files move when they are done."""
        if self.files is not None:
            # As JSON has them, on record in `seen`, they are lists.
            known = tuple((own_id, hash_) for own_id, hash_ in documents)
            self.files.append(ReadFile(file.path, signature, known, read_at_ns))

    def _documents_of(self, file: SourceFile) -> Sequence[Known] | None:
        if self.seen is None or file.facts is None:
            return None
        return self.seen.documents_of(file.id, signature_of(file.facts))

    def describe(self) -> str:
        """Such as `1 file still being written: next run (a.pdf)`; empty when there is none."""
        if not self.waiting:
            return ""
        names = ", ".join(self.waiting[:_MOST_NAMED])
        if len(self.waiting) > _MOST_NAMED:
            names += ", …"
        number = plural(len(self.waiting), "file")
        return f"{number} still being written: next run ({names})"


_MOST_NAMED = 3
_CHANGED = "it was written while it was read; run again"
_NO_TEXT = text_hash("")
# Metadata that reading sets; a document's own fields of these names get a `_` behind them.
_RESERVED_METADATA = (
    "path",
    "format",
    "parent",
    "duplicate_of",
    "incomplete",
    "sensitivity_note",
)


def read_documents(
    source: Path,
    *,
    sensitivity: Sensitivity,
    batch_size: int = 50,
    max_bytes: int = 20_000_000,
    text_column: str = "text",
    max_seconds: int = 60,
    incomplete: Incomplete = "wait_for_pages",
    settings: ReadingSettings = DEFAULTS,
) -> list[Batch]:
    """Read all documents of a folder or file, in batches.

    Arguments and errors are those of `iter_documents`.
    """
    documents = iter_documents(
        source,
        sensitivity=sensitivity,
        max_bytes=max_bytes,
        text_column=text_column,
        max_seconds=max_seconds,
        incomplete=incomplete,
        settings=settings,
    )
    batches = list(in_batches(documents, batch_size))
    total = sum(batch.size for batch in batches)
    return [batch.with_total(total) for batch in batches]


def in_batches(documents: Iterator[Document], size: int) -> Iterator[Batch]:
    """Group documents into batches of `size`, one batch in memory at a time.

    The last batch alone knows the total number of documents.
    """
    if size < 1:
        raise Misuse(f"batch_size is {size}; a batch holds at least 1 document")
    first = 1
    # One document is read ahead: is there another batch?
    ahead = tuple(islice(documents, 1))
    while ahead:
        batch = (*ahead, *islice(documents, size - 1))
        ahead = tuple(islice(documents, 1))
        last = first + len(batch) - 1
        yield Batch(batch, first=first, total=None if ahead else last)
        first = last + 1


def iter_documents(
    source: Path,
    *,
    sensitivity: Sensitivity,
    max_bytes: int = 20_000_000,
    text_column: str = "text",
    max_seconds: int = 60,
    shard: Shard = _WHOLE_SOURCE,
    incomplete: Incomplete = "wait_for_pages",
    left_out: LeftOut | None = None,
    origin: Origin = _NOWHERE,
    watch: Watch | None = None,
    settings: ReadingSettings = DEFAULTS,
) -> Iterator[Document]:
    """Read the documents of a folder (sorted) or of one file.

    Hidden files, files of other programs such as `Thumbs.db`, and earlier results below the source
    are not read; they are counted in `left_out` while the documents are read.

    A CSV or JSON Lines file gives one document a row, with its text from `text_column`; a
    spreadsheet, a JSON or an XML file does what `settings` say. The members of an archive and the
    files attached to an e-mail are documents of their own, at least as sensitive as it. Every
    document gets at least `sensitivity`: what it declares can raise its level, never lower it.

    A document is deferred when its file or row has more than `max_bytes`, when converting it takes
    longer than `max_seconds`, or when it cannot be read for another reason. A document that lost a
    part on reading has `incomplete` in its metadata. It is deferred, too, where whole pages are
    missing; with `incomplete="accept"` never, with `"wait"` always. Files of other shards are not
    opened. Raises Misuse when `source` is missing or empty; with a `watch`, it may be empty.
    """
    _check_sensitivity(sensitivity)
    if incomplete not in INCOMPLETE:
        raise UnknownName("value of incomplete", incomplete, INCOMPLETE)
    files = find_files(
        Path(source),
        left_out,
        may_be_empty=watch is not None,
        is_document=watch.is_document if watch else _not_known,
    )
    contents = ContentReader(
        Sandbox(seconds=max_seconds),
        settings,
        max_bytes,
        text_column,
        shard.holds,
        left_out if left_out is not None else LeftOut(),
    )
    finisher = _Finisher(sensitivity, incomplete, origin)
    reader = _Reader(finisher, contents, shard, watch or Watch())
    return reader.read(files)


def _check_sensitivity(name: str) -> None:
    """Raise UnknownName for a misspelt sensitivity, which a flow may have as any text."""
    if name not in SENSITIVITIES:
        raise UnknownName("sensitivity", name, SENSITIVITIES)


def iter_items(
    items: Iterable[Document | Mapping[str, Any]],
    *,
    sensitivity: Sensitivity | None = None,
    max_bytes: int = 20_000_000,
    text_column: str = "text",
    shard: Shard = _WHOLE_SOURCE,
    origin: Origin = _NOWHERE,
) -> Iterator[Document]:
    """Yield documents that a program made, finished as those of files are.

    A mapping is like a row of a file: `text_column` has its text, `id` names it, `sensitivity` is
    its own, and everything but text and sensitivity is metadata. It gets at least `sensitivity`,
    which is restricted by default. A Document keeps its own, unless `sensitivity` is stricter.
    Raises Misuse for anything else.
    """
    if sensitivity is not None:
        _check_sensitivity(sensitivity)
    rows = _Finisher(sensitivity or "restricted", origin=origin)
    # it remembers the same ids and texts
    made = replace(rows, sensitivity=sensitivity or "public")
    seen_keys: set[str] = set()
    for number, item in enumerate(items, 1):
        if isinstance(item, Document):
            if shard.holds(item.id):
                yield _finish_document(made, item, max_bytes)
        elif isinstance(item, Mapping):
            raw = row_document(item, number, seen_keys, text_column)
            if shard.holds(raw.id):
                yield rows.finish(_limited(raw, max_bytes), {})
        else:
            kind = type(item).__name__
            raise Misuse(
                f"document {number} is a {kind}; give Documents, or mappings such as "
                f"{{'id': 'A17', '{text_column}': '…'}}"
            )


def _finish_document(
    finisher: _Finisher, document: Document, max_bytes: int
) -> Document:
    """Return a Document as those of files are; its own language and outcomes stay."""
    metadata = dict(document.metadata)
    # of a document that was read before
    incomplete = metadata.pop("incomplete", "")
    raw = RawDocument(
        id=document.id,
        text=document.text,
        metadata=metadata,
        declared=(document.sensitivity,),
        unread=(incomplete,) if incomplete else (),
        pages=document.pages,
        page_file=document.page_file,
    )
    finished = finisher.finish(_limited(raw, max_bytes), {})
    return replace(
        finished,
        language=document.language or finished.language,
        outcomes={**finished.outcomes, **document.outcomes},
    )


def _limited(raw: RawDocument, max_bytes: int) -> RawDocument:
    """Return the document, or its problem when it has too many bytes."""
    size = len(raw.text.encode("utf-8", "surrogatepass"))
    if size <= max_bytes:
        return raw
    problem = f"it has {size:,} bytes, more than the limit of {max_bytes:,}; split it"
    return replace(raw, text="", problem=problem)


@dataclass
class _Finisher:
    """Makes documents of what was read; remembers the ids and texts so far."""

    sensitivity: Sensitivity
    # items of a program have no parts that reading could lose
    incomplete: Incomplete = "accept"
    origin: Origin = _NOWHERE
    _ids: set[str] = field(default_factory=set)
    # by the hash of the text
    _first_ids: dict[bytes, str] = field(default_factory=dict)

    def finish(self, raw: RawDocument, file: Mapping[str, str]) -> Document:
        """Decide id, sensitivity, language and metadata; mark repeated texts.

        `file` is metadata that says which file the document is from.
        """
        full_id = self._in_run(self._unique_id(raw.id))
        level, note = raise_sensitivity(self.sensitivity, raw.declared)
        metadata = _metadata(raw, file, note)
        if raw.parent:
            metadata["parent"] = self._in_run(clean(raw.parent))
        empty = Document(
            id=full_id,
            source=self.origin.source,
            text="",
            sensitivity=level,
            sensitivity_source="flow" if level == self.sensitivity else "document",
            metadata=metadata,
        )
        text = clean(raw.text).strip()
        problem = clean(raw.problem)
        if not problem and not any(map(_is_visible, text)):
            problem = clean(_why_empty(raw))
        if not problem:
            problem = clean(_why_incomplete(raw, self.incomplete))
        if problem:
            outcome = Outcome(
                step="read",
                status="deferred",
                reason=problem,
                cause="unreadable",
                sensitivity=level,
            )
            return replace(empty, outcomes={"read": outcome})
        document = replace(
            empty,
            text=text,
            language=detect(text),
            pages=_finished_pages(raw, text),
            page_file=_finished_page_file(raw, text),
        )
        # millions of them fit into memory
        short_hash = bytes.fromhex(document.hash)[:16]
        first_id = self._first_ids.setdefault(short_hash, full_id)
        if first_id != full_id:
            document = replace(
                document, metadata={**metadata, "duplicate_of": first_id}
            )
        return document

    def skip(self, documents: Sequence[Known]) -> None:
        """Remember the ids and texts of documents that are not read again."""
        for own_id, hash in documents:  # noqa: A001 - the text's
            full_id = self._in_run(own_id)
            self._ids.add(own_id)
            if hash != _NO_TEXT:
                short_hash = bytes.fromhex(hash)[:16]
                self._first_ids.setdefault(short_hash, full_id)

    def _in_run(self, own_id: str) -> str:
        if self.origin.is_further:
            return id_in_run(self.origin.source, own_id)
        return own_id

    def _unique_id(self, wanted: str) -> str:
        """Return an id that no document had before; `a.csv#1` may be a row and a file."""
        number = 1
        unique = wanted
        while unique in self._ids:
            number += 1
            unique = f"{wanted}~{number}"
        self._ids.add(unique)
        return unique


@dataclass
class _Reader:
    """Reads the files of one source."""

    finisher: _Finisher
    contents: ContentReader
    shard: Shard
    watch: Watch
    # whether the file under way gave a problem that another reading may not give
    _is_passing: bool = False

    def read(self, files: Iterator[SourceFile]) -> Iterator[Document]:
        seen = self.watch.seen
        with self.contents.sandbox:
            for file in files:
                # The rows of a file are in different shards, so the file is read for each of them.
                is_whole = not self.contents.has_several(file.suffix)
                if is_whole and not self.shard.holds(file.id):
                    continue
                if self.watch.is_young(file):
                    continue
                done = self.watch.done_documents(file)
                if done:
                    self.finisher.skip(done)
                else:
                    yield from self._documents(file)
        if seen:
            seen.save()

    def _documents(self, file: SourceFile) -> Iterator[Document]:
        """Yield a file's documents, and put the file on record where none of it can change."""
        seen = self.watch.seen
        is_noted = seen is not None or self.watch.files is not None
        self._is_passing = False
        self.contents.has_passing = False
        read_at_ns = time.time_ns()
        before = _look(file)
        documents: list[Known] = []
        for raw in self._unchanged(file, before):
            # By the id before it is made unique: documents that share one share a shard,
            # so their numbers do not depend on the number of shards.
            if self.shard.holds(raw.shard_id or raw.id):
                document = self.finisher.finish(raw, _file_facts(file, raw))
                if is_noted:
                    documents.append((document.own_id, document.hash))
                yield document
        is_passing = self._is_passing or self.contents.has_passing
        is_settled = not is_passing and before == _look(file)
        if not (before and documents and is_settled):
            return
        if seen:
            seen.note(file.id, before, documents, read_at_ns)
        # Of a table, a shard does not know the rows of the others.
        if self.shard == _WHOLE_SOURCE or not self.contents.has_several(file.suffix):
            self.watch.note_file(file, before, documents, read_at_ns)

    def _unchanged(
        self, file: SourceFile, before: Signature | None
    ) -> Iterator[RawDocument]:
        """Yield a file's documents, if it stayed as it was until the first of them was read.

        The rows of a large file are yielded while it is read.
        """
        documents = self._read_file(file)
        if before is None or self._is_streamed(file):
            yield from documents
            return
        first = next(documents, None)
        if _look(file) != before:
            if self.watch.minimum_age_s:
                self.watch.waiting.append(file.id)
            else:
                self._is_passing = True
                yield RawDocument(id=file.id, problem=_CHANGED)
            return
        if first:
            yield first
        yield from documents

    def _is_streamed(self, file: SourceFile) -> bool:
        return file.suffix in ROWS and file.suffix not in self.contents.settings.own

    def _read_file(self, file: SourceFile) -> Iterator[RawDocument]:
        """Yield a file's documents; its problem when it cannot be read, or not to its end."""
        try:
            problem = file.problem or self._why_refused(file)
            if problem:
                yield RawDocument(id=file.id, problem=problem)
            elif self._is_streamed(file):
                rows = RowFile(
                    file.path,
                    file.id,
                    self.contents.text_column,
                    self.contents.max_bytes,
                )
                yield from rows.documents()
            else:
                data = file.path.read_bytes()
                content = Content(file.id, file.suffix, data, path=file.path)
                yield from self.contents.documents(content)
        except DocumentError as error:
            self._is_passing = isinstance(error, ConversionStopped)
            yield RawDocument(id=file.id, problem=str(error))
        except OSError as error:
            self._is_passing = True
            problem = f"it cannot be opened: {error.strerror}; check its permissions"
            yield RawDocument(id=file.id, problem=problem)

    def _why_refused(self, file: SourceFile) -> str:
        """Say why a file is not even opened; empty when it is."""
        return self.contents.why_refused(file.suffix, file.path.stat().st_size)


def _look(file: SourceFile) -> Signature | None:
    """Return the file's signature of now; None where it cannot be looked at."""
    if file.facts is None:
        return None
    try:
        return signature_of(file.path.stat())
    except OSError:
        return None


def _file_facts(file: SourceFile, raw: RawDocument) -> dict[str, str]:
    """Return the metadata that says which file a document is from."""
    return {"path": file.id, "format": raw.format or file.suffix[1:]}


def _metadata(
    raw: RawDocument, file: Mapping[str, str], sensitivity_note: str
) -> dict[str, str]:
    """Return the document's own fields, then those that reading sets."""
    metadata: dict[str, str] = {}
    for key, value in raw.metadata.items():
        name = f"{key}_" if key in _RESERVED_METADATA else key
        metadata[name] = value
    metadata.update(file)
    lost = (*raw.unread_pages, *raw.unread)
    if lost:
        metadata["incomplete"] = "; ".join(lost)
    if sensitivity_note:
        metadata["sensitivity_note"] = sensitivity_note
    return {clean(key): clean(value) for key, value in metadata.items()}


def _finished_pages(raw: RawDocument, text: str) -> tuple[PageWords, ...]:
    """Return the pages with their spans in the finished text; recognized ones with language."""
    if not raw.pages:
        return ()
    # Finishing takes away white space around the text, and nothing else of these texts.
    moved = len(raw.text) - len(raw.text.lstrip())
    pages = []
    for page in raw.pages:
        placed = page.moved(-moved)
        start = max(placed.start, 0)
        end = min(placed.end, len(text))
        language = placed.language
        if language is None and placed.is_recognized:
            language = detect(text[start:end])
        pages.append(replace(placed, start=start, end=end, language=language))
    return tuple(pages)


def _finished_page_file(raw: RawDocument, text: str) -> PageFile | None:
    """Return the file of the pages, with the text that they belong to."""
    if raw.page_file is None or raw.page_file.text_hash:
        return raw.page_file
    return replace(raw.page_file, text_hash=text_hash(text))


def _why_empty(raw: RawDocument) -> str:
    """Say why a document without text waits."""
    if not raw.unread_pages:
        return "no text found in it; write its text into it, or ask for a new copy"
    remedy = raw.remedy or "put its text into the document"
    return f"no text found: {'; '.join(raw.unread_pages)}; {remedy}"


def _why_incomplete(raw: RawDocument, incomplete: Incomplete) -> str:
    """Say why a document waits that has lost a part; empty when it goes on."""
    if incomplete == "accept":
        return ""
    lost = raw.unread_pages
    if incomplete == "wait":
        lost += raw.unread
    if not lost:
        return ""
    remedy = raw.remedy or "put its text into the document"
    return (
        f'{"; ".join(lost)}: {remedy}, or set incomplete = "accept" in [tool.tierwise] of '
        "pyproject.toml"
    )


def _is_visible(character: str) -> bool:
    """Return False for white space, control and zero-width characters, and marks by themselves."""
    if character in _BLANK_CHARACTERS:
        return False
    category = unicodedata.category(character)
    return category not in _INVISIBLE_CATEGORIES and category[0] not in "MZ"
