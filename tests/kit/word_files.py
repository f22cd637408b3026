"""Word files made part by part, with the parts that python-docx does not write."""

from __future__ import annotations

import io
import zipfile
from xml.sax.saxutils import escape

_NAMESPACES = {
    "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "r": "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
    "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
    "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
    "pic": "http://schemas.openxmlformats.org/drawingml/2006/picture",
    "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
    "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
    "w14": "http://schemas.microsoft.com/office/word/2010/wordml",
    "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
    "dgm": "http://schemas.openxmlformats.org/drawingml/2006/diagram",
    "v": "urn:schemas-microsoft-com:vml",
    "o": "urn:schemas-microsoft-com:office:office",
}
_DECLARED = " ".join(f'xmlns:{name}="{uri}"' for name, uri in _NAMESPACES.items())
_TYPES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478"
    "9c6360f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
# the width and height of A4, and of a scan of it between margins, in the unit of pictures
PAGE = (7_560_310, 10_692_130)
SCAN = (5_731_510, 8_106_000)


def run(text: str) -> str:
    return f"<w:r><w:t xml:space='preserve'>{escape(text)}</w:t></w:r>"


def paragraph(*content: str) -> str:
    """A paragraph of texts, or of XML."""
    inside = [each if each.startswith("<") else run(each) for each in content]
    return f"<w:p>{''.join(inside)}</w:p>"


def drawn_box(*paragraphs: str) -> str:
    """A text box as new programs draw it."""
    return (
        "<w:drawing><wp:inline><a:graphic><a:graphicData><wps:wsp><wps:txbx><w:txbxContent>"
        f"{''.join(paragraphs)}</w:txbxContent></wps:txbx></wps:wsp></a:graphicData></a:graphic>"
        "</wp:inline></w:drawing>"
    )


def old_box(*paragraphs: str, shape: str = "rect") -> str:
    """A text box as old programs draw it."""
    return (
        f"<w:pict><v:{shape}><v:textbox><w:txbxContent>{''.join(paragraphs)}</w:txbxContent>"
        f"</v:textbox></v:{shape}></w:pict>"
    )


def both(choice: str, fallback: str | None) -> str:
    """A part in a version for new programs, and perhaps in one for old ones."""
    second = ""
    if fallback is not None:
        second = f"<mc:Fallback>{fallback}</mc:Fallback>"
    return (
        "<mc:AlternateContent><mc:Choice Requires='wps'>"
        f"{choice}</mc:Choice>{second}</mc:AlternateContent>"
    )


class WordFile:
    """`file = WordFile(); file.add(paragraph("Hello")); file.data()`."""

    def __init__(self) -> None:
        self._body: list[str] = []
        self._members: dict[str, bytes] = {}
        self._relations: list[str] = []

    def add(self, *xml: str) -> None:
        """Add elements to the body."""
        self._body += xml

    def part(self, name: str, kind: str, content: str | bytes) -> str:
        """Add a member that the document names; its relation's id."""
        data = content.encode() if isinstance(content, str) else content
        self._members[f"word/{name}"] = data
        number = f"rId{len(self._relations) + 1}"
        self._relations.append(
            f'<Relationship Id="{number}" Type="{_TYPES}/{kind}" Target="{name}"/>'
        )
        return number

    def xml_part(self, name: str, kind: str, element: str, content: str) -> str:
        """Add a member that is XML, with this root."""
        return self.part(name, kind, f"<{element} {_DECLARED}>{content}</{element}>")

    def picture(self, size: tuple[int, int]) -> str:
        """A picture of this size, in a run."""
        number = self.part(f"media/p{len(self._relations)}.png", "image", PIXEL)
        width, height = size
        return (
            f"<w:r><w:drawing><wp:inline><wp:extent cx='{width}' cy='{height}'/><a:graphic>"
            "<a:graphicData><pic:pic><pic:blipFill>"
            f"<a:blip r:embed='{number}'/></pic:blipFill></pic:pic></a:graphicData></a:graphic>"
            "</wp:inline></w:drawing></w:r>"
        )

    def document(self) -> bytes:
        """The XML of its main member."""
        body = "".join(self._body)
        return f"<w:document {_DECLARED}><w:body>{body}</w:body></w:document>".encode()

    def data(self, document: bytes | None = None) -> bytes:
        """The file, perhaps with another main member."""
        kinds = "".join(
            f'<Default Extension="{ending}" ContentType="{kind}"/>'
            for ending, kind in (
                ("xml", "application/xml"),
                ("png", "image/png"),
                ("rels", "application/vnd.openxmlformats-package.relationships+xml"),
            )
        )
        main = (
            '<Relationship Id="rId1" Target="word/document.xml" '
            f'Type="{_TYPES}/officeDocument"/>'
        )
        members = {
            "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">{kinds}</Types>',
            "_rels/.rels": _relationships(main),
            "word/_rels/document.xml.rels": _relationships("".join(self._relations)),
        }
        with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)
            archive.writestr("word/document.xml", document or self.document())
            for name, data in self._members.items():
                archive.writestr(name, data)
        return file.getvalue()


def everything() -> WordFile:
    """A file with many kinds of parts."""
    file = WordFile()
    inline = (
        "<w:fldSimple w:instr='MERGEFIELD n'>{}</w:fldSimple><w:moveTo>{}</w:moveTo>"
    )
    box = drawn_box(paragraph("in a box"))
    old = old_box(paragraph("in an old box"), shape="oval")
    file.add(
        paragraph("Dear ", inline.format(run("Ann"), run("Oak")), ","),
        paragraph(f"<w:r>{both(box, None)}</w:r><w:r>{box}</w:r><w:r>{old}</w:r>"),
        paragraph(file.picture(SCAN), "<w:r><w:commentReference w:id='1'/></w:r>"),
        f"<w:tbl><w:tr><w:sdt><w:sdtContent><w:tc>{paragraph('cell')}</w:tc>"
        "</w:sdtContent></w:sdt></w:tr></w:tbl>",
        "<w:sectPr><w:pgSz w:w='11906' w:h='16838'/></w:sectPr>",
    )
    comment = f"<w:comment w:id='1' w:author='Ann'>{paragraph('No')}</w:comment>"
    file.xml_part("comments.xml", "comments", "w:comments", comment)
    file.xml_part("header1.xml", "header", "w:hdr", paragraph("ACME"))
    imported = file.part("a.html", "aFChunk", "<p>imported</p>")
    file.add(f"<w:altChunk r:id='{imported}'/>")
    return file


def _relationships(inside: str) -> str:
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{inside}</Relationships>'
