"""PDF files made object by object, with the parts that fpdf2 does not write."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

WIDTH, HEIGHT = 595, 842
_FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def literal(text: str) -> str:
    """A text as a PDF string, in hexadecimal UTF-16."""
    data = b"\xfe\xff" + text.encode("utf-16-be")
    return f"<{data.hex()}>"


def shown(text: str) -> str:
    """A line of ASCII for a content stream."""
    for special in "\\()":
        text = text.replace(special, f"\\{special}")
    return f"({text})"


class PdfFile:
    """`file = PdfFile(); file.page("Hello"); file.image_page(); file.data()`."""

    def __init__(self) -> None:
        self._objects: list[bytes] = []
        self._catalog = self.add("")
        self._pages = self.add("")
        self._font = self.add(_FONT)
        self._kids: list[int] = []
        self._fields: list[int] = []
        self._files: list[tuple[str, int]] = []
        self.form_entries = ""
        self.catalog_entries = ""

    # ---- objects ------------------------------------------------------------------------------

    def add(self, content: str, stream: bytes | None = None) -> int:
        """Add an object, or the entries of a stream; its number."""
        data = content.encode("latin-1")
        if stream is not None:
            head = f"<< {content} /Length {len(stream)} >>\nstream\n"
            data = head.encode("latin-1") + stream + b"\nendstream"
        self._objects.append(data)
        return len(self._objects)

    def image(self, *, seed: int = 0, size: int = 10) -> int:
        """A picture; others with another seed."""
        raw = bytes((seed + place) % 256 for place in range(size * size))
        entries = (
            f"/Type /XObject /Subtype /Image /Width {size} /Height {size} "
            "/ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /FlateDecode"
        )
        return self.add(entries, zlib.compress(raw))

    def annotation(self, entries: str) -> int:
        return self.add(f"<< /Type /Annot {entries} >>")

    def field(self, entries: str, *, root: bool = True) -> int:
        """A field of the form, which is its own widget; draw it by `annotations=[…]` of a page."""
        number = self.add(f"<< /Type /Annot /Subtype /Widget {entries} >>")
        if root:
            self._fields.append(number)
        return number

    def group(self, entries: str) -> int:
        """A field of the form that is no widget, such as the parent of radio buttons."""
        number = self.add(f"<< {entries} >>")
        self._fields.append(number)
        return number

    def replace(self, number: int, content: str) -> None:
        self._objects[number - 1] = content.encode("latin-1")

    def attach(self, name: str, data: bytes = b"The real letter") -> None:
        embedded = self.add("/Type /EmbeddedFile", data)
        spec = f"<< /Type /Filespec /F {literal(name)} /UF {literal(name)} /EF << /F {embedded} 0 R >> >>"
        self._files.append((name, self.add(spec)))

    @property
    def font(self) -> int:
        """The number of the font of text."""
        return self._font

    def content(self, number: int) -> str:
        """An object as it is."""
        return self._objects[number - 1].decode("latin-1")

    @property
    def size(self) -> int:
        """The number of pages so far."""
        return len(self._kids)

    # ---- pages --------------------------------------------------------------------------------

    def page(
        self,
        *lines: str,
        images: Sequence[tuple[int, tuple[float, float, float, float]]] = (),
        annotations: Sequence[int] = (),
        drawing: str = "",
        text_mode: int = 0,
        entries: str = "",
        font: int | None = None,
        box: tuple[int, int] = (WIDTH, HEIGHT),
    ) -> int:
        """Add a page with lines of text, and images at (x, y, width, height); its object's number."""
        content = drawing
        for number, (x, y, width, height) in images:
            content += f"q {width} 0 0 {height} {x} {y} cm /I{number} Do Q\n"
        if lines:
            moved = " 0 -20 Td ".join(f"{shown(line)} Tj" for line in lines)
            content += f"BT {text_mode} Tr /F1 12 Tf 50 {box[1] - 60} Td {moved} ET\n"
        return self.raw_page(
            zlib.compress(content.encode("latin-1")),
            content_entries="/Filter /FlateDecode",
            images=[number for number, _ in images],
            annotations=annotations,
            entries=entries,
            font=font,
            box=box,
        )

    def raw_page(
        self,
        content: bytes,
        *,
        content_entries: str = "",
        images: Sequence[int] = (),
        annotations: Sequence[int] = (),
        entries: str = "",
        font: int | None = None,
        box: tuple[int, int] = (WIDTH, HEIGHT),
    ) -> int:
        """Add a page with this content stream."""
        stream = self.add(content_entries, content)
        objects = " ".join(f"/I{number} {number} 0 R" for number in images)
        resources = f"/Font << /F1 {font or self._font} 0 R >> /XObject << {objects} >>"
        named = " ".join(f"{number} 0 R" for number in annotations)
        page = self.add(
            f"<< /Type /Page /Parent {self._pages} 0 R /MediaBox [0 0 {box[0]} {box[1]}] "
            f"/Resources << {resources} >> /Contents {stream} 0 R /Annots [{named}] {entries} >>"
        )
        self._kids.append(page)
        return page

    def image_page(self, *lines: str, seed: int = 0, **options: object) -> int:
        """A scanned page: one picture on all of it, perhaps with a line of text."""
        picture = self.image(seed=seed)
        place = (0, 0, WIDTH, HEIGHT)
        return self.page(*lines, images=[(picture, place)], **options)  # type: ignore[arg-type]

    def data(self) -> bytes:
        """The file."""
        kids = " ".join(f"{number} 0 R" for number in self._kids)
        self.replace(
            self._pages, f"<< /Type /Pages /Kids [{kids}] /Count {len(self._kids)} >>"
        )
        entries = self.catalog_entries
        if self._fields or self.form_entries:
            fields = " ".join(f"{number} 0 R" for number in self._fields)
            entries += f" /AcroForm << /Fields [{fields}] {self.form_entries} >>"
        if self._files:
            names = " ".join(
                f"{literal(name)} {number} 0 R" for name, number in self._files
            )
            entries += f" /Names << /EmbeddedFiles << /Names [{names}] >> >>"
        self.replace(
            self._catalog, f"<< /Type /Catalog /Pages {self._pages} 0 R {entries} >>"
        )
        return assembled(self._objects)


def assembled(objects: Sequence[bytes]) -> bytes:
    """A PDF file of these objects, the first of them its catalog."""
    file = b"%PDF-1.7\n"
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    table += b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Root 1 0 R /Size %d >>\n" % (len(objects) + 1)
    return file + table + trailer + b"startxref\n%d\n%%%%EOF\n" % len(file)
