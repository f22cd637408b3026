"""The engine of a dry run, which a planner and a sampler have in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tierwise.engine import Engine
from tierwise.records import Batch


class DryRunEngine(Engine):
    """An engine whose flow keeps its documents in memory and writes no results."""

    @property
    def spool(self) -> Path | None:
        """None: a dry run keeps its documents in memory."""
        return None

    def write_documents(
        self,
        batches: Iterable[Batch],  # noqa: ARG002 - a dry run has no results
        folder: Path,
        *,
        keep: bool,  # noqa: ARG002
        html: bool = False,  # noqa: ARG002
    ) -> Path:
        """Return the path of outcomes.jsonl, which is not written."""
        return self.project.root / folder / "outcomes.jsonl"
