"""Texts with marks in them: text/enriched, RTF, and flowed lines."""

from __future__ import annotations

import codecs
import re

_ENRICHED = re.compile(r"<<|</?([a-z0-9-]+)>", re.IGNORECASE)
_LINE_ENDS = re.compile(r"\n+")
_QUOTES = re.compile(r"(>*) ?(.*)", re.DOTALL)

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


def unflow(text: str, *, deletes_space: bool) -> str:
    """Join the lines that a mail program wrapped (format=flowed, RFC 3676).

    `deletes_space`: the blank at a wrapped line's end is no part of the text (`delsp=yes`).
    """
    pieces: list[str] = []
    open_depth = -1  # the quotes before the last line, when that one continues
    for line in text.replace("\r\n", "\n").split("\n"):
        quotes, rest = _split_quotes(line)
        depth = len(quotes)
        is_signature = rest == "-- "
        if depth != open_depth or is_signature:
            pieces.append(f"\n{quotes} " if quotes else "\n")
        continues = rest.endswith(" ") and not is_signature
        pieces.append(rest[:-1] if continues and deletes_space else rest)
        open_depth = depth if continues else -1
    return "".join(pieces)[1:]


def _split_quotes(line: str) -> tuple[str, str]:
    """Return the `>` marks of a line, and the text behind them and one blank."""
    match = _QUOTES.fullmatch(line)
    return (match[1], match[2]) if match else ("", line)


def enriched_to_text(text: str) -> str:
    """Return the text of text/enriched (RFC 1896), without its commands."""
    unified = text.replace("\r\n", "\n")
    # One line end is a blank, more of them are one less.
    joined = _LINE_ENDS.sub(lambda ends: "\n" * (len(ends[0]) - 1) or " ", unified)
    pieces: list[str] = []
    start = 0
    last_parameter = joined.rfind("</param>")
    for mark in _ENRICHED.finditer(joined):
        if mark.start() < start:
            continue  # inside of a parameter
        pieces.append(joined[start : mark.start()])
        start = mark.end()
        if mark[0] == "<<":
            pieces.append("<")
        elif mark[0] == "<param>" and start <= last_parameter:
            start = joined.index("</param>", start)
    pieces.append(joined[start:])
    return "".join(pieces)


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
        elif word in _RTF_HIDDEN:
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
