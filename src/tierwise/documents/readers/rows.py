"""CSV and JSON Lines files: one document a row, read one at a time.

A file may be larger than memory. A broken row becomes a document with a problem, and the next row
is read; DocumentError is a value here until it is known whether it concerns a row or the file.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any, AnyStr
from uuid import UUID

import orjson

from tierwise.documents.readers.decoding import byte_order_mark, find_encoding
from tierwise.documents.readers.results import RawDocument
from tierwise.errors import DocumentError
from tierwise.text.csv_records import (
    BrokenRecord,
    CsvReader,
    CsvRecord,
    without_empty_end,
)

_SAMPLE_BYTES = 1_000_000
_LONGEST_KEY = 100
_DELIMITERS = ",;\t|"
_NO_DELIMITER = "\ufdd1"  # no character, so in no text
_NO_ROWS = "the file has no rows"
# Excel's first line: the delimiter of the others
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_RETURN = "\ufdd0"  # no character, so in no text
_LINE_END = re.compile("[\r\n]")
_MARK = "\ufeff"  # a byte order mark
_MOST_NULS = 0.05  # of a text file's bytes


@dataclass(frozen=True, slots=True)
class _Row:
    """The fields of one row, and its place such as `lines 3 to 5`."""

    place: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file of rows, the column that holds the text, and the longest row allowed (bytes)."""

    path: Path
    id: str
    text_column: str
    max_bytes: int
    # the content of a file that is not on disk, such as an archive's member
    data: bytes | None = field(default=None, repr=False)

    def open_bytes(self) -> IO[bytes]:
        """Open the file's bytes."""
        if self.data is not None:
            return io.BytesIO(self.data)
        return self.path.open("rb")

    def open_text(
        self, encoding: str, *, newline: str, errors: str | None = None
    ) -> IO[str]:
        """Open the file's text."""
        return io.TextIOWrapper(
            self.open_bytes(), encoding=encoding, errors=errors, newline=newline
        )

    def documents(self) -> Iterator[RawDocument]:
        """Read one document a row.

        Raises DocumentError or OSError when the file as a whole cannot be read.
        """
        notes: dict[str, str] = {}
        rows: Iterator[_Row | DocumentError]
        if self.path.suffix.lower() == ".csv":
            encoding, notes = _csv_encoding(self)
            rows = _csv_rows(self, encoding)
        else:
            rows = _json_rows(self)
        seen_keys: set[str] = set()
        for number, row in enumerate(rows, 1):
            if isinstance(row, DocumentError):
                key = _row_key(number, number, seen_keys)
                yield RawDocument(id=f"{self.id}#{key}", problem=str(row))
            else:
                document = row_document(row.fields, number, seen_keys, self.text_column)
                problem = document.problem
                if problem:
                    problem = f"{row.place}: {problem}"
                yield replace(
                    document,
                    id=f"{self.id}#{document.id}",
                    metadata={**document.metadata, **notes},
                    problem=problem,
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
    if not isinstance(value, list | dict | int | float):
        return str(value)
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:
        # a whole number beyond 64 bits, half a character, or a key that is no text
        return json.dumps(value, ensure_ascii=False, default=str)


def _text_problem(text: object, column: str) -> str:
    """Say why a row's text cannot be used; empty when it can."""
    if not isinstance(text, str):
        return f"its '{column}' is not a text but a {type(text).__name__}; correct it"
    if not text.strip():
        return f"it has no '{column}'; fill it in, or delete the row"
    return ""


def _row_key(own: object, number: int, seen: set[str]) -> str:
    """Return the row's own id where that is new and fit to print, else its number."""
    key = ""
    if isinstance(own, str | int | UUID) and not isinstance(own, bool):
        key = str(own).strip()
    is_new = key != "" and key not in seen
    is_fit = len(key) <= _LONGEST_KEY and key.isprintable()
    if not is_new or not is_fit:
        key = str(number)
    seen.add(key)
    return key


# JSON Lines


def _json_rows(source: RowFile) -> Iterator[_Row | DocumentError]:
    """Yield the object of each line that is not blank.

    Raises DocumentError for a file that is one JSON array, or whose objects go over several lines.
    """
    with source.open_bytes() as file:
        beginning = file.read(len(codecs.BOM_UTF32_LE))
    encoding = byte_order_mark(beginning) or "utf-8"
    quoted_column = f'"{source.text_column}"'.encode()
    is_first = True
    for number, line in _numbered_json_lines(source, encoding):
        if isinstance(line, DocumentError):
            yield DocumentError(f"line {number}: {line}")
            continue
        content = line.strip()
        if not content:
            continue
        if is_first:
            is_first = False
            _check_layout(content)
        row = _parse_json_row(content, number)
        if content.count(quoted_column) > 1 and _has_key_twice(content, source):
            row = DocumentError(
                f"line {number}: it has '{source.text_column}' more than once; name one differently"
            )
        yield row


def _has_key_twice(line: bytes, source: RowFile) -> bool:
    """Return True if the object of a line has the text column twice: one would hide the other."""
    outermost: list[str] = []

    def note_keys(pairs: list[tuple[str, Any]]) -> None:
        outermost[:] = [key for key, _ in pairs]  # the outermost object ends last

    with suppress(ValueError, RecursionError):
        json.loads(line, object_pairs_hook=note_keys, parse_int=str, strict=False)
    return outermost.count(source.text_column) > 1


def _numbered_json_lines(
    source: RowFile, encoding: str
) -> Iterator[tuple[int, bytes | DocumentError]]:
    """Yield the lines in UTF-8, without a byte order mark, or an error in the place of one."""
    if encoding in ("utf-8", "utf-8-sig"):
        with source.open_bytes() as file:
            for number, line in enumerate(_error_for_line(file, source.max_bytes), 1):
                if number == 1 and isinstance(line, bytes):
                    line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901
                yield number, line
        return
    with source.open_text(encoding, newline="\n") as text:
        for number, row in enumerate(_error_for_line(text, source.max_bytes), 1):
            if isinstance(row, str):
                yield number, row.encode("utf-8", "surrogatepass")
            else:
                yield number, row


def _check_layout(first_line: bytes) -> None:
    """Raise DocumentError for a file that is JSON, but not JSON Lines, by its first line."""
    is_array = first_line.startswith(b"[")
    if is_array:
        row = _load_json(first_line)
        # A line such as ["a", 1] is a fault of its own.
        is_array = row is _INVALID or (
            isinstance(row, list) and any(isinstance(item, dict) for item in row)
        )
    if is_array or first_line == b"[]":
        raise DocumentError(
            "the file is one JSON array, not JSON Lines; write one object a line, "
            "such as with `jq -c '.[]'`"
        )
    if first_line == b"{":
        raise DocumentError(
            "its JSON objects go over several lines; write one object a line, "
            "such as with `jq -c .`"
        )


def _parse_json_row(line: bytes, number: int) -> _Row | DocumentError:
    row = _load_json(line)
    if row is _INVALID and line.endswith(b","):
        # an array's elements, without its brackets
        row = _load_json(line[:-1])
    if row is _INVALID:
        return DocumentError(
            f"line {number}: the line is not valid JSON in UTF-8; correct it"
        )
    if not isinstance(row, dict):
        return DocumentError(
            f"line {number}: the line is not a JSON object; correct it"
        )
    return _Row(f"line {number}", row)


_INVALID = object()
# The fast parser makes a float of a longer number.
_LONG_NUMBER = re.compile(rb"\d{19}")
# Python converts no more digits to a number.
_MOST_DIGITS = 4_000


def _load_json(line: bytes) -> Any:
    """Return the value of a line as Python reads it, or _INVALID.

    NaN and Infinity, which JSON lacks, are null. Whole numbers keep their digits.
    """
    if not _LONG_NUMBER.search(line):
        with suppress(ValueError):
            return orjson.loads(line)
    try:
        return json.loads(
            line.decode(),
            parse_constant=_null,
            parse_int=_whole_number,
            strict=False,
        )
    except (ValueError, RecursionError):
        return _INVALID


def _null(_: str) -> None:
    """Return None for NaN, Infinity and -Infinity."""


def _whole_number(digits: str) -> int | str:
    return digits if len(digits) > _MOST_DIGITS else int(digits)


# CSV


def _csv_rows(source: RowFile, encoding: str) -> Iterator[_Row | DocumentError]:
    with _open_csv(source, encoding) as file:
        lines = _with_marked_returns(_error_for_line(file, source.max_bytes))
        first_line, number, separator = _find_header(lines)
        delimiter = separator or _find_delimiter(first_line, source.text_column)
        header, rows = _read_header(
            chain([first_line], lines), delimiter, source.max_bytes, number
        )
        _check_columns(header, source.text_column)
        check_unique_columns(header)
        names = column_names(header)
        for row in _errors_as_rows(rows):
            if isinstance(row, DocumentError):
                yield row
            elif isinstance(row, BrokenRecord):
                yield DocumentError(row.describe())
            elif not _is_blank_row(row.cells) and not _is_header(row.cells, header):
                yield _csv_row(row, names, encoding)


def _open_csv(source: RowFile, encoding: str) -> IO[str]:
    """Open a CSV file with the line ends of its first line.

    Line ends of another kind are part of a cell: some programs write them without quotes.
    """

    def opened(newline: str) -> IO[str]:
        return source.open_text(encoding, errors="surrogateescape", newline=newline)

    with opened("") as file:
        try:
            first_line = file.readline(_SAMPLE_BYTES)
            following = file.read(_SAMPLE_BYTES)
        except UnicodeDecodeError:
            return opened("\n")  # reading it again says so
    both = following.count("\r\n")
    if first_line.endswith("\r") and following.count("\r") > 2 * both:
        return opened("\r")
    return opened("\n")


def _with_marked_returns(
    lines: Iterator[str | DocumentError],
) -> Iterator[str | DocumentError]:
    """Yield the lines with a mark for each other line end inside of one.

    The csv module would end the row there.
    """
    for line in lines:
        if isinstance(line, str):
            content = line.rstrip("\r\n")
            if "\r" in content or "\n" in content:
                marked = _LINE_END.sub(_RETURN, content)
                yield marked + line[len(content) :]
                continue
        yield line


def _is_header(cells: list[str], header: list[str]) -> bool:
    """Return True for a header once more, where files were put one behind the other."""
    return (
        cells[-1] == header[-1]
        and [cell.removeprefix(_MARK) for cell in cells] == header
    )


def _is_blank_row(cells: list[str]) -> bool:
    """Return True for a blank line, and for a row of nothing but empty cells."""
    if len(cells) == 1:
        return cells[0] != "" and not cells[0].strip()
    return not any(cell.strip() for cell in cells)


def _csv_row(row: CsvRecord, names: list[str], encoding: str) -> _Row | DocumentError:
    cells = without_empty_end(row.cells, len(names))
    place = f"line {row.first_line}"
    if row.last_line > row.first_line:
        place = f"lines {row.first_line} to {row.last_line}"
    if len(cells) != len(names):
        return DocumentError(
            f"{place}: it has {len(cells)} cells where the header has {len(names)};"
            " check its quotes"
        )
    if not _is_encodable("".join(cells)):
        return DocumentError(
            f"{place}: it is not all {encoding}; save the file as UTF-8"
        )
    whole = [cell.replace(_RETURN, "\n") for cell in cells]
    return _Row(place, dict(zip(names, whole, strict=True)))


def _find_header(lines: Iterator[str | DocumentError]) -> tuple[str, int, str]:
    """Return the header's line, its number, and the delimiter of a line `sep=;` before it.

    Raises DocumentError when there is no header, or it is too long.
    """
    separator = ""
    for number, line in enumerate(lines, 1):
        if isinstance(line, DocumentError):
            raise DocumentError(f"line {number}: {line}")
        declared = _SEPARATOR_LINE.fullmatch(line.rstrip("\r\n"))
        if declared and not separator:
            separator = declared[1]
        elif line.strip():
            return line, number, separator
    raise DocumentError(_NO_ROWS)


def _read_header(
    lines: Iterator[str | DocumentError], delimiter: str, most: int, first_line: int
) -> tuple[list[str], CsvReader]:
    """Return the header, and a reader of the rows. Raises DocumentError for a broken header."""
    rows = CsvReader(
        lines, delimiter=delimiter, most_characters=most, first_line=first_line
    )
    header = next(rows, None)
    if isinstance(header, BrokenRecord):
        raise DocumentError(header.describe())
    if header is None:
        raise DocumentError(_NO_ROWS)
    return header.cells, rows


def column_names(header: Sequence[str]) -> list[str]:
    """Return the columns' names; one without a name is called after its place."""
    return [
        name if name.strip() else f"column {number}"
        for number, name in enumerate(header, 1)
    ]


def _csv_encoding(source: RowFile) -> tuple[str, dict[str, str]]:
    """Return a CSV file's encoding, by its beginning, and metadata when it is a guess.

    A file that is UTF-8 but for a few rows counts as UTF-8: only those rows are refused later.
    """
    with source.open_bytes() as file:
        sample = file.read(_SAMPLE_BYTES)
    is_whole = len(sample) < _SAMPLE_BYTES
    if not byte_order_mark(sample):
        # Some NULs are a slip of the program that wrote the file, or its end after a crash.
        content = sample.rstrip(b"\0")
        if content.count(b"\0") <= _MOST_NULS * len(content):
            sample = content.replace(b"\0", b"")
    found = find_encoding(sample, complete=is_whole, lenient=True)
    return found.name, found.notes


def _find_delimiter(header: str, text_column: str) -> str:
    """Return the delimiter under which the header has the text column.

    Raises DocumentError when no delimiter does.
    """
    wanted = text_column.strip().casefold()
    if [name.strip().casefold() for name in _split_line(header, _NO_DELIMITER)] == [
        wanted
    ]:
        # A table of one column: a comma in a text needs no quotes.
        return _NO_DELIMITER
    for delimiter in _DELIMITERS:
        columns = _split_line(header, delimiter)
        if wanted in [name.strip().casefold() for name in columns]:
            return delimiter
    raise no_column(_split_line(header, ","), text_column)


def _check_columns(header: list[str], text_column: str) -> None:
    """Raise DocumentError when no column holds the text."""
    wanted = text_column.strip().casefold()
    if wanted not in [name.strip().casefold() for name in header]:
        raise no_column(header, text_column)


def no_column(header: Sequence[str], text_column: str) -> DocumentError:
    """Return the error for a table without the column that holds the text."""
    listed = ", ".join(header)[:200]
    return DocumentError(
        f"it has no column '{text_column}' (its columns: {listed});"
        " name the one that holds the text"
    )


def _split_line(line: str, delimiter: str) -> list[str]:
    # the csv module refuses longer cells, by a limit of the whole process
    longest = max(csv.field_size_limit(), min(len(line) + 1, 2**31 - 1))
    csv.field_size_limit(longest)
    rows = csv.reader([line], delimiter=delimiter)
    return next(rows, [])


def check_unique_columns(header: Sequence[str]) -> None:
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


def _error_for_line(file: IO[AnyStr], longest: int) -> Iterator[AnyStr | DocumentError]:
    """Yield the lines of a file, and an error in the place of one that is too long.

    Where the text cannot be decoded, an error is the last one.
    """
    while True:
        try:
            line = file.readline(longest + 1)
        except UnicodeDecodeError:
            yield DocumentError(
                "from here on the file is damaged: its text cannot be decoded; save it as UTF-8"
            )
            return
        if not line:
            return
        if len(line) <= longest:
            yield line
            continue
        rest = line
        while len(rest) > longest:
            rest = file.readline(longest + 1)
        yield DocumentError(f"it is longer than {longest:,} bytes; split it")


def _errors_as_rows(rows: Iterator[Any]) -> Iterator[Any]:
    """Yield the rows, with an error in the place of each line that cannot be read."""
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except DocumentError as error:
            yield error
