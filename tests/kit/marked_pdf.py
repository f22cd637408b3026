"""Generated PDF files with a marker word in every part, and where each has to be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.kit.pdf_files import PdfFile, literal

_LINE = "{} is a word of this line, which is long enough to be the text of a page of its own."


@dataclass
class Marked:
    """A file under way. `pages` has the markers by page, `parts` those that no page draws."""

    file: PdfFile = field(default_factory=PdfFile)
    pages: dict[str, int] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)  # marker -> the part's name

    def marker(self) -> str:
        """Return a word that no other part has."""
        number = len(self.pages) + len(self.parts)
        return f"MARK{chr(65 + number // 26)}{chr(65 + number % 26)}X"

    def on_page(self) -> str:
        marker = self.marker()
        self.pages[marker] = self.file.size + 1
        return marker

    def in_part(self, name: str) -> str:
        marker = self.marker()
        self.parts[marker] = name
        return marker


def _text(made: Marked) -> None:
    made.file.page(_LINE.format(made.on_page()))


def _rotated(made: Marked) -> None:
    made.file.page(_LINE.format(made.on_page()), entries="/Rotate 180")


def _sideways(made: Marked) -> None:
    words = _LINE.format(made.on_page())
    made.file.page(drawing=f"BT /F1 9 Tf 0 1 -1 0 300 50 Tm ({words}) Tj ET ")


def _note_on_its_side(made: Marked) -> None:
    upright = made.on_page()
    made.pages[made.marker()] = made.pages[upright]
    aside = list(made.pages)[-1]
    drawing = f"BT /F1 9 Tf 0 1 -1 0 560 50 Tm (aside {aside}) Tj ET "
    made.file.page(_LINE.format(upright), drawing=drawing)


def _scan(made: Marked) -> None:
    """The marker is in the picture: the page has to be named."""
    made.on_page()
    made.file.image_page(seed=len(made.pages))


def _scan_with_stamp(made: Marked) -> None:
    marker = made.on_page()
    made.file.image_page(f"Received on 12 May by {marker}", seed=len(made.pages))


def _searchable_scan(made: Marked) -> None:
    marker = made.on_page()
    made.file.image_page(_LINE.format(marker), seed=len(made.pages), text_mode=3)


def _blank(made: Marked) -> None:
    made.file.page()


def _form(made: Marked) -> None:
    text = made.in_part("a form field")
    chosen = made.in_part("a form field")
    label = made.in_part("a form field")
    fields = [
        made.file.field(f"/FT /Tx /T (a{text}b) /V {literal(text)}"),
        made.file.field(f"/FT /Ch /T (c) /V ({chosen})"),
        made.file.field(f"/FT /Btn /T ({label}) /AS /Yes"),
    ]
    made.file.page(_LINE.format(made.on_page()), annotations=fields)


def _comments(made: Marked) -> None:
    kinds = ("FreeText", "Text", "Highlight", "Stamp", "Caret", "Square", "Ink")
    comments = [
        made.file.annotation(
            f"/Subtype /{kind} /Contents ({made.in_part('a comment')})"
        )
        for kind in kinds
    ]
    made.file.page(_LINE.format(made.on_page()), annotations=comments)


def _undrawn_field(made: Marked) -> None:
    made.file.group(f"/FT /Tx /T (u) /V ({made.in_part('a form field')})")


def _attached(made: Marked) -> None:
    """The marker is in the attached file's name, which has to be named."""
    made.file.attach(f"{made.in_part('the attached files')}.txt")


def _table(made: Marked) -> None:
    cells = [made.on_page() for _ in range(9)]
    place = made.pages[cells[0]]
    made.pages.update(dict.fromkeys(cells, place))
    rows = [
        f"BT /F1 9 Tf {60 + 180 * (n % 3)} {700 - 30 * (n // 3)} Td ({cell}) Tj ET "
        for n, cell in enumerate(cells)
    ]
    made.file.page(drawing="".join(rows))


_KINDS: list[Callable[[Marked], None]] = [
    _text,
    _rotated,
    _sideways,
    _note_on_its_side,
    _scan,
    _scan_with_stamp,
    _searchable_scan,
    _blank,
    _form,
    _comments,
    _undrawn_field,
    _attached,
    _table,
]


def marked_pdfs() -> st.SearchStrategy[Marked]:
    """Files of up to eight parts, the first of them a page of text."""

    def build(kinds: list[Callable[[Marked], None]]) -> Marked:
        made = Marked()
        _text(made)
        for kind in kinds:
            kind(made)
        return made

    return st.lists(st.sampled_from(_KINDS), max_size=8).map(build)


def everything() -> bytes:
    """One file with a part of every kind."""
    made = Marked()
    for kind in _KINDS:
        kind(made)
    return made.file.data()
