"""minutes: the draft of a meeting's minutes, from its digest and what was agreed."""

from __future__ import annotations

from pydantic import BaseModel

from tasks.digest import numbers_are_known
from tierwise import Document, check, step
from tierwise.steps.checks import (
    at_most_words,
    no_placeholders,
    same_language,
    squeezed,
)


class Minutes(BaseModel):
    """Minutes for a person to send after reading them."""

    minutes: str


@check("grounding")
def everybody_is_named(output: Minutes, document: Document) -> str | None:
    """Everybody who has to do something is named in the minutes."""
    people = [
        action["who"] for action in (document.value("actions") or {}).get("actions", ())
    ]
    text = squeezed(output.minutes)
    missing = [who for who in people if who and squeezed(who) not in text]
    return f"does not name {missing[0]!r}, who has to do something" if missing else None


minutes = step(
    "minutes",
    returns=Minutes,
    checks=[
        everybody_is_named,
        at_most_words("minutes"),
        numbers_are_known,
        no_placeholders,
        same_language,
    ],
)
