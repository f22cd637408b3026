"""Drawings of the desk as numbers: bars by day, and rates with their intervals, in SVG units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tierwise.desk.figures import RatePoint, Share, day_name
from tierwise.report.markup import cost, share

WIDTH = 640
HEIGHT = 96
LINE_WIDTH = 200
LINE_HEIGHT = 34
_MARGIN = 3


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, with a tooltip."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class RateLine:
    """Rates over time: points as (x, y, tooltip), the line through them, and the interval's band."""

    points: Sequence[tuple[float, float, str]]
    line: str
    band: str


def bars(days: Sequence[Share]) -> list[Bar]:
    """Return a bar for each day, to the scale of the greatest cost."""
    most = max((float(day.cost_known) for day in days), default=0.0)
    step = WIDTH / max(1, len(days))
    found = []
    for position, day in enumerate(days):
        height = HEIGHT * float(day.cost_known) / most if most else 0.0
        # A day with some cost is visible, however little it is.
        if day.cost_known:
            height = max(height, 1.5)
        title = f"{day.name}: {cost(day.cost_known, day.cost_unknown)}"
        found.append(
            Bar(
                round(position * step + 0.1 * step, 2),
                round(HEIGHT - height, 2),
                round(0.8 * step, 2),
                round(height, 2),
                title,
            )
        )
    return found


def rate_line(points: Sequence[RatePoint], lowest: float) -> RateLine:
    """Return rates as a drawing from `lowest` to 1, with the band of their intervals."""
    placed = []
    upper = []
    lower = []
    step = (LINE_WIDTH - 2 * _MARGIN) / max(1, len(points) - 1)
    for position, point in enumerate(points):
        rate = point.rate.rate
        bounds = point.rate.bounds
        if rate is None or bounds is None:
            continue
        x = round(_MARGIN + position * step, 1)
        low, high = bounds
        title = (
            f"from {day_name(point.day)}: {share(rate)} of {point.rate.n:,} "
            f"({share(low)} to {share(high)})"
        )
        placed.append((x, _height(rate, lowest), title))
        upper.append(f"{x},{_height(high, lowest)}")
        lower.append(f"{x},{_height(low, lowest)}")
    line = " ".join(f"{x},{y}" for x, y, _ in placed)
    return RateLine(placed, line, " ".join([*upper, *reversed(lower)]))


def lowest_of(points: Sequence[RatePoint]) -> float:
    """Return the bottom of a drawing: a rounded rate below every interval."""
    lows = [point.rate.bounds[0] for point in points if point.rate.bounds]
    lowest = min(lows, default=0.0)
    for bottom in (0.9, 0.75, 0.5):
        if lowest >= bottom:
            return bottom
    return 0.0


def _height(value: float, lowest: float) -> float:
    shown = max(value, lowest)
    return round(
        LINE_HEIGHT
        - _MARGIN
        - (LINE_HEIGHT - 2 * _MARGIN) * (shown - lowest) / (1 - lowest),
        1,
    )
