"""category: what a receipt is for, as one label."""

from __future__ import annotations

from pydantic import BaseModel

from tierwise import step
from tierwise.steps.checks import label_is_allowed
from tierwise.steps.correctness import same


class Category(BaseModel):
    """What a receipt is for."""

    label: str


category = step(
    "category",
    returns=Category,
    choices={"label": "labels"},
    checks=[label_is_allowed],
    correct=same("label"),
)
