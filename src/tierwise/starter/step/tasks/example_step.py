"""example_step: one of a few labels for a document. Say here what it is for."""

from __future__ import annotations

from pydantic import BaseModel

from tierwise import step
from tierwise.steps.checks import label_is_allowed
from tierwise.steps.correctness import same


class ExampleStep(BaseModel):
    """The one label that fits the document."""

    label: str


example_step = step(
    "example_step",
    returns=ExampleStep,
    choices={"label": "labels"},
    checks=[label_is_allowed],
    correct=same("label"),
)
