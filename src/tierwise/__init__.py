"""tierwise: batch document workflows whose steps each go to the cheapest model shown capable.

Names load when they are first used, so that importing tierwise costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierwise.errors import TierwiseError, TryAgain
    from tierwise.orchestrate.documents import (
        documents_from,
        read_documents,
        write_documents,
    )
    from tierwise.orchestrate.group_by import group_by
    from tierwise.orchestrate.joining import join
    from tierwise.orchestrate.own_steps import function_step, http_step
    from tierwise.orchestrate.redact_task import redact
    from tierwise.orchestrate.runs import recorded_run
    from tierwise.orchestrate.steps import StepTask, step
    from tierwise.orchestrate.task_runners import task_runner
    from tierwise.records import (
        Batch,
        Document,
        Member,
        Outcome,
        Sensitivity,
        Verdict,
    )
    from tierwise.report import RunSummary
    from tierwise.steps.checks import Check, check

__version__ = "0.1.0"

_HOMES = {
    "Batch": "records",
    "Check": "steps.checks",
    "Document": "records",
    "Member": "records",
    "Outcome": "records",
    "RunSummary": "report",
    "Sensitivity": "records",
    "StepTask": "orchestrate.steps",
    "TierwiseError": "errors",
    "TryAgain": "errors",
    "Verdict": "records",
    "check": "steps.checks",
    "documents_from": "orchestrate.documents",
    "function_step": "orchestrate.own_steps",
    "http_step": "orchestrate.own_steps",
    "join": "orchestrate.joining",
    "group_by": "orchestrate.group_by",
    "read_documents": "orchestrate.documents",
    "recorded_run": "orchestrate.runs",
    "redact": "orchestrate.redact_task",
    "step": "orchestrate.steps",
    "task_runner": "orchestrate.task_runners",
    "write_documents": "orchestrate.documents",
}
__all__ = [
    "Batch",
    "Check",
    "Document",
    "Member",
    "Outcome",
    "RunSummary",
    "Sensitivity",
    "StepTask",
    "TierwiseError",
    "TryAgain",
    "Verdict",
    "check",
    "documents_from",
    "function_step",
    "http_step",
    "join",
    "group_by",
    "read_documents",
    "recorded_run",
    "redact",
    "step",
    "task_runner",
    "write_documents",
]


def __dir__() -> list[str]:
    """Return the public names, also those that are not loaded yet."""
    return sorted({*globals(), *__all__})


# A type checker reads the imports above: for it, a misspelt name is an error.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'tierwise' has no attribute '{name}'")
        return getattr(import_module(f"tierwise.{_HOMES[name]}"), name)
