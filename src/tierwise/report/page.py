"""The report as one HTML file that loads nothing. The second door to Jinja2, for markup instead of prompts."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from tierwise import __version__
from tierwise.report.build import Report
from tierwise.report.figures import TrendPoint
from tierwise.text.amounts import usd
from tierwise.text.escape import escape_control

# of a trend's drawing
_WIDTH = 320
_HEIGHT = 72
_EDGE = 6


class Line(NamedTuple):
    """A trend as a drawing: the points that are known, as (x, y, what to say), and the axis' ends in words."""

    name: str
    points: Sequence[tuple[float, float, str]]
    low: str
    high: str
    last: str


def page(report: Report, receipts: Mapping[str, Any]) -> str:
    """The report as HTML. All text is escaped, and its policy forbids every load and every script but its own."""
    templates = files("tierwise.report") / "templates"
    style, script = (
        (templates / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            style_hash=_hash(style),
            script_hash=_hash(script),
            receipts=htmlsafe_json_dumps(receipts, dumps=_compact),
            left_out=receipts["left_out"],
            lines=trend_lines(report.trend),
            width=_WIDTH,
            height=_HEIGHT,
            made=when(time.time()),
            version=__version__,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tierwise.report"),
        autoescape=True,
        finalize=_spelt_out,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": share,
        "cost": cost,
        "seconds": seconds,
        "when": when,
        "number": number,
    }
    return environment


def _spelt_out(value: Any) -> Any:
    """A text without what turns its direction or has no bytes; markup is ours already."""
    return (
        escape_control(value) if isinstance(value, str) and not isinstance(value, Markup) else value
    )


def trend_lines(points: Sequence[TrendPoint]) -> list[Line]:
    """The trends that have at least two points."""
    lines = [
        _line(
            "Cost a document",
            points,
            [None if p.cost is None else float(p.cost) for p in points],
            _amount,
        ),
        _line("Deferred documents", points, [p.deferred for p in points], share, most=1.0),
        _line("Checks passed", points, [p.passed for p in points], share, most=1.0),
    ]
    return [line for line in lines if len(line.points) > 1]


def _line(
    name: str,
    runs: Sequence[TrendPoint],
    values: Sequence[float | None],
    told: Any,
    most: float | None = None,
) -> Line:
    top = most or max((value for value in values if value is not None), default=0) or 1
    across = (_WIDTH - 2 * _EDGE) / max(1, len(values) - 1)
    points = [
        (
            round(_EDGE + i * across, 1),
            round(_HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * value / top, 1),
            f"{runs[i].run_id}: {told(value)}",
        )
        for i, value in enumerate(values)
        if value is not None
    ]
    known = [value for value in values if value is not None]
    return Line(name, points, told(0.0), told(top), told(known[-1]) if known else "unknown")


def share(value: float | None) -> str:
    """A share in percent, with a decimal where it matters."""
    if value is None:
        return "unknown"
    return f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def cost(value: Decimal | None, unknown: int = 0) -> str:
    """USD, or `unknown`."""
    return "unknown" if value is None else usd(value, unknown)


def seconds(value: float | None) -> str:
    """A latency; nothing where none was measured."""
    return "–" if value is None else f"{value:.2f} s" if value < 100 else f"{value:,.0f} s"


def when(at: float | None) -> str:
    """A time (seconds since the epoch) here."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def number(value: float) -> str:
    """A count with its thousands apart."""
    return f"{value:,}"


def _amount(value: float) -> str:
    return f"{value:.6f} USD" if value < 1 else f"{value:.2f} USD"


def _compact(data: Any, **_: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
