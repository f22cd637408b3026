"""Pages as images for models that see: bounded, without what a camera noted, in one format."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from tierwise.documents.readers import time_limit
from tierwise.documents.readers.pages.rendering import (
    PICTURES,
    PdfPages,
    draw_frame,
    frames_of,
    opened_picture,
)
from tierwise.documents.readers.results import Extracted, Part
from tierwise.errors import DocumentError
from tierwise.policy.image_tokens import LARGEST_SIDE, SHOWN_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

MEDIA_TYPE = "image/jpeg"
_QUALITY = 85
SHOWABLE = (*PICTURES, ".pdf")


def show_pages(data: bytes, suffix: str, pages: int) -> Extracted:
    """Return the first N pages as images, each a part with its width and height.

    Raises DocumentError where a page cannot be drawn.
    """
    parts: list[Part] = []
    for number, image in enumerate(_drawn(data, suffix, pages), 1):
        if image is None:
            raise DocumentError(f"page {number} cannot be drawn; ask for a new copy")
        shown = _bounded(image)
        output = io.BytesIO()
        shown.save(output, "JPEG", quality=_QUALITY)
        size = {"width": str(shown.width), "height": str(shown.height)}
        parts.append(
            Part(key=str(number), extracted=Extracted("", size), data=output.getvalue())
        )
    return Extracted("", parts=tuple(parts), is_document=False)


def _drawn(data: bytes, suffix: str, pages: int) -> list[Image | None]:
    drawn: list[Image | None] = []
    if suffix == ".pdf":
        document = PdfPages(data)
        for number in range(1, min(pages, document.total) + 1):
            time_limit.start_page()
            drawn.append(document.draw(number, SHOWN_PIXELS))
        document.close()
        return drawn
    with opened_picture(data) as picture:
        for number in range(1, min(pages, frames_of(picture)) + 1):
            time_limit.start_page()
            drawn.append(draw_frame(picture, number, SHOWN_PIXELS))
    return drawn


def _bounded(image: Image) -> Image:
    """Return an image whose longer side is within the limit."""
    longer = max(image.size)
    if longer <= LARGEST_SIDE and image.width * image.height <= SHOWN_PIXELS:
        return image
    scale = min(
        LARGEST_SIDE / longer, (SHOWN_PIXELS / (image.width * image.height)) ** 0.5
    )
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size)
