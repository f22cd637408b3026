"""Persons' decisions as labelled examples in golden/."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierwise.errors import Misuse
from tierwise.records import rank, text_hash
from tierwise.review.queue import find_texts
from tierwise.steps.examples import Example, read_golden

if TYPE_CHECKING:
    from tierwise.ledger import Decision, Ledger, RunRow
    from tierwise.project import Project


@dataclass
class Added:
    """How many rows went into which file, and what was left out and why."""

    written: dict[Path, int] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def add_labels(
    ledger: Ledger,
    project: Project,
    run: RunRow,
    step: str | None,
    *,
    suffix: str,
    confidential: bool,
) -> Added:
    """Write what was approved or edited in a run to golden/<step><suffix>.jsonl.

    Raises Misuse when nothing was decided, ConfigError when a file that is there is wrong.
    """
    decisions = [
        d for d in ledger.reviews.standing(run.id, step) if d.decision in ("approved", "edited")
    ]
    if not decisions:
        raise Misuse(
            f"no answer was approved or edited in run {run.id}; decide with `tierwise review {run.id}`"
        )
    texts = find_texts(ledger, project, run, {decision.document_hash for decision in decisions})
    added = Added()
    for name in dict.fromkeys(decision.step for decision in decisions):
        files = _Files(project.root / "golden", name, suffix)
        for decision in (d for d in decisions if d.step == name):
            text = texts.get(decision.document_hash)
            if why := _against(decision, text, files, confidential=confidential):
                added.left_out.append((decision.document_id, why))
            else:
                files.add(decision, str(text))
        if files.rows:
            files.write()
            added.written[files.path] = len(files.rows)
    return added


def _against(
    decision: Decision, text: str | None, files: _Files, *, confidential: bool
) -> str | None:
    """Why a decision becomes no example, or None."""
    if not confidential and rank(decision.sensitivity) >= rank("confidential"):
        return f"it is {decision.sensitivity}; --include-confidential writes it all the same"
    if decision.value is None:
        return "its answer is no longer kept"
    if text is None:
        return "its text is not kept, and not found in the run's source"
    return files.holding(text)


class _Files:
    """The file that rows are added to, and its sister, which must have none of the same texts."""

    def __init__(self, folder: Path, step: str, suffix: str) -> None:
        self.path = folder / f"{step}{suffix}.jsonl"
        self.rows: list[dict[str, Any]] = []
        self._ids: set[str] = set()
        self._texts: dict[str, str] = {}
        for path in (folder / f"{step}.jsonl", folder / f"{step}-examples.jsonl"):
            for example in _examples(path):
                self._texts[text_hash(example.text.strip())] = path.name
                if path == self.path:
                    self._ids.add(example.id)

    def holding(self, text: str) -> str | None:
        """Where a text stands already, or None."""
        name = self._texts.get(text_hash(text.strip()))
        return name and f"its text stands in {name} already"

    def add(self, decision: Decision, text: str) -> None:
        """One more row."""
        number = 1
        unique = decision.document_id
        while unique in self._ids:
            number += 1
            unique = f"{decision.document_id}~{number}"
        self._ids.add(unique)
        self._texts[text_hash(text.strip())] = self.path.name
        row = {
            "id": unique,
            "text": text,
            "sensitivity": decision.sensitivity,
            "expected": decision.value,
            "source": f"{decision.run_id}/{decision.document_id}",
            "reviewer": decision.reviewer,
            "date": datetime.datetime.fromtimestamp(decision.reviewed_at).date().isoformat(),
        }
        self.rows.append(row)

    def write(self) -> None:
        """Add the rows to the file. Raises Misuse when it cannot be written."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        try:
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("a+b") as file:
                end = file.seek(0, 2)
                whole = not end or (file.seek(end - 1), file.read(1))[1] == b"\n"
                file.write(
                    ("" if whole else "\n").encode() + lines.encode("utf-8", "backslashreplace")
                )
        except OSError as error:
            raise Misuse(
                f"{self.path}: cannot be written: {error.strerror}; check its permissions"
            ) from None


def _examples(path: Path) -> Iterable[Example]:
    if not path.exists():
        return ()
    examples, faults = read_golden(path, at_least=0)
    for fault in faults:
        raise fault
    return examples.values()
