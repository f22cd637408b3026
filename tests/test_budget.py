"""What a plan reckons with: whatever calls do, and in whatever order they end, no more is spent than there is."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from tierwise.errors import BudgetExceeded, Misuse
from tierwise.policy.budget import Budget

amounts = st.decimals(min_value=0, max_value=2, places=9)


class Calls(RuleBasedStateMachine):
    """Calls that reserve, then end in any order at no more than what they reserved."""

    open_calls = Bundle("open_calls")

    @initialize(limit=st.none() | st.decimals(min_value=0, max_value=3, places=9))
    def start(self, limit: Decimal | None) -> None:
        self.budget, self.limit = Budget(limit), limit
        self.open = self.paid = Decimal(0)

    @rule(target=open_calls, worst=amounts)
    def reserve(self, worst: Decimal) -> Any:
        fits = self.limit is None or self.paid + self.open + worst <= self.limit
        try:
            reservation = self.budget.reserve(worst)
        except BudgetExceeded:
            assert not fits, "refused although it fits"
            return Decimal(0), Decimal(0)
        assert fits, "let through although it does not fit"
        self.open += worst
        return reservation, worst

    @rule(target=open_calls)
    def reserve_unpriced(self) -> Any:
        return self.budget.reserve(None, unpriced_allowed=True), Decimal(0)

    @rule()
    def unpriced_and_not_allowed(self) -> None:
        if self.limit is not None:
            with pytest.raises(BudgetExceeded, match="price is unknown"):
                self.budget.reserve(None)

    @rule(
        call=consumes(open_calls),
        share=st.none() | st.decimals(min_value=0, max_value=1, places=3),
    )
    def settle(self, call: tuple[Decimal, Decimal], share: Decimal | None) -> None:
        reservation, worst = call
        actual = None if share is None else worst * share
        self.budget.settle(reservation, actual)
        self.open -= worst
        # unknown counts as the worst case
        self.paid += worst if actual is None else actual

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert (self.budget.spent, self.budget.reserved) == (self.paid, self.open)
        if self.limit is None:
            assert self.budget.left is None
        else:
            assert self.budget.spent + self.budget.reserved <= self.limit
            assert self.budget.left == self.limit - self.paid - self.open
            assert 0 <= self.budget.used <= 1


TestCalls = Calls.TestCase


def test_a_refused_call_reserves_nothing_and_says_what_is_left() -> None:
    budget = Budget(Decimal("0.5"))
    with pytest.raises(
        BudgetExceeded, match=r"may cost 0\.600000 USD, the budget has 0\.500000 left"
    ):
        budget.reserve(Decimal("0.6"))
    assert budget.left == Decimal("0.5")


def test_the_last_cent_can_be_spent() -> None:
    budget = Budget(Decimal("0.3"))
    for _ in range(3):
        budget.settle(budget.reserve(Decimal("0.1")), Decimal("0.1"))
    assert (budget.left, budget.used) == (0, 1.0)


def test_a_call_that_cost_more_than_was_thought_leaves_less_for_the_next() -> None:
    budget = Budget(Decimal(1))
    budget.settle(budget.reserve(Decimal("0.5")), Decimal("1.2"))
    assert budget.left == Decimal("-0.2")
    with pytest.raises(BudgetExceeded):
        budget.reserve(Decimal(0))


def test_a_budget_of_zero_is_used_up_and_still_allows_what_is_free() -> None:
    budget = Budget(Decimal(0))
    assert budget.used == 1.0
    assert budget.reserve(Decimal(0)) == 0
    with pytest.raises(BudgetExceeded):
        budget.reserve(Decimal("0.000001"))


def test_without_a_limit_everything_is_counted_and_nothing_refused() -> None:
    budget = Budget(None)
    budget.settle(budget.reserve(None), Decimal(7))
    budget.settle(budget.reserve(Decimal(5)), None)
    assert (budget.spent, budget.left, budget.used) == (12, None, 0.0)


@pytest.mark.parametrize("limit", ["-1", "-0.01", "NaN", "Infinity", "-Infinity"])
def test_a_limit_that_is_no_amount_of_money_is_refused(limit: str) -> None:
    with pytest.raises(Misuse, match="a budget is 0 USD or more"):
        Budget(Decimal(limit))
