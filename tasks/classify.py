"""classify: one label for a document, and the words that show it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from tierwise import step
from tierwise.steps.checks import evidence_is_quoted, label_is_allowed
from tierwise.steps.correctness import same


class Classification(BaseModel):
    """The one label that fits the document, and the words that show it."""

    label: str
    evidence: str = Field(max_length=60)


classify = step(
    "classify",
    returns=Classification,
    choices={"label": "labels"},
    checks=[label_is_allowed, evidence_is_quoted],
    correct=same("label"),
)
