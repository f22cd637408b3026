"""A folder with every format, made by the library of each, with damaged and hostile variants."""

from __future__ import annotations

import datetime
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import docx
import openpyxl
import pypdf
import xlsxwriter
from lxml import etree
from odf import chart, draw, table, text
from odf.opendocument import OpenDocumentChart
from PIL import Image
from pptx.util import Inches

from tests.kit.formats import (
    attached_file,
    attached_message,
    container,
    message_tree,
    msg,
    odp,
    ods,
    odt,
    pptx_file,
    properties,
    with_members,
)
from tests.kit.mails import plain_compressed_rtf
from tests.kit.office_files import mail, pdf, word
from tests.kit.page_pictures import encoded, mixed_pdf, page

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
PASSWORD = OLE + bytes(500) + "EncryptedPackage".encode("utf-16-le")
LAMP = "The lamp of order 7 is late."
ROWS: list[list[Any]] = [["id", "text"], ["r1", "The lamp is late."], ["r2", "A chair"]]
XXE = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">'
    b'<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&f;&b;</x>'
)

# The files by their name: what makes the bytes, and by id what is read, or the words of a reason.
Makes = Callable[[], bytes]


def zipped(
    members: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return output.getvalue()


# --- spreadsheets --------------------------------------------------------------------------------


def sheets_of_everything() -> bytes:
    """Charts, a chart sheet, merged and hidden cells, dates, percentages, errors, comments."""
    output = io.BytesIO()
    book = xlsxwriter.Workbook(output, {"in_memory": True})
    data = book.add_worksheet("Data")
    day = book.add_format({"num_format": "d mmm yyyy"})
    percent = book.add_format({"num_format": "0.0%"})
    money = book.add_format({"num_format": "#,##0.00 [$€-407]"})
    data.write_row(0, 0, ["Month", "Sales"])
    for month in (1, 2):
        data.write_datetime(month, 0, datetime.datetime(2026, month, 1), day)
        data.write_number(month, 1, 1200.5 * month, money)
    data.write_number("B4", 0.125, percent)
    data.write_formula("B5", "=1/0", None, "#DIV/0!")
    data.write_formula("B6", '=WEBSERVICE("http://localhost:9/")', None, "saved")
    data.merge_range("A7:B7", "Merged")
    data.set_row(6, None, None, {"hidden": True})
    data.write_comment("A2", "Ask Ann")
    data.insert_textbox("D20", "A note in a box")
    data.set_footer("&CHouse of lamps &P of &N")
    series = {
        "name": "North",
        "categories": ["Data", 1, 0, 2, 0],
        "values": ["Data", 1, 1, 2, 1],
        "categories_data": ["May", "June"],
        "values_data": [240, 260],
    }
    columns = book.add_chart({"type": "column"})
    columns.add_series(series)
    columns.set_title({"name": "Lamps sold"})
    data.insert_chart("D2", columns)
    hidden = book.add_worksheet("Old")
    hidden.write(0, 0, "An old price")
    hidden.hide()
    pie = book.add_chart({"type": "pie"})
    pie.add_series(series)
    book.add_chartsheet("Share").set_chart(pie)
    book.close()
    return output.getvalue()


def wide_sheet() -> bytes:
    """A sheet that claims a million columns, with a cell in the last one that there can be."""
    book = openpyxl.Workbook()
    book.active.title = "S"
    book.active["A1"] = "text"
    book.active["A2"] = "Wide"
    book.active["XFD2"] = "the last cell"
    output = io.BytesIO()
    book.save(output)
    path = "xl/worksheets/sheet1.xml"
    xml = zipfile.ZipFile(output).read(path).replace(b"A1:XFD2", b"A1:ALZZZ1048576")
    return with_members(output.getvalue(), {path: xml})


def ods_with_chart() -> bytes:
    """A sheet with a chart that is an object of its own in the file."""

    def add(book: Any) -> None:
        figure = OpenDocumentChart()
        body = chart.Chart(attributes={"class": "chart:bar"})
        title = chart.Title()
        title.addElement(text.P(text="Lamps sold"))
        body.addElement(title)
        grid = table.Table(name="local-table")
        for names in (("", "North"), ("May", "240"), ("June", "260")):
            line = table.TableRow()
            for name in names:
                cell = table.TableCell(valuetype="string")
                cell.addElement(text.P(text=name))
                line.addElement(cell)
            grid.addElement(line)
        body.addElement(grid)
        figure.chart.addElement(body)
        place = book.addObject(figure)
        frame = draw.Frame(width="8cm", height="4cm")
        frame.addElement(draw.Object(href=place))
        cell = table.TableCell()
        cell.addElement(frame)
        line = table.TableRow()
        line.addElement(cell)
        book.spreadsheet.getElementsByType(table.Table)[0].addElement(line)

    return ods({"S": [["Month", "Sales"], ["May", 240]]}, add)


def wide_ods() -> bytes:
    data = ods({"S": [["text"], ["Wide"]]})
    xml = zipfile.ZipFile(io.BytesIO(data)).read("content.xml")
    cell = b'<table:table-cell table:number-columns-repeated="1000000"'
    return with_members(
        data, {"content.xml": xml.replace(b"<table:table-cell", cell, 1)}
    )


# --- slides and texts ----------------------------------------------------------------------------

_DIAGRAM = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def slides_of_everything() -> bytes:
    """Groups, a diagram, a newer chart in alternate content, comments, and a hidden slide."""

    def add(show: Any) -> None:
        slide = show.slides[0]
        group = slide.shapes.add_group_shape()
        inner = group.shapes.add_group_shape()
        inner.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "In two groups"
        diagram = related(
            slide,
            "/ppt/diagrams/data1.xml",
            "diagramData",
            f'<d:dataModel xmlns:d="{_DIAGRAM}" xmlns:a="{_DRAWING}"><d:ptLst>'
            "<d:pt><d:t><a:p><a:r><a:t>Or</a:t></a:r><a:r><a:t>der</a:t></a:r></a:p></d:t></d:pt>"
            "<d:pt><d:t><a:p><a:r><a:t>Pay</a:t></a:r></a:p></d:t></d:pt></d:ptLst></d:dataModel>",
        )
        slide.shapes._spTree.append(
            frame(f'<d:relIds xmlns:d="{_DIAGRAM}" r:dm="{diagram}"/>')
        )
        newer = related(
            slide,
            "/ppt/charts/chartEx1.xml",
            "chartEx",
            '<c:chartSpace xmlns:c="http://schemas.microsoft.com/office/drawing/2014/chartex">'
            '<c:chartData><c:data><c:strDim><c:lvl><c:pt idx="0">Start</c:pt></c:lvl></c:strDim>'
            '<c:numDim><c:lvl><c:pt idx="0">12</c:pt></c:lvl></c:numDim></c:data></c:chartData>'
            "</c:chartSpace>",
        )
        place = frame(
            '<c:chart xmlns:c="http://schemas.microsoft.com/office/drawing/2014/chartex" '
            f'r:id="{newer}"/>'
        )
        slide.shapes._spTree.append(alternate(place))
        related(
            slide,
            "/ppt/comments/modernComment_1.xml",
            "comments",
            '<p:cmLst xmlns:p="http://schemas.microsoft.com/office/powerpoint/2018/8/main" '
            f'xmlns:a="{_DRAWING}"><p:cm><p:txBody><a:p><a:r><a:t>Too lo</a:t></a:r>'
            "<a:r><a:t>ng</a:t></a:r></a:p></p:txBody></p:cm></p:cmLst>",
        )
        show.slides[1].element.set("show", "0")
        show.slides[1].shapes.add_textbox(
            Inches(1), Inches(1), 9, 9
        ).text_frame.text = "Not shown"

    return pptx_file(add)


def related(slide: Any, name: str, kind: str, xml: str) -> str:
    """Add a part to a slide; the id of their relation."""
    from pptx.opc.package import Part
    from pptx.opc.packuri import PackURI

    part = Part(PackURI(name), "application/xml", slide.part.package, xml.encode())
    return str(slide.part.relate_to(part, f"{_OFFICE}/{kind}"))


def frame(inside: str) -> Any:
    """A graphic frame, as python-pptx reads it."""
    from pptx.oxml import parse_xml

    return parse_xml(
        '<p:graphicFrame xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
        f'xmlns:a="{_DRAWING}" xmlns:r="{_OFFICE}"><p:nvGraphicFramePr><p:cNvPr id="90" name="x"/>'
        "<p:cNvGraphicFramePr/><p:nvPr/></p:nvGraphicFramePr><p:xfrm><a:off x='0' y='0'/>"
        "<a:ext cx='9' cy='9'/></p:xfrm><a:graphic><a:graphicData uri='x'>"
        f"{inside}</a:graphicData></a:graphic></p:graphicFrame>"
    )


def alternate(element: Any) -> Any:
    space = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    both = etree.Element(f"{{{space}}}AlternateContent", nsmap={"mc": space})
    etree.SubElement(both, f"{{{space}}}Choice").append(element)
    etree.SubElement(both, f"{{{space}}}Fallback")
    return both


def letter_in_word() -> bytes:
    document = docx.Document()
    document.add_heading("Offer", 1)
    document.add_paragraph("We deliver on Monday.")
    grid = document.add_table(1, 2)
    grid.cell(0, 0).text = "Lamp"
    grid.cell(0, 1).text = "12 EUR"
    output = io.BytesIO()
    document.save(output)
    return output.getvalue()


def word_with_remote_template() -> bytes:
    """A file that names a template elsewhere, as attackers do."""
    relations = (
        b'<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/'
        b'2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/'
        b'officeDocument/2006/relationships/attachedTemplate" Target="http://localhost:9/x.dotm" '
        b'TargetMode="External"/></Relationships>'
    )
    return word(added={"word/_rels/settings.xml.rels": relations})


def remote_picture(document: Any) -> None:
    frame = draw.Frame(width="2cm", height="1cm")
    frame.addElement(draw.Image(href="http://localhost:9/x.png", type="simple"))
    paragraph = text.P()
    paragraph.addElement(frame)
    document.text.addElement(paragraph)


# --- messages ------------------------------------------------------------------------------------


def mail_with_files() -> bytes:
    message = mail(LAMP)
    message.add_attachment(
        xlsxwritten(ROWS), "application", "octet-stream", filename="rows.xlsx"
    )
    message.add_attachment(
        pdf("The invoice of May"), "application", "pdf", filename="../../invoice.pdf"
    )
    message.add_attachment(b"MZ", "application", "octet-stream", filename="run.exe")
    return bytes(message)


def xlsxwritten(rows: list[list[Any]]) -> bytes:
    output = io.BytesIO()
    book = xlsxwriter.Workbook(output, {"in_memory": True})
    sheet = book.add_worksheet("S")
    for number, row in enumerate(rows):
        sheet.write_row(number, 0, row)
    book.close()
    return output.getvalue()


def mails_in_mails(depth: int) -> bytes:
    """A mail in an archive in a mail, and so on."""
    data = bytes(mail("The innermost letter"))
    for _ in range(depth):
        outer = EmailMessage()
        outer["Subject"] = "Again"
        outer.set_content("See the archive.")
        outer.add_attachment(
            zipped({"m.eml": data}), "application", "zip", filename="a.zip"
        )
        data = bytes(outer)
    return data


def outlook_with_everything() -> bytes:
    """A code page's text, a file, and a message in it with a file of its own."""
    inner = message_tree(
        "Inner", "An older letter.", attachments=[attached_file("old.txt", b"Older.")]
    )
    return msg(
        subject="Größe",
        body="Wo ist die Lampe?",
        attachments=[
            attached_file("torn.txt", b"It is torn."),
            attached_message(inner),
        ],
    )


def outlook(entries: dict[str, bytes], code_page: int = 0) -> bytes:
    """A message that has no Unicode, as those of old Outlooks."""
    values = [(0x3FFD, 0x0003, code_page)] if code_page else []
    tree = {"__properties_version1.0": properties(values, 32), **entries}
    return container(dict(tree))


def cyclic_message() -> bytes:
    """A message whose attachment has the whole file as its folder."""
    data = bytearray(msg(attachments=[attached_file("a.txt", b"x")]))
    name = "__attach_version1.0_#00000000".encode("utf-16-le")
    entry = data.index(name)
    struct.pack_into("<I", data, entry + 76, 0)
    return bytes(data)


RTF_OF_HTML = (
    rb"{\rtf1\ansi\ansicpg1252\fromhtml1 {\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 "
    rb"From an HTML letter\htmlrtf }\htmlrtf0 {\*\htmltag72 </p>}}"
)


# --- pages ---------------------------------------------------------------------------------------


def claiming_png(side: int) -> bytes:
    """A PNG of a few bytes that claims so many dots."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1_000_000)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def fax() -> bytes:
    pages = [page(words, size=(700, 200)) for words in ("First page", "Second page")]
    return encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])


def scan() -> bytes:
    """A PDF that is a picture."""
    output = io.BytesIO()
    page("Paid in cash", size=(700, 300)).save(output, "PDF")
    return output.getvalue()


def locked_pdf() -> bytes:
    writer = pypdf.PdfWriter(io.BytesIO(pdf("secret")))
    writer.encrypt("secret", "owner", algorithm="AES-256")
    output = io.BytesIO()
    writer.write(output)
    return output.getvalue()


def small(kind: str) -> bytes:
    return encoded(page("Invoice 4711", size=(600, 140)).convert("RGB"), kind)


# --- archives ------------------------------------------------------------------------------------


def archive_of_all() -> bytes:
    inner = zipped({"deep.txt": "The deep letter"})
    return zipped(
        {
            "letters/a.txt": LAMP,
            "inner.zip": inner,
            "../out.txt": "Leads out",
            "/etc/passwd.txt": "Leads out, too",
            "bomb.txt": bytes(30_000_000),
            "old.xls": OLE,
            "__MACOSX/a.txt": "of another program",
        }
    )


def archive_in_archives(depth: int) -> bytes:
    data = zipped({"deep.txt": "too deep"})
    for _ in range(depth):
        data = zipped({"a.zip": data})
    return data


def deep(kind: str) -> bytes:
    if kind == "json":
        return b"[" * 200_000 + b"]" * 200_000
    if kind == "html":
        return b"<div>" * 20_000 + b"Deep words"
    return b"<a>" * 100_000 + b"x" + b"</a>" * 100_000


def nested_json() -> bytes:
    orders = [
        {"id": 7, "text": LAMP, "by": {"name": "Ann"}},
        {"id": 8, "text": "Chair"},
    ]
    return json.dumps({"data": {"orders": orders}}).encode()


def small_picture() -> Image.Image:
    return page("Total 98.50", size=(500, 140))


FILES: dict[str, Makes] = {
    # texts and tables
    "text.txt": LAMP.encode,
    "text.md": lambda: b"---\ntopic: lamps\n---\n# Lamps\n",
    "text.csv": lambda: b"id;text\nr1;The lamp is late.\nr2;=1+1\n",
    "text.jsonl": lambda: b'{"id": "r1", "text": "The lamp is late."}\n{"id": "r2"}\n',
    "nested.json": nested_json,
    "orders.xml": lambda: (
        b'<o><r id="r1"><text>One</text></r><r id="r2"><text>Two</text></r></o>'
    ),
    "page.html": lambda: b"<p>Hello <b>Ann</b><script>alert(1)</script>",
    "remote.html": lambda: (
        b'<p>Hi</p><img src="http://localhost:9/"><iframe src="file:///x">'
    ),
    "odd\u202etxt.txt": lambda: b"An odd name",
    "no ending": lambda: b"x",
    "empty.txt": lambda: b"",
    "blank.txt": lambda: b" \n\t\n",
    "binary.txt": lambda: bytes(range(256)) * 4,
    "cut.json": lambda: nested_json()[:40],
    "deep.json": lambda: deep("json"),
    "deep.html": lambda: deep("html"),
    "deep.xml": lambda: deep("xml"),
    "xxe.xml": lambda: XXE,
    "xxe16.xml": lambda: (
        XXE.decode().replace('"1.0"', '"1.0" encoding="utf-16"').encode("utf-16")
    ),
    # spreadsheets
    "rows.xlsx": lambda: xlsxwritten(ROWS),
    "all.xlsx": sheets_of_everything,
    "wide.xlsx": wide_sheet,
    "macro.xlsm": lambda: with_members(
        xlsxwritten(ROWS), {"xl/vbaProject.bin": b"Sub AutoOpen() secret"}
    ),
    "rows.ods": lambda: ods({"S": ROWS}),
    "chart.ods": ods_with_chart,
    "wide.ods": wide_ods,
    "locked.xlsx": lambda: PASSWORD,
    "cut.xlsx": lambda: xlsxwritten(ROWS)[:2000],
    "word.xlsx": word,
    "xxe.xlsx": lambda: with_members(xlsxwritten(ROWS), {"xl/sharedStrings.xml": XXE}),
    "bomb.xlsx": lambda: with_members(
        xlsxwritten(ROWS), {"xl/x.xml": bytes(60_000_000)}
    ),
    "old.xls": lambda: OLE,
    "xxe.ods": lambda: with_members(ods({"S": ROWS}), {"content.xml": XXE}),
    # slides
    "all.pptx": slides_of_everything,
    "slides.odp": lambda: odp("Lamps", "Chairs"),
    "locked.pptx": lambda: PASSWORD,
    "cut.pptx": lambda: pptx_file()[:5000],
    "word.pptx": word,
    "old.ppt": lambda: OLE,
    # letters
    "letter.docx": letter_in_word,
    "remote.docx": word_with_remote_template,
    "letter.odt": lambda: odt("We deliver on Monday."),
    "letter.rtf": lambda: rb"{\rtf1\ansi Dear Ann\par See you}",
    "locked.docx": lambda: PASSWORD,
    "cut.docx": lambda: word()[:900],
    "xxe.docx": lambda: with_members(word(), {"word/document.xml": XXE}),
    "macro.docm": lambda: word(added={"word/vbaProject.bin": b"Sub AutoOpen() secret"}),
    "remote.odt": lambda: odt("A letter", change=remote_picture),
    "slides.odt": lambda: odp("x"),
    "text.rtf": lambda: b"plain words",
    # messages
    "files.eml": mail_with_files,
    "deep.eml": lambda: mails_in_mails(3),
    "all.msg": outlook_with_everything,
    "page.msg": lambda: outlook(
        {
            "__substg1.0_0037001E": "Лампа".encode("cp1251"),
            "__substg1.0_1000001E": "Где моя лампа?".encode("cp1251"),
        },
        1251,
    ),
    "html.msg": lambda: msg(
        body="", more={"__substg1.0_10130102": b"<p>From HTML</p>"}
    ),
    "rtf.msg": lambda: msg(
        body="",
        more={"__substg1.0_10090102": plain_compressed_rtf(rb"{\rtf1 From RTF}")},
    ),
    "encapsulated.msg": lambda: msg(
        body="", more={"__substg1.0_10090102": plain_compressed_rtf(RTF_OF_HTML)}
    ),
    "cyclic.msg": cyclic_message,
    "cut.msg": lambda: msg()[:1500],
    "text.msg": lambda: b"no message",
    "locked.msg": lambda: msg(
        more={"__substg1.0_001A001F": "IPM.Note.SMIME".encode("utf-16-le")},
        attachments=[attached_file("smime.p7m", b"\x30\x80", "application/pkcs7-mime")],
    ),
    # pages
    "typed.pdf": lambda: pdf("The invoice of May"),
    "scan.pdf": scan,
    "mixed.pdf": lambda: mixed_pdf("A typed letter", small_picture()),
    "photo.png": lambda: small("PNG"),
    "photo.jpg": lambda: small("JPEG"),
    "fax.tiff": fax,
    "blank.png": lambda: encoded(Image.new("L", (300, 300), 255), "PNG"),
    "bomb.png": lambda: claiming_png(40_000),
    "cut.png": lambda: small("PNG")[:300],
    "page.html.png": lambda: b"<p>Hello</p>",
    "locked.pdf": locked_pdf,
    "cut.pdf": lambda: pdf("x")[:200],
    "photo.heic": lambda: b"x",
    # archives
    "all.zip": archive_of_all,
    "deep.zip": lambda: archive_in_archives(6),
    "cut.zip": lambda: zipped({"a.txt": LAMP})[:40],
    "text.zip": lambda: b"no archive",
    "post.7z": lambda: b"7z",
}
