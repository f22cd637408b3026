"""`tierwise report`: one HTML page about one run or a period."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import OptionalRunArgument
from tierwise.errors import LedgerError, Misuse
from tierwise.text.private import open_private, private_folder

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, RunRow

_SPAN = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def report(
    run: OptionalRunArgument = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN", help="All runs of the last 12h, 7d or 4w, not one run."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The file to write; default: .tierwise/reports/RUN.html.",
        ),
    ] = None,
    with_answers: Annotated[
        bool,
        typer.Option(
            "--with-answers", help="Include answers to confidential documents too."
        ),
    ] = False,
    open_it: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Write an HTML report about one run or a period.

    `tierwise report` is about the newest run that did something, `tierwise report --since 7d` about a week. The page
    has cost, savings and quality, checks with their confidence intervals, certificates, latencies,
    errors, the plan, trends, what needs attention, and details of every document. It is one file
    that loads nothing and sends nothing, so it can be mailed or printed. Prints the file's path.

    For confidential and restricted documents it shows the id, the route and the passed checks, but
    no answer and no reason that may quote one. `--with-answers` includes them.
    """
    if run and since:
        raise Misuse("name a run or give --since, not both")
    from tierwise.cli.reporting import read_report
    from tierwise.cli.waiting import after_newest
    from tierwise.report.document_rows import document_rows
    from tierwise.report.page import render_page

    project = find_project()
    with open_ledger(project) as ledger:
        if since:
            runs = _runs_since(ledger, since)
        else:
            runs = [ledger.runs.resolve(run or "latest")]
        figures = read_report(ledger, runs, project)
        documents = document_rows(ledger, runs, with_answers=with_answers)
        html = render_page(figures, documents)
        note = ""
        if run is None and since is None:
            note = after_newest(ledger, project, runs[0])
    # The same command writes the same file, so a bookmark stays valid.
    name = f"since-{since}" if since else runs[0].id
    path = out or project.root / ".tierwise" / "reports" / f"{name}.html"
    _write(path, html)
    # Alone on stdout, for `open $(tierwise report)`.
    typer.echo(path)
    if note:
        typer.echo(note, err=True)
    if open_it:
        typer.launch(path.resolve().as_uri())


def _runs_since(ledger: Ledger, span: str) -> list[RunRow]:
    """Return the runs of a span of time. Raises Misuse for a misspelt span, or without a run."""
    match = _SPAN.fullmatch(span)
    if match is None:
        raise Misuse(f"--since takes a span such as 12h, 7d or 4w; not '{span}'")
    hours = int(match[1]) * _HOURS[match[2]]
    runs = ledger.runs.since(time.time() - 3600 * hours)
    if not runs:
        raise Misuse(
            f"no run started in the last {span}; `tierwise runs` lists them all"
        )
    return runs


def _write(path: Path, html: str) -> None:
    try:
        private_folder(path.parent)
        # A page that is there already keeps the rights that a person gave it.
        with open(path, "w", encoding="utf-8", opener=open_private) as page:
            page.write(html)
    except OSError as error:
        raise LedgerError(f"the report cannot be written: {error}") from None
