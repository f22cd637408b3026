"""Names where a letter or form says them: greeting, title, signature, `Name:`. In English, German and French."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from tierwise.documents.redaction.patterns import Span

_GREETING = r"dear|hi|hello|hallo|liebe[rs]?|sehr geehrte[rs]?|cher|chere|bonjour|bonsoir"
_TITLE = r"mrs?|ms|miss|mx|dr|prof|herrn?|frau|mme|mlle|madame|monsieur"
_CLOSING = (
    r"regards|sincerely|faithfully|yours|thanks|thank you|cheers|wishes|love|best"
    r"|gru(?:ß|ss)(?:en?)?|danke|cordialement|salutations|amicalement|merci"
)
_ENDING = re.compile(rf"\b(?:{_CLOSING})\b", re.IGNORECASE)
_FIELD = r"name|from|customer|kunde|kundin|von|nom"
_PLACES = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        rf"^(?:{_GREETING})\b[ ,]([^\n,!:]{{2,60}})",
        rf"\b(?:{_TITLE})\b\.? ((?-i:[A-Z])[^\n,;:!?()]{{1,40}})",
        rf"^[^\n]{{0,30}}\b(?:{_CLOSING})\b[^\n]{{0,40}}\n\s{{0,20}}(?=([^\n]{{2,60}})$)",
        rf"^[^\n]{{0,30}}\b(?:{_CLOSING})[,.!] ([^\n]{{2,30}})$",
        rf"^\W{{0,9}}(?:{_FIELD})\s{{0,9}}[:|]\s{{0,9}}([^\n|]{{2,60}})",
    )
)
_WORD = re.compile(r"[^\W\d_]\w+")
_JOINT = re.compile(r"[\s'’-]{1,3}")
_INITIALS = re.compile(r"\b(?:[A-Z]\. ?){1,3}\Z")
_NO_NAMES = {
    *(
        "dear",
        "sir",
        "sirs",
        "madam",
        "mr",
        "mrs",
        "ms",
        "miss",
        "mx",
        "dr",
        "prof",
        "team",
        "support",
        "service",
    ),
    *(
        "customer",
        "all",
        "everyone",
        "there",
        "hello",
        "the",
        "this",
        "that",
        "and",
        "for",
        "from",
        "you",
        "your",
    ),
    *(
        "thank",
        "thanks",
        "please",
        "order",
        "subject",
        "damen",
        "herren",
        "herr",
        "herrn",
        "frau",
        "sehr",
        "geehrte",
    ),
    *("madame", "monsieur", "messieurs", "bonjour"),
}
_MOST_WORDS = 5  # a longer phrase is a sentence


def people(text: str) -> Iterator[str]:
    """The phrases of a plain text that name somebody."""
    for place in _PLACES:
        for match in place.finditer(text):
            if not _ENDING.search(match[1]):
                yield " ".join(match[1].split()[:_MOST_WORDS])


def names(phrases: Iterable[str]) -> frozenset[str]:
    """The names in phrases such as `Okafor, Ngozi <n@x.example>`: as written and in capitals.

    `Will` is a name, `will` is none.
    """
    words = {
        word
        for phrase in phrases
        for word in _WORD.findall(re.sub(r"<[^>]*>|\S+@\S+", " ", phrase))
        if word[0].isupper() and word.casefold() not in _NO_NAMES
    }
    return frozenset(words | {word.upper() for word in words})


def named(text: str, words: Collection[str]) -> Iterator[Span]:
    """Where names stand in a text; some in a row are one, with the initials before them.

    Looked up word by word, since a pattern of all names would take for ever where a document has thousands.
    """
    start = end = -1
    for match in _WORD.finditer(text) if words else ():
        if match[0] not in words:
            continue
        if end < 0 or not _JOINT.fullmatch(text, end, match.start()):
            if end >= 0:
                yield Span(start, end, "NAME")
            initials = _INITIALS.search(text, max(0, match.start() - 12), match.start())
            start = initials.start() if initials else match.start()
        end = match.end()
    if end >= 0:
        yield Span(start, end, "NAME")
