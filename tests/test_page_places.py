"""Places on pages: the boxes of PDF words are where their letters are drawn, turned or cropped."""

from __future__ import annotations

import io
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from pypdf import PdfReader, PdfWriter
from pypdf.generic import RectangleObject

from tests.kit.pdf_files import PdfFile
from tests.kit.reading import read
from tierwise.documents.readers.pages.rendering import PdfPages
from tierwise.documents.readers.pages.text_layer import placed_pages
from tierwise.records import Box, Document, Place
from tierwise.steps.places import places_of

# of a page: pdfium's boxes are those of the letters, and drawing blurs their edges
_TOLERANCE = 0.004
_WHITE = 250


def lettered(*pages: list[tuple[float, float, str]], size: int = 14) -> bytes:
    """A PDF of pages with words at places, in millimetres."""
    file = FPDF()
    file.set_font("Helvetica", size=size)
    for words in pages:
        file.add_page()
        for x, y, word in words:
            file.text(x, y, word)
    return bytes(file.output())


def changed(data: bytes, *, turn: int = 0, crop: tuple[int, ...] = ()) -> bytes:
    """The PDF with all its pages turned clockwise, or cropped to a part in points."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    for page in writer.pages:
        if turn:
            page.rotate(turn)
        if crop:
            page.cropbox = RectangleObject(crop)
    output = io.BytesIO()
    writer.write(output)
    return output.getvalue()


def document_of(folder: Path, data: bytes) -> Document:
    (folder / "file.pdf").write_bytes(data)
    return read(folder)["file.pdf"]


def place(document: Document, quote: str) -> Place:
    [found] = places_of({"evidence": quote}, document)
    return found


def drawn(data: bytes, number: int = 1) -> Box:
    """The box around all that is drawn on a page, in shares of it."""
    pages = PdfPages(data)
    image = pages.draw(number)
    pages.close()
    assert image is not None
    dark = np.asarray(image.convert("L")) < _WHITE
    rows = np.flatnonzero(dark.any(axis=1))
    columns = np.flatnonzero(dark.any(axis=0))
    return (
        columns[0] / image.width,
        rows[0] / image.height,
        (columns[-1] + 1) / image.width,
        (rows[-1] + 1) / image.height,
    )


@pytest.mark.parametrize("crop", [(), (40, 300, 500, 800)], ids=["whole", "cropped"])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_box_is_where_the_word_is_drawn(
    tmp_path: Path, turn: int, crop: tuple[int, ...]
) -> None:
    data = changed(lettered([(60, 70, "Hexagon")]), turn=turn, crop=crop)
    found = place(document_of(tmp_path, data), "hexagon")
    [box] = found.boxes
    assert found.page == 1
    assert box == pytest.approx(drawn(data), abs=_TOLERANCE)


def test_every_page_of_a_file_has_its_words(tmp_path: Path) -> None:
    data = lettered(
        [(20, 20, "Invoice 4711"), (20, 40, "Total 98.50 EUR")],
        [],
        [(20, 20, "Invoice 4711"), (90, 200, "Total 12.00 EUR")],
    )
    document = document_of(tmp_path, data)
    assert [page.page for page in document.pages] == [1, 3]
    for page in document.pages:
        assert not page.is_recognized
        assert (page.width, page.height) == (595, 842)
        assert " ".join(word.text for word in page.words).split() == (
            document.text[page.start : page.end].split()
        )
        for word in page.words:
            assert document.text[word.start : word.end] == word.text
    assert place(document, "98.50 EUR").page == 1
    total = place(document, "Total 12.00")
    assert total.page == 3
    [box] = total.boxes
    assert box[0] == pytest.approx(90 / 210, abs=0.005)
    assert box[3] == pytest.approx(200 / 297, abs=0.005)
    assert place(document, "Invoice 4711").page == 1


def test_the_same_word_in_two_columns_has_the_box_of_its_column(
    tmp_path: Path,
) -> None:
    """Drawn row by row, read column by column."""
    names = ["ash", "oak", "elm", "fir", "yew", "box", "bay", "fig"]
    rows: list[tuple[float, float, str]] = []
    for number, name in enumerate(names):
        height = 30.0 + number * 7
        rows.append((20, height, f"{name} is a tree that stands in the left garden"))
        rows.append((120, height, f"{name} is a tree that stands on the right"))
    document = document_of(tmp_path, lettered(rows, size=9))
    for name in names:
        [left] = place(document, f"{name} is a tree that stands in").boxes
        [right] = place(document, f"{name} is a tree that stands on").boxes
        assert left[2] < 0.5 < right[0]
        assert left[1] == pytest.approx(right[1], abs=0.001)


def form(*pages: list[tuple[str, str, str, str]]) -> bytes:
    """A PDF of tables, of which the text has no page ends."""
    file = FPDF()
    file.set_font("Helvetica", size=10)
    for rows in pages:
        file.add_page()
        with file.table() as table:
            for cells in rows:
                row = table.row()
                for cell in cells:
                    row.cell(cell)
    return bytes(file.output())


def test_words_in_tables_have_their_page_and_box(tmp_path: Path) -> None:
    def rows(page: int) -> list[tuple[str, str, str, str]]:
        return [
            ("Article", "Count", "Price", "Sum"),
            *((f"Lamp {page}{n}", str(n), "5.00", f"{n * 5}.00") for n in range(1, 13)),
        ]

    data = form(rows(1), rows(2), rows(3))
    document = document_of(tmp_path, data)
    assert "\f" not in document.text.strip()
    assert [page.page for page in document.pages] == [1, 2, 3]
    for page in (1, 2, 3):
        found = place(document, f"Lamp {page}7")
        assert found.page == page
        [box] = found.boxes
        assert box[2] < 0.3
    heights = [place(document, f"Lamp 2{n}").boxes[0][1] for n in range(1, 10)]
    assert heights == sorted(heights)


def test_the_value_of_a_form_field_has_its_page_and_no_box(tmp_path: Path) -> None:
    """It is an object of its own, and not among the page's letters."""
    file = PdfFile()
    widget = file.field("/FT /Tx /T (name) /V (Ann Oak)")
    file.page("The first page")
    file.page("A form", annotations=[widget])
    found = place(document_of(tmp_path, file.data()), "Ann Oak")
    assert (found.page, found.boxes) == (2, ())


@pytest.mark.parametrize("text", ["", "other words", "\f", "a\fb\f", "Hexagon" * 50])
def test_another_text_has_no_boxes(text: str) -> None:
    data = lettered([(60, 70, "Hexagon")])
    for page in placed_pages(data, text, 1, length=len(text)):
        assert not page.words


@pytest.mark.parametrize(("data", "total"), [(b"no pdf", 1), (lettered([]), 2)])
def test_a_file_that_pdfium_reads_differently_has_none(data: bytes, total: int) -> None:
    assert placed_pages(data, "Hexagon", total, length=7) == ()


def test_all_words_of_running_text_are_placed(tmp_path: Path) -> None:
    rng = random.Random(17)
    words = [
        "".join(rng.choices("abcdeghiklmnorstu", k=rng.randint(1, 9)))
        for _ in range(90)
    ]
    file = FPDF()
    file.set_font("Helvetica", size=11)
    for _ in range(4):
        file.add_page()
        text = " ".join(rng.choices(words, k=500))
        file.multi_cell(0, text=text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    document = document_of(tmp_path, bytes(file.output()))
    placed = [word for page in document.pages for word in page.words]
    assert [word.text for word in placed] == document.text.split()
    for page in document.pages:
        boxes = [word.box for word in page.words]
        # in the order of reading, each on the line of the one before or below it
        for one, other in pairwise(boxes):
            assert other[0] >= one[2] - _TOLERANCE or other[1] > one[1] + 0.005
