"""Blocks inside a text that are no text: uuencoded files and encrypted PGP messages."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field

_PGP = re.compile(
    r"\\?-{5}BEGIN PGP MESSAGE(?:, PART [\d/]+)?\\?-{5}.*?"
    r"(?:-{5}END PGP MESSAGE(?:, PART [\d/]+)?\\?-{5}|\Z)",
    re.DOTALL,
)
_UU_BEGIN = re.compile(r"(?m)^begin [0-7]{3,4} ([^\r\n]+)\r?\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A file or message that stood inside a text. A PGP message has no name."""

    name: str = field(repr=False)
    data: bytes = field(repr=False)


def cut_pgp(text: str) -> tuple[str, list[Block]]:
    """Return a text without its encrypted PGP messages, and these."""
    if "BEGIN PGP MESSAGE" not in text:
        return text, []
    blocks = [
        Block("", match[0].encode("utf-8", "surrogatepass"))
        for match in _PGP.finditer(text)
    ]
    return _PGP.sub("", text), blocks


def cut_uuencoded(text: str) -> tuple[str, list[Block]]:
    """Return a text without its uuencoded files, and these."""
    pieces: list[str] = []
    blocks: list[Block] = []
    start = 0
    while begin := _UU_BEGIN.search(text, start):
        decoded = _decode_uu(text, begin.end())
        if decoded is None:
            # The word at the begin of a line, or a damaged file: it stays text.
            pieces.append(text[start : begin.end()])
            start = begin.end()
            continue
        data, end = decoded
        pieces.append(text[start : begin.start()])
        blocks.append(Block(begin[1].strip(), data))
        start = end
    pieces.append(text[start:])
    return "".join(pieces), blocks


def _decode_uu(text: str, at: int) -> tuple[bytes, int] | None:
    """Return the file whose lines begin at `at`, and where they end; None when they are none."""
    data = bytearray()
    while at < len(text):
        end = text.find("\n", at)
        following = len(text) if end < 0 else end + 1
        line = text[at:following].rstrip("\r\n")
        at = following
        if line.strip() == "end":
            return bytes(data), at
        try:
            data += binascii.a2b_uu(line)
        except ValueError:
            return None
    return None
