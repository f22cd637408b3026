"""Slides, OpenDocument, RTF and Outlook messages: their text, and what is not in it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odf import draw, style, table, text
from odf.opendocument import OpenDocumentText
from pptx.util import Inches

from tests.kit.formats import (
    annotation,
    attached_file,
    attached_message,
    member,
    message_tree,
    msg,
    odp,
    ods,
    odt,
    pptx_file,
    with_members,
    xlsx,
)
from tests.kit.mails import plain_compressed_rtf
from tests.kit.office_files import word
from tests.kit.reading import read, reason
from tierwise.documents.readers.formats import extract
from tierwise.errors import DocumentError
from tierwise.records import Document

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
ENCRYPTED = OLE + bytes(500) + "EncryptedPackage".encode("utf-16-le")
LONG = (
    "The lamp that we ordered in May is late, and the sofa that came with it is torn. "
    * 2
)


def one(folder: Path, name: str, data: bytes, **options: Any) -> Document:
    (folder / name).write_bytes(data)
    [document] = read(folder, **options).values()
    return document


# --- slides --------------------------------------------------------------------------------------


def test_slides_are_read_with_tables_charts_and_notes(tmp_path: Path) -> None:
    document = one(tmp_path, "a.pptx", pptx_file())
    assert document.text == (
        "## Slide 1\n\n### Lamps\n\nCheap\nBright\n\nNotes:\nSpeak slowly.\n\n"
        "## Slide 2\n\nLamp | 12\nSofa | 900\n\nChart: Sales: May 240, June 260"
    )
    assert document.metadata == {"path": "a.pptx", "format": "pptx"}


def test_what_slides_lose_is_said(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "p.png"
    Image.new("RGB", (9, 9)).save(picture)

    def add(show: Any) -> None:
        scan = show.slides.add_slide(show.slide_layouts[6])
        scan.shapes.add_picture(str(picture), 0, 0, show.slide_width, show.slide_height)
        scan.element.set("show", "0")
        first = show.slides[0]
        shape = first.shapes.add_picture(
            str(picture), 0, 0, show.slide_width, show.slide_height
        )
        shape._element.nvPicPr.cNvPr.set("descr", "A lamp")
        first.shapes.add_ole_object(
            str(picture), "Package", 0, 0, Inches(1), Inches(1), icon_file=str(picture)
        )
        group = first.shapes.add_group_shape()
        group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "In a group"

    folder = tmp_path / "in"
    folder.mkdir()
    document = one(folder, "a.pptx", pptx_file(add), incomplete="accept")
    assert "In a group" in document.text
    assert "Picture: A lamp" in document.text
    assert "## Slide 3 (hidden)" in document.text
    assert document.metadata["incomplete"] == (
        "slide 3 of 3 is a picture with little text; a large picture on slide 1 of 3; "
        "an embedded object on slide 1 of 3"
    )
    assert "slide 3 of 3" in reason(one(folder, "a.pptx", pptx_file(add)))


# --- OpenDocument --------------------------------------------------------------------------------


def rich(document: Any) -> None:
    """Headings, lists, tables, boxes, notes, comments, spaces, deleted text, a header."""
    body = document.text
    body.addElement(text.H(outlinelevel=2, text="Terms"))
    items = text.List()
    for words in ("first", "second"):
        item = text.ListItem()
        item.addElement(text.P(text=words))
        items.addElement(item)
    body.addElement(items)
    grid = table.Table()
    row = table.TableRow()
    for words in ("Lamp", "12"):
        cell = table.TableCell()
        cell.addElement(text.P(text=words))
        row.addElement(cell)
    grid.addElement(row)
    body.addElement(grid)
    paragraph = text.P(text="Spaced")
    paragraph.addElement(text.S(c=3))
    paragraph.addText("out")
    note = text.Note(noteclass="footnote")
    note_body = text.NoteBody()
    note_body.addElement(text.P(text="In small print"))
    note.addElement(note_body)
    paragraph.addElement(note)
    paragraph.addElement(annotation("Not agreed"))
    frame = draw.Frame(width="5cm", height="1cm")
    box = draw.TextBox()
    box.addElement(text.P(text="Boxed"))
    frame.addElement(box)
    paragraph.addElement(frame)
    body.addElement(paragraph)
    layout = style.PageLayout(name="l")
    document.automaticstyles.addElement(layout)
    master = style.MasterPage(name="Standard", pagelayoutname=layout)
    header = style.Header()
    header.addElement(text.P(text="ACME Ltd"))
    master.addElement(header)
    document.masterstyles.addElement(master)


def test_opendocument_texts_are_read_with_all_their_parts(tmp_path: Path) -> None:
    document = one(tmp_path, "a.odt", odt("Dear Ann", change=rich))
    assert document.text == (
        "Dear Ann\n\n## Terms\n\n- first\n\n- second\n\nLamp | 12\n\nSpaced   out\n\n"
        "Note: In small print\n\nComment: Not agreed\n\nBoxed\n\nHeader: ACME Ltd"
    )
    assert "incomplete" not in document.metadata


def test_deleted_text_is_left_out(tmp_path: Path) -> None:
    deleted = (
        b"<office:text><text:tracked-changes><text:changed-region><text:deletion>"
        b"<text:p>gone</text:p></text:deletion></text:changed-region></text:tracked-changes>"
    )
    data = odt("Kept")
    content = member(data, "content.xml").replace(b"<office:text>", deleted)
    assert b"gone" in content
    data = with_members(data, {"content.xml": content})
    document = one(tmp_path, "a.odt", data)
    assert document.text == "Kept"


def pictured(words: str, size: str) -> bytes:
    document = OpenDocumentText()
    paragraph = text.P(text=words)
    for inner in (draw.Image(href="a.png"), draw.Object(href="x")):
        frame = draw.Frame(width=size, height=size)
        frame.addElement(inner)
        paragraph.addElement(frame)
    document.text.addElement(paragraph)
    from tests.kit.formats import saved

    return saved(document)


def test_pictures_and_objects_of_opendocument_are_said(tmp_path: Path) -> None:
    large = one(tmp_path, "a.odt", pictured(LONG, "15cm"))
    assert large.metadata["incomplete"] == "an embedded object; 1 large picture"
    small = one(tmp_path, "a.odt", pictured(LONG, "1cm"))
    assert small.metadata["incomplete"] == "an embedded object"
    scan = one(tmp_path, "a.odt", pictured("Scan", "15cm"))
    assert "1 picture in place of text" in reason(scan)


def test_slides_of_opendocument_are_read(tmp_path: Path) -> None:
    document = one(tmp_path, "a.odp", odp("Hello", "World"))
    assert document.text == "## Slide 1\n\nHello\n\n## Slide 2\n\nWorld"


# --- RTF -----------------------------------------------------------------------------------------

RTF = rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}"


@pytest.mark.parametrize(
    ("body", "words", "lost"),
    [
        (rb"Dear Ann\par\b See\b0  you", "Dear Ann\nSee you", None),
        (rb"Gr\'fc\'dfe \u8364? 5", "Grüße € 5", None),
        (rb"\trowd Lamp\cell 12\cell\row", "Lamp\t12", None),
        (rb"{\header ACME\par}Text{\footnote Small}", "ACME\nTextSmall", None),
        (rb"{\shp{\*\shpinst{\sp{\sn a}{\sv b}}{\shptxt Boxed}}}", "Boxed", None),
        (rb"{\field{\*\fldinst HYPERLINK x}{\fldrslt link}}", "link", None),
        (
            rb"Text {\object\objemb{\*\objdata 010203}{\result shown}}",
            "Text shown",
            "1 embedded object",
        ),
        (
            LONG.encode() + rb"{\*\shppict{\pict 00}}{\nonshppict{\pict 00}}",
            LONG.strip(),
            "1 picture",
        ),
        (
            b"{\\object{\\*\\objdata 01}{\\result x}}" * 3,
            "xxx",
            "3 embedded objects",
        ),
    ],
)
def test_rtf_is_read_and_what_is_lost_is_said(
    tmp_path: Path, body: bytes, words: str, lost: str | None
) -> None:
    document = one(tmp_path, "a.rtf", RTF + body + b"}")
    assert document.text == words
    assert document.metadata.get("incomplete") == lost


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (RTF + b"Cut off", "the end of the file"),
        (RTF + rb"{\pict 00}}", "1 picture in place of text"),
        (b"plain words", "damaged"),
        (word(), "damaged"),
        (OLE + bytes(600), "damaged"),
        (RTF + b"}", "no text"),
    ],
)
def test_rtf_that_is_damaged_or_none_waits(
    tmp_path: Path, data: bytes, words: str
) -> None:
    assert words in reason(one(tmp_path, "a.rtf", data))


def test_nested_objects_and_groups_of_rtf_end(tmp_path: Path) -> None:
    deep = b"{\\object{\\*\\objdata 01}{\\result " * 30_000 + b"x" + b"}}" * 30_000
    assert one(tmp_path, "a.rtf", RTF + deep + b"}").text == "x"


# --- Outlook messages ----------------------------------------------------------------------------


def test_an_outlook_message_is_read_like_an_e_mail(tmp_path: Path) -> None:
    files = (
        attached_file("Größe.txt", b"It is torn."),
        attached_file("rows.csv", b"text\n" + b"row\n" * 2000, "text/csv"),
        attached_message(
            message_tree(
                "Inner",
                "An older letter.",
                attachments=[attached_file("deep.txt", b"Deep.")],
            )
        ),
    )
    data = msg(subject="Größe Ä 7", body="Wo ist\nes?", attachments=files, level=3)
    (tmp_path / "m.msg").write_bytes(data)
    documents = read(tmp_path, "public")
    mail = documents["m.msg"]
    assert mail.text.startswith("Subject: Größe Ä 7\n\nWo ist\nes?")
    assert "Subject: Inner\n\nAn older letter." in mail.text
    assert mail.metadata["from"] == "Ann Oak <ann@example.com>"
    assert mail.metadata["to"] == "us@example.com"
    assert mail.metadata["date"] == "Mon, 18 Aug 2025 14:13:20 +0000"
    assert "incomplete" not in mail.metadata
    assert documents["m.msg/Größe.txt"].text == "It is torn."
    assert documents["m.msg/deep.txt"].text == "Deep."
    assert len(documents) == 2003
    for name, document in documents.items():
        assert document.sensitivity == "confidential"
        assert document.metadata.get("parent") == (None if name == "m.msg" else "m.msg")


@pytest.mark.parametrize(
    "more",
    [
        {"__substg1.0_10130102": b"<p>From <b>HTML</b></p>"},
        {"__substg1.0_1013001F": "<p>From <b>HTML</b></p>".encode("utf-16-le")},
        {"__substg1.0_10090102": plain_compressed_rtf(rb"{\rtf1 From \b HTML\b0}")},
    ],
)
def test_a_message_without_plain_text_has_its_html_or_rtf(
    tmp_path: Path, more: dict[str, bytes]
) -> None:
    document = one(tmp_path, "m.msg", msg(body="", more=dict(more)))
    assert document.text.replace("*", "") == "Subject: Order 7\n\nFrom HTML"


def test_old_messages_in_a_code_page_are_read(tmp_path: Path) -> None:
    more = {"__substg1.0_1000001E": "Größe".encode("cp1252")}
    document = one(tmp_path, "m.msg", msg(body="", more=dict(more)))
    assert document.text.endswith("Größe")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: b"no message", "damaged"),
        (lambda: OLE + bytes(3000), "damaged"),
        (lambda: msg()[:1500], "damaged"),
        (lambda: ENCRYPTED, "damaged"),
        (
            lambda: msg(
                more={
                    "__substg1.0_001A001F": "IPM.Note.SMIME".encode("utf-16-le"),
                },
                attachments=[
                    attached_file("smime.p7m", b"\x30\x80", "application/pkcs7-mime")
                ],
            ),
            "encrypted",
        ),
    ],
)
def test_messages_that_cannot_be_read_wait(
    tmp_path: Path, make: Callable[[], bytes], words: str
) -> None:
    assert words in reason(one(tmp_path, "m.msg", make()))


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.pptx", lambda: ENCRYPTED, "password"),
        ("a.pptx", lambda: OLE + bytes(600), "save it as .pptx"),
        ("a.pptx", lambda: pptx_file()[:5000], "damaged"),
        ("a.pptx", word, "damaged"),
        ("a.docx", lambda: b"{\\rtf1 x}", "damaged"),
        ("a.odt", word, "damaged"),
        ("a.odt", lambda: odp("x"), "not what its ending says"),
        ("a.odt", lambda: odt("x")[:500], "damaged"),
        (
            "a.pptx",
            lambda: with_members(pptx_file(), {"ppt/media/x": bytes(60_000_000)}),
            "unpack to more",
        ),
        (
            "a.odt",
            lambda: with_members(odt("x"), {"x": bytes(60_000_000)}),
            "unpack to more",
        ),
        ("a.ppt", lambda: OLE, "save it as .pptx"),
        ("a.doc", lambda: OLE, "save it as .docx"),
        ("a.7z", lambda: b"7z", ".zip"),
    ],
)
def test_damaged_and_hostile_files_wait(
    tmp_path: Path, name: str, make: Callable[[], bytes], words: str
) -> None:
    assert words in reason(one(tmp_path, name, make()))


SAMPLES: dict[str, bytes] = {
    ".msg": msg(attachments=[attached_file("a.txt", b"x")]),
    ".odp": odp("Hello"),
    ".ods": ods({"S": [["text"], ["a"]]}),
    ".odt": odt("Hello", change=rich),
    ".pptx": pptx_file(),
    ".rtf": RTF + rb"Hello {\object{\result x}}}",
    ".xlsx": xlsx({"S": [["text"], ["a"]]}),
}


@pytest.mark.parametrize("suffix", SAMPLES)
def test_any_bytes_give_documents_or_a_document_error(suffix: str) -> None:
    sample = SAMPLES[suffix]

    @settings(max_examples=12, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, len(sample) - 1), st.integers(0, 255)), max_size=9
        ),
        st.integers(len(sample) // 2, len(sample)),
    )
    def check(changes: list[tuple[int, int]], length: int) -> None:
        data = bytearray(sample)
        for place, value in changes:
            data[place] = value
        try:
            found = extract(bytes(data[:length]), suffix)
        except DocumentError:
            return
        assert isinstance(found.text, str)

    check()


@pytest.mark.parametrize(
    ("module", "package", "name", "make"),
    [
        ("openpyxl", "openpyxl", "a.xlsx", lambda: xlsx({"S": [["text"], ["a"]]})),
        ("pptx", "python-pptx", "a.pptx", pptx_file),
        ("olefile", "olefile", "a.msg", msg),
    ],
)
def test_without_its_library_a_format_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    package: str,
    name: str,
    make: Callable[[], bytes],
) -> None:
    importlib.import_module(module)
    data = make()
    # as Python does for a module that is not there
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DocumentError, match=f"pip install {package}"):
        extract(data, Path(name).suffix)
