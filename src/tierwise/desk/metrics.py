"""The desk's figures as metrics: the one door to Prometheus's client library."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tierwise.desk.alerts import Alert
from tierwise.desk.figures import Progress, Waiting
from tierwise.desk.overview_facts import CertificateRow, Runs
from tierwise.ledger.views.answers import Tally
from tierwise.ledger.views.overview import Spending
from tierwise.policy.budget import BudgetState
from tierwise.text.escape import escape_control

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_Labels = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Everything that metrics are made of."""

    runs: Runs
    spending: Sequence[Spending]
    answers: Mapping[str, Tally]  # by step
    running: Sequence[Progress]
    budgets: Sequence[BudgetState]
    waiting: Sequence[Waiting]
    certificates: Sequence[CertificateRow]
    batches: Sequence[Any]
    alerts: Sequence[Alert]
    now: float


def exposition(figures: Figures) -> bytes:
    """Return the metrics in Prometheus's text format."""
    # One registry for each answer: the library's own has figures of this process.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from _of_calls(self._figures.spending)
        yield _of_answers(self._figures.answers)
        yield from _of_runs(self._figures)
        yield from _of_money(self._figures.budgets)
        yield from _of_people(self._figures)


def _of_calls(spending: Sequence[Spending]) -> Iterator[Metric]:
    labels = ("step", "tier", "model", "role")
    calls: dict[_Labels, int] = defaultdict(int)
    reused: dict[_Labels, int] = defaultdict(int)
    cost: dict[_Labels, Decimal] = defaultdict(Decimal)
    unknown: dict[_Labels, int] = defaultdict(int)
    tokens: dict[_Labels, int] = defaultdict(int)
    for row in spending:
        key = (row.step, row.tier, row.model, row.role)
        calls[key] += row.calls - row.reused
        reused[key] += row.reused
        cost[key] += row.cost_known
        unknown[key] += row.cost_unknown
        tokens[(*key, "input")] += row.prompt_tokens
        tokens[(*key, "output")] += row.completion_tokens
    yield _counter("tierwise_calls", "Calls made.", labels, calls)
    yield _counter(
        "tierwise_calls_reused", "Paid calls used again, at no cost.", labels, reused
    )
    yield _counter(
        "tierwise_cost_usd",
        "Cost of the calls with a known cost, in USD.",
        labels,
        cost,
    )
    yield _counter(
        "tierwise_calls_of_unknown_cost", "Calls of unknown cost.", labels, unknown
    )
    yield _counter(
        "tierwise_tokens", "Tokens of calls made.", (*labels, "direction"), tokens
    )


def _of_answers(answers: Mapping[str, Tally]) -> Metric:
    numbers: dict[_Labels, int] = {}
    for step, tally in answers.items():
        numbers[step, "passed"] = tally.passed
        numbers[step, "failed"] = tally.failed
        numbers[step, "waiting"] = tally.waiting
    # A gauge: an answer that waits passes or fails later.
    return _gauge("tierwise_answers", "Distinct answers.", ("step", "result"), numbers)


def _of_runs(figures: Figures) -> Iterator[Metric]:
    states: dict[_Labels, int] = defaultdict(int)
    documents: dict[_Labels, int] = defaultdict(int)
    for run, counts in figures.runs:
        states[run.flow, run.state] += 1
        for step, statuses in counts.items():
            for status, number in statuses.items():
                documents[run.flow, step, status] += number
    yield _gauge("tierwise_runs", "Runs on record.", ("flow", "state"), states)
    outcomes = ("flow", "step", "status")
    yield _counter("tierwise_outcomes", "Outcomes on record.", outcomes, documents)
    done: dict[_Labels, float] = {}
    pace: dict[_Labels, float] = {}
    for each in figures.running:
        key = (each.run.flow, each.run.id)
        done[key] = each.done
        pace[key] = each.per_minute / 60
    names = ("flow", "run")
    yield _gauge(
        "tierwise_run_documents_done", "Documents done by runs under way.", names, done
    )
    yield _gauge(
        "tierwise_run_documents_per_second",
        "Throughput of runs under way.",
        names,
        pace,
    )


def _of_money(budgets: Iterable[BudgetState]) -> Iterator[Metric]:
    limit: dict[_Labels, Decimal] = {}
    spent: dict[_Labels, Decimal] = {}
    reserved: dict[_Labels, Decimal] = {}
    for state in budgets:
        key = (state.name or "everything",)
        limit[key] = state.limit
        spent[key] = state.spent
        reserved[key] = state.reserved
    names = ("budget",)
    yield _gauge(
        "tierwise_budget_limit_usd", "Limit with top-ups, in USD.", names, limit
    )
    yield _gauge("tierwise_budget_spent_usd", "Spent, in USD.", names, spent)
    yield _gauge("tierwise_budget_reserved_usd", "Reserved, in USD.", names, reserved)


def _of_people(figures: Figures) -> Iterator[Metric]:
    documents = {(row.flow,): row.documents for row in figures.waiting}
    oldest = {(row.flow,): figures.now - row.since for row in figures.waiting}
    flow = ("flow",)
    yield _gauge("tierwise_reviews_waiting", "Documents not decided.", flow, documents)
    yield _gauge("tierwise_reviews_oldest_seconds", "Longest wait.", flow, oldest)
    of = ("step", "models")
    days = {(row.step, row.models): row.days for row in figures.certificates}
    is_used = {
        (row.step, row.models): int(not row.is_over) for row in figures.certificates
    }
    yield _gauge("tierwise_certificate_days_left", "Days until it ends.", of, days)
    yield _gauge(
        "tierwise_certificate_in_force", "1 while it is in force.", of, is_used
    )
    batches: dict[_Labels, int] = defaultdict(int)
    for batch in figures.batches:
        batches[batch.model, batch.state] += 1
    yield _gauge(
        "tierwise_batches_open", "Batches in flight.", ("model", "state"), batches
    )
    alerts: dict[_Labels, int] = defaultdict(int)
    for alert in figures.alerts:
        alerts[(alert.kind,)] += 1
    yield _gauge("tierwise_alerts", "What needs a hand now.", ("kind",), alerts)


def _counter(name: str, text: str, labels: _Labels, values: Any) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_plain(key), float(value))
    return family


def _gauge(name: str, text: str, labels: _Labels, values: Any) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_plain(key), float(value))
    return family


def _plain(labels: _Labels) -> list[str]:
    """Return labels that can be encoded; names of flows and steps may hold anything."""
    return [escape_control(label) for label in labels]
