"""The words of a PDF page with text in letters: their places in the text and on the page.

The text is the converter's, in its own reading order; the boxes are pdfium's. Both are compared
word by word, without white space and case: a word follows the one before it on the page, or begins
where most of the words after it follow, too. Words that are not found have no box.
"""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

from tierwise.records import Box, PageWords, Word

MOST_WORDS = 200_000  # of a document; those after have no boxes
_COMPARED = 60  # characters that decide between two places of a word
# A word is taken from the next page where this many more characters follow as in the text.
_NEXT_PAGE = 12
_SHORT = 4
_MOST_TRIED = 500  # places of a word: a page may have thousands of equal ones
_SPACES = frozenset(map(ord, " \t\n\r\v\f\u00a0\u2002\u2003\u2009\u3000"))
_DEVICE = 1_000_000  # pdfium returns places as whole numbers of this page
_PAGE_END = "\f"
_TOKEN = re.compile(r"\S+")


@dataclass
class _Page:
    """The letters of a page as pdfium has them; `keys` are compared."""

    number: int
    size: tuple[float, float]
    keys: str
    # by character of `keys`: its number in pdfium
    letters: list[int]
    begins: set[int]  # where a word begins
    page: Any = field(repr=False)
    text_page: Any = field(repr=False)
    used: bytearray = field(default_factory=bytearray)

    def place(self, key: str, after: str, expected: int) -> tuple[int, int]:
        """Return the best place of a word, and how many characters follow as in the text.

        `expected` is where the word before it ends. (-1, 0) where the page has no such word.
        """
        best = -1
        best_score = 0
        wanted = key + after
        for start in islice(self._free(key, expected), _MOST_TRIED):
            score = _common(self.keys, start, wanted)
            if score > best_score:
                best = start
                best_score = score
            if best_score == len(wanted):
                break
        return best, best_score

    def _free(self, key: str, expected: int) -> Iterator[int]:
        """Yield the places of a word that no other has: from `expected` on, then those before."""
        length = len(self.keys)
        for begin, end in ((expected, length), (0, expected)):
            # of a place before `end`, the whole word
            most = min(length, end + len(key) - 1)
            start = self.keys.find(key, begin, most)
            while start >= 0:
                # A short one is a part of many others.
                is_word = len(key) >= _SHORT or start in self.begins
                if is_word and not self.used[start]:
                    yield start
                start = self.keys.find(key, start + 1, most)

    def follows(self, key: str, position: int) -> bool:
        """Return True if a word is on the page at a place that no other word has."""
        is_free = position < len(self.used) and not self.used[position]
        return is_free and self.keys.startswith(key, position)

    def use(self, start: int, end: int) -> None:
        """Note that a word of the text is here."""
        self.used[start:end] = b"\1" * (end - start)

    def box(self, start: int, end: int) -> Box | None:
        """Return the box around some characters of `keys`, in shares of the page as displayed."""
        first = self.letters[start]
        last = self.letters[end - 1]
        total = self.text_page.count_rects(first, last - first + 1)
        rects = [self.text_page.get_rect(number) for number in range(total)]
        boxes = [self._displayed(rect) for rect in rects]
        if not boxes:
            return None
        left = min(box[0] for box in boxes)
        top = min(box[1] for box in boxes)
        right = max(box[2] for box in boxes)
        bottom = max(box[3] for box in boxes)
        if not (left < right and top < bottom):
            return None
        return round(left, 4), round(top, 4), round(right, 4), round(bottom, 4)

    def _displayed(self, rect: tuple[float, float, float, float]) -> Box:
        """Return a rectangle in the page's own units as shares of the page: turned, and cropped."""
        left, bottom, right, top = rect
        one = self._point(left, bottom)
        other = self._point(right, top)
        return (
            min(one[0], other[0]),
            min(one[1], other[1]),
            max(one[0], other[0]),
            max(one[1], other[1]),
        )

    def _point(self, x: float, y: float) -> tuple[float, float]:
        from pypdfium2 import raw

        across = ctypes.c_int()
        down = ctypes.c_int()
        raw.FPDF_PageToDevice(self.page, 0, 0, _DEVICE, _DEVICE, 0, x, y, across, down)
        shares = (across.value / _DEVICE, down.value / _DEVICE)
        return min(max(shares[0], 0.0), 1.0), min(max(shares[1], 0.0), 1.0)

    def close(self) -> None:
        self.text_page.close()
        self.page.close()


def placed_pages(
    data: bytes, text: str, total: int, *, length: int, without: Sequence[int] = ()
) -> tuple[PageWords, ...]:
    """Return the pages of a PDF with the places of their words in its text.

    `total` is the number of pages that the text is from, `length` that of the text that is on the
    pages: lines may follow that are not. Pages in `without` are left out. Empty where pdfium does
    not open the file, or counts its pages differently.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError:
        return ()
    try:
        if len(document) != total:
            return ()
        texts = text.split(_PAGE_END)
        if len(texts) == total + 1:
            return tuple(_page_by_page(document, texts, without))
        return tuple(_in_order(document, text[:length]))
    finally:
        document.close()


def _page_by_page(
    document: Any, texts: Sequence[str], without: Sequence[int]
) -> Iterator[PageWords]:
    """Yield the pages of a text that says where each of them ends."""
    offset = 0
    left = MOST_WORDS
    for number, text in enumerate(texts[:-1], 1):
        start = offset
        offset += len(text) + len(_PAGE_END)
        if number in without or not text.strip():
            continue
        words: list[Word] = []
        page = _opened(document, number)
        size = (0.0, 0.0)
        if page is not None:
            size = page.size
            if left > 0:
                words = _words(page, text, start)[:left]
            page.close()
        left -= len(words)
        yield _page_words(number, size, start, start + len(text), words)


def _words(page: _Page, text: str, offset: int) -> list[Word]:
    """Return the words of a page's text that are found on the page."""
    tokens = _tokens(text)
    words: list[Word] = []
    expected = 0
    for number, (token, key) in enumerate(tokens):
        if not key:
            continue
        start = expected
        if not page.follows(key, expected):
            start, _ = page.place(key, _after(tokens, number), expected)
        if start < 0:
            continue
        expected = start + len(key)
        word = _word(page, start, expected, token, offset)
        if word is not None:
            words.append(word)
    return words


def _in_order(document: Any, text: str) -> Iterator[PageWords]:
    """Yield the pages of a text in which they follow each other without an end."""
    tokens = _tokens(text)
    by_page: dict[int, list[Word]] = {}
    sizes: dict[int, tuple[float, float]] = {}
    number = 1
    page = _opened(document, number)
    following = _opened(document, number + 1)
    expected = 0
    words_so_far = 0
    for position, (token, key) in enumerate(tokens):
        if not key or words_so_far >= MOST_WORDS:
            continue
        start = expected
        if page is None or not page.follows(key, expected):
            after = _after(tokens, position)
            start, score = page.place(key, after, expected) if page else (-1, 0)
            if following is not None:
                next_start, next_score = following.place(key, after, 0)
                if next_score > score + _NEXT_PAGE or (start < 0 <= next_start):
                    if page is not None:
                        page.close()
                    number += 1
                    page = following
                    following = _opened(document, number + 1)
                    start = next_start
        if page is None or start < 0:
            continue
        expected = start + len(key)
        word = _word(page, start, expected, token, 0)
        if word is not None:
            words_so_far += 1
            sizes[number] = page.size
            by_page.setdefault(number, []).append(word)
    for opened in (page, following):
        if opened is not None:
            opened.close()
    for number, words in by_page.items():
        end = words[-1].end
        later = [words[0].start for other, words in by_page.items() if other > number]
        if later:
            # What is between two pages, such as a word that is not found, is the first one's.
            end = len(text[: later[0]].rstrip())
        yield _page_words(number, sizes[number], words[0].start, end, words)


def _tokens(text: str) -> list[tuple[re.Match[str], str]]:
    """Return the words of a text, each with what is compared."""
    return [(match, _key(match[0])) for match in _TOKEN.finditer(text)]


def _after(tokens: Sequence[tuple[re.Match[str], str]], number: int) -> str:
    """Return what follows a word in the text, as it is compared."""
    after = ""
    for _, key in tokens[number + 1 : number + 1 + _COMPARED]:
        after += key
        if len(after) >= _COMPARED:
            break
    return after[:_COMPARED]


def _word(
    page: _Page, start: int, end: int, token: re.Match[str], offset: int
) -> Word | None:
    page.use(start, end)
    box = page.box(start, end)
    if box is None:
        return None
    return Word(token[0], offset + token.start(), offset + token.end(), box, 1.0)


def _page_words(
    number: int,
    size: tuple[float, float],
    start: int,
    end: int,
    words: Sequence[Word],
) -> PageWords:
    return PageWords(
        page=number,
        width=round(size[0]),
        height=round(size[1]),
        start=start,
        end=end,
        words=tuple(words),
        confidence=1.0,
        is_recognized=False,
    )


def _opened(document: Any, number: int) -> _Page | None:
    """Return a page with its letters; None where there is none, or pdfium cannot read it."""
    import pypdfium2
    from pypdfium2 import raw

    if number > len(document):
        return None
    try:
        page = document[number - 1]
        text_page = page.get_textpage()
    except pypdfium2.PdfiumError:
        return None
    keys: list[str] = []
    letters: list[int] = []
    begins: set[int] = set()
    is_first = True
    for position in range(text_page.count_chars()):
        code = raw.FPDFText_GetUnicode(text_page, position)
        key = _letter_key(code)
        if is_first and key:
            begins.add(len(letters))
        is_first = not key and (is_first or code in _SPACES)
        keys.append(key)
        letters.extend([position] * len(key))
    joined = "".join(keys)
    return _Page(
        number,
        page.get_size(),
        joined,
        letters,
        begins,
        page,
        text_page,
        bytearray(len(joined)),
    )


@lru_cache(maxsize=4096)
def _letter_key(code: int) -> str:
    """Return what is compared of a letter; nothing for white space, marks and half characters."""
    if code >= 0x110000 or 0xD800 <= code < 0xE000:
        return ""
    return _key(chr(code))


def _key(text: str) -> str:
    """Return a text in one case, without white space, accents and invisible characters."""
    if text.isascii() and text.isprintable():
        return text.replace(" ", "").lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(
        letter for letter in decomposed if unicodedata.category(letter)[0] not in "MCZ"
    )


def _common(keys: str, start: int, wanted: str) -> int:
    """Return how many characters from a place on are the wanted ones."""
    number = 0
    most = min(len(wanted), len(keys) - start)
    while number < most and keys[start + number] == wanted[number]:
        number += 1
    return number
