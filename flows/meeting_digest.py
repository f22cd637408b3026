"""Read a folder of meeting transcripts: notes, a digest, who does what in whose words, and draft minutes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.actions import actions
from tasks.digest import digest
from tasks.minutes import minutes
from tasks.notes import notes
from tierwise import (
    RunSummary,
    Sensitivity,
    read_documents,
    recorded_run,
    task_runner,
    write_documents,
)

QUERIES = ("What was decided, and why?", "What is still open?")


@flow(name="meeting-digest", task_runner=task_runner())
def meeting_digest(
    source: Path = Path("examples/meetings"),
    sensitivity: Sensitivity = "internal",
    budget_usd: Annotated[float, Field(ge=0, le=10_000)] = 1.0,
    out: Path = Path("out/meetings"),
    only_new: bool = False,
    shard: str = "1/1",
    within: timedelta | None = None,
    detach: bool = False,
    queries: tuple[str, ...] = QUERIES,
    part_tokens: Annotated[int, Field(ge=200)] = 1500,
) -> RunSummary:
    """Read a folder of meeting transcripts: notes, a digest, who does what in whose words, and draft minutes.

    Args:
        source: a folder or file of transcripts, a line or paragraph a turn.
        sensitivity: of transcripts that do not say it themselves; they can only say a higher one.
        budget_usd: no call is made that could spend more than this in all.
        out: folder for the results, one file a meeting and one line each in outcomes.jsonl.
        only_new: leave out transcripts that an earlier run brought to an end; for a folder that is watched.
        shard: the part of the transcripts that this run takes, such as 2/8; each part has an `out` of its own.
        within: the time until the results are needed, such as 6h (PT6H in Prefect); it allows provider batches.
        detach: end once all calls are in provider batches; the next start of the flow, or `tierwise resume`, continues.
        queries: what to answer about every meeting, a JSON list; a transcript may bring `queries` of its own.
        part_tokens: longer transcripts are read in parts of at most so many tokens.
    """
    with recorded_run(budget_usd=budget_usd, within=within, detach=detach) as run:
        meetings = read_documents(
            source, sensitivity=sensitivity, only_new=only_new, shard=shard
        )
        noted = notes.map(meetings, queries=queries, part_tokens=part_tokens)
        digests = digest.map(noted, queries=queries, max_words=120)
        agreed = actions.map(digests, part_tokens=part_tokens)
        drafts = minutes.map(agreed, max_words=240)
        write_documents(drafts, out)
    return run.summary()
