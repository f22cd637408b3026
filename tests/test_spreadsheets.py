"""Spreadsheets (.xlsx, .ods): a document for each row, or one for each sheet."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from odf import style, table
from openpyxl.comments import Comment
from openpyxl.drawing.image import Image
from PIL import Image as Picture

from tests.kit.formats import member, ods, ods_cell, with_members, xlsx
from tests.kit.reading import read, reason
from tierwise.documents import Shard
from tierwise.documents.readers import ReadingSettings
from tierwise.documents.readers.number_formats import shown
from tierwise.records import Document

ROWS = ReadingSettings(tables="rows")
SHEETS = ReadingSettings(tables="document")
LETTERS = [["id", "Text", "desk"], ["A1", "The lamp", 7], ["A2", "The sofa", None]]


def texts(documents: dict[str, Document]) -> dict[str, str]:
    return {name: document.text for name, document in documents.items()}


def put(folder: Path, data: bytes, name: str = "b.xlsx") -> Path:
    (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(("make", "name"), [(xlsx, "b.xlsx"), (ods, "b.ods")])
def test_a_row_or_a_sheet_is_a_document(
    tmp_path: Path, make: Callable[..., bytes], name: str
) -> None:
    data = make({"Letters": LETTERS, "Form": [["Invoice", "x7"], [None, "due"]]})
    put(tmp_path, data, name)
    documents = read(tmp_path)
    assert texts(documents) == {
        f"{name}#Letters!A1": "The lamp",
        f"{name}#Letters!A2": "The sofa",
        f"{name}#Form": "# Form\n\nInvoice | x7\n | due",
    }
    lamp = documents[f"{name}#Letters!A1"].metadata
    assert lamp.pop("desk").startswith("7")
    assert lamp == {"sheet": "Letters", "id": "A1", "path": name, "format": name[2:]}
    sheets = read(tmp_path, settings=SHEETS)
    assert list(sheets) == [f"{name}#Letters", f"{name}#Form"]
    assert "A2 | The sofa" in sheets[f"{name}#Letters"].text
    rows = read(tmp_path, settings=ROWS)
    assert "Invoice, x7" in reason(rows[f"{name}#Form"])
    assert read(tmp_path, text_column="desk")[f"{name}#Letters!A1"].text[0] == "7"


@pytest.mark.parametrize(
    ("value", "number_format", "expected"),
    [
        (1234.5, "General", "1234.5"),
        (0.1 + 0.2, "General", "0.3"),
        (3.0, "General", "3"),
        (12345678901234, "General", "12345678901234"),
        (1234.5, "#,##0.00", "1,234.50"),
        (1234.5, '#,##0.00 "€"', "1,234.50 €"),
        (1234.5, "[$€-407] #,##0.00;[RED]-[$€-407] #,##0.00", "€ 1,234.50"),
        (-1234.5, "[$€-407] #,##0.00;[RED]-[$€-407] #,##0.00", "-€ 1,234.50"),
        (-5, "#,##0_);(#,##0)", "(5)"),
        (-5.5, "0.0", "-5.5"),
        (0.125, "0.0%", "12.5%"),
        (7, "00000", "00007"),
        (2.5, "0.##", "2.5"),
        (2.0, "0.##", "2"),
        (0, '0;-0;"none"', "none"),
        (1_500_000, '0.0,,"M"', "1.5M"),
        (0.5, "#.00", ".50"),
        (12345.678, "0.00E+00", "12345.678"),
        (0.5, "# ?/?", "0.5"),
        (2.345, "0.00", "2.35"),
        (7, "@", "7"),
        (7, '"Nr. "0', "Nr. 7"),
        (1e300, "0", "1" + "0" * 300),
        (float("inf"), "0.0", "inf"),
        (True, "0", "TRUE"),
        (datetime.datetime(2026, 11, 28), "dd/mm/yy", "2026-11-28"),
        (datetime.datetime(2026, 11, 28, 9, 30), "General", "2026-11-28 09:30"),
        (datetime.time(9, 30), "h:mm", "09:30"),
        (None, "0", ""),
    ],
)
def test_numbers_and_dates_are_read_as_they_are_shown(
    value: Any, number_format: str, expected: str
) -> None:
    assert shown(value, number_format) == expected


def test_a_formula_has_its_saved_value_and_calls_nothing(tmp_path: Path) -> None:
    """openpyxl saves no values; a spreadsheet program does."""
    calls = ['=WEBSERVICE("http://127.0.0.1:9/x")', "=cmd|'/c calc'!A0", "=1+1"]
    data = xlsx({"S": [["text", "sum"], *[["x", call] for call in calls]]})
    path = "xl/worksheets/sheet1.xml"
    sheet = member(data, path).replace(b"<f>1+1</f><v />", b"<f>1+1</f><v>2</v>")
    sheet = sheet.replace(b"<f>1+1</f><v></v>", b"<f>1+1</f><v>2</v>")
    put(tmp_path, with_members(data, {path: sheet}))
    rows = list(read(tmp_path).values())
    assert [row.metadata.get("sum") for row in rows] == [None, None, "2"]
    assert rows[0].metadata["incomplete"] == "the value of the formula in B2"
    assert "incomplete" not in rows[2].metadata
    waiting = read(tmp_path, incomplete="wait")
    assert "spreadsheet program" in reason(waiting["b.xlsx#S!2"])


def test_hidden_sheets_and_rows_are_read_and_said(tmp_path: Path) -> None:
    def hide(book: Any) -> None:
        book["Secret"].sheet_state = "veryHidden"
        book["Letters"].row_dimensions[3].hidden = True
        book["Form"].column_dimensions["B"].hidden = True
        book["Form"].row_dimensions[1].hidden = True

    sheets = {"Letters": LETTERS, "Secret": LETTERS, "Form": [["a", "b"]]}
    documents = read(put(tmp_path, xlsx(sheets, hide)))
    hidden = {name: doc.metadata.get("hidden") for name, doc in documents.items()}
    assert hidden == {
        "b.xlsx#Letters!A1": None,
        "b.xlsx#Letters!A2": "row",
        "b.xlsx#Secret!A1": "sheet",
        "b.xlsx#Secret!A2": "sheet",
        "b.xlsx#Form": "rows 1; columns B",
    }


def test_hidden_sheets_and_rows_of_opendocument_are_said(tmp_path: Path) -> None:
    def hide(book: Any) -> None:
        look = style.Style(name="gone", family="table")
        look.addElement(style.TableProperties(display="false"))
        book.automaticstyles.addElement(look)
        first, second = book.spreadsheet.getElementsByType(table.Table)
        second.setAttribute("stylename", "gone")
        first.getElementsByType(table.TableRow)[2].setAttribute(
            "visibility", "collapse"
        )

    data = ods({"Letters": LETTERS, "Secret": LETTERS}, hide)
    documents = read(put(tmp_path, data, "b.ods"))
    hidden = [document.metadata.get("hidden") for document in documents.values()]
    assert hidden == [None, "row", "sheet", "sheet"]


def test_merged_cells_count_for_all_of_their_rows(tmp_path: Path) -> None:
    rows = [["desk", "text"], ["North", "One"], [None, "Two"], ["South", "Three"]]

    def merge(book: Any) -> None:
        book["S"].merge_cells("A2:A3")

    def span(book: Any) -> None:
        [sheet] = book.spreadsheet.getElementsByType(table.Table)
        row = sheet.getElementsByType(table.TableRow)[1]
        row.getElementsByType(table.TableCell)[0].setAttribute("numberrowsspanned", 2)

    put(tmp_path, xlsx({"S": rows}, merge))
    put(tmp_path, ods({"S": rows}, span), "b.ods")
    desks = [document.metadata["desk"] for document in read(tmp_path).values()]
    assert desks == ["North", "North", "South"] * 2


def test_comments_are_read_and_pictures_said(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Picture.new("RGB", (9, 9)).save(picture)

    def add(book: Any) -> None:
        for sheet in book.worksheets:
            sheet["A2"].comment = Comment("Check this", "Ann")
            sheet.add_image(Image(picture), "D4")

    folder = tmp_path / "in"
    folder.mkdir()
    put(folder, xlsx({"Letters": LETTERS, "Form": [["a"], ["b"]]}, add))
    documents = read(folder)
    first = documents["b.xlsx#Letters!A1"].metadata
    assert first["comments"] == "Check this"
    assert first["incomplete"] == "1 picture"
    assert documents["b.xlsx#Form"].text.endswith("Comment in row 2: Check this")
    assert documents["b.xlsx#Form"].metadata["incomplete"] == "1 picture"


def test_a_row_that_cannot_be_read_waits_alone(tmp_path: Path) -> None:
    rows = [["id", "text"], ["A1", None], [None, None], ["A3", "Three"]]
    documents = read(
        put(tmp_path, xlsx({"S": rows, "T": [["text", "TEXT"], ["a", "b"]]}))
    )
    assert reason(documents["b.xlsx#S!A1"]).startswith("row 2: ")
    assert documents["b.xlsx#S!A3"].text == "Three"
    assert "called 'text'" in reason(documents["b.xlsx#T"])


def test_a_header_below_a_title_is_found_where_rows_are_asked_for(
    tmp_path: Path,
) -> None:
    rows = [["Letters of May"], [None], ["id", "text"], ["A", "One"]]
    put(tmp_path, xlsx({"S": rows}))
    assert texts(read(tmp_path, settings=ROWS)) == {"b.xlsx#S!A": "One"}
    assert list(read(tmp_path)) == ["b.xlsx#S"]


def many_empty_rows(book: Any) -> None:
    book["S"].cell(1_048_576, 16_384).value = "end"


def many_repeated(book: Any) -> None:
    [sheet] = book.spreadsheet.getElementsByType(table.Table)
    for value in (None, "again"):
        row = table.TableRow(numberrowsrepeated=1_000_000)
        cell = ods_cell(value)
        cell.setAttribute("numbercolumnsrepeated", 16_000)
        row.addElement(cell)
        sheet.addElement(row)


def test_a_million_empty_rows_are_none(tmp_path: Path) -> None:
    put(tmp_path, xlsx({"S": LETTERS}, many_empty_rows))
    documents = read(tmp_path)
    assert texts(documents)["b.xlsx#S!A2"] == "The sofa"
    assert "row 1048576" in reason(documents["b.xlsx#S!1048576"])


def test_a_million_equal_rows_do_not_fill_the_memory(tmp_path: Path) -> None:
    put(tmp_path, ods({"S": LETTERS}, many_repeated), "b.ods")
    [document] = read(tmp_path).values()
    assert "2,000,000 cells" in reason(document)


def entities(
    data: bytes, path: str, *, late: bool = False, encoding: str = ""
) -> bytes:
    """The file with an entity that grows and one from outside, in one of its members."""
    declared = (
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">'
        b'<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    )
    content = member(data, path)
    start = content.index(b"?>") + 2 if content.startswith(b"<?") else 0
    if late:
        declared = b"<!-- " + b"x" * 70_000 + b" -->" + declared
    changed = content[:start] + declared + content[start:]
    if encoding:
        changed = changed[start:].decode().encode(encoding)
    return with_members(data, {path: changed})


ENCRYPTED = (
    bytes.fromhex("d0cf11e0a1b11ae1")
    + bytes(500)
    + "EncryptedPackage".encode("utf-16-le")
)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.xlsx", lambda: ENCRYPTED, "password"),
        ("a.xlsx", lambda: ENCRYPTED[:300], "save it as .xlsx"),
        ("a.xls", lambda: ENCRYPTED, "save it as .xlsx"),
        ("a.xlsb", lambda: b"x", "save it as .xlsx"),
        ("a.xlsx", lambda: xlsx({"S": LETTERS})[:2000], "damaged"),
        ("a.xlsx", lambda: b"id,text\n1,a\n", "damaged"),
        ("a.xlsx", lambda: ods({"S": LETTERS}), "damaged"),
        ("a.ods", lambda: xlsx({"S": LETTERS}), "damaged"),
        ("a.xlsx", lambda: xlsx({"S": []}), "no rows"),
        ("a.ods", lambda: ods({"S": []}), "no rows"),
        (
            "a.xlsx",
            lambda: with_members(xlsx({"S": LETTERS}), {"xl/x.bin": bytes(60_000_000)}),
            "unpack to more",
        ),
        (
            "a.xlsx",
            lambda: entities(xlsx({"S": LETTERS}), "xl/worksheets/sheet1.xml"),
            "entities",
        ),
        (
            "a.xlsx",
            lambda: entities(xlsx({"S": LETTERS}), "xl/workbook.xml", late=True),
            "entities",
        ),
        ("a.ods", lambda: entities(ods({"S": LETTERS}), "content.xml"), "entities"),
        (
            "a.ods",
            lambda: entities(ods({"S": LETTERS}), "content.xml", encoding="utf-16"),
            "entities",
        ),
        (
            "a.ods",
            lambda: with_members(
                ods({"S": LETTERS}),
                {"META-INF/manifest.xml": b"<m><encryption-data/></m>"},
            ),
            "password",
        ),
        ("a.ods", lambda: with_members(ods({}), {"content.xml": None}), "damaged"),
        ("a.ods", lambda: with_members(ods({}), {"content.xml": b"<a>"}), "damaged"),
    ],
)
def test_damaged_and_hostile_spreadsheets_wait(
    tmp_path: Path, name: str, make: Callable[[], bytes], words: str
) -> None:
    (tmp_path / name).write_bytes(make())
    [document] = read(tmp_path).values()
    assert words in reason(document)


def test_macros_are_not_read(tmp_path: Path) -> None:
    data = with_members(
        xlsx({"S": LETTERS}), {"xl/vbaProject.bin": b"Sub AutoOpen() secret"}
    )
    documents = read(put(tmp_path, data, "b.xlsm"))
    assert len(documents) == 2
    assert all("secret" not in document.text for document in documents.values())


def test_shards_share_the_rows_of_a_sheet(tmp_path: Path) -> None:
    rows = [["id", "text"], *[[f"r{n}", f"Row {n}"] for n in range(30)]]
    put(tmp_path, xlsx({"S": rows}))
    shards = [set(read(tmp_path, shard=Shard(n, 3))) for n in (1, 2, 3)]
    assert all(shards)
    assert set.union(*shards) == set(read(tmp_path))
    assert sum(map(len, shards)) == 30


def test_a_spreadsheet_in_an_archive_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/b.xlsx", xlsx({"S": LETTERS}))
    assert texts(read(tmp_path)) == {
        "a.zip/in/b.xlsx#S!A1": "The lamp",
        "a.zip/in/b.xlsx#S!A2": "The sofa",
    }
