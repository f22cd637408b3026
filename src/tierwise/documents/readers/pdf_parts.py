"""The parts of a PDF that its pages do not draw: form fields, comments, attached files.

The values of a filled form are objects of their own, and so are comments: text extraction does not
see them. They become lines such as `Article: Oak shelf` and `Comment by Ann: not agreed`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pdfminer.pdfdocument import PDFDocument
from pdfminer.pdfpage import PDFPage
from pdfminer.pdftypes import PDFStream, resolve1
from pdfminer.psparser import PSLiteral
from pdfminer.utils import decode_text

from tierwise.documents.readers.pdf_pages import drawn_text

# bits of a field's flags
_PASSWORD = 1 << 13
_RADIO = 1 << 15
_PUSHBUTTON = 1 << 16
_MOST_PARENTS = 50
_OFF = "Off"
# states of a checkbox that say no more than that it is checked
_CHECKED = {"yes", "on", "1", "true", "checked", "ja", "oui", "si", "sí", "x"}
# annotations without words of their own
_WORDLESS = {"Link", "Popup", "PrinterMark", "TrapNet", "Watermark"}
_MEDIA = {
    "Sound": "a sound",
    "Movie": "a film",
    "Screen": "a film",
    "RichMedia": "a film",
    "3D": "a 3D model",
}
_DRAWN = {"Ink": "handwriting", "Stamp": "a stamp"}
_TAG = re.compile(r"<[^>]*>")


@dataclass(slots=True)
class Parts:
    """The lines by page, from 1, and those of no page under 0.

    `unread` names the parts that are not in the lines, `files` the attached ones.
    """

    lines: dict[int, list[str]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    is_xfa: bool = False  # the form's content is in a format of its own
    is_portfolio: bool = False  # the pages are a cover for the attached files


def read_parts(document: PDFDocument) -> Parts:
    """Read everything that text extraction does not see; name what is damaged."""
    reader = _Reader(document)
    reader.read()
    return reader.parts


class _Reader:
    """Reads the parts of one document, each once."""

    def __init__(self, document: PDFDocument) -> None:
        self.parts = Parts()
        self._document = document
        # by identity: the same object may be reached by the page and by the form
        self._seen: dict[int, Any] = {}
        self._has_values = False

    def read(self) -> None:
        self._try("comments and form fields", self._read_pages)
        self._try("form fields", self._read_form)
        self._try("attached files", self._read_files)

    def _try(self, what: str, read: Callable[[], None]) -> None:
        """Read one part; note it as unread where it is damaged."""
        try:
            read()
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - parsers raise anything on hostile bytes
            self.parts.unread.append(what)

    def _is_new(self, thing: Any) -> bool:
        if id(thing) in self._seen:
            return False
        self._seen[id(thing)] = thing
        return True

    def _add(self, page: int, label: str, text: str) -> None:
        if text:
            self.parts.lines.setdefault(page, []).append(f"{label}: {text}")

    # ---- pages

    def _read_pages(self) -> None:
        for number, page in enumerate(PDFPage.create_pages(self._document), 1):
            found = resolve1(page.annots)
            annotations = [_dictionary(each) for each in _listed(found)]
            widgets = [
                each for each in annotations if _name(each, "Subtype") == "Widget"
            ]
            for widget in sorted(widgets, key=_top_down):
                what = f"a form field on page {number}"
                self._try(what, lambda: self._read_field(widget, number))  # noqa: B023
            for annotation in annotations:
                what = f"a comment on page {number}"
                self._try(what, lambda: self._read_comment(annotation, number))  # noqa: B023

    def _read_comment(self, annotation: dict[str, Any], page: int) -> None:
        kind = _name(annotation, "Subtype")
        if not kind or kind == "Widget" or kind in _WORDLESS:
            return
        if not self._is_new(annotation):
            return
        if kind == "FileAttachment":
            self._add_file(annotation.get("FS"))
        words = _text(annotation.get("Contents")) or _plain(annotation.get("RC"))
        words = words or _text(annotation.get("OverlayText")) or _drawn(annotation)
        author = _one_line(_text(annotation.get("T")))
        if words:
            label = f"Comment by {author}" if author else "Comment"
            self._add(page, label, words)
        elif kind in _MEDIA:
            self.parts.unread.append(f"{_MEDIA[kind]} on page {page}")
        elif kind == "Stamp" and _name(annotation, "Name"):
            self._add(page, "Stamp", _name(annotation, "Name"))
        elif kind in _DRAWN:
            self.parts.unread.append(f"{_DRAWN[kind]} on page {page}")

    # ---- the form

    def _read_form(self) -> None:
        form = _dictionary(self._document.catalog.get("AcroForm"))
        for terminal in _terminals(form.get("Fields"), 0):
            self._read_field(terminal, 0)
        if "XFA" not in form or self._has_values:
            return
        # Such a form is filled in its own format; fields may be there, and empty.
        values = list(_xfa_values(resolve1(form["XFA"])))
        has_fields = any("FT" in _merged(each) for each in self._seen.values())
        is_drawn_by_program = resolve1(self._document.catalog.get("NeedsRendering"))
        self.parts.is_xfa = bool(values or is_drawn_by_program) or not has_fields
        for label, value in values:
            self._add(0, label, value)

    def _read_field(self, widget: dict[str, Any], page: int) -> None:
        """Add the line of a field's value; several widgets can show one field."""
        chain = list(_chain(widget))
        named = next((each for each in chain if "T" in each), widget)
        if not self._is_new(named):
            return
        entries = _merged(widget)
        names = [_one_line(_text(each.get("T"))) for each in reversed(chain)]
        label = _one_line(_text(named.get("TU")))
        label = label or ".".join(name for name in names if name) or "Field"
        kind = _name(entries, "FT")
        flags = resolve1(entries.get("Ff"))
        flags = flags if isinstance(flags, int) else 0
        if kind == "Btn":
            if not flags & _PUSHBUTTON:
                self._add(
                    page, label, _state(named, entries, is_radio=bool(flags & _RADIO))
                )
        elif kind == "Sig":
            self._add(page, label, _signature(_dictionary(entries.get("V"))))
        elif kind == "Tx" and flags & _PASSWORD:
            self.parts.unread.append(f"the password in {label}")
        else:
            value = _value(widget, entries)
            self._has_values = self._has_values or bool(value)
            self._add(page, label, value)

    # ---- attached files

    def _read_files(self) -> None:
        catalog = self._document.catalog
        names = _dictionary(catalog.get("Names"))
        for key, file in _name_tree(names.get("EmbeddedFiles"), 0):
            self._add_file(file, key)
        for file in _listed(resolve1(catalog.get("AF"))):
            self._add_file(file)
        self.parts.is_portfolio = "Collection" in catalog and bool(self.parts.files)

    def _add_file(self, reference: object, key: str = "") -> None:
        found = resolve1(reference)
        if isinstance(found, bytes):
            found = {"F": found}
        file = _dictionary(found)
        if not self._is_new(file):
            return
        named = (_text(file.get(name)) for name in ("UF", "F", "Unix", "Mac", "DOS"))
        name = next((name for name in named if name), key) or "without a name"
        self.parts.files.append(_one_line(name))


# ---- fields -------------------------------------------------------------------------------------


def _terminals(fields: object, depth: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of a form that have no fields below them."""
    for reference in _listed(resolve1(fields)):
        found = _dictionary(reference)
        below = [_dictionary(kid) for kid in _listed(resolve1(found.get("Kids")))]
        if depth < _MOST_PARENTS and any("T" in kid for kid in below):
            yield from _terminals(found.get("Kids"), depth + 1)
        elif found:
            yield found


def _chain(widget: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a widget and the fields above it."""
    entry = widget
    seen: list[dict[str, Any]] = []
    while entry and len(seen) < _MOST_PARENTS:
        if any(entry is before for before in seen):
            return
        yield entry
        seen.append(entry)
        entry = _dictionary(entry.get("Parent"))


def _merged(widget: object) -> dict[str, Any]:
    """Return a widget's entries with those that it inherits."""
    merged: dict[str, Any] = {}
    for entry in reversed(list(_chain(_dictionary(widget)))):
        merged.update(entry)
    return merged


def _value(widget: dict[str, Any], entries: dict[str, Any]) -> str:
    """Return the text or the choice of a field."""
    if "V" not in entries:
        return _plain(entries.get("RV")) or _drawn(widget)
    value = resolve1(entries["V"])
    displayed: dict[str, str] = {}
    for option in _listed(resolve1(entries.get("Opt"))):
        pair = _listed(resolve1(option))
        if len(pair) == 2:
            displayed[_text(pair[0])] = _text(pair[1])
    chosen = [_text(each) for each in (value if isinstance(value, list) else [value])]
    return ", ".join(displayed.get(each, each) for each in chosen if each)


def _state(named: dict[str, Any], entries: dict[str, Any], *, is_radio: bool) -> str:
    """Return the state of a checkbox, or the chosen radio button."""
    buttons = [_dictionary(kid) for kid in _listed(resolve1(named.get("Kids")))]
    buttons = buttons or [named]
    states = [_name(button, "AS") for button in buttons]
    state = _text(entries.get("V"))
    if state in ("", _OFF):
        state = next((each for each in states if each not in ("", _OFF)), "")
    options = [_text(each) for each in _listed(resolve1(entries.get("Opt")))]
    shown = state
    if state.isdecimal() and int(state) < len(options):
        shown = options[int(state)] or state
    elif state in states:
        tooltip = _one_line(_text(buttons[states.index(state)].get("TU")))
        if buttons != [named]:
            shown = tooltip or state
    if is_radio:
        return shown
    if not state:
        return "not checked"
    return "checked" if shown.casefold() in _CHECKED else f"checked ({shown})"


def _signature(signed: dict[str, Any]) -> str:
    """Return who signed; empty where nobody did."""
    if not signed:
        return ""
    named = [
        _one_line(_text(signed.get(name))) for name in ("Name", "Reason", "Location")
    ]
    said = ", ".join(words for words in named if words)
    return f"signed ({said})" if said else "signed"


def _xfa_values(form: object) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a form in the XFA format."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    for part in _listed(form) or [form]:
        stream = resolve1(part)
        if not isinstance(stream, PDFStream):
            continue
        root = etree.fromstring(stream.get_data(), parser)
        if root is None:
            continue
        for data in root.iter("{http://www.xfa.org/schema/xfa-data/1.0/}data"):
            for element in data.iter("*"):
                value = " ".join((element.text or "").split())
                if value and not len(element):
                    yield etree.QName(element).localname, value


# ---- values -------------------------------------------------------------------------------------


def _name_tree(node: object, depth: int) -> Iterator[tuple[str, object]]:
    """Yield the keys and values of a name tree."""
    tree = _dictionary(node)
    pairs = _listed(resolve1(tree.get("Names")))
    for key, value in zip(pairs[::2], pairs[1::2], strict=False):
        yield _text(key), value
    if depth < _MOST_PARENTS:
        for kid in _listed(resolve1(tree.get("Kids"))):
            yield from _name_tree(kid, depth + 1)


def _drawn(annotation: dict[str, Any]) -> str:
    """Return the text of an annotation's appearance."""
    normal = resolve1(_dictionary(annotation.get("AP")).get("N"))
    if isinstance(normal, PDFStream):
        return drawn_text(normal)
    return ""


def _top_down(widget: dict[str, Any]) -> tuple[float, float]:
    """Return a sort key: the higher on the page, the earlier."""
    box = [resolve1(each) for each in _listed(resolve1(widget.get("Rect")))]
    if len(box) == 4 and all(isinstance(each, int | float) for each in box):
        return -round(max(box[1], box[3])), min(box[0], box[2])
    return 0.0, 0.0


def _dictionary(value: object) -> dict[str, Any]:
    found = resolve1(value)
    return found if isinstance(found, dict) else {}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _name(entries: dict[str, Any], key: str) -> str:
    found = resolve1(entries.get(key))
    return _text(found) if isinstance(found, PSLiteral) else ""


def _text(value: object) -> str:
    """Return a PDF value as text; empty for none."""
    found = resolve1(value)
    if isinstance(found, PDFStream):
        found = found.get_data()
    if isinstance(found, PSLiteral):
        found = found.name
    if isinstance(found, bytes):
        return _decoded(found).replace("\r\n", "\n").replace("\r", "\n").strip()
    if isinstance(found, str):
        return found.strip()
    if isinstance(found, bool) or not isinstance(found, int | float):
        return ""
    return str(found)


def _decoded(data: bytes) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        return data[3:].decode("utf-8", "replace")
    if data.startswith(b"\xff\xfe"):
        return data[2:].decode("utf-16-le", "replace")
    return decode_text(data)


def _plain(value: object) -> str:
    """Return rich text, which is XHTML, without its tags."""
    return html.unescape(_TAG.sub(" ", _text(value))).strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())
