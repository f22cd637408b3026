"""OpenDocument files of LibreOffice and others: texts (.odt), slides (.odp), spreadsheets (.ods).

The text is in content.xml, headers and footers in styles.xml. Scripts and objects are not read.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.settings import Request
from tierwise.documents.readers.tables import CellCount, Sheet, sheet_documents
from tierwise.documents.readers.unpacking import (
    DAMAGED,
    check_declarations,
    check_unpacked_size,
)
from tierwise.errors import DocumentError

_REMEDY = "save it as .pdf, or put the missing parts into the text"
_CALCULATE = "open it in a spreadsheet program and save it there"
_MOST_SPACES = 100
_MOST_COLUMNS = 16_384
_MOST_REPEATED = 1000  # rows with the same content
_SHORT_TEXT = 100  # letters
_LENGTH = re.compile(r"([\d.]+)(cm|mm|in|pt)")
_CM = {"cm": 1.0, "mm": 0.1, "in": 2.54, "pt": 2.54 / 72}
_PAGE_CM2 = 21.0 * 29.7
_LARGE = 0.25  # of a page
# Deleted text, and what programs keep for themselves.
_SILENT = {
    "tracked-changes",
    "sequence-decls",
    "forms",
    "shapes",
    "settings",
    "variable-decls",
}


class _Archive:
    """The members of an OpenDocument file. Raises DocumentError for an encrypted one."""

    def __init__(self, data: bytes) -> None:
        check_unpacked_size(data)
        check_declarations(data)
        self._data = data
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if "content.xml" not in names:
                raise DocumentError(DAMAGED)
            if "META-INF/manifest.xml" in names:
                manifest = archive.read("META-INF/manifest.xml")
                if b"encryption-data" in manifest:
                    raise DocumentError(
                        "the file is encrypted; save a copy without a password"
                    )
            self.content = _parse(archive.read("content.xml"))
            self.styles = None
            if "styles.xml" in names:
                self.styles = _parse(archive.read("styles.xml"))

    def chart(self, path: str) -> str:
        """Return the words of a chart or a formula in the file; empty where it is none."""
        name = f"{path.removeprefix('./').rstrip('/')}/content.xml"
        with zipfile.ZipFile(io.BytesIO(self._data)) as archive:
            if name not in archive.namelist():
                return ""
            root = _parse(archive.read(name))
        if _local(root) == "math":
            return f"Formula: {' '.join(' '.join(root.itertext()).split())}"
        for chart in root.iter("{*}chart"):
            words = _chart_words(chart)
            return f"Chart: {words}" if words else ""
        return ""

    def body(self, kind: str) -> Any:
        """Return the content of a text, presentation or spreadsheet. Raises DocumentError."""
        for body in self.content.iter(f"{{*}}{kind}"):
            return body
        raise DocumentError("the file is not what its ending says; ask for a new copy")


def _parse(xml: bytes) -> Any:
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    return etree.fromstring(xml, parser)


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _get(element: Any, name: str) -> str:
    """Return an attribute by its name without the namespace."""
    for key, value in element.items():
        if key.rpartition("}")[2] == name:
            return str(value)
    return ""


# --- texts and slides ----------------------------------------------------------------------------


def read_odt(data: bytes) -> Extracted:
    """Return the text of a document, with its headers, footers, notes and comments."""
    archive = _Archive(data)
    writer = _Writer(archive)
    writer.blocks(archive.body("text"))
    lines = writer.lines + _headers(archive)
    return _extracted(lines, writer, "picture")


def read_odp(data: bytes) -> Extracted:
    """Return the text of slides, with their notes."""
    archive = _Archive(data)
    writer = _Writer(archive)
    slides = [page for page in archive.body("presentation") if _local(page) == "page"]
    hidden = _hidden_styles(archive.content)
    for number, page in enumerate(slides, 1):
        mark = " (hidden)" if _get(page, "style-name") in hidden else ""
        writer.lines += [f"## Slide {number}{mark}", ""]
        writer.blocks(page)
    return _extracted(writer.lines, writer, "picture")


def _extracted(lines: list[str], writer: _Writer, noun: str) -> Extracted:
    text = "\n".join(lines)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    letters = sum(map(str.isalnum, text))
    unread = list(dict.fromkeys(writer.unread))
    pages: list[str] = []
    pictures = writer.large
    if letters < _SHORT_TEXT and writer.pictures:
        counted = f"{writer.pictures} {noun}{'' if writer.pictures == 1 else 's'}"
        verb = "is" if writer.pictures == 1 else "are"
        pages.append(f"{counted} in place of text {verb} not read")
    elif pictures:
        counted = f"{pictures} large {noun}{'' if pictures == 1 else 's'}"
        unread.append(counted)
    lost = pages or unread
    return Extracted(
        text,
        unread=tuple(unread),
        unread_pages=tuple(pages),
        remedy=_REMEDY if lost else "",
    )


def _headers(archive: _Archive) -> list[str]:
    """Return headers and footers, each once."""
    if archive.styles is None:
        return []
    lines: list[str] = []
    for element in archive.styles.iter("{*}header", "{*}footer"):
        words = " ".join(_inline(element).split())
        # what is left of page numbers and dates says nothing
        if sum(map(str.isalpha, words)) > 3:
            lines.append(f"{_local(element).title()}: {words}")
    return ["", *dict.fromkeys(lines)] if lines else []


class _Writer:
    """Collects the lines of a text. `unread` has what is in none of them."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self.lines: list[str] = []
        self.unread: list[str] = []
        self.pictures = 0
        self.large = 0

    def blocks(self, parent: Any, prefix: str = "") -> None:
        """Add all blocks below an element."""
        for element in parent:
            self._block(element, prefix)

    def _block(self, element: Any, prefix: str) -> None:
        name = _local(element)
        if name in _SILENT or not name:
            return
        if name == "h":
            level = _get(element, "outline-level")
            marks = "#" * min(int(level) if level.isdecimal() else 1, 6)
            self._paragraph(element, f"{marks} ")
        elif name == "p":
            self._paragraph(element, prefix)
        elif name == "list":
            for item in element:
                self.blocks(item, f"{prefix}- " if not prefix else f"  {prefix}")
        elif name == "table":
            self._table(element)
        elif name == "notes":
            self.lines.append("Notes:")
            self.blocks(element)
        elif name == "frame":
            self._frame(element)
        elif name == "annotation":
            self._annotation(element)
        else:
            self.blocks(element, prefix)

    def _paragraph(self, element: Any, prefix: str) -> None:
        words = _inline(element).strip()
        if words:
            self.lines += [f"{prefix}{words}", ""]
        # text boxes, pictures, notes and comments that are anchored in it
        for inner in _anchored(element):
            name = _local(inner)
            if name == "frame":
                self._frame(inner)
            elif name == "annotation":
                self._annotation(inner)
            elif name == "note":
                body = inner.find("{*}note-body")
                if body is not None:
                    self.lines += [f"Note: {' '.join(_inline(body).split())}", ""]
            else:
                self.blocks(inner)

    def _table(self, table: Any) -> None:
        count = CellCount()
        for row in table.iter("{*}table-row"):
            cells = [
                " ".join(_inline(cell).split())
                for cell in row
                if _local(cell) == "table-cell"
            ]
            count.add(len(cells))
            if any(cells):
                self.lines.append(" | ".join(cells))
            for cell in row:
                for paragraph in cell.iter("{*}p"):
                    for inner in _anchored(paragraph):
                        if _local(inner) in ("frame", "annotation"):
                            self._block(inner, "")
        self.lines.append("")

    def _annotation(self, element: Any) -> None:
        author = element.find("{*}creator")
        paragraphs = [_inline(each) for each in element.iter("{*}p")]
        text = " ".join(" ".join(paragraphs).split())
        if text:
            by = f" by {author.text}" if author is not None and author.text else ""
            self.lines += [f"Comment{by}: {text}", ""]

    def _frame(self, frame: Any) -> None:
        """Add a text box or a table; count a picture, and name an object."""
        names = {_local(child) for child in frame}
        if names & {"text-box", "table"}:
            for child in frame:
                if _local(child) in ("text-box", "table"):
                    self._block(child, "")
        elif names & {"object", "object-ole", "plugin", "floating-frame", "applet"}:
            self._object(frame)
        elif "image" in names:
            self.pictures += 1
            size = _length(_get(frame, "width")) * _length(_get(frame, "height"))
            self.large += size >= _LARGE * _PAGE_CM2
            for child in frame:
                if _local(child) in ("title", "desc") and (child.text or "").strip():
                    self.lines += [f"Picture: {child.text.strip()}", ""]

    def _object(self, frame: Any) -> None:
        """Add the words of a chart or a formula; name any other object."""
        for child in frame:
            if _local(child) == "object":
                words = self._archive.chart(_get(child, "href"))
                if words:
                    self.lines += [words, ""]
                    return
        self.unread.append("an embedded object")


def _chart_words(chart: Any) -> str:
    """Return a chart's titles, then each series with its names and values."""
    words = [
        " ".join(_inline(each).split())
        for each in chart.iter("{*}title", "{*}subtitle")
    ]
    rows = [
        [
            " ".join(_inline(cell).split())
            for cell in row
            if _local(cell) == "table-cell"
        ]
        for row in chart.iter("{*}table-row")
    ]
    if rows:
        names, *points = rows
        for column, name in enumerate(names[1:], 1):
            pairs = [
                " ".join(filter(None, (row[0], row[column])))
                for row in points
                if column < len(row)
            ]
            words.append(f"{name}: {', '.join(pairs)}" if name else ", ".join(pairs))
    return "; ".join(word for word in words if word)


def _length(text: str) -> float:
    match = _LENGTH.fullmatch(text)
    return float(match[1]) * _CM[match[2]] if match else 0.0


_ANCHORED = (
    "frame",
    "annotation",
    "note",
    "custom-shape",
    "rect",
    "g",
    "line",
    "ellipse",
)

_SHAPES = tuple(name for name in _ANCHORED if name not in ("annotation", "note"))


def _anchored(element: Any) -> Iterator[Any]:
    """Yield what is anchored in a paragraph, without what is inside of that."""
    for child in element:
        name = _local(child)
        if name in _ANCHORED:
            yield child
        elif name not in _SILENT:
            yield from _anchored(child)


def _inline(element: Any) -> str:
    """Return the words of a paragraph, without what is anchored in it."""
    pieces: list[str] = [element.text or ""]
    for child in element:
        name = _local(child)
        if name == "s":
            number = _get(child, "c")
            spaces = int(number) if number.isdecimal() else 1
            pieces.append(" " * min(spaces, _MOST_SPACES))
        elif name == "tab":
            pieces.append("\t")
        elif name == "line-break":
            pieces.append("\n")
        elif name not in _ANCHORED and name not in _SILENT and name:
            pieces.append(_inline(child))
            if name in ("p", "h"):
                pieces.append("\n")
        pieces.append(child.tail or "")
    return "".join(pieces)


def _hidden_styles(root: Any) -> set[str]:
    """Return the names of the styles whose sheets or slides are not shown."""
    hidden: set[str] = set()
    for style in root.iter("{*}style"):
        for properties in style:
            is_sheet = _get(properties, "display") == "false"
            if is_sheet or _get(properties, "visibility") == "hidden":
                hidden.add(_get(style, "name"))
    return hidden


# --- spreadsheets --------------------------------------------------------------------------------


def read_ods(data: bytes, request: Request) -> Extracted:
    """Return the rows or the sheets of a spreadsheet."""
    archive = _Archive(data)
    hidden = _hidden_styles(archive.content)
    count = CellCount()
    sheets: list[Sheet] = []
    for table in archive.body("spreadsheet"):
        if _local(table) == "table":
            name = _get(table, "name") or f"Sheet{len(sheets) + 1}"
            sheet = Sheet(name, is_hidden=_get(table, "style-name") in hidden)
            _read_rows(table, sheet, count, archive)
            sheets.append(sheet)
    return sheet_documents(sheets, request, _CALCULATE)


def _read_rows(table: Any, sheet: Sheet, count: CellCount, archive: _Archive) -> None:
    number = 1
    for element in table.iter("{*}table-row", "{*}table-column", "{*}shapes"):
        name = _local(element)
        is_hidden = _get(element, "visibility") in ("collapse", "filter")
        if name == "table-column":
            if is_hidden:
                sheet.hidden_columns.append(_get(element, "style-name") or "?")
            continue
        if name == "shapes":
            _add_shapes(element, sheet, archive)
            continue
        repeated = _number(_get(element, "number-rows-repeated"))
        cells = _read_cells(element, number, sheet)
        for cell in element:
            # anchored to a cell
            _add_shapes(
                [each for each in cell if _local(each) in _SHAPES], sheet, archive
            )
        if any(cells):
            if repeated > _MOST_REPEATED:
                sheet.lose(
                    number, f"rows {number + _MOST_REPEATED} and on, which repeat it"
                )
            for row in range(number, number + min(repeated, _MOST_REPEATED)):
                count.add(sum(map(bool, cells)))
                sheet.rows[row] = list(cells)
                if is_hidden:
                    sheet.hidden_rows.add(row)
        number += repeated


def _read_cells(row: Any, number: int, sheet: Sheet) -> list[str]:
    """Return the cells of a row up to the last one with something in it."""
    cells: list[str] = []
    empty = 0
    for cell in row:
        if _local(cell) not in ("table-cell", "covered-table-cell"):
            continue
        repeated = _number(_get(cell, "number-columns-repeated"))
        text = _cell_text(cell)
        if not text:
            if _get(cell, "formula") and not _get(cell, "value-type"):
                sheet.lose(number, f"the value of a formula in row {number}")
            empty += repeated
            continue
        column = len(cells) + empty + 1
        if column > _MOST_COLUMNS:
            sheet.lose(number, f"the cells of row {number} beyond {_MOST_COLUMNS:,}")
            break
        if column + repeated > _MOST_COLUMNS:
            sheet.lose(number, f"what repeats in row {number}")
            repeated = 1
        cells += [""] * empty + [text] * repeated
        empty = 0
        spanned = _number(_get(cell, "number-rows-spanned"))
        if spanned > 1:
            last = column + _number(_get(cell, "number-columns-spanned")) - 1
            sheet.merged.append((number, number + spanned - 1, column, last))
        for comment in cell.iter("{*}annotation"):
            words = " ".join(" ".join(_inline(p) for p in comment.iter("{*}p")).split())
            if words:
                sheet.comments.setdefault(number, []).append(words)
    return cells


def _cell_text(cell: Any) -> str:
    """Return a cell as it is shown; a date as 2026-11-28."""
    if _get(cell, "value-type") == "date":
        date = _get(cell, "date-value")
        return date.replace("T00:00:00", "").replace("T", " ")
    lines = [_inline(child) for child in cell if _local(child) in ("p", "h")]
    text = "\n".join(lines).strip()
    return text or _get(cell, "string-value")


def _add_shapes(element: Any, sheet: Sheet, archive: _Archive) -> None:
    """Add the text boxes and charts of a sheet, and count its pictures as lost."""
    writer = _Writer(archive)
    writer.blocks(element)
    for line in filter(None, writer.lines):
        is_named = line.startswith(("Chart: ", "Formula: "))
        sheet.lines.append(line if is_named else f"Text box: {line}")
    if writer.pictures:
        noun = "picture" if writer.pictures == 1 else "pictures"
        sheet.lose(0, f"{writer.pictures} {noun}")
    for lost in writer.unread:
        sheet.lose(0, lost)


def _number(text: str) -> int:
    return max(1, int(text)) if text.isdecimal() else 1
