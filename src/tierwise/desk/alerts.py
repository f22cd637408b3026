"""What needs a hand now, each with the page to open. Pure: from figures that were read before.

An alert's id names what it is about, so that an acknowledgement ends with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tierwise.desk.addresses import run_path, to_parameter
from tierwise.desk.figures import Waiting
from tierwise.desk.overview_facts import CertificateRow, used
from tierwise.ledger import RunRow
from tierwise.policy.alerts import AlertSettings, Kind
from tierwise.policy.budget import BudgetState
from tierwise.text.amounts import plural

REVIEWS_AFTER_S = 86_400.0
# A batch that has no provider's id after this time was never uploaded.
UPLOADED_IN_S = 3600.0
# A provider promises its answers within a day.
ANSWERED_IN_S = 86_400.0
_BAD_ENDS = frozenset({"failed", "crashed"})


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that needs a hand. `subject` names it within its kind, and `path` is the page.

    `since` is in seconds since the epoch; None where it is not known. Texts quote no document.
    """

    kind: Kind
    subject: str
    text: str
    path: str
    since: float | None = None

    @property
    def id(self) -> str:
        """The name under which it is acknowledged."""
        return f"{self.kind}: {self.subject}"


def run_alerts(runs: Sequence[RunRow], settings: AlertSettings) -> list[Alert]:
    """Return the alerts about the last run of each flow that has ended; `runs` newest first."""
    found = []
    seen: set[str] = set()
    for run in runs:
        if run.flow in seen or run.finished_at is None:
            continue
        seen.add(run.flow)
        path = run_path(run.id)
        if run.state in _BAD_ENDS:
            text = f"{run.flow}: the last run ended {run.state}"
            found.append(Alert("failed", run.id, text, path, run.finished_at))
        is_waiting = 100 * run.deferred > settings.waiting * run.documents
        if is_waiting:
            text = f"{run.flow}: {run.deferred} of {plural(run.documents, 'document')} wait"
            found.append(Alert("waiting", run.id, text, path, run.finished_at))
    return found


def budget_alerts(states: Iterable[BudgetState], percent: float) -> list[Alert]:
    """Return the budgets that are spent to a share."""
    found = []
    for state in states:
        share = 100 * used(state)
        if share >= percent:
            name = state.name or "everything"
            text = (
                f"budget {name}: {share:.0f} % spent of {state.limit.normalize():f} USD"
            )
            found.append(Alert("budget", name, text, "/#budgets"))
    return found


def review_alerts(waiting: Iterable[Waiting], now: float) -> list[Alert]:
    """Return the flows with a document that waits for a decision for more than a day."""
    found = []
    for row in waiting:
        if now - row.since <= REVIEWS_AFTER_S:
            continue
        older = sum(row.counts[2:])
        text = (
            f"{row.flow}: {plural(older, 'document')} not decided for more than a day"
        )
        subject = f"{row.flow} since {row.since:.0f}"
        path = f"/review?{urlencode({'flow': to_parameter(row.flow), 'older': '1d'})}"
        found.append(Alert("reviews", subject, text, path, row.since))
    return found


def certificate_alerts(rows: Iterable[CertificateRow]) -> list[Alert]:
    """Return the certificates that end soon, and those whose server reports another model."""
    found = []
    for row in rows:
        name = f"{row.models} for {row.step}"
        if row.is_suspended:
            text = f"certificate of {name}: {row.ends_by}"
            # A third model is another alert, which nobody has acknowledged yet.
            subject = f"{name} as {row.served}" if row.served else name
            found.append(Alert("served", subject, text, "/#certificates"))
        elif row.is_soon and not row.is_over:
            text = f"certificate of {name}: ends on {row.expires}"
            subject = f"{name} on {row.expires}"
            found.append(Alert("certificate", subject, text, "/#certificates"))
    return found


def batch_alerts(batches: Iterable[Any], now: float) -> list[Alert]:
    """Return the provider batches that should have been uploaded or answered by now."""
    found = []
    for batch in batches:
        why = ""
        since = batch.created_at
        if batch.submitted_at is None:
            if now - batch.created_at > UPLOADED_IN_S:
                why = "not uploaded for more than an hour"
        else:
            since = batch.submitted_at
            ends_at = batch.expires_at or batch.submitted_at + ANSWERED_IN_S
            if now > ends_at:
                why = "past its time"
        if why:
            text = f"batch {batch.id} of {batch.model}: {why}"
            path = run_path(batch.run_id)
            found.append(Alert("batch", batch.id, text, path, since))
    return found


def reported_alerts(holding: Mapping[str, float | None]) -> list[Alert]:
    """Return what runs have reported that only they can see: outages and refuted certificates."""
    found = []
    kinds: tuple[Kind, ...] = ("outage", "demoted")
    for key, since in sorted(holding.items()):
        for kind in kinds:
            name = key.removeprefix(f"{kind}: ")
            if name == key:
                continue
            text = f"model {name}: out"
            path = "/#running"
            if kind == "demoted":
                text = f"certificate of {name}: no longer counts"
                path = "/#certificates"
            found.append(Alert(kind, name, text, path, since))
    return found
