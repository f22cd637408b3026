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

from tierwise.text.escape import (
    escape_control,
    escape_control_keep_colours,
    escape_formula,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Columns aligned to the right. `tierwise show` and `tierwise models`:
NUMERIC = {
    "documents",
    "attempts",
    "reused",
    "escalations",
    "re-asked",
    "cost",
    "pass rate",
    "p50",
    "p95",
}
NUMERIC |= {"input", "output"}
# `tierwise plan`, and a run's comparison with its plan:
NUMERIC |= {"calls", "prompt tokens", "expected", "at most", "deviation"}
NUMERIC |= {"documents planned", "calls planned", "cost planned"}
# `tierwise check SOURCE`:
NUMERIC |= {"read", "in part", "cannot be read"}
# `tierwise replay`:
NUMERIC |= {"labels", "floor", "strong share", "quality", "gap recovered"}
NUMERIC |= {"CPT50", "CPT80", "APGR", "USD50"}
# `tierwise show` with checks and savings:
NUMERIC |= {"passed", "unscored", "95 % interval", "would have cost", "saved", "share"}


class PlainStream(io.TextIOBase):
    """A stream to the terminal that escapes control characters.

    Documents, names and servers may send escape sequences, which could rewrite the screen.
    """

    def __init__(
        self, stream: TextIO, clean: Callable[[str], str] = escape_control
    ) -> None:
        self.stream = stream
        self._clean = clean

    def write(self, text: str) -> int:
        """Write a text with its control characters escaped."""
        return self.stream.write(self._clean(text))

    def __getattr__(self, name: str) -> Any:
        # `encoding`, `buffer` and the like, which other libraries read from sys.stdout.
        return getattr(self.stream, name)

    def flush(self) -> None:
        """Flush the underlying stream."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Return True if the underlying stream is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the underlying stream."""
        # rich needs it to end quietly when a pipe's reader is gone, as in `… | head`.
        return self.stream.fileno()


@contextmanager
def plain_output() -> Iterator[None]:
    """Escape the control characters of all output while the context is open."""
    stdout = sys.stdout
    stderr = sys.stderr
    sys.stdout = _escaping(stdout)
    sys.stderr = _escaping(stderr)
    try:
        yield
    finally:
        sys.stdout = stdout
        sys.stderr = stderr


def _escaping(stream: TextIO) -> PlainStream:
    # A terminal that is not in UTF-8 shows ? for what it lacks, instead of ending the command.
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    # Help and log lines are coloured on a terminal; a file or a pipe gets no colours.
    if stream.isatty():
        return PlainStream(stream, escape_control_keep_colours)
    return PlainStream(stream, escape_control)


def console(*, err: bool = False) -> Console:
    """Return a rich console that is wide enough for tables without a terminal."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    # None: rich asks the terminal. In a pipe it would take 80, and fold long ids.
    width = None if stream.isatty() else 160
    # Past the escaping: colours and progress bars are control characters too, but rich's own.
    if isinstance(stream, PlainStream):
        stream = stream.stream
    return Console(file=stream, width=width, highlight=False)


def print_table(
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    empty: str = "nothing to show",
) -> None:
    """Print rows with the same keys as a table, without the columns that are always empty."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not rows:
        typer.echo(empty)
        return
    table = Table(title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    # As Text, because rich reads [square brackets] in a string as markup.
    if title:
        table.title = Text(escape_control(title))
    columns = [name for name in rows[0] if _has_values(rows, name)]
    for name in columns:
        # Folded and not cut off, so that an id or a reason can be copied.
        if name in NUMERIC:
            table.add_column(name, justify="right", overflow="fold")
        else:
            table.add_column(name, justify="left", overflow="fold")
    for row in rows:
        table.add_row(*[_cell(row[name]) for name in columns])
    console().print(table)


def _has_values(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    # 0 is a value; an empty text and None are not.
    return any(row[column] not in ("", None) for row in rows)


def _cell(value: Any) -> Text:
    from rich.text import Text

    if value is None:
        return Text("")
    # The console writes past the escaping stream, so the text is escaped here.
    return Text(escape_control(str(value)))


def print_json(data: Any) -> None:
    """Print data as indented JSON, with decimals and dates as text."""
    # UTF-8 and not \uXXXX, so that a person can read it.
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as CSV with a header."""
    if not rows:
        return
    text = io.StringIO()
    # The first row names the columns: all rows have the same keys.
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # A spreadsheet would run a cell such as `=1+1`, which a document may contain.
        writer.writerow({name: escape_formula(value) for name, value in row.items()})
    # The last row ends with a newline already.
    typer.echo(text.getvalue(), nl=False)
