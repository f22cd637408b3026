"""Saved plans: the next run of the same flow with the same parameters records its plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tierwise.plan.plan import Plan
from tierwise.records import canonical_hash
from tierwise.text.files import write_atomically
from tierwise.text.private import private_folder

FOLDER = Path(".tierwise") / "plans"


def save_plan(root: Path, plan: Plan) -> Path:
    """Save a plan for the next run, in place of an earlier one for the same parameters."""
    path = _path(root, plan.flow, plan.parameters)
    private_folder(path.parent)
    write_atomically(path, json.dumps(plan.data(), default=str), private=True)
    return path


def take_plan(
    root: Path, flow: str, parameters: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the saved plan for a run and delete it; None when there is none that can be read."""
    path = _path(root, flow, parameters)
    with suppress(FileNotFoundError, ValueError):
        plan = json.loads(path.read_text(encoding="utf-8-sig"))
        path.unlink(missing_ok=True)
        return plan if isinstance(plan, dict) else None
    return None


def _path(root: Path, flow: str, parameters: Mapping[str, str]) -> Path:
    identity = canonical_hash([flow, dict(parameters)])
    return root / FOLDER / f"{identity[:32]}.json"
