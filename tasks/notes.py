"""notes: what was said in a meeting, point by point; a long transcript is read part by part."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pydantic import BaseModel, Field

from tierwise import Document, check, step
from tierwise.steps.checks import same_language
from tierwise.steps.correctness import mentions, rubric


class Notes(BaseModel):
    """What was said in a meeting, point by point."""

    # of one part
    notes: list[str] = Field(json_schema_extra={"minItems": 1, "maxItems": 5})


def all_notes(parts: Sequence[Notes]) -> Notes:
    """Return the notes on all parts of a meeting, in order, each once."""
    return Notes(
        notes=list(dict.fromkeys(note for part in parts for note in part.notes))
    )


def own_queries(meeting: Document) -> list[str]:
    """Return a transcript's `queries`, a JSON list of texts or one text."""
    told = meeting.metadata.get("queries", "")
    try:
        found = json.loads(told)
    except ValueError:
        found = told
    return [
        str(query) for query in (found if isinstance(found, list) else [found]) if query
    ]


def letters(text: str) -> str:
    """Return a text for comparison: its letters and digits alone, in one case."""
    return re.sub(r"[\W_]", "", text).casefold()


@check("grounding")
def notes_say_something(
    output: Notes, document: Document, *, queries: Sequence[str]
) -> str | None:
    """There are notes, and none of them only repeats a query."""
    asked = {letters(query) for query in (*queries, *own_queries(document))}
    repeated = [note for note in output.notes if letters(note) in asked]
    if repeated:
        return f"a note only repeats a query: {repeated[0]!r}"
    return None if any(map(letters, output.notes)) else "there are no notes"


notes = step(
    "notes",
    returns=Notes,
    gathers=all_notes,
    # not the numbers: in speech they are words
    checks=[notes_say_something, same_language],
    correct=rubric(
        "Every note is stated or plainly meant in the transcript.",
        "Nothing that was decided, promised or left open is missing.",
        needs=mentions("notes"),
    ),
)
