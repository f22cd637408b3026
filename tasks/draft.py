"""draft: a reply to a message, for a person to send."""

from __future__ import annotations

from pydantic import BaseModel

from tierwise import step
from tierwise.steps.checks import (
    at_most_words,
    no_placeholders,
    numbers_are_in_the_document,
    same_language,
)
from tierwise.steps.correctness import mentions, rubric


class Draft(BaseModel):
    """A reply that a person can send after reading it."""

    reply: str


draft = step(
    "draft",
    returns=Draft,
    checks=[
        at_most_words("reply"),
        numbers_are_in_the_document,
        no_placeholders,
        same_language,
    ],
    correct=rubric(
        "The reply names what this customer wants, and gets it right.",
        "The reply promises nothing: no refund, no date, no result.",
        "The reply is polite, and written to the customer, not about the customer.",
        needs=mentions("reply"),
    ),
)
