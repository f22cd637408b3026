"""A document's outcomes as an HTML page with its text, in which the quoted words are marked.

The page loads nothing and has no script. Whatever a document holds stays text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tierwise.documents.marked_text import Part, marked_parts
from tierwise.records import Document, Outcome, Place
from tierwise.text.escape import escape_control

# How each page begins, so that it is no document of a later run.
BEGINNING = '<!doctype html>\n<meta name="generator" content="tierwise document">\n'
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { border: 1px solid #8888; padding: .2rem .6rem; }
th, td { text-align: left; vertical-align: top; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; }
pre.value { font-family: ui-monospace, monospace; font-size: 13px; }
mark { padding: 0 .1em; } a:target + mark { outline: 3px solid #d60; }
@media (prefers-color-scheme: dark) {
  body { background: #111; color: #eee; } a { color: #9cf; } mark { background: #774; color: #fff; }
}
"""
_PAGE_END = "\f"


def html_page(document: Document) -> str:
    """Return the page: its facts, each step's outcome with its places, and the text."""
    digest = hashlib.sha256(_STYLE.encode()).digest()
    policy = (
        f"default-src 'none'; style-src 'sha256-{base64.b64encode(digest).decode()}'"
    )
    parts = [
        BEGINNING,
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{_text(document.id)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(document.id)}</h1>",
        f"<p>{document.strictest}, language {_text(document.language or 'unknown')}</p>",
    ]
    for outcome in document.outcomes.values():
        parts += _outcome(document, outcome)
    parts += ["<h2>Text</h2><pre>", *_marked_text(document), "</pre></body></html>\n"]
    return "".join(parts)


def _outcome(document: Document, outcome: Outcome) -> Iterator[str]:
    by = f" by {_text(outcome.model)}" if outcome.model else ""
    yield f"<h2>{_text(outcome.step)}: {outcome.status}{by}</h2>"
    if outcome.reason:
        yield f"<p>{_text(outcome.reason)}</p>"
    if outcome.places:
        yield "<table>" + _row("th", ("field", "words", "page", "characters"))
        for place in outcome.places:
            yield _place(document, outcome, place)
        yield "</table>"
    if outcome.value is not None:
        value = json.dumps(outcome.value, ensure_ascii=False, indent=2, default=str)
        yield f'<pre class="value">{_text(value)}</pre>'


def _place(document: Document, outcome: Outcome, place: Place) -> str:
    words = " ".join(document.text[place.start : place.end].split())
    page = "" if place.page is None else str(place.page)
    anchor = _anchor(_name(outcome, place))
    cells = (
        f'<a href="#{anchor}">{_text(place.path)}</a>',
        _text(words),
        page,
        f"{place.start}–{place.end}",
    )
    return _row("td", cells)


def _row(cell: str, contents: Iterable[str]) -> str:
    """Return a row of a table; its contents are HTML already."""
    cells = "".join(f"<{cell}>{content}</{cell}>" for content in contents)
    return f"<tr>{cells}</tr>"


def _marked_text(document: Document) -> Iterator[str]:
    """Yield the text with its marks; the first one of a place has its anchor."""
    places = [
        (place.start, place.end, _name(outcome, place))
        for outcome in document.outcomes.values()
        for place in outcome.places
    ]
    anchored: set[str] = set()
    for part in marked_parts(document.text, places):
        yield _part(part, anchored)


def _part(part: Part, anchored: set[str]) -> str:
    shown = _text(part.text.replace(_PAGE_END, "\n"))
    if not part.quoted_by:
        return shown
    anchors = ""
    for name in part.quoted_by:
        if name not in anchored:
            anchored.add(name)
            anchors += f'<a id="{_anchor(name)}"></a>'
    title = _text(", ".join(part.quoted_by))
    return f'{anchors}<mark title="{title}">{shown}</mark>'


def _name(outcome: Outcome, place: Place) -> str:
    return f"{outcome.step}: {place.path}"


def _anchor(name: str) -> str:
    """Return an id that no name can break out of."""
    return "q" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _text(value: Any) -> str:
    """Return a text as HTML shows it, with what turns its direction escaped."""
    return html.escape(escape_control(str(value)))
