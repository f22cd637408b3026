"""summarize: a short summary of a letter."""

from __future__ import annotations

from pydantic import BaseModel

from tierwise import Document, check, step


class Summary(BaseModel):
    """What the letter says, in a few words."""

    summary: str


@check("length")
def is_short(output: BaseModel, _: Document, *, max_words: int) -> str | None:
    """The summary has few words."""
    words = len(str(getattr(output, "summary", "")).split())
    return None if words <= max_words else f"{words} words, at most {max_words} were asked for"


summarize = step("summarize", returns=Summary, checks=[is_short])
