"""Excel files (.xlsx, .xlsm), read by openpyxl: values as they were saved, nothing is calculated.

What openpyxl does not read row by row is looked up in the sheets' XML: hidden rows and columns,
merged cells, comments, text boxes, charts, and formulas without a saved value. Macros are not read.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Collection
from typing import Any

from tierwise.documents.readers.drawings import chart_text, diagram_texts, paragraphs
from tierwise.documents.readers.number_formats import shown
from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.settings import Request
from tierwise.documents.readers.tables import (
    CellCount,
    Range,
    Sheet,
    sheet_documents,
)
from tierwise.documents.readers.unpacking import (
    DAMAGED,
    check_declarations,
    check_office,
)
from tierwise.errors import DocumentError

_CELL = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_REMEDY = "open it in a spreadsheet program and save it there"
_MOST_COLUMNS = 1000  # hidden ones that are listed
_HEADERS = ("Header", "Footer")
# Page numbers, dates, fonts and places in the header of a printed sheet.
_PAGE_OF = re.compile(r"(?i)(?:page|p\.|seite)?\s*&P(?:\s*[\w/]{1,4}\s*&N)?")
_HEADER_CODE = re.compile(r'&(?:"[^"]*"|\d+|K[0-9A-Fa-f+-]{6}|[A-Za-z+-])')


def read_xlsx(data: bytes, request: Request) -> Extracted:
    """Return the rows or the sheets of an Excel file.

    Raises DocumentError for an old or encrypted one, and for one without rows.
    """
    check_office(data, old=".xls", new=".xlsx")
    check_declarations(data)
    sheets = _values(data)
    return sheet_documents(_with_marks(data, sheets), request, _REMEDY)


def _values(data: bytes) -> list[Sheet]:
    """Return the sheets with the saved values of their cells."""
    import openpyxl

    count = CellCount()
    sheets: list[Sheet] = []
    with warnings.catch_warnings():
        # about parts that openpyxl does not keep; nothing is saved here
        warnings.simplefilter("ignore")
        try:
            book = openpyxl.load_workbook(
                io.BytesIO(data), read_only=True, data_only=True, keep_links=False
            )
        except (ValueError, OSError) as error:
            # another Office format, or a sheet with a size that there cannot be
            raise DocumentError(DAMAGED) from error
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


def _with_marks(data: bytes, sheets: list[Sheet]) -> list[Sheet]:
    """Add to the sheets what openpyxl leaves out; return them with the sheets of charts."""
    from tierwise.documents.readers.word_parts import WordArchive

    archive = WordArchive(data)
    parts = {each.id: each for each in archive.relations(archive.main)}
    by_name = {sheet.name: sheet for sheet in sheets}
    marked: list[Sheet] = []
    for element in archive.parse(archive.main).iter("{*}sheet"):
        ids = [value for key, value in element.items() if key.endswith("}id")]
        part = parts.get(ids[0]) if ids else None
        name = element.get("name", "")
        sheet = by_name.pop(name, None)
        if sheet is None:
            is_hidden = element.get("state", "visible") != "visible"
            sheet = Sheet(name, is_hidden=is_hidden)
        marked.append(sheet)
        if part is None:
            continue
        if part.kind == "worksheet":
            _scan(archive.read(part.target), sheet)
        elif part.kind != "chartsheet":
            sheet.lines.append(f"A sheet of the kind {part.kind}")
            sheet.lose(0, "a sheet of macros or dialogs")
        _add_relations(archive, part.target, sheet)
    return marked + list(by_name.values())


def _add_relations(archive: Any, path: str, sheet: Sheet) -> None:
    """Add the comments and drawings of a sheet."""
    relations = archive.relations(path)
    for relation in relations:
        if relation.kind == "threadedComment":
            _add_comments(archive.parse(relation.target), sheet, "threadedComment")
    answered = set(sheet.comments)
    for relation in relations:
        if relation.kind == "comments":
            # Excel keeps a copy of newer comments for its old versions.
            _add_comments(archive.parse(relation.target), sheet, "comment", answered)
        elif relation.kind == "drawing":
            _add_drawing(archive, relation.target, sheet)
        elif relation.kind in ("oleObject", "package"):
            sheet.lose(0, "an embedded object")
        elif relation.kind == "ctrlProp":
            sheet.lose(0, "a form control")


def _scan(xml: bytes, sheet: Sheet) -> None:
    """Note hidden rows and columns, merged cells, and formulas without a value."""
    from lxml import etree

    tags = ("{*}c", "{*}row", "{*}col", "{*}mergeCell", "{*}headerFooter")
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
                and element.get("r", "").isdecimal()
            ):
                sheet.hidden_rows.add(int(element.get("r")))
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
        elif tag == "col":
            if element.get("hidden") in ("1", "true"):
                _hide_columns(element, sheet)
        elif tag == "headerFooter":
            _add_headers(element, sheet)
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


def _add_headers(element: Any, sheet: Sheet) -> None:
    """Add the headers and footers of a printed sheet, each once, without page numbers."""
    for kind in _HEADERS:
        for each in element:
            if not each.tag.endswith(kind):
                continue
            text = _PAGE_OF.sub(" ", each.text or "")
            words = " ".join(_HEADER_CODE.sub(" ", text).split())
            line = f"{kind}: {words}"
            if any(map(str.isalpha, words)) and line not in sheet.headers:
                sheet.headers.append(line)


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


def _add_comments(
    root: Any, sheet: Sheet, name: str, passed_over: Collection[int] = ()
) -> None:
    for comment in root.iter(f"{{*}}{name}"):
        match = _CELL.fullmatch(comment.get("ref", ""))
        pieces = [part.text or "" for part in comment.iter("{*}t", "{*}text")]
        text = "".join(pieces).strip()
        if match and text and int(match[2]) not in passed_over:
            sheet.comments.setdefault(int(match[2]), []).append(text)


def _add_drawing(archive: Any, path: str, sheet: Sheet) -> None:
    """Add the text boxes, charts and diagrams of a sheet, and count its pictures as lost."""
    from lxml import etree

    targets = {each.id: each.target for each in archive.relations(path)}
    pictures = 0
    for element in archive.parse(path).iter("{*}pic", "{*}sp", "{*}graphicFrame"):
        if any(each.tag.endswith("}Fallback") for each in element.iterancestors()):
            # the same for old versions of Excel
            continue
        name = etree.QName(element).localname
        if name == "pic":
            pictures += 1
        elif name == "sp":
            text = " ".join(paragraphs(element))
            if text:
                sheet.lines.append(f"Text box: {text}")
        else:
            _add_frame(archive, element, targets, sheet)
    if pictures:
        noun = "picture" if pictures == 1 else "pictures"
        sheet.lose(0, f"{pictures} {noun}")


def _add_frame(archive: Any, frame: Any, targets: dict[str, str], sheet: Sheet) -> None:
    """Add the words of a chart or a diagram; name any other object."""
    line = ""
    for element in frame.iter("{*}chart", "{*}relIds"):
        is_chart = element.tag.endswith("}chart")
        wanted = "}id" if is_chart else "}dm"
        ids = [value for key, value in element.items() if key.endswith(wanted)]
        root = archive.parse(targets.get(ids[0], "")) if ids else None
        if root is None:
            continue
        if is_chart:
            line = f"Chart: {chart_text(root)}"
        else:
            line = f"Diagram: {'; '.join(diagram_texts(root))}"
    if line:
        sheet.lines.append(line)
    else:
        sheet.lose(0, "an embedded object")
