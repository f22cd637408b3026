"""Scans, photographs and faxes: text recognition, its words with their places, and its losses."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from PIL import Image, ImageFont

from tests.kit.office_files import pdf
from tests.kit.page_pictures import (
    Box,
    CannedRecognizer,
    encoded,
    line,
    mixed_pdf,
    page,
    quad,
)
from tests.kit.pdf_files import PdfFile
from tests.kit.reading import hide_text_recognition, read, reason
from tierwise.documents.readers.formats import extract
from tierwise.documents.readers.pages.reading_order import reading_order
from tierwise.documents.readers.pages.recognizer import (
    ReadLine,
    Recognizer,
    is_installed,
)
from tierwise.documents.readers.pages.rendering import MOST_PAGES
from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.settings import Request
from tierwise.documents.redaction.redact import Redaction
from tierwise.documents.spool import Spool
from tierwise.errors import DocumentError
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.steps.places import places_of

needs_ocr = pytest.mark.skipif(
    not is_installed(), reason="the extra `ocr` is not installed"
)
ORIENTATION = 0x0112


def recognized(
    data: bytes, suffix: str, *pages: Sequence[ReadLine]
) -> tuple[Extracted, CannedRecognizer]:
    """What a reader makes of a file, with these lines in place of text recognition."""
    canned = CannedRecognizer(*pages)
    return extract(data, suffix, cast("Recognizer", canned)), canned


# ---- with the real models -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def read_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    """A photograph on its side, a fax with long dots, and a PDF of which one page is a scan."""
    folder = tmp_path_factory.mktemp("scans")
    photo = page("Invoice 4711", "Total 98.50 EUR")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    held = photo.rotate(90, expand=True)
    (folder / "photo.JPG").write_bytes(encoded(held, "JPEG", exif=exif))
    fax = page("Order of ten chairs", "Oak Street 5").convert("1").resize((900, 250))
    second = page("Signed by Ann Oak").rotate(180).convert("1").resize((900, 250))
    more = {"save_all": True, "append_images": [second], "compression": "group4"}
    (folder / "fax.tif").write_bytes(encoded(fax, "TIFF", dpi=(204, 102), **more))
    scan = page("Receipt 2026-11-28", "Paid in cash")
    (folder / "mixed.pdf").write_bytes(mixed_pdf("A typed cover letter of 2026", scan))
    return read(folder, max_seconds=250)  # on a busy machine


@needs_ocr
def test_scans_photographs_and_faxes_are_read_page_by_page(
    read_pages: dict[str, Document],
) -> None:
    texts = {id_: document.text for id_, document in read_pages.items()}
    assert texts["photo.JPG"] == "Invoice 4711\nTotal 98.50 EUR"
    assert texts["fax.tif"] == ("Order of ten chairs\nOak Street 5\fSigned by Ann Oak")
    typed, scanned = texts["mixed.pdf"].split("\f")
    assert typed.strip() == "A typed cover letter of 2026"
    assert scanned == "Receipt 2026-11-28\nPaid in cash"
    for document in read_pages.values():
        assert not document.outcomes
        assert "incomplete" not in document.metadata
        assert 0.8 < float(document.metadata["ocr_confidence"]) <= 1
    assert read_pages["mixed.pdf"].metadata["ocr"] == "page 2"


@needs_ocr
def test_every_word_knows_its_characters_and_its_place_on_the_page(
    read_pages: dict[str, Document],
) -> None:
    numbers = {
        id_: [each.page for each in document.pages]
        for id_, document in read_pages.items()
    }
    assert numbers == {"photo.JPG": [1], "fax.tif": [1, 2], "mixed.pdf": [1, 2]}
    for document in read_pages.values():
        for each in document.pages:
            assert each.confidence > 0.8
            page_text = document.text[each.start : each.end]
            words = " ".join(word.text for word in each.words)
            assert words.split() == page_text.split()
            for word in each.words:
                assert document.text[word.start : word.end] == word.text
                left, top, right, bottom = word.box
                assert 0 <= left < right <= 1
                assert 0 <= top < bottom <= 1
    # drawn at 40 of 900 dots across, in the second line
    [photo] = read_pages["photo.JPG"].pages
    assert (photo.width, photo.height) == (900, 500)
    total = next(word for word in photo.words if word.text == "Total")
    assert 0.03 < total.box[0] < 0.06
    assert 108 / 500 - 0.03 < (total.box[1] + total.box[3]) / 2 < 150 / 500
    # a page that lay upside down has its first word at the right, near the bottom
    signed = read_pages["fax.tif"].pages[1]
    assert signed.turn == 180
    assert signed.words[0].box[2] > 0.9
    assert signed.words[0].box[1] > 0.7


@needs_ocr
def test_the_words_come_through_the_spool(
    read_pages: dict[str, Document], tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", "run")
    documents = tuple(read_pages.values())
    loaded = spool.put(Batch(documents)).load()
    spool.close()
    assert loaded == documents
    assert loaded[0].pages


# ---- without them -------------------------------------------------------------------------------


def test_without_the_extra_the_deferrals_say_what_to_install_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_text_recognition(tmp_path / "hidden", monkeypatch)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "fax.tif").write_bytes(encoded(page("Fax"), "TIFF"))
    (folder / "mixed.pdf").write_bytes(mixed_pdf("A cover letter", page("Receipt")))
    (folder / "typed.pdf").write_bytes(pdf("A typed letter"))
    documents = read(folder)
    for name in ("fax.tif", "mixed.pdf"):
        assert 'pip install "tierwise[ocr]"' in reason(documents[name])
    assert documents["typed.pdf"].text == "A typed letter"


def test_a_project_can_turn_text_recognition_off(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.tierwise]\nocr = false\n")
    settings = Project(tmp_path).reading
    scan = encoded(page("Fax"), "PNG")
    words = [line("A word", (10, 10, 90, 30))]
    canned = cast("Recognizer", CannedRecognizer(words, words))
    assert extract(scan, Request(".png"), canned).text == "A word"
    with pytest.raises(DocumentError):
        extract(scan, Request(".png", settings=settings), canned)
    assert settings.key() != Project(tmp_path / "other").reading.key() or (
        not is_installed()
    )


def test_a_picture_is_known_by_its_content_and_drawn_on_white() -> None:
    layer = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    deep = Image.new("I;16", (300, 200))
    for kind, image in (
        ("PNG", layer),
        ("PNG", deep),
        ("BMP", page("x")),
        ("GIF", page("x")),
        ("WEBP", page("x")),
        ("TIFF", Image.new("CMYK", (300, 200))),
    ):
        # by another ending than its own
        found, _ = recognized(
            encoded(image, kind), ".jpeg", [line("A word", (10, 10, 90, 30))]
        )
        assert found.text == "A word"
        assert (found.page_total, found.unread_pages) == (1, ())


def test_a_large_picture_is_read_at_a_bounded_size() -> None:
    wide = Image.new("L", (6000, 3000), 255)
    _, canned = recognized(
        encoded(wide, "PNG"), ".png", [line("A word", (10, 10, 90, 30))]
    )
    [(width, height)] = canned.sizes
    assert width * height <= 3_210_000
    assert width == 2 * height


def test_words_that_are_uncertain_are_a_loss_and_a_page_of_guesses_waits() -> None:
    sure = [
        line(f"Line {number}", (10, 30 * number, 200, 30 * number + 20))
        for number in range(8)
    ]
    doubt = line("Tota1 9.OO", (10, 300, 200, 320), 0.7)
    dirt = line("~;", (10, 400, 30, 420), 0.2)
    data = encoded(page(), "PNG")
    found, _ = recognized(data, ".png", [*sure, doubt, dirt])
    assert "Tota1" in found.text
    assert "~" not in found.text
    assert found.unread == ("page 1: 2 of 10 lines are uncertain",)
    assert found.unread_pages == ()
    guessed, _ = recognized(data, ".png", [doubt, dirt, dirt])
    assert len(guessed.unread_pages) == 1
    with pytest.raises(DocumentError):
        recognized(data, ".png", [dirt])
    with pytest.raises(DocumentError):
        recognized(data, ".png", [])


def test_a_page_of_a_pdf_on_which_no_word_is_found_still_waits() -> None:
    scan = mixed_pdf("A typed cover letter", page())
    found, _ = recognized(scan, ".pdf", [])
    assert found.unread_pages == ("page 2 of 2 has no text",)
    assert "pip" not in found.remedy


def test_a_form_beside_a_scan_keeps_the_places_of_the_words() -> None:
    file = PdfFile()
    widget = file.field("/FT /Tx /T (name) /V (Ann Oak)")
    file.page("A form of two pages", annotations=[widget])
    file.image_page()
    file.page("The last page")
    words = [line("Received", (10, 10, 90, 30)), line("today", (10, 50, 90, 70))]
    found, _ = recognized(file.data(), ".pdf", words)
    assert "name: Ann Oak" in found.text
    typed, scanned, _ = found.pages
    assert [typed.is_recognized, scanned.is_recognized] == [False, True]
    assert scanned.page == 2
    assert found.text[scanned.start : scanned.end] == "Received\ntoday"
    assert [found.text[word.start : word.end] for word in scanned.words] == [
        "Received",
        "today",
    ]


def test_more_pages_than_the_limit_are_a_loss() -> None:
    dot = Image.new("1", (40, 40), 1)
    more = {"save_all": True, "append_images": [dot] * MOST_PAGES}
    pages = [[line("A word", (1, 1, 30, 10))]] * (MOST_PAGES + 1)
    found, canned = recognized(encoded(dot, "TIFF", **more), ".tif", *pages)
    assert len(canned.sizes) == MOST_PAGES
    assert len(found.unread_pages) == 1


def bomb() -> bytes:
    """A PNG of a few bytes that claims 40,000 by 40,000 dots."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def endless_tiff() -> bytes:
    """A TIFF whose only page names itself as the next one."""
    data = bytearray(encoded(Image.new("L", (8, 8)), "TIFF"))
    [offset] = struct.unpack_from("<I", data, 4)
    [entries] = struct.unpack_from("<H", data, offset)
    struct.pack_into("<I", data, offset + 2 + 12 * entries, offset)
    return bytes(data)


@needs_ocr
def test_hostile_and_damaged_pictures_are_deferred_and_the_next_file_is_read(
    tmp_path: Path,
) -> None:
    whole = encoded(page("Hello"), "PNG")
    files = {
        "bomb.png": bomb(),
        "cut.png": whole[: len(whole) // 2],
        "endless.tif": endless_tiff(),
        "page.html.png": b"<p>Hello</p>",
        "junk.gif": b"GIF89a" + b"\xff" * 40,
        "junk.webp": b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 20,
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "zz.txt").write_text("The last letter")
    documents = read(tmp_path, max_seconds=250)
    for name in files:
        assert reason(documents[name]), name
    assert documents["zz.txt"].text == "The last letter"


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP", "JPEG", "WEBP"])
def test_damaged_bytes_give_a_text_or_a_document_error(kind: str) -> None:
    whole = encoded(page("Hello", size=(60, 40), letters=10), kind)
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        for data in (whole[:place], whole[:place] + b"\xff\x00\xff" + whole[place:]):
            with suppress(DocumentError):
                recognized(data, ".png", [line("A word", (1, 1, 30, 10))])


def test_a_moving_picture_says_that_its_first_frame_alone_was_read() -> None:
    frames = {"save_all": True, "append_images": [page("two")]}
    found, canned = recognized(
        encoded(page("one"), "GIF", **frames), ".gif", [line("one", (1, 1, 30, 10))]
    )
    assert len(canned.sizes) == 1
    assert len(found.unread) == 1


# ---- reading order ------------------------------------------------------------------------------


def rows_of(*boxes: Box) -> list[list[int]]:
    return reading_order([quad(*box) for box in boxes])


def tilted(box: Box, slope: float) -> tuple[tuple[float, float], ...]:
    return tuple((x - y * slope, y + x * slope) for x, y in quad(*box))


def test_lines_side_by_side_are_a_row_also_on_a_tilted_page() -> None:
    """At 2 degrees, the end of a row stands lower than the beginning of the next one."""
    labels: list[Box] = [(20, 40 * n, 180, 40 * n + 20) for n in range(10)]
    amounts: list[Box] = [(1000, 40 * n, 1080, 40 * n + 20) for n in range(10)]
    quads = [tilted(box, 0.035) for box in (*amounts, *labels)]
    rows = reading_order(quads)  # type: ignore[arg-type]
    assert rows == [[n + 10, n] for n in range(10)]


def test_columns_of_running_text_are_read_one_after_the_other() -> None:
    title: Box = (100, 0, 900, 30)
    left: list[Box] = [(0, 50 + 30 * n, 480, 70 + 30 * n) for n in range(6)]
    right: list[Box] = [(520, 50 + 30 * n, 1000, 70 + 30 * n) for n in range(6)]
    foot: Box = (100, 300, 900, 320)
    rows = rows_of(*right, title, foot, *left)
    order = [number for row in rows for number in row]
    assert order == [6, *range(8, 14), *range(6), 7]


def test_the_cells_of_a_table_stay_in_their_rows() -> None:
    cells = [
        (250 * column, 40 * row, 250 * column + 90, 40 * row + 20)
        for row in range(6)
        for column in range(4)
    ]
    assert rows_of(*cells) == [
        [4 * n, 4 * n + 1, 4 * n + 2, 4 * n + 3] for n in range(6)
    ]


# ---- what a changed text may no longer show -----------------------------------------------------


def test_a_redacted_document_has_neither_words_nor_pictures_of_its_pages(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("Call Ann at ann@oak.example"))
    document = read(tmp_path)["a.pdf"]
    assert document.page_file is not None
    redacted = Redaction(to="public").apply(document)
    assert "ann@oak.example" not in redacted.text
    assert (redacted.pages, redacted.page_file) == ((), None)
    # whoever changes a text without it, too
    changed = replace(document, text="another")
    assert changed.page_file is not None
    assert changed.page_file.text_hash != changed.hash
    assert document.page_file.text_hash == document.hash
    assert io.BytesIO(Path(document.page_file.path).read_bytes()).read(5) == b"%PDF-"


@needs_ocr
def test_the_box_of_a_quotation_holds_the_drawn_word(
    read_pages: dict[str, Document],
) -> None:
    """As `page` draws it: from 40 dots, each line 68 dots below the one before."""
    [photo] = places_of({"evidence": "98.50 eur"}, read_pages["photo.JPG"])
    assert photo.page == 1
    [box] = photo.boxes
    font = ImageFont.load_default(34)
    left = 40 + font.getlength("Total ")
    right = left + font.getlength("98.50 EUR")
    drawn = (left / 900, 116 / 500, right / 900, 140 / 500)
    slack = 0.02
    assert box[0] <= drawn[0] + slack
    assert box[1] <= drawn[1]
    assert box[2] >= drawn[2] - slack
    assert box[3] >= drawn[3]
    mixed = read_pages["mixed.pdf"]
    [typed] = places_of({"evidence": "cover letter"}, mixed)
    [scanned] = places_of({"evidence": "Paid in cash"}, mixed)
    assert (typed.page, scanned.page) == (1, 2)
    assert len(typed.boxes) == len(scanned.boxes) == 1
