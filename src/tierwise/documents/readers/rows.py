"""CSV and JSON Lines files: one document a row, read one at a time.

A file may be larger than memory. A broken row becomes a document with a problem, and the next row
is read; DocumentError is a value here until it is known whether it concerns a row or the file.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any, AnyStr, Generic
from uuid import UUID

import orjson

from tierwise.documents.readers.decoding import (
    BINARY,
    byte_order_mark,
    guess_encoding,
    is_mostly_utf8,
)
from tierwise.documents.readers.results import RawDocument
from tierwise.errors import DocumentError

_SAMPLE_BYTES = 1_000_000
_LONGEST_KEY = 100
_DELIMITERS = ",;\t|"
_NO_ROWS = "the file has no rows"


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file of rows, the column that holds the text, and the longest row allowed (bytes)."""

    path: Path
    id: str
    text_column: str
    max_bytes: int

    def documents(self) -> Iterator[RawDocument]:
        """Read one document a row.

        Raises DocumentError or OSError when the file as a whole cannot be read.
        """
        notes: dict[str, str] = {}
        rows: Iterator[Mapping[str, Any] | DocumentError]
        if self.path.suffix.lower() == ".csv":
            encoding, notes = _csv_encoding(self.path)
            rows = _csv_rows(self, encoding)
        else:
            rows = _json_rows(self)
        seen_keys: set[str] = set()
        for number, row in enumerate(rows, 1):
            if isinstance(row, DocumentError):
                key = _row_key(number, number, seen_keys)
                yield RawDocument(id=f"{self.id}#{key}", problem=str(row))
            else:
                document = row_document(row, number, seen_keys, self.text_column)
                yield replace(
                    document,
                    id=f"{self.id}#{document.id}",
                    metadata={**document.metadata, **notes},
                )
        if not seen_keys:
            raise DocumentError(_NO_ROWS)


def row_document(
    row: Mapping[str, Any], number: int, seen_keys: set[str], text_column: str
) -> RawDocument:
    """Return one row as a document: text and sensitivity have columns, the rest is metadata.

    Its id is the row's own where that is new and fit to print, else its number.
    """
    fields: dict[str, Any] = {}
    for name, value in row.items():
        if value not in (None, ""):
            fields[str(name).strip()] = value
    names = {name.casefold(): name for name in fields}  # column names count in any case

    key = _row_key(fields.get(names.get("id", "")), number, seen_keys)
    sensitivity_names = [name for name in fields if name.casefold() == "sensitivity"]
    declared = tuple(str(fields.pop(name)) for name in sensitivity_names)
    wanted = text_column.strip().casefold()
    text = fields.pop(names.get(wanted, ""), "")
    problem = _text_problem(text, text_column)

    metadata: dict[str, str] = {}
    for name, value in fields.items():
        metadata[name] = _as_text(value)
    return RawDocument(
        id=key,
        text="" if problem else text,
        metadata=metadata,
        declared=declared,
        problem=problem,
    )


def _as_text(value: Any) -> str:
    """Return a text as it is, what JSON knows as JSON, and any other value as Python prints it."""
    if isinstance(value, list | dict | int | float):
        return orjson.dumps(value, default=str).decode()
    return str(value)


def _text_problem(text: object, column: str) -> str:
    """Say why a row's text cannot be used; empty when it can."""
    if not isinstance(text, str):
        return f"its '{column}' is not a text but a {type(text).__name__}; correct it"
    if not text.strip():
        return f"it has no '{column}'"
    return ""


def _row_key(own: object, number: int, seen: set[str]) -> str:
    """Return the row's own id where that is new and fit to print, else its number."""
    key = ""
    if isinstance(own, str | int | UUID):
        key = str(own).strip()
    is_new = key != "" and key not in seen
    is_fit = len(key) <= _LONGEST_KEY and key.isprintable()
    if not is_new or not is_fit:
        key = str(number)
    seen.add(key)
    return key


# JSON Lines


def _json_rows(source: RowFile) -> Iterator[dict[str, Any] | DocumentError]:
    with source.path.open("rb") as file:
        lines = _BoundedLines(file, source.max_bytes)
        for number, line in enumerate(_errors_as_rows(lines)):
            if isinstance(line, DocumentError):
                yield line
                continue
            content = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
            if content.strip():
                yield _parse_json_row(content.strip())


def _parse_json_row(line: bytes) -> dict[str, Any] | DocumentError:
    try:
        row = orjson.loads(line)
    except ValueError:
        return DocumentError("the line is not valid JSON in UTF-8; correct it")
    if not isinstance(row, dict):
        return DocumentError("the line is not a JSON object; correct it")
    return row


# CSV


def _csv_rows(
    source: RowFile, encoding: str
) -> Iterator[dict[str, str] | DocumentError]:
    # Process-wide, and 128 KiB by default: many documents are longer.
    longest_cell = max(csv.field_size_limit(), source.max_bytes)
    csv.field_size_limit(longest_cell)
    with source.path.open(
        encoding=encoding, errors="surrogateescape", newline=""
    ) as file:
        lines = _BoundedLines(file, source.max_bytes)
        first_line = _first_row(lines)
        delimiter = _find_delimiter(first_line, source.text_column)
        rows = csv.reader(chain([first_line], lines), delimiter=delimiter, strict=True)
        header = _first_row(rows)
        _check_unique_columns(header)
        for cells in _errors_as_rows(rows):
            if isinstance(cells, DocumentError):
                yield cells
            elif not cells:
                continue  # a blank line
            elif len(cells) != len(header):
                yield DocumentError(
                    f"it has {len(cells)} cells where the header has {len(header)};"
                    " check its quotes"
                )
            elif not _is_encodable("".join(cells)):
                yield DocumentError(f"it is not all {encoding}; save the file as UTF-8")
            else:
                yield dict(zip(header, cells, strict=True))


def _csv_encoding(path: Path) -> tuple[str, dict[str, str]]:
    """Return a CSV file's encoding, by its beginning, and metadata when it is a guess.

    A file that is UTF-8 but for a few rows counts as UTF-8: only those rows are refused later.
    """
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    marked = byte_order_mark(sample)
    if marked:
        return marked, {}
    if b"\0" in sample:
        raise DocumentError(BINARY)
    if is_mostly_utf8(sample, complete=len(sample) < _SAMPLE_BYTES):
        return "utf-8", {}
    return guess_encoding(sample)


def _find_delimiter(header: str, text_column: str) -> str:
    """Return the delimiter under which the header has the text column.

    Raises DocumentError when no delimiter does.
    """
    wanted = text_column.strip().casefold()
    for delimiter in _DELIMITERS:
        columns = _split_line(header, delimiter)
        if wanted in [name.strip().casefold() for name in columns]:
            return delimiter
    listed = ", ".join(_split_line(header, ","))[:200]
    raise DocumentError(
        f"it has no column '{text_column}' (its columns: {listed});"
        " name the one that holds the text"
    )


def _split_line(line: str, delimiter: str) -> list[str]:
    rows = csv.reader([line], delimiter=delimiter)
    return next(rows, [])


def _check_unique_columns(header: list[str]) -> None:
    """Raise DocumentError when two columns share a name: one would hide the other."""
    seen: set[str] = set()
    for column in header:
        name = column.strip().casefold()
        if name in seen:
            raise DocumentError(
                f"two of its columns are called '{name[:40]}'; rename one"
            )
        if name:
            seen.add(name)


def _is_encodable(text: str) -> bool:
    """Return False for a text with bytes that were not in the file's encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Lines and rows of either format


class _BoundedLines(Generic[AnyStr]):
    """The lines of a file, each of bounded length.

    A line that is too long is left out and raises DocumentError; then the next one follows.
    """

    def __init__(self, file: IO[AnyStr], longest: int) -> None:
        self._file: IO[AnyStr] = file
        self._longest = longest

    def __iter__(self) -> _BoundedLines[AnyStr]:
        return self

    def __next__(self) -> AnyStr:
        line = self._file.readline(self._longest + 1)
        if not line:
            raise StopIteration
        if len(line) <= self._longest:
            return line
        rest = line
        while len(rest) > self._longest:
            rest = self._file.readline(self._longest + 1)
        raise DocumentError(f"it is longer than {self._longest:,} bytes; split it")


def _errors_as_rows(rows: Iterator[Any]) -> Iterator[Any]:
    """Yield the rows, with an error in the place of each broken one."""
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


def _first_row(rows: Iterator[Any]) -> Any:
    """Return the first row. Raises DocumentError when there is none or it is broken."""
    first = next(_errors_as_rows(rows), None)
    if isinstance(first, DocumentError):
        raise first
    if first is None:
        raise DocumentError(_NO_ROWS)
    return first
