"""Sort, summarise and answer a folder of customer messages."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.classify import classify
from tasks.draft import draft
from tasks.summarize import summarize
from tierwise import (
    Document,
    RunSummary,
    Sensitivity,
    read_documents,
    recorded_run,
    task_runner,
    write_documents,
)

TOPICS = {
    "billing": "money, or a paper about money, should be put right, settled or sent",
    "delivery": "goods should get to the right place at the right time, or be fetched from a wrong one",
    "defect": "goods are here, but broken, faulty, incomplete or not the ones ordered",
    "question": "something is asked, and nothing is wrong",
    "praise": "there is nothing to do: only thanks or a compliment",
}


def needs_reply(message: Document) -> bool:
    """Thanks need no answer; everything else does."""
    return bool(message.value("classify")["label"] != "praise")


@flow(name="support-inbox", task_runner=task_runner())
def support_inbox(
    source: Path = Path("examples/inbox"),
    sensitivity: Sensitivity = "internal",
    budget_usd: Annotated[float, Field(ge=0, le=10_000)] = 1.0,
    out: Path = Path("out/inbox"),
    only_new: bool = False,
    shard: str = "1/1",
    within: timedelta | None = None,
    detach: bool = False,
) -> RunSummary:
    """Sort, summarise and answer a folder of customer messages.

    Args:
        source: a folder or file of messages.
        sensitivity: of messages that do not say it themselves; they can only say a higher one.
        budget_usd: no call is made that could spend more than this in all.
        out: folder for the results, one file a message and one line each in outcomes.jsonl.
        only_new: leave out messages that an earlier run brought to an end; for a folder that is watched.
        shard: the part of the messages that this run takes, such as 2/8; each part has an `out` of its own.
        within: the time until the results are needed, such as 6h (PT6H in Prefect); it allows provider batches.
        detach: end once all calls are in provider batches; the next start of the flow, or `tierwise resume`, continues.
    """
    with recorded_run(budget_usd=budget_usd, within=within, detach=detach) as run:
        inbox = read_documents(
            source, sensitivity=sensitivity, only_new=only_new, shard=shard
        )
        topics = classify.map(inbox, labels=list(TOPICS), descriptions=TOPICS)
        digests = summarize.map(topics, max_words=50)
        replies = draft.map(
            digests,
            sender="the Larkfold support team",
            max_words=70,
            only=needs_reply,
        )
        write_documents(replies, out)
    return run.summary()
