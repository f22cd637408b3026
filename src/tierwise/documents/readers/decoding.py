"""Text decoding: bytes become text.

The bytes themselves count for more than what is declared about them. In this order: a byte order
mark, the zeros of UTF-16, the escape sequences of seven-bit encodings, valid UTF-8, and then the
language that an encoding makes of the bytes, where a declared encoding has a large advantage.
"""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from dataclasses import dataclass

from tierwise.documents.readers.encodings import Choice, choose_encoding
from tierwise.documents.readers.iso2022 import (
    CODEC,
    decode_hz,
    decode_iso2022,
    decode_utf7,
    has_escapes,
)
from tierwise.errors import DocumentError
from tierwise.text.ideographs import ideographic_likelihood
from tierwise.text.letters import script_of

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# A label means the larger encoding that browsers take it for.
_AS_BROWSERS_DO = {
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "euc_kr": "cp949",
}
# Labels that Python does not know, without their `x-`.
_LABELS = {
    "iso-8859-8-i": "iso8859-8",
    "iso-8859-8-e": "iso8859-8",
    "mac-ce": "mac-latin2",
    "mac-cyrillic": "mac-cyrillic",
    "sjis": "cp932",
    "ucs-2": "utf-16",
    "unicode": "utf-16",
    "unicode-1-1-utf-7": "utf-7",
    "utf8mb4": "utf-8",
    "windows-874": "cp874",
    "cp50220": "iso2022_jp",
    "cp50221": "iso2022_jp",
    "cp50222": "iso2022_jp",
}
# Each of these may be valid UTF-8 by accident.
_MULTIBYTE = frozenset({"cp932", "euc_jp", "gb18030", "big5hkscs", "cp949", "johab"})
# Codecs of Python that are no encodings of documents, or say nothing about the bytes.
_NO_LABELS = frozenset(
    {"ascii", "charmap", "idna", "punycode", "raw-unicode-escape", "unicode-escape"}
)
# The advantage of a declared encoding: how much likelier another one must be to beat it.
_FAVOUR = 8.0
# How much likelier than any other a reading must be: the less, the more letters it has.
_LEAST_MARGIN = 4.0
_MARGIN_OF_ONE_LETTER = 30.0
_LEAST_LOG_PER_BYTE = -5.2  # below it, no reading is a text
_LONG_ENOUGH = 8  # characters of UTF-16 without an end of line
_FEW_SEQUENCES = 6  # of UTF-8, which may be another encoding's by accident
_COMMON_IDEOGRAPHS = -9.0  # the logarithm of how frequent one is, on average

BINARY = "it holds binary data, not text; give it the ending of its real format"
_DAMAGED_UTF8 = "it is damaged: not all of it is UTF-8; save it again"
_UNKNOWN = "its text encoding is not recognised; save it as UTF-8"
_CONTROLS = (
    "it is damaged: it holds control characters among its letters;"
    " save it again as UTF-8"
)
_COLOURS = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")  # of a terminal, in logs
_CONTROL = re.compile(r"[\x01-\x08\x0e-\x1f\x7f]")
_LATE_CONTROL = re.compile(r"[\x80-\x84\x86-\x9f]")
_TWO_HALVES = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")
_EARLY_BYTES = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding by Python's name, and metadata where it is not what was declared."""

    name: str
    notes: dict[str, str]


def decode(data: bytes, declared: str | None = None) -> tuple[str, dict[str, str]]:
    """Return the text, and metadata about an encoding that was found, not declared.

    The metadata is empty where the encoding is certain: it was declared and fits, it has a byte
    order mark, or it is UTF-8 without another label. Raises DocumentError when the bytes are not
    text, are damaged, or may be one of several encodings that give different letters.
    """
    found = find_encoding(data, declared)
    text = _decode_strictly(data, found.name)
    if _is_damaged(text):
        raise DocumentError(_CONTROLS)
    return text, found.notes


def find_encoding(
    data: bytes,
    declared: str | None = None,
    *,
    complete: bool = True,
    lenient: bool = False,
) -> Encoding:
    """Return the encoding of data, or of a file by its beginning. Raises DocumentError.

    `complete`: no more data follows, so that a character cut off at the end is damage. `lenient`:
    data that is UTF-8 but for some damage is UTF-8, as its rows are judged one by one.
    """
    marked = byte_order_mark(data)
    if marked:
        return Encoding(marked, {})
    label = _codec_of(declared)
    wide = _wide_encoding(data, label)
    if wide:
        return _named(wide, label)
    if b"\0" in data:
        raise DocumentError(BINARY)
    if data.isascii():
        return _seven_bit_encoding(data, label)
    if _is_utf8(data, complete) and not _is_better_as(label, data):
        return _named("utf-8", label)
    if not lenient and _is_utf8_with_surrogates(data):
        return _named("utf-8-of-pairs", label)
    is_asian_label = label in _MULTIBYTE and _fits(data, label)
    if is_mostly_utf8(data, complete=complete) and not is_asian_label:
        # A guess would turn most of the text into nonsense because of a few bad bytes.
        if lenient:
            return Encoding("utf-8", {})
        raise DocumentError(_DAMAGED_UTF8)
    return _by_language(data if complete else _whole_lines(data), label)


def byte_order_mark(data: bytes) -> str | None:
    """Return the encoding that a byte order mark names."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    return None


def is_mostly_utf8(data: bytes, *, complete: bool = True) -> bool:
    """Return True if the bytes of valid multi-byte sequences outnumber the damaged bytes.

    `complete`: no more data follows, so that a sequence cut off at the end is damage.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text = decoder.decode(data, complete)
    damaged = sum("\ud800" <= character <= "\udfff" for character in text)
    # Each damaged byte became one character, so only valid sequences make the text shorter.
    return damaged <= len(data) - len(text)


def _codec_of(declared: str | None) -> str | None:
    """Return Python's name of a declared encoding; None if it says nothing."""
    if not declared:
        return None
    name = declared.strip().strip("\"'").lower().replace("_", "-")
    name = name.removeprefix("x-").removeprefix("cs")
    try:
        codec = codecs.lookup(_LABELS.get(name, name))
    except (LookupError, ValueError):
        return None
    if not codec._is_text_encoding or codec.name in _NO_LABELS:
        return None
    return _AS_BROWSERS_DO.get(codec.name, codec.name)


def _named(
    encoding: str, label: str | None, confidence: float | None = None
) -> Encoding:
    """Return an encoding with what there is to say about it."""
    notes: dict[str, str] = {}
    if label is not None and not _is_same(encoding, label):
        notes = {"encoding": encoding, "encoding_declared": label}
    if confidence is not None:
        notes["encoding"] = encoding
        notes["encoding_confidence"] = f"{confidence:.2f}"
    return Encoding(encoding, notes)


def _is_same(encoding: str, label: str) -> bool:
    families = ("utf-16", "utf-32", "iso2022")
    if encoding == CODEC:
        return label.startswith("iso2022")
    for family in families:
        if encoding.startswith(family) and label == family:
            return True
    return encoding == label


# UTF-16 and UTF-32 without a byte order mark


def _wide_encoding(data: bytes, label: str | None) -> str | None:
    """Return the encoding of two or four bytes a character that the data is in; else None."""
    is_labelled = label is not None and label.startswith(("utf-16", "utf-32"))
    if not is_labelled and b"\0" not in data:
        # A control character alone does not make good UTF-8 something else.
        is_utf8 = _try_to_decode(data, "utf-8") is not None
        if is_utf8 or not _EARLY_BYTES.search(data):
            return None
    readings: list[tuple[int, str]] = []
    for encoding in _WIDE:
        text = _try_to_decode(data, encoding)
        is_evident = is_labelled or _is_evident(text or "")
        if text and is_evident and _is_readable(text):
            pages = {ord(character) >> 8 for character in text}
            readings.append((len(pages), encoding))
    if not readings:
        if is_labelled and b"\0" in data and len(data) % 2:
            raise DocumentError(
                f"it is damaged: not all of it is {label}; save it as UTF-8"
            )
        return None
    # Read in the wrong order, the letters of one alphabet fall all over Unicode.
    _, encoding = min(readings)
    return encoding


def _is_evident(text: str) -> bool:
    """Return True if bytes that have no label are two or four a character beyond doubt.

    The zeros are those of spaces and ends of lines, or it is a longer text in ideographs.
    """
    in_ascii = sum(map(str.isascii, text))
    return in_ascii * 8 >= len(text) or len(text) >= _LONG_ENOUGH


def _is_readable(text: str) -> bool:
    """Return True for a text of assigned characters that go together."""
    if any(_is_no_text(character) for character in set(text)):
        return False
    beyond = [character for character in text if not character.isascii()]
    if not beyond:
        return True
    letters = [character for character in beyond if character.isalpha()]
    ideographs = [c for c in letters if script_of(c) in ("CJK", "HANGUL")]
    if ideographs:
        log, _ = ideographic_likelihood("".join(ideographs))
        return log / len(ideographs) > _COMMON_IDEOGRAPHS
    scripts = {script_of(letter) for letter in letters} - {"MODIFIER"}
    if scripts & {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}:
        return True
    return len(scripts) <= 2


def _is_no_text(character: str) -> bool:
    if character in "\t\n\v\f\r\ufeff":
        return False
    return unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs")


# Seven bits


def _seven_bit_encoding(data: bytes, label: str | None) -> Encoding:
    """Return the encoding of bytes that are all ASCII's. Raises DocumentError."""
    is_iso2022 = label is not None and label.startswith("iso2022")
    if has_escapes(data) or (is_iso2022 and b"\x0e" in data):
        try:
            decode_iso2022(data)
        except UnicodeDecodeError:
            raise DocumentError(
                "it is damaged: its escape sequences of ISO-2022 lead to no characters;"
                " save it as UTF-8"
            ) from None
        return _named(CODEC, label) if is_iso2022 else _found("iso-2022", CODEC, label)
    if label in ("hz", "utf-7") and _fits(data, label):
        return Encoding(label, {})
    if decode_hz(data) is not None:
        return _found("hz", "hz", label)
    if decode_utf7(data) is not None:
        return _found("utf-7", "utf-7", label)
    return Encoding("utf-8", {})


def _found(name: str, codec: str, label: str | None) -> Encoding:
    """Return an encoding that is certain although it was not declared."""
    notes = {"encoding": name, "encoding_confidence": "1.00"}
    if label is not None and label != "utf-8":
        notes["encoding_declared"] = label
    return Encoding(codec, notes)


# UTF-8


def _is_utf8(data: bytes, complete: bool) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    try:
        decoder.decode(data, complete)
    except UnicodeDecodeError:
        return False
    return True


def _is_better_as(label: str | None, data: bytes) -> bool:
    """Return True if valid UTF-8 is a few characters of a declared Asian encoding.

    The bytes of a short text in these encodings may be valid UTF-8 by accident.
    """
    if label not in _MULTIBYTE or not _fits(data, label):
        return False
    text = data.decode("utf-8", "ignore")
    beyond = [character for character in text if not character.isascii()]
    if len(beyond) > _FEW_SEQUENCES or any(
        character > "\u07ff" for character in beyond
    ):
        return False
    asian = data.decode(label)
    count = sum(not character.isascii() for character in asian)
    log, _ = ideographic_likelihood(asian)
    return count > 0 and log / count > _COMMON_IDEOGRAPHS


def _is_utf8_with_surrogates(data: bytes) -> bool:
    """Return True for CESU-8: UTF-8 in which some programs write an emoji as two halves."""
    if not _TWO_HALVES.search(data):
        return False
    try:
        decode_pairs(data)
    except UnicodeDecodeError:
        return False
    return True


def decode_pairs(data: bytes) -> str:
    """Return the text of CESU-8. Raises UnicodeDecodeError."""
    halves = data.decode("utf-8", "surrogatepass")
    return halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


# By language


def _by_language(data: bytes, label: str | None) -> Encoding:
    """Return the encoding that makes words of the bytes. Raises DocumentError."""
    fitting_label = label if _fits(data, label) else None
    choice = choose_encoding(data, fitting_label, _FAVOUR)
    if choice is None or _is_noise(choice, data):
        if fitting_label is not None:
            return Encoding(fitting_label, {})  # no evidence against it
        raise DocumentError(_UNKNOWN)
    letters = choice.best.letters
    needed = _LEAST_MARGIN + _MARGIN_OF_ONE_LETTER / max(1, len(letters))
    if fitting_label is not None and choice.lead(fitting_label) < needed:
        # Only the label speaks for it where another reading would have been likelier.
        evidence = -choice.lead(fitting_label) - _FAVOUR
        is_contradicted = choice.lead(fitting_label) > 0
        confidence = _confidence(evidence) if is_contradicted else None
        return _named(fitting_label, label, confidence)
    if choice.margin < needed:
        raise DocumentError(_doubt(choice))
    encoding = _nicest_name(data, choice, fitting_label)
    return _named(encoding, label, _confidence(choice.margin))


def _is_noise(choice: Choice, data: bytes) -> bool:
    """Return True if even the likeliest reading is no text in any language."""
    return len(data) > 8 and choice.best.log_per_byte < _LEAST_LOG_PER_BYTE


def _nicest_name(data: bytes, choice: Choice, label: str | None) -> str:
    """Return the declared or else the most usual of the encodings that give the same text."""
    text = data.decode(choice.best.encoding)
    for name in (label, *choice.same):
        if name is not None and data.decode(name) == text:
            return name
    return choice.best.encoding


def _confidence(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def _doubt(choice: Choice) -> str:
    """Say between which encodings there is no deciding, without quoting the text."""
    names = [choice.best, *choice.others[:1]]
    listed = " or ".join(f"{name.encoding} ({name.language})" for name in names)
    return f"its text encoding is in doubt: {listed}; save it as UTF-8"


# Tools


def _is_damaged(text: str) -> bool:
    """Return True for a text that is full of control characters, or has them in its words."""
    without_colours = _COLOURS.sub("", text) if "\x1b" in text else text
    controls = len(_CONTROL.findall(without_colours.rstrip("\x1a")))
    if controls >= 2 and controls * 50 > len(text):
        return True
    late = 0 if text.isascii() else len(_LATE_CONTROL.findall(text))
    return late * 200 > len(text)


def _whole_lines(data: bytes) -> bytes:
    """Return the beginning of a file without its last line, which may be cut off."""
    return data[: data.rfind(b"\n") + 1] or data


def _fits(data: bytes, encoding: str | None) -> bool:
    return encoding is not None and _try_to_decode(data, encoding) is not None


def _try_to_decode(data: bytes, encoding: str) -> str | None:
    """Return the text, or None when the encoding does not fit."""
    try:
        return data.decode(encoding)
    except (LookupError, ValueError):
        return None


def _decode_strictly(data: bytes, encoding: str) -> str:
    try:
        return (
            decode_pairs(data)
            if encoding == "utf-8-of-pairs"
            else data.decode(encoding)
        )
    except ValueError:
        message = f"it is damaged: not all of it is {encoding}; save it as UTF-8"
        raise DocumentError(message) from None
