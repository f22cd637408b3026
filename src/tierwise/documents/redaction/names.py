"""The names of people where a letter or form states them, in English, German and French.

Such as a greeting, a title, a signature, or `Name:`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from tierwise.documents.redaction.patterns import Span

_GREETING = (
    r"dear|hi|hello|hallo|liebe[rs]?|sehr geehrte[rs]?|cher|chere|bonjour|bonsoir"
)
_TITLE = r"mrs?|ms|miss|mx|dr|prof|herrn?|frau|mme|mlle|madame|monsieur"
_CLOSING = (
    r"regards|sincerely|faithfully|yours|thanks|thank you|cheers|wishes|love|best"
    r"|gru(?:ß|ss)(?:en?)?|danke|cordialement|salutations|amicalement|merci"
)
_CLOSING_WORD = re.compile(rf"\b(?:{_CLOSING})\b", re.IGNORECASE)
_FIELD = r"name|from|customer|kunde|kundin|von|nom"
_PLACES = (
    # Dear Ngozi,
    rf"^(?:{_GREETING})\b[ ,]([^\n,!:]{{2,60}})",
    # Mrs Okafor
    rf"\b(?:{_TITLE})\b\.? ((?-i:[A-Z])[^\n,;:!?()]{{1,40}})",
    # Best regards, and the name on the next line
    rf"^[^\n]{{0,30}}\b(?:{_CLOSING})\b[^\n]{{0,40}}\n\s{{0,20}}(?=([^\n]{{2,60}})$)",
    # Thanks, Ngozi
    rf"^[^\n]{{0,30}}\b(?:{_CLOSING})[,.!] ([^\n]{{2,30}})$",
    # Name: Okafor
    rf"^\W{{0,9}}(?:{_FIELD})\s{{0,9}}[:|]\s{{0,9}}([^\n|]{{2,60}})",
)
_PATTERNS = tuple(re.compile(place, re.IGNORECASE | re.MULTILINE) for place in _PLACES)
_WORD = re.compile(r"[^\W\d_]\w+")
_BETWEEN_WORDS = re.compile(r"[\s'’-]{1,3}")
_INITIALS = re.compile(r"\b(?:[A-Z]\. ?){1,3}\Z")
_INITIALS_LENGTH = 12
_ADDRESS = re.compile(r"<[^>]*>|\S+@\S+")
_MOST_WORDS = 5  # a longer phrase is a sentence
# Capitalised words that stand where a name may be.
_OTHER_WORDS = """
    all and bonjour customer damen dear dr everyone for frau from geehrte hello herr herren herrn
    madam madame messieurs miss monsieur mr mrs ms mx order please prof sehr service sir sirs
    subject support team thank thanks that the there this you your
"""
_NOT_NAMES = frozenset(_OTHER_WORDS.split())


def name_phrases(text: str) -> Iterator[str]:
    """Find the phrases of a normalized text that stand where a name is stated."""
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            phrase = match[1]
            if not _CLOSING_WORD.search(phrase):
                yield " ".join(phrase.split()[:_MOST_WORDS])


def names_in(phrases: Iterable[str]) -> frozenset[str]:
    """Return the names in phrases such as `Okafor, Ngozi <n@x.example>`.

    Each is returned as written and in capitals. `Will` is a name, `will` is not.
    """
    names: set[str] = set()
    for phrase in phrases:
        for word in _WORD.findall(_ADDRESS.sub(" ", phrase)):
            if word[0].isupper() and word.casefold() not in _NOT_NAMES:
                names.add(word)
                names.add(word.upper())
    return frozenset(names)


def find_names(text: str, names: Collection[str]) -> Iterator[Span]:
    """Find names in a text; several in a row are one, with the initials before them.

    The text is searched word by word: one pattern of all names would take for ever where a
    document has thousands.
    """
    if not names:
        return
    name: Span | None = None
    for match in _WORD.finditer(text):
        if match[0] not in names:
            continue
        if name and _BETWEEN_WORDS.fullmatch(text, name.end, match.start()):
            name = name._replace(end=match.end())
            continue
        if name:
            yield name
        start = _start_with_initials(text, match.start())
        name = Span(start, match.end(), "NAME")
    if name:
        yield name


def _start_with_initials(text: str, start: int) -> int:
    """Return the start of the initials before a name, or the name's own start."""
    initials = _INITIALS.search(text, max(0, start - _INITIALS_LENGTH), start)
    return initials.start() if initials else start
