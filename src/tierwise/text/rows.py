"""Rows of CSV and JSON Lines files, each with its line number.

A row that cannot be used does not end the reading: a ConfigError with file and line takes its
place. The reader raises it, or collects it with the others.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError
from tierwise.text.csv_records import BrokenRecord, CsvReader
from tierwise.text.files import read_text

Row = dict[str, Any]


def read_rows(path: Path) -> Iterator[tuple[int, Row | ConfigError]]:
    """Yield each row with its line: CSV if the file's name ends in `.csv`, else JSON Lines.

    A CSV row without an `id` is named after its place: `messages.csv#7`. A file that cannot be
    read yields one error, at line 0.
    """
    try:
        text = read_text(path)
    except ConfigError as error:
        yield 0, error
        return
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(path, text)
    else:
        yield from _json_rows(path, text)


def csv_cells(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not blank, with the line on which the row begins.

    The header is the first of them. Raises ConfigError for broken quotes, and for a quoted cell
    whose lines look like rows.
    """
    for row in CsvReader(lines):
        if isinstance(row, BrokenRecord):
            raise ConfigError(
                f"not valid CSV: {row.explain()}", path=path, line=row.first_line
            )
        if row.cells:
            yield row.first_line, row.cells


def wrong_width(cells: Sequence[str], header: Sequence[str]) -> str | None:
    """Return what is wrong with a row that has more or fewer cells than the header."""
    if len(cells) == len(header):
        return None
    return f"has {len(cells)} cells where the header has {len(header)}; check its commas and quotes"


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as JSON Lines."""
    text = io.StringIO()
    for row in rows:
        line = json.dumps(row, ensure_ascii=False)
        text.write(f"{line}\n")
    return text.getvalue()


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a header and rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Row | ConfigError]]:
    # not splitlines(): a JSON text may hold U+2028 and other line ends, unescaped
    for line, raw in enumerate(text.split("\n"), 1):
        if raw.strip():
            yield line, _json_row(path, line, raw)


def _json_row(path: Path, line: int, raw: str) -> Row | ConfigError:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as error:
        # also for numbers and nestings that are too long
        return ConfigError(
            f"not valid JSON: {error}; write one object a line", path=path, line=line
        )
    if not isinstance(row, dict):
        return ConfigError("not a JSON object; write one a line", path=path, line=line)
    return row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Row | ConfigError]]:
    # newline="" keeps the line ends inside of quoted cells as they are.
    rows = csv_cells(path, io.StringIO(text, newline=""))
    number = 0
    try:
        _, header = next(rows, (0, []))
        for line, cells in rows:
            # A row with a fault counts as well, so that mending it renames no other row.
            number += 1
            if fault := wrong_width(cells, header):
                yield line, ConfigError(fault, path=path, line=line)
            else:
                named = dict(zip(header, cells, strict=True))
                yield line, {"id": f"{path.name}#{number}", **named}
    except ConfigError as error:
        yield error.line or 0, error
