"""The alerts: what needs a hand now, with the page to open, and who has acknowledged it."""

from __future__ import annotations

import time
import uuid

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from tierwise.desk.access import Reviewer, Viewer
from tierwise.desk.acknowledged import acknowledged
from tierwise.desk.addresses import from_parameter
from tierwise.desk.alert_facts import current_alerts
from tierwise.desk.desk import TheDesk

router = APIRouter()
_LONGEST_REQUEST = 100
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
    """Return the alerts, those that nobody sees to first."""
    alerts = current_alerts(desk, time.time())
    seen = acknowledged(desk.ledger, desk.project.root, alerts)
    return desk.page(
        request,
        "alerts.html.j2",
        alerts=sorted(alerts, key=lambda alert: alert.id in seen),
        acknowledged=seen,
        titles=TITLES,
        may_acknowledge=person.is_at_least("reviewer"),
        request_id=uuid.uuid4().hex,
    )


@router.post("/alerts/acknowledge")
def acknowledge(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Record that a person sees to an alert."""
    alert_id = _alert_id(request)
    for alert in current_alerts(desk, time.time()):
        if alert.id == alert_id:
            desk.ledger.acknowledgements.acknowledge(
                alert.id,
                by=person.name,
                request=_request_id(request),
                since=alert.since,
            )
            return RedirectResponse("/alerts", 303)
    raise HTTPException(404, "This alert is over.")


@router.post("/alerts/withdraw")
def withdraw(desk: TheDesk, request: Request, person: Reviewer) -> Response:
    """Take an acknowledgement back: one's own, or any for an admin."""
    desk.ledger.acknowledgements.withdraw(
        _alert_id(request),
        by=person.name,
        request=_request_id(request),
        may_be_others=person.is_at_least("admin"),
    )
    return RedirectResponse("/alerts", 303)


def _alert_id(request: Request) -> str:
    return from_parameter(str(request.state.form.get("alert", "")))


def _request_id(request: Request) -> str:
    given = str(request.state.form.get("request") or uuid.uuid4().hex)
    return given[:_LONGEST_REQUEST]
