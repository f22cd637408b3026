"""spending: what was spent with one company, and what a person has to look at, in a few sentences."""

from __future__ import annotations

import json
from dataclasses import replace

from pydantic import BaseModel

from tierwise import Document, check, step
from tierwise.steps.checks import at_most_words, numbers_are_in_the_document
from tierwise.steps.correctness import mentions, rubric


class Spending(BaseModel):
    """What was spent with one company."""

    summary: str


@check("grounding")
def numbers_are_known(output: BaseModel, document: Document) -> str | None:
    """Every number is in the list of receipts, or in the result of the policy check."""
    policy = json.dumps(document.value("policy"), ensure_ascii=False)
    known = f"{document.text}\n{policy}\n{len(document.members)}"
    return numbers_are_in_the_document.function(output, replace(document, text=known))


spending = step(
    "spending",
    returns=Spending,
    checks=[at_most_words("summary"), numbers_are_known],
    correct=rubric(
        "Every statement is in the list of receipts or in the findings.",
        "The sum of each currency is named, and is right.",
        "Every finding is named; with none, the summary says that all is within the rules.",
        needs=mentions("summary"),
    ),
)
