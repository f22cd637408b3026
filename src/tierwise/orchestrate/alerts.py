"""The automations that alerts need, as values: from the settings, without asking a server.

A message has names, numbers and closed causes, never a document's text and no error's words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tierwise.cascade.circuit import LastSign
from tierwise.policy.alerts import DESK_KINDS, AlertSettings, Kind
from tierwise.policy.budget import BudgetState, Limit
from tierwise.policy.certificates import Certificate
from tierwise.text.amounts import duration

PREFIX = "tierwise alert: "  # of the names of our automations
TAG = "tierwise-alert"
BEGAN = "tierwise.alert.began"
OVER = "tierwise.alert.over"
WATCHED = "tierwise.flow.watched"  # the next failure of this flow is reported
_FAILED = {
    "prefect.flow-run.Failed",
    "prefect.flow-run.Crashed",
    "prefect.flow-run.TimedOut",
}
_GOOD = {
    "prefect.flow-run.Completed",
    "prefect.flow-run.NeedsAttention",
    "prefect.flow-run.NothingNew",
}
# Prefect forgets what an automation has seen first after this time.
_REMEMBERED = timedelta(days=365)
_OF_FLOW = "related:flow:prefect.resource.name"
_FLOW = "{% for r in event.related if r.role == 'flow' %}{{ r.name }}{% endfor %}"
_RUN = "{{ event.resource.name }}"
_STATE = "{{ event.event | replace('prefect.flow-run.', '') }}"


@dataclass(frozen=True, slots=True)
class Alert:
    """One automation: its trigger as Prefect's API takes it, and the message as a template."""

    name: str
    kind: Kind
    is_over: bool
    trigger: dict[str, Any]
    text: str
    link: str
    after: str | None = None  # the alert whose firing comes first


def alerts_of(
    settings: AlertSettings, url: str, pool_id: str | None
) -> tuple[Alert, ...]:
    """Return the automations for these settings. `url` is the server's, for links.

    `pool_id` is the work pool's; without one there is no worker to watch.
    """
    if not settings.is_on:
        return ()
    alerts: list[Alert] = []
    for kind in settings.on:
        if kind == "failed":
            alerts += _of_runs(url)
        elif kind != "worker":
            alerts += _of_events(kind, url)
        elif pool_id is not None:
            alerts += _of_worker(url, pool_id, settings.worker)
    return tuple(alerts)


def _of_runs(url: str) -> list[Alert]:
    """Return the alerts for runs by flow: once after a good run, and at the next good one."""
    link = f"{url}/runs/flow-run/{{{{ event.resource.id | replace('prefect.flow-run.', '') }}}}"
    failed = _event_trigger(
        expect=_FAILED, after=_GOOD | {WATCHED}, for_each={_OF_FLOW}
    )
    good = _event_trigger(expect=_GOOD, after=_FAILED, for_each={_OF_FLOW})
    return [
        Alert(
            f"{PREFIX}run failed",
            "failed",
            False,
            failed,
            f"{_FLOW}: run {_RUN} ended {_STATE}",
            link,
        ),
        Alert(
            f"{PREFIX}run good again",
            "failed",
            True,
            good,
            f"{_FLOW}: good again, run {_RUN} ended {_STATE}",
            link,
        ),
    ]


def _of_worker(url: str, pool_id: str, seconds: float) -> list[Alert]:
    """Return the alerts for a worker that does not come back, and for its return."""
    link = f"{url}/work-pools/work-pool/tierwise"
    pool = f"prefect.work-pool.{pool_id}"
    gone = _event_trigger(
        expect={"prefect.work-pool.ready"},
        after={"prefect.work-pool.not-ready"},
        # Without it, Prefect waits for a first event of its own accord, again and again.
        for_each={"prefect.resource.id"},
        match={"prefect.resource.id": pool},
        within=timedelta(seconds=seconds),
        posture="Proactive",
    )
    name = f"{PREFIX}worker gone"
    # Its first event is the other automation's firing, whose id is known once that one is made.
    back = _event_trigger(
        expect={"prefect.work-pool.ready"},
        after={"prefect.automation.triggered"},
        match={"prefect.resource.id": [pool]},
    )
    return [
        Alert(
            name,
            "worker",
            False,
            gone,
            "worker gone: scheduled runs do not start",
            link,
        ),
        Alert(
            f"{PREFIX}worker back",
            "worker",
            True,
            back,
            "worker back",
            link,
            after=name,
        ),
    ]


def _of_events(kind: Kind, url: str) -> list[Alert]:
    """Return the alerts for what a run or the desk reports, each once: as it begins and is over."""
    match = {"prefect.resource.id": f"tierwise.{kind}.*"}
    # Without a desk, a run's event has no page.
    link = f"{{{{ event.payload.page or '{url}/runs' }}}}"
    if kind in DESK_KINDS:
        link = "{{ event.payload.page }}"
    text = "{{ event.payload.text }}"
    began = _event_trigger(expect={BEGAN}, match=match, within=timedelta(0))
    over = _event_trigger(expect={OVER}, match=match, within=timedelta(0))
    return [
        Alert(f"{PREFIX}{kind}", kind, False, began, text, link),
        Alert(f"{PREFIX}{kind} over", kind, True, over, text, link),
    ]


def _event_trigger(
    *,
    expect: set[str],
    after: set[str] | None = None,
    for_each: set[str] | None = None,
    match: dict[str, Any] | None = None,
    within: timedelta = _REMEMBERED,
    posture: str = "Reactive",
) -> dict[str, Any]:
    return {
        "type": "event",
        "expect": sorted(expect),
        "after": sorted(after or ()),
        "for_each": sorted(for_each or ()),
        "match": match or {},
        "posture": posture,
        "threshold": 1,
        "within": within.total_seconds(),
    }


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that a run reports when it begins, and when it is over.

    `since` is when it began, or when it was last seen to be over (seconds since 1970); None where
    only now is known.
    """

    kind: Kind
    name: str  # what it is about, such as a model
    holds: bool
    began: str
    over: str
    since: float | None = None
    page: str = ""  # the address of the page to open, or its path at the desk

    @property
    def key(self) -> str:
        """Its name among all kinds."""
        return f"{self.kind}: {self.name}"


@dataclass(frozen=True, slots=True)
class Reported:
    """What was reported, by whichever run: what holds with its `since`, and what ended when."""

    holding: Mapping[str, float | None] = field(default_factory=dict)
    ended: Mapping[str, float] = field(default_factory=dict)

    def news(self, conditions: Iterable[Condition]) -> list[Condition]:
        """Return the conditions that began or ended.

        Runs see a model each for itself. One that answered before an outage began does not end it,
        and an outage that another run has seen end is not a new one.
        """
        return [condition for condition in conditions if self._is_news(condition)]

    def _is_news(self, condition: Condition) -> bool:
        key = condition.key
        if condition.holds == (key in self.holding):
            return False
        if condition.since is None:
            return True
        other = self.ended.get(key) if condition.holds else self.holding[key]
        return other is None or condition.since > other

    def after(self, news: Iterable[Condition]) -> Reported:
        """Return what is reported once these are."""
        holding = dict(self.holding)
        ended = dict(self.ended)
        for condition in news:
            if condition.holds:
                holding[condition.key] = condition.since
                continue
            del holding[condition.key]
            if condition.since is not None:
                ended[condition.key] = condition.since
        return Reported(holding, ended)


def budget_conditions(
    limits: Iterable[Limit], states: Iterable[BudgetState], percent: float, now: float
) -> Iterator[Condition]:
    """Yield for each budget whether its share that is spent reached `percent`.

    A day's or month's budget is over with its period, as the next one's name has no date here.
    """
    by_name = {state.name: state for state in states}
    for limit in limits:
        state = by_name.get(limit.name(now))
        if state is None or not state.limit:
            continue
        used = 100 * float(state.spent / state.limit)
        name = " ".join(part for part in (limit.per, limit.subject) if part)
        yield Condition(
            "budget",
            name,
            used >= percent,
            f"budget {state.name}: {used:.0f} % spent of {state.limit} USD",
            f"budget {name}: below {percent:g} % again",
        )


def outage_conditions(
    signs: Mapping[str, LastSign], longest_s: float, now: float
) -> Iterator[Condition]:
    """Yield for each model whether it is out for too long; `now` is in seconds since 1970.

    A model that is out for less says nothing: an earlier run's outage may still be under way.
    """
    for model, sign in signs.items():
        if sign.is_out and sign.seconds <= longest_s:
            continue
        yield Condition(
            "outage",
            model,
            sign.is_out,
            f"model {model}: out for {duration(sign.seconds)}",
            f"model {model}: answers again",
            since=now - sign.seconds,
        )


def demotion_conditions(
    certificates: Iterable[Certificate],
    demoted: Collection[tuple[str, tuple[str, ...]]],
    suspended: Collection[tuple[str, tuple[str, ...]]] = (),
) -> Iterator[Condition]:
    """Yield for each certificate whether it no longer counts: for labels, or for a server."""
    for certificate in certificates:
        why = "labels refute it, so it no longer counts"
        if (certificate.step, certificate.models) in suspended:
            why = "a server reports another model, so it is suspended"
        chain = " > ".join(certificate.models)
        what = f"certificate of {chain} for {certificate.step}"
        yield Condition(
            "demoted",
            f"{certificate.step}: {chain}",
            (certificate.step, certificate.models) in demoted,
            f"{what}: {why}",
            f"{what}: counts again",
        )


def waiting_condition(
    flow: str, waiting: int, documents: int, percent: float, causes: str
) -> Condition:
    """Return whether more than `percent` of a run's documents wait. `causes` is without texts."""
    return Condition(
        "waiting",
        flow,
        100 * waiting > percent * documents,
        f"{flow}: {causes}",
        f"{flow}: no more than {percent:g} % of the documents wait",
    )
