"""reply: an answer to a letter, for a person to look at."""

from __future__ import annotations

from pydantic import BaseModel

from tierwise import step


class Reply(BaseModel):
    """An answer that a person sends."""

    reply: str


reply = step("reply", returns=Reply, stakes="high", correct=lambda output, _: bool(output["reply"]))
