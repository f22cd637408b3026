"""The alerts of a desk, read from the ledger and the project's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

from tierwise.desk import overview_facts
from tierwise.desk.alerts import (
    Alert,
    batch_alerts,
    budget_alerts,
    certificate_alerts,
    reported_alerts,
    review_alerts,
    run_alerts,
)
from tierwise.desk.desk import Desk


def current_alerts(desk: Desk, now: float) -> list[Alert]:
    """Return everything that needs a hand now, in the order of the kinds."""
    settings = desk.project.settings.alerts
    runs = [run for run, _ in overview_facts.all_runs(desk)]
    return [
        *run_alerts(runs, settings),
        *budget_alerts(overview_facts.budgets(desk, now), settings.budget),
        *reported_alerts(_reported(desk)),
        *desk_alerts(desk, now),
    ]


def desk_alerts(desk: Desk, now: float) -> list[Alert]:
    """Return the alerts that no run reports, as they arise between runs."""
    return [
        *review_alerts(overview_facts.waiting(desk, now), now),
        *certificate_alerts(overview_facts.files_facts(desk).certificates),
        *batch_alerts(overview_facts.open_batches(desk), now),
    ]


def _reported(desk: Desk) -> Mapping[str, float | None]:
    """Return what runs have reported as an alert, and not as over since."""
    # Not by `orchestrate`, which imports Prefect: most desks never need it.
    with suppress(OSError, ValueError, TypeError, AttributeError):
        path = desk.project.root / ".tierwise" / "alerts.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        holding: Mapping[str, float | None] = found["holding"]
        return dict(holding)
    return {}
