"""digest: what a meeting came to, and an answer to each query, from the notes on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel

from tasks.notes import letters, own_queries
from tierwise import Document, check, step
from tierwise.steps.checks import (
    at_most_words,
    numbers_are_in_the_document,
    same_language,
)


class Answer(BaseModel):
    """A query, in its own words, and what the meeting says to it."""

    query: str
    answer: str


class Digest(BaseModel):
    """What a meeting came to, and an answer to each query."""

    summary: str
    answers: list[Answer]


@check("length")
def each_query_is_answered(
    output: Digest, document: Document, *, queries: Sequence[str]
) -> str | None:
    """There is an answer to each query, in their order, and to nothing else."""
    asked = [*queries, *own_queries(document)]
    answered = [answer.query for answer in output.answers]
    if [letters(query) for query in asked] != [letters(query) for query in answered]:
        return f"answers {len(answered)} queries, not the {len(asked)} that were asked"
    empty = [answer.query for answer in output.answers if not answer.answer.strip()]
    return f"leaves a query without an answer: {empty[0]!r}" if empty else None


@check("grounding")
def numbers_are_known(output: BaseModel, document: Document) -> str | None:
    """Every number stands in the transcript, in what earlier steps made of it, or in a query."""
    queries = [answer.query for answer in getattr(output, "answers", ())]
    values = [
        outcome.value
        for outcome in document.outcomes.values()
        if outcome.status == "accepted"
    ]
    known = json.dumps([queries, values], ensure_ascii=False)
    return numbers_are_in_the_document.function(
        output, replace(document, text=f"{document.text}\n{known}")
    )


digest = step(
    "digest",
    returns=Digest,
    checks=[
        each_query_is_answered,
        at_most_words("summary"),
        numbers_are_known,
        same_language,
    ],
)
