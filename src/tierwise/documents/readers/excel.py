"""Excel files (.xlsx, .xlsm), read by openpyxl: values as they were saved, nothing is calculated.

What openpyxl does not read row by row is looked up in the sheets' XML: hidden rows and columns,
merged cells, comments, text boxes, and formulas without a saved value. Macros are not read.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

from tierwise.documents.readers.number_formats import shown
from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.settings import Request
from tierwise.documents.readers.tables import (
    CellCount,
    Range,
    Sheet,
    sheet_documents,
)
from tierwise.documents.readers.unpacking import check_declarations, check_office

_CELL = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_REMEDY = "open it in a spreadsheet program and save it there"
_MOST_COLUMNS = 1000  # hidden ones that are listed
_TEXT_BOX = "sp"


def read_xlsx(data: bytes, request: Request) -> Extracted:
    """Return the rows or the sheets of an Excel file.

    Raises DocumentError for an old or encrypted one, and for one without rows.
    """
    check_office(data, old=".xls", new=".xlsx")
    check_declarations(data)
    sheets = _values(data)
    _add_marks(data, sheets)
    return sheet_documents(sheets, request, _REMEDY)


def _values(data: bytes) -> list[Sheet]:
    """Return the sheets with the saved values of their cells."""
    import openpyxl

    count = CellCount()
    sheets: list[Sheet] = []
    with warnings.catch_warnings():
        # about parts that openpyxl does not keep; nothing is saved here
        warnings.simplefilter("ignore")
        book = openpyxl.load_workbook(
            io.BytesIO(data), read_only=True, data_only=True, keep_links=False
        )
        for each in book.worksheets:
            sheet = Sheet(each.title, is_hidden=each.sheet_state != "visible")
            sheets.append(sheet)
            # the size that a file declares may be that of the largest sheet possible
            each.reset_dimensions()
            for number, row in enumerate(each.iter_rows(), 1):
                cells = [_shown(cell) for cell in row]
                while cells and not cells[-1]:
                    cells.pop()
                if cells:
                    count.add(sum(map(bool, cells)))
                    sheet.rows[number] = cells
    return sheets


def _shown(cell: Any) -> str:
    if cell.value is None:
        return ""
    return shown(cell.value, cell.number_format or "General")


def _add_marks(data: bytes, sheets: list[Sheet]) -> None:
    """Add to the sheets what openpyxl leaves out."""
    from tierwise.documents.readers.word_parts import WordArchive

    archive = WordArchive(data)
    targets = {each.id: each.target for each in archive.relations(archive.main)}
    by_name = {sheet.name: sheet for sheet in sheets}
    for element in archive.parse(archive.main).iter("{*}sheet"):
        sheet = by_name.get(element.get("name", ""))
        path = next(
            (
                targets.get(value, "")
                for key, value in element.items()
                if key.endswith("}id")
            ),
            "",
        )
        if sheet is None or not path:
            continue
        _scan(archive.read(path), sheet)
        for relation in archive.relations(path):
            if relation.kind == "comments":
                _add_comments(archive.parse(relation.target), sheet)
            elif relation.kind == "drawing":
                _add_drawing(archive.parse(relation.target), sheet)
            elif relation.kind in ("oleObject", "package"):
                sheet.lose(0, "an embedded object")


def _scan(xml: bytes, sheet: Sheet) -> None:
    """Note hidden rows and columns, merged cells, and formulas without a value."""
    from lxml import etree

    tags = ("{*}c", "{*}row", "{*}col", "{*}mergeCell")
    events = etree.iterparse(
        io.BytesIO(xml), tag=tags, resolve_entities=False, no_network=True
    )
    for _, element in events:
        tag = etree.QName(element).localname
        if tag == "c":
            _scan_cell(element, sheet)
        elif tag == "row":
            if (
                element.get("hidden") in ("1", "true")
                and element.get("r", "").isdigit()
            ):
                sheet.hidden_rows.add(int(element.get("r")))
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
        elif tag == "col":
            if element.get("hidden") in ("1", "true"):
                _hide_columns(element, sheet)
        else:
            found = _range(element.get("ref", ""))
            if found:
                sheet.merged.append(found)


def _scan_cell(element: Any, sheet: Sheet) -> None:
    formula = element.find("{*}f")
    if formula is None:
        return
    value = element.find("{*}v")
    place = element.get("r", "")
    match = _CELL.fullmatch(place)
    is_text = element.get("t") == "str"  # an empty text is a value
    if match and not is_text and (value is None or not value.text):
        sheet.lose(int(match[2]), f"the value of the formula in {place}")


def _hide_columns(element: Any, sheet: Sheet) -> None:
    from openpyxl.utils import get_column_letter

    first = int(element.get("min", 1))
    last = min(int(element.get("max", first)), first + _MOST_COLUMNS)
    sheet.hidden_columns += [get_column_letter(n) for n in range(first, last + 1)]


def _range(text: str) -> Range | None:
    """Return merged cells such as `A2:B5`."""
    from openpyxl.utils import column_index_from_string

    match = re.fullmatch(f"{_CELL.pattern}:{_CELL.pattern}", text)
    if not match:
        return None
    first = column_index_from_string(match[1])
    last = column_index_from_string(match[3])
    return int(match[2]), int(match[4]), first, last


def _add_comments(root: Any, sheet: Sheet) -> None:
    for comment in root.iter("{*}comment"):
        match = _CELL.fullmatch(comment.get("ref", ""))
        text = "".join(part.text or "" for part in comment.iter("{*}t")).strip()
        if match and text:
            sheet.comments.setdefault(int(match[2]), []).append(text)


def _add_drawing(root: Any, sheet: Sheet) -> None:
    """Add the text boxes of a sheet, and count its pictures as lost."""
    from lxml import etree

    pictures = 0
    for element in root.iter("{*}pic", "{*}sp"):
        if etree.QName(element).localname == _TEXT_BOX:
            text = " ".join(part.text or "" for part in element.iter("{*}t")).strip()
            if text:
                sheet.lines.append(f"Text box: {text}")
        else:
            pictures += 1
    if pictures:
        noun = "picture" if pictures == 1 else "pictures"
        sheet.lose(0, f"{pictures} {noun}")
