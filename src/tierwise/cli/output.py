"""Terminal output: tables, JSON and CSV. The only place that prints."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

from tierwise.text.escape import escape_control, escape_control_keep_colours, escape_formula

if TYPE_CHECKING:
    from rich.console import Console

NUMERIC = {
    "documents",
    "attempts",
    "reused",
    "escalations",
    "cost",
    "pass rate",
    "p50",
    "p95",
    "input",
    "output",
}
NUMERIC |= {"calls", "prompt tokens", "expected", "at most", "deviation"}
NUMERIC |= {"documents planned", "calls planned", "cost planned"}
NUMERIC |= {
    "labels",
    "floor",
    "strong share",
    "quality",
    "gap recovered",
    "CPT50",
    "CPT80",
    "APGR",
    "USD50",
}
NUMERIC |= {"passed", "unscored", "95 % interval", "would have cost", "saved", "share"}


class PlainStream(io.TextIOBase):
    """Standard output or error, through which no text of others controls the terminal."""

    def __init__(self, stream: TextIO, clean: Callable[[str], str] = escape_control) -> None:
        self.stream = stream
        self._clean = clean

    def write(self, text: str) -> int:
        """Write a text, its control characters spelt out."""
        return self.stream.write(self._clean(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def flush(self) -> None:
        """Flush the stream behind."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Whether a person is looking."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """The number of the file behind; rich needs it where a reader goes, as in `… | head`."""
        return self.stream.fileno()


@contextmanager
def plain_output() -> Iterator[None]:
    """Let nothing that a document, a name or a server holds control the terminal."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        PlainStream(stream, escape_control_keep_colours if stream.isatty() else escape_control)
        for stream in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def console(*, err: bool = False) -> Console:
    """A rich console that is wide enough for tables when the output is not a terminal."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    raw = (
        stream.stream if isinstance(stream, PlainStream) else stream
    )  # colours and bars are rich's own
    return Console(file=raw, width=None if stream.isatty() else 160, highlight=False)


def print_table(
    rows: Sequence[Mapping[str, Any]], *, title: str = "", empty: str = "nothing to show"
) -> None:
    """Rows of equal keys as a table; columns that are empty in every row are left out."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not rows:
        typer.echo(empty)
        return
    table = Table(
        title=Text(escape_control(title)) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    columns = [name for name in rows[0] if any(row[name] not in ("", None) for row in rows)]
    for name in columns:
        table.add_column(name, justify="right" if name in NUMERIC else "left", overflow="fold")
    for row in rows:
        table.add_row(
            *(Text("" if row[name] is None else escape_control(str(row[name]))) for name in columns)
        )
    console().print(table)


def print_json(data: Any) -> None:
    """Data as indented JSON; decimals and dates as text."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV with a header; what a spreadsheet would take for a formula is marked as text."""
    if rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: escape_formula(value) for name, value in row.items()} for row in rows
        )
        typer.echo(text.getvalue(), nl=False)
