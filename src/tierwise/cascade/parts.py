"""Long documents in parts: where they are cut, and how the parts' outcomes become the document's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tierwise.cascade.attempts import Job
from tierwise.records import Document, Outcome, highest
from tierwise.steps.step import Step
from tierwise.text.tokens import count_tokens

OVERLAP = 0.1  # of a part, at most: what is said across a cut stands whole in one of the two


def split(text: str, tokens: int, *, overlap: int = 0) -> list[str]:
    """A text in pieces of at most so many tokens, cut at paragraphs, lines or sentences; nothing is left out."""
    from semantic_text_splitter import TextSplitter

    parts: list[str] = TextSplitter.from_callback(count_tokens, tokens, overlap=overlap).chunks(
        text
    )
    return parts


def parts_of(job: Job, document: Document) -> tuple[Document, ...]:
    """The parts of at most `part_tokens` that a step which gathers is asked about; else the document alone."""
    tokens = job.parameters.get("part_tokens") if job.step.gathers else None
    if tokens is None or count_tokens(document.text) <= tokens:
        return (document,)
    pieces = split(document.text, tokens, overlap=int(tokens * OVERLAP))
    return tuple(replace(document, text=piece) for piece in pieces)


def gathered(step: Step, outcomes: Sequence[Outcome]) -> Outcome:
    """The document's outcome: accepted when every part's is; else it waits for what the first part waits for.

    Its model and route are those of the part that had to go farthest along its route.
    """
    waiting = [
        (n, outcome) for n, outcome in enumerate(outcomes, 1) if outcome.status != "accepted"
    ]
    values = [outcome.value for outcome in outcomes]
    deciding = _told(waiting, len(outcomes)) if waiting else max(outcomes, key=_distance)
    return replace(
        deciding,
        value=None if None in values else step.gathered(values),
        sensitivity=highest(*(outcome.sensitivity for outcome in outcomes)),
        attempts=tuple(attempt for outcome in outcomes for attempt in outcome.attempts),
    )


def _told(waiting: Sequence[tuple[int, Outcome]], parts: int) -> Outcome:
    """The first part's outcome that waits; the reason says which part, unless all wait for the same."""
    number, first = waiting[0]
    reasons = {(outcome.cause, outcome.reason) for _, outcome in waiting}
    if len(waiting) == parts and len(reasons) == 1:
        return first
    others = f"; {len(waiting) - 1} more wait" if len(waiting) > 1 else ""
    return replace(first, reason=f"{first.reason} (part {number} of {parts}{others})")


def _distance(outcome: Outcome) -> int:
    """How many models of its route an outcome went past."""
    models = outcome.route.models if outcome.route else ()
    return models.index(outcome.model) if outcome.model in models else 0
