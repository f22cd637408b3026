"""A teacher's labels: a file of their own for each step, never in golden/.

A row has the document's `id`, `text` and `sensitivity`, the label under `expected`, and
`distilled_from`: the teacher's name, its identity, a hash of the question (prompt, schema, checks
and parameters), and the date. Without a label, the teacher gave no acceptable answer.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tierwise.errors import ConfigError, unknown_name
from tierwise.evidence.distil.pool import is_set_aside
from tierwise.records import SENSITIVITIES, Document, Sensitivity
from tierwise.steps.teacher_mark import MARK, has_mark
from tierwise.text.files import write_atomically
from tierwise.text.rows import json_lines, read_rows
from tierwise.text.terms import normalised

FOLDER = "distilled"
Purpose = Literal["learn", "certify"]


def distilled_file(root: Path, step: str) -> Path:
    """Return the file with the teacher's labels of a step."""
    return root / FOLDER / f"{step}.jsonl"


def may_be_learned_from(root: Path, step: str, text: str) -> bool:
    """Return True for a text that `distil` may have chosen to teach a classifier of the step.

    What it chose is harder than the rest, so that the rest alone would measure too well.
    """
    return distilled_file(root, step).exists() and not is_set_aside(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherLabel:
    """What a teacher said of one document; `label` is None where no answer was acceptable."""

    id: str
    text: str = field(repr=False)
    label: str | None
    sensitivity: Sensitivity
    teacher: str
    identity: str  # Current.identities
    asked: str  # hash of the question
    date: str  # ISO
    purpose: Purpose

    @property
    def key(self) -> tuple[str, str, str]:
        """The text, without what makes no difference, and the question to its teacher."""
        return normalised(self.text), self.identity, self.asked


@dataclass(frozen=True, slots=True)
class TeacherLabels:
    """The labels of one file, by text and question, each once."""

    path: Path
    labels: Mapping[tuple[str, str, str], TeacherLabel]

    @classmethod
    def read(
        cls, path: Path, field_name: str, asked: str, allowed: Collection[str]
    ) -> TeacherLabels:
        """Read the file; none is no labels.

        Raises ConfigError with file and line for a damaged row, and for a row of the question
        `asked` whose label is none of `allowed`: rows of other questions may have others.
        """
        labels = {}
        for line, label in _rows(path, field_name):
            is_answer = label.asked == asked and label.label is not None
            if is_answer and label.label not in allowed:
                message = unknown_name("label", str(label.label), allowed)
                raise ConfigError(message, path=path, line=line)
            labels[label.key] = label
        return cls(path, labels)

    def of(self, identity: str, asked: str, purpose: Purpose) -> list[TeacherLabel]:
        """Return the labels of one teacher and question, for one purpose."""
        return [
            label
            for label in self.labels.values()
            if (label.identity, label.asked, label.purpose)
            == (identity, asked, purpose)
        ]

    def with_labels(self, labels: Iterable[TeacherLabel]) -> TeacherLabels:
        """Return these and some more; the later one of two counts."""
        return replace(
            self, labels={**self.labels, **{label.key: label for label in labels}}
        )

    def write(self, field_name: str) -> None:
        """Replace the file at once or not at all; only its owner can read it."""
        rows = [_row(label, field_name) for label in self.labels.values()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = json_lines(rows).encode("utf-8", "backslashreplace")
        write_atomically(self.path, data, private=True)


def label_of(
    document: Document,
    label: str | None,
    *,
    teacher: str,
    identity: str,
    asked: str,
    purpose: Purpose,
) -> TeacherLabel:
    """Return a teacher's label of a document, given today."""
    return TeacherLabel(
        id=document.id,
        text=document.text,
        label=label,
        sensitivity=document.strictest,
        teacher=teacher,
        identity=identity,
        asked=asked,
        date=datetime.date.today().isoformat(),
        purpose=purpose,
    )


def _row(label: TeacherLabel, field_name: str) -> dict[str, Any]:
    expected = {} if label.label is None else {field_name: label.label}
    return {
        "id": label.id,
        "text": label.text,
        "sensitivity": label.sensitivity,
        "expected": expected,
        MARK: {
            "teacher": label.teacher,
            "identity": label.identity,
            "asked": label.asked,
            "date": label.date,
            "for": label.purpose,
        },
    }


def _rows(path: Path, field_name: str) -> Iterator[tuple[int, TeacherLabel]]:
    if not path.exists():
        return
    for line, row in read_rows(path):
        if isinstance(row, ConfigError):
            raise row
        try:
            yield line, _parsed(row, field_name)
        except (KeyError, TypeError, ValueError, AttributeError):
            message = (
                f"not a teacher's label as `tierwise distil` writes it: {MARK} or another field "
                "is missing or damaged; take the row out (the ledger keeps the paid answer)"
            )
            raise ConfigError(message, path=path, line=line) from None


def _parsed(row: Mapping[str, Any], field_name: str) -> TeacherLabel:
    """Return a row's label. Raises KeyError, TypeError or ValueError for a damaged one."""
    if not has_mark(row):
        raise KeyError(MARK)
    mark = row[MARK]
    label = row["expected"].get(field_name)
    texts = [row["text"], mark["teacher"], mark["identity"], mark["asked"]]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(texts)
    if label is not None and (not isinstance(label, str) or not label):
        raise ValueError(label)
    if row["sensitivity"] not in SENSITIVITIES or mark["for"] not in (
        "learn",
        "certify",
    ):
        raise ValueError(json.dumps(mark))
    datetime.date.fromisoformat(mark["date"])
    return TeacherLabel(
        id=str(row["id"]),
        text=row["text"],
        label=label,
        sensitivity=row["sensitivity"],
        teacher=mark["teacher"],
        identity=mark["identity"],
        asked=mark["asked"],
        date=mark["date"],
        purpose=mark["for"],
    )
