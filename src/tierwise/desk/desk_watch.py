"""Reports what the desk alone sees as alerts of Prefect: old reviews, ending certificates, batches.

Runs report the rest. Each alert is reported once, and once when it is over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tierwise.desk.alert_facts import desk_alerts
from tierwise.desk.alerts import Alert
from tierwise.desk.desk import Desk
from tierwise.policy.alerts import DESK_KINDS

if TYPE_CHECKING:
    from tierwise.orchestrate.alerts import Condition

log = logging.getLogger(__name__)
_EVERY_S = 60.0


@contextmanager
def alerts_reported(desk: Desk, url: str) -> Iterator[None]:
    """Report alerts while the block runs, if the settings say where they go to.

    `url` is the desk's address, for the page to open.
    """
    if not desk.project.settings.alerts.is_on:
        yield
        return
    over = threading.Event()

    def look_now_and_then() -> None:
        while not over.wait(_EVERY_S):
            try:
                report(desk, url)
            except Exception as error:  # noqa: BLE001 - the server or the ledger may be away
                log.warning("alerts could not be reported: %s", type(error).__name__)

    thread = threading.Thread(target=look_now_and_then, name="alerts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def report(desk: Desk, url: str) -> None:
    """Report what began or ended since the last look."""
    # This imports Prefect, which takes seconds.
    from tierwise.orchestrate.alert_watch import report_conditions, reported
    from tierwise.orchestrate.alerts import Condition

    desk.look_at_files()
    root = desk.project.root
    alerts = desk_alerts(desk, time.time())
    conditions = [_condition(alert, url) for alert in alerts]
    present = {condition.key for condition in conditions}
    for key in reported(root).holding:
        kind, _, name = key.partition(": ")
        for desk_kind in DESK_KINDS:
            if kind == desk_kind and key not in present:
                over = f"{name}: over"
                ended = Condition(
                    desk_kind, name, False, "", over, page=f"{url}/alerts"
                )
                conditions.append(ended)
    report_conditions(root, desk.project.settings.alerts, conditions)


def _condition(alert: Alert, url: str) -> Condition:
    from tierwise.orchestrate.alerts import Condition

    page = f"{url}{alert.path}"
    over = f"{alert.subject}: over"
    return Condition(alert.kind, alert.subject, True, alert.text, over, page=page)
