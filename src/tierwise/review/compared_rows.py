"""People's verdicts on two variants as a golden set, on which both can be certified as a pair."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierwise.errors import Misuse
from tierwise.records import Sensitivity, rank
from tierwise.text.amounts import plural
from tierwise.text.files import write_atomically
from tierwise.text.rows import json_lines

if TYPE_CHECKING:
    from tierwise.project import Project

SUFFIX = "-compared"
_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One compared document. `expected` is the right answer, None where nobody gave it."""

    document_id: str
    text: str | None
    sensitivity: Sensitivity
    expected: Mapping[str, Any] | None
    reviewer: str
    judged_at: float | None


@dataclass
class ComparedRows:
    """The golden set that was written, and the documents left out, each with the reason."""

    path: Path
    rows: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


def write_compared_rows(
    project: Project, step: str, rows: Iterable[ComparedRow]
) -> ComparedRows:
    """Write golden/STEP-compared.jsonl. Raises Misuse where a right answer is missing.

    Why a document is left out has nothing to do with its verdict: its text is gone, or is
    confidential, as such files are meant for version control.
    """
    path = project.root / "golden" / f"{step}{SUFFIX}.jsonl"
    result = ComparedRows(path)
    written: list[dict[str, Any]] = []
    missing: list[str] = []
    ids: set[str] = set()
    for row in rows:
        if row.text is None:
            result.left_out.append((row.document_id, "its text is not kept"))
            continue
        if rank(row.sensitivity) >= rank("confidential"):
            result.left_out.append((row.document_id, f"it is {row.sensitivity}"))
            continue
        if row.expected is None:
            missing.append(row.document_id)
            continue
        row_id = row.document_id
        number = 1
        while row_id in ids:
            number += 1
            row_id = f"{row.document_id}~{number}"
        ids.add(row_id)
        judged = datetime.datetime.fromtimestamp(row.judged_at or 0)
        written.append(
            {
                "id": row_id,
                "text": row.text,
                "sensitivity": row.sensitivity,
                "expected": dict(row.expected),
                "reviewer": row.reviewer,
                "date": judged.date().isoformat(),
            }
        )
    if missing:
        more = ", …" if len(missing) > _MOST_NAMED else ""
        raise Misuse(
            f"{plural(len(missing), 'document')} have no right answer "
            f"({', '.join(missing[:_MOST_NAMED])}{more}); leaving them out would flatter both, "
            "so give the right answer with `neither`"
        )
    if written:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json_lines(written).encode("utf-8", "backslashreplace"))
    result.rows = len(written)
    return result
