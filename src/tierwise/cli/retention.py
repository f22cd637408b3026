"""`tierwise retention`: texts deleted from the ledger, by age or on request."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from typing import Annotated

import typer

from tierwise.cli.opening import open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json
from tierwise.errors import Misuse

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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the texts without deleting them.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="NAME", help="Who deletes; default: your user name."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete texts from the ledger.

    Deletes models' answers, accepted values, the answers and notes of reviewers, and stored
    documents. Figures, model names, verdicts and hashes stay, so reports and the audit trail remain
    valid. A deleted answer cannot be reused: a later run that needs it pays again. Results that
    flows wrote to folders, and examples in golden/, are files of yours and stay.
    """
    from tierwise.cli.person import user_name

    # Exactly one of the two.
    if (older_than is None) == (document is None):
        raise Misuse("say what to delete: --older-than 90d, or --document ID")
    # Before anything is deleted, as it may raise: a deletion goes on record with a name.
    who = by or user_name()
    with open_ledger() as ledger:
        if document is not None:
            removed = ledger.retention.forget_document(
                document, by=who, dry_run=dry_run
            )
        else:
            before = time.time() - _seconds(older_than or "")
            removed = ledger.retention.forget_older(before, by=who, dry_run=dry_run)
    counts = asdict(removed)
    if as_json:
        print_json(counts | {"dry_run": dry_run})
        return
    parts = [f"{number} {what}" for what, number in counts.items() if number]
    verb = "would delete" if dry_run else "deleted"
    typer.echo(f"{verb}: {', '.join(parts) or 'nothing'}")


def _seconds(span: str) -> float:
    """Return the seconds of a span such as 90d. Raises Misuse."""
    match = re.fullmatch(r"(\d+)([hdw])", span.strip())
    if match is None:
        raise Misuse(
            f"--older-than '{span}' is no length of time; "
            "write 90d (days), 12w (weeks) or 36h (hours)"
        )
    return int(match[1]) * _SECONDS[match[2]]
