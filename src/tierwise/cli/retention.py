"""`tierwise retention`: delete texts from the ledger, by age or on request."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from typing import Annotated

import typer

from tierwise.cli.output import print_json
from tierwise.errors import Misuse

_SECONDS = {"h": 3600, "d": 86_400, "w": 604_800}


def retention(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", help="Delete the texts of runs that started longer ago: 90d, 12w, 36h."
        ),
    ] = None,
    document: Annotated[
        str | None,
        typer.Option(
            "--document", help="Delete all texts of one document: its id, or its SHA-256."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much would go.")] = False,
    by: Annotated[
        str | None, typer.Option("--by", help="Who deletes; default: your user name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Delete texts from the ledger.

    Figures, model names, verdicts and hashes stay: reports and the audit trail hold as before. An answer that is
    gone cannot be reused: a later run that needs it pays again. Results that flows wrote to folders, and examples
    in golden/, are files of yours and stay.
    """
    from tierwise.cli.review import user_name
    from tierwise.cli.runs import open_ledger

    if (older_than is None) == (document is None):
        raise Misuse("say what is to go: --older-than 90d, or --document ID")
    who = by or user_name()
    with open_ledger() as ledger:
        if document is not None:
            removed = ledger.retention.forget_document(document, by=who, dry_run=dry_run)
        else:
            removed = ledger.retention.forget_older(
                time.time() - _age(older_than or ""), by=who, dry_run=dry_run
            )
    counts = asdict(removed)
    if as_json:
        print_json(counts | {"dry_run": dry_run})
        return
    parts = [f"{number} {what}" for what, number in counts.items() if number]
    typer.echo(f"{'would delete' if dry_run else 'deleted'}: {', '.join(parts) or 'nothing'}")


def _age(text: str) -> float:
    """Seconds of a length of time such as 90d."""
    if not (match := re.fullmatch(r"(\d+)([hdw])", text.strip())):
        raise Misuse(
            f"--older-than '{text}' is no length of time; write 90d (days), 12w (weeks) or 36h (hours)"
        )
    return int(match[1]) * _SECONDS[match[2]]
