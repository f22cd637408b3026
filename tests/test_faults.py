"""The table of faults: nothing that a call can raise is without a decision."""

from __future__ import annotations

import pytest

from tests.kit.projects import ROOT
from tierwise import errors
from tierwise.cascade.faults import (
    BATCH_DECISIONS,
    CAUSES,
    DECISIONS,
    NEVER_BILLED,
    batch_decision,
    decision,
)
from tierwise.errors import BatchError, CallError, ModelUnavailable, TierwiseError


def below(kind: type[TierwiseError]) -> list[type[TierwiseError]]:
    """All subclasses, at any depth."""
    return [
        found for child in kind.__subclasses__() for found in (child, *below(child))
    ]


FAULTS = [*below(CallError), ModelUnavailable, *below(ModelUnavailable)]


def instance(kind: type[TierwiseError]) -> TierwiseError:
    return (
        kind("it failed", model="small")
        if issubclass(kind, CallError)
        else kind("it failed")
    )


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_fault_of_a_call_has_a_decision(kind: type[TierwiseError]) -> None:
    assert decision(instance(kind)) in ("retry", "fallback", "stop")


def test_there_is_no_decision_for_what_is_no_fault_of_a_call() -> None:
    assert set(DECISIONS) == set(FAULTS)


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_fault_has_a_decision_for_batches(kind: type[TierwiseError]) -> None:
    decided = batch_decision(instance(kind))
    assert decided in ("retry", "split", "online", "defer", "stop")
    assert set(BATCH_DECISIONS) == set(FAULTS)


def test_a_fault_of_a_batch_alone_stops_no_model() -> None:
    """Only what online calls meet too takes a model out; a person's cancellation is kept."""
    for kind in below(BatchError):
        assert batch_decision(instance(kind)) != "stop"
    assert batch_decision(instance(errors.BatchCancelled)) == "defer"


def test_every_fault_of_a_call_says_what_its_document_waits_for() -> None:
    assert set(CAUSES) == set(FAULTS)


def test_what_may_have_been_billed_is_never_taken_for_free() -> None:
    """A call that ran, or may have run, costs; its cost is unknown unless the provider says."""
    may_cost = {
        errors.BadReply,
        errors.CallTimeout,
        errors.ContentRefused,
        errors.ServerFault,
        errors.Unreachable,
    }
    assert may_cost.isdisjoint(NEVER_BILLED)
    assert set(NEVER_BILLED) <= set(below(CallError))


def test_a_fault_that_repeating_cannot_mend_is_not_repeated() -> None:
    for kind in (
        errors.AuthenticationFailed,
        errors.OutOfCredit,
        errors.ModelGone,
        errors.BadRequest,
        errors.ContextTooLong,
    ):
        assert decision(instance(kind)) != "retry"


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for kind in below(TierwiseError):
        assert f"\u2500 {kind.__name__} " in drawn, kind.__name__


def test_the_page_of_batches_has_each_error_with_its_decision() -> None:
    page = (ROOT / "docs" / "batches.md").read_text(encoding="utf-8")
    for kind in below(BatchError):
        (row,) = [
            line for line in page.splitlines() if f"| `{kind.__name__}` |" in line
        ]
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[3] == f"`{batch_decision(instance(kind))}`", kind
        assert (cells[4] == "no") == (kind in NEVER_BILLED), kind
