"""Deferrals for a passing reason: the same document may be answered later, without a person."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tierwise.cascade.faults import OF_THE_REQUEST
from tierwise.records import Cause, Outcome

# Causes that pass by themselves, or once a person has put something right beside the documents.
_PASSING: frozenset[Cause] = frozenset(("budget", "outage", "setup"))
_OF_THE_REQUEST = frozenset(error.__name__ for error in OF_THE_REQUEST)
# Rejections that end when a key is set, a server is back, or money is granted; version 0.1 named
# no cause for them.
_PASSING_REJECTIONS = ("unavailable", "budget")


def is_passing(outcome: Outcome, errors: Mapping[str, Collection[str]]) -> bool:
    """Return True for an outcome that was deferred for a passing reason.

    `errors` has the names of each model's errors in this step. A budget, a rate limit, an outage
    and a missing key pass. A review, failed checks, a guard, and a request that every model
    refused do not.
    """
    if outcome.cause in _PASSING:
        return True
    route = outcome.route
    if outcome.cause == "no_model":
        rejected = route.rejected if route else ()
        return any(rejection.kind in _PASSING_REJECTIONS for rejection in rejected)
    if outcome.cause != "provider_fault":
        return False
    models = route.models if route else ()
    refused = [
        model
        for model in models
        if _OF_THE_REQUEST.issuperset(errors.get(model, ["unknown"]))
    ]
    return not models or len(refused) < len(models)
