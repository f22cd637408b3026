"""Sheets of a spreadsheet become documents: one for each row, or one for each sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tierwise.documents.readers.own import row_part
from tierwise.documents.readers.results import Extracted, Part
from tierwise.documents.readers.rows import (
    check_unique_columns,
    column_names,
    no_column,
    row_document,
)
from tierwise.documents.readers.settings import Request
from tierwise.errors import DocumentError

MOST_CELLS = 2_000_000  # with something in them
_MOST_ROWS_ABOVE = 20  # titles and notes over a header
_MOST_NAMED = 10

Cells = list[str]
# First and last row, first and last column, counted from 1.
Range = tuple[int, int, int, int]


@dataclass(slots=True)
class Sheet:
    """One sheet: its rows that are not empty, by their number, and what is special about it.

    `lines` has what is in no cell, and `headers` what is printed on each page. `unread` has what
    is lost by the row that it is in, 0 for the whole sheet.
    """

    name: str
    rows: dict[int, Cells] = field(default_factory=dict)
    is_hidden: bool = False
    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: list[str] = field(default_factory=list)
    merged: list[Range] = field(default_factory=list)
    comments: dict[int, list[str]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    unread: dict[int, list[str]] = field(default_factory=dict)

    def lose(self, row: int, what: str) -> None:
        """Note something in a row that is not read."""
        self.unread.setdefault(row, []).append(what)


def sheet_documents(
    sheets: Sequence[Sheet], request: Request, remedy: str
) -> Extracted:
    """Return the documents of all sheets as parts. Raises DocumentError where there is none.

    `remedy` is what a person can do about lost values.
    """
    parts: list[Part] = []
    for sheet in sheets:
        if sheet.rows or sheet.lines:
            parts += _parts(sheet, request, remedy)
    if not parts:
        raise DocumentError("the file has no rows; ask for a new copy")
    return Extracted("", parts=tuple(parts), is_document=False)


def _parts(sheet: Sheet, request: Request, remedy: str) -> Iterable[Part]:
    mode = request.settings.tables
    if mode == "document":
        return [_whole(sheet, remedy)]
    most = _MOST_ROWS_ABOVE if mode == "rows" else 1
    number = _header_row(sheet, request.text_column, most)
    if number is not None:
        return _rows(sheet, number, request, remedy)
    if mode == "auto":
        return [_whole(sheet, remedy)]
    first = next(iter(sheet.rows.values()), [])
    problem = str(no_column([cell for cell in first if cell], request.text_column))
    return [Part(key=f"#{sheet.name}", problem=f"the sheet {sheet.name}: {problem}")]


def _header_row(sheet: Sheet, text_column: str, most: int) -> int | None:
    """Return the number of the first row that names the text column, among the first `most`."""
    wanted = text_column.strip().casefold()
    for number in list(sheet.rows)[:most]:
        if wanted in [cell.strip().casefold() for cell in sheet.rows[number]]:
            return number
    return None


def _rows(
    sheet: Sheet, header_number: int, request: Request, remedy: str
) -> list[Part]:
    """Return a part for each row below the header."""
    header = sheet.rows[header_number]
    try:
        check_unique_columns(header)
    except DocumentError as error:
        return [Part(key=f"#{sheet.name}", problem=f"the sheet {sheet.name}: {error}")]
    names = column_names(header)
    _fill_down(sheet, header_number)
    parts: list[Part] = []
    seen: set[str] = set()
    for number, cells in sheet.rows.items():
        if number <= header_number or not any(cells):
            continue
        padded = cells + [""] * (len(names) - len(cells))
        names += [f"column {n}" for n in range(len(names) + 1, len(padded) + 1)]
        fields = dict(zip(names, padded, strict=True))
        raw = row_document(fields, number, seen, request.text_column)
        about = _about_row(sheet, number)
        raw = replace(raw, metadata={**about, **raw.metadata})
        part = row_part(raw, table=sheet.name, place=f"row {number}")
        lost = sheet.unread.get(number, [])
        if not parts:
            # what is in no row is said once
            lost = _beside_rows(sheet, header_number) + lost
        if part.extracted and lost:
            extracted = replace(part.extracted, unread=tuple(lost), remedy=remedy)
            part = replace(part, extracted=extracted)
        parts.append(part)
    return parts


def _beside_rows(sheet: Sheet, header_number: int) -> list[str]:
    """Name what is in no row: text boxes and charts, and what is lost above the rows."""
    lost: list[str] = []
    number = len(sheet.lines)
    if number:
        lost.append(
            "1 text box or chart" if number == 1 else f"{number} text boxes or charts"
        )
    for row, phrases in sheet.unread.items():
        if row <= header_number:
            lost += phrases
    return lost


def _about_row(sheet: Sheet, number: int) -> Mapping[str, str]:
    """Return the metadata of a row that no column has."""
    about = {"sheet": sheet.name}
    if sheet.is_hidden:
        about["hidden"] = "sheet"
    elif number in sheet.hidden_rows:
        about["hidden"] = "row"
    if number in sheet.comments:
        about["comments"] = "; ".join(sheet.comments[number])
    return about


def _fill_down(sheet: Sheet, header_number: int) -> None:
    """Give each row below the first of merged cells the value that all of them show."""
    by_row: dict[int, list[Range]] = {}
    for each in sheet.merged:
        if each[0] > header_number and each[1] > each[0]:
            by_row.setdefault(each[0], []).append(each)
    open_ranges: list[Range] = []
    values: dict[Range, str] = {}
    for number, cells in sheet.rows.items():
        for each in by_row.get(number, []):
            column = each[2] - 1
            values[each] = cells[column] if column < len(cells) else ""
            open_ranges.append(each)
        open_ranges = [each for each in open_ranges if each[1] >= number]
        for each in open_ranges:
            column = each[2] - 1
            cells.extend([""] * (column + 1 - len(cells)))
            if not cells[column]:
                cells[column] = values[each]


def _whole(sheet: Sheet, remedy: str) -> Part:
    """Return a sheet as one document: a line for each row, with bars between the cells."""
    lines = [f"# {sheet.name}", ""]
    for cells in sheet.rows.values():
        line = " | ".join(" ".join(cell.split()) for cell in cells)
        lines.append(line.rstrip(" |"))
    if sheet.rows and (sheet.comments or sheet.lines or sheet.headers):
        lines.append("")
    for number, comments in sheet.comments.items():
        lines += [f"Comment in row {number}: {comment}" for comment in comments]
    lines += sheet.lines + sheet.headers
    metadata = {"sheet": sheet.name}
    hidden = _describe_hidden(sheet)
    if hidden:
        metadata["hidden"] = hidden
    lost: list[str] = []
    for phrases in sheet.unread.values():
        lost += phrases
    if len(lost) > _MOST_NAMED:
        lost = [*lost[:_MOST_NAMED], f"{len(lost) - _MOST_NAMED:,} more"]
    extracted = Extracted(
        "\n".join(lines), metadata, unread=tuple(lost), remedy=remedy if lost else ""
    )
    return Part(key=f"#{sheet.name}", extracted=extracted)


def _describe_hidden(sheet: Sheet) -> str:
    """Say what a spreadsheet program does not show, such as `rows 3, 5; columns C`."""
    if sheet.is_hidden:
        return "sheet"
    described: list[str] = []
    rows = sorted(sheet.hidden_rows & sheet.rows.keys())
    if rows:
        named = ", ".join(str(row) for row in rows[:_MOST_NAMED])
        more = len(rows) - _MOST_NAMED
        described.append(f"rows {named}" + (f" and {more:,} more" if more > 0 else ""))
    if sheet.hidden_columns:
        described.append(f"columns {', '.join(sheet.hidden_columns[:_MOST_NAMED])}")
    return "; ".join(described)


class CellCount:
    """Counts cells with something in them. Raises DocumentError beyond the limit."""

    def __init__(self) -> None:
        self.number = 0

    def add(self, number: int) -> None:
        """Count more cells."""
        self.number += number
        if self.number > MOST_CELLS:
            raise DocumentError(f"it has more than {MOST_CELLS:,} cells; split it")
