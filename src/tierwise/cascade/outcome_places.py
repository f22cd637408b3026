"""The places of an outcome's quotations, found once its value is settled, whatever it came from."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from tierwise.cascade.job import Job
from tierwise.cascade.parts import spans_of_parts
from tierwise.records import Document, Outcome, Place
from tierwise.steps.places import places_of

# A longer text is read in a thread, so that no other document waits: it takes milliseconds.
_LONG_TEXT = 50_000


async def with_places(job: Job, document: Document, outcome: Outcome) -> Outcome:
    """Return an outcome with the places of its quotations.

    One of an earlier run has them already; an answer that a person wrote has none yet.
    """
    if outcome.value is None or outcome.places:
        return outcome
    if len(document.text) < _LONG_TEXT:
        places = _places(job, document, outcome.value)
    else:
        places = await asyncio.to_thread(_places, job, document, outcome.value)
    return replace(outcome, places=places)


def _places(job: Job, document: Document, value: Any) -> tuple[Place, ...]:
    parts = spans_of_parts(job, document)
    return places_of(value, document, job.step.checks, parts)
