"""The points of a run that need a person, each with the command to type."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tierwise.ledger.rows import WENT_THROUGH, RunRow, SummaryRow
from tierwise.ledger.views.summary import ErrorRow
from tierwise.policy.certificates import AgreementCertificate
from tierwise.report.causes import by_cause, command_for, faults_in_words
from tierwise.report.figures import ProjectFacts
from tierwise.report.summary import RunSummary
from tierwise.text.amounts import plural, usd

SOON = datetime.timedelta(days=30)  # a certificate that ends sooner is reported
_MAX_DEVIATION = 0.25  # of the plan
_NEARLY_SPENT = Decimal("0.8")  # of the budget
# errors whose usual remedy is a key, an account, a setting or a server
_SETUP_ERRORS = {
    "AuthenticationFailed",
    "OutOfCredit",
    "ModelGone",
    "Unreachable",
    "ModelUnavailable",
    "WeightsError",
}


@dataclass(frozen=True, slots=True)
class Attention:
    """Something to look at, and the command that helps; `text` quotes no document."""

    text: str
    command: str


def attention_items(
    summaries: Sequence[RunSummary],
    errors: Sequence[ErrorRow],
    facts: ProjectFacts,
    today: datetime.date,
) -> list[Attention]:
    """Return everything that is worth a look, the most urgent first, each once."""
    items: list[Attention] = []
    rows: list[SummaryRow] = []
    for summary in summaries:
        items += _run_items(summary)
        rows += summary.rows
    items += _setup_items(errors)
    items += _suspended_items(facts)
    items += _certificate_items(rows, facts, today)
    if facts.labels_wanted:
        text = f"waiting for a label: {plural(facts.labels_wanted, 'answer')}"
        items.append(Attention(text, "tierwise label"))
    # a dict keeps the order and drops what several runs have in common
    return list(dict.fromkeys(items))


def command_of(run: RunRow, command: str = "run", **changes: str) -> str:
    """Return the command that runs this flow again, with the same parameters or changed ones.

    A run that Prefect did not start has no such command; then the one that shows it.
    """
    if run.flow_run_id is None:
        return f"tierwise show {run.id}"
    # the ledger may have parameters as text; None and False are left to its defaults
    unset = (None, "None", False, "False")
    parameters = {
        name: value for name, value in run.parameters.items() if value not in unset
    }
    parameters |= changes
    # a flow is named with dashes in Prefect, and with underscores as a file in flows/
    words = [f"tierwise {command} {run.flow.replace('-', '_')}"]
    for name, value in parameters.items():
        words.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    return " ".join(words)


def _run_items(summary: RunSummary) -> Iterator[Attention]:
    run = summary.run
    # what waits has items of its own below
    if run.state not in WENT_THROUGH:
        state = f"is {run.state}"
        if run.state == "running":
            state = "has not ended: it still runs, or it was stopped"
        yield Attention(
            f"run {run.id} {state}; what was paid is reused", command_of(run)
        )
    yield from _deferred_items(summary)
    yield from _cost_items(summary)
    if run.usage_unclear:
        calls = plural(run.usage_unclear, "call")
        text = (
            f"{calls} with unclear usage: the server's token counts contradict each other, "
            "the largest reading is billed"
        )
        yield Attention(text, f"tierwise show {run.id} --documents")
    # calls of unknown cost cannot count here; they have an item of their own above
    if run.budget_usd and _NEARLY_SPENT * run.budget_usd <= run.cost_known:
        text = f"{usd(run.cost_known)} of a budget of {usd(run.budget_usd)} are spent"
        yield Attention(text, command_of(run, **_doubled_budget(run)))
    comparison = summary.against_plan()
    if comparison:
        deviation = comparison[-1].deviation  # the last row is the total
        # a run that cost less than planned is no reason to look
        if deviation is not None and deviation > _MAX_DEVIATION:
            text = f"it cost {deviation:+.0%} against its plan"
            yield Attention(text, command_of(run, "plan"))


def _cost_items(summary: RunSummary) -> Iterator[Attention]:
    """Yield the calls of unknown cost, by what is missing to know it."""
    run = summary.run
    unpriced = sum(row.unpriced for row in summary.rows)
    if unpriced:
        calls = plural(unpriced, "call")
        yield Attention(
            f"{calls} of unknown cost: a price is missing", "tierwise models"
        )
    others = run.cost_unknown - unpriced
    if others > 0:
        calls = plural(others, "call")
        text = f"{calls} of unknown cost: sent, then failed or cut off, or without token counts"
        yield Attention(text, f"tierwise show {run.id}")


def _deferred_items(summary: RunSummary) -> Iterator[Attention]:
    """Yield one item for each cause of deferrals."""
    run = summary.run
    for remedy, cause, rows in by_cause(summary.deferred):
        # documents that wait for the same may be of several steps
        steps = dict.fromkeys(row.step for row in rows)
        documents = len({row.document_id for row in rows})
        text = f"{remedy.title}: {plural(documents, 'document')}"
        if cause != "unreadable":  # there the step is always the same
            text += f" in {', '.join(steps)}"
        faults = faults_in_words(cause, set(steps), summary.rows)
        if faults:
            text += f" ({faults})"
        yield Attention(text, command_for(remedy, run, rows[0], command_again(run)))


def command_again(run: RunRow) -> str:
    """Return the command that runs a flow again with more money, where it has a budget.

    Where the run has none of its own, a limit of the rules is exhausted: the command that shows
    them.
    """
    changes = _doubled_budget(run)
    return command_of(run, **changes) if changes else "tierwise budgets"


def _doubled_budget(run: RunRow) -> dict[str, str]:
    """Return the parameter that doubles a run's budget; none where the flow has no such one.

    A budget of 0 becomes 1 USD.
    """
    if run.budget_usd is None or "budget_usd" not in run.parameters:
        return {}
    doubled = 2 * run.budget_usd or Decimal(1)
    # as a person would type it: 2 and not 2.000000, and never 2E+1
    return {"budget_usd": f"{doubled.normalize():f}"}


def _setup_items(errors: Sequence[ErrorRow]) -> Iterator[Attention]:
    for row in errors:
        # any other error, such as a timeout, may pass by itself
        if row.error in _SETUP_ERRORS:
            text = f"{plural(row.calls, 'call')} to {row.model} ended in {row.error}"
            yield Attention(text, "tierwise doctor")


def _suspended_items(facts: ProjectFacts) -> Iterator[Attention]:
    """Yield the certificates whose server reports another model."""
    for suspension in facts.suspended:
        certificate = suspension.certificate
        models = " > ".join(certificate.models)
        command = f"tierwise certify {certificate.step} --fresh"
        if suspension.is_open:
            command = f"tierwise canaries {certificate.step}"
        text = f"the certificate of {models} for {certificate.step} is out of use: "
        yield Attention(text + suspension.change, command)


def _certificate_items(
    rows: Sequence[SummaryRow], facts: ProjectFacts, today: datetime.date
) -> Iterator[Attention]:
    """Yield steps with a floor whose certificates are missing, void or about to end."""
    steps = dict.fromkeys(
        row.step
        for row in rows
        if row.step in facts.floors or row.step in facts.agreement_floors
    )
    suspended = {each.certificate.step for each in facts.suspended}
    for step in steps:
        states = [
            state for state in facts.certificates if state.certificate.step == step
        ]
        valid = [state.certificate for state in states if state.void is None]
        certify = f"tierwise certify {step}"
        if step not in facts.floors:
            certify = f"tierwise distil {step}"
        # one certificate in force is enough; otherwise the first void one says what is wrong
        # a suspended one has an item of its own
        if not valid and step not in suspended:
            reason = f": {states[0].void}" if states else ""
            yield Attention(f"no certificate is in force for {step}{reason}", certify)
        for certificate in valid:
            if certificate.expires - today < SOON:
                models = " > ".join(certificate.models)
                text = f"the certificate of {models} for {step} ends on {certificate.expires}"
                renew = certify
                if isinstance(certificate, AgreementCertificate):
                    renew = f"tierwise distil {step}"
                yield Attention(text, renew)
