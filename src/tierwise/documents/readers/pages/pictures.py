"""Picture files: a photograph, a scanned page, a fax of several pages (TIFF)."""

from __future__ import annotations

from tierwise.documents.readers import time_limit
from tierwise.documents.readers.page_numbers import pages_named
from tierwise.documents.readers.pages.page_text import (
    PageText,
    describe_recognition,
    joined,
    page_text,
)
from tierwise.documents.readers.pages.recognizer import Recognizer, missing_remedy
from tierwise.documents.readers.pages.rendering import (
    MOST_PAGES,
    draw_frame,
    frames_of,
    opened_picture,
)
from tierwise.documents.readers.results import Extracted
from tierwise.errors import DocumentError

LOOK = "look at it, and write its text into a file"


def read_picture(data: bytes, recognizer: Recognizer | None = None) -> Extracted:
    """Return the text that is seen on a picture.

    Raises DocumentError where it has none, is damaged, or text recognition is not installed.
    """
    with opened_picture(data) as picture:
        if recognizer is None:
            raise DocumentError(f"it is a picture: {missing_remedy()}")
        total = frames_of(picture)
        is_animated = picture.format != "TIFF" and getattr(picture, "n_frames", 1) > 1
        read: list[PageText] = []
        damaged: list[int] = []
        empty: list[int] = []
        for number in range(1, min(total, MOST_PAGES) + 1):
            time_limit.start_page()
            image = draw_frame(picture, number)
            if image is None:
                damaged.append(number)
                continue
            page = page_text(recognizer.read(image), number)
            if page is None:
                empty.append(number)
            else:
                read.append(page)
    if not read and damaged:
        raise DocumentError("the picture is damaged; ask for a new copy")
    if not read:
        raise DocumentError(f"no words were found on the picture; {LOOK}")
    text, pages = joined(read)
    unread_pages = page_losses(read, empty, damaged, total)
    unread = [
        loss for page in read if page.is_legible and (loss := page.describe_losses())
    ]
    if is_animated:
        unread.append("the moving picture after its first frame")
    return Extracted(
        text,
        describe_recognition(pages),
        unread=tuple(unread),
        unread_pages=tuple(unread_pages),
        remedy=LOOK,
        pages=pages,
        page_total=min(total, MOST_PAGES),
    )


def page_losses(
    read: list[PageText], empty: list[int], damaged: list[int], total: int
) -> list[str]:
    """Say which pages are not in the text, or hardly."""
    losses = []
    guessed = [page.words.page for page in read if not page.is_legible]
    if guessed:
        losses.append(f"{pages_named(guessed)} hardly legible")
    if empty:
        losses.append(f"{pages_named(empty)} without any word that could be read")
    if damaged:
        losses.append(f"{pages_named(damaged)} damaged")
    if total > MOST_PAGES:
        losses.append(f"the pages after the first {MOST_PAGES} are not read")
    return losses
