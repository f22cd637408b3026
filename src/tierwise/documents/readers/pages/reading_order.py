"""The order in which a person reads the lines of a page: columns, then rows, then words.

Lines that stand side by side are one row, as in a receipt or a table. Two blocks of running text
side by side are columns: the left one is read to its end first. A tilt of the page is taken out
before that, as 2 degrees move the right end of a row down by more than a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]  # clockwise, from the top left corner

_LONG = 2.0  # a line of this many times its height shows the page's tilt
_SAME_ROW = 0.5  # of the lower one's height
_COLUMN_LINES = 4  # fewer are no column
_COLUMN_SHARE = (
    0.25  # of the width of the block: running text, not the cells of a table
)
# rows across the page that may stand above and below columns
_MOST_ABOVE = 30
_MOST_BELOW = 8


@dataclass(frozen=True, slots=True)
class Box:
    """An upright box."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        """Return its height."""
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        """Return the height of its middle."""
        return (self.top + self.bottom) / 2


T = TypeVar("T")
_Placed = tuple[Box, int]


def reading_order(quads: Sequence[Quad]) -> list[list[int]]:
    """Return the rows, each with the numbers of its lines from left to right."""
    tilt = page_tilt(quads)
    placed = [(_upright(quad, tilt), number) for number, quad in enumerate(quads)]
    rows: list[list[int]] = []
    for block in _blocks(placed):
        for row in _rows(block):
            numbers = [number for _, number in row]
            rows.append(numbers)
    return rows


def page_tilt(quads: Sequence[Quad]) -> float:
    """Return the tilt of the page's lines in radians, clockwise; 0 where no line shows it."""
    tilts: list[tuple[float, float]] = []
    for quad in quads:
        (x0, y0), (x1, y1) = quad[0], quad[1]
        width = math.hypot(x1 - x0, y1 - y0)
        height = math.hypot(quad[3][0] - x0, quad[3][1] - y0)
        if width >= _LONG * height and width > 0:
            tilts.append((math.atan2(y1 - y0, x1 - x0), width))
    if not tilts:
        return 0.0
    # the median by width: a long line shows the tilt better than a short one
    tilts.sort()
    half = sum(width for _, width in tilts) / 2
    passed = 0.0
    for tilt, width in tilts:
        passed += width
        if passed >= half:
            return tilt
    return tilts[-1][0]


def bounds(points: Sequence[Point]) -> Box:
    """Return the smallest upright box around some points."""
    xs = [x for x, _ in points]
    ys = [y for _, y in points]
    return Box(min(xs), min(ys), max(xs), max(ys))


def _upright(quad: Quad, tilt: float) -> Box:
    cos = math.cos(tilt)
    sin = math.sin(tilt)
    return bounds([(x * cos + y * sin, y * cos - x * sin) for x, y in quad])


def _rows(block: Sequence[_Placed]) -> list[list[_Placed]]:
    """Return the rows of a block from top to bottom, each from left to right."""
    rows: list[list[_Placed]] = []
    for placed in sorted(block, key=lambda each: each[0].middle):
        row = rows[-1] if rows else []
        if row and _is_beside(placed[0], [box for box, _ in row]):
            row.append(placed)
        else:
            rows.append([placed])
    for row in rows:
        row.sort(key=lambda each: each[0].left)
    return rows


def _is_beside(box: Box, row: Sequence[Box]) -> bool:
    """Return True if a line is at the height of a row, and stands on none of its lines."""
    middle = sum(other.middle for other in row) / len(row)
    height = min(box.height, *(other.height for other in row))
    if abs(box.middle - middle) >= _SAME_ROW * height:
        return False
    return all(box.right <= other.left or box.left >= other.right for other in row) or (
        abs(box.middle - middle) < _SAME_ROW * height / 2
    )


def _blocks(placed: Sequence[_Placed]) -> list[list[_Placed]]:
    """Return the blocks in reading order: a page without columns is one."""
    rows = _rows(placed)
    # Above columns there may be a title, and below them a footer, across both.
    most = len(rows) - _COLUMN_LINES
    for above in range(min(most, _MOST_ABOVE) + 1):
        for below in range(min(most - above, _MOST_BELOW) + 1):
            between = rows[above : len(rows) - below]
            columns = _columns(_flat(between))
            if columns:
                parts = [
                    _flat(rows[:above]),
                    *_blocks(columns[0]),
                    *_blocks(columns[1]),
                    *_blocks(_flat(rows[len(rows) - below :])),
                ]
                return [part for part in parts if part]
    return [list(placed)]


def _flat(rows: Sequence[Sequence[T]]) -> list[T]:
    return [each for row in rows for each in row]


def _columns(
    placed: Sequence[_Placed],
) -> tuple[list[_Placed], list[_Placed]] | None:
    """Return two columns of running text; None where the lines are no such columns."""
    if len(placed) < 2 * _COLUMN_LINES:
        return None
    by_left = sorted(placed, key=lambda each: each[0].left)
    width = max(box.right for box, _ in placed) - by_left[0][0].left
    reached = by_left[0][0].right
    for number in range(1, len(by_left)):
        box = by_left[number][0]
        if box.left > reached:
            left = by_left[:number]
            right = by_left[number:]
            if _is_running(left, width) and _is_running(right, width):
                return left, right
        reached = max(reached, box.right)
    return None


def _is_running(column: Sequence[_Placed], width: float) -> bool:
    """Return True for enough lines that are mostly as long as running text."""
    if len(column) < _COLUMN_LINES:
        return False
    typical = median(box.right - box.left for box, _ in column)
    return typical >= _COLUMN_SHARE * width
