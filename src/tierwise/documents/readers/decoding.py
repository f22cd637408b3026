"""Text decoding: bytes become text. The only door to charset-normalizer."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from tierwise.errors import DocumentError

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Without this list, short texts are taken for UTF-16 or for encodings that are long out of use.
_PLAUSIBLE = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256"]
_PLAUSIBLE += ["cp932", "euc_jp", "gb18030", "big5", "euc_kr", "koi8_r"]
_AS_BROWSERS_DO = {"iso8859-1": "cp1252"}
BINARY = "it holds binary data, not text; give it the ending of its real format"


def decode(data: bytes, declared: str | None = None) -> tuple[str, dict[str, str]]:
    """Return the text, and metadata about a guessed encoding.

    The metadata is empty unless the encoding is a guess. Tried in order: a byte order mark, the
    declared encoding, UTF-8, a guess. Raises DocumentError when the bytes are not text or in no
    known encoding.
    """
    marked = byte_order_mark(data)
    if marked:
        return _decode_strictly(data, marked), {}
    if b"\0" in data:
        raise DocumentError(BINARY)
    for name in (declared, "utf-8"):
        text = _try_to_decode(data, name) if name else None
        if text is not None:
            return text, {}
    if is_mostly_utf8(data):
        # A guess would turn most of the text into nonsense because of a few bad bytes.
        raise DocumentError("it is damaged: not all of it is UTF-8; save it again")
    encoding, notes = guess_encoding(data)
    return _decode_strictly(data, encoding), notes


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


def guess_encoding(data: bytes) -> tuple[str, dict[str, str]]:
    """Return the likeliest encoding, and metadata that name it with a confidence up to 1.

    Raises DocumentError when no encoding fits.
    """
    from charset_normalizer import from_bytes

    matches = list(from_bytes(data, cp_isolation=_PLAUSIBLE))
    if not matches:
        raise DocumentError("its text encoding is not recognised; save it as UTF-8")
    best = min(matches, key=_likelihood)
    encoding = "cp1252" if "cp1252" in best.could_be_from_charset else best.encoding
    confidence = 1 - best.chaos
    return encoding, {"encoding": encoding, "encoding_confidence": f"{confidence:.2f}"}


def _likelihood(match: CharsetMatch) -> tuple[float, float, bool]:
    """Return a sort key, the likeliest first.

    The library breaks ties by the alphabet, which takes most short Western texts for Polish.
    """
    return match.chaos, -match.coherence, "cp1252" not in match.could_be_from_charset


def _try_to_decode(data: bytes, name: str) -> str | None:
    """Return the text, or None when the encoding is unknown or does not fit."""
    try:
        encoding = codecs.lookup(name).name
        return data.decode(_AS_BROWSERS_DO.get(encoding, encoding))
    except (LookupError, ValueError):
        return None


def _decode_strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except ValueError:
        message = f"it is damaged: not all of it is {encoding}; save it as UTF-8"
        raise DocumentError(message) from None
