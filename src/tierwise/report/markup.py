"""Jinja2 for markup, as the report and the desk use it. The second door to Jinja2."""

from __future__ import annotations

import time
from decimal import Decimal
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tierwise.text.amounts import usd
from tierwise.text.escape import escape_control


@cache
def markup_environment(package: str) -> Environment:
    """Return the environment for the templates of a package.

    Every text of a document passes autoescape and finalize, whatever a template writes.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=_escape_control_characters,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": share,
        "cost": cost,
        "seconds": seconds,
        "when": local_time,
        "number": number,
    }
    return environment


def _escape_control_characters(value: Any) -> Any:
    """Escape what turns a text's direction or cannot be encoded; markup is our own already."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return escape_control(value)
    return value


def share(value: float | None) -> str:
    """Return a share in percent, with a decimal except for 0 and 100 %."""
    if value is None:
        return "unknown"
    # "100.0 %" may be a rounded 99.96 %, so exactly all and none are written without decimals
    if value in (0, 1):
        return f"{value:.0%}"
    return f"{value:.1%}"


def cost(value: Decimal | None, unknown: int = 0) -> str:
    """Return an amount in USD, or `unknown`."""
    return "unknown" if value is None else usd(value, unknown)


def seconds(value: float | None) -> str:
    """Return a latency; a dash where none was measured."""
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.2f} s"
    return f"{value:,.0f} s"


def local_time(at: float | None) -> str:
    """Return a time (seconds since the epoch) in the local time zone."""
    if at is None:
        return "–"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def number(value: float) -> str:
    """Return a count with separated thousands."""
    return f"{value:,}"
