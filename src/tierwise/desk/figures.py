"""The overview's figures as values: runs under way, spending, quality over time, waiting reviews."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from tierwise.ledger import RunRow
from tierwise.ledger.leases import Sign
from tierwise.ledger.views.answers import DAY_S, Tally
from tierwise.ledger.views.overview import LabelCount, Spending, StepCounts
from tierwise.ledger.views.waiting import WaitingRow
from tierwise.report.interval import interval
from tierwise.report.markup import local_time

READ = "read"  # the step that reads documents
_ALIVE = frozenset({"alive", "leased"})
# The ages of waiting documents, each up to so many seconds.
AGES = (
    ("less than an hour", 3600.0),
    ("less than a day", 86_400.0),
    ("less than a week", 7 * 86_400.0),
    ("a week or more", float("inf")),
)


# The same points are drawn again at each refresh, and an interval takes milliseconds.
_interval = lru_cache(maxsize=4096)(interval)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A run under way. `total` documents and the cost are its plan's; None without one.

    `per_minute` is the number of documents done in a minute, since its start or of late.
    """

    run: RunRow
    sign: Sign
    done: int
    total: int | None
    per_minute: float
    expected_end: float | None
    planned_cost: Decimal | None

    @property
    def is_alive(self) -> bool:
        """True unless its process is known to be dead."""
        return self.sign in _ALIVE

    @property
    def done_text(self) -> str:
        """Such as `4 of 10 done`; a run may have more documents than its plan."""
        if self.total is None:
            return f"{self.done:,} done"
        if self.done > self.total:
            return f"{self.done:,} done, {self.total:,} planned"
        return f"{self.done:,} of {self.total:,} done"

    @property
    def pace_text(self) -> str:
        """The number of documents done in a minute, with a digit more where they are few."""
        return f"{self.per_minute:,.{0 if self.per_minute >= 10 else 1}f}"

    @property
    def end_text(self) -> str:
        """When it should end, or why that is not known."""
        if not self.is_alive:
            return "its process died"
        if self.total is None:
            return "no plan, so no expected end"
        if self.done >= self.total:
            return "all planned documents are done"
        if self.run.in_batches:
            return "waits for provider batches"
        if self.expected_end is None:
            return "end unknown: none was done of late"
        return f"expected end {local_time(self.expected_end)}"


@dataclass(frozen=True, kw_only=True)
class Share:
    """The cost of one part of the spending, such as a model's. Costs are USD."""

    name: str
    calls: int
    reused: int
    cost_known: Decimal
    cost_unknown: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A number of good ones among some, with its exact 95 % interval."""

    good: int
    n: int

    @property
    def rate(self) -> float | None:
        """Return the share; None without any."""
        return self.good / self.n if self.n else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Return the interval; None without any."""
        return _interval(self.good, self.n)


@dataclass(frozen=True, kw_only=True)
class RatePoint:
    """A rate in the days from `day` on."""

    day: int
    rate: Rate


@dataclass(frozen=True, kw_only=True)
class StepQuality:
    """One step: distinct answers that were accepted, and labelled answers that were right.

    `waiting` answers are to be approved by a person; they are in no rate. `points` are those of
    `passed` over time.
    """

    step: str
    passed: Rate
    waiting: int
    labels: Rate
    points: Sequence[RatePoint]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The documents of one flow that wait for a decision, by age. `counts` are those of AGES."""

    flow: str
    counts: Sequence[int]
    since: float

    @property
    def documents(self) -> int:
        """The number of all."""
        return sum(self.counts)


def today(now: float | None = None) -> int:
    """Return the number of the present day since 1970, in UTC."""
    return int((time.time() if now is None else now) // DAY_S)


def day_name(day: int) -> str:
    """Return a day such as `2026-11-28`."""
    return time.strftime("%Y-%m-%d", time.gmtime(day * DAY_S))


def documents_done(counts: StepCounts, steps: Sequence[str]) -> int:
    """Return the documents with an outcome in every step; `steps` are those that a run takes."""
    # Of reading, failures alone are on record; the later steps have these documents as skipped.
    asked = [step for step in (steps or counts) if step != READ]
    names = asked or list(counts)
    return min((_recorded(counts.get(step, {})) for step in names), default=0)


def progress(
    run: RunRow,
    counts: StepCounts,
    steps: Sequence[str],
    sign: Sign,
    now: float,
    earlier: tuple[float, int] | None = None,
) -> Progress:
    """Return how far a run is. `earlier` is a time with the number of documents done then."""
    done = documents_done(counts, steps)
    plan = run.plan or {}
    total = round(plan["documents"]) if "documents" in plan else None
    since, before = earlier or (run.started_at, 0)
    seconds = max(1.0, now - since)
    per_second = max(0, done - before) / seconds
    expected_end = None
    is_open = total is not None and done < total
    if total is not None and is_open and per_second > 0 and sign in _ALIVE:
        expected_end = now + (total - done) / per_second
    planned = plan.get("expected")
    return Progress(
        run=run,
        sign=sign,
        done=done,
        total=total,
        per_minute=60 * per_second,
        expected_end=expected_end,
        planned_cost=None if planned is None else Decimal(str(planned)),
    )


def steps_of(run: RunRow, earlier: Iterable[tuple[RunRow, StepCounts]]) -> list[str]:
    """Return the steps that a run takes: its plan's, else those of its flow's last ended run."""
    plan = run.plan or {}
    steps = list(dict.fromkeys(row["step"] for row in plan.get("rows", ())))
    if steps:
        return steps
    for other, counts in earlier:
        if other.flow == run.flow and other.finished_at is not None and counts:
            return list(counts)
    return []


def shares(
    spending: Iterable[Spending], name_of: Any, *, longest: int = 12
) -> list[Share]:
    """Return the spending by name, the greatest cost first; the last one sums up what is left."""
    sums: dict[str, list[Any]] = defaultdict(lambda: [0, 0, Decimal(0), 0])
    for row in spending:
        for name in name_of(row):
            of_name = sums[name]
            of_name[0] += row.calls
            of_name[1] += row.reused
            of_name[2] += row.cost_known
            of_name[3] += row.cost_unknown
    found = [_share(name, of_name) for name, of_name in sums.items()]
    found.sort(key=lambda share: (-share.cost_known, -share.calls, share.name))
    if len(found) <= longest:
        return found
    rest = found[longest - 1 :]
    return [
        *found[: longest - 1],
        Share(
            name=f"{len(rest)} others",
            calls=sum(share.calls for share in rest),
            reused=sum(share.reused for share in rest),
            cost_known=sum((share.cost_known for share in rest), Decimal(0)),
            cost_unknown=sum(share.cost_unknown for share in rest),
        ),
    ]


def by_day(spending: Iterable[Spending], first: int, last: int) -> list[Share]:
    """Return the spending of every day from one to another, days without any included."""
    sums = {day: [0, 0, Decimal(0), 0] for day in range(first, last + 1)}
    for row in spending:
        of_day: list[Any] | None = sums.get(row.day)
        if of_day is not None:
            of_day[0] += row.calls
            of_day[1] += row.reused
            of_day[2] += row.cost_known
            of_day[3] += row.cost_unknown
    return [_share(day_name(day), of_day) for day, of_day in sums.items()]


def total_of(spending: Iterable[Spending]) -> Share:
    """Return all spending together."""
    found = shares(spending, lambda _: ("total",))
    if found:
        return found[0]
    return Share(name="total", calls=0, reused=0, cost_known=Decimal(0), cost_unknown=0)


def quality(
    answers: Mapping[tuple[str, int], Tally],
    labels: Iterable[LabelCount],
    first: int,
    width: int,
) -> list[StepQuality]:
    """Return each step's quality since a day, with a point for each `width` days.

    `answers` are the ledger's tallies by step and day.
    """
    totals: dict[str, Tally] = defaultdict(Tally)
    over_time: dict[str, dict[int, Tally]] = defaultdict(lambda: defaultdict(Tally))
    for (step, day), tally in answers.items():
        if day < first:
            continue
        start = first + (day - first) // width * width
        totals[step] += tally
        over_time[step][start] += tally
    right: dict[str, int] = defaultdict(int)
    labelled: dict[str, int] = defaultdict(int)
    for label in labels:
        if label.day >= first:
            right[label.step] += label.right
            labelled[label.step] += label.labelled
    return [
        StepQuality(
            step=step,
            passed=rate_of(totals[step]),
            waiting=totals[step].waiting,
            labels=Rate(good=right[step], n=labelled[step]),
            points=[
                RatePoint(day=day, rate=rate_of(tally))
                for day, tally in sorted(over_time[step].items())
                if tally.n
            ],
        )
        for step in sorted(totals.keys() | labelled.keys())
    ]


def rate_of(tally: Tally) -> Rate:
    """Return the share of distinct answers that were accepted."""
    return Rate(good=tally.passed, n=tally.n)


def waiting_by_age(rows: Iterable[WaitingRow], now: float) -> list[Waiting]:
    """Return the documents that no person has decided yet, by flow and age."""
    since: dict[tuple[str, str | None, str], float] = {}
    for row in rows:
        if not row.is_decided:
            # A document may wait in several steps.
            key = (row.flow, row.source, row.document_id)
            since[key] = min(row.waits_since, since.get(key, row.waits_since))
    flows: dict[str, list[float]] = defaultdict(list)
    for (flow, _, _), at in since.items():
        flows[flow].append(at)
    return [_waiting(flow, flows[flow], now) for flow in sorted(flows)]


def tags_of(runs: Iterable[tuple[RunRow, Any]]) -> dict[str, Mapping[str, str]]:
    """Return the tags of runs by run."""
    return {run.id: run.tags or {} for run, _ in runs}


def _waiting(flow: str, since: Sequence[float], now: float) -> Waiting:
    counts = [0] * len(AGES)
    for at in since:
        age = now - at
        place = next(place for place, (_, end) in enumerate(AGES) if age < end)
        counts[place] += 1
    return Waiting(flow=flow, counts=counts, since=min(since))


def _recorded(statuses: Mapping[Any, int]) -> int:
    # One that waits for a provider's batch has no result yet.
    return sum(number for status, number in statuses.items() if status != "waiting")


def _share(name: str, sums: Sequence[Any]) -> Share:
    calls, reused, known, unknown = sums
    return Share(
        name=name, calls=calls, reused=reused, cost_known=known, cost_unknown=unknown
    )
