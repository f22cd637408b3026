"""What was read on a page becomes its text, with each word's place in it, and what is uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tierwise.documents.readers.page_numbers import pages_named
from tierwise.documents.readers.pages.reading_order import (
    Point,
    Quad,
    bounds,
    reading_order,
)
from tierwise.documents.readers.pages.recognizer import ReadLine, Recognized
from tierwise.records import PageWords, Word

# A line below the first is no text: dirt, a logo, a signature. Between both, it is uncertain.
_NO_TEXT = 0.5
_CERTAIN = 0.8
# A page below is hardly legible: it counts as a missing one.
_LEGIBLE = 0.7
_WIDE_GAP = 2.0  # heights of a line: the next cell of a table


@dataclass(frozen=True, slots=True)
class PageText:
    """The text of a page. `words` has the spans in it."""

    text: str = field(repr=False)
    words: PageWords
    lines: int
    uncertain: int  # lines of the text whose letters are uncertain
    left_out: int  # lines that are not in the text

    @property
    def is_legible(self) -> bool:
        """Return False where most of the page is a guess."""
        most = self.left_out + self.uncertain <= self.lines / 2
        return self.words.confidence >= _LEGIBLE and most

    def describe_losses(self) -> str:
        """Such as `page 2: 3 of 40 lines are uncertain`; empty when there is none."""
        found = self.uncertain + self.left_out
        if not found:
            return ""
        return f"page {self.words.page}: {found} of {self.lines} lines are uncertain"


def page_text(recognized: Recognized, page: int) -> PageText | None:
    """Return the text of a page; None where it has no words."""
    lines = [line for line in recognized.lines if line.confidence >= _NO_TEXT]
    if not lines:
        return None
    texts: list[str] = []
    words: list[Word] = []
    length = 0
    for row in reading_order([line.quad for line in lines]):
        previous: ReadLine | None = None
        if texts:
            texts.append("\n")
            length += 1
        for number in row:
            line = lines[number]
            gap = _gap(previous, line)
            text = " ".join(line.text.split())
            words += _words(line, text, length + len(gap), recognized)
            texts += [gap, text]
            length += len(gap) + len(text)
            previous = line
    text = "".join(texts)
    letters = sum(len(line.text) for line in lines)
    confidence = sum(line.confidence * len(line.text) for line in lines) / letters
    size = (recognized.width, recognized.height)
    if recognized.turn % 180:
        size = (recognized.height, recognized.width)
    return PageText(
        text,
        PageWords(
            page=page,
            width=size[0],
            height=size[1],
            start=0,
            end=len(text),
            words=tuple(words),
            confidence=round(confidence, 4),
            turn=recognized.turn,
        ),
        lines=len(recognized.lines),
        uncertain=sum(line.confidence < _CERTAIN for line in lines),
        left_out=len(recognized.lines) - len(lines),
    )


def _gap(previous: ReadLine | None, line: ReadLine) -> str:
    """Return the space between two lines of a row."""
    if previous is None:
        return ""
    before = bounds(previous.quad)
    box = bounds(line.quad)
    return "   " if box.left - before.right > _WIDE_GAP * box.height else " "


def _words(
    line: ReadLine, text: str, offset: int, recognized: Recognized
) -> list[Word]:
    """Return the words of a line; one for all of it where they are not placed."""
    words: list[Word] = []
    position = 0
    for each in line.words:
        start = text.find(each.text, position)
        if start < 0:
            words.clear()
            break
        position = start + len(each.text)
        words.append(
            Word(
                each.text,
                offset + start,
                offset + position,
                _box(each.quad, recognized),
                round(each.confidence, 4),
            )
        )
    if words:
        return words
    box = _box(line.quad, recognized)
    confidence = round(line.confidence, 4)
    return [Word(text, offset, offset + len(text), box, confidence)]


def _box(quad: Quad, recognized: Recognized) -> tuple[float, float, float, float]:
    """Return the box around a place, in shares of the page as it was before it was turned."""
    points: list[Point] = []
    for x, y in quad:
        across = min(max(x / recognized.width, 0.0), 1.0)
        down = min(max(y / recognized.height, 0.0), 1.0)
        points.append(_turned_back(across, down, recognized.turn))
    box = bounds(points)
    return (
        round(box.left, 4),
        round(box.top, 4),
        round(box.right, 4),
        round(box.bottom, 4),
    )


def _turned_back(across: float, down: float, turn: int) -> Point:
    """Return a point of a page that was turned clockwise, on the page as it was."""
    if turn == 90:
        return down, 1 - across
    if turn == 180:
        return 1 - across, 1 - down
    if turn == 270:
        return 1 - down, across
    return across, down


def describe_recognition(pages: Sequence[PageWords]) -> dict[str, str]:
    """Return the metadata of a document that was recognized: which pages, and how surely."""
    if not pages:
        return {}
    letters = sum(page.end - page.start for page in pages)
    certain = sum(page.confidence * (page.end - page.start) for page in pages)
    return {
        "ocr": pages_named([page.page for page in pages]),
        "ocr_confidence": f"{certain / max(letters, 1):.2f}",
    }


def joined(pages: Sequence[PageText]) -> tuple[str, tuple[PageWords, ...]]:
    """Return the pages of a picture file as one text, with a form feed after each but the last."""
    texts: list[str] = []
    words: list[PageWords] = []
    length = 0
    for page in pages:
        words.append(page.words.moved(length))
        texts.append(page.text)
        length += len(page.text) + len(PAGE_END)
    return PAGE_END.join(texts), tuple(words)


PAGE_END = "\f"
