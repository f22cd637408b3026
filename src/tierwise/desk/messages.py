"""Messages of the program as sentences of a page: they begin with a capital, and name commands."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from tierwise.report.causes import REMEDIES
from tierwise.text.escape import escape_control

# Our own commands alone: a message may quote a stranger's text, which must not become markup.
_COMMAND = re.compile(r"`(tierwise(?: [A-Za-z0-9_.=/-]+)+)`")
_PLAIN_WORD = re.compile(r"[a-z][a-z'-]*[,;]?")
_TICKED = re.compile(r"`([^`\n]+)`")
_ENDS = (".", "!", "?", "…", ":")


def unticked(message: str) -> str:
    """Return a message with quotation marks in the place of backticks, for a page's plain text."""
    return _TICKED.sub(r"“\1”", message)


def said(message: str) -> Markup:
    """Return a message as a sentence; commands of tierwise in backticks are set as code.

    A first word that may be a name, such as a file's, stays as it is.
    """
    text = escape_control(message).strip()
    first = text.partition(" ")[0]
    if _PLAIN_WORD.fullmatch(first):
        text = text[0].upper() + text[1:]
    if text and not text.endswith(_ENDS):
        text += "."
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def cause_title(cause: str | None) -> str:
    """Return why a document waits, in words; the cause itself where it is another version's."""
    for known, remedy in REMEDIES.items():
        if known == cause:
            return remedy.title
    return cause or ""
