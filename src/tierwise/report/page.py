"""The report as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from tierwise import __version__
from tierwise.report.build import RunReport
from tierwise.report.figures import TrendPoint
from tierwise.report.markup import local_time, markup_environment, share

# the drawing of a trend, in SVG units
_WIDTH = 320
_HEIGHT = 72
_MARGIN = 6


class TrendLine(NamedTuple):
    """A trend as a drawing: known points as (x, y, tooltip), and the ends of the axis in words."""

    name: str
    points: Sequence[tuple[float, float, str]]
    low: str
    high: str
    last: str


def render_page(report: RunReport, documents: Mapping[str, Any]) -> str:
    """Return the report as HTML.

    All text is escaped. Its content security policy forbids every load and every script but its
    own.
    """
    templates = files("tierwise.report") / "templates"
    # inline in the page, so that one file can be mailed and opened without a network
    style = (templates / "report.css").read_text(encoding="utf-8")
    script = (templates / "report.js").read_text(encoding="utf-8")
    template = markup_environment("tierwise.report").get_template("report.html.j2")
    return template.render(
        report=report,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        # in a script element, a document's own </script> would end it; this escapes it
        receipts=htmlsafe_json_dumps(documents, dumps=_compact_json),
        left_out=documents["left_out"],
        lines=trend_lines(report.trend),
        width=_WIDTH,
        height=_HEIGHT,
        made=local_time(time.time()),
        version=__version__,
    )


def trend_lines(points: Sequence[TrendPoint]) -> list[TrendLine]:
    """Return the trends that have at least two known points."""
    costs = [None if point.cost is None else float(point.cost) for point in points]
    deferred = [point.deferred for point in points]
    passed = [point.passed for point in points]
    # amounts have no natural top, so that line scales to its own greatest value
    lines = [
        _trend_line("Cost per document", points, costs, _trend_usd),
        _trend_line("Deferred documents", points, deferred, share, top=1.0),
        _trend_line("Checks passed", points, passed, share, top=1.0),
    ]
    # one point is no trend
    return [line for line in lines if len(line.points) > 1]


def _trend_line(
    name: str,
    runs: Sequence[TrendPoint],
    values: Sequence[float | None],
    words: Callable[[float], str],
    top: float | None = None,
) -> TrendLine:
    """Place one value per run on the drawing, from 0 to `top` or the greatest value."""
    known = [value for value in values if value is not None]
    # never 0, since heights are divided by it
    top = top or max(known, default=0) or 1
    # an unknown value keeps its place, so that a run has the same x in all drawings
    step = (_WIDTH - 2 * _MARGIN) / max(1, len(values) - 1)
    points: list[tuple[float, float, str]] = []
    for position, value in enumerate(values):
        if value is None:
            continue
        # SVG counts y from the top, so a greater value has a smaller y
        height = (_HEIGHT - 2 * _MARGIN) * value / top
        x = _MARGIN + position * step
        y = _HEIGHT - _MARGIN - height
        tooltip = f"{runs[position].run_id}: {words(value)}"
        points.append((round(x, 1), round(y, 1), tooltip))
    last = words(known[-1]) if known else "unknown"
    return TrendLine(name, points, words(0.0), words(top), last)


def _trend_usd(value: float) -> str:
    # a float, as drawings need it; the cost of one document is often below a cent
    decimals = 6 if value < 1 else 2
    return f"{value:.{decimals}f} USD"


def _compact_json(data: Any, **_: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def _csp_hash(text: str) -> str:
    """Return the hash by which the page's policy allows an inline style or script."""
    digest = hashlib.sha256(text.encode()).digest()
    encoded = base64.b64encode(digest).decode()
    return f"sha256-{encoded}"
