"""/metrics, for Prometheus: the figures of the overview, with a bearer token or a session."""

from __future__ import annotations

import time

from fastapi import APIRouter
from fastapi.responses import Response

from tierwise.desk import overview_facts
from tierwise.desk.access import Viewer
from tierwise.desk.alert_facts import current_alerts
from tierwise.desk.desk import TheDesk
from tierwise.desk.metrics import CONTENT_TYPE, Figures, exposition

router = APIRouter()


@router.get("/metrics")
def metrics(desk: TheDesk, person: Viewer) -> Response:  # noqa: ARG001
    """Return all metrics."""
    now = time.time()
    figures = Figures(
        runs=overview_facts.all_runs(desk),
        spending=overview_facts.all_spending(desk),
        answers=overview_facts.all_answers(desk).by_step,
        running=overview_facts.running(desk, now),
        budgets=overview_facts.budgets(desk, now),
        waiting=overview_facts.waiting(desk, now),
        certificates=overview_facts.files_facts(desk).certificates,
        batches=overview_facts.open_batches(desk),
        alerts=current_alerts(desk, now),
        now=now,
    )
    return Response(exposition(figures), media_type=CONTENT_TYPE)
