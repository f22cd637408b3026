"""The words of drawings in Office files: charts and diagrams of Word, Excel and PowerPoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Of a series: where its points have their names and their values.
_NAMES = ("cat", "xVal")
_VALUES = ("val", "yVal", "bubbleSize")
_MOST_POINTS = 10_000


def chart_text(root: Any) -> str:
    """Return a chart's titles, then each series with its names and values."""
    words = paragraphs(root)
    series = list(_all(root, "ser"))
    for each in series:
        values = _series(each)
        if values:
            words.append(values)
    if not series:
        # the charts of Office 2016 and later, such as waterfalls
        words += [_text(each) for each in _all(root, "v") if _text(each)]
        words += [_text(each) for each in _all(root, "pt") if _text(each)]
    return "; ".join(words)


def diagram_texts(root: Any) -> list[str]:
    """Return the texts of a diagram's shapes (SmartArt), one for each shape."""
    shapes = [" ".join(paragraphs(point)) for point in _all(root, "pt")]
    return [text for text in shapes if text]


def paragraphs(root: Any) -> list[str]:
    """Return the paragraphs of a drawing; the pieces of a line in several formats are one."""
    found: list[str] = []
    seen_pieces: set[Any] = set()
    for paragraph in _all(root, "p"):
        pieces = list(_all(paragraph, "t"))
        seen_pieces.update(pieces)
        found.append("".join(piece.text or "" for piece in pieces))
    # some programs write texts without paragraphs
    found += [piece.text or "" for piece in _all(root, "t") if piece not in seen_pieces]
    lines = [" ".join(text.split()) for text in found]
    return [line for line in lines if line]


def _series(series: Any) -> str:
    """Return a series as `North: May 240, June 260`."""
    name = ""
    for element in series:
        if _local(element) == "tx":
            name = ", ".join(_text(each) for each in _all(element, "v") if _text(each))
    names = _points(series, _NAMES)
    values = _points(series, _VALUES)
    pairs = [
        f"{names.get(place, '')} {values.get(place, '')}".strip()
        for place in sorted(names | values)
    ]
    listed = ", ".join(pair for pair in pairs if pair)
    return f"{name}: {listed}" if name and listed else name or listed


def _points(series: Any, kinds: tuple[str, ...]) -> dict[int, str]:
    """Return the saved values of a series' points by their place."""
    found: dict[int, list[str]] = {}
    for element in series:
        if _local(element) not in kinds:
            continue
        as_shown = _dates(element)
        for number, point in enumerate(_all(element, "pt")):
            place = point.get("idx", "")
            value = " ".join(_text(each) for each in _all(point, "v"))
            if value and number < _MOST_POINTS:
                at = int(place) if place.isdecimal() else number
                found.setdefault(at, []).append(as_shown(value))
    return {place: " ".join(values) for place, values in found.items()}


def _dates(element: Any) -> Any:
    """Return what makes dates of the numbers of an axis of dates, and leaves other values."""
    formats = [_text(code) for code in _all(element, "formatCode")]
    try:
        from openpyxl.styles.numbers import is_date_format
        from openpyxl.utils.datetime import from_excel
    except ImportError:
        return str
    if not any(code != "General" and is_date_format(code) for code in formats):
        return str

    def as_date(value: str) -> str:
        try:
            moment = from_excel(float(value))
        except (ValueError, OverflowError):
            return value
        return str(moment).removesuffix(" 00:00:00")

    return as_date


def _text(element: Any) -> str:
    return " ".join((element.text or "").split())


def _all(root: Any, name: str) -> Iterator[Any]:
    """Yield the elements of a name, whatever their namespace."""
    return root.iter(f"{{*}}{name}")  # type: ignore[no-any-return]


def _local(element: Any) -> str:
    if not isinstance(element.tag, str):
        return ""  # a comment, or an instruction to a program
    return str(element.tag.rpartition("}")[2])
