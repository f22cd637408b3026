"""A project whose one flow has two steps, on a model with provider batches."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin

BATCH = (
    "    batch: {api: openai, discount: 0.5, expected_minutes: 60, stores_days: 30}\n"
)
RULES = """
version: 1
guards:
  - name: not-kept
    when: {sensitivity_min: confidential}
    allow_transports: [online]
routes:
  - {name: default, try: [small]}
"""
FLOW = """
from pathlib import Path

from prefect import flow
from tasks.classify import classify
from tasks.summarize import summarize
from tierwise import (
    RunSummary, read_documents, recorded_run, task_runner, write_documents
)


@flow(task_runner=task_runner())
def two_steps(
    source: Path = Path("inbox"),
    out: Path = Path("out"),
    budget_usd: float = 1.0,
) -> RunSummary:
    \"\"\"Sort and sum up a folder.\"\"\"
    with recorded_run(budget_usd=budget_usd) as run:
        inbox = read_documents(source, sensitivity="internal")
        sorted_ones = classify.map(inbox, labels=["delivery", "invoice"])
        digests = summarize.map(sorted_ones, max_words=50)
        write_documents(digests, out)
    return run.summary()
"""
TEXT = "My parcel number {number} has not arrived, and I ordered it last week."


def answer(request: Request) -> str:
    """What the stand-in answers to a prompt of either step."""
    if "summary" in json.dumps(request.schema or {}):
        return json.dumps({"summary": "The parcel has not arrived."})
    return json.dumps({"label": "delivery", "evidence": "has not arrived"})


def batched_project(root: Path, standin: Standin, documents: int = 3) -> Path:
    """A project with some documents in `inbox`, of which no batch was sent yet."""
    standin.answer(answer)
    make_project(root, model("small", standin.url) + BATCH, rules=RULES)
    (root / "inbox").mkdir()
    for number in range(documents):
        text = TEXT.format(number=number)
        (root / "inbox" / f"{number:05}.txt").write_text(text)
    (root / "flows" / "two_steps.py").write_text(FLOW)
    return root
