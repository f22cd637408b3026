"""The plain and the HTML version of one text: mostly equal, sometimes not."""

from __future__ import annotations

import re
import unicodedata

# What is no text: pictures, link targets, addresses of the web, names of embedded pictures.
# Lengths are limited, as a search that fails would take the square of a line's length.
_NO_TEXT = re.compile(
    r"!\[[^\]\n]{0,500}\]\([^)\n]{0,2000}\)"
    r"|(?<=\])\([^)\n]{0,2000}\)"
    r"|\[(?:cid|image):[^\]\n]{0,500}\]"
    r"|\b(?:https?|ftp|mailto|cid|tel):[^\s>)\]]*"
    r"|\bwww\.[^\s>)\]]*",
    re.IGNORECASE,
)
_PICTURE = re.compile(r"!\[[^\]\n]{0,500}\]\([^)\n]{0,2000}\)")
_EMPTY_LINK = re.compile(r"\[\s{0,500}\]\([^)\n]{0,2000}\)")
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u200b-\u200f\u2060-\u2064\ufeff\\\\]")
# A letter of a script without spaces, or a word or number.
_WORD = re.compile(
    "[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    r"|[^\W_]+(?:[.,:/'][^\W_]+)*"
)
_LINK = re.compile(r"https?://|www\.|\]\(", re.IGNORECASE)
_ABOUT_HTML = re.compile(
    r"\bx?html\b|browser|web ?mail|mime\b|rich[ -]text|plain[ -]?text"
    r"|\be?-?mail[ -]?(?:program|client|reader|software|app)",
    re.IGNORECASE,
)
_TO_A_LINK = re.compile(
    r"online|click|view|klick|ansicht|cliqu|afficher|clic|ver\b", re.IGNORECASE
)
_MOST_PLACEHOLDER_WORDS = 40
_ONLY_IN_HTML = "Only in the HTML version of this message:"
_ONLY_IN_PLAIN = "Only in the plain text version of this message:"


def has_text(text: str) -> bool:
    """Return True if a text holds more than blanks and embedded pictures."""
    words = _EMPTY_LINK.sub("", _PICTURE.sub("", text))
    return bool(_INVISIBLE.sub("", words).strip())


def merge_versions(plain: str, rich: str) -> str:
    """Return one text that holds every word of both versions.

    That is the plain one where it lacks nothing, and the rich one (HTML as text) where the plain
    one is a placeholder or a part of it. Otherwise the lines of one that the other lacks follow it.
    """
    if not has_text(plain):
        return rich if has_text(rich) else plain
    if not has_text(rich):
        return plain
    plain_words = words_of(plain)
    rich_words = words_of(rich)
    only_rich = _telling(rich_words - plain_words)
    only_plain = _telling(plain_words - rich_words)
    if not only_rich:
        return plain
    if not only_plain or _is_placeholder(plain, plain_words, only_plain):
        return rich
    if len(only_rich) > 2 * len(only_plain):
        return _with_rest(rich, _ONLY_IN_PLAIN, lines_with_more(plain, rich_words))
    return _with_rest(plain, _ONLY_IN_HTML, lines_with_more(rich, plain_words))


def lines_with_more(text: str, known: frozenset[str]) -> str:
    """Return the lines of a text that hold a word that is not among the known ones."""
    lines = [line for line in text.splitlines() if _telling(words_of(line) - known)]
    return "\n".join(lines)


def words_of(text: str) -> frozenset[str]:
    """Return the words and numbers of a text, in one spelling."""
    visible = _INVISIBLE.sub("", _NO_TEXT.sub(" ", text))
    folded = unicodedata.normalize("NFKC", visible).casefold().replace("’", "'")
    return frozenset(_WORD.findall(folded))


def _telling(words: frozenset[str]) -> frozenset[str]:
    """Leave out words such as `it` and `of`, which say nothing where they alone differ."""
    return frozenset(
        word
        for word in words
        if len(word) > 2 or not (word.isascii() and word.isalpha())
    )


def _is_placeholder(
    plain: str, words: frozenset[str], only_here: frozenset[str]
) -> bool:
    """Return True for a text that only says where the real one is.

    It is short, has little in common with the other version, has no number outside of links, and
    is about HTML, browsers or a link. Real messages hold numbers, or repeat themselves in HTML.
    """
    if len(words) > _MOST_PLACEHOLDER_WORDS or len(only_here) <= len(words) / 2:
        return False
    if any(character.isdigit() for word in words for character in word):
        return False
    if _ABOUT_HTML.search(plain):
        return True
    return bool(_LINK.search(plain) and _TO_A_LINK.search(plain))


def _with_rest(text: str, label: str, rest: str) -> str:
    return f"{text.rstrip()}\n\n{label}\n{rest}"
