"""`tierwise audit`: the tamper-evident audit trail, exported and verified."""

from __future__ import annotations

import datetime
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from tierwise.cli.opening import open_ledger
from tierwise.cli.options import AsJson, command_group
from tierwise.cli.output import print_json
from tierwise.errors import LedgerError, Misuse
from tierwise.text.private import open_private

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierwise.audit.verify import Verification
    from tierwise.ledger import Ledger

_MOST_NOTES = 5  # lines
audit = command_group("Export and verify the tamper-evident audit trail.")


@audit.command("export")
def export(
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Only this run: an id, or `latest`."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="DATE", help="Only runs from this date or time on."
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help="jsonl, or csv for a spreadsheet."
        ),
    ] = "jsonl",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="A file; default: standard output."
        ),
    ] = None,
) -> None:
    """Write one record for each run, attempt, outcome and decision.

    Labels and deletions are included. Each record carries the SHA-256 of the one before. The last
    record counts them and names the newest seal of the ledger. `tierwise audit verify FILE` then
    finds any change, in the file or in the ledger. The trail has hashes of documents, prompts and
    answers, but not their texts.
    """
    from tierwise.audit.files import write_trail
    from tierwise.ledger.people.chain import Scope

    if form not in ("jsonl", "csv"):
        raise Misuse(f"there is no format '{form}'; use jsonl or csv")
    with open_ledger() as ledger, _opened(output) as file:
        scope = Scope(ledger.runs.resolve(run).id if run else None, _seconds(since))
        # A run that is never ended is never sealed, and could be changed without a trace.
        _end_crashed(ledger)
        newest_seal = None
        for newest_seal in ledger.seals.in_order():  # noqa: B007 - the last of them is the newest
            pass
        blocks = ledger.seals.blocks(scope)
        number, last_hash = write_trail(
            file, blocks, scope, newest_seal, "csv" if form == "csv" else "jsonl"
        )
    # On stderr, as the trail itself may be on stdout.
    typer.echo(f"{number} records; the last line's hash is {last_hash}", err=True)


def _end_crashed(ledger: Ledger) -> None:
    """End and seal the runs whose process is gone, where the ledger may be written."""
    try:
        ended = ledger.seals.end_crashed()
    except LedgerError as error:
        typer.echo(f"note: runs whose process is gone stay unsealed: {error}", err=True)
        return
    for crashed in ended:
        typer.echo(
            f"run {crashed}: its process is gone; it is now on record as crashed, and sealed",
            err=True,
        )


@audit.command("verify")
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="An exported trail; default: the ledger itself."
        ),
    ] = None,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="Verify the file only, not against the ledger."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Verify that no record was changed, removed, added or moved.

    Verifies the file's own hash chain, then the file against the ledger, then the ledger against
    the seals from the end of each run. Names the line of each fault. Exit code 1 when there is one.
    """
    from tierwise.audit.verify import verify_file, verify_ledger

    if file is None and alone:
        raise Misuse("name the file to verify alone")
    if alone and file:
        report = verify_file(file, None)
    else:
        with open_ledger() as ledger:
            report = (
                verify_file(file, ledger.seals) if file else verify_ledger(ledger.seals)
            )
    if as_json:
        print_json(
            {"records": report.records, "faults": report.faults, "notes": report.notes}
        )
    else:
        _print_report(report, file, alone=alone)
    if report.faults:
        raise typer.Exit(1)


def _print_report(report: Verification, file: Path | None, *, alone: bool) -> None:
    for fault in report.faults:
        typer.echo(fault)
    for note in report.notes[:_MOST_NOTES]:
        typer.echo(f"note: {note}", err=True)
    more = len(report.notes) - _MOST_NOTES
    if more > 0:
        typer.echo(f"note: and {more} more like this; --json lists all", err=True)
    against = "against its seals"
    if alone:
        against = "by itself"
    elif file:
        against = "against the ledger and its seals"
    result = f"{len(report.faults)} faults" if report.faults else "nothing is wrong"
    typer.echo(
        f"{file or 'the ledger'}: {report.records} records checked {against}: {result}",
        err=bool(report.faults),
    )


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str]]:
    """Open a file for writing, or standard output. Raises Misuse."""
    if path is None:
        yield sys.stdout
        return
    try:
        # No translation of newlines: a trail is the same file on every system.
        with open(path, "w", encoding="utf-8", newline="", opener=open_private) as file:
            yield file
    except OSError as error:
        raise Misuse(
            f"{path}: cannot be written: {error.strerror}; name another file"
        ) from None


def _seconds(day: str | None) -> float | None:
    """Return a date or time in local time as seconds since the epoch. Raises Misuse."""
    if day is None:
        return None
    try:
        # Without a zone it is local time, as a person types it.
        return datetime.datetime.fromisoformat(day).astimezone().timestamp()
    except ValueError:
        raise Misuse(
            f"--since '{day}' is not a date; write 2026-11-01 or 2026-11-01T08:00"
        ) from None
