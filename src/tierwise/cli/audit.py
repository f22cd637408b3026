"""`tierwise audit`: write down who did what by which rule, and prove that nobody changed it since."""

from __future__ import annotations

import datetime
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from tierwise.cli.options import command_group
from tierwise.cli.output import print_json
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOTES = 5  # shown at most
audit = command_group("Export and verify the tamper-evident audit trail.")


@audit.command("export")
def export(
    run: Annotated[
        str | None, typer.Option("--run", help="Only this run: an id, its beginning, or `latest`.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Only what began then or later, such as 2026-11-01."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="`jsonl`, or `csv` for a spreadsheet.")
    ] = "jsonl",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; without one, standard output.")
    ] = None,
) -> None:
    """Write one record for every run, attempt, outcome, decision, label and deletion.

    Each record carries the SHA-256 of the one before, and the last one counts them and names the ledger's newest
    seal: `tierwise audit verify FILE` finds whatever was changed since, in the file or in the ledger. Documents,
    prompts and answers are not in it, only their hashes.
    """
    from tierwise.audit.files import write_trail
    from tierwise.cli.runs import open_ledger
    from tierwise.ledger.people.chain import Scope

    if form not in ("jsonl", "csv"):
        raise Misuse(f"there is no format '{form}'; use jsonl or csv")
    with open_ledger() as ledger, _opened(output) as file:
        scope = Scope(ledger.resolve_run(run).id if run else None, _seconds(since))
        for crashed in ledger.trail.end_crashed():
            typer.echo(
                f"run {crashed}: its process is gone; it is now on record as crashed, and sealed",
                err=True,
            )
        last = None
        for last in ledger.trail.seals():  # noqa: B007 - the newest one is wanted
            pass
        number, head = write_trail(
            file, ledger.trail.blocks(scope), scope, last, "csv" if form == "csv" else "jsonl"
        )
    typer.echo(f"{number} records; the last line's hash is {head}", err=True)


@audit.command("verify")
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(help="What `export` wrote; without it, the ledger itself is verified."),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Look at the file only, not at this project's ledger.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify that no record was changed, removed, added or moved.

    The file's own chain comes first, then the file against the ledger, then the ledger against the seals that it
    got at the end of each run. Exit code 1 when anything is wrong.
    """
    from tierwise.audit.verify import verify_file, verify_ledger
    from tierwise.cli.runs import open_ledger

    if file is None and alone:
        raise Misuse("name the file that is to be looked at alone")
    if alone and file:
        report = verify_file(file, None)
    else:
        with open_ledger() as ledger:
            report = verify_file(file, ledger.trail) if file else verify_ledger(ledger.trail)
    if as_json:
        print_json({"records": report.records, "faults": report.faults, "notes": report.notes})
    else:
        for fault in report.faults:
            typer.echo(fault)
        for note in report.notes[:_NOTES]:
            typer.echo(f"note: {note}", err=True)
        if more := len(report.notes[_NOTES:]):
            typer.echo(f"note: and {more} more like this; --json lists all", err=True)
        against = (
            "by itself"
            if alone
            else "against the ledger and its seals"
            if file
            else "against its seals"
        )
        found = f"{len(report.faults)} faults" if report.faults else "nothing is wrong"
        typer.echo(
            f"{file or 'the ledger'}: {report.records} records checked {against}: {found}",
            err=bool(report.faults),
        )
    if report.faults:
        raise typer.Exit(1)


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise Misuse(f"{path}: cannot be written: {error.strerror}; name another file") from None


def _seconds(day: str | None) -> float | None:
    """A date or time in local time, as seconds since the epoch."""
    try:
        return (
            None if day is None else datetime.datetime.fromisoformat(day).astimezone().timestamp()
        )
    except ValueError:
        raise Misuse(
            f"--since '{day}' is not a date; write 2026-11-01 or 2026-11-01T08:00"
        ) from None
