"""Word files: what their conversion leaves out is read, and what is not in the text is listed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markitdown import StreamInfo
from markitdown.converters import DocxConverter

from tests.kit.office_files import word
from tests.kit.projects import ROOT
from tests.kit.reading import read, reason
from tests.kit.word_files import (
    PAGE,
    SCAN,
    WordFile,
    both,
    drawn_box,
    old_box,
    paragraph,
    run,
)
from tierwise.documents.readers.formats import extract
from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError

PROSE = "The parties agree on the delivery of ten oak chairs by the end of the month, and more."
LONG = f"{PROSE} " * 6


def extracted(file: WordFile) -> Extracted:
    return extract(file.data(), ".docx")


def body(*xml: str) -> WordFile:
    file = WordFile()
    file.add(paragraph(LONG), *xml)
    return file


def with_part(name: str, kind: str, element: str, content: str, *xml: str) -> WordFile:
    file = WordFile()
    file.add(paragraph(LONG), *xml)
    file.xml_part(name, kind, element, content)
    return file


def field_run(kind: str, inside: str = "") -> str:
    return f"<w:r><w:fldChar w:fldCharType='{kind}'>{inside}</w:fldChar></w:r>"


def drop_down() -> str:
    entries = "".join(
        f"<w:listEntry w:val='{name}'/>" for name in ("Oak", "MARK", "Ash")
    )
    choices = (
        f"<w:ffData><w:ddList><w:result w:val='1'/>{entries}</w:ddList></w:ffData>"
    )
    asked = "<w:r><w:instrText> FORMDROPDOWN </w:instrText></w:r>"
    return paragraph(
        "Wood: ", field_run("begin", choices), asked, field_run("end"), " please"
    )


def text_field() -> str:
    asked = "<w:r><w:instrText> FORMTEXT </w:instrText></w:r>"
    return paragraph(
        "Name: ",
        field_run("begin"),
        asked,
        field_run("separate"),
        "MARK",
        field_run("end"),
    )


def imported(name: str, data: bytes) -> WordFile:
    file = body()
    number = file.part(name, "aFChunk", data)
    file.add(f"<w:altChunk r:id='{number}'/>")
    return file


def inner_word() -> bytes:
    file = WordFile()
    file.add(paragraph("A letter with MARK"))
    return file.data()


def comment_of(author: str) -> WordFile:
    return with_part(
        "comments.xml",
        "comments",
        "w:comments",
        f"<w:comment w:id='1' w:author='{author}'>{paragraph('Not MARK agreed')}</w:comment>",
        paragraph("<w:r><w:commentReference w:id='1'/></w:r>", "Price"),
    )


CHART = (
    "<c:chart><c:title><c:tx><c:rich><a:p><a:r><a:t>MARK of sales</a:t></a:r></a:p></c:rich>"
    "</c:tx></c:title><c:plotArea><c:barChart><c:ser><c:tx><c:v>North</c:v></c:tx><c:cat>"
    "<c:pt><c:v>May</c:v></c:pt></c:cat><c:val><c:pt><c:v>240</c:v></c:pt></c:val></c:ser>"
    "</c:barChart></c:plotArea></c:chart>"
)

MARK = paragraph("MARK")


def boxed(box: str) -> WordFile:
    """A file with a text box in a paragraph."""
    return body(paragraph(f"<w:r>{box}</w:r>", "beside it"))


def table(*cells: str) -> str:
    inside = "".join(f"<w:tc>{cell}</w:tc>" for cell in cells)
    return f"<w:tbl><w:tr>{inside}</w:tr></w:tbl>"


def control(inside: str, properties: str = "") -> str:
    return f"<w:sdt><w:sdtPr>{properties}</w:sdtPr><w:sdtContent>{inside}</w:sdtContent></w:sdt>"


BOXES: dict[str, str] = {
    "of new programs": drawn_box(MARK),
    "in one version": both(drawn_box(MARK), None),
    "with an empty second version": both(drawn_box(MARK), "<w:pict/>"),
    "in two versions": both(drawn_box(MARK), old_box(MARK)),
    "of old programs": old_box(MARK),
    "round": old_box(MARK, shape="oval"),
    "in a text box": drawn_box(paragraph(f"<w:r>{drawn_box(MARK)}</w:r>")),
    "in an old text box": old_box(paragraph(f"<w:r>{drawn_box(MARK)}</w:r>")),
    "with a table": drawn_box(table(MARK)),
}


@pytest.mark.parametrize("name", BOXES)
def test_text_boxes_are_read_once(name: str) -> None:
    found = extracted(boxed(BOXES[name]))
    assert found.text.count("MARK") == 1
    assert found.unread == ()


INLINE: dict[str, str] = {
    "a merge field": "<w:fldSimple w:instr='MERGEFIELD name'>{}</w:fldSimple>",
    "inserted": "<w:ins w:id='1' w:author='Ann'>{}</w:ins>",
    "moved": "<w:moveTo w:id='1' w:author='Ann'>{}</w:moveTo>",
    "XML of a customer": "<w:customXml w:element='name'>{}</w:customXml>",
    "a smart tag": "<w:smartTag w:element='name'>{}</w:smartTag>",
    "right to left": "<w:bdo w:val='rtl'>{}</w:bdo>",
    "a reading aid": "<w:r><w:ruby><w:rt>{rt}</w:rt><w:rubyBase>{}</w:rubyBase></w:ruby></w:r>",
    "a content control": control("{}"),
    "an unknown element": "<w:futureThing>{}</w:futureThing>",
    "a link": "<w:hyperlink w:anchor='x'>{}</w:hyperlink>",
}


@pytest.mark.parametrize("name", INLINE)
def test_text_in_a_paragraph_is_read_at_its_place(name: str) -> None:
    inside = INLINE[name].format(run("MARK"), rt=run("aid"))
    file = body(paragraph("Dear ", inside, ", hello"))
    found = extracted(file)
    assert found.text.index("Dear") < found.text.index("MARK")
    assert found.text.index("MARK") < found.text.index(", hello")
    assert found.text.count("MARK") == 1


def test_hidden_text_is_read() -> None:
    """It is often there for a reason, such as an instruction."""
    hidden = "<w:r><w:rPr><w:vanish/></w:rPr><w:t>MARK</w:t></w:r>"
    assert "MARK" in extracted(body(paragraph("Price ", hidden))).text


@pytest.mark.parametrize(
    "inside",
    [
        "<w:del w:id='1' w:author='Ann'><w:r><w:delText>MARK</w:delText></w:r></w:del>",
        f"<w:moveFrom w:id='1' w:author='Ann'>{run('MARK')}</w:moveFrom>",
    ],
)
def test_deleted_text_is_not_read(inside: str) -> None:
    assert "MARK" not in extracted(body(paragraph("Price ", inside))).text


BLOCKS: dict[str, tuple[str, str]] = {
    "a table in a table": (table(paragraph("a"), table(MARK) + paragraph("b")), "MARK"),
    "a control around a row": (
        f"<w:tbl>{control(f'<w:tr><w:tc>{MARK}</w:tc></w:tr>')}</w:tbl>",
        "MARK",
    ),
    "a control around a cell": (
        f"<w:tbl><w:tr>{control(f'<w:tc>{MARK}</w:tc>')}</w:tr></w:tbl>",
        "MARK",
    ),
    "a control around paragraphs": (control(MARK), "MARK"),
    "XML of a customer": (f"<w:customXml w:element='x'>{MARK}</w:customXml>", "MARK"),
    "a drop-down field": (drop_down(), "Wood: MARK please"),
    "a text field": (text_field(), "Name: MARK"),
    "letters as a shape": (
        paragraph(
            "<w:r><w:pict><v:shape><v:textpath string='MARK'/></v:shape></w:pict></w:r>"
        ),
        "Text: MARK",
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_other_elements_with_text_are_read(name: str) -> None:
    xml, expected = BLOCKS[name]
    text = extracted(body(xml)).text
    assert expected in text
    assert text.count("MARK") == 1


def test_a_checkbox_says_whether_it_is_checked() -> None:
    for state, shown in (("1", "[x]"), ("0", "[ ]")):
        box = f"<w14:checkbox><w14:checked w14:val='{state}'/></w14:checkbox>"
        file = body(paragraph(control(run("☒"), box), "Broken"))
        assert f"{shown}" in extracted(file).text


def notes(kind: str) -> WordFile:
    return with_part(
        f"{kind}notes.xml",
        f"{kind}notes",
        f"w:{kind}notes",
        f"<w:{kind}note w:id='2'>{MARK}</w:{kind}note>",
        paragraph(f"<w:r><w:{kind}noteReference w:id='2'/></w:r>", "noted"),
    )


def header(*paragraphs: str, kind: str = "header") -> WordFile:
    short = "hdr" if kind == "header" else "ftr"
    return with_part(f"{kind}1.xml", kind, f"w:{short}", "".join(paragraphs))


def text_import(name: str, content: str) -> WordFile:
    return imported(name, content.encode())


PARTS: dict[str, tuple[Callable[[], WordFile], str]] = {
    "a header": (
        lambda: header(paragraph("ACME Ltd"), paragraph("MARK Street 5")),
        "Header: ACME Ltd\nMARK Street 5",
    ),
    "a footer": (lambda: header(MARK, kind="footer"), "Footer: MARK"),
    "a text box in a header": (
        lambda: header(paragraph(f"<w:r>{BOXES['in two versions']}</w:r>")),
        "Header: MARK",
    ),
    "a watermark": (
        lambda: header(
            paragraph(
                "<w:r><w:pict><v:shape><v:textpath string='MARK'/></v:shape></w:pict></w:r>"
            )
        ),
        "Header: MARK",
    ),
    "a comment": (lambda: comment_of("Ann Oak"), "Comment by Ann Oak: Not MARK agreed"),
    "a comment of nobody": (lambda: comment_of(""), "Comment: Not MARK agreed"),
    "a footnote": (lambda: notes("foot"), "MARK"),
    "an endnote": (lambda: notes("end"), "MARK"),
    "a chart": (
        lambda: with_part("charts/chart1.xml", "chart", "c:chartSpace", CHART),
        "Chart: MARK of sales; North: May 240",
    ),
    "a diagram": (
        lambda: with_part(
            "diagrams/data1.xml",
            "diagramData",
            "dgm:dataModel",
            "<dgm:pt><a:t>First</a:t></dgm:pt><dgm:pt><a:t>MARK</a:t></dgm:pt>",
        ),
        "Diagram: First; MARK",
    ),
    "an imported page": (lambda: text_import("a.html", "<p>The MARK"), "The MARK"),
    "an imported text": (lambda: text_import("a.txt", "The MARK"), "The MARK"),
    "an imported letter": (
        lambda: imported("a.docx", inner_word()),
        "A letter with MARK",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_other_parts_are_read(name: str) -> None:
    make, line = PARTS[name]
    found = extracted(make())
    assert line in found.text
    assert found.text.count("MARK") == 1
    assert (found.unread, found.unread_pages) == ((), ())


def test_a_page_number_in_a_footer_is_left_out() -> None:
    """And a header is there once, however many sections have it."""
    file = header(paragraph("Page ", "3", " of ", "9"), kind="footer")
    file.xml_part("header1.xml", "header", "w:hdr", paragraph("ACME Ltd"))
    file.xml_part("header2.xml", "header", "w:hdr", paragraph("ACME Ltd"))
    assert extracted(file).text == f"{LONG.strip()}\n\nHeader: ACME Ltd"


# ---- what is not read ---------------------------------------------------------------------------


def embedded() -> WordFile:
    file = body(paragraph("See the table."))
    file.part("embeddings/plan.xlsx", "package", b"PK")
    file.part("embeddings/oleObject1.bin", "oleObject", b"")
    return file


def pictured(*sizes: tuple[int, int]) -> WordFile:
    file = body()
    for size in sizes:
        file.add(paragraph(file.picture(size)))
    return file


def handwritten() -> WordFile:
    return body(paragraph("<w:r><w:contentPart r:id='rId9'/></w:r>"))


LISTED: dict[str, tuple[Callable[[], WordFile], str]] = {
    "embedded objects": (embedded, "the embedded files plan.xlsx, oleObject1.bin"),
    "handwriting": (handwritten, "handwriting"),
    "a large picture": (lambda: pictured((PAGE[0], PAGE[1] // 3)), "a picture"),
    "large pictures": (
        lambda: pictured((PAGE[0], PAGE[1] // 3), (PAGE[0], 5_000_000)),
        "2 pictures",
    ),
}


@pytest.mark.parametrize("name", LISTED)
def test_parts_that_are_not_read_are_listed(name: str, tmp_path: Path) -> None:
    make, phrase = LISTED[name]
    (tmp_path / "a.docx").write_bytes(make().data())
    document = read(tmp_path)["a.docx"]
    assert document.metadata["incomplete"] == phrase
    assert document.outcomes == {}


SCANS: dict[str, tuple[Callable[[], WordFile], str]] = {
    "a scan": (lambda: pictured(SCAN), "a picture in place of text is not read"),
    "scans": (
        lambda: pictured(SCAN, PAGE, SCAN),
        "3 pictures in place of text are not read",
    ),
    "an imported format": (
        lambda: text_import("a.rtf", r"{\rtf1 The MARK}"),
        "the imported file a.rtf is not read",
    ),
    "a linked document": (
        lambda: body("<w:subDoc r:id='rId9'/>"),
        "a linked document is not read",
    ),
}


@pytest.mark.parametrize("name", SCANS)
def test_missing_pages_wait(name: str, tmp_path: Path) -> None:
    make, phrase = SCANS[name]
    (tmp_path / "a.docx").write_bytes(make().data())
    document = read(tmp_path)["a.docx"]
    assert document.metadata["incomplete"] == phrase
    assert reason(document).startswith(phrase)


def test_a_cover_line_with_a_picture_waits() -> None:
    file = WordFile()
    file.add(
        paragraph("Please see below."), paragraph(file.picture((3_000_000, 3_000_000)))
    )
    assert extracted(file).unread_pages == ("a picture in place of text is not read",)


def test_pictures_alone_are_no_text() -> None:
    file = WordFile()
    file.add(paragraph(file.picture(SCAN)), paragraph(file.picture(SCAN)))
    with pytest.raises(DocumentError, match=r"no text found: 2 pictures .* \(OCR\)"):
        extracted(file)


def test_a_small_picture_is_no_loss() -> None:
    found = extracted(pictured((900_000, 900_000)))
    assert (found.unread, found.unread_pages) == ((), ())


# ---- what does not change -----------------------------------------------------------------------


def converted(data: bytes) -> str:
    converter = DocxConverter()  # type: ignore[no-untyped-call]
    done = converter.convert(io.BytesIO(data), StreamInfo(extension=".docx"))
    return str(done.markdown)


def rich() -> bytes:
    """Everything that an ordinary letter has."""
    document = docx.Document()
    document.add_heading("Offer", 1)
    line = document.add_paragraph("We *deliver* ")
    line.add_run("ten").bold = True
    line.add_run(" oak_chairs <soon> & more, 25 €.")
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("second", style="List Number")
    grid = document.add_table(rows=2, cols=3)
    for number, cell in enumerate(cell for row in grid.rows for cell in row.cells):
        cell.text = f"cell | {number}"
    document.save(file := io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize("name", ["offer", "rich", "contract"])
def test_the_text_of_an_ordinary_file_is_markitdowns(name: str) -> None:
    data = {
        "offer": word(),
        "rich": rich(),
        "contract": (ROOT / "examples/contracts/freelance-services.docx").read_bytes(),
    }[name]
    found = extract(data, ".docx")
    assert found == Extracted(converted(data))


# ---- anything -----------------------------------------------------------------------------------


def marked_files() -> st.SearchStrategy[tuple[WordFile, list[str]]]:
    """Files with a marker word in every part, and the markers."""
    wrappers = st.sampled_from([*INLINE.values(), "{}", "<w:r>{box}</w:r>"])
    blocks = st.sampled_from(
        ["{}", table("{}", paragraph("b")), control("{}"), drawn_block(), old_block()]
    )
    shapes = st.lists(st.tuples(wrappers, blocks), min_size=1, max_size=8)

    def build(chosen: list[tuple[str, str]]) -> tuple[WordFile, list[str]]:
        file = WordFile()
        markers = []
        for number, (wrapper, block) in enumerate(chosen):
            marker = f"MARK{chr(65 + number)}X"
            markers.append(marker)
            inside = wrapper.format(
                run(marker), rt=run("aid"), box=drawn_box(paragraph(marker))
            )
            file.add(block.format(paragraph(f"Line {number} of ", inside, " this")))
        markers += ["MARKHEAD", "MARKNOTE"]
        file.xml_part("header1.xml", "header", "w:hdr", paragraph("MARKHEAD"))
        file.xml_part(
            "footnotes.xml",
            "footnotes",
            "w:footnotes",
            f"<w:footnote w:id='2'>{paragraph('MARKNOTE')}</w:footnote>",
        )
        return file, markers

    return shapes.map(build)


def drawn_block() -> str:
    return paragraph(f"<w:r>{drawn_box('{}')}</w:r>")


def old_block() -> str:
    return paragraph(f"<w:r>{both(drawn_box('{}'), None)}</w:r>")


@settings(max_examples=25, deadline=None)
@given(marked_files())
def test_every_marker_is_in_the_text(made: tuple[WordFile, list[str]]) -> None:
    file, markers = made
    found = extracted(file)
    assert [marker for marker in markers if marker not in found.text] == []
