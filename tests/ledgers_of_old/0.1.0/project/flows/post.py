"""Sort, summarise and answer the post of a furniture shop."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, unmapped

from tasks.classify import classify
from tasks.reply import reply
from tasks.summarize import summarize
from tierwise import (
    Document,
    RunSummary,
    Sensitivity,
    read_documents,
    recorded_run,
    redact,
    task_runner,
    write_documents,
)

KINDS = ["order", "complaint", "praise"]


def is_complaint(letter: Document) -> bool:
    """Only complaints are answered."""
    return bool(letter.value("classify")["label"] == "complaint")


@flow(name="post", task_runner=task_runner())
def post(
    source: Path = Path("documents/morning"),
    sensitivity: Sensitivity = "internal",
    budget_usd: float = 1.0,
    out: Path = Path("out/post"),
    redacted: bool = False,
    team: str = "claims",
) -> RunSummary:
    """Sort, summarise and answer the post of a furniture shop.

    Args:
        source: a folder of letters.
        sensitivity: of letters that do not say it themselves.
        budget_usd: the most that may be spent.
        out: folder for the results.
        redacted: take personal data out first.
        team: whose run it is.
    """
    with recorded_run(budget_usd=budget_usd, tags={"team": team}) as run:
        letters = read_documents(source, sensitivity=sensitivity)
        if redacted:
            letters = redact.map(letters, to=unmapped("internal"))
        kinds = classify.map(letters, labels=unmapped(KINDS))
        digests = summarize.map(kinds, max_words=unmapped(12))
        replies = reply.map(digests, sender=unmapped("The desk team"), only=unmapped(is_complaint))
        write_documents(replies, out)
    return run.summary()
