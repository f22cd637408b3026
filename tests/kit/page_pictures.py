"""Pages as pictures: lines of text, drawn by Pillow with the font that it ships."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from tests.kit.pdf_files import HEIGHT, WIDTH, PdfFile
from tierwise.documents.readers.pages.reading_order import Quad
from tierwise.documents.readers.pages.recognizer import ReadLine, Recognized

Box = tuple[float, float, float, float]


def page(
    *lines: str, size: tuple[int, int] = (900, 500), letters: int = 34
) -> Image.Image:
    """A white page with lines of text."""
    image = Image.new("L", size, 255)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(letters)
    for number, line in enumerate(lines):
        draw.text((40, 40 + number * letters * 2), line, font=font, fill=0)
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as the bytes of a file, such as those of a PNG."""
    output = io.BytesIO()
    image.save(output, kind, **options)
    return output.getvalue()


def mixed_pdf(text: str, image: Image.Image) -> bytes:
    """A PDF whose first page has text in letters, and whose second is a picture."""
    file = PdfFile()
    file.page(text)
    entries = (
        f"/Type /XObject /Subtype /Image /Width {image.width} /Height {image.height} "
        "/ColorSpace /DeviceGray /BitsPerComponent 8"
    )
    picture = file.add(entries, image.convert("L").tobytes())
    height = WIDTH * image.height / image.width
    file.page(images=[(picture, (0, HEIGHT - height, WIDTH, height))])
    return file.data()


def quad(left: float, top: float, right: float, bottom: float) -> Quad:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def line(text: str, box: Box, confidence: float = 0.99) -> ReadLine:
    return ReadLine(text, quad(*box), confidence)


class CannedRecognizer:
    """A recognizer that gives each picture the next of these lines."""

    def __init__(self, *pages: Sequence[ReadLine]) -> None:
        self._pages = list(pages)
        self.sizes: list[tuple[int, int]] = []

    def read(self, image: Image.Image) -> Recognized:
        self.sizes.append(image.size)
        lines = self._pages.pop(0) if self._pages else ()
        return Recognized(0, image.width, image.height, tuple(lines))
