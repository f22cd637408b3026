"""summarize: a short summary; documents longer than a model's window are summarised part by part."""

from __future__ import annotations

from pydantic import BaseModel

from tierwise import step
from tierwise.steps.checks import (
    at_most_words,
    numbers_are_in_the_document,
    same_language,
)
from tierwise.steps.correctness import mentions, rubric


class Summary(BaseModel):
    """What the document says, in a few sentences."""

    summary: str


summarize = step(
    "summarize",
    returns=Summary,
    splits="summary",
    checks=[at_most_words("summary"), numbers_are_in_the_document, same_language],
    correct=rubric(
        "Every statement in the summary is stated or plainly meant in the document.",
        "The summary says what the writer wants, or what the text settles.",
        "Nothing that changes what the reader has to do is left out.",
        needs=mentions("summary"),
    ),
)
