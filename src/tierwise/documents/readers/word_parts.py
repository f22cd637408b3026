"""The parts of a Word file that its conversion leaves out.

mammoth, which markitdown uses, reads the elements that it knows and drops all others with their
text: merge fields, moved text, text boxes without a second version for old programs. So elements
with text are renamed to known ones first (`readable`). Headers, footers, comments, charts, diagrams
and imported files are in other members of the archive; they become lines (`read_parts`), as does
text that is still not in the result.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.drawings import chart_text, diagram_texts
from tierwise.documents.readers.html import html_to_text
from tierwise.documents.readers.page_numbers import is_page_number, line_key
from tierwise.errors import DocumentError

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_V = "urn:schemas-microsoft-com:vml"
_MC = "http://schemas.openxmlformats.org/markup-compatibility/2006"
_WORD = (_W, "http://purl.oclc.org/ooxml/wordprocessingml/main")
# read by mammoth, or containers of what is
_KNOWN = {
    *("document", "body", "footnotes", "footnote", "endnotes", "endnote"),
    *("p", "r", "t", "tbl", "tr", "tc", "ins", "smartTag", "hyperlink"),
    *("sdt", "sdtContent", "drawing", "pict", "object", "txbxContent"),
}
_KNOWN_SHAPES = {"group", "rect", "roundrect", "shape", "textbox"}
# what people do not see: deleted text, the reading aid over a word, properties
_SILENT = {"del", "moveFrom", "rt", "pPr", "rPr", "sdtPr", "sectPr"}
_TWIP = 635  # in the unit of pictures
_POINT = 20 * _TWIP
_UNITS = {"pt": 1.0, "in": 72.0, "px": 0.75, "cm": 72 / 2.54, "mm": 7.2 / 2.54}
_LENGTH = re.compile(r"\b(width|height):\s*([\d.]+)(pt|in|px|cm|mm)")
_A4 = (11906, 16838)  # in twips
# shares of the page, and how far from the page's proportions
_SMALL = 0.05
_LARGE = 0.25
_HALF = 0.5
_MOST = 0.9
_LIKE_A_PAGE = 0.1
_SHORT_TEXT = 100  # letters
_LOST_LETTERS = 3  # shorter pieces are found by chance
_OCR = "run text recognition (OCR) on the pictures"
_SAVE = "save the imported files as documents of their own"


@dataclass(slots=True)
class WordParts:
    """The lines to add, and what is in no line; the fields are those of Extracted."""

    lines: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unread_pages: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Relation:
    id: str
    kind: str  # the last word of its type
    target: str  # the member's name


class WordArchive:
    """The members of a Word file, parsed when they are asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            self._names = set(archive.namelist())
        main = [each for each in self.relations("") if each.kind == "officeDocument"]
        self.main = main[0].target if main else "word/document.xml"

    def read(self, name: str) -> bytes:
        """Return a member's bytes; empty where there is no such member."""
        if name not in self._names:
            return b""
        with zipfile.ZipFile(io.BytesIO(self._data)) as archive:
            return archive.read(name)

    def parse(self, name: str, *, strict: bool = False) -> Any:
        """Return a member's XML, as far as it is well-formed unless `strict`.

        No entity is resolved.
        """
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, recover=not strict
        )
        root = etree.fromstring(self.read(name) or b"<empty/>", parser)
        return etree.Element("empty") if root is None else root

    def relations(self, name: str) -> list[_Relation]:
        """Return the members that a member names; those of the whole file for no name."""
        folder, base = posixpath.split(name)
        path = posixpath.join(folder, "_rels", f"{base}.rels")
        found = []
        for each in self.parse(path).iter():
            if _local(each) != "Relationship" or each.get("TargetMode") == "External":
                continue
            target = posixpath.normpath(
                posixpath.join("/", folder, each.get("Target", ""))
            )
            kind = each.get("Type", "").rpartition("/")[2]
            found.append(_Relation(each.get("Id", ""), kind, target.lstrip("/")))
        return found

    def with_members(self, changed: dict[str, bytes]) -> bytes:
        """Return the file with other content for some members."""
        output = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(self._data)) as old,
            zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for info in old.infolist():
                new.writestr(info, changed.get(info.filename, old.read(info)))
        return output.getvalue()


def readable(archive: WordArchive, data: bytes) -> bytes:
    """Return the file with every element that has text under a name that mammoth reads.

    A file without such elements is returned as it is, and so is a member that is not well-formed.
    """
    changed: dict[str, bytes] = {}
    folder = posixpath.dirname(archive.main)
    names = [archive.main]
    names += [
        posixpath.join(folder, name) for name in ("footnotes.xml", "endnotes.xml")
    ]
    for name in names:
        try:
            root = archive.parse(name, strict=True)
        except etree.XMLSyntaxError:
            continue
        # each of them has to be tried
        done = [_show_only_versions(root), _free_text_boxes(root)]
        done += [_rename_unknown(root), _write_choices(root)]
        if any(done):
            changed[name] = etree.tostring(
                root.getroottree(), encoding="utf-8", xml_declaration=True
            )
    return archive.with_members(changed) if changed else data


def read_parts(
    archive: WordArchive, text: str, convert: Callable[[bytes], str]
) -> WordParts:
    """Return what is not in the converted text; `convert` converts an imported Word file."""
    parts = WordParts()
    root = archive.parse(archive.main)
    relations = archive.relations(archive.main)
    _add_lost_text(parts, archive, root, text)
    for kind, label in (("header", "Header"), ("footer", "Footer")):
        for block in _blocks(archive, relations, kind):
            parts.lines.append(f"{label}: {block}")
    for comment in _comments(archive, relations):
        parts.lines.append(comment)
    for relation in relations:
        if relation.kind in ("chart", "chartEx"):
            _add_line(parts, "Chart", chart_text(archive.parse(relation.target)))
        elif relation.kind == "diagramData":
            texts = diagram_texts(archive.parse(relation.target))
            _add_line(parts, "Diagram", "; ".join(texts))
    _add_imported(parts, archive, root, relations, convert)
    _add_embedded(parts, archive, relations)
    _add_pictures(parts, root, text)
    return parts


# ---- making elements readable -------------------------------------------------------------------


def _show_only_versions(root: Any) -> bool:
    """Have the only version of alternate content that has text be the one that is read."""
    changed = False
    for element in list(_all(root, "AlternateContent")):
        choices = [child for child in element if _local(child) == "Choice"]
        fallbacks = [child for child in element if _local(child) == "Fallback"]
        if not choices or not _has_text(choices[0]):
            continue
        if any(_has_text(fallback) for fallback in fallbacks):
            continue
        for fallback in fallbacks:
            element.remove(fallback)
        choices[0].tag = f"{{{_MC}}}Fallback"
        changed = True
    return changed


def _free_text_boxes(root: Any) -> bool:
    """Put the content of text boxes in drawings where it is read."""
    changed = False
    for box in list(_all(root, "txbxContent")):
        around = [_local(each) for each in box.iterancestors()]
        if "textbox" in around or "Choice" in around or "drawing" not in around:
            continue
        drawing = next(
            each for each in box.iterancestors() if _local(each) == "drawing"
        )
        picture = etree.Element(f"{{{_W}}}pict")
        shape = etree.SubElement(picture, f"{{{_V}}}shape")
        etree.SubElement(shape, f"{{{_V}}}textbox").append(box)
        drawing.addnext(picture)
        changed = True
    return changed


def _rename_unknown(root: Any) -> bool:
    """Rename unknown elements around text to one whose content is read."""
    changed = False
    for element in list(root.iter()):
        name = _local(element)
        is_unknown = _space(element) in _WORD and name not in _KNOWN
        if _space(element) == _V:
            is_unknown = name not in _KNOWN_SHAPES
        if is_unknown and _has_text(element) and not _is_silent(element):
            element.tag = f"{{{_W}}}smartTag"
            changed = True
    return changed


def _write_choices(root: Any) -> bool:
    """Write the chosen entries of drop-down form fields, which are numbers in the file."""
    changed = False
    for choices in list(_all(root, "ddList")):
        entries = [_value(each) for each in choices if _local(each) == "listEntry"]
        chosen = "0"
        for name in ("default", "result"):
            chosen = next(
                (_value(each) for each in choices if _local(each) == name), chosen
            )
        run = next(
            (each for each in choices.iterancestors() if _local(each) == "r"), None
        )
        if run is None or not chosen.isdecimal() or int(chosen) >= len(entries):
            continue
        new = etree.Element(f"{{{_W}}}r")
        etree.SubElement(new, f"{{{_W}}}t").text = entries[int(chosen)]
        run.addnext(new)
        changed = True
    return changed


# ---- what is in no text -------------------------------------------------------------------------


def _add_lost_text(
    parts: WordParts, archive: WordArchive, root: Any, text: str
) -> None:
    """Add the pieces of text that the conversion left out, by paragraph."""
    letters = _letters(text)
    folder = posixpath.dirname(archive.main)
    notes = [posixpath.join(folder, f"{kind}notes.xml") for kind in ("foot", "end")]
    roots = [root, *(archive.parse(name) for name in notes)]
    place = 0
    for paragraph in (each for one in roots for each in _all(one, "p")):
        lost = []
        for piece in _pieces(paragraph):
            key = _letters(piece)
            found = letters.find(key, place)
            if found < 0:
                found = letters.find(key)
            if found >= 0:
                place = found
            elif len(key) >= _LOST_LETTERS:
                lost.append(piece.strip())
        line = " ".join(lost)
        if line and line not in parts.lines:
            parts.lines.append(line)
    for element in root.iter():
        if _local(element) == "textpath":
            _add_line(parts, "Text", element.get("string", ""))
        elif _local(element) == "contentPart":
            parts.unread.append("handwriting")


def _blocks(
    archive: WordArchive, relations: Iterable[_Relation], kind: str
) -> Iterator[str]:
    """Yield the texts of headers or footers, each once, without page numbers."""
    seen = set()
    for relation in relations:
        if relation.kind != kind:
            continue
        root = archive.parse(relation.target)
        lines = _paragraph_texts(root)
        lines += [each.get("string", "") for each in _all(root, "textpath")]
        kept = [line for line in lines if line and not is_page_number(line_key(line))]
        block = "\n".join(kept)
        if block and block not in seen:
            seen.add(block)
            yield block


def _comments(archive: WordArchive, relations: Iterable[_Relation]) -> Iterator[str]:
    for relation in relations:
        if relation.kind != "comments":
            continue
        for comment in _all(archive.parse(relation.target), "comment"):
            text = "\n".join(_paragraph_texts(comment))
            author = " ".join(_attribute(comment, "author").split())
            label = f"Comment by {author}" if author else "Comment"
            if text:
                yield f"{label}: {text}"


def _add_imported(
    parts: WordParts,
    archive: WordArchive,
    root: Any,
    relations: Iterable[_Relation],
    convert: Callable[[bytes], str],
) -> None:
    """Add the text of files that Word shows as a part of the document."""
    used = {_attribute(each, "id") for each in _all(root, "altChunk")}
    for relation in relations:
        if relation.kind != "aFChunk" or relation.id not in used:
            continue
        name = posixpath.basename(relation.target)
        text = _imported_text(name, archive.read(relation.target), convert)
        if text:
            parts.lines.append(text)
        else:
            parts.unread_pages.append(f"the imported file {name} is not read")
            parts.remedies.append(_SAVE)
    for _ in _all(root, "subDoc"):
        parts.unread_pages.append("a linked document is not read")
        parts.remedies.append(_SAVE)


def _imported_text(name: str, data: bytes, convert: Callable[[bytes], str]) -> str:
    """Return the text of an imported file; empty where it cannot be read."""
    ending = posixpath.splitext(name)[1].lower()
    try:
        if ending in (".htm", ".html", ".xhtml", ".mht", ".mhtml"):
            if ending.startswith(".mh"):
                return ""
            return html_to_text(decode(data)[0]).strip()
        if ending == ".txt":
            return decode(data)[0].strip()
        if ending in (".docx", ".docm", ".dotx"):
            return convert(data).strip()
    except DocumentError:
        return ""
    return ""


def _add_embedded(
    parts: WordParts, archive: WordArchive, relations: Iterable[_Relation]
) -> None:
    """Name the files that are embedded as objects, such as a table of a spreadsheet."""
    everywhere = list(relations)
    for relation in relations:
        if relation.kind in ("header", "footer"):
            everywhere += archive.relations(relation.target)
    for relation in everywhere:
        if relation.kind in ("oleObject", "package"):
            parts.files.append(posixpath.basename(relation.target))
    if parts.files:
        parts.unread.append(f"the embedded files {', '.join(parts.files)}")


def _add_pictures(parts: WordParts, root: Any, text: str) -> None:
    """Name pictures that are as large as a page, and other large ones."""
    page = _page_size(root)
    whole = 0
    large = 0
    some = 0
    for width, height in _picture_sizes(root):
        share = width * height / (page[0] * page[1])
        proportion = (height / width) / (page[1] / page[0]) if width else 0
        is_like_a_page = abs(proportion - 1) < _LIKE_A_PAGE
        if share >= _MOST or (share >= _HALF and is_like_a_page):
            whole += 1
        elif share >= _LARGE:
            large += 1
        elif share >= _SMALL:
            some += 1
    if len(_letters(_without_pictures(text))) < _SHORT_TEXT:
        # A picture is all there is.
        whole += large + some
        large = 0
    if whole:
        count = "a picture" if whole == 1 else f"{whole} pictures"
        verb = "is" if whole == 1 else "are"
        parts.unread_pages.append(f"{count} in place of text {verb} not read")
        parts.remedies.append(_OCR)
    if large:
        parts.unread.append("a picture" if large == 1 else f"{large} pictures")


def _without_pictures(text: str) -> str:
    """Return Markdown without its pictures."""
    return re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)


def has_words(text: str) -> bool:
    """Return True if a text has more than pictures."""
    return bool(_without_pictures(text).strip())


def _page_size(root: Any) -> tuple[int, int]:
    """Return the width and height of the first page, in the unit of pictures."""
    for size in _all(root, "pgSz"):
        width = _attribute(size, "w")
        height = _attribute(size, "h")
        if width.isdecimal() and height.isdecimal() and int(width) and int(height):
            return int(width) * _TWIP, int(height) * _TWIP
    return _A4[0] * _TWIP, _A4[1] * _TWIP


def _picture_sizes(root: Any) -> Iterator[tuple[float, float]]:
    """Yield the widths and heights of pictures."""
    for drawing in _all(root, "drawing"):
        if not any(True for _ in _all(drawing, "blip")):
            continue
        for extent in _all(drawing, "extent"):
            width = extent.get("cx", "")
            height = extent.get("cy", "")
            if width.isdecimal() and height.isdecimal():
                yield int(width), int(height)
            break
    for data in _all(root, "imagedata"):
        around = [_local(each) for each in data.iterancestors()]
        # an object's picture is its preview; alternate content has it in its drawing, too
        if "object" in around or "Fallback" in around:
            continue
        style = data.getparent().get("style", "")
        lengths = {
            name: float(number) * _UNITS[unit] * _POINT
            for name, number, unit in _LENGTH.findall(style)
        }
        if len(lengths) == 2:
            yield lengths["width"], lengths["height"]


# ---- XML ----------------------------------------------------------------------------------------


def _paragraph_texts(root: Any) -> list[str]:
    """Return the paragraphs of a part, one a line."""
    texts = []
    for paragraph in _all(root, "p"):
        line = "".join(_pieces(paragraph, with_breaks=True))
        texts.append(" ".join(line.split()))
    return [text for text in texts if text]


def _pieces(paragraph: Any, *, with_breaks: bool = False) -> Iterator[str]:
    """Yield the texts of a paragraph, without those of paragraphs inside it."""
    for element in paragraph.iter():
        name = _local(element)
        if name not in ("t", "tab", "br", "cr", "noBreakHyphen"):
            continue
        if _paragraph_of(element) is not paragraph or _is_silent(element):
            continue
        if _is_second_version(element):
            continue
        if name == "t":
            yield element.text or ""
        elif with_breaks:
            yield " "


def _paragraph_of(element: Any) -> Any:
    return next((each for each in element.iterancestors() if _local(each) == "p"), None)


def _is_second_version(element: Any) -> bool:
    """Return True in the version for old programs, where there is another with text."""
    for each in element.iterancestors():
        if _local(each) == "Fallback":
            others = [other for other in each.getparent() if _local(other) == "Choice"]
            return any(_has_text(other) for other in others)
    return False


def _is_silent(element: Any) -> bool:
    if _local(element) in _SILENT:
        return True
    return any(_local(each) in _SILENT for each in element.iterancestors())


def _has_text(element: Any) -> bool:
    return any(
        _space(each) in _WORD and (each.text or "").strip()
        for each in _all(element, "t")
    )


def _all(root: Any, name: str) -> Iterator[Any]:
    """Yield the elements of a name, whatever their namespace."""
    return root.iter(f"{{*}}{name}")  # type: ignore[no-any-return]


def _local(element: Any) -> str:
    if not isinstance(element.tag, str):
        return ""  # a comment, or an instruction to a program
    return element.tag.rpartition("}")[2]


def _space(element: Any) -> str:
    if not isinstance(element.tag, str):
        return ""
    return element.tag.rpartition("}")[0].lstrip("{")


def _attribute(element: Any, name: str) -> str:
    """Return an attribute's value, whatever its namespace."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return str(value)
    return ""


def _value(element: Any) -> str:
    return _attribute(element, "val")


def _letters(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


def _add_line(parts: WordParts, label: str, text: str) -> None:
    if text:
        parts.lines.append(f"{label}: {text}")
