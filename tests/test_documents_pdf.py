"""PDF files: what their pages do not draw is read, and what is not in the text is listed."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pypdf
import pytest
from fpdf import FPDF
from hypothesis import given, settings
from markitdown import StreamInfo
from markitdown.converters import PdfConverter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, TextStringObject

from tests.kit.marked_pdf import Marked, marked_pdfs
from tests.kit.office_files import pdf
from tests.kit.pdf_files import HEIGHT, WIDTH, PdfFile, literal
from tests.kit.projects import ROOT
from tests.kit.reading import read, reason
from tierwise.documents.readers.formats import extract
from tierwise.documents.readers.pdf_pages import pages_named
from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError

PROSE = "The parties agree on the delivery of ten oak chairs by the end of the month, and more."
WHOLE_PAGE = (0, 0, WIDTH, HEIGHT)


def extracted(file: PdfFile) -> Extracted:
    return extract(file.data(), ".pdf")


# ---- forms --------------------------------------------------------------------------------------


def form(*entries: str, title: str = "Complaint form") -> PdfFile:
    """A page whose form has these fields."""
    file = PdfFile()
    fields = [file.field(each) for each in entries]
    file.page(title, annotations=fields)
    return file


def text_field(name: str, value: str, more: str = "") -> str:
    return f"/FT /Tx /T {literal(name)} /V {literal(value)} {more}"


def radio(chosen: str, *, kid_state: bool = False) -> PdfFile:
    file = PdfFile()
    group = file.group(f"/FT /Btn /Ff 32768 /T (shipping) /V /{chosen}")
    kids = []
    for name in ("Post", "Express"):
        state = name if kid_state and name == "Express" else "Off"
        kids.append(
            file.field(
                f"/Parent {group} 0 R /AS /{state} /AP << /N << /{name} 1 0 R >> >>",
                root=False,
            )
        )
    kid_names = " ".join(f"{kid} 0 R" for kid in kids)
    file.replace(
        group,
        f"<< /FT /Btn /Ff 32768 /T (shipping) /V /{chosen} /Kids [{kid_names}] >>",
    )
    file.page("Form", annotations=kids)
    return file


def nested_field() -> PdfFile:
    file = PdfFile()
    group = file.group("/T (person)")
    kid = file.field(f"/Parent {group} 0 R /FT /Tx /T (name) /V (Ann Oak)", root=False)
    file.replace(group, f"<< /T (person) /Kids [{kid} 0 R] >>")
    file.page("Form", annotations=[kid])
    return file


def undrawn_field() -> PdfFile:
    """A field without a place on any page."""
    file = PdfFile()
    file.group("/FT /Tx /T (total) /V (240 euros)")
    file.page("Form")
    return file


def field_of_the_page_alone() -> PdfFile:
    """A widget that the form's list of fields lacks."""
    file = PdfFile()
    widget = file.field(text_field("article", "Oak shelf"), root=False)
    file.page("Form", annotations=[widget])
    return file


def drawn_in_its_appearance() -> PdfFile:
    file = PdfFile()
    font = file.add("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    entries = f"/Type /XObject /Subtype /Form /BBox [0 0 200 20] /Resources << /Font << /F1 {font} 0 R >> >>"
    shape = file.add(entries, b"BT /F1 12 Tf 2 2 Td (Oak shelf) Tj ET")
    widget = file.field(f"/FT /Tx /T (article) /AP << /N {shape} 0 R >>")
    file.page("Form", annotations=[widget])
    return file


def value_in_a_stream() -> PdfFile:
    file = PdfFile()
    value = file.add("", b"It came with a crack")
    widget = file.field(f"/FT /Tx /T (wrong) /V {value} 0 R")
    file.page("Form", annotations=[widget])
    return file


FORMS: dict[str, tuple[Callable[[], PdfFile], list[str]]] = {
    "text": (lambda: form(text_field("article", "Oak shelf")), ["article: Oak shelf"]),
    "its label for people": (
        lambda: form(text_field("f1", "Oak", "/TU (The article)")),
        ["The article: Oak"],
    ),
    "several lines": (
        lambda: form(text_field("wrong", "It came\rwith a crack", "/Ff 4096")),
        ["wrong: It came\nwith a crack"],
    ),
    "letters beyond Latin": (
        lambda: form(text_field("Größe", "Żółć 25 €")),
        ["Größe: Żółć 25 €"],
    ),
    "a box with a check": (
        lambda: form("/FT /Btn /T (broken) /V /Yes /AS /Yes"),
        ["broken: checked"],
    ),
    "a box without": (
        lambda: form("/FT /Btn /T (broken) /V /Off /AS /Off"),
        ["broken: not checked"],
    ),
    "a box whose state alone is set": (
        lambda: form("/FT /Btn /T (broken) /AS /Yes"),
        ["broken: checked"],
    ),
    "a box with a name for its state": (
        lambda: form("/FT /Btn /T (ship) /V /Express /AS /Express"),
        ["ship: checked (Express)"],
    ),
    "a choice": (
        lambda: form("/FT /Ch /T (colour) /V (b) /Opt [[(a) (Black)] [(b) (Birch)]]"),
        ["colour: Birch"],
    ),
    "several choices": (
        lambda: form("/FT /Ch /T (colour) /V [(Oak) (Ash)] /Opt [(Oak) (Ash)]"),
        ["colour: Oak, Ash"],
    ),
    "radio buttons": (lambda: radio("Express"), ["shipping: Express"]),
    "radio buttons by their states": (
        lambda: radio("Off", kid_state=True),
        ["shipping: Express"],
    ),
    "a field of a group": (nested_field, ["person.name: Ann Oak"]),
    "a field that is not drawn": (undrawn_field, ["total: 240 euros"]),
    "a field of the page alone": (field_of_the_page_alone, ["article: Oak shelf"]),
    "a field with an appearance alone": (
        drawn_in_its_appearance,
        ["article: Oak shelf"],
    ),
    "a value in a stream": (value_in_a_stream, ["wrong: It came with a crack"]),
    "a signature": (
        lambda: form("/FT /Sig /T (s) /V << /Type /Sig /Name (Ann Oak) >>"),
        ["s: signed (Ann Oak)"],
    ),
    "rich text alone": (
        lambda: form("/FT /Tx /T (note) /RV (<body><p>A crack &amp; more</p></body>)"),
        ["note: A crack & more"],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_values_of_a_form_are_read(name: str) -> None:
    make, lines = FORMS[name]
    file = extracted(make())
    for line in lines:
        assert line in file.text
    assert (file.unread, file.unread_pages) == ((), ())


def test_values_are_in_the_order_of_their_places_and_on_their_page() -> None:
    file = PdfFile()
    low = file.field(text_field("second", "two", "/Rect [50 100 90 120]"))
    high = file.field(text_field("first", "one", "/Rect [50 700 90 720]"))
    file.page("Page one", annotations=[low, high])
    third = file.field(text_field("third", "three"))
    file.page("Page two", annotations=[third])
    text = extracted(file).text
    places = [text.index(word) for word in ("first", "second", "Page two", "third")]
    assert places == sorted(places)


def test_an_empty_field_and_a_button_say_nothing() -> None:
    file = form(
        text_field("article", ""), "/FT /Btn /Ff 65536 /T (send)", "/FT /Sig /T (s)"
    )
    assert extracted(file).text.split() == ["Complaint", "form"]


def test_a_value_that_the_page_draws_too_is_there_once() -> None:
    value = "It came with a crack in the middle"
    file = PdfFile()
    widget = file.field(text_field("wrong", value))
    file.page("Complaint form", value, annotations=[widget])
    assert extracted(file).text.count("crack") == 1


def test_a_password_is_not_repeated() -> None:
    file = extracted(form(text_field("pin", "4711", "/Ff 8192")))
    assert "4711" not in file.text
    assert file.unread == ("the password in pin",)


XFA = (
    b"<xdp><x:datasets xmlns:x='http://www.xfa.org/schema/xfa-data/1.0/'><x:data><form>"
    b"<article>Oak shelf</article><wrong/></form></x:data></x:datasets></xdp>"
)


@pytest.mark.parametrize("fields", [[], ["/FT /Tx /T (article)"]])
@pytest.mark.parametrize("data", [XFA, b"<xdp/>"])
def test_an_xfa_form_is_named(fields: list[str], data: bytes) -> None:
    """Its values are read, too; what they belong to is in the form alone."""
    file = PdfFile()
    form_data = file.add("", data)
    file.form_entries = f"/XFA [(template) {form_data} 0 R]"
    file.catalog_entries = "/NeedsRendering true"
    widgets = [file.field(entries) for entries in fields]
    file.page("Please wait, this form needs another reader.", annotations=widgets)
    found = extracted(file)
    assert found.unread_pages == ("the XFA form is not read",)
    assert found.remedy == "print the form to a PDF"
    assert ("article: Oak shelf" in found.text) == (data == XFA)


def test_a_form_in_both_formats_is_read() -> None:
    file = form(text_field("article", "Oak shelf"))
    data = file.add("", XFA)
    file.form_entries = f"/XFA {data} 0 R"
    found = extracted(file)
    assert found.text.count("Oak shelf") == 1
    assert found.unread_pages == ()


def test_a_field_above_itself_is_read() -> None:
    file = PdfFile()
    field = file.field("")
    entries = "/Subtype /Widget /FT /Tx /T (article) /V (Oak)"
    file.replace(field, f"<< {entries} /Parent {field} 0 R /Kids [{field} 0 R] >>")
    file.page("Form", annotations=[field])
    assert "\n\narticle: Oak\n" in extracted(file).text


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_a_form_that_opens_without_a_password_is_read(algorithm: str) -> None:
    data = form(text_field("article", "Oak shelf")).data()
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt("", "owner", algorithm=algorithm)
    writer.write(file := io.BytesIO())
    found = extract(file.getvalue(), ".pdf")
    assert "article: Oak shelf" in found.text
    assert found.unread_pages == ()


def with_field(data: bytes) -> bytes:
    """The file with a filled field on its first page."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    field = DictionaryObject(
        {
            NameObject("/Subtype"): NameObject("/Widget"),
            NameObject("/FT"): NameObject("/Tx"),
            NameObject("/T"): TextStringObject("total"),
            NameObject("/V"): TextStringObject("240 euros"),
        }
    )
    reference = writer._add_object(field)
    writer.pages[0][NameObject("/Annots")] = ArrayObject([reference])
    writer.write(file := io.BytesIO())
    return file.getvalue()


def test_values_beside_tables_are_at_the_end_with_their_pages_number() -> None:
    """Pages in columns become tables, and then the text has no page ends."""
    writer = FPDF()
    for page in range(2):
        writer.add_page()
        writer.set_font("Helvetica", size=12)
        for row in range(6):
            for column in range(3):
                writer.text(30 + 60 * column, 40 + 10 * row, f"c{page}{row}{column}")
    plain = bytes(writer.output())
    text = extract(with_field(plain), ".pdf").text
    assert text == f"{converted(plain)}\n\nPage 1:\ntotal: 240 euros"
    assert "| c000" in text


# ---- comments -----------------------------------------------------------------------------------

COMMENTS = {
    "free text": ("/Subtype /FreeText /Contents (Not agreed)", "Comment: Not agreed"),
    "a sticky note": (
        "/Subtype /Text /Contents (Not agreed) /T (Ann)",
        "Comment by Ann: Not agreed",
    ),
    "a marked passage": (
        "/Subtype /Highlight /Contents (Not agreed)",
        "Comment: Not agreed",
    ),
    "struck out": ("/Subtype /StrikeOut /Contents (800)", "Comment: 800"),
    "rich text": ("/Subtype /FreeText /RC (<p>Not <b>agreed</b></p>)", "Not  agreed"),
    "a stamp": ("/Subtype /Stamp /Name /Approved", "Stamp: Approved"),
    "a box over text": ("/Subtype /Redact /OverlayText (Gone)", "Comment: Gone"),
    "a drawn comment": ("/Subtype /Ink /Contents (No!)", "Comment: No!"),
}


@pytest.mark.parametrize("name", COMMENTS)
def test_comments_are_read(name: str) -> None:
    entries, line = COMMENTS[name]
    file = PdfFile()
    file.page("Contract", annotations=[file.annotation(entries)])
    file.page("Page two")
    found = extracted(file)
    assert line in found.text
    assert found.text.index(line) < found.text.index("Page two")
    assert found.unread == ()


@pytest.mark.parametrize(
    ("entries", "unread"),
    [
        ("/Subtype /Ink", "handwriting on page 1"),
        ("/Subtype /Stamp", "a stamp on page 1"),
        ("/Subtype /Sound", "a sound on page 1"),
        ("/Subtype /RichMedia", "a film on page 1"),
        ("/Subtype /Link /Contents (to page 2)", None),
        ("/Subtype /Highlight", None),
    ],
)
def test_annotations_without_words_are_listed(entries: str, unread: str | None) -> None:
    file = PdfFile()
    file.page("Contract", annotations=[file.annotation(entries)])
    found = extracted(file)
    assert found.unread == ((unread,) if unread else ())
    assert found.text.split() == ["Contract"]


# ---- attached files -----------------------------------------------------------------------------


def test_a_cover_of_attached_files_waits(tmp_path: Path) -> None:
    file = PdfFile()
    file.page("For the best experience, open this PDF portfolio in Acrobat.")
    file.attach("Brief März.txt")
    file.attach("b.pdf")
    (tmp_path / "a.pdf").write_bytes(file.data())
    document = read(tmp_path)["a.pdf"]
    assert reason(document) == (
        "the attached files are not read: Brief März.txt, b.pdf: save the attached files as files "
        'of their own, or set incomplete = "accept" in [tool.tierwise] of pyproject.toml'
    )
    assert document.metadata["attachments"] == "Brief März.txt, b.pdf"


def attached_to_a_comment() -> PdfFile:
    file = PdfFile()
    spec = file.add("<< /Type /Filespec /F (plan.dwg) >>")
    file.page(
        *[PROSE] * 4,
        annotations=[file.annotation(f"/Subtype /FileAttachment /FS {spec} 0 R")],
    )
    return file


def attached_to_the_file() -> PdfFile:
    file = PdfFile()
    file.page(*[PROSE] * 4)
    file.attach("plan.dwg")
    return file


def associated() -> PdfFile:
    file = PdfFile()
    file.page(*[PROSE] * 4)
    spec = file.add("<< /Type /Filespec /F (plan.dwg) >>")
    file.catalog_entries = f"/AF [{spec} 0 R]"
    return file


@pytest.mark.parametrize(
    "make", [attached_to_a_comment, attached_to_the_file, associated]
)
def test_attached_files_of_a_letter_are_named(
    tmp_path: Path, make: Callable[[], PdfFile]
) -> None:
    (tmp_path / "a.pdf").write_bytes(make().data())
    document = read(tmp_path)["a.pdf"]
    assert document.outcomes == {}
    assert document.metadata["incomplete"] == "the attached files plan.dwg"
    assert document.metadata["attachments"] == "plan.dwg"


def test_a_portfolio_waits_whatever_its_cover_says() -> None:
    file = attached_to_the_file()
    file.catalog_entries = "/Collection << /Type /Collection >>"
    assert extracted(file).unread_pages == (
        "the attached files are not read: plan.dwg",
    )


# ---- pages --------------------------------------------------------------------------------------


def unknown_font(file: PdfFile) -> int:
    """A font with codes that mean no letters."""
    descriptor = file.add("<< /Type /FontDescriptor /FontName /ABC /Flags 4 >>")
    cid = file.add(
        f"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /ABC /FontDescriptor {descriptor} 0 R "
        "/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>"
    )
    return file.add(
        f"<< /Type /Font /Subtype /Type0 /BaseFont /ABC /Encoding /Identity-H "
        f"/DescendantFonts [{cid} 0 R] >>"
    )


def scan() -> PdfFile:
    file = PdfFile()
    file.page(PROSE)
    return file


def with_scan(*lines: str, **options: object) -> PdfFile:
    file = scan()
    file.image_page(*lines, **options)
    return file


def with_running_header() -> PdfFile:
    file = PdfFile()
    file.page("Case 4711 of the district court, section for trade", PROSE)
    for number in range(2):
        file.image_page(
            "Case 4711 of the district court, section for trade", seed=number
        )
    return file


def with_scan_in_strips() -> PdfFile:
    file = scan()
    strips = [
        (file.image(seed=number), (0, number * HEIGHT / 4, WIDTH, HEIGHT / 4))
        for number in range(4)
    ]
    file.page("Received 12 Nov 2026", images=strips)
    return file


def with_small_scan() -> PdfFile:
    """A receipt on an empty page."""
    file = scan()
    file.page(images=[(file.image(), (200, 300, 200, 300))])
    return file


def with_outlines() -> PdfFile:
    """Letters that are drawn as shapes."""
    file = scan()
    file.page(drawing="".join(f"{n} 5 m {n} 90 l 40 {n} l f\n" for n in range(200)))
    return file


def with_unknown_letters() -> PdfFile:
    file = scan()
    file.page("A secret page of letters", font=unknown_font(file))
    return file


def with_broken_page() -> PdfFile:
    """A page whose parser fails, as nobody knows how its content is packed."""
    file = scan()
    file.raw_page(b"BT /F1 12 Tf (Second) Tj ET", content_entries="/Filter /Unknown")
    file.page("Third page")
    return file


def with_lost_content() -> PdfFile:
    """A page whose content is no stream, as another program overwrote it."""
    file = scan()
    page = file.page("Second")
    file.replace(page, "<< /Type /Page /MediaBox [0 0 9 9] /Contents 99 0 R >>")
    file.page("Third page")
    return file


def with_cut_page() -> PdfFile:
    file = scan()
    lines = "".join(f"0 -9 Td (Line {n} of many) Tj\n" for n in range(300))
    content = zlib.compress(f"BT /F1 12 Tf 50 780 Td {lines} ET".encode())
    file.raw_page(content[: len(content) // 2], content_entries="/Filter /FlateDecode")
    return file


def with_missing_page() -> PdfFile:
    file = scan()
    page = file.page("Second")
    file.replace(page, "null")
    return file


PAGES: dict[str, tuple[Callable[[], PdfFile], str]] = {
    "no text": (with_scan, "page 2 of 2 has no text"),
    "a page number": (
        lambda: with_scan("Page 2 of 2"),
        "page 2 of 2 has no text",
    ),
    "a page number in words": (
        lambda: with_scan("Seite 2 von 2"),
        "page 2 of 2 has no text",
    ),
    "a running header": (with_running_header, "pages 2-3 of 3 have no text"),
    "a stamp": (
        lambda: with_scan("RECEIVED 12 Nov 2026, Dept. of Trade"),
        "page 2 of 2 is a picture with little text",
    ),
    "strips and a stamp": (
        with_scan_in_strips,
        "page 2 of 2 is a picture with little text",
    ),
    "on its side": (
        lambda: with_scan(entries="/Rotate 90"),
        "page 2 of 2 has no text",
    ),
    "a small picture": (with_small_scan, "page 2 of 2 has no text"),
    "outlines": (with_outlines, "page 2 of 2 has no text"),
    "unknown letters": (
        with_unknown_letters,
        "page 2 of 2 has fonts that do not say which letters they show",
    ),
    "a page that cannot be parsed": (with_broken_page, "page 2 of 3 cannot be read"),
    "a page without its content": (with_lost_content, "page 2 of 3 is cut off"),
    "a page that is cut off": (with_cut_page, "page 2 of 2 is cut off"),
    "a page that is not in the file": (
        with_missing_page,
        "1 of 2 pages are missing from the file",
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_pages_without_a_text_are_named_and_the_others_read(name: str) -> None:
    make, phrase = PAGES[name]
    found = extracted(make())
    assert found.unread_pages == (phrase,)
    assert "oak chairs" in found.text
    assert "(cid:" not in found.text


@pytest.mark.parametrize("make", [with_broken_page, with_lost_content])
def test_the_page_after_a_broken_one_is_read(make: Callable[[], PdfFile]) -> None:
    assert "Third page" in extracted(make()).text


def replaced_font(file: PdfFile) -> int:
    """A font that says of every letter that it is unknown."""
    letters = b"".join(b"<%02x> <fffd>\n" % code for code in range(33, 127))
    table = file.add(
        "",
        b"/CIDInit /ProcSet findresource begin begincmap\n1 begincodespacerange <00> <ff> "
        b"endcodespacerange\n94 beginbfchar\n" + letters + b"endbfchar\nendcmap",
    )
    return file.add(
        f"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode {table} 0 R >>"
    )


def private_font(file: PdfFile) -> int:
    """A font whose letters are of private use, as those of symbols are."""
    letters = b"".join(b"<%02x> <f0%02x>\n" % (c, c) for c in range(33, 127))
    table = file.add("", b"begincmap\n94 beginbfchar\n" + letters + b"endbfchar\n")
    return file.add(
        f"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode {table} 0 R >>"
    )


@pytest.mark.parametrize("font", [unknown_font, replaced_font, private_font])
def test_pages_in_fonts_without_letters_are_named(
    font: Callable[[PdfFile], int],
) -> None:
    file = scan()
    file.page("A secret page of letters", font=font(file))
    file.page(PROSE)
    assert extracted(file).unread_pages == (
        "page 2 of 3 has fonts that do not say which letters they show",
    )


def test_some_letters_without_meaning_are_listed() -> None:
    file = PdfFile()
    font = unknown_font(file)
    page = file.page(
        *[PROSE] * 8, drawing="BT /F2 9 Tf 50 50 Td (A secret passage, cut) Tj ET\n"
    )
    resources = f"/Font << /F1 {file.font} 0 R /F2 {font} 0 R >>"
    file.replace(
        page, file.content(page).replace(f"/Font << /F1 {file.font} 0 R >>", resources)
    )
    found = extracted(file)
    assert found.unread == ("letters on page 1 whose font does not say them",)
    assert found.unread_pages == ()


def with_hidden_layer() -> PdfFile:
    """A scan on which text recognition ran."""
    return with_scan("Total 240 euros", text_mode=3)


def with_blank_page() -> PdfFile:
    file = scan()
    file.page()
    file.page("Page 3")
    return file


def with_ruled_page() -> PdfFile:
    file = scan()
    file.page(drawing="0 0 m 90 90 l S\n" * 20)
    return file


def with_background() -> PdfFile:
    """Slides of few words on one picture."""
    file = PdfFile()
    picture = file.image()
    for title in ("Results of the year", "Costs of the year", "Questions"):
        file.page(title, images=[(picture, WHOLE_PAGE)])
    return file


def with_logo() -> PdfFile:
    file = PdfFile()
    file.page(PROSE, images=[(file.image(), (450, 750, 100, 60))])
    return file


def with_text_on_a_picture() -> PdfFile:
    file = PdfFile()
    file.page(PROSE, PROSE, images=[(file.image(), WHOLE_PAGE)])
    return file


def with_bullets() -> PdfFile:
    file = scan()
    file.page(
        drawing="BT /F1 9 Tf 50 50 Td (A list of some length with many words) Tj ET "
    )
    return file


@pytest.mark.parametrize(
    "make",
    [
        with_hidden_layer,
        with_blank_page,
        with_ruled_page,
        with_background,
        with_logo,
        with_text_on_a_picture,
        with_bullets,
    ],
)
def test_other_pages_are_no_false_alarm(make: Callable[[], PdfFile]) -> None:
    found = extracted(make())
    assert (found.unread_pages, found.unread) == ((), ())


def with_picture() -> PdfFile:
    file = PdfFile()
    file.page(PROSE, PROSE, images=[(file.image(), (50, 50, 500, 400))])
    return file


def with_title_page() -> PdfFile:
    """A photo on all of the page, and a title over it."""
    file = PdfFile()
    title = "BT /F1 36 Tf 50 600 Td (Annual report of 2025) Tj ET\n"
    file.image_page(drawing=title)
    file.page(PROSE)
    return file


@pytest.mark.parametrize("make", [with_picture, with_title_page])
def test_a_large_picture_beside_text_is_listed_and_does_not_wait(
    tmp_path: Path, make: Callable[[], PdfFile]
) -> None:
    file = make()
    (tmp_path / "a.pdf").write_bytes(file.data())
    document = read(tmp_path)["a.pdf"]
    assert document.outcomes == {}
    assert document.metadata["incomplete"] == "a picture on page 1"


TURNED = {
    "upwards": ("0 1 -1 0 300 100", "0 1 -1 0 320 100"),
    "downwards": ("0 -1 1 0 320 700", "0 -1 1 0 300 700"),
    "upside down": ("-1 0 0 -1 500 100", "-1 0 0 -1 500 120"),
}


def turned(first: str, second: str) -> str:
    return (
        f"BT /F1 12 Tf {first} Tm (Sideways words of a table) Tj ET\n"
        f"BT /F1 12 Tf {second} Tm (and a second line) Tj ET\n"
    )


@pytest.mark.parametrize("name", TURNED)
def test_pages_on_their_side_are_read(name: str) -> None:
    file = scan()
    file.page(drawing=turned(*TURNED[name]))
    found = extracted(file)
    assert "Sideways words of a table" in found.text
    assert "and a second line" in found.text
    assert found.unread_pages == ()


@pytest.mark.parametrize("name", ["upwards", "downwards"])
def test_words_on_their_side_are_read(name: str) -> None:
    file = PdfFile()
    file.page(PROSE, drawing=turned(*TURNED[name]))
    text = extracted(file).text
    assert "Turned text: Sideways words of a table / and a second line" in text
    assert PROSE in text


def test_a_scan_alone_cannot_be_read() -> None:
    file = PdfFile()
    file.image_page()
    with pytest.raises(DocumentError, match="may be a scan"):
        extracted(file)


def test_letters_that_are_unknown_on_every_page_are_an_error() -> None:
    file = PdfFile()
    file.page("A secret page of letters", font=unknown_font(file))
    with pytest.raises(DocumentError, match=r"no text found|do not say"):
        extracted(file)


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ([3], "page 3"),
        ([2, 3, 4], "pages 2-4"),
        ([1, 3, 4, 9], "pages 1, 3-4, 9"),
        ([5, 5, 4], "pages 4-5"),
    ],
)
def test_page_numbers_become_ranges(numbers: list[int], named: str) -> None:
    assert pages_named(numbers) == named


# ---- what does not change -----------------------------------------------------------------------


def converted(data: bytes) -> str:
    done = PdfConverter().convert(io.BytesIO(data), StreamInfo(extension=".pdf"))
    return str(done.markdown)


def long_text() -> bytes:
    writer = FPDF()
    writer.set_font("Helvetica", size=11)
    for number in range(3):
        writer.add_page()
        writer.multi_cell(0, 6, f"{number + 1}. {PROSE} " * 12)
    return bytes(writer.output())


@pytest.mark.parametrize("name", ["one line", "prose", "lease"])
def test_the_text_of_an_ordinary_file_is_markitdowns(name: str) -> None:
    data = {
        "one line": pdf("The invoice is due on Friday."),
        "prose": long_text(),
        "lease": (ROOT / "examples/contracts/warehouse-lease.pdf").read_bytes(),
    }[name]
    found = extract(data, ".pdf")
    assert found.text == converted(data)
    assert [page.page for page in found.pages] == list(range(1, found.page_total + 1))
    assert sum(len(page.words) for page in found.pages) == len(found.text.split())
    assert replace(found, pages=()) == Extracted(
        found.text, page_total=found.page_total
    )


# ---- anything -----------------------------------------------------------------------------------


def named_pages(phrases: tuple[str, ...]) -> set[int]:
    """The numbers of the pages that phrases name."""
    numbers: set[int] = set()
    for phrase in phrases:
        ranges = re.match(r"pages? ([\d, -]+?)(?: of| is|$)", phrase)
        for part in ranges[1].split(", ") if ranges else ():
            first, _, last = part.partition("-")
            numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def lost(made: Marked, found: Extracted) -> set[str]:
    """The markers that are neither in the text nor in what is listed."""
    missing = {
        marker
        for marker, page in made.pages.items()
        if marker not in found.text and page not in named_pages(found.unread_pages)
    }
    listed = " ".join((*found.unread, *found.unread_pages))
    for marker, name in made.parts.items():
        if marker not in found.text and not (name in listed and marker in listed):
            missing.add(marker)
    return missing


@settings(max_examples=40, deadline=None)
@given(marked_pdfs())
def test_every_part_is_in_the_text_or_in_the_list(made: Marked) -> None:
    assert lost(made, extracted(made.file)) == set()
