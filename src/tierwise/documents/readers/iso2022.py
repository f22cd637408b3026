"""Text in seven bits: ISO-2022 of Japan, Korea and China, HZ, and UTF-7.

Python's own decoders are strict about each national variant. Mail programs are not: they declare
ISO-2022-JP and write the characters of NEC and IBM, half-width kana or JIS X 0212 all the same.
So here the escape sequences alone say how to read what follows them.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from tierwise.text.ideographs import ideographic_likelihood
from tierwise.text.letters import script_of

CODEC = "tierwise-iso-2022"
_ESC = 0x1B
_SHIFT_OUT = 0x0E
_SHIFT_IN = 0x0F
# What an escape sequence selects for the bytes after it.
_SELECTS = {
    b"(B": "ascii",
    b"(J": "ascii",  # JIS-Roman, whose yen sign stands where programs write a backslash
    b"(H": "ascii",
    b"(I": "kana",
    b"$@": "jis",
    b"$B": "jis",
    b"$(@": "jis",
    b"$(B": "jis",
    b"$(D": "jis-supplement",
    b"$(O": "jis-2000",
    b"$(P": "jis-2000-supplement",
    b"$(Q": "jis-2000",
    b"$A": "gb2312",
    b"$(A": "gb2312",
    b"$(C": "ksc",
}
# What is read between the control characters SO and SI, once a sequence has named it.
_SHIFTED = {b"$)C": "ksc", b"$)A": "gb2312"}
_IGNORED = (b"&@",)  # announces a revision

_UTF_7 = re.compile(rb"\+([A-Za-z0-9+/]{2,})(-?)")
_ASIAN_SCRIPTS = frozenset(
    {"CJK", "HANGUL", "HIRAGANA", "KATAKANA", "HALFWIDTH", "FULLWIDTH"}
)
_LEAST_COMMON = (
    -10.5
)  # the logarithm of how frequent an ideograph is, on average, in a real text


def has_escapes(data: bytes) -> bool:
    """Return True if the data selects a character set of ISO-2022 anywhere."""
    place = data.find(_ESC)
    while place >= 0:
        if _sequence(data, place + 1):
            return True
        place = data.find(_ESC, place + 1)
    return False


def _sequence(data: bytes, start: int) -> bytes:
    """Return the known escape sequence at a place, without its ESC; empty if there is none."""
    for length in (3, 2):
        sequence = data[start : start + length]
        if sequence in _SELECTS or sequence in _SHIFTED or sequence in _IGNORED:
            return sequence
    return b""


@dataclass
class _State:
    """The character set of the bytes that follow."""

    selected: str = "ascii"
    shifted: str = "kana"  # Japanese without a sequence: SO begins half-width kana
    is_shifted: bool = False

    def current(self) -> str:
        return self.shifted if self.is_shifted else self.selected


def decode_iso2022(data: bytes) -> str:
    """Return the text. Raises UnicodeDecodeError for a sequence or a character of no set."""
    text, _ = _decode(data, _State())
    return text


def _decode(data: bytes, state: _State) -> tuple[str, int]:
    """Return the text, and the number of bytes that were read; the rest is cut off."""
    text: list[str] = []
    place = 0
    while place < len(data):
        byte = data[place]
        if byte == _ESC:
            place += 1 + _select(data, place, state)
        elif byte in (_SHIFT_OUT, _SHIFT_IN):
            state.is_shifted = byte == _SHIFT_OUT
            place += 1
        elif byte <= 0x20 or byte == 0x7F:
            if byte in b"\r\n":
                # A line begins in ASCII, where its writer forgot to go back to it.
                state.selected = "ascii"
                state.is_shifted = False
            text.append(chr(byte))
            place += 1
        else:
            end = place
            while end < len(data) and 0x20 < data[end] < 0x7F:
                end += 1
            text.append(_characters(data, place, end, state.current()))
            place = end
            if place < len(data) and data[place] > 0x7F:
                raise _damage(data, place, "a byte beyond ASCII")
    return "".join(text), place


def _select(data: bytes, place: int, state: _State) -> int:
    """Follow an escape sequence; return its length without the ESC."""
    sequence = _sequence(data, place + 1)
    if not sequence:
        raise _damage(data, place, "an unknown escape sequence")
    if sequence in _SHIFTED:
        state.shifted = _SHIFTED[sequence]
    elif sequence in _SELECTS:
        state.selected = _SELECTS[sequence]
    return len(sequence)


def _characters(data: bytes, start: int, end: int, selected: str) -> str:
    """Return the characters of bytes in one set."""
    piece = data[start:end]
    if selected == "ascii":
        return piece.decode("ascii")
    try:
        if selected == "kana":
            return bytes(byte | 0x80 for byte in piece).decode("cp932")
        if len(piece) % 2:
            raise _damage(data, end, "half a character")
        pairs = [piece[at : at + 2] for at in range(0, len(piece), 2)]
        return "".join(_pair(pair, selected) for pair in pairs)
    except UnicodeDecodeError:
        raise _damage(data, start, f"no characters of {selected}") from None


def _pair(pair: bytes, selected: str) -> str:
    """Return the character of two bytes in a set of two-byte characters."""
    high = bytes(byte | 0x80 for byte in pair)
    if selected == "gb2312":
        return high.decode("gb2312")
    if selected == "ksc":
        return high.decode("euc_kr")
    if selected == "jis-supplement":
        return (b"\x8f" + high).decode("euc_jp")
    if selected == "jis-2000":
        return high.decode("euc_jis_2004")
    if selected == "jis-2000-supplement":
        return (b"\x8f" + high).decode("euc_jis_2004")
    try:
        return _shift_jis(pair).decode("cp932")
    except UnicodeDecodeError:
        return high.decode("euc_jis_2004")


def _shift_jis(pair: bytes) -> bytes:
    """Return a character of JIS X 0208 as Shift-JIS has it.

    cp932 has the characters of NEC and IBM, such as ①, that JIS X 0208 itself lacks.
    """
    row = pair[0] - 0x21
    cell = pair[1] - 0x21
    lead = (row >> 1) + (0x81 if row < 0x3E else 0xC1)
    if row % 2:
        trail = cell + 0x9F
    else:
        trail = cell + 0x40
        if trail >= 0x7F:
            trail += 1
    return bytes([lead, trail])


def _damage(data: bytes, place: int, what: str) -> UnicodeDecodeError:
    return UnicodeDecodeError(CODEC, data, place, min(place + 1, len(data)), what)


def decode_hz(data: bytes) -> str | None:
    """Return text in HZ-GB-2312; None where its `~{…~}` is no Chinese."""
    if b"~{" not in data:
        return None
    try:
        text = data.decode("hz")
    except UnicodeDecodeError:
        return None
    return text if _is_common(text) else None


def decode_utf7(data: bytes) -> str | None:
    """Return text in UTF-7; None where its `+…-` is anything else, such as a telephone number.

    A run counts if what it encodes is letters and marks of one script, as no encoder would
    encode ASCII.
    """
    if not _UTF_7.search(data):
        return None
    try:
        text = data.decode("utf-7")
    except UnicodeDecodeError:
        return None
    beyond = [character for character in text if not character.isascii()]
    letters = [character for character in beyond if character.isalpha()]
    if not letters or len(beyond) < len(_UTF_7.findall(data)):
        return None
    scripts = {script_of(letter) for letter in letters}
    if scripts & _ASIAN_SCRIPTS:
        return text if _is_common(text) else None
    marks = set(beyond) - set(letters)
    is_plain = all(unicodedata.category(mark)[0] in "PSMZ" for mark in marks)
    # A combination of letters without meaning falls among many scripts.
    return text if len(scripts) == 1 and is_plain else None


def _is_common(text: str) -> bool:
    """Return True if the ideographs of a text are as frequent as those of real texts."""
    beyond = [character for character in text if not character.isascii()]
    if not beyond:
        return False
    log, _ = ideographic_likelihood(text)
    return log / len(beyond) > _LEAST_COMMON


class _Incremental(codecs.BufferedIncrementalDecoder):
    """For files that are read in pieces, such as a CSV file: whole lines at a time."""

    def __init__(self, errors: str = "strict") -> None:
        super().__init__(errors)
        self._state = _State()

    def reset(self) -> None:
        super().reset()
        self._state = _State()

    def _buffer_decode(
        self,
        input: Any,  # noqa: A002 - the base class names it
        errors: str,  # noqa: ARG002 - damage is an error, whatever is asked for
        final: bool,
    ) -> tuple[str, int]:
        data = bytes(input)
        end = len(data) if final else data.rfind(b"\n") + 1
        return _decode(data[:end], self._state)


def _decode_all(
    data: Any,
    errors: str = "strict",  # noqa: ARG001 - as above
) -> tuple[str, int]:
    whole = bytes(data)
    return decode_iso2022(whole), len(whole)


def _codec(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != CODEC:
        return None
    return codecs.CodecInfo(
        name=CODEC,
        encode=codecs.lookup("iso2022_jp_ext").encode,
        decode=_decode_all,
        incrementaldecoder=_Incremental,
    )


codecs.register(_codec)
