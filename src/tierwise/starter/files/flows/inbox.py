"""Sort a folder of letters, and summarise each in a sentence or two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.classify import classify
from tasks.summarize import summarize
from tierwise import (
    RunSummary,
    Sensitivity,
    read_documents,
    recorded_run,
    task_runner,
    write_documents,
)

KINDS = {
    "invoice": "the writer has worked or delivered something and wants to be paid",
    "order": "the writer wants to buy something, have something made, or know what it would cost",
    "complaint": "something that we sold or did is broken, late or wrong",
    "application": "the writer wants to work here",
}


@flow(name="inbox", task_runner=task_runner())
def inbox(
    source: Path = Path("examples/inbox"),
    sensitivity: Sensitivity = "internal",
    budget_usd: Annotated[float, Field(ge=0)] = 1.0,
    out: Path = Path("out/inbox"),
    only_new: bool = False,
) -> RunSummary:
    """Sort a folder of letters, and summarise each in a sentence or two.

    Args:
        source: a folder or file of letters.
        sensitivity: the least sensitivity of the letters; a letter can only raise its own.
        budget_usd: the most that the run may spend, in USD.
        out: the folder for the results: one file for each letter, and outcomes.jsonl with a line for each.
        only_new: skip letters that an earlier run finished; for a watched folder.
    """
    with recorded_run(budget_usd=budget_usd) as run:
        letters = read_documents(source, sensitivity=sensitivity, only_new=only_new)
        kinds = classify.map(letters, labels=list(KINDS), descriptions=KINDS)
        digests = summarize.map(kinds, max_words=50)
        write_documents(digests, out)
    return run.summary()
