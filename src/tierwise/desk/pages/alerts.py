"""The alerts: what needs a hand now, with the page to open, and who has acknowledged it."""

from __future__ import annotations

import time

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from tierwise.desk.access import Reviewer, Viewer
from tierwise.desk.acknowledged import Acknowledged
from tierwise.desk.addresses import from_parameter
from tierwise.desk.alert_facts import current_alerts
from tierwise.desk.desk import TheDesk

router = APIRouter()
TITLES = {
    "failed": "Run failed",
    "waiting": "Documents wait",
    "budget": "Budget",
    "worker": "Worker",
    "outage": "Model out",
    "demoted": "Certificate refuted",
    "reviews": "Reviews older than a day",
    "certificate": "Certificate ends",
    "served": "Served model changed",
    "batch": "Batch stuck",
}


@router.get("/alerts")
def alerts_page(desk: TheDesk, request: Request, person: Viewer) -> Response:
    """Return the alerts."""
    acknowledged = Acknowledged(desk.project.root).read()
    alerts = current_alerts(desk, time.time())
    return desk.page(
        request,
        "alerts.html.j2",
        alerts=sorted(alerts, key=lambda alert: alert.id in acknowledged),
        acknowledged=acknowledged,
        titles=TITLES,
        may_acknowledge=person.is_at_least("reviewer"),
    )


@router.post("/alerts/acknowledge")
def acknowledge(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Note that a person sees to an alert."""
    now = time.time()
    alert_id = from_parameter(str(request.state.form.get("alert", "")))
    present = {alert.id for alert in current_alerts(desk, now)}
    if alert_id not in present:
        raise HTTPException(404, "this alert is over")
    Acknowledged(desk.project.root).add(alert_id, person.name, now, present)
    return RedirectResponse("/alerts", 303)
