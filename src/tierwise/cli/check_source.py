"""`tierwise check SOURCE`: what can be read in a folder, what not, and why, before a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tierwise.cli.output import print_json, print_table
from tierwise.errors import Misuse
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.documents.survey import Remark, Survey

_MOST_ALIKE = 20  # lines of one format that are printed before the rest is only counted
_MOST_NAMED = 3


def check_source(
    source: Path, text_column: str, *, as_json: bool, strict: bool
) -> None:
    """Read a source as a run does, and print the count by format and each remedy.

    Exits with 1 where a document cannot be read, and with `strict` where one lost a part.
    """
    from tierwise.cli.progress import status
    from tierwise.documents import LeftOut, iter_documents
    from tierwise.documents.survey import survey

    left_out = LeftOut()
    with status(f"reading {source}"):
        documents = iter_documents(
            _found(source),
            sensitivity="restricted",
            text_column=text_column,
            left_out=left_out,
            **_project_settings(),
        )
        result = survey(documents)
    others = left_out.describe()
    if as_json:
        print_json({**result.data(), "left_out": others})
    else:
        for line in _lines(result.remarks):
            typer.echo(line)
        print_table(_rows(result))
        if others:
            typer.echo(f"Not documents, left out: {others}.")
        typer.echo(_last_line(result))
    if result.waiting or (strict and result.in_part):
        raise typer.Exit(1)


def _found(source: Path) -> Path:
    """Return a path below the current folder or below the project, as flows take it."""
    from tierwise.cli.opening import find_project

    if not source.exists():
        try:
            below = find_project().root / source
        except Misuse:
            return source
        if below.exists():
            return below
    return source


def _project_settings() -> dict[str, Any]:
    """Return the project's settings for reading; none outside of a project."""
    from tierwise.cli.opening import find_project

    try:
        project = find_project()
    except Misuse:
        return {}
    return {"incomplete": project.settings.incomplete, "settings": project.reading}


def _lines(remarks: list[Remark]) -> Iterator[str]:
    """Yield a line for each kind of remark, and a count in the place of too many of one format."""
    alike: dict[tuple[bool, str, str], list[str]] = {}
    for remark in sorted(remarks, key=lambda each: each.waits):
        kind = (remark.waits, remark.format, remark.text)
        alike.setdefault(kind, []).append(remark.id)
    counts: Counter[tuple[str, bool]] = Counter()
    for (waits, name, text), ids in alike.items():
        counts[name, waits] += 1
        if counts[name, waits] <= _MOST_ALIKE:
            named = ", ".join(ids[:_MOST_NAMED])
            if len(ids) > _MOST_NAMED:
                named += f" and {len(ids) - _MOST_NAMED:,} more"
            yield f"{named}: {'error' if waits else 'warning'}: {text}"
    for (name, _), count in counts.items():
        if count > _MOST_ALIKE:
            yield f"… and {count - _MOST_ALIKE:,} more of the format {name}; --json shows all"


def _rows(result: Survey) -> list[dict[str, Any]]:
    return [
        {
            "format": name,
            "read": count.read,
            "in part": count.in_part or "",
            "cannot be read": count.waiting or "",
        }
        for name, count in sorted(result.formats.items())
    ]


def _last_line(result: Survey) -> str:
    line = f"{plural(result.read, 'document')} can be read"
    if result.in_part:
        line += f", {result.in_part} of them in part"
    if result.waiting:
        return f"{line}; {plural(result.waiting, 'document')} cannot, and will wait."
    return f"{line}."
