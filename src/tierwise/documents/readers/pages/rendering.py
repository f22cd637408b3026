"""Pages as bitmaps: the only door to Pillow and, with `text_layer`, to pdfium.

Sizes are limited before decoding. A page of a PDF is drawn as people see it, with its turn. A
picture is turned as its camera noted, laid on white, and stretched where its dots are not square,
as those of a fax are not.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tierwise.errors import DocumentError

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MOST_PAGES = 100
MOST_PIXELS = 100_000_000  # of a picture as it is: more are a decompression bomb
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# What is drawn: a page of A4 at 180 dots an inch.
READING_PIXELS = 3_200_000
LARGEST_SIDE = 4000
_DPI = 200  # a small page is not drawn larger
_POINTS = 72  # an inch
_STRETCHED = 1.2  # dots that are this much longer one way
_ORIENTATION = 0x0112  # as the camera was held
_ON_THEIR_SIDE = (5, 6, 7, 8)


class PdfPages:
    """The pages of a PDF file, drawn one at a time."""

    def __init__(self, data: bytes) -> None:
        import pypdfium2

        try:
            self._document = pypdfium2.PdfDocument(data)
            self.total = len(self._document)
        except pypdfium2.PdfiumError as error:
            raise DocumentError(
                "its pages cannot be drawn; ask for a new copy"
            ) from error

    def draw(self, number: int, pixels: int = READING_PIXELS) -> Image | None:
        """Draw a page, counted from 1; None where it cannot be drawn."""
        import pypdfium2

        try:
            page = self._document[number - 1]
            try:
                width, height = page.get_size()
                scale = _scale(width, height, pixels)
                if scale is None:
                    return None
                bitmap = page.render(scale=scale)
                image: Image = bitmap.to_pil().convert("RGB")
                bitmap.close()
                return image
            finally:
                page.close()
        except (pypdfium2.PdfiumError, IndexError):
            return None

    def close(self) -> None:
        """Free the file's memory."""
        self._document.close()


def _scale(width: float, height: float, pixels: int) -> float | None:
    """Return the pixels a point; None for a page of no size."""
    if not (width > 0 and height > 0 and math.isfinite(width * height)):
        return None
    by_area = math.sqrt(pixels / (width * height))
    by_side = LARGEST_SIDE / max(width, height)
    scale = min(_DPI / _POINTS, by_area, by_side)
    if min(width, height) * scale < 1:
        return None
    return scale


@contextmanager
def opened_picture(data: bytes) -> Iterator[Any]:
    """Open a picture without decoding it. Raises DocumentError where it is none, or is too large."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the limit is here
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DocumentError(
            "it is no picture, or a damaged one; save it again as .png or .jpg"
        ) from error
    with picture:
        _check_size(picture)
        yield picture


def frames_of(picture: Any) -> int:
    """Return the number of a picture file's pages; no more are counted than one over the limit."""
    if picture.format != "TIFF":
        return 1
    for number in range(1, MOST_PAGES + 1):
        try:
            picture.seek(number)
        except EOFError:
            picture.seek(0)
            return number
    picture.seek(0)
    return MOST_PAGES + 1


def draw_frame(picture: Any, number: int, pixels: int = READING_PIXELS) -> Image | None:
    """Return a page of a picture file, counted from 1; None where it is damaged."""
    from PIL import ImageOps

    try:
        picture.seek(number - 1)
        _check_size(picture)
        size = _drawn_size(picture, pixels)
        # JPEG is decoded at a lower size; others do not know it.
        picture.draft("RGB", size)
        image = _on_white(picture)
        if picture.getexif().get(_ORIENTATION) in _ON_THEIR_SIDE:
            size = (size[1], size[0])
        image = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError):
        return None
    if image.size == size:
        return image
    from PIL.Image import Resampling

    return image.resize(size, Resampling.LANCZOS)


def _drawn_size(picture: Any, pixels: int) -> tuple[int, int]:
    """Return the size to draw a picture at."""
    width, height = map(float, picture.size)
    across, down = _dots(picture)
    if across > down * _STRETCHED:
        height *= across / down
    elif down > across * _STRETCHED:
        width *= down / across
    scale = min(
        1.0, math.sqrt(pixels / (width * height)), LARGEST_SIDE / max(width, height)
    )
    return max(1, round(width * scale)), max(1, round(height * scale))


def _dots(picture: Any) -> tuple[float, float]:
    """Return the dots an inch, across and down; square ones where nothing sensible is noted."""
    try:
        across, down = (float(each) for each in picture.info.get("dpi", (1, 1)))
    except (TypeError, ValueError, ZeroDivisionError):
        return 1.0, 1.0
    is_sensible = across > 0 and down > 0 and 0.25 <= across / down <= 4
    return (across, down) if is_sensible else (1.0, 1.0)


def _on_white(picture: Any) -> Image:
    """Return a picture in colours, without its transparency."""
    from PIL import Image

    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        white.alpha_composite(layer)
        return white.convert("RGB")
    if picture.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        # 16 bits a dot: Pillow would cut off instead of scaling
        return _scaled_to_bytes(picture)
    image: Image.Image = picture.convert("RGB")
    return image


def _scaled_to_bytes(picture: Any) -> Image:
    import numpy as np
    from PIL import Image

    values = np.asarray(picture, dtype=np.float64)
    low = float(values.min())
    span = float(values.max()) - low or 1.0
    scaled = ((values - low) * (255 / span)).astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")


def _check_size(picture: Any) -> None:
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise DocumentError(
            f"it has {width:,} by {height:,} dots, more than the limit of {MOST_PIXELS:,} in "
            "all; save it smaller"
        )
    if width < 1 or height < 1:
        raise DocumentError("the picture is empty; ask for a new copy")
