"""What documents wait for: a title and a remedy for each cause of an outcome.

The attention list, the terminal and Prefect's artifact all read this table. It acts on the cause,
never on the wording of a reason.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tierwise.ledger.rows import DeferredRow, RunRow, SummaryRow
from tierwise.policy.waiting import counts_as_waiting
from tierwise.records import Cause


@dataclass(frozen=True, slots=True)
class Remedy:
    """What documents wait for, and the command that helps.

    `command` has RUN, STEP, DOCUMENT and AGAIN in the places of the run's id, the step and the id
    of the first document, and the command that runs the flow again. `purpose` says in a few words
    what it does; `text` is the whole advice, and may name RUN.
    """

    title: str
    command: str
    purpose: str
    text: str


_SHOW = "tierwise show RUN --documents"
_EXPLAIN = "tierwise explain DOCUMENT STEP --run RUN"

REMEDIES: Mapping[Cause, Remedy] = {
    "setup": Remedy(
        "A key, an account, a model or a server has to be put right",
        "tierwise doctor",
        "what is missing or wrong here",
        "Put right what the reason names; `tierwise doctor` says what is missing. The next run "
        "with `only_new` takes them again, and so does `tierwise retry RUN`.",
    ),
    "outage": Remedy(
        "A provider was out, or at its limit",
        "tierwise retry RUN",
        "run the flow again for them",
        "This passes by itself. The next run with `only_new` takes them again, and so does "
        "`tierwise retry RUN`.",
    ),
    "budget": Remedy(
        "No money left",
        "AGAIN",
        "with a higher budget; paid answers are reused",
        "Run the flow again with a higher `budget_usd`, or raise the limit that the reason names; "
        "`tierwise budgets` shows them all. What was paid is reused.",
    ),
    "unpriced": Remedy(
        "A price is missing, and a budget applies",
        "tierwise models",
        "which prices are missing",
        "Write the model's price into `routing_rules/catalog.yaml`, or name it in "
        "`budget.allow_unpriced`. Then `tierwise retry RUN`.",
    ),
    "uncertified": Remedy(
        "No certificate allows a model",
        "tierwise certify STEP",
        "measure the models of the step",
        "Certify a model for the step, or let its route take one that needs no certificate. Then "
        "`tierwise retry RUN`.",
    ),
    "no_model": Remedy(
        "No model may or can do it",
        _EXPLAIN,
        "why each model is left out",
        "`tierwise explain DOCUMENT` says why each model is left out: a guard, the context window "
        "or the rules. Change `routing_rules/rules.yaml`, then `tierwise retry RUN`.",
    ),
    "failed_checks": Remedy(
        "No allowed model answered well",
        "tierwise review RUN",
        "decide the deferred documents",
        "`tierwise explain DOCUMENT` shows every attempt. "
        "Allow a stronger model in `routing_rules/rules.yaml` and `tierwise retry RUN`, "
        "or decide yourself with `tierwise review RUN`.",
    ),
    "refused": Remedy(
        "The providers refused it, or gave no usable reply",
        _EXPLAIN,
        "what each provider said",
        "`tierwise explain DOCUMENT` shows what each provider said. Allow another model in "
        "`routing_rules/rules.yaml` and `tierwise retry RUN`, or decide yourself with "
        "`tierwise review RUN`.",
    ),
    "function": Remedy(
        "A function of the project failed",
        _EXPLAIN,
        "which exception, and where",
        "The reason names the exception and its place, without its words, which may quote a "
        "document. Mend the function, then `tierwise retry RUN`; or decide yourself with "
        "`tierwise review RUN`.",
    ),
    "provider_fault": Remedy(
        "Every call failed",
        _EXPLAIN,
        "what each call ended in",
        "`tierwise explain DOCUMENT` shows every attempt; `tierwise retry RUN` tries again.",
    ),
    "unreadable": Remedy(
        "Could not be read, or only in part",
        _SHOW,
        "the reason for each document",
        "Each reason says what helps. Mend the file or change the setting that it names, and run "
        "the flow again; then the document counts as new.",
    ),
    "members": Remedy(
        "A group waits for its members, or has too many",
        _SHOW,
        "the outcome of every document and step",
        "Each reason names the members. Once they are accepted or rejected, `tierwise retry RUN` "
        "makes the group again; what was paid is reused. A group that has too many needs a higher "
        "`most`, or another key.",
    ),
    "review": Remedy(
        "For a person's review",
        "tierwise review RUN",
        "decide the deferred documents",
        "`tierwise review RUN` shows each one and takes the decision; "
        "then `tierwise retry RUN` goes on.",
    ),
    "earlier_step": Remedy(
        "Skipped, as an earlier step was not accepted",
        _SHOW,
        "the outcome of every document and step",
        "`tierwise show RUN --documents` says which step. They go on with `tierwise retry RUN` "
        "once that step is accepted.",
    ),
    "condition": Remedy(
        "Skipped, as the step does not apply",
        _SHOW,
        "the outcome of every document and step",
        "The step's `only=` left them out; nothing has to be done.",
    ),
    "batch": Remedy(
        "In provider batches",
        "tierwise resume RUN",
        "collect the answers that are there, and go on",
        "`tierwise resume RUN` collects the answers that are there, and goes on with the next steps; "
        "`tierwise batches` says how far the batches are.",
    ),
    "reviewer": Remedy(
        "Rejected by a reviewer",
        _SHOW,
        "the outcome of every document and step",
        "A reviewer rejected them; nothing has to be done.",
    ),
}
# Outcomes on record without a cause.
_NO_CAUSE = REMEDIES["failed_checks"]

# What calls ended in, by the error on record, where it explains why documents wait.
_FAULTS: Mapping[Cause, Mapping[str, str]] = {
    "outage": {
        "ServerFault": "server errors",
        "Overloaded": "no capacity",
        "RateLimited": "rate limit",
        "CallTimeout": "no answer in time",
        "Unreachable": "cannot be reached",
    },
    "setup": {
        "AuthenticationFailed": "key refused",
        "OutOfCredit": "no credit left",
        "ModelGone": "model not served",
        "ModelUnavailable": "not available here",
        "WeightsError": "weights missing",
        "PromptCut": "prompts cut by the server",
    },
    "refused": {
        "ContentRefused": "content refused",
        "ContextTooLong": "prompt too long",
        "BadRequest": "request rejected",
        "BadReply": "no usable reply",
        "NoAnswer": "no answer in the reply",
    },
}


def remedy_for(cause: Cause | None) -> Remedy:
    """Return the title and remedy of a deferred document."""
    return _NO_CAUSE if cause is None else REMEDIES[cause]


def by_cause(
    deferred: Sequence[DeferredRow],
) -> list[tuple[Remedy, Cause | None, list[DeferredRow]]]:
    """Return the deferred documents of a run by their causes, in the order of the table."""
    groups: dict[Remedy, list[DeferredRow]] = {}
    for row in deferred:
        groups.setdefault(remedy_for(row.cause), []).append(row)
    order = list(REMEDIES.values())
    found = sorted(groups.items(), key=lambda group: order.index(group[0]))
    return [(remedy, rows[0].cause, rows) for remedy, rows in found]


def command_for(remedy: Remedy, run: RunRow, row: DeferredRow, again: str) -> str:
    """Return a remedy's command for a run and the first of its documents; `again` reruns it."""
    words = {
        "RUN": run.id,
        "STEP": shlex.quote(row.step),
        "DOCUMENT": shlex.quote(row.document_id),
        "AGAIN": again,
    }
    return " ".join(words.get(word, word) for word in remedy.command.split())


def command_to_resume(run_id: str) -> str:
    """Return the command that goes on with a run whose calls are in provider batches."""
    return REMEDIES["batch"].command.replace("RUN", run_id)


def faults_in_words(
    cause: Cause | None, steps: set[str], rows: Sequence[SummaryRow]
) -> str:
    """Return what the calls of these steps ended in: `small: server errors, rate limit`.

    Empty where no call of this kind failed, as for documents that no model was asked about.
    """
    words = _FAULTS.get(cause, {}) if cause else {}
    by_model: dict[str, Counter[str]] = {}
    for row in rows:
        if row.step not in steps or row.shadow:
            continue
        for error, calls in row.errors.items():
            if error in words:
                by_model.setdefault(row.model, Counter())[words[error]] += calls
    return "; ".join(
        f"{model}: {', '.join(counts)}" for model, counts in by_model.items()
    )


def waiting_documents(deferred: Sequence[DeferredRow]) -> int:
    """Return the number of documents that wait, without those that a route sends to a person."""
    causes: dict[str, list[Cause | None]] = {}
    for row in deferred:
        causes.setdefault(row.document_id, []).append(row.cause)
    return sum(counts_as_waiting(of_document) for of_document in causes.values())
