"""One document of a run: its text beside each outcome, the route, attempts, verdicts and cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from tierwise.desk.access import Viewer
from tierwise.desk.addresses import from_parameter
from tierwise.desk.desk import Desk, TheDesk
from tierwise.desk.marks import Part, marked_places
from tierwise.desk.pages.run import find_run
from tierwise.desk.prefect_link import flow_run_url
from tierwise.ledger import Decision, OutcomeRow, RunRow
from tierwise.ledger.views.waiting import NO_TEXT
from tierwise.records import Attempt, Outcome, Sensitivity, highest
from tierwise.review.queue import find_text

router = APIRouter()
_LONGEST_TEXT = 200_000  # characters on the page


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One outcome with all that led to it. `value` is JSON, None where there is none to show."""

    outcome: Outcome
    value: str | None
    attempts: Sequence[Attempt]
    decisions: Sequence[Decision]
    cost_known: Decimal
    cost_unknown: int


@dataclass(frozen=True, kw_only=True)
class DocumentView:
    """Everything that a page says about a document.

    Where `is_shown` is false, all that may quote the document has been left out of it already.
    """

    document_id: str
    document_hash: str
    sensitivity: Sensitivity
    is_shown: bool
    text: Sequence[Part] | None
    is_cut: bool
    is_unread: bool  # its file could not be read, so that it never had a text
    why_unread: str
    steps: Sequence[StepView]

    @property
    def is_marked(self) -> bool:
        """True where a part of the text is marked."""
        return any(part.quoted_by for part in self.text or ())

    @property
    def cost_known(self) -> Decimal:
        """USD of all steps, as far as it is known."""
        return sum((step.cost_known for step in self.steps), Decimal(0))

    @property
    def cost_unknown(self) -> int:
        """The number of calls of unknown cost."""
        return sum(step.cost_unknown for step in self.steps)


@router.get("/runs/{run_id}/document")
def document_page(
    desk: TheDesk,
    request: Request,
    person: Viewer,
    run_id: str,
    id: Annotated[str, Query(max_length=10_000)],  # noqa: A002 - the parameter's name
) -> Response:
    """Return one document of a run."""
    run = find_run(desk, run_id)
    document_id = from_parameter(id)
    rows = list(desk.ledger.runs.outcomes(run.id, document_id))
    if not rows:
        raise HTTPException(404, "this run has no such document")
    # By the strictest: what is derived from the whole document is as sensitive.
    sensitivity = highest(*(row.outcome.sensitivity for row in rows))
    view = document_view(
        desk,
        run,
        document_id,
        rows,
        sensitivity,
        is_shown=desk.access.may_see(person, sensitivity),
    )
    return desk.page(
        request,
        "document.html.j2",
        run=run,
        view=view,
        members=desk.ledger.groups.members(run.id, document_id),
        groups=desk.ledger.groups.groups_with(run.id, document_id),
        keeps_texts=desk.project.settings.keep_text == "all",
        prefect=flow_run_url(desk.prefect_url(), run.flow_run_id),
    )


def document_view(
    desk: Desk,
    run: RunRow,
    document_id: str,
    rows: Sequence[OutcomeRow],
    sensitivity: Sensitivity,
    *,
    is_shown: bool,
) -> DocumentView:
    """Return what a page may say about a document. Nothing that is withheld leaves this function."""
    attempts = list(desk.ledger.runs.attempts(run.id, document_id))
    steps = []
    for row in rows:
        step = row.outcome.step
        of_step = [attempt for attempt in attempts if attempt.step == step]
        decisions = desk.ledger.reviews.history(run.id, document_id, step)
        steps.append(_step_view(row.outcome, of_step, decisions, is_shown))
    text = None
    document_hash = rows[0].document_hash
    unread = [row.outcome for row in rows if row.outcome.cause == "unreadable"]
    # Every document without a text has one hash, and would be found by it.
    if is_shown and document_hash != NO_TEXT:
        # From where a reviewer's page has it, too: the ledger, or else the run's source.
        text = find_text(desk.ledger, desk.project, run, document_id, document_hash)
    parts = None
    if text is not None:
        parts = marked_places(text, rows, most=_LONGEST_TEXT)
    return DocumentView(
        document_id=document_id,
        document_hash=document_hash,
        sensitivity=sensitivity,
        is_shown=is_shown,
        text=parts,
        is_cut=text is not None and len(text) > _LONGEST_TEXT,
        is_unread=bool(unread) or document_hash == NO_TEXT,
        why_unread=unread[0].reason if unread and is_shown else "",
        steps=steps,
    )


def _step_view(
    outcome: Outcome,
    attempts: Sequence[Attempt],
    decisions: Sequence[Decision],
    is_shown: bool,
) -> StepView:
    known = [attempt.cost for attempt in attempts if attempt.cost is not None]
    view = StepView(
        outcome=outcome,
        value=_json(outcome.value),
        attempts=attempts,
        decisions=decisions,
        cost_known=sum(known, Decimal(0)),
        cost_unknown=len(attempts) - len(known),
    )
    return view if is_shown else _withheld(view)


def _withheld(view: StepView) -> StepView:
    """Return a step without anything that may quote its document."""
    # Without an attempt or a decision, the reason is the router's own, which quotes nothing.
    keeps_reason = not view.attempts and not view.decisions and not view.outcome.quotes
    attempts = [
        replace(
            attempt,
            error_text=None,
            text=None,
            verdicts=tuple(replace(verdict, reason="") for verdict in attempt.verdicts),
        )
        for attempt in view.attempts
    ]
    decisions = [replace(each, value=None, note="") for each in view.decisions]
    reason = view.outcome.reason if keeps_reason else ""
    route = view.outcome.route
    if route is not None:
        # Tags may name an attached file.
        features = {
            name: value for name, value in route.features.items() if name != "tags"
        }
        route = replace(route, features=features)
    outcome = replace(view.outcome, value=None, places=(), reason=reason, route=route)
    return replace(
        view, outcome=outcome, value=None, attempts=attempts, decisions=decisions
    )


def _json(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)
