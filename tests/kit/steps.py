"""Steps, answers and helpers of the cascade tests."""

from __future__ import annotations

import json

from pydantic import BaseModel

from tierwise.cascade import RunContext
from tierwise.engine import Engine
from tierwise.records import Batch, Document, Outcome
from tierwise.steps.checks import evidence_is_quoted, label_is_allowed
from tierwise.steps.step import Step

TEXT = "The parcel with my desk has not arrived and nobody answers the phone."


LABELS = {"labels": ["billing", "delivery"], "descriptions": {}}


GOOD = json.dumps({"evidence": "has not arrived", "label": "delivery"})


INVENTED = json.dumps({"evidence": "it never came", "label": "delivery"})


class Classification(BaseModel):
    evidence: str
    label: str


class Summary(BaseModel):
    summary: str


CLASSIFY = Step(
    name="classify",
    returns=Classification,
    prompt="classify",
    choices={"label": "labels"},
    checks=(label_is_allowed, evidence_is_quoted),
)


SUMMARIZE = Step(
    name="summarize", returns=Summary, prompt="summarize", splits="summary"
)


def classify(
    engine: Engine, *documents: Document, run: RunContext | None = None
) -> list[Outcome]:
    """The outcomes of a classify step over some documents."""
    run = run or engine.start_run("test")
    documents = documents or (Document(id="a", text=TEXT, sensitivity="internal"),)
    done = engine.run_batch(run, CLASSIFY, Batch(documents), LABELS)
    return [document.outcomes["classify"] for document in done.load()]


def kinds(outcome: Outcome) -> list[tuple[str, str, str | None]]:
    return [(a.model, a.kind, a.error) for a in outcome.attempts]
