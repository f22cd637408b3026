"""What the overview shows, read from the ledger and the project's files."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tierwise.desk.desk import Desk
from tierwise.desk.figures import (
    Progress,
    Waiting,
    documents_done,
    progress,
    steps_of,
    waiting_by_age,
)
from tierwise.documents.places import source_of
from tierwise.errors import ConfigError
from tierwise.explain.project_facts import project_facts
from tierwise.ledger import RunRow
from tierwise.ledger.views.answers import Tallies
from tierwise.ledger.views.overview import LabelCount, Spending, StepCounts
from tierwise.ledger.views.waiting import WaitingRow
from tierwise.policy.budget import BudgetState, current_states
from tierwise.policy.served_names import shown_name
from tierwise.project import Project
from tierwise.report.figures import ProjectFacts

Runs = Sequence[tuple[RunRow, StepCounts]]
SOON = datetime.timedelta(days=30)  # a certificate that ends sooner is shown as such
_FACTS_S = 30.0  # the project's files change seldom


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate, and what ends it or has ended it. `days` are those left."""

    step: str
    models: str
    proof: str
    expires: datetime.date
    days: int
    ends_by: str
    is_over: bool
    is_soon: bool
    is_suspended: bool = False
    served: str = ""  # the other model that suspends it, as its server names it


@dataclass(frozen=True, slots=True)
class FilesFacts:
    """The project's files today; `fault` where they could not be read."""

    certificates: Sequence[CertificateRow] = ()
    fault: str = ""


def all_runs(desk: Desk) -> Runs:
    """Return all runs, newest first, with their documents by step and status."""
    return desk.kept.get("runs", desk.ledger.overview.runs)


def all_answers(desk: Desk) -> Tallies:
    """Return the distinct answers on record."""
    return desk.kept.get("answers", desk.ledger.overview.answers)


def all_spending(desk: Desk) -> list[Spending]:
    """Return all calls on record."""
    return desk.kept.get("spending", desk.ledger.overview.spending)


def all_labels(desk: Desk) -> list[LabelCount]:
    """Return all labels of answers in use."""
    return desk.kept.get("labels", desk.ledger.overview.labels, _FACTS_S)


def queue(desk: Desk) -> Sequence[WaitingRow]:
    """Return everything that waits, over all runs."""
    if not desk.keep_s:
        root = desk.project.root
        return desk.ledger.runs.queue(lambda path: source_of(path, root))
    # With all decisions up to now, also those of a moment ago.
    return desk.queue.rows(desk).rows


def waiting(desk: Desk, now: float) -> list[Waiting]:
    """Return the documents that wait for a decision, by flow and age."""
    return waiting_by_age(queue(desk), now)


def running(desk: Desk, now: float) -> list[Progress]:
    """Return the runs under way, newest first."""
    signs = desk.kept.get("running", desk.ledger.overview.running)
    runs = all_runs(desk)
    found = []
    for run, counts in runs:
        if run.id not in signs:
            continue
        steps = steps_of(run, runs)
        done = documents_done(counts, steps)
        earlier = desk.pace.look(run.id, now, done)
        found.append(progress(run, counts, steps, signs[run.id], now, earlier))
    desk.pace.forget([each.run.id for each in found])
    return found


def budgets(desk: Desk, now: float) -> list[BudgetState]:
    """Return the budgets that apply now, the most used first: of the rules and of live runs."""
    recorded = desk.kept.get("budgets", desk.ledger.budgets.states)
    # The budget of a run that has ended is spent or not, and of no use to anyone.
    live = {f"run {each.run.id}" for each in running(desk, now)}
    of_runs = [state for state in recorded if state.name in live]
    found = [*_budgets_of_rules(desk, recorded, now), *of_runs]
    return sorted(found, key=lambda state: (-used(state), state.name))


def _budgets_of_rules(
    desk: Desk, recorded: Sequence[BudgetState], now: float
) -> list[BudgetState]:
    """Return today's and this month's budgets, with the limits that `tierwise budgets` shows."""
    try:
        rules = desk.project.rules
    except ConfigError:
        # Rules that never loaded have no limits: those of the ledger are the last ones known.
        day = time.strftime("%Y-%m-%d", time.gmtime(now))
        present = (f"day {day}", f"month {day[:7]}")
        return [state for state in recorded if _is_of(state.name, present)]
    limits = [limit.limit for limit in rules.budget.limits]
    return current_states(limits, recorded)


def _is_of(name: str, periods: Sequence[str]) -> bool:
    """Return True if a budget is for one of these periods, whatever its tags."""
    return any(name == period or name.startswith(f"{period} ") for period in periods)


def used(state: BudgetState) -> float:
    """Return the share of a budget that is spent; all of one without money."""
    return float(state.spent / state.limit) if state.limit else 1.0


def files_facts(desk: Desk) -> FilesFacts:
    """Return the certificates of the steps that ran, and what will end each."""
    steps = {step for _, counts in all_runs(desk) for step in counts}
    return desk.kept.get(
        ("files", frozenset(steps)), lambda: _read_files(desk, steps), _FACTS_S
    )


def _read_files(desk: Desk, steps: set[str]) -> FilesFacts:
    # A project of its own: the one at the start would never see a changed file.
    project = Project(desk.project.root)
    try:
        facts = project_facts(project, desk.ledger, steps, may_import=False)
    except ConfigError as error:
        return FilesFacts(fault=str(error))
    return FilesFacts(tuple(_certificate_rows(facts, datetime.date.today())))


def _certificate_rows(
    facts: ProjectFacts, today: datetime.date
) -> list[CertificateRow]:
    suspensions = {
        (each.certificate.step, each.certificate.models): each
        for each in facts.suspended
    }
    rows = []
    for state in facts.certificates:
        certificate = state.certificate
        days = (certificate.expires - today).days
        suspension = suspensions.get((certificate.step, certificate.models))
        ends_by = f"its date, {certificate.expires}"
        if state.void is not None:
            ends_by = state.void
        if suspension is not None:
            ends_by = f"suspended: {suspension.change}"
        rows.append(
            CertificateRow(
                step=certificate.step,
                models=" > ".join(certificate.models),
                proof=certificate.proof,
                expires=certificate.expires,
                days=days,
                ends_by=ends_by,
                is_over=state.void is not None or suspension is not None,
                is_soon=today + SOON > certificate.expires,
                is_suspended=suspension is not None,
                served="" if suspension is None else shown_name(suspension.served),
            )
        )
    return sorted(
        rows, key=lambda row: (not row.is_over, row.days, row.step, row.models)
    )


def open_batches(desk: Desk) -> list[Any]:
    """Return the provider batches in flight."""
    batches = getattr(desk.ledger, "batches", None)
    if batches is None:
        return []
    return desk.kept.get("batches", lambda: list(batches.open_batches()))
