"""Texts with marks in them: text/enriched, and flowed lines."""

from __future__ import annotations

import re

_ENRICHED = re.compile(r"<<|</?([a-z0-9-]+)>", re.IGNORECASE)
_LINE_ENDS = re.compile(r"\n+")
_QUOTES = re.compile(r"(>*) ?(.*)", re.DOTALL)


def unflow(text: str, *, deletes_space: bool) -> str:
    """Join the lines that a mail program wrapped (format=flowed, RFC 3676).

    `deletes_space`: the blank at a wrapped line's end is no part of the text (`delsp=yes`).
    """
    pieces: list[str] = []
    open_depth = -1  # the quotes before the last line, when that one continues
    for line in text.replace("\r\n", "\n").split("\n"):
        quotes, rest = _split_quotes(line)
        depth = len(quotes)
        is_signature = rest == "-- "
        if depth != open_depth or is_signature:
            pieces.append(f"\n{quotes} " if quotes else "\n")
        continues = rest.endswith(" ") and not is_signature
        pieces.append(rest[:-1] if continues and deletes_space else rest)
        open_depth = depth if continues else -1
    return "".join(pieces)[1:]


def _split_quotes(line: str) -> tuple[str, str]:
    """Return the `>` marks of a line, and the text behind them and one blank."""
    match = _QUOTES.fullmatch(line)
    return (match[1], match[2]) if match else ("", line)


def enriched_to_text(text: str) -> str:
    """Return the text of text/enriched (RFC 1896), without its commands."""
    unified = text.replace("\r\n", "\n")
    # One line end is a blank, more of them are one less.
    joined = _LINE_ENDS.sub(lambda ends: "\n" * (len(ends[0]) - 1) or " ", unified)
    pieces: list[str] = []
    start = 0
    last_parameter = joined.rfind("</param>")
    for mark in _ENRICHED.finditer(joined):
        if mark.start() < start:
            continue  # inside of a parameter
        pieces.append(joined[start : mark.start()])
        start = mark.end()
        if mark[0] == "<<":
            pieces.append("<")
        elif mark[0] == "<param>" and start <= last_parameter:
            start = joined.index("</param>", start)
    pieces.append(joined[start:])
    return "".join(pieces)
