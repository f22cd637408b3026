"""The mark of a row whose label is a teacher's, a model's, and no person's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# field of a row; what it says is written by `tierwise distil`
MARK = "distilled_from"


def has_mark(row: Mapping[str, Any]) -> bool:
    """Return True for a row whose label is a teacher's; a CSV file has the column for every row."""
    return row.get(MARK) not in (None, "")


def teacher_of(row: Mapping[str, Any]) -> str | None:
    """Return the teacher's name of a marked row, as far as the mark says it; None without one."""
    if not has_mark(row):
        return None
    mark = row[MARK]
    if isinstance(mark, str):
        # in a CSV file, the mark is JSON, or what a person made of it
        try:
            mark = json.loads(mark)
        except ValueError:
            return str(mark)
    if isinstance(mark, Mapping) and isinstance(mark.get("teacher"), str):
        return str(mark["teacher"])
    return "a teacher"
