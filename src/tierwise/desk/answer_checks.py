"""The checks of a step on an answer that a person has edited."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tierwise.errors import Misuse, TierwiseError
from tierwise.project import Project
from tierwise.records import Document, Verdict
from tierwise.review.queue import ReviewItem


def failed_checks(
    project: Project, item: ReviewItem, answer: Mapping[str, Any], text: str | None
) -> list[Verdict]:
    """Return the checks that an answer fails; none where the step or the text is gone.

    Raises Misuse for an answer that does not fit the step.
    """
    from tierwise.evidence.certify import measured_step

    try:
        step, parameters = measured_step(project, item.step)
    except TierwiseError:
        return []  # the schema on record is checked all the same
    output = step.parse(json.dumps(answer))
    if isinstance(output, Verdict):
        raise Misuse(output.reason)
    if text is None:
        return []
    document = Document(
        id=item.document_id, text=text, sensitivity=item.outcome.sensitivity
    )
    failed: list[Verdict] = []
    for check in step.checks:
        verdicts = check.on(output, document, parameters)
        failed.extend(verdict for verdict in verdicts if verdict.passed is False)
    return failed
