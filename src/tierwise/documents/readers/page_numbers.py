"""Lines that are a page number alone, such as `Page 3 of 9` or `- 3 -`."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"\d+")
_PAGE = "p|s|pg|page|seite|side|sida|página|pagina|pág"
_OF = "of|von|de|di|sur|van|av|af|z"
_PAGE_NUMBER = re.compile(rf"[\W_]*(?:{_PAGE})?[\W_]*(?:(?:{_OF})[\W_]*)?")


def line_key(line: str) -> str:
    """Return a line without spaces and case, numbers replaced: equal for a running header."""
    return _DIGITS.sub("#", "".join(line.split()).casefold())


def is_page_number(key: str) -> bool:
    """Return True if the line with this key has nothing but a page number."""
    return _PAGE_NUMBER.fullmatch(key) is not None
