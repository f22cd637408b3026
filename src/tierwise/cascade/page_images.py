"""The images of a document's pages, drawn from its file for a call and kept nowhere else."""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tierwise.cascade.job import Work
from tierwise.documents.readers import Request, Sandbox
from tierwise.documents.readers.archives import MOST_ARCHIVE_BYTES
from tierwise.documents.readers.pages.showing import MEDIA_TYPE
from tierwise.errors import DocumentError, PagesUnavailable
from tierwise.policy.catalog import Model
from tierwise.records import Message, PageFile, PageImage

# Documents whose images are kept for the next model of their route, or a repair.
_KEPT = 4


class PageImages:
    """Draws pages in a child process with limits, one document at a time."""

    def __init__(self) -> None:
        self._sandbox = Sandbox()
        self._kept: OrderedDict[PageFile, tuple[PageImage, ...]] = OrderedDict()
        self._drawing = asyncio.Lock()
        # The child ends with this object, whoever forgets it.
        weakref.finalize(self, self._sandbox.close)

    async def shown(
        self, work: Work, model: Model, messages: tuple[Message, ...]
    ) -> tuple[Message, ...]:
        """Return the messages with the document's pages at its question, for a model that sees.

        Raises PagesUnavailable where the file is gone or changed, or a page cannot be drawn.
        """
        file = work.document.page_file
        if not work.features.pages or not model.vision or file is None:
            return messages
        place = _question_at(work, messages)
        # The parts of a document that is split, and their results, are texts.
        if place is None:
            return messages
        async with self._drawing:
            images = self._kept.pop(file, None)
            if images is None:
                images = await asyncio.to_thread(self._draw, file, model.name)
            self._kept[file] = images
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        question = replace(messages[place], images=images)
        return (*messages[:place], question, *messages[place + 1 :])

    def _draw(self, file: PageFile, model: str) -> tuple[PageImage, ...]:
        path = Path(file.path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PagesUnavailable(
                f"its pages cannot be shown: {path.name}: {error.strerror}", model=model
            ) from error
        try:
            suffix, data = self._innermost(path.suffix.lower(), data, file.inside)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise PagesUnavailable(
                    f"its pages cannot be shown: {path.name} has changed since it was read; "
                    "run again",
                    model=model,
                )
            request = Request(suffix, show=file.pages)
            parts = self._sandbox.extract(data, request).parts
        except DocumentError as error:
            raise PagesUnavailable(
                f"its pages cannot be shown: {error}", model=model
            ) from error
        images: list[PageImage] = []
        for part in parts:
            if part.data is not None and part.extracted is not None:
                size = part.extracted.metadata
                images.append(
                    PageImage(
                        hashlib.sha256(part.data).hexdigest(),
                        int(size["width"]),
                        int(size["height"]),
                        MEDIA_TYPE,
                        part.data,
                    )
                )
        return tuple(images)

    def _innermost(
        self, suffix: str, data: bytes, inside: tuple[str, ...]
    ) -> tuple[str, bytes]:
        """Return the ending and the bytes of a file in archives and e-mails.

        Empty bytes where it is no longer there. Raises DocumentError.
        """
        for key in inside:
            request = Request(suffix, max_bytes=MOST_ARCHIVE_BYTES)
            parts = self._sandbox.extract(data, request).parts
            found = [part for part in parts if part.key == key and part.data]
            if not found:
                return suffix, b""
            suffix = PurePosixPath(found[0].name).suffix.lower()
            data = found[0].data or b""
        return suffix, data


def _question_at(work: Work, messages: tuple[Message, ...]) -> int | None:
    """Return the place of the document's question among the messages."""
    if not work.question:
        return None
    asked = work.question[-1]
    for place in range(len(messages) - 1, -1, -1):
        if messages[place] == asked:
            return place
    return None


def image_tokens(model: Model, messages: tuple[Message, ...]) -> int:
    """Return the tokens of the images of some messages."""
    return sum(
        model.image_tokens_of(image.width, image.height)
        for message in messages
        for image in message.images
    )
