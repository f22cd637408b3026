"""What a person should look at after a run, each with the command to type."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tierwise.ledger.rows import DeferredRow, RunRow, SummaryRow
from tierwise.ledger.views.summary import ErrorRow
from tierwise.report.figures import Ground
from tierwise.report.summary import RunSummary
from tierwise.text.amounts import usd

SOON = datetime.timedelta(days=30)  # a certificate that ends sooner is told
_MOST_OVER = 0.25  # of the plan
_NEARLY = Decimal("0.8")  # of the budget
_SETUP = {"AuthenticationFailed", "ModelGone", "Unreachable", "ModelUnavailable", "WeightsError"}


@dataclass(frozen=True, slots=True)
class Attention:
    """Something to look at, and the command that helps; `text` quotes no document."""

    text: str
    command: str


def attention(
    summaries: Sequence[RunSummary],
    errors: Sequence[ErrorRow],
    ground: Ground,
    today: datetime.date,
) -> list[Attention]:
    """Everything that is worth a look, the most urgent first."""
    found = [item for summary in summaries for item in _of_run(summary)]
    found += _setup(errors)
    found += _evidence([row for summary in summaries for row in summary.rows], ground, today)
    if ground.labels_wanted:
        found.append(
            Attention(
                f"waiting for a label: {_counted(ground.labels_wanted, 'answer')}", "tierwise label"
            )
        )
    return list(dict.fromkeys(found))


def command_of(run: RunRow, command: str = "run", **changes: str) -> str:
    """The command that runs this flow again with the same parameters, or with other ones; else one that shows it."""
    if run.flow_run_id is None:
        return f"tierwise show {run.id}"
    unset = (None, "None", False, "False")
    parameters = {
        name: value for name, value in run.parameters.items() if value not in unset
    } | changes
    options = [
        f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name, value in parameters.items()
    ]
    return " ".join([f"tierwise {command} {run.flow.replace('-', '_')}", *options])


def _of_run(summary: RunSummary) -> Iterator[Attention]:
    run = summary.run
    if run.state != "completed":
        what = (
            "has no end on record: it still runs, or it was stopped"
            if run.state == "running"
            else f"is {run.state}"
        )
        yield Attention(f"run {run.id} {what}; what was paid is reused", command_of(run))
    yield from _deferred(run, summary.deferred)
    if run.cost_unknown:
        yield Attention(
            f"{_counted(run.cost_unknown, 'call')} of unknown cost: a price is missing",
            "tierwise models",
        )
    if run.budget_usd and _NEARLY * run.budget_usd <= run.cost_known:
        told = f"{usd(run.cost_known)} of a budget of {usd(run.budget_usd)} are spent"
        yield Attention(told, command_of(run, **_more_money(run)))
    for row in summary.against_plan()[-1:]:
        if row.deviation is not None and row.deviation > _MOST_OVER:
            yield Attention(
                f"it cost {row.deviation:+.0%} against its plan", command_of(run, "plan")
            )


def _deferred(run: RunRow, rows: Sequence[DeferredRow]) -> Iterator[Attention]:
    kinds: dict[str, list[DeferredRow]] = {}
    for row in rows:
        kinds.setdefault(_kind(row), []).append(row)
    review = f"tierwise review {run.id}"
    for kind, mine in kinds.items():
        documents = _counted(len(mine), "document")
        first = mine[0]
        if kind == "budget":
            yield Attention(f"waiting for money: {documents}", command_of(run, **_more_money(run)))
        elif kind == "review":
            yield Attention(f"waiting for a person's review in {first.step}: {documents}", review)
        elif kind == "read":
            yield Attention(f"{documents} could not be read", f"tierwise show {run.id} --documents")
        else:
            yield Attention(f"{documents} got no acceptable answer in {first.step}", review)


def _kind(row: DeferredRow) -> str:
    if row.reason.startswith("budget"):
        return "budget"
    if row.reason.startswith("waits for a person's review"):
        return "review"
    return "read" if row.step == "read" else f"step {row.step}"


def _more_money(run: RunRow) -> dict[str, str]:
    return (
        {"budget_usd": f"{(2 * run.budget_usd).normalize():f}"}
        if run.budget_usd and "budget_usd" in run.parameters
        else {}
    )


def _setup(errors: Sequence[ErrorRow]) -> Iterator[Attention]:
    for row in errors:
        if row.error in _SETUP:
            yield Attention(
                f"{_counted(row.calls, 'call')} to {row.model} ended in {row.error}",
                "tierwise doctor",
            )


def _evidence(
    rows: Sequence[SummaryRow], ground: Ground, today: datetime.date
) -> Iterator[Attention]:
    """Steps with a floor whose certificates are missing, void or about to end."""
    for step in dict.fromkeys(row.step for row in rows if row.step in ground.floors):
        mine = [proof for proof in ground.proofs if proof.certificate.step == step]
        certify = f"tierwise certify {step}"
        if not any(proof.void is None for proof in mine):
            why = f": {mine[0].void}" if mine else ""
            yield Attention(f"no certificate is in force for {step}{why}", certify)
        for proof in mine:
            ends = proof.certificate.expires
            if proof.void is None and ends - today < SOON:
                models = " > ".join(proof.certificate.models)
                yield Attention(f"the certificate of {models} for {step} ends on {ends}", certify)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
