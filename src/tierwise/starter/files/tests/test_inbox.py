"""The flow inbox, with a stand-in behind every model."""

from __future__ import annotations

import json
from pathlib import Path

from flows.inbox import KINDS, inbox
from tierwise.project import Project
from tierwise.testing import StandIn

LOCAL = {
    name
    for name, model in Project.find().catalog.models.items()
    if model.tier == "local"
}


def test_every_letter_is_sorted_and_summarised(
    prefect_server: None, tmp_path: Path
) -> None:
    with StandIn({"label": "complaint"}) as models:
        summary = inbox(out=tmp_path)
    assert (summary.run.documents, summary.run.deferred) == (6, 0)
    letters = [
        json.loads(line)
        for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()
    ]
    assert {letter["outcomes"]["classify"]["value"]["label"] for letter in letters} == {
        "complaint"
    }
    assert all(
        letter["outcomes"]["summarize"]["status"] == "accepted" for letter in letters
    )

    confidential = [
        request for request in models.requests if "Ruth Strand" in request.document
    ]
    assert {request.model for request in confidential} <= LOCAL
    assert {request.model for request in models.requests} - LOCAL


def test_the_golden_set_has_the_kinds_of_the_flow() -> None:
    """Certify the kinds that the flow asks for."""
    with StandIn() as models:
        models.ask("classify", "A letter.")
        asked = models.requests[-1]
    assert asked.schema["properties"]["label"]["enum"] == list(KINDS)
    assert all(meaning in asked.system for meaning in KINDS.values())
