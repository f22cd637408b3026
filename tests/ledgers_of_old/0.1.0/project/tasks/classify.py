"""classify: the kind of a letter, with the words that show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from tierwise import Document, check, step


class Classification(BaseModel):
    """The kind of a letter, and a quotation that shows it."""

    label: str
    evidence: str


@check("label")
def label_is_allowed(output: BaseModel, _: Document, *, labels: Sequence[str]) -> str | None:
    """The label is one of those asked for."""
    label = getattr(output, "label", None)
    return None if label in labels else f"{label!r} is not one of {', '.join(labels)}"


@check("grounding")
def evidence_is_quoted(output: BaseModel, document: Document) -> str | None:
    """The evidence stands in the letter."""
    evidence = str(getattr(output, "evidence", ""))
    return None if evidence in document.text else f"words that are not in the letter: {evidence}"


def same_label(output: dict[str, Any], expected: dict[str, Any]) -> bool:
    """The label is the expected one."""
    return bool(output["label"] == expected["label"])


classify = step(
    "classify",
    returns=Classification,
    choices={"label": "labels"},
    checks=[label_is_allowed, evidence_is_quoted],
    correct=same_label,
)
