"""Messages of the program as sentences of a page: they begin with a capital, and name commands."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from tierwise.text.escape import escape_control

# Our own commands alone: a message may quote a stranger's text, which must not become markup.
_COMMAND = re.compile(r"`(tierwise(?: [A-Za-z0-9_.=/-]+)+)`")
_PLAIN_WORD = re.compile(r"[a-z][a-z'-]*[,;]?")
_ENDS = (".", "!", "?", "…", ":")


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
