"""The documents of a file's bytes, with those inside of it: rows, members, attached files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from tierwise.documents.left_out import LeftOut, kind_of_name
from tierwise.documents.readers import (
    ROWS,
    SEVERAL,
    TEXTS,
    ConversionStopped,
    Extracted,
    Part,
    RawDocument,
    ReadingSettings,
    Request,
    RowFile,
    Sandbox,
    decode,
    split_front_matter,
    why_not_accepted,
)
from tierwise.documents.readers.archives import MOST_ARCHIVE_BYTES, MOST_MEMBERS
from tierwise.documents.recognized import RecognizedPages
from tierwise.documents.sources import printable_name
from tierwise.errors import DocumentError
from tierwise.records import PageFile

_MOST_NESTED = 4  # files in files
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Return a text with one kind of line end, and nothing that a database or UTF-8 refuses."""
    text = text.replace("\r\n", "\n")
    text = text.replace("\r", "\n")
    text = text.replace("\0", "\ufffd")
    return _HALF_CHARACTER.sub("\ufffd", text)


@dataclass
class _Quota:
    """The members that a file may still have, with those of the archives in it."""

    members: int = MOST_MEMBERS
    size: int = MOST_ARCHIVE_BYTES


@dataclass(frozen=True, slots=True)
class Content:
    """A file's bytes and where they are from.

    `parent` is the id of the document around it, and `declared` the sensitivity of all around it.
    `path` is that of the file in the source, and `inside` the keys that lead from it to a file in
    it.
    """

    id: str
    suffix: str
    data: bytes = field(repr=False)
    parent: str = ""
    declared: tuple[str, ...] = ()
    shard_id: str = ""
    depth: int = 0
    quota: _Quota = field(default_factory=_Quota)
    path: Path | None = None
    inside: tuple[str, ...] = ()


@dataclass
class ContentReader:
    """Reads the documents of one file after the other.

    `wants` says whether a document is in the shard. `has_passing` is True once a problem was found
    that another reading may not have.
    """

    sandbox: Sandbox
    settings: ReadingSettings
    max_bytes: int
    text_column: str
    wants: Callable[[str], bool]
    left_out: LeftOut
    has_passing: bool = False
    recognized: RecognizedPages = field(init=False)

    def __post_init__(self) -> None:
        self.recognized = RecognizedPages(self.settings)

    def request(self, suffix: str) -> Request:
        """Return the request for a file with this ending."""
        return Request(suffix, self.text_column, self.max_bytes, self.settings)

    def has_several(self, suffix: str) -> bool:
        """Return True for files whose documents are in different shards."""
        return suffix in SEVERAL or suffix in self.settings.own

    def why_refused(self, suffix: str, size: int) -> str:
        """Say why a file is not even opened; empty when it is."""
        problem = why_not_accepted(suffix, self.request(suffix))
        if problem:
            return problem
        limit = self.max_bytes
        if suffix == ".zip":
            limit = max(limit, MOST_ARCHIVE_BYTES)
        if size > limit and suffix not in ROWS:
            return f"it has {size:,} bytes, more than the limit of {limit:,}; split it"
        if size == 0:
            return "the file is empty; ask for a new copy"
        return ""

    def documents(self, content: Content) -> Iterator[RawDocument]:
        """Yield the documents of a file. Raises DocumentError where it has none."""
        if content.suffix in self.settings.own:
            yield from self._converted(content)
        elif content.suffix in ROWS:
            yield from self._rows(content)
        elif content.suffix in TEXTS:
            yield self._text(content)
        else:
            yield from self._converted(content)

    def _rows(self, content: Content) -> Iterator[RawDocument]:
        path = Path(f"rows{content.suffix}")
        rows = RowFile(path, content.id, self.text_column, self.max_bytes, content.data)
        for raw in rows.documents():
            yield _inside(content, raw)

    def _text(self, content: Content) -> RawDocument:
        text, notes = decode(content.data)
        parts = split_front_matter(clean(text), has_fields=content.suffix == ".md")
        raw = RawDocument(
            id=content.id,
            text=parts.body,
            metadata={**parts.fields, **notes},
            declared=parts.declared,
        )
        return _inside(content, raw)

    def _converted(self, content: Content) -> Iterator[RawDocument]:
        """Yield a converted file, and the documents in it."""
        request = self.request(content.suffix)
        extracted = self.recognized.extract(self.sandbox, content.data, request)
        if extracted.is_document:
            raw = replace(
                _raw(content.id, extracted),
                pages=extracted.pages,
                page_file=_page_file(content, extracted),
            )
            yield _inside(content, raw)
        for part in extracted.parts:
            if part.extracted or (part.problem and not part.name):
                yield _inside(content, _raw_part(content.id, part))
            else:
                yield from self._member(content, extracted, part)

    def _member(
        self, outer: Content, extracted: Extracted, part: Part
    ) -> Iterator[RawDocument]:
        """Yield the documents of a file in a file; where it cannot be read, its problem."""
        inner = Content(
            id=outer.id + printable_name(clean(part.key)),
            suffix=PurePosixPath(part.name).suffix.lower(),
            data=part.data or b"",
            parent=outer.id if extracted.is_document else outer.parent,
            declared=(*outer.declared, *extracted.declared),
            shard_id=(outer.shard_id or outer.id)
            if extracted.is_document
            else outer.shard_id,
            depth=outer.depth + 1,
            quota=outer.quota,
            path=outer.path,
            inside=(*outer.inside, part.key),
        )
        is_whole = not self.has_several(inner.suffix)
        if is_whole and not self.wants(inner.shard_id or inner.id):
            return
        if not extracted.is_document and self._is_left_out(inner, part):
            return
        problem = part.problem or self._why_member_refused(inner)
        if problem:
            yield _inside(inner, RawDocument(id=inner.id, problem=problem))
            return
        try:
            yield from self.documents(inner)
        except DocumentError as error:
            self.has_passing |= isinstance(error, ConversionStopped)
            yield _inside(inner, RawDocument(id=inner.id, problem=str(error)))

    def _is_left_out(self, inner: Content, part: Part) -> bool:
        """Return True for a member that no person wrote as a document, and count it."""
        *folders, name = part.name.split("/")
        kinds = [kind_of_name(folder, is_folder=True) for folder in folders]
        kinds.append(kind_of_name(name, is_folder=False))
        kind = next(filter(None, kinds), "")
        if kind:
            self.left_out.add(kind, inner.id)
        return kind != ""

    def _why_member_refused(self, inner: Content) -> str:
        inner.quota.members -= 1
        inner.quota.size -= len(inner.data)
        if inner.depth > _MOST_NESTED:
            return f"it is nested more than {_MOST_NESTED} files deep; unpack it"
        if inner.quota.members < 0:
            return f"the archives around it have more than {MOST_MEMBERS:,} members; split them"
        if inner.quota.size < 0:
            return f"the archives around it unpack to over {MOST_ARCHIVE_BYTES:,} bytes; split them"
        return self.why_refused(inner.suffix, len(inner.data))


def _raw(id_: str, extracted: Extracted) -> RawDocument:
    return RawDocument(
        id=id_,
        text=extracted.text,
        metadata=extracted.metadata,
        declared=extracted.declared,
        unread=extracted.unread,
        unread_pages=extracted.unread_pages,
        remedy=extracted.remedy,
    )


def _page_file(content: Content, extracted: Extracted) -> PageFile | None:
    """Return the file as one whose pages can be looked at; None where it has none."""
    if content.path is None or not extracted.page_total:
        return None
    path = str(content.path.absolute())
    digest = hashlib.sha256(content.data).hexdigest()
    return PageFile(
        path, digest, extracted.page_total, text_hash="", inside=content.inside
    )


def _raw_part(id_: str, part: Part) -> RawDocument:
    """Return a row or a sheet."""
    full_id = id_ + printable_name(clean(part.key))
    if part.extracted is None:
        return RawDocument(id=full_id, problem=part.problem)
    return _raw(full_id, part.extracted)


def _inside(content: Content, raw: RawDocument) -> RawDocument:
    """Return a document with what it has from the files around it."""
    return replace(
        raw,
        declared=(*content.declared, *raw.declared),
        parent=content.parent,
        format=content.suffix[1:],
        shard_id=content.shard_id,
    )
