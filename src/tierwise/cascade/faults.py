"""Retry, fallback or stop: the one table of decisions on the faults of a call."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from tierwise import errors
from tierwise.records import Cause

Decision = Literal["retry", "fallback", "stop"]
BatchDecision = Literal["retry", "split", "online", "defer", "stop"]

# retry: the same model again, after a pause, and the next model when it keeps failing
# fallback: the next model at once
# stop: this model is out for the rest of the process; the next model at once
DECISIONS: dict[type[errors.TierwiseError], Decision] = {
    errors.RateLimited: "retry",
    errors.Overloaded: "retry",
    errors.ServerFault: "retry",
    errors.CallTimeout: "retry",
    errors.Unreachable: "retry",
    errors.BadReply: "retry",
    errors.CoolingDown: "fallback",
    errors.ContextTooLong: "fallback",
    errors.ContentRefused: "fallback",
    errors.BadRequest: "fallback",
    errors.NoAnswer: "fallback",
    errors.PagesUnavailable: "fallback",
    errors.PromptCut: "fallback",
    errors.FunctionBusy: "retry",
    errors.FunctionFailed: "fallback",
    errors.UnreadableReply: "fallback",
    errors.AuthenticationFailed: "stop",
    errors.OutOfCredit: "stop",
    errors.ModelGone: "stop",
    errors.ModelUnavailable: "stop",
    errors.WeightsError: "stop",
    # Of a batch, when nothing else was decided by `BATCH_DECISIONS`.
    errors.BatchError: "retry",
    errors.BatchRefused: "retry",
    errors.BatchTooLarge: "retry",
    errors.BatchQueueFull: "retry",
    errors.BatchLinesInvalid: "retry",
    errors.BatchInvalid: "retry",
    errors.BatchFailed: "retry",
    errors.BatchExpired: "retry",
    errors.BatchCancelled: "fallback",
    errors.BatchStalled: "retry",
    errors.BatchResultsGone: "retry",
    errors.BatchIncomplete: "retry",
    errors.BatchItemMissing: "retry",
    errors.BatchRenamed: "retry",
}

# The decisions on a provider's batch: on its upload, its state, its results, and on items that end
# with an error of the batch. An item's own error, as an online call has it, is decided above.
# retry: the same request again, after a pause; of a batch that has ended, its items in a new batch
# split: again in smaller batches; the named items go online, where each gets its own error
# online: the items go online
# defer: the documents wait for a person
# stop: this model is out for the rest of the process; batches that are open stay open
BATCH_DECISIONS: dict[type[errors.TierwiseError], BatchDecision] = {
    errors.RateLimited: "retry",
    errors.Overloaded: "retry",
    errors.ServerFault: "retry",
    errors.CallTimeout: "retry",
    errors.Unreachable: "retry",
    errors.BadReply: "retry",
    errors.NoAnswer: "retry",
    errors.CoolingDown: "retry",
    errors.ContextTooLong: "online",
    errors.ContentRefused: "online",
    errors.BadRequest: "online",
    errors.PagesUnavailable: "online",
    errors.PromptCut: "online",
    errors.FunctionBusy: "online",
    errors.FunctionFailed: "online",
    errors.UnreadableReply: "online",
    errors.AuthenticationFailed: "stop",
    errors.OutOfCredit: "stop",
    errors.ModelGone: "stop",
    errors.ModelUnavailable: "stop",
    errors.WeightsError: "stop",
    errors.BatchError: "online",
    errors.BatchRefused: "online",
    errors.BatchTooLarge: "split",
    errors.BatchQueueFull: "retry",
    errors.BatchLinesInvalid: "split",
    errors.BatchInvalid: "online",
    errors.BatchFailed: "retry",
    errors.BatchExpired: "retry",
    errors.BatchCancelled: "defer",
    errors.BatchStalled: "online",
    errors.BatchResultsGone: "online",
    errors.BatchIncomplete: "retry",
    errors.BatchItemMissing: "online",
    errors.BatchRenamed: "retry",
}

# what a document waits for whose calls ended in a fault
CAUSES: dict[type[errors.TierwiseError], Cause] = {
    errors.RateLimited: "outage",
    errors.Overloaded: "outage",
    errors.ServerFault: "outage",
    errors.CallTimeout: "outage",
    errors.Unreachable: "outage",
    errors.CoolingDown: "outage",
    errors.BadReply: "refused",
    errors.NoAnswer: "refused",
    errors.ContextTooLong: "refused",
    errors.ContentRefused: "refused",
    errors.BadRequest: "refused",
    errors.PagesUnavailable: "setup",
    errors.PromptCut: "setup",
    errors.AuthenticationFailed: "setup",
    errors.OutOfCredit: "setup",
    errors.ModelGone: "setup",
    errors.ModelUnavailable: "setup",
    errors.WeightsError: "setup",
    errors.FunctionBusy: "outage",
    errors.FunctionFailed: "function",
    errors.UnreadableReply: "provider_fault",
    errors.BatchError: "outage",
    errors.BatchRefused: "setup",
    errors.BatchTooLarge: "setup",
    errors.BatchQueueFull: "outage",
    errors.BatchLinesInvalid: "refused",
    errors.BatchInvalid: "refused",
    errors.BatchFailed: "outage",
    errors.BatchExpired: "outage",
    errors.BatchCancelled: "setup",
    errors.BatchStalled: "outage",
    errors.BatchResultsGone: "outage",
    errors.BatchIncomplete: "outage",
    errors.BatchItemMissing: "outage",
    errors.BatchRenamed: "outage",
}
# Of several models' faults, the first of these is the document's: what passes by itself, what a
# person can put right, and what no further try helps.
_BY_HOPE: tuple[Cause, ...] = (
    "outage",
    "setup",
    "function",
    "provider_fault",
    "refused",
)

# Faults after which no provider charges, where the error does not say so itself; after any other
# the cost of the call is unknown.
NEVER_BILLED = (
    errors.RateLimited,
    errors.Overloaded,
    errors.AuthenticationFailed,
    errors.OutOfCredit,
    errors.ModelGone,
    errors.ContextTooLong,
    errors.BadRequest,
    errors.BatchRefused,
    errors.BatchTooLarge,
    errors.BatchQueueFull,
    errors.BatchLinesInvalid,
    errors.BatchInvalid,
    errors.BatchExpired,
    errors.BatchCancelled,
    errors.BatchRenamed,
)

# faults that the same request meets again, whenever it is made
OF_THE_REQUEST = (
    errors.ContextTooLong,
    errors.ContentRefused,
    errors.BadRequest,
    errors.BadReply,
)


def decision(error: errors.TierwiseError) -> Decision:
    """Return the decision on an error of a call."""
    return DECISIONS[type(error)]


def batch_decision(error: errors.TierwiseError) -> BatchDecision:
    """Return the decision on an error of a provider's batch."""
    return BATCH_DECISIONS[type(error)]


def goes_online_after(error: errors.TierwiseError) -> bool:
    """Return True if an item's error is one of its batch, after which its call goes online."""
    return isinstance(error, errors.BatchError) and batch_decision(error) == "online"


def fault_on_record(name: str, message: str, model: str) -> errors.CallError | None:
    """Return the fault of an earlier start's attempt, if it is one of the request.

    None for a fault that may be over by now, and for one of a batch: the call is made again.
    """
    kind = getattr(errors, name, None)
    if not isinstance(kind, type) or not issubclass(kind, errors.CallError):
        return None
    if issubclass(kind, errors.BatchError):
        return None
    if DECISIONS.get(kind) != "fallback" and kind not in OF_THE_REQUEST:
        return None
    return kind(message, model=model)


def defers(error: errors.TierwiseError) -> bool:
    """Return True if the document waits for a person after an error of its batch."""
    return isinstance(error, errors.BatchError) and batch_decision(error) == "defer"


def is_free(error: BaseException) -> bool:
    """Return True if no provider charges for a call that ended in this error."""
    if isinstance(error, errors.CallError):
        if not error.sent:
            return True
        if error.billable is not None:
            return not error.billable
    return isinstance(error, NEVER_BILLED)


def cause_of_deferral(causes: Collection[Cause]) -> Cause:
    """Return the cause of a deferral, given one for each model whose calls failed."""
    for cause in _BY_HOPE:
        if cause in causes:
            return cause
    return "provider_fault"
