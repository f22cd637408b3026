"""Prefect artifacts of a flow run: its summary, the deferred documents, and plan against actual."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from tierwise.documents.markdown import code_span
from tierwise.ledger import DeferredRow, SummaryRow
from tierwise.ledger.views.summary import ErrorRow
from tierwise.orchestrate.server import tellable
from tierwise.report import PlanComparison, RunSummary
from tierwise.report.attention import Attention, attention_items
from tierwise.report.causes import by_cause, faults_in_words, remedy_for
from tierwise.report.figures import ProjectFacts
from tierwise.report.interval import interval
from tierwise.text.amounts import rounded, usd

_DOCUMENTS_NAMED = 20  # of each kind
_COLUMNS = (
    *("step", "tier", "model", "documents", "pass rate", "cost, USD"),
    *("deferred", "escalations", "attempts", "p50 / p95", "failed checks"),
)


def publish_summary(summary: RunSummary) -> None:
    """Publish a run's artifacts. Their versions over the runs are the trend."""
    flow = summary.flow
    create_table_artifact(
        table=table(summary),
        key=key_of(flow, "summary"),
        description=_described(summary),
    )
    create_markdown_artifact(
        markdown=attention(summary),
        key=key_of(flow, "attention"),
        description="What waits",
    )
    comparisons = summary.against_plan()
    if comparisons:
        create_table_artifact(
            table=[_comparison_cells(row) for row in comparisons],
            key=key_of(flow, "plan"),
            description=(
                "Planned → what came of it; the deviation is that of the cost. "
                "Reused answers count as calls."
            ),
        )


def publish_desk_link(flow: str, run_id: str, desk: str) -> None:
    """Publish a link to the run's page at the desk, which has the figures while it runs."""
    create_link_artifact(
        link=f"{desk}/runs/{quote(run_id, safe='')}",
        link_text=f"Run {run_id} at the desk",
        key=key_of(flow, "desk"),
        description="Its documents, cost and quality, live",
    )


def key_of(flow: str, what: str) -> str:
    """Return the key of a flow's artifact: the same in every run."""
    slug = re.sub(r"[^a-z0-9]+", "-", flow.lower()).strip("-")
    return f"{slug}-{what}"


def table(summary: RunSummary) -> list[dict[str, Any]]:
    """Return a row for each step, tier and model.

    Prefect's page cuts off what is too wide, so the most important columns are first.
    """
    rows = [_cells(row) for row in summary.rows]
    # Documents that were deferred before any model was asked have no row of their own.
    unasked = Counter(row.step for row in summary.deferred)
    for row in summary.rows:
        unasked[row.step] -= row.deferred
    for step, number in unasked.items():
        if number > 0:
            rows.append(_unasked_cells(step, number))
    empty = dict.fromkeys(_COLUMNS, "")
    return [empty | row for row in rows]


def attention(summary: RunSummary) -> str:
    """Return the deferred documents and their remedies as Markdown.

    Texts of documents are escaped, so that they have no meaning in it.
    """
    run = summary.run
    lines = [
        f"# {run.deferred + run.in_batches} of {run.documents} documents wait",
        "",
        f"Run `{run.id}`: {summary.headline()}.",
        "",
    ]
    for remedy, cause, rows in by_cause(summary.deferred):
        lines += [f"## {remedy.title}: {len(rows)}", ""]
        faults = faults_in_words(cause, {row.step for row in rows}, summary.rows)
        if faults:
            lines += [f"Calls ended in: {faults}.", ""]
        lines += [remedy.text.replace("RUN", run.id), "", *_listed(rows), ""]
    if run.in_batches:
        remedy = remedy_for("batch")
        lines += [f"## {remedy.title}: {run.in_batches}", ""]
        lines += [remedy.text.replace("RUN", run.id), ""]
    others = _others(summary)
    if others:
        lines += ["## Worth a look", ""]
        lines += [f"- {item.text}: {code_span(item.command)}" for item in others]
        lines += [""]
    lines += [
        "## More",
        "",
        "On the machine of the project:",
        "",
        f"- `tierwise report {run.id} --open`: the report, a page with a receipt for every document",
        f"- `tierwise show {run.id} --documents`: every document and step in the terminal",
    ]
    return "\n".join(lines) + "\n"


def _others(summary: RunSummary) -> list[Attention]:
    """Return what deserves a look besides the deferred documents."""
    errors = []
    for row in summary.rows:
        for error, calls in row.errors.items():
            errors.append(
                ErrorRow(step=row.step, model=row.model, error=error, calls=calls)
            )
    without_deferred = replace(summary, deferred=())
    today = datetime.date.today()
    return attention_items([without_deferred], errors, ProjectFacts(), today)


def _listed(rows: Sequence[DeferredRow]) -> Iterator[str]:
    """Yield a line for each document, up to a number."""
    for row in rows[:_DOCUMENTS_NAMED]:
        place = f"{code_span(row.document_id)} in {code_span(row.step)}"
        yield f"- {place}: {code_span(tellable(row))}"
    if len(rows) > _DOCUMENTS_NAMED:
        yield f"- and {len(rows) - _DOCUMENTS_NAMED} more"


def _described(summary: RunSummary) -> str:
    return (
        f"{summary.headline()}. Each pass rate is followed by its exact 95 % interval."
    )


def _cells(row: SummaryRow) -> dict[str, Any]:
    attempts = str(row.attempts)
    if row.reused:
        attempts += f", {row.reused} reused"
    if row.reasks:
        attempts += f", {row.reasks} re-asked"
    failed_checks = [f"{name} {count}" for name, count in row.checks_failed.items()]
    return {
        "step": row.step,
        "tier": row.tier,
        "model": row.model,
        "documents": row.documents,
        "pass rate": _rate(row),
        "cost, USD": _usd(row.cost_known, row.cost_unknown),
        "deferred": row.deferred,
        "escalations": row.escalations,
        "attempts": attempts,
        "p50 / p95": _seconds(row),
        "failed checks": ", ".join(failed_checks),
    }


def _unasked_cells(step: str, documents: int) -> dict[str, Any]:
    """Return the row of documents that are deferred although no model was asked."""
    return {
        "step": step,
        "model": "none was asked",
        "documents": documents,
        "deferred": documents,
    }


def _rate(row: SummaryRow) -> str:
    """Return the pass rate and its exact 95 % interval; nothing where there is none."""
    bounds = interval(row.passed, row.answers)
    if row.pass_rate is None or bounds is None:
        return ""
    low, high = bounds
    return f"{row.pass_rate:.0%} ({100 * low:.0f}–{high:.0%})"


def _seconds(row: SummaryRow) -> str:
    if row.latency_p50_s is None or row.latency_p95_s is None:
        return ""
    return f"{row.latency_p50_s:.2f} / {row.latency_p95_s:.2f} s"


def _comparison_cells(row: PlanComparison) -> dict[str, Any]:
    deviation = "" if row.deviation is None else f"{row.deviation:+.0%}"
    return {
        "step": row.step,
        "tier": row.tier,
        "model": row.model,
        "documents": f"{rounded(row.planned_documents)} → {row.documents}",
        "deviation": deviation,
        "cost, USD": f"{_usd_or_unknown(row.planned_cost)} → "
        f"{_usd(row.cost_known, row.cost_unknown)}",
        "calls": f"{rounded(row.planned_calls)} → {row.calls}",
    }


def _usd(known: Decimal, unknown: int = 0) -> str:
    """Return an amount without its unit, which is in the column's title."""
    return usd(known, unknown).replace(" USD", "")


def _usd_or_unknown(cost: Decimal | None) -> str:
    return "unknown" if cost is None else _usd(cost)
