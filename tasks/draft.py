"""draft: a reply to a message, for a person to send."""

from __future__ import annotations

from pydantic import BaseModel

from tierwise import step
from tierwise.checks import at_most_words, no_placeholders, numbers_are_in_the_document, same_language
from tierwise.correctness import mentions


class Draft(BaseModel):
    """A reply that a person can send after reading it."""

    reply: str


draft = step(
    "draft",
    returns=Draft,
    checks=[at_most_words("reply"), numbers_are_in_the_document, no_placeholders, same_language],
    correct=mentions("reply"),
)
