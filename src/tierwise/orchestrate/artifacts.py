"""What an operator finds on a flow run's page: its table, what waits and what to do about it, plan against actual."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import groupby
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tierwise.documents.markdown import code_span
from tierwise.ledger import SummaryRow
from tierwise.ledger.views.summary import ErrorRow
from tierwise.orchestrate.server import tellable
from tierwise.records import Cause
from tierwise.report import PlanComparison, RunSummary
from tierwise.report.attention import Attention, attention_items
from tierwise.report.figures import ProjectFacts
from tierwise.report.interval import interval
from tierwise.text.amounts import rounded, usd

_MOST = 20  # documents named of each kind
_COLUMNS = (
    *("step", "tier", "model", "documents", "pass rate", "cost, USD"),
    *("deferred", "escalations", "attempts", "p50 / p95", "failed checks"),
)


@dataclass(frozen=True)
class _Kind:
    """Deferred documents that call for the same."""

    title: str
    remedy: str  # in which RUN stands for the run's id


_READ = _Kind(
    "Could not be read",
    "Each reason says what helps. Mend the file and run the flow again; then it counts as new.",
)
_BUDGET = _Kind(
    "No money left", "Run the flow again with a higher `budget_usd`; what was paid is reused."
)
_REVIEW = _Kind(
    "Wait for a person's review",
    "`tierwise review RUN` shows each one and takes the decision; then `tierwise retry RUN` goes on.",
)
_NOBODY = _Kind(
    "No model may or can do it",
    "Set what the reason names; `tierwise models` shows what is missing. Then `tierwise retry RUN`.",
)
_FAILED = _Kind(
    "No allowed model answered well",
    "`tierwise explain DOCUMENT` shows every attempt. Allow a stronger model in `routing_rules/rules.yaml` and "
    "`tierwise retry RUN`, or decide yourself with `tierwise review RUN`.",
)


def publish_summary(summary: RunSummary) -> None:
    """Show the summary on the flow run's page; its versions over the runs are the trend."""
    flow = summary.flow
    create_table_artifact(
        table=table(summary), key=key_of(flow, "summary"), description=_described(summary)
    )
    create_markdown_artifact(
        markdown=attention(summary), key=key_of(flow, "attention"), description="What waits"
    )
    if against := summary.against_plan():
        told = "Planned → what came of it; the deviation is that of the cost. Reused answers count as calls."
        create_table_artifact(
            table=[*map(_against_cells, against)], key=key_of(flow, "plan"), description=told
        )


def key_of(flow: str, what: str) -> str:
    """The key of a flow's artifact: the same in every run."""
    return f"{re.sub(r'[^a-z0-9]+', '-', flow.lower()).strip('-')}-{what}"


def table(summary: RunSummary) -> list[dict[str, Any]]:
    """A row for each step, tier and model, the telling columns first: Prefect's page cuts off what is too wide."""
    rows = [_cells(row) for row in summary.rows]
    unasked = Counter(row.step for row in summary.deferred)
    for row in summary.rows:
        unasked[row.step] -= row.deferred
    rows += [_unasked_cells(step, number) for step, number in unasked.items() if number > 0]
    return [dict.fromkeys(_COLUMNS, "") | row for row in rows]


def attention(summary: RunSummary) -> str:
    """What waits in a run and what to do about it, as Markdown in which documents' texts mean nothing."""
    run = summary.run
    lines = [
        f"# {run.deferred} of {run.documents} documents wait",
        "",
        f"Run `{run.id}`: {summary.headline()}.",
        "",
    ]
    found = sorted(
        ((kind_of(row.cause), row) for row in summary.deferred),
        key=lambda pair: pair[0].title,
    )
    for kind, pairs in groupby(found, key=lambda pair: pair[0]):
        named = [(row.document_id, row.step, tellable(row)) for _, row in pairs]
        lines += [
            f"## {kind.title}: {len(named)}",
            "",
            kind.remedy.replace("RUN", run.id),
            "",
            *_listed(named),
            "",
        ]
    if others := _others(summary):
        lines += [
            "## Worth a look",
            "",
            *(f"- {item.text}: {code_span(item.command)}" for item in others),
            "",
        ]
    lines += ["## More", "", "On the machine of the project:", ""]
    lines += [
        f"- `tierwise report {run.id} --open`: the report, a page with a receipt for every document"
    ]
    lines += [f"- `tierwise show {run.id} --documents`: every document and step in the terminal"]
    return "\n".join(lines) + "\n"


def _others(summary: RunSummary) -> list[Attention]:
    """What is worth a look besides the documents that wait."""
    errors = [
        ErrorRow(step=row.step, model=row.model, error=error, calls=calls)
        for row in summary.rows
        for error, calls in row.errors.items()
    ]
    return attention_items(
        [replace(summary, deferred=())], errors, ProjectFacts(), datetime.date.today()
    )


_REMEDIES: dict[Cause, _Kind] = {
    "unreadable": _READ,
    "budget": _BUDGET,
    "review": _REVIEW,
    "no_model": _NOBODY,
}


def kind_of(cause: Cause | None) -> _Kind:
    """Return the remedy for a deferred document."""
    return _FAILED if cause is None else _REMEDIES.get(cause, _FAILED)


def _listed(rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """A line for each document, up to a number."""
    for document, step, reason in rows[:_MOST]:
        yield f"- {code_span(document)} in {code_span(step)}: {code_span(reason)}"
    if len(rows) > _MOST:
        yield f"- and {len(rows) - _MOST} more"


def _described(summary: RunSummary) -> str:
    return f"{summary.headline()}. After each pass rate stands its exact 95 % interval."


def _cells(row: SummaryRow) -> dict[str, Any]:
    return {
        "step": row.step,
        "tier": row.tier,
        "model": row.model,
        "documents": row.documents,
        "pass rate": _rate(row),
        "cost, USD": _usd(row.cost_known, row.cost_unknown),
        "deferred": row.deferred,
        "escalations": row.escalations,
        "attempts": f"{row.attempts}, {row.reused} reused" if row.reused else str(row.attempts),
        "p50 / p95": _seconds(row),
        "failed checks": ", ".join(f"{name} {count}" for name, count in row.checks_failed.items()),
    }


def _unasked_cells(step: str, documents: int) -> dict[str, Any]:
    """Documents that wait although no model was asked."""
    return {"step": step, "model": "none was asked", "documents": documents, "deferred": documents}


def _rate(row: SummaryRow) -> str:
    """The pass rate and its exact 95 % interval; nothing for a shadow."""
    found = interval(row.accepted, row.documents)
    if row.pass_rate is None or found is None:
        return ""
    return f"{row.pass_rate:.0%} ({100 * found[0]:.0f}–{found[1]:.0%})"


def _seconds(row: SummaryRow) -> str:
    if row.latency_p50_s is None or row.latency_p95_s is None:
        return ""
    return f"{row.latency_p50_s:.2f} / {row.latency_p95_s:.2f} s"


def _against_cells(row: PlanComparison) -> dict[str, Any]:
    planned, actual = (
        "unknown" if cost is None else _usd(cost) for cost in (row.planned_cost, row.cost)
    )
    return {
        "step": row.step,
        "tier": row.tier,
        "model": row.model,
        "documents": f"{rounded(row.planned_documents)} → {row.documents}",
        "deviation": "" if row.deviation is None else f"{row.deviation:+.0%}",
        "cost, USD": f"{planned} → {actual}",
        "calls": f"{rounded(row.planned_calls)} → {row.calls}",
    }


def _usd(known: Decimal, unknown: int = 0) -> str:
    """An amount below a head that says what it is."""
    return usd(known, unknown).replace(" USD", "")
