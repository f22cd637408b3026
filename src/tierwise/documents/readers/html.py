"""HTML files, converted by markitdown, with the values of their forms.

Text that a browser hides is read, but for scripts, styles and comments: what is hidden depends on
styles. Nothing is fetched; frames and embedded files are listed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.results import Extracted

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_CHARSET = re.compile(
    rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)
_HEAD_BYTES = 2048  # where a file declares its encoding
# elements whose content the conversion does not show as a browser does
_SPECIAL = re.compile(
    r"<(?:input|select|iframe|frame|object|embed|canvas|video|audio|img)\b",
    re.IGNORECASE,
)
# types of fields whose values are no text, or are of programs
_WORDLESS = {"hidden", "submit", "button", "reset", "image", "checkbox", "file"}
_MEDIA = {"video": "a film", "audio": "a sound", "canvas": "a drawing"}
_ADDRESSES = {"object": "data", "embed": "src", "iframe": "src", "frame": "src"}
_MOST_ADDRESS = 100  # letters
_FEW_LETTERS = 20  # with a picture, and no more: the picture is the page
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")


def read_html(data: bytes) -> Extracted:
    """Return the content of an HTML file, in the encoding that it declares."""
    html, notes = decode(data, declared_charset(data))
    content = html_content(html)
    return Extracted(
        content.text,
        notes,
        unread=content.unread,
        unread_pages=content.unread_pages,
        remedy=content.remedy,
    )


def declared_charset(data: bytes) -> str | None:
    """Return the encoding that an HTML page declares in its head."""
    charset = _CHARSET.search(data[:_HEAD_BYTES])
    return charset[1].decode() if charset else None


def html_to_text(html: str) -> str:
    """Convert HTML to Markdown."""
    return html_content(html).text


def html_content(html: str) -> Extracted:
    """Convert HTML to Markdown, and list what is not in it."""
    if not _SPECIAL.search(html):
        return Extracted(_converted(html))
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    unread = _list_unread(soup)
    text = _converted(html)
    if _show_values(soup):
        text = _converted(str(soup))
    words = "".join(_PICTURE.sub("", text).split())
    pictures = [each for each in soup.find_all("img") if not _text_of(each, "alt")]
    unread_pages = []
    remedy = ""
    if pictures and len(words) < _FEW_LETTERS:
        count = len(pictures)
        name = "a picture" if count == 1 else f"{count} pictures"
        unread_pages.append(
            f"{name} in place of text {'is' if count == 1 else 'are'} not read"
        )
        remedy = "run text recognition (OCR) on the pictures"
    return Extracted(
        text,
        unread=tuple(dict.fromkeys(unread)),
        unread_pages=tuple(unread_pages),
        remedy=remedy,
    )


def _converted(html: str) -> str:
    """Return markitdown's text."""
    from markitdown.converters import HtmlConverter

    converted = HtmlConverter().convert_string(html)
    return str(converted.markdown)


def _list_unread(soup: BeautifulSoup) -> list[str]:
    """Name what is in other files, or is no text."""
    unread = []
    for element in soup.find_all([*_ADDRESSES, *_MEDIA]):
        name = element.name
        if name in _MEDIA:
            unread.append(_MEDIA[name])
        elif not element.get("srcdoc"):
            address = _text_of(element, _ADDRESSES[name])
            kind = "frame" if name in ("iframe", "frame") else "embedded file"
            shown = address if len(address) <= _MOST_ADDRESS else f"{address[:60]}…"
            unread.append(f"the {kind} {shown}".strip())
    for field in soup.find_all("input"):
        if _kind_of(field) == "password" and field.get("value"):
            label = _text_of(field, "name")
            unread.append(f"the password in {label}" if label else "a password")
    return unread


def _show_values(soup: BeautifulSoup) -> bool:
    """Write the values of fields into the page; True if there are any."""
    from bs4 import BeautifulSoup

    changed = False
    for field in soup.find_all("input"):
        shown = _shown(field)
        if shown:
            field.insert_after(f"{shown} ")
            changed = True
    for choice in soup.find_all("select"):
        options = choice.find_all("option")
        chosen = [option for option in options if option.has_attr("selected")]
        if not chosen and not choice.has_attr("multiple"):
            chosen = options[:1]
        labels = [_label_of(option) for option in chosen]
        choice.replace_with(f" {', '.join(label for label in labels if label)} ")
        changed = True
    for frame in soup.find_all("iframe"):
        if frame.get("srcdoc"):
            frame.replace_with(BeautifulSoup(str(frame["srcdoc"]), "html.parser"))
            changed = True
    return changed


def _shown(field: Any) -> str:
    """Return what a browser shows in a field."""
    kind = _kind_of(field)
    if kind == "image":
        return _text_of(field, "alt")
    if kind == "radio":
        return "[x]" if field.has_attr("checked") else "[ ]"
    if kind in _WORDLESS or kind == "password":
        return ""
    return _text_of(field, "value")


def _label_of(option: Any) -> str:
    """Return an option's own words; an option that is not closed has the next ones inside."""
    words = option.find_all(string=True, recursive=False)
    return " ".join("".join(words).split())


def _kind_of(field: Any) -> str:
    return _text_of(field, "type").casefold() or "text"


def _text_of(element: Any, attribute: str) -> str:
    """Return an attribute on one line; empty where it is missing."""
    value = element.get(attribute)
    if isinstance(value, list):
        value = " ".join(value)
    return " ".join(str(value or "").split())
