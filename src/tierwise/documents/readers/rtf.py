"""RTF: the text of a document, group by group, without pictures and objects."""

from __future__ import annotations

import codecs
import re

from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.unpacking import OLE
from tierwise.errors import DocumentError

_SHORT_TEXT = 100  # letters
_START = b"{\\rtf"
_RTF_TOKEN = re.compile(
    r"\\([a-z]+)(-?\d{1,10})? ?|\\'([0-9a-f]{2})|\\([^a-z])|([{}])|[\r\n]+|([^\\{}\r\n]+)|(\\)",
    re.IGNORECASE,
)
_RTF_SYMBOLS = {
    "par": "\n",
    "line": "\n",
    "sect": "\n\n",
    "page": "\n\n",
    "row": "\n",
    "nestrow": "\n",
    "tab": "\t",
    "cell": "\t",
    "nestcell": "\t",
    "emdash": "—",
    "endash": "–",
    "bullet": "•",
    "emspace": " ",
    "enspace": " ",
    "lquote": "‘",
    "rquote": "’",
    "ldblquote": "“",
    "rdblquote": "”",
}
_RTF_CHARACTERS = {"~": "\u00a0", "_": "-", "{": "{", "}": "}", "\\": "\\"}
_RTF_CHARACTERS |= {"\n": "\n", "\r": "\n"}
# The code pages of fonts, by Windows' number of their script.
_RTF_FONT_PAGES = {
    "128": "cp932",
    "129": "cp949",
    "134": "gb18030",
    "136": "big5",
    "161": "cp1253",
    "162": "cp1254",
    "163": "cp1258",
    "177": "cp1255",
    "178": "cp1256",
    "186": "cp1257",
    "204": "cp1251",
    "222": "cp874",
    "238": "cp1250",
}
# Groups without text that do not say so by `\*`.
_RTF_HIDDEN = frozenset(
    ("fonttbl", "colortbl", "stylesheet", "info", "pict", "object", "fldinst")
)
# Groups with text inside of hidden ones: text boxes, and what an object looks like.
_RTF_SHOWN = frozenset(("shptxt", "result"))


def read_rtf(data: bytes) -> Extracted:
    """Return the text of an RTF file, and what is not in it.

    Raises DocumentError for a file of another format.
    """
    content = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if content.startswith(OLE) or not content.startswith(_START):
        raise DocumentError(
            "the file is damaged or not what its ending says; ask for a new copy"
        )
    reader = _RtfReader()
    text = reader.read(content.decode("latin-1"))
    unread: list[str] = []
    pages: list[str] = []
    if reader.groups:
        pages.append("the end of the file")
    if reader.objects:
        noun = "object" if reader.objects == 1 else "objects"
        unread.append(f"{reader.objects} embedded {noun}")
    if reader.pictures:
        noun = "picture" if reader.pictures == 1 else "pictures"
        is_short = sum(map(str.isalnum, text)) < _SHORT_TEXT
        verb = "is" if reader.pictures == 1 else "are"
        if is_short:
            pages.append(f"{reader.pictures} {noun} in place of text {verb} not read")
        else:
            unread.append(f"{reader.pictures} {noun}")
    remedy = ""
    if reader.groups:
        remedy = "ask for a new copy"
    elif pages or unread:
        remedy = "save it as .pdf, or put the missing parts into the text"
    return Extracted(
        text, unread=tuple(unread), unread_pages=tuple(pages), remedy=remedy
    )


def rtf_to_text(rtf: str) -> str:
    """Return the text of an RTF document; `rtf` is its bytes as Latin-1."""
    return _RtfReader().read(rtf)


class _RtfReader:
    """Collects the text of an RTF document, group by group."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.encoded = bytearray()  # characters in the document's code page
        self.code_page = "cp1252"
        self.font: str | None = None
        self.font_pages: dict[str | None, str] = {}
        self.is_hidden = False
        self.replaced = 1  # characters that follow a `\u` for old programs
        self.skipped = 0
        self.groups: list[tuple[bool, int, str | None]] = []
        self.pictures = 0
        self.objects = 0

    def read(self, rtf: str) -> str:
        at = 0
        while match := _RTF_TOKEN.match(rtf, at):
            at = match.end()
            word, number, byte, symbol, brace, plain, _ = match.groups()
            if byte:
                self._character(bytes.fromhex(byte))
            elif brace:
                self._brace(brace)
            elif word == "bin":
                at += max(0, int(number or 0))
            elif word:
                self._word(word.lower(), number)
            elif symbol == "*":
                self.is_hidden = True
            elif symbol:
                self._text(_RTF_CHARACTERS.get(symbol, ""))
            elif plain:
                self._plain(plain)
        self._flush()
        text = "".join(self.pieces)
        # `\u` gives halves of characters outside of the basic plane.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _brace(self, brace: str) -> None:
        self._flush()
        self.skipped = 0
        if brace == "{":
            self.groups.append((self.is_hidden, self.replaced, self.font))
        elif self.groups:
            self.is_hidden, self.replaced, self.font = self.groups.pop()

    def _word(self, word: str, number: str | None) -> None:
        if word == "u" and number is not None:
            self._text(chr(int(number) & 0xFFFF))
            self.skipped = self.replaced
        elif word == "uc" and number is not None:
            self.replaced = max(0, int(number))
        elif word == "ansicpg" and number is not None:
            self._set_code_page(f"cp{number}")
        elif word == "f":
            self._flush()
            self.font = number
        elif word == "fcharset" and number in _RTF_FONT_PAGES:
            self.font_pages[self.font] = _RTF_FONT_PAGES[number]
        elif word == "nonshppict":
            # the picture before it once more, for old programs
            self.pictures -= 1
        elif word in _RTF_SHOWN:
            self._flush()
            self.is_hidden = False
        elif word in _RTF_HIDDEN:
            self.pictures += word == "pict"
            self.objects += word == "object"
            self.is_hidden = True
        elif word in _RTF_SYMBOLS:
            self._text(_RTF_SYMBOLS[word])

    def _set_code_page(self, name: str) -> None:
        try:
            self.code_page = codecs.lookup(name).name
        except LookupError:
            self.code_page = "cp1252"

    def _character(self, data: bytes) -> None:
        if self.skipped:
            self.skipped -= 1
        elif not self.is_hidden:
            self.encoded += data

    def _plain(self, text: str) -> None:
        visible = text[self.skipped :]
        self.skipped = max(0, self.skipped - len(text))
        if visible.isascii():
            self._text(visible)
        elif not self.is_hidden:
            self.encoded += visible.encode("latin-1", "replace")

    def _text(self, text: str) -> None:
        self._flush()
        if not self.is_hidden:
            self.pieces.append(text)

    def _flush(self) -> None:
        if self.encoded:
            page = self.font_pages.get(self.font, self.code_page)
            self.pieces.append(self.encoded.decode(page, "replace"))
            self.encoded.clear()
