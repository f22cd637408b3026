"""PowerPoint files (.pptx), read by python-pptx: slides with their tables, charts and notes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from tierwise.documents.readers.drawings import chart_text, diagram_texts, paragraphs
from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.unpacking import (
    DAMAGED,
    check_declarations,
    check_office,
)
from tierwise.errors import DocumentError

_REMEDY = "save it as .pdf, or put the missing parts into the text"
_SHORT_TEXT = 20  # letters of a slide
_LARGE = 0.25  # of a slide
_DEEPEST = 20  # groups in groups


def read_pptx(data: bytes) -> Extracted:
    """Return the text of all slides, with their notes.

    Raises DocumentError for an old or encrypted file.
    """
    check_office(data, old=".ppt", new=".pptx")
    check_declarations(data)
    import pptx

    try:
        show = pptx.Presentation(io.BytesIO(data))
    except ValueError as error:
        # another Office format
        raise DocumentError(DAMAGED) from error
    size = (show.slide_width or 1) * (show.slide_height or 1)
    lines: list[str] = []
    unread: list[str] = []
    pages: list[str] = []
    slides = list(show.slides)
    for number, slide in enumerate(slides, 1):
        is_hidden = slide.element.get("show") in ("0", "false")
        reader = _SlideReader(size)
        reader.read(slide.shapes)
        mark = " (hidden)" if is_hidden else ""
        lines += [f"## Slide {number}{mark}", "", *reader.lines]
        lines += _notes(slide)
        lines += _comments(slide)
        place = f"slide {number} of {len(slides)}"
        letters = sum(map(str.isalnum, "".join(reader.lines)))
        if reader.pictures and letters < _SHORT_TEXT:
            pages.append(f"{place} is a picture with little text")
        elif reader.large:
            unread.append(f"a large picture on {place}")
        unread += [f"{what} on {place}" for what in dict.fromkeys(reader.unread)]
    return Extracted(
        "\n".join(lines).strip() if any(_words(lines)) else "",
        unread=tuple(unread),
        unread_pages=tuple(pages),
        remedy=_REMEDY if unread or pages else "",
    )


def _words(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line and not line.startswith("## Slide "))


class _SlideReader:
    """Collects the lines of one slide; what is in none of them is in `unread`."""

    def __init__(self, slide_size: int) -> None:
        self.lines: list[str] = []
        self.unread: list[str] = []
        self.pictures = 0
        self.large = False
        self._slide_size = slide_size

    def read(self, shapes: Any, depth: int = 0) -> None:
        """Add the lines of shapes, and of those in groups."""
        from pptx.enum.shapes import MSO_SHAPE_TYPE

        _choose_versions(shapes._spTree)
        for shape in shapes:
            kind = None
            if hasattr(shape, "shapes"):
                if depth < _DEEPEST:
                    self.read(shape.shapes, depth + 1)
                else:
                    self.unread.append("a group in many groups")
                continue
            if shape.has_text_frame:
                self._text(shape)
                continue
            if shape.has_table:
                self._table(shape.table)
                continue
            try:
                kind = shape.shape_type
            except NotImplementedError:
                kind = None
            if shape.element.tag.endswith("}pic"):
                self._picture(shape, kind == MSO_SHAPE_TYPE.MEDIA)
            elif "graphicFrame" in shape.element.tag:
                self._frame(shape)
            elif shape.element.tag.endswith("}contentPart"):
                self.unread.append("handwriting")

    def _text(self, shape: Any) -> None:
        is_title = shape.is_placeholder and "TITLE" in str(
            shape.placeholder_format.type
        )
        for paragraph in shape.text_frame.paragraphs:
            words = _paragraph_text(paragraph).strip()
            if words:
                mark = "### " if is_title else "  " * paragraph.level
                self.lines.append(f"{mark}{words}")
        self.lines.append("")

    def _table(self, table: Any) -> None:
        for row in table.rows:
            cells = [_cell_text(cell) for cell in row.cells]
            self.lines.append(" | ".join(cells))
        self.lines.append("")

    def _picture(self, shape: Any, is_media: bool) -> None:
        if is_media:
            self.unread.append("a sound or film")
            return
        self.pictures += 1
        covered = (shape.width or 0) * (shape.height or 0)
        self.large = self.large or covered >= _LARGE * self._slide_size
        described = shape._element.xpath("./p:nvPicPr/p:cNvPr/@descr")
        if described and described[0].strip():
            self.lines += [f"Picture: {described[0].strip()}", ""]

    def _frame(self, shape: Any) -> None:
        """Add the words of a diagram (SmartArt) or of a chart; name any other object."""
        diagram = _related(shape, "relIds", "dm")
        chart = _related(shape, "chart", "id")
        words = ""
        label = "Diagram"
        if diagram is not None:
            words = "; ".join(diagram_texts(diagram))
        elif chart is not None:
            label = "Chart"
            words = chart_text(chart)
        if words:
            self.lines += [f"{label}: {words}", ""]
        else:
            self.unread.append("an embedded object")


def _choose_versions(tree: Any) -> None:
    """Put the newest version of alternate content in its place: the library passes all over."""
    for element in list(tree.iter("{*}AlternateContent")):
        choice = element.find("{*}Choice")
        version = choice if choice is not None else element.find("{*}Fallback")
        parent = element.getparent()
        if version is None or parent is None:
            continue
        place = parent.index(element)
        for number, child in enumerate(list(version)):
            parent.insert(place + number, child)
        parent.remove(element)


def _paragraph_text(paragraph: Any) -> str:
    """Return the words of a paragraph, with those of its formulas."""
    pieces: list[str] = []
    for element in paragraph._p.iter("{*}t", "{*}br", "{*}tab"):
        name = element.tag.rpartition("}")[2]
        if name == "t":
            pieces.append(element.text or "")
        else:
            pieces.append("\n" if name == "br" else "\t")
    return "".join(pieces)


def _cell_text(cell: Any) -> str:
    lines = [_paragraph_text(each) for each in cell.text_frame.paragraphs]
    return " ".join(" ".join(lines).split())


def _related(shape: Any, name: str, attribute: str) -> Any:
    """Return the XML that an element of a shape names; None where there is none."""
    from lxml import etree

    for element in shape.element.iter(f"{{*}}{name}"):
        for key, value in element.items():
            if not key.endswith(f"}}{attribute}"):
                continue
            try:
                data = shape.part.related_part(value).blob
            except KeyError:
                return None
            parser = etree.XMLParser(
                resolve_entities=False, no_network=True, load_dtd=False, recover=True
            )
            return etree.fromstring(data, parser)
    return None


def _notes(slide: Any) -> list[str]:
    if not slide.has_notes_slide:
        return []
    frame = slide.notes_slide.notes_text_frame
    text = frame.text.strip() if frame is not None else ""
    return ["Notes:", text, ""] if text else []


def _comments(slide: Any) -> list[str]:
    """Return the comments on a slide, of old and new versions of the program."""
    from lxml import etree

    lines: list[str] = []
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    for relation in slide.part.rels.values():
        if relation.is_external or not relation.reltype.endswith("/comments"):
            continue
        root = etree.fromstring(relation.target_part.blob, parser)
        for comment in root.iter("{*}cm"):
            old = [
                " ".join((each.text or "").split()) for each in comment.iter("{*}text")
            ]
            text = " ".join([*filter(None, old), *paragraphs(comment)])
            if text:
                lines.append(f"Comment: {text}")
    return [*lines, ""] if lines else []
