"""Retry, fallback or stop: the one table of decisions on the faults of a call."""

from __future__ import annotations

from typing import Literal

from tierwise import errors

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
