"""Reviewers' decisions as labelled examples in golden/."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tierwise.errors import Misuse
from tierwise.records import rank, text_hash
from tierwise.review.queue import find_metadata, find_texts
from tierwise.steps.examples import Example, read_golden
from tierwise.steps.row_faults import approved_fault, row_fault
from tierwise.text.rows import json_lines

if TYPE_CHECKING:
    from tierwise.ledger import Decision, Ledger, RunRow
    from tierwise.project import Project
    from tierwise.steps.prompts import Prompt
    from tierwise.steps.step import Step


@dataclass
class AddedRows:
    """The number of rows added to each file, and the documents left out, each with the reason."""

    written: dict[Path, int] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def add_golden_rows(
    ledger: Ledger,
    project: Project,
    run: RunRow,
    step: str | None,
    *,
    suffix: str,
    confidential: bool,
) -> AddedRows:
    """Write the approved and edited answers of a run to golden/<step><suffix>.jsonl.

    An answer that would make a row on which nothing can be measured is left out. Raises Misuse when
    there are no answers, ConfigError when an existing file is wrong.
    """
    decisions = [
        decision
        for decision in ledger.reviews.standing(run.id, step)
        if decision.decision in ("approved", "edited")
    ]
    if not decisions:
        raise Misuse(
            f"no answer was approved or edited in run {run.id}; "
            f"decide with `tierwise review {run.id}`"
        )
    # all are loaded before anything is written, so that a missing step leaves no half of the rows
    measures = {
        name: _Measure.of(project, name)
        for name in dict.fromkeys(decision.step for decision in decisions)
    }
    hashes = {decision.document_hash for decision in decisions}
    texts = find_texts(ledger, project, run, hashes)
    # the ledger has no metadata, so only a prompt that uses it is worth reading the source for
    metadata: Mapping[str, Mapping[str, str]] = {}
    if any("metadata" in measure.prompt.variables for measure in measures.values()):
        metadata = find_metadata(ledger, project, run, hashes)
    by_step: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_step.setdefault(decision.step, []).append(decision)

    added = AddedRows()
    for name, step_decisions in by_step.items():
        file = _GoldenFile(project.root / "golden", name, suffix)
        measure = measures[name]
        for decision in step_decisions:
            text = texts.get(decision.document_hash)
            reason = _reason_left_out(decision, text, file, confidential=confidential)
            # a row of examples is shown and not measured, so any answer will do there
            if not reason and not suffix:
                reason = measure.fault(decision.value)
            if text is None or reason:
                added.left_out.append((decision.document_id, str(reason)))
                continue
            # what the step would have been given besides the text, so that the row asks the same
            known: dict[str, Any] = {}
            outcomes = _earlier_outcomes(ledger, decision)
            # a prompt that reads earlier steps needs the key even where there were none
            if outcomes or measure.prompt.earlier_steps:
                known["outcomes"] = outcomes
            if "metadata" in measure.prompt.variables:
                known["metadata"] = metadata.get(decision.document_hash, {})
            file.add(decision, text, known)
        if file.rows:
            file.write()
            added.written[file.path] = len(file.rows)
    return added


@dataclass(frozen=True)
class _Measure:
    """A step as its golden set measures it."""

    step: Step
    parameters: Mapping[str, Any]
    prompt: Prompt

    @classmethod
    def of(cls, project: Project, name: str) -> _Measure:
        # here and not at the top, as it imports the whole evaluation
        from tierwise.evidence.certify import measured_step

        step, parameters = measured_step(project, name)
        return cls(step, parameters, project.prompts[step.prompt])

    def fault(self, answer: Mapping[str, Any]) -> str | None:
        """Return why an approved answer, as a row, would measure nothing; None if it is sound."""
        fault = row_fault(self.step, self.parameters, answer)
        return fault or approved_fault(self.step, answer)


def _earlier_outcomes(ledger: Ledger, decision: Decision) -> dict[str, Any]:
    """Return the answers that the document had when it came to the step, by step."""
    answers = {}
    for row in ledger.runs.outcomes(decision.run_id, decision.document_id):
        if row.outcome.step == decision.step:
            break  # they are in the order of recording
        if row.outcome.status == "accepted" and row.outcome.value is not None:
            answers[row.outcome.step] = row.outcome.value
    return answers


def _reason_left_out(
    decision: Decision, text: str | None, file: _GoldenFile, *, confidential: bool
) -> str | None:
    """Return the reason why a decision becomes no example, or None."""
    # golden/ is under version control, where a text stays for good
    if not confidential and rank(decision.sensitivity) >= rank("confidential"):
        return f"it is {decision.sensitivity}; --include-confidential writes it all the same"
    if decision.value is None:
        return "its answer is no longer kept"
    if text is None:
        return "its text is not kept, and not found in the run's source"
    existing = file.name_of(text)
    return f"its text is in {existing} already" if existing else None


class _GoldenFile:
    """The file that rows are added to.

    A step has two such files, to measure on and to show in prompts, which must have no text in
    common.
    """

    def __init__(self, folder: Path, step: str, suffix: str) -> None:
        self.path = folder / f"{step}{suffix}.jsonl"
        self.rows: list[dict[str, Any]] = []
        self._ids: set[str] = set()
        self._file_of: dict[str, str] = {}  # hash of a text -> name of the file
        measured = folder / f"{step}.jsonl"
        shown_in_prompts = folder / f"{step}-examples.jsonl"
        # both, whichever is written to: no text may be in the two
        for path in (measured, shown_in_prompts):
            for example in _read_examples(path):
                self._file_of[_stripped_hash(example.text)] = path.name
                if path == self.path:
                    self._ids.add(example.id)

    def name_of(self, text: str) -> str | None:
        """Return the name of the file that has a text already, or None."""
        return self._file_of.get(_stripped_hash(text))

    def add(self, decision: Decision, text: str, known: Mapping[str, Any]) -> None:
        """Add one row, under an id of its own, with what the step knew besides the text."""
        # documents of two runs may have the same id and different texts
        row_id = decision.document_id
        number = 1
        while row_id in self._ids:
            number += 1
            row_id = f"{decision.document_id}~{number}"
        self._ids.add(row_id)
        self._file_of[_stripped_hash(text)] = self.path.name
        # local time, as the reviewer remembers the day
        reviewed_on = datetime.datetime.fromtimestamp(decision.reviewed_at).date()
        row = {
            "id": row_id,
            "text": text,
            "sensitivity": decision.sensitivity,
            **known,
            "expected": decision.value,
            "source": f"{decision.run_id}/{decision.document_id}",
            "reviewer": decision.reviewer,
            "date": reviewed_on.isoformat(),
        }
        self.rows.append(row)

    def write(self) -> None:
        """Append the rows to the file. Raises Misuse when it cannot be written."""
        # a text may hold a lone surrogate, which has no bytes
        lines = json_lines(self.rows).encode("utf-8", "backslashreplace")
        try:
            self.path.parent.mkdir(exist_ok=True)
            # rows are appended and never rewritten: people edit these files by hand
            with self.path.open("a+b") as file:
                if not _ends_with_newline(file):
                    lines = b"\n" + lines
                file.write(lines)
        except OSError as error:
            raise Misuse(
                f"{self.path}: cannot be written: {error.strerror}; check its permissions"
            ) from None


def _stripped_hash(text: str) -> str:
    # editors and exports add or drop a last newline
    return text_hash(text.strip())


def _ends_with_newline(file: IO[bytes]) -> bool:
    """Return True if a file is empty or ends with a newline, which editors may leave out."""
    # 2: from the end
    size = file.seek(0, 2)
    if size == 0:
        return True
    file.seek(size - 1)
    return file.read(1) == b"\n"


def _read_examples(path: Path) -> Iterable[Example]:
    if not path.exists():
        return ()
    examples, faults = read_golden(path, at_least=0)
    if faults:
        # a faulty file is mended first: its ids and texts are not all known
        raise faults[0]
    return examples.values()
