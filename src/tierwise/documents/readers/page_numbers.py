"""Lines that are a page number alone, such as `Page 3 of 9` or `- 3 -`; and pages in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

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


def pages_named(numbers: Sequence[int]) -> str:
    """Return page numbers as ranges: `page 3`, `pages 2-4, 7`."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    parts = ["-".join(str(end) for end in part) for part in ranges]
    word = "pages"
    if len(ranges) == 1 and len(ranges[0]) == 1:
        word = "page"
    return f"{word} {', '.join(parts)}"
