"""`tierwise check SOURCE`: what can be read in a folder, what not, and why, before a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tierwise.cli.output import print_json, print_table
from tierwise.errors import Misuse
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.documents.survey import Remark, Survey

_MOST_KINDS = 40
_MOST_NAMED = 5
_NUMBER = re.compile(r"\d[\d,.]*")


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
    folder = _found(source)
    with status(f"reading {source}"):
        documents = iter_documents(
            folder,
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
        print_table(_rows(result))
        for line in _lines(result.remarks):
            typer.echo(line)
        if others:
            typer.echo(f"Not documents, left out: {others}.")
        typer.echo(_last_line(result))
    if result.waiting or (strict and result.in_part):
        raise typer.Exit(1)


def _found(source: Path) -> Path:
    """Return a path below the current folder or below the project, as flows take it.

    Raises Misuse for the project's own folder, as a run does.
    """
    from tierwise.cli.opening import find_project
    from tierwise.documents.places import check_is_no_project

    try:
        root = find_project().root
    except Misuse:
        return source
    below = root / source
    found = below if not source.exists() and below.exists() else source
    check_is_no_project(found, root)
    return found


def _project_settings() -> dict[str, Any]:
    """Return the project's settings for reading; none outside of a project."""
    from tierwise.cli.opening import find_project

    try:
        project = find_project()
    except Misuse:
        return {}
    return {"incomplete": project.settings.incomplete, "settings": project.reading}


def _lines(remarks: list[Remark]) -> Iterator[str]:
    """Yield each reason once, the most frequent ones first, with its documents below it."""
    for waits, title in ((True, "Cannot be read"), (False, "Read in part")):
        alike: dict[str, list[Remark]] = {}
        for remark in remarks:
            if remark.waits == waits:
                # "row 3" and "row 7" of one reason are one kind
                kind = _NUMBER.sub("#", remark.text)
                alike.setdefault(kind, []).append(remark)
        if not alike:
            continue
        yield f"{title}:"
        kinds = sorted(alike.values(), key=len, reverse=True)
        for same in kinds[:_MOST_KINDS]:
            yield from _kind(same)
        if len(kinds) > _MOST_KINDS:
            yield f"  … and {len(kinds) - _MOST_KINDS:,} more reasons; --json shows all"
        yield ""


def _kind(same: list[Remark]) -> Iterator[str]:
    """Yield the lines of one reason."""
    texts = {remark.text for remark in same}
    more = f" (and {len(texts) - 1:,} more like it)" if len(texts) > 1 else ""
    yield f"  {same[0].text}{more}"
    named = ", ".join(remark.id for remark in same[:_MOST_NAMED])
    if len(same) > _MOST_NAMED:
        named += f" and {len(same) - _MOST_NAMED:,} more"
    yield f"      {named}"


def _rows(result: Survey) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, count in sorted(result.formats.items()):
        row: dict[str, Any] = {"format": name, "read": count.read}
        # A column with nothing in it is left out.
        if result.in_part:
            row["in part"] = count.in_part
        if result.waiting:
            row["cannot be read"] = count.waiting
        rows.append(row)
    return rows


def _last_line(result: Survey) -> str:
    line = f"{plural(result.read, 'document')} can be read"
    if result.in_part:
        line += f", {result.in_part} of them in part"
    if result.waiting:
        return f"{line}; {plural(result.waiting, 'document')} cannot, and will wait."
    return f"{line}."
