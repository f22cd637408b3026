"""The flow example_flow, with a stand-in behind every model."""

from __future__ import annotations

from pathlib import Path

from flows.example_flow import example_flow
from tierwise.testing import StandIn


def test_every_document_comes_to_an_end(prefect_server: None, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(
        "A document to try the flow on. Put one of yours here."
    )
    with StandIn():
        summary = example_flow(source=tmp_path / "in", out=tmp_path / "out")
    assert (summary.run.documents, summary.run.deferred) == (1, 0)
    assert (tmp_path / "out" / "outcomes.jsonl").exists()
