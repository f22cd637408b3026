"""Files of further formats, made by the library of each; .msg by the container's description."""

from __future__ import annotations

import datetime
import io
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import openpyxl
import pptx
from odf import draw, office, style, table, text
from odf.opendocument import (
    OpenDocumentPresentation,
    OpenDocumentSpreadsheet,
    OpenDocumentText,
)
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

_SECTOR = 512
_FREE = 0xFFFFFFFF
_END = 0xFFFFFFFE
_FAT = 0xFFFFFFFD


def with_members(data: bytes, changed: Mapping[str, bytes | None]) -> bytes:
    """An archive with other content for some members, or without them."""
    output = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            if info.filename not in changed:
                new.writestr(info, old.read(info))
        for name, content in changed.items():
            if content is not None:
                new.writestr(name, content)
    return output.getvalue()


def member(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


# --- spreadsheets --------------------------------------------------------------------------------


def xlsx(
    sheets: Mapping[str, Sequence[Sequence[Any]]],
    change: Callable[[Any], None] | None = None,
) -> bytes:
    """An Excel file of rows by sheet; `change` gets the workbook before it is saved."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    if change:
        change(book)
    output = io.BytesIO()
    book.save(output)
    return output.getvalue()


def ods(
    sheets: Mapping[str, Sequence[Sequence[Any]]],
    change: Callable[[Any], None] | None = None,
) -> bytes:
    book = OpenDocumentSpreadsheet()
    for name, rows in sheets.items():
        sheet = table.Table(name=name)
        for row in rows:
            line = table.TableRow()
            for value in row:
                line.addElement(ods_cell(value))
            sheet.addElement(line)
        book.spreadsheet.addElement(sheet)
    if change:
        change(book)
    return saved(book)


def ods_cell(value: Any) -> Any:
    if isinstance(value, datetime.date):
        cell = table.TableCell(valuetype="date", datevalue=value.isoformat())
        cell.addElement(text.P(text=value.strftime("%d.%m.%y")))
    elif isinstance(value, int | float):
        cell = table.TableCell(valuetype="float", value=value)
        cell.addElement(text.P(text=f"{value:,.2f}"))
    elif value is None:
        cell = table.TableCell()
    else:
        cell = table.TableCell(valuetype="string")
        cell.addElement(text.P(text=str(value)))
    return cell


def saved(document: Any) -> bytes:
    output = io.BytesIO()
    document.write(output)
    return output.getvalue()


# --- texts and slides ----------------------------------------------------------------------------


def odt(*paragraphs: str, change: Callable[[Any], None] | None = None) -> bytes:
    document = OpenDocumentText()
    for paragraph in paragraphs:
        document.text.addElement(text.P(text=paragraph))
    if change:
        change(document)
    return saved(document)


def odp(*slides: str) -> bytes:
    show = OpenDocumentPresentation()
    layout = style.PageLayout(name="layout")
    show.automaticstyles.addElement(layout)
    master = style.MasterPage(name="master", pagelayoutname=layout)
    show.masterstyles.addElement(master)
    for words in slides:
        page = draw.Page(masterpagename=master)
        frame = draw.Frame(width="10cm", height="2cm")
        box = draw.TextBox()
        box.addElement(text.P(text=words))
        frame.addElement(box)
        page.addElement(frame)
        show.presentation.addElement(page)
    return saved(show)


def annotation(words: str) -> Any:
    note = office.Annotation()
    note.addElement(text.P(text=words))
    return note


def pptx_file(change: Callable[[Any], None] | None = None) -> bytes:
    """Two slides: a title, points, a table, a chart and notes."""
    show = pptx.Presentation()
    first = show.slides.add_slide(show.slide_layouts[1])
    first.shapes.title.text = "Lamps"
    first.placeholders[1].text = "Cheap\nBright"
    first.notes_slide.notes_text_frame.text = "Speak slowly."
    second = show.slides.add_slide(show.slide_layouts[6])
    size = (Inches(1), Inches(1), Inches(4), Inches(2))
    grid = second.shapes.add_table(2, 2, *size).table
    for place, words in (
        ((0, 0), "Lamp"),
        ((0, 1), "12"),
        ((1, 0), "Sofa"),
        ((1, 1), "900"),
    ):
        grid.cell(*place).text = words
    data = CategoryChartData()
    data.categories = ["May", "June"]
    data.add_series("Sales", (240, 260))
    second.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *size, data)
    if change:
        change(show)
    output = io.BytesIO()
    show.save(output)
    return output.getvalue()


# --- Outlook messages ----------------------------------------------------------------------------

Tree = dict[str, "bytes | Tree"]


def msg(
    *,
    subject: str = "Order 7",
    body: str = "Where is my lamp?",
    attachments: Sequence[Tree] = (),
    level: int = 0,
    more: Tree | None = None,
) -> bytes:
    """An Outlook message."""
    return container(
        message_tree(
            subject, body, attachments=attachments, level=level, more=more, head=32
        )
    )


def message_tree(
    subject: str,
    body: str,
    *,
    attachments: Sequence[Tree] = (),
    level: int = 0,
    more: Tree | None = None,
    head: int = 24,
) -> Tree:
    """The properties of a message, with folders for its attachments."""
    sent = 134_000_000_000_000_000  # 2025-08-18, in steps of 100 ns since 1601
    entries = [(0x0039, 0x0040, sent)]
    if level:
        entries.append((0x0036, 0x0003, level))
    tree: Tree = {
        "__properties_version1.0": properties(entries, head),
        **wide(0x001A, "IPM.Note"),
        **wide(0x0037, subject),
        **wide(0x0C1A, "Ann Oak"),
        **wide(0x5D01, "ann@example.com"),
        **wide(0x0E04, "us@example.com"),
        **wide(0x1000, body),
    }
    tree.update(more or {})
    for number, attachment in enumerate(attachments):
        tree[f"__attach_version1.0_#{number:08X}"] = attachment
    return {name: content for name, content in tree.items() if content != b""}


def attached_file(name: str, content: bytes, kind: str = "") -> Tree:
    tree: Tree = {
        "__properties_version1.0": properties([], 8),
        "__substg1.0_37010102": content,
        **wide(0x3707, name),
    }
    return tree | (wide(0x370E, kind) if kind else {})


def attached_message(tree: Tree) -> Tree:
    return {
        "__properties_version1.0": properties([], 8),
        "__substg1.0_3701000D": tree,
    }


def wide(name: int, words: str) -> Tree:
    return {f"__substg1.0_{name:04X}001F": words.encode("utf-16-le")}


def properties(entries: Sequence[tuple[int, int, int]], head: int) -> bytes:
    packed = [
        struct.pack("<HHIQ", kind, name, 6, value) for name, kind, value in entries
    ]
    return bytes(head) + b"".join(packed)


def container(tree: Tree) -> bytes:  # noqa: PLR0915 - a file in one piece
    """An OLE container ([MS-CFB])."""
    entries: list[list[Any]] = []

    def add(name: str, content: bytes | Tree | None) -> int:
        kind = 5 if content is None else 1 if isinstance(content, dict) else 2
        entries.append([name, kind, content, _FREE, _FREE, _FREE])
        return len(entries) - 1

    def fill(parent: int, folder: Tree) -> None:
        # Siblings in a chain: readers walk the tree, whatever its balance.
        children = [add(name, content) for name, content in folder.items()]
        if children:
            entries[parent][5] = children[0]
        for child, following in pairwise(children):
            entries[child][4] = following
        for child in children:
            if isinstance(entries[child][2], dict):
                fill(child, entries[child][2])

    fill(add("Root Entry", None), tree)
    sectors: list[bytes] = []
    chain: list[int] = []

    def store(content: bytes) -> int:
        first = len(sectors)
        pieces = [
            content[at : at + _SECTOR].ljust(_SECTOR, b"\0")
            for at in range(0, len(content), _SECTOR)
        ]
        for number, piece in enumerate(pieces):
            sectors.append(piece)
            chain.append(first + number + 1 if number + 1 < len(pieces) else _END)
        return first

    small = b""  # streams under 4,096 bytes, in sectors of 64
    small_chain: list[int] = []

    def store_small(content: bytes) -> int:
        nonlocal small
        first = len(small_chain)
        number = -(-len(content) // 64)
        small += content.ljust(number * 64, b"\0")
        small_chain.extend(range(first + 1, first + number))
        small_chain.append(_END)
        return first

    directory = b""
    starts: list[tuple[int, int]] = []
    for entry in entries:
        start = _END
        size = 0
        if isinstance(entry[2], bytes):
            size = len(entry[2])
            start = store_small(entry[2]) if size < 4096 else store(entry[2])
        starts.append((start, size))
    starts[0] = (store(small) if small else _END, len(small))
    packed_chain = struct.pack(f"<{len(small_chain)}I", *small_chain)
    first_of_small = store(packed_chain) if small else _END
    for (start, size), (name, kind, _, left, right, child) in zip(
        starts, entries, strict=True
    ):
        encoded = name.encode("utf-16-le") + b"\0\0"
        directory += struct.pack(
            "<64sHBBIII16sIQQIQ",
            encoded,
            len(encoded),
            kind,
            1,
            left,
            right,
            child,
            b"",
            0,
            0,
            0,
            start,
            size,
        )
    first_of_directory = store(directory)
    number_of_fats = 1
    while number_of_fats * 128 < len(sectors) + number_of_fats:
        number_of_fats += 1
    first_fat = len(sectors)
    table_ = chain + [_FAT] * number_of_fats
    table_ += [_FREE] * (number_of_fats * 128 - len(table_))
    fats = struct.pack(f"<{len(table_)}I", *table_)
    heads = [first_fat + number for number in range(number_of_fats)]
    heads += [_FREE] * (109 - len(heads))
    header = struct.pack(
        "<8s16sHHHHH6sIIIIIIIII109I",
        bytes.fromhex("d0cf11e0a1b11ae1"),
        b"",
        0x3E,
        3,
        0xFFFE,
        9,
        6,
        b"",
        0,
        number_of_fats,
        first_of_directory,
        0,
        4096,
        first_of_small,
        -(-len(packed_chain) // _SECTOR),
        _END,
        0,
        *heads,
    )
    return header + b"".join(sectors) + fats
