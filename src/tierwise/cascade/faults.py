"""Retry, fallback or stop: the one table of decisions on the faults of a call."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from tierwise import errors
from tierwise.records import Cause

Decision = Literal["retry", "fallback", "stop"]

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
    errors.PromptCut: "fallback",
    errors.UnreadableReply: "fallback",
    errors.AuthenticationFailed: "stop",
    errors.OutOfCredit: "stop",
    errors.ModelGone: "stop",
    errors.ModelUnavailable: "stop",
    errors.WeightsError: "stop",
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
    errors.PromptCut: "setup",
    errors.AuthenticationFailed: "setup",
    errors.OutOfCredit: "setup",
    errors.ModelGone: "setup",
    errors.ModelUnavailable: "setup",
    errors.WeightsError: "setup",
    errors.UnreadableReply: "provider_fault",
}
# Of several models' faults, the first of these is the document's: what passes by itself, what a
# person can put right, and what no further try helps.
_BY_HOPE: tuple[Cause, ...] = ("outage", "setup", "provider_fault", "refused")

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
