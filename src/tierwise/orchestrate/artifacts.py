"""What an operator finds on a flow run's page: its table, what waits and what to do about it, plan against actual."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tierwise.documents.markdown import span
from tierwise.orchestrate.server import tellable
from tierwise.report import RunSummary

log = logging.getLogger(__name__)
_MOST = 20  # documents named of each kind


@dataclass(frozen=True)
class _Kind:
    """Deferred documents that call for the same."""

    title: str
    remedy: str


_READ = _Kind(
    "Could not be read", "Each reason says what helps. Mend the file and run the flow again; then it counts as new."
)
_BUDGET = _Kind("No money left", "Run the flow again with a higher budget; what was paid is reused.")
_REVIEW = _Kind(
    "Wait for a person's review",
    "`tierwise review` shows each one and takes the decision; then `tierwise retry` goes on.",
)
_NOBODY = _Kind(
    "No model may or can do it",
    "Set what the reason names; `tierwise models` shows what is missing. Then `tierwise retry`.",
)
_FAILED = _Kind(
    "No allowed model answered well",
    "`tierwise explain DOCUMENT` shows every attempt. Allow a stronger model in `routing_rules/rules.yaml` and "
    "`tierwise retry`, or decide yourself with `tierwise review`.",
)


def publish_summary(summary: RunSummary) -> None:
    """Show the summary on the flow run's page; its versions over the runs are the trend."""
    flow = re.sub(r"[^a-z0-9]+", "-", summary.flow.lower()).strip("-")
    create_table_artifact(table=summary.cells(), key=f"{flow}-summary", description=summary.headline())
    create_markdown_artifact(markdown=attention(summary), key=f"{flow}-attention", description="What waits")
    if against := summary.against_plan():
        table = [row.cells() for row in against]
        create_table_artifact(table=table, key=f"{flow}-plan", description="Planned, and what came of it")


def attention(summary: RunSummary) -> str:
    """What waits in a run and what to do about it, as Markdown in which documents' texts mean nothing."""
    run = summary.run
    lines = [f"# {run.deferred} of {run.documents} documents wait", "", f"Run `{run.id}`: {summary.headline()}.", ""]
    found = sorted(((kind_of(row.step, row.reason), row) for row in summary.deferred), key=lambda pair: pair[0].title)
    for kind, pairs in groupby(found, key=lambda pair: pair[0]):
        rows = [(row.document_id, row.step, tellable(row)) for _, row in pairs]
        lines += [f"## {kind.title}: {len(rows)}", "", kind.remedy, "", *_listed(rows), ""]
    lines += [f"All of it, on the machine of the project: `tierwise show {run.id} --documents`"]
    return "\n".join(lines) + "\n"


def kind_of(step: str, reason: str) -> _Kind:
    """What a deferred document calls for."""
    if step == "read":
        return _READ
    if reason.startswith("budget"):
        return _BUDGET
    if reason.startswith("waits for a person"):
        return _REVIEW
    return _NOBODY if reason.startswith(("no acceptable model", "no route")) else _FAILED


def _listed(rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """A line for each document, up to a number."""
    for document, step, reason in rows[:_MOST]:
        yield f"- {span(document)} in {span(step)}: {span(reason)}"
    if len(rows) > _MOST:
        yield f"- and {len(rows) - _MOST} more"
