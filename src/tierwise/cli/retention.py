"""`tierwise retention`: texts and rows deleted from the ledger, by age or on request."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from typing import Annotated

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json
from tierwise.errors import Misuse
from tierwise.text.amounts import plural

# old runs whose rows stay, and why
_LEFT = {
    "waiting": "in which documents wait; `tierwise review` shows them",
    "altered": "whose records do not fit their seals; `tierwise audit verify` names them",
}
_SECONDS = {"h": 3600, "d": 86_400, "w": 604_800}


def retention(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="SPAN",
            help="Delete texts of runs older than 90d, 12w or 36h.",
        ),
    ] = None,
    document: Annotated[
        str | None,
        typer.Option(
            "--document",
            metavar="ID",
            help="Delete all texts of one document: an id or SHA-256.",
        ),
    ] = None,
    rows: Annotated[
        bool,
        typer.Option("--rows", help="With --older-than: remove the runs' rows, too."),
    ] = False,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact", help="With --rows: return the space (SQLite's VACUUM)."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, without deleting anything.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="NAME", help="Who deletes; default: your user name."
        ),
    ] = None,
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="With --rows: for the record.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Delete texts, and on request rows, from the ledger.

    Deletes models' answers, accepted values, the answers and notes of reviewers, stored documents,
    and all that text recognition keeps in `.tierwise/recognized`. Figures, model names, verdicts
    and hashes stay, so reports and the audit trail remain valid. A deleted answer cannot be reused:
    a later run that needs it pays again. Results that flows wrote to folders, and examples in
    golden/, are files of yours and stay.

    With --rows, the attempts, verdicts and outcomes of old runs go, too. Their totals, seals and
    budgets stay, and people's decisions and labels; who removed what and why is on record. Runs in
    which documents wait are left.
    """
    from tierwise.cli.person import user_name
    from tierwise.documents.recognized import count_recognized, forget_recognized

    # Exactly one of the two.
    if (older_than is None) == (document is None):
        raise Misuse("say what to delete: --older-than 90d, or --document ID")
    if not rows and (compact or why):
        raise Misuse("--compact and --why belong to --rows")
    if rows and older_than is None:
        raise Misuse("--rows needs --older-than, such as --older-than 400d --rows")
    # Before anything is deleted, as it may raise: a deletion goes on record with a name.
    who = by or user_name()
    root = find_project().root
    with open_ledger() as ledger:
        if document is not None:
            removed = ledger.retention.forget_document(
                document, by=who, dry_run=dry_run
            )
        else:
            before = time.time() - _seconds(older_than or "")
            if rows:
                gone = ledger.row_removal.remove_older(
                    before, by=who, why=why, dry_run=dry_run
                )
            # What is left: people's answers, kept documents, and texts of runs that stay.
            removed = ledger.retention.forget_older(before, by=who, dry_run=dry_run)
        if rows and compact and not dry_run:
            ledger.row_removal.compact()
    counts = asdict(removed)
    kept = count_recognized(root) if dry_run else forget_recognized(root)
    counts["recognized_files"] = kept
    if rows:
        counts = asdict(gone) | counts
    if as_json:
        print_json(counts | {"dry_run": dry_run})
        return
    left = {name: counts.pop(name, 0) for name in _LEFT}
    parts = [
        f"{number} {what.replace('_', ' ')}"
        for what, number in counts.items()
        if number
    ]
    verb = "would delete" if dry_run else "deleted"
    typer.echo(f"{verb}: {', '.join(parts) or 'nothing'}")
    for name, number in left.items():
        if number:
            typer.echo(f"left: {plural(number, 'run')} {_LEFT[name]}")


def _seconds(span: str) -> float:
    """Return the seconds of a span such as 90d. Raises Misuse."""
    match = re.fullmatch(r"(\d+)([hdw])", span.strip())
    if match is None:
        raise Misuse(
            f"--older-than '{span}' is no length of time; "
            "write 90d (days), 12w (weeks) or 36h (hours)"
        )
    return int(match[1]) * _SECONDS[match[2]]
