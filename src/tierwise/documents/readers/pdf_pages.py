"""What is drawn on the pages of a PDF: which of them have text, and which only look as if.

A page counts as unread when something is drawn on it and its text layer does not say what:

- it has no text of its own, and a picture of at least a twentieth of the page, or hundreds of
  drawn lines (letters as shapes, a plan);
- a picture covers most of it, and its own text is short, such as a header or a stamp, and not the
  large letters of a title;
- most of its letters are in fonts that do not say which letters they show;
- it cannot be parsed, or its content is cut off.

Not of its own are lines that other pages have too, but for digits, and page numbers. A picture that
lies behind different texts on several pages is a background. Text over a picture, visible or not,
is its text layer. A page with nothing on it is blank, and not missing.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pdfminer.pdfdevice import PDFTextDevice
from pdfminer.pdfdocument import PDFDocument
from pdfminer.pdffont import PDFFont, PDFUnicodeNotDefined
from pdfminer.pdfinterp import PDFPageInterpreter, PDFResourceManager
from pdfminer.pdfpage import PDFPage
from pdfminer.pdftypes import PDFStream, dict_value, resolve1
from pdfminer.utils import MATRIX_IDENTITY, Matrix, apply_matrix_pt

from tierwise.documents.readers.page_numbers import (
    is_page_number,
    line_key,
    pages_named,
)

_SHORT_TEXT = 100  # letters: a header, a stamp, a caption
_TITLE_SIZE = 24  # points
_TITLE_LETTERS = 15
_FEW_LETTERS = 20  # over a picture; fewer are no text layer of it
_MANY_SHAPES = 300  # segments of drawn lines: more than a frame or a logo has
# shares of the page
_SMALL = 0.05
_LARGE = 0.25
_MOST = 0.7
_UNKNOWN = "\ufffd"
_INVISIBLE = 3  # the text rendering mode of a hidden text layer
_PIECE_BYTES = 1 << 20


_Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter: where it begins and ends, with its text turned upright."""

    x: float
    y: float
    end: float
    size: float
    text: str
    # whether a space was written before it
    after_space: bool
    # degrees clockwise that would make it upright
    turn: int
    # in a font that does not say which letter it is
    unknown: bool
    # where it begins, on the page as it is
    place: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on a page. `key` is the same for one picture on several pages."""

    key: object
    share: float  # of the page
    letters_over: int  # letters that are written over it


@dataclass(frozen=True, slots=True)
class Page:
    """What is drawn on one page."""

    number: int
    lines: tuple[str, ...] = ()  # as keys: without spaces, numbers replaced
    letters: int = 0
    unknown: int = 0  # letters whose fonts do not say which they are
    invisible: int = 0  # letters of a hidden text layer
    large: int = 0  # letters as large as a title's
    turn: int = 0  # degrees clockwise that make most of its letters upright
    turned_lines: tuple[str, ...] = ()  # those that are written in another direction
    pictures: tuple[Picture, ...] = ()
    shapes: int = 0  # segments of drawn lines
    failed: bool = False  # it cannot be parsed
    cut: bool = False  # the end of its content is lost

    @property
    def is_garbled(self) -> bool:
        """True if most of its letters are unknown."""
        return self.unknown > self.letters / 2


@dataclass(frozen=True, slots=True)
class Survey:
    """The pages of a file, and those that are not in its text."""

    pages: tuple[Page, ...]
    # with those that are missing from the file
    total: int
    # numbers of pages: without text of their own, pictures with little text, unknown letters
    silent: tuple[int, ...]
    with_little: tuple[int, ...]
    garbled: tuple[int, ...]
    # for these, get a new copy
    damaged: tuple[str, ...]
    # other parts
    parts: tuple[str, ...]

    @property
    def needs_own_text(self) -> bool:
        """True if a page has to be left out or turned."""
        return any(page.failed or page.is_garbled or page.turn for page in self.pages)

    @property
    def to_recognize(self) -> tuple[int, ...]:
        """The pages that text recognition can read."""
        return tuple(sorted([*self.silent, *self.with_little, *self.garbled]))

    def without_text(self, recognized: Collection[int] = ()) -> tuple[str, ...]:
        """Say which pages have no text in letters, but for those that were recognized."""
        of = f"of {self.total}"
        silent = [page for page in self.silent if page not in recognized]
        little = [page for page in self.with_little if page not in recognized]
        garbled = [page for page in self.garbled if page not in recognized]
        return (
            *_phrase(silent, f"{of} has no text", f"{of} have no text"),
            *_phrase(
                little,
                f"{of} is a picture with little text",
                f"{of} are pictures with little text",
            ),
            *_phrase(
                garbled,
                f"{of} has fonts that do not say which letters they show",
                f"{of} have fonts that do not say which letters they show",
            ),
        )


def survey(document: PDFDocument) -> Survey:
    """Look at every page."""
    pages = tuple(_pages(document))
    missing = _pages_declared(document) - len(pages)
    total = len(pages) + max(missing, 0)
    own = _own_letters(pages)
    background = _backgrounds(pages, own)
    silent = []
    with_little = []
    pictures = []
    for page in pages:
        seen = [each for each in page.pictures if each.key not in background]
        share = sum(each.share for each in seen)
        has_text = own[page.number] > 0
        if page.failed or page.is_garbled or (page.invisible and has_text):
            continue
        if not has_text:
            if share >= _SMALL or page.shapes >= _MANY_SHAPES:
                silent.append(page.number)
        elif share >= _MOST and own[page.number] < _SHORT_TEXT:
            if page.large >= _TITLE_LETTERS:
                pictures.append(page.number)
            else:
                with_little.append(page.number)
        elif any(_is_unread(each) for each in seen):
            pictures.append(page.number)
    failed = [page.number for page in pages if page.failed]
    cut = [page.number for page in pages if page.cut and not page.failed]
    garbled = [page.number for page in pages if page.is_garbled]
    unknown = [
        page.number for page in pages if page.unknown >= 10 and not page.is_garbled
    ]
    of = f"of {total}"
    damaged = [
        *_phrase(failed, f"{of} cannot be read", f"{of} cannot be read"),
        *_phrase(cut, f"{of} is cut off", f"{of} are cut off"),
    ]
    if missing > 0:
        damaged.append(f"{missing} {of} pages are missing from the file")
    parts = []
    if pictures:
        parts.append(f"a picture on {pages_named(pictures)}")
    if unknown:
        parts.append(f"letters on {pages_named(unknown)} whose font does not say them")
    return Survey(
        pages,
        total,
        silent=tuple(silent),
        with_little=tuple(with_little),
        garbled=tuple(garbled),
        damaged=tuple(damaged),
        parts=tuple(parts),
    )


def text_lines(letters: Sequence[Letter]) -> list[str]:
    """Return letters as lines of text, from top to bottom."""
    rows: dict[tuple[int, int], list[Letter]] = {}
    for letter in letters:
        rows.setdefault((letter.turn, round(letter.y / 3)), []).append(letter)
    lines = []
    for _, row in sorted(rows.items(), key=lambda item: (item[0][0], -item[0][1])):
        line = ""
        end = None
        for letter in sorted(row, key=lambda each: each.x):
            is_apart = end is not None and letter.x - end > letter.size / 5
            if is_apart or letter.after_space:
                line += " "
            line += letter.text
            end = letter.end
        line = " ".join(line.split())
        if line:
            lines.append(line)
    return lines


def drawn_text(stream: PDFStream) -> str:
    """Return the text that a stream draws, such as the appearance of a comment."""
    manager = PDFResourceManager()
    device = _Surveyor(manager)
    resources = dict_value(stream.get("Resources", {}))
    PDFPageInterpreter(manager, device).render_contents(resources, [stream])
    return "\n".join(text_lines(device.letters))


def _phrase(numbers: Sequence[int], one: str, many: str) -> Iterator[str]:
    if numbers:
        yield f"{pages_named(numbers)} {one if len(numbers) == 1 else many}"


# ---- decisions ----------------------------------------------------------------------------------


def _own_letters(pages: Sequence[Page]) -> dict[int, int]:
    """Return the number of letters of each page that are its own, by the page's number."""
    pages_by_line: Counter[str] = Counter()
    for page in pages:
        pages_by_line.update(set(page.lines))
    own: dict[int, int] = {}
    for page in pages:
        own[page.number] = sum(
            len(line)
            for line in page.lines
            if pages_by_line[line] == 1 and not is_page_number(line)
        )
    return own


def _backgrounds(pages: Sequence[Page], own: dict[int, int]) -> set[object]:
    """Return the pictures that lie behind the text of several pages."""
    count: Counter[object] = Counter()
    with_text: set[object] = set()
    for page in pages:
        keys = {picture.key for picture in page.pictures}
        count.update(keys)
        if own[page.number] >= 10:
            with_text |= keys
    return {key for key in with_text if count[key] > 1}


def _is_unread(picture: Picture) -> bool:
    """Return True for a large picture without text over it."""
    return picture.share >= _LARGE and picture.letters_over < _FEW_LETTERS


# ---- looking ------------------------------------------------------------------------------------


def _pages(document: PDFDocument) -> Iterator[Page]:
    manager = PDFResourceManager(caching=True)
    for number, page in enumerate(PDFPage.create_pages(document), 1):
        device = _Surveyor(manager)
        try:
            cut = _is_cut(page)  # before its streams are decoded
            PDFPageInterpreter(manager, device).process_page(page)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - parsers raise anything; the other pages are read
            yield Page(number, failed=True)
        else:
            yield device.page(number, cut=cut)


def _pages_declared(document: PDFDocument) -> int:
    """Return the number of pages that the file says it has."""
    count = resolve1(dict_value(document.catalog.get("Pages", {})).get("Count"))
    if isinstance(count, int) and 0 < count < 100_000:
        return count
    return 0


def _is_cut(page: PDFPage) -> bool:
    """Return True if a part of the page's content is lost, or its compressed data are damaged."""
    for content in page.contents:
        stream = resolve1(content)
        if not isinstance(stream, PDFStream):
            return True
        # encrypted data look damaged, and what is decoded already was looked at
        if stream.decipher is not None or not stream.rawdata:
            continue
        filters = [getattr(name, "name", "") for name, _ in stream.get_filters()]
        if filters in (["FlateDecode"], ["Fl"]) and not _is_whole(stream.rawdata):
            return True
    return False


def _is_whole(data: bytes) -> bool:
    """Return True if compressed data reach their end; a missing checksum does not matter."""
    inflater = zlib.decompressobj(-15)
    rest = data[2:]
    try:
        while rest and not inflater.eof:
            inflater.decompress(rest, _PIECE_BYTES)
            rest = inflater.unconsumed_tail
    except zlib.error:
        return False
    return inflater.eof


class _Surveyor(PDFTextDevice):
    """Notes the letters, pictures and lines of one page, without laying them out."""

    def __init__(self, manager: PDFResourceManager) -> None:
        super().__init__(manager)
        self.letters: list[Letter] = []
        self._after_space = False
        self._invisible = 0
        self._pictures: list[tuple[object, _Box]] = []
        self._shapes = 0
        self._box: _Box = (0.0, 0.0, 1.0, 1.0)

    def page(self, number: int, *, cut: bool) -> Page:
        """Return what was noted."""
        letters = self.letters
        turns = Counter(letter.turn for letter in letters)
        turn = 0
        if turns:
            turn, _ = turns.most_common(1)[0]
        others = [letter for letter in letters if letter.turn != turn]
        turned_lines = [line for line in text_lines(others) if len(line) >= 3]
        area = _area(self._box) or 1.0
        pictures: list[Picture] = []
        for key, box in self._pictures:
            share = _area(_overlap(box, self._box)) / area
            over = 0
            if share >= _LARGE:
                over = sum(_is_inside(letter.place, box) for letter in letters)
            pictures.append(Picture(key or (number, len(pictures)), share, over))
        return Page(
            number,
            lines=tuple(line_key(line) for line in text_lines(letters)),
            letters=len(letters),
            unknown=sum(letter.unknown for letter in letters),
            invisible=self._invisible,
            large=sum(letter.size >= _TITLE_SIZE for letter in letters),
            turn=turn,
            turned_lines=tuple(turned_lines),
            pictures=tuple(pictures),
            shapes=self._shapes,
            cut=cut,
        )

    def begin_page(self, page: PDFPage, ctm: Matrix) -> None:
        x0, y0, x1, y1 = page.mediabox
        corners = [apply_matrix_pt(ctm, corner) for corner in ((x0, y0), (x1, y1))]
        self._box = _bounds(corners)

    def render_string(
        self, textstate: Any, seq: Any, ncs: Any, graphicstate: Any
    ) -> None:
        before = len(self.letters)
        super().render_string(textstate, seq, ncs, graphicstate)
        if textstate.render == _INVISIBLE:
            self._invisible += len(self.letters) - before

    def render_char(
        self,
        matrix: Matrix,
        font: PDFFont,
        fontsize: float,
        scaling: float,
        rise: float,  # noqa: ARG002 - the interface is pdfminer's
        cid: int,
        ncs: Any,  # noqa: ARG002
        graphicstate: Any,  # noqa: ARG002
    ) -> float:
        advance = font.char_width(cid) * fontsize * scaling
        try:
            text = font.to_unichr(cid)
        except PDFUnicodeNotDefined:
            text = _UNKNOWN
        if text.strip():
            letter = _letter(matrix, text, advance, fontsize, self._after_space)
            self.letters.append(letter)
        self._after_space = not text.strip()
        return advance

    def render_image(self, name: str, stream: PDFStream) -> None:  # noqa: ARG002
        ctm = self.ctm or MATRIX_IDENTITY
        unit = ((0, 0), (1, 0), (0, 1), (1, 1))
        box = _bounds([apply_matrix_pt(ctm, corner) for corner in unit])
        self._pictures.append((stream.objid, box))

    def paint_path(
        self,
        graphicstate: Any,  # noqa: ARG002
        stroke: bool,
        fill: bool,
        evenodd: bool,  # noqa: ARG002
        path: Sequence[Any],
    ) -> None:
        if stroke or fill:
            self._shapes += len(path)


def _letter(
    matrix: Matrix, text: str, advance: float, size: float, after_space: bool
) -> Letter:
    """Return a letter with its place after its text is turned upright."""
    a, b, _, _, x, y = matrix
    scale = (a * a + b * b) ** 0.5
    if abs(a) >= abs(b):
        turn = 0 if a >= 0 else 180
    else:
        turn = 90 if b > 0 else 270
    turned = {0: (x, y), 90: (y, -x), 180: (-x, -y), 270: (-y, x)}[turn]
    return Letter(
        x=turned[0],
        y=turned[1],
        end=turned[0] + advance * scale,
        size=abs(size * scale),
        text=text,
        after_space=after_space,
        turn=turn,
        unknown=_is_unknown(text),
        place=(x, y),
    )


def _is_unknown(text: str) -> bool:
    """Return True for the replacement character and those of private use."""
    return all(letter == _UNKNOWN or "\ue000" <= letter <= "\uf8ff" for letter in text)


def _bounds(
    points: Sequence[tuple[float, float]],
) -> _Box:
    xs = [x for x, _ in points]
    ys = [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def _is_inside(place: tuple[float, float], box: _Box) -> bool:
    x, y = place
    x0, y0, x1, y1 = box
    return x0 <= x <= x1 and y0 <= y <= y1


def _overlap(one: _Box, other: _Box) -> _Box:
    x0 = max(one[0], other[0])
    y0 = max(one[1], other[1])
    x1 = min(one[2], other[2])
    y1 = min(one[3], other[3])
    return x0, y0, max(x0, x1), max(y0, y1)


def _area(box: _Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
