"""Bytes become text; the only door to charset-normalizer."""

from __future__ import annotations

import codecs
from contextlib import suppress

from tierwise.errors import DocumentError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Without this list short texts are taken for UTF-16 or for encodings that nobody has used since 1995.
_PLAUSIBLE = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256"]
_PLAUSIBLE += ["cp932", "euc_jp", "gb18030", "big5", "euc_kr", "koi8_r"]
_AS_BROWSERS_DO = {"iso8859-1": "cp1252"}


def decode(data: bytes, declared: str | None = None) -> tuple[str, dict[str, str]]:
    """Text, and metadata on how it was decoded (empty for UTF-8 and for what was declared).

    Tried in order: a byte order mark, the declared encoding, UTF-8, a guess. Raises DocumentError
    when the bytes are not text or in no known encoding.
    """
    if marked := mark(data):
        return _strictly(data, marked), {}
    if b"\0" in data:
        raise DocumentError("it holds binary data, not text; give it the ending of its real format")
    for name in (declared, "utf-8"):
        with suppress(LookupError, ValueError):
            if name:
                encoding = codecs.lookup(name).name
                return data.decode(_AS_BROWSERS_DO.get(encoding, encoding)), {}
    if mostly_utf8(data):
        raise DocumentError("it is damaged: not all of it is UTF-8; save it again")
    encoding, confidence = guess(data)
    return _strictly(data, encoding), {
        "encoding": encoding,
        "encoding_confidence": f"{confidence:.2f}",
    }


def mark(data: bytes) -> str | None:
    """The encoding that a byte order mark names."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def mostly_utf8(data: bytes, *, complete: bool = True) -> bool:
    """Whether the valid longer sequences outnumber the damaged bytes. `complete`: no more data follows."""
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(data, complete)
    damaged = sum("\ud800" <= character <= "\udfff" for character in text)
    return damaged <= len(data) - len(text)


def guess(data: bytes) -> tuple[str, float]:
    """The likeliest encoding and a confidence up to 1. Raises DocumentError when none fits."""
    from charset_normalizer import from_bytes

    matches = list(from_bytes(data, cp_isolation=_PLAUSIBLE))
    if not matches:
        raise DocumentError("its text encoding is not recognised; save it as UTF-8")
    # the library breaks ties by the alphabet, which takes most short Western texts for Polish
    best = min(
        matches, key=lambda m: (m.chaos, -m.coherence, "cp1252" not in m.could_be_from_charset)
    )
    encoding = "cp1252" if "cp1252" in best.could_be_from_charset else best.encoding
    return encoding, 1 - best.chaos


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except ValueError:
        raise DocumentError(
            f"it is damaged: not all of it is {encoding}; save it as UTF-8"
        ) from None
