"""Long documents in parts: where to cut, and the document's outcome from those of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tierwise.cascade.job import Job
from tierwise.records import Attempt, Document, Outcome, highest
from tierwise.steps.step import Step
from tierwise.text.tokens import count_tokens

# Share of a part, at most. A sentence across a cut is complete in one of the two parts.
OVERLAP = 0.1


def split(text: str, tokens: int, *, overlap: int = 0) -> list[str]:
    """Return a text in pieces of at most `tokens`, cut at paragraphs, lines or sentences.

    Nothing is left out.
    """
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter.from_callback(count_tokens, tokens, overlap=overlap)
    pieces: list[str] = splitter.chunks(text)
    return pieces


def parts_of(job: Job, document: Document) -> tuple[Document, ...]:
    """Return the parts of at most `part_tokens` for a step that gathers, else the document."""
    tokens = job.parameters.get("part_tokens") if job.step.gathers else None
    if tokens is None or count_tokens(document.text) <= tokens:
        return (document,)
    pieces = split(document.text, tokens, overlap=int(tokens * OVERLAP))
    return tuple(document.with_text(piece) for piece in pieces)


def spans_of_parts(job: Job, document: Document) -> list[tuple[int, int]]:
    """Return where the parts of a document are in its text; none where it is processed whole."""
    parts = parts_of(job, document)
    if len(parts) == 1:
        return []
    spans: list[tuple[int, int]] = []
    searched_from = 0
    for part in parts:
        start = document.text.find(part.text, searched_from)
        if start >= 0:
            spans.append((start, start + len(part.text)))
            searched_from = start + 1
    return spans


def merged_outcome(step: Step, outcomes: Sequence[Outcome]) -> Outcome:
    """Return the document's outcome: accepted when every part's is, else that of the first other.

    Its model and route are those of the part that went farthest along its route.
    """
    open_parts = [
        (number, outcome)
        for number, outcome in enumerate(outcomes, 1)
        if outcome.status != "accepted"
    ]
    deciding = max(outcomes, key=_position_in_route)
    if open_parts:
        deciding = _first_open(open_parts, len(outcomes))
    values = [outcome.value for outcome in outcomes]
    value = None if None in values else step.gathered(values)
    sensitivity = highest(*(outcome.sensitivity for outcome in outcomes))
    attempts: list[Attempt] = []
    for outcome in outcomes:
        attempts.extend(outcome.attempts)
    return replace(
        deciding, value=value, sensitivity=sensitivity, attempts=tuple(attempts)
    )


def _first_open(open_parts: Sequence[tuple[int, Outcome]], parts: int) -> Outcome:
    """Return the first part's outcome that is not accepted.

    Its reason names the part, unless all parts have the same reason.
    """
    number, first = open_parts[0]
    reasons = {(outcome.cause, outcome.reason) for _, outcome in open_parts}
    if len(open_parts) == parts and len(reasons) == 1:
        return first
    others = f"; {len(open_parts) - 1} more wait" if len(open_parts) > 1 else ""
    return replace(first, reason=f"{first.reason} (part {number} of {parts}{others})")


def _position_in_route(outcome: Outcome) -> int:
    """Return how many models of its route come before an outcome's model."""
    models = outcome.route.models if outcome.route else ()
    return models.index(outcome.model) if outcome.model in models else 0
