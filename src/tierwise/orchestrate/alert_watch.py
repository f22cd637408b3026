"""The alerts that a run reports itself, as events of Prefect: each once, and once when it is over.

Which ones hold is kept in a file of the project, as the next run has to know.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock
from prefect.events.utilities import emit_event
from prefect.settings import get_current_settings

from tierwise.cascade import RunContext
from tierwise.engine import Engine, StepRunner
from tierwise.orchestrate.alerts import (
    BEGAN,
    OVER,
    Condition,
    Reported,
    budget_conditions,
    demotion_conditions,
    outage_conditions,
    waiting_condition,
)
from tierwise.orchestrate.services import desk_address
from tierwise.orchestrate.temporary_server import temporary_server
from tierwise.policy.alerts import AlertSettings, Kind
from tierwise.policy.budget import RunBudget
from tierwise.report import RunSummary
from tierwise.text.files import write_atomically
from tierwise.text.private import FILE_MODE, private_folder

log = logging.getLogger(__name__)
_FOLDER = Path(".tierwise")
_FILE = "alerts.json"
_LOOK_EVERY_S = 10.0
_LOCKED_S = 10.0
# The desk's page about what a run reports.
_PAGES: Mapping[Kind, str] = {
    "budget": "/#budgets",
    "outage": "/#running",
    "demoted": "/#certificates",
}


@contextmanager
def alerts_watched(
    runner: StepRunner, context: RunContext, flow_run_id: str | None
) -> Iterator[None]:
    """Report budgets, outages and demotions while the block runs, and at its end."""
    settings = runner.project.settings.alerts
    if not isinstance(runner, Engine) or not _is_reported(settings, flow_run_id):
        yield
        return
    over = threading.Event()

    def look_now_and_then() -> None:
        while not over.wait(_LOOK_EVERY_S):
            _look(runner, context, settings)

    thread = threading.Thread(target=look_now_and_then, name="alerts", daemon=True)
    _look(runner, context, settings)
    thread.start()
    try:
        yield
    finally:
        over.set()
        _look(runner, context, settings)


def report_waiting(
    runner: StepRunner, flow_run_id: str, summary: RunSummary, causes: str
) -> None:
    """Report that too many of a run's documents wait, or no longer."""
    settings = runner.project.settings.alerts
    if not _is_reported(settings, flow_run_id):
        return
    condition = waiting_condition(
        summary.flow,
        summary.waiting,
        summary.run.documents,
        settings.waiting,
        causes,
    )
    page = f"/runs/{quote(summary.run.id, safe='')}"
    condition = replace(condition, page=page)
    report_conditions(runner.project.root, settings, [condition])


def _is_reported(settings: AlertSettings, flow_run_id: str | None) -> bool:
    """Return True if a server that stays gets the events: it alone has automations."""
    has_server = get_current_settings().api.url is not None
    return bool(
        settings.is_on and flow_run_id and has_server and temporary_server() is None
    )


def _look(runner: Engine, context: RunContext, settings: AlertSettings) -> None:
    """Report what began or ended. What fails here never ends a run."""
    try:
        conditions = _conditions(runner, context, settings)
        report_conditions(runner.project.root, settings, conditions)
    except Exception as error:  # noqa: BLE001 - as above
        log.warning("alerts could not be reported: %s", type(error).__name__)


def _conditions(
    runner: Engine, context: RunContext, settings: AlertSettings
) -> list[Condition]:
    now = time.time()
    limits = context.budget.limits
    recorded = runner.ledger.budgets.states([limit.name(now) for limit in limits])
    budget = RunBudget(limits, {state.name: state for state in recorded})
    return [
        *budget_conditions(limits, budget.states(), settings.budget, now),
        *outage_conditions(runner.last_signs(), settings.outage, now),
        *demotion_conditions(
            runner.policy.certificates.all, runner.policy.demoted, runner.suspended
        ),
    ]


def report_conditions(
    root: Path, settings: AlertSettings, conditions: Iterable[Condition]
) -> None:
    """Emit an event for each condition that began or ended since any run's last look."""
    wanted = [condition for condition in conditions if condition.kind in settings.on]
    folder = private_folder(root / _FOLDER)
    with FileLock(folder / f"{_FILE}.lock", timeout=_LOCKED_S, mode=FILE_MODE):
        before = _read(folder / _FILE)
        news = before.news(wanted)
        if not news:
            return
        text = json.dumps(asdict(before.after(news)), indent=1, sort_keys=True)
        write_atomically(folder / _FILE, text, private=True)
    desk = desk_address(root)
    for condition in news:
        page = condition.page or _PAGES.get(condition.kind, "")
        # A run knows the page, and not where the desk is, nor whether it runs.
        if page.startswith("/"):
            page = f"{desk}{page}" if desk else ""
        emit_event(
            BEGAN if condition.holds else OVER,
            {"prefect.resource.id": f"tierwise.{condition.kind}.{condition.name}"},
            payload={
                "text": condition.began if condition.holds else condition.over,
                "page": page,
            },
        )


def reported(root: Path) -> Reported:
    """Return what runs and the desk of a project have reported."""
    return _read(root / _FOLDER / _FILE)


def _read(path: Path) -> Reported:
    """Return what was reported; nothing where the file is new or damaged."""
    with suppress(OSError, ValueError, TypeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        # Earlier versions kept the keys of what holds alone.
        kept = {"holding": dict.fromkeys(found)} if isinstance(found, list) else found
        return Reported(**kept)
    return Reported()
