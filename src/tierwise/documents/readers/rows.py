"""CSV and JSON Lines: a row a document, read one at a time, so that a file may be larger than memory."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, AnyStr, Generic

import orjson

from tierwise.documents.readers.decoding import guess, mark, mostly_utf8
from tierwise.documents.sources import Raw, SourceFile
from tierwise.errors import DocumentError

_SAMPLE_BYTES = 1_000_000
_LONGEST_KEY = 100


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file of rows: which column holds the text, and how long (bytes) a row may be."""

    file: SourceFile
    text_column: str
    max_bytes: int

    def documents(self) -> Iterator[Raw]:
        """One Raw a row. Raises DocumentError or OSError when the file as a whole cannot be read."""
        encoding, notes = _encoding(self.file) if self.file.suffix == ".csv" else ("", {})
        rows = _csv_rows(self, encoding) if encoding else _json_rows(self)
        seen: set[str] = set()
        for number, row in enumerate(rows, 1):
            yield _row(self, row, number, seen, notes)
        if not seen:
            raise DocumentError("the file has no rows")


def _row(
    source: RowFile,
    row: Mapping[str, Any] | DocumentError,
    number: int,
    seen: set[str],
    notes: Mapping[str, str],
) -> Raw:
    """One row as a Raw; its id is the row's own where that is new and fit to print, else its number."""
    if isinstance(row, DocumentError):
        return Raw(id=f"{source.file.id}#{_key(number, number, seen)}", problem=str(row))
    fields = {str(name).strip(): value for name, value in row.items() if value not in (None, "")}
    special = {name.casefold(): name for name in fields}
    key = _key(fields.get(special.get("id", "")), number, seen)
    declared = tuple(
        str(fields.pop(name)) for name in list(fields) if name.casefold() == "sensitivity"
    )
    text = fields.pop(special.get(source.text_column.strip().casefold(), ""), "")
    problem = ""
    if not isinstance(text, str):
        problem = (
            f"its '{source.text_column}' is not a text but a {type(text).__name__}; correct it"
        )
    elif not text.strip():
        problem = f"it has no '{source.text_column}'"
    return Raw(
        id=f"{source.file.id}#{key}",
        text="" if problem else text,
        metadata={
            name: value if isinstance(value, str) else _json(value)
            for name, value in fields.items()
        }
        | dict(notes),
        declared=declared,
        problem=problem,
    )


def _key(own: object, number: int, seen: set[str]) -> str:
    key = str(own).strip() if isinstance(own, str | int) else ""
    if not key or key in seen or len(key) > _LONGEST_KEY or not key.isprintable():
        key = str(number)
    seen.add(key)
    return key


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _json_rows(source: RowFile) -> Iterator[dict[str, Any] | DocumentError]:
    with source.file.path.open("rb") as file:
        for number, line in enumerate(_each(_Lines(file, source.max_bytes))):
            if isinstance(line, DocumentError):
                yield line
            elif data := (line if number else line.removeprefix(codecs.BOM_UTF8)).strip():
                yield _json_row(data)


def _json_row(line: bytes) -> dict[str, Any] | DocumentError:
    try:
        row = orjson.loads(line)
    except ValueError:
        return DocumentError("the line is not valid JSON in UTF-8; correct it")
    return (
        row if isinstance(row, dict) else DocumentError("the line is not a JSON object; correct it")
    )


def _csv_rows(source: RowFile, encoding: str) -> Iterator[dict[str, str] | DocumentError]:
    # process-wide, and 128 KiB by default: shorter than many a document
    csv.field_size_limit(max(csv.field_size_limit(), source.max_bytes))
    with source.file.path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        lines = _Lines(file, source.max_bytes)
        first = _first(lines)
        delimiter = _delimiter(first, source.text_column)
        rows = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        header = _unambiguous(_first(rows))
        for cells in _each(rows):
            if isinstance(cells, DocumentError):
                yield cells
            elif len(cells) not in (0, len(header)):
                yield DocumentError(
                    f"it has {len(cells)} cells where the header has {len(header)}; check its quotes"
                )
            elif not _encodable("".join(cells)):
                yield DocumentError(f"it is not all {encoding}; save the file as UTF-8")
            elif cells:
                yield dict(zip(header, cells, strict=True))


def _encoding(file: SourceFile) -> tuple[str, dict[str, str]]:
    """The encoding of a CSV file by its beginning, and a note when it is a guess; a few damaged rows stay UTF-8."""
    with file.path.open("rb") as opened:
        sample = opened.read(_SAMPLE_BYTES)
    if marked := mark(sample):
        return marked, {}
    if b"\0" in sample:
        raise DocumentError("it holds binary data, not text; give it the ending of its real format")
    if mostly_utf8(sample, complete=len(sample) < _SAMPLE_BYTES):
        return "utf-8", {}
    encoding, confidence = guess(sample)
    return encoding, {"encoding": encoding, "encoding_confidence": f"{confidence:.2f}"}


def _unambiguous(header: list[str]) -> list[str]:
    """The header. Raises DocumentError when two columns share a name: one would hide the other."""
    names = [name.strip().casefold() for name in header if name.strip()]
    if len(set(names)) < len(names):
        [(twice, _)] = Counter(names).most_common(1)
        raise DocumentError(f"two of its columns are called '{twice[:40]}'; rename one")
    return header


def _delimiter(header: str, text_column: str) -> str:
    """The delimiter under which the header has the text column. Raises DocumentError when none does."""
    wanted = text_column.strip().casefold()
    for delimiter in ",;\t|":
        if wanted in (
            name.strip().casefold() for name in next(csv.reader([header], delimiter=delimiter), [])
        ):
            return delimiter
    columns = ", ".join(next(csv.reader([header]), []))[:200]
    raise DocumentError(
        f"it has no column '{text_column}' (its columns: {columns}); name the one that holds the text"
    )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Lines(Generic[AnyStr]):
    """Lines of a file. One that is too long is left out and raises DocumentError; then the next one follows."""

    def __init__(self, file: IO[AnyStr], longest: int) -> None:
        self._file: IO[AnyStr] = file
        self._longest = longest

    def __iter__(self) -> _Lines[AnyStr]:
        return self

    def __next__(self) -> AnyStr:
        line = piece = self._file.readline(self._longest + 1)
        if not line:
            raise StopIteration
        if len(line) <= self._longest:
            return line
        while len(piece) > self._longest:
            piece = self._file.readline(self._longest + 1)
        raise DocumentError(f"it is longer than {self._longest:,} bytes; split it")


def _each(rows: Iterator[Any]) -> Iterator[Any]:
    """The rows, with an error in the place of each broken one."""
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield DocumentError(f"the row is broken: {error}; check its quotes")
        except DocumentError as error:
            yield error
        except UnicodeDecodeError:
            yield DocumentError(
                "from here on the file is damaged: its text cannot be decoded; save it as UTF-8"
            )
            return


def _first(rows: Iterator[Any]) -> Any:
    """The first row. Raises DocumentError when there is none or it is broken."""
    first = next(_each(rows), None)
    if isinstance(first, DocumentError):
        raise first
    if first is None:
        raise DocumentError("the file has no rows")
    return first
