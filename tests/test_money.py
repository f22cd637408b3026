"""Money in the ledger: whatever calls do, and in whatever order they end, no budget spends more than it holds."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from tests.kit.ledgers import REPLY, RUN, attempt, migrated_url, python, run
from tierwise.errors import BudgetExceeded, Misuse
from tierwise.ledger import Ledger
from tierwise.policy.budget import Limit, ReservationRequest, RunBudget

ONE = {"run 1": Decimal(1)}
numbers = itertools.count()


class Caller:
    """One call under some budgets: `await begin()`, then `await end(cost)`."""

    def __init__(
        self,
        ledger: Ledger,
        worst: str | Decimal | None,
        limits: dict[str, Decimal] = ONE,
    ) -> None:
        self.ledger, self.name = ledger, f"call-{next(numbers)}"
        usd = None if worst is None else Decimal(worst)
        self.reservation = ReservationRequest(id=self.name, usd=usd, limits=limits)

    async def begin(self, **how: Any) -> None:
        assert (
            await self.ledger.claim(self.name, reservation=self.reservation, **how)
            is None
        )

    async def end(self, cost: str | Decimal | None) -> None:
        usd = None if cost is None else Decimal(cost)
        await self.ledger.settle(
            RUN.id, attempt(id=self.name, call_hash=self.name, cost=usd), REPLY
        )


def standing(ledger: Ledger, name: str = "run 1") -> tuple[Decimal, Decimal]:
    """What is spent and reserved."""
    [state] = ledger.budgets.states([name])
    return state.spent, state.reserved


# ---- one budget


class Calls(RuleBasedStateMachine):
    """Calls of two runs, which share a day's limit, that reserve and end in any order at no more than they reserved."""

    open_calls = Bundle("open_calls")
    amounts = st.decimals(min_value=0, max_value=2, places=9)

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tierwise-test-"))
        self.ledger = Ledger.open(migrated_url("sqlite", self.folder), root=self.folder)
        self.ledger.start_run(RUN)
        self.runner = asyncio.Runner()

    def teardown(self) -> None:
        self.ledger.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    @initialize(one=amounts, two=amounts, day=amounts)
    def start(self, one: Decimal, two: Decimal, day: Decimal) -> None:
        self.limits = {"run 1": one, "run 2": two, "day": day}
        self.spent = dict.fromkeys(self.limits, Decimal(0))
        self.open = dict.fromkeys(self.limits, Decimal(0))

    @rule(target=open_calls, number=st.sampled_from("12"), worst=amounts)
    def reserve(self, number: str, worst: Decimal) -> Caller | None:
        limits = {name: self.limits[name] for name in (f"run {number}", "day")}
        call = Caller(self.ledger, worst, limits)
        if any(self.spent[name] + worst > usd for name, usd in limits.items()):
            with pytest.raises(BudgetExceeded):
                self.runner.run(call.begin())
            return None
        if any(
            self.spent[name] + self.open[name] + worst > usd
            for name, usd in limits.items()
        ):
            return None  # it would wait
        self.runner.run(call.begin())
        for name in limits:
            self.open[name] += worst
        return call

    @rule(
        call=consumes(open_calls),
        share=st.none() | st.decimals(min_value=0, max_value=1, places=3),
    )
    def settle(self, call: Caller | None, share: Decimal | None) -> None:
        if call is None or call.reservation.usd is None:
            return
        actual = (
            None
            if share is None
            else (call.reservation.usd * share).quantize(Decimal("1e-9"))
        )
        self.runner.run(call.end(actual))
        for name in call.reservation.limits:
            self.open[name] -= call.reservation.usd
            self.spent[name] += (
                call.reservation.usd if actual is None else actual
            )  # unknown counts as the worst case

    @rule(call=consumes(open_calls))
    def give_up(self, call: Caller | None) -> None:
        if call is None or call.reservation.usd is None:
            return
        self.runner.run(self.ledger.release(call.name))
        for name in call.reservation.limits:
            self.open[name] -= call.reservation.usd

    @invariant()
    def the_ledger_agrees(self) -> None:
        for state in self.ledger.budgets.states():
            assert (state.spent, state.reserved) == (
                self.spent[state.name],
                self.open[state.name],
            )
            assert (
                state.spent + state.reserved <= state.limit == self.limits[state.name]
            )


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_a_refused_call_reserves_nothing_and_says_which_budget_is_short(
    ledger: Ledger,
) -> None:
    limits = {"run 1": Decimal(5), "day 2026-11-05": Decimal("0.5")}

    async def story() -> None:
        with pytest.raises(
            BudgetExceeded,
            match=r"may cost 0\.600000 USD, the budget 'day 2026-11-05' has 0\.500000 left",
        ) as caught:
            await Caller(ledger, "0.6", limits).begin()
        assert (caught.value.budget, caught.value.left) == (
            "day 2026-11-05",
            Decimal("0.5"),
        )
        await Caller(ledger, "0.5", limits).begin()

    run(story())
    assert standing(ledger) == (0, Decimal("0.5"))


def test_the_last_cent_can_be_spent_and_not_one_more(ledger: Ledger) -> None:
    async def story() -> None:
        for _ in range(3):
            call = Caller(ledger, "0.1", {"run 1": Decimal("0.3")})
            await call.begin()
            await call.end("0.1")
        with pytest.raises(BudgetExceeded):
            await Caller(ledger, "0.000000000001", {"run 1": Decimal("0.3")}).begin()

    run(story())


def test_a_worst_case_below_the_ledgers_last_place_is_rounded_up(
    ledger: Ledger,
) -> None:
    run(Caller(ledger, "0.0000000000001").begin())
    assert standing(ledger) == (0, Decimal("1e-12"))


def test_a_call_that_cost_more_than_was_thought_leaves_less_for_the_next(
    ledger: Ledger,
) -> None:
    async def story() -> None:
        call = Caller(ledger, "0.5")
        await call.begin()
        await call.end("1.2")
        with pytest.raises(BudgetExceeded, match=r"has -0\.2"):
            await Caller(ledger, 0).begin()

    run(story())


def test_a_budget_of_zero_allows_what_is_free(ledger: Ledger) -> None:
    async def story() -> None:
        await Caller(ledger, 0, {"run 1": Decimal(0)}).begin()
        with pytest.raises(BudgetExceeded):
            await Caller(ledger, "0.000001", {"run 1": Decimal(0)}).begin()

    run(story())


def test_a_call_of_unknown_price_is_refused_with_what_to_do(ledger: Ledger) -> None:
    with pytest.raises(
        BudgetExceeded, match=r"its price is unknown.*budget\.allow_unpriced"
    ):
        run(Caller(ledger, None).begin())


def test_a_reply_that_was_paid_before_is_had_without_money(ledger: Ledger) -> None:
    async def story() -> None:
        call = Caller(ledger, 1)
        await call.begin()
        await call.end(1)
        assert (
            await ledger.claim(call.name, reservation=Caller(ledger, 1).reservation)
        ) is not None

    run(story())


# ---- waiting for money


def test_a_call_waits_for_what_calls_under_way_give_back(
    ledger: Ledger, other: Ledger
) -> None:
    """What is reserved is mostly not spent: a call is refused only when it could not be paid even then."""

    async def story() -> None:
        first = Caller(ledger, "0.8")
        await first.begin()
        waiting = [
            asyncio.create_task(Caller(where, "0.4").begin())
            for where in (ledger, other)
        ]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in waiting)
        await first.end("0.1")
        await asyncio.gather(*waiting)

    run(story())
    assert standing(ledger) == (Decimal("0.1"), Decimal("0.8"))


def test_those_who_wait_for_money_are_refused_when_it_is_spent(ledger: Ledger) -> None:
    async def story() -> list[Any]:
        first = Caller(ledger, "0.8")
        await first.begin()
        waiting = [
            asyncio.create_task(Caller(ledger, "0.4").begin()) for _ in range(20)
        ]
        await asyncio.sleep(0.05)
        await first.end("0.7")
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert {type(result) for result in run(story())} == {BudgetExceeded}


def test_a_cancelled_call_gives_its_money_back(ledger: Ledger) -> None:
    """The cancelled task may have been granted it before it heard of its end."""

    async def story() -> None:
        for _ in range(3):
            task = asyncio.create_task(Caller(ledger, 1).begin())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await Caller(ledger, 1).begin()

    run(story())
    assert standing(ledger) == (0, 1)


# ---- what the dead leave behind


def test_what_a_killed_process_had_reserved_counts_as_spent(
    url: str, ledger: Ledger, tmp_path: Path
) -> None:
    """Nobody knows what its call cost. On this machine others see at once that it is dead."""
    code = """
        import asyncio, pathlib, sys, time
        from decimal import Decimal
        from tierwise.policy.budget import ReservationRequest
        from tierwise.ledger import Ledger
        ledger = Ledger.open(sys.argv[1], root=pathlib.Path(sys.argv[2]))
        request = ReservationRequest(id="dead", usd=Decimal("0.6"), limits={"run 1": Decimal(1)})
        asyncio.run(ledger.claim("dead", reservation=request))
        print("reserved", flush=True)
        time.sleep(60)
    """
    process = python(code, url, str(tmp_path))
    assert process.stdout
    assert process.stdout.readline() == "reserved\n"
    process.kill()
    process.communicate()
    run(Caller(ledger, "0.4").begin())
    with pytest.raises(BudgetExceeded, match=r"has 0\.400000 left"):
        run(Caller(ledger, "0.5").begin(), seconds=10)
    assert standing(ledger) == (Decimal("0.6"), Decimal("0.4"))
    assert [change.kind for change in ledger.budgets.history("run 1")] == [
        "reserved",
        "reserved",
        "lost",
    ]


def test_elsewhere_a_reservation_is_lost_when_its_lease_is_over(
    ledger: Ledger, other: Ledger
) -> None:
    async def story() -> None:
        await Caller(other, "0.6").begin(owner="elsewhere", lease_s=0.2)
        with pytest.raises(BudgetExceeded, match=r"has 0\.400000 left"):
            await Caller(ledger, "0.5").begin()

    run(story())
    assert standing(ledger) == (Decimal("0.6"), 0)


def test_a_lease_is_renewed_for_as_long_as_the_call_takes(
    ledger: Ledger, other: Ledger
) -> None:
    async def story() -> None:
        call = Caller(ledger, "0.6")
        await call.begin(lease_s=0.3)
        with ledger.kept(call.name):
            waiting = asyncio.create_task(other.claim(call.name))
            await asyncio.sleep(1)
            assert not waiting.done()
            await call.end("0.1")
        assert await waiting is not None

    run(story())
    assert standing(ledger) == (Decimal("0.1"), 0)


def test_closing_in_the_middle_of_a_call_counts_it_as_spent(
    ledger: Ledger, other: Ledger
) -> None:
    run(Caller(other, "0.6").begin())
    other.close()
    assert standing(ledger) == (Decimal("0.6"), 0)


# ---- on record


def test_every_change_is_on_record_with_how_the_budget_stood_after_it(
    ledger: Ledger,
) -> None:
    async def story() -> None:
        first, second = Caller(ledger, "0.4"), Caller(ledger, "0.5")
        await first.begin()
        await second.begin()
        await first.end("0.3")
        await second.end(None)

    run(story())
    ledger.budgets.top_up("run 1", Decimal(2), "the boss said so")
    history = [
        (c.kind, c.usd, c.spent, c.reserved, c.limit)
        for c in ledger.budgets.history("run 1")
    ]
    four, five, nine, three, eight = (Decimal(n) / 10 for n in (4, 5, 9, 3, 8))
    assert history == [
        ("reserved", four, 0, four, 1),
        ("reserved", five, 0, nine, 1),
        ("settled", three, three, five, 1),
        ("settled", five, eight, 0, 1),
        ("granted", 2, eight, 0, 3),
    ]
    assert list(ledger.budgets.history("run 1"))[-1].note == "the boss said so"


def test_a_grant_holds_for_all_who_draw_on_the_budget(
    ledger: Ledger, other: Ledger
) -> None:
    other.budgets.top_up("run 1", Decimal("0.5"))
    run(Caller(ledger, "1.5").begin())


def test_a_settlement_and_its_attempt_are_written_together_or_not_at_all(
    ledger: Ledger,
) -> None:
    call = Caller(ledger, "0.5")

    async def story() -> None:
        await call.begin()
        with pytest.raises(Exception, match="cannot be written"):
            await ledger.settle(
                "no-such-run",
                attempt(id=call.name, call_hash=call.name, cost=Decimal(0)),
                REPLY,
            )

    run(story())
    assert standing(ledger) == (0, Decimal("0.5"))


# ---- limits and what a run sees of them


@pytest.mark.parametrize("usd", ["-1", "-0.01", "NaN", "Infinity", "-Infinity"])
def test_a_limit_that_is_no_amount_of_money_is_refused(usd: str) -> None:
    with pytest.raises(Misuse, match="a budget is 0 USD or more"):
        Limit("run 1", Decimal(usd))


def test_days_and_months_are_utc() -> None:
    new_years_eve = 1798761599.5  # 2026-12-31 23:59:59.5
    one = Decimal(1)
    assert Limit("", one, "day").name(new_years_eve) == "day 2026-12-31"
    assert Limit("", one, "day").name(new_years_eve + 1) == "day 2027-01-01"
    assert (
        Limit("team=claims", one, "month").name(new_years_eve + 1)
        == "month 2027-01 team=claims"
    )
    assert Limit("run 1", one).name(0) == "run 1"


def test_a_run_sees_its_tightest_limit(ledger: Ledger) -> None:
    day = Limit("", Decimal(1), "day")
    run(Caller(ledger, "0.6", {day.name(time.time()): day.usd}).begin())
    budget = ledger.run_budget([Limit("run 2", Decimal(2)), day])
    assert (budget.left, budget.used) == (1, 0.6)
    assert ledger.run_budget([Limit("run 3", Decimal(0))]).used == 1.0


def test_a_limit_that_was_changed_in_the_rules_holds_at_once_with_what_was_granted(
    ledger: Ledger,
) -> None:
    run(Caller(ledger, "0.6", {"run 1": Decimal(1)}).begin())
    ledger.budgets.top_up("run 1", Decimal(2))
    [state] = ledger.run_budget([Limit("run 1", Decimal(5))]).states()
    assert (state.limit, state.granted, state.reserved) == (7, 2, Decimal("0.6"))


def test_a_run_without_limits_asks_for_no_money_and_writes_none_down(
    ledger: Ledger,
) -> None:
    budget = ledger.run_budget([])
    assert (budget.left, budget.used) == (None, 0.0)
    assert budget.reservation("a", Decimal(1)) is None
    run(ledger.claim("call", reservation=None))
    assert ledger.budgets.states() == []


def test_what_is_free_asks_for_nothing_and_what_is_unpriced_and_allowed_for_0() -> None:
    run_budget = RunBudget([Limit("run 1", Decimal(1))])
    assert run_budget.reservation("a", Decimal(0)) is None
    # An entry of 0, so that a price that is filled in later finds its budgets.
    allowed = run_budget.reservation("a", None, unpriced_allowed=True)
    assert allowed is not None
    assert allowed.usd == 0
    barred = run_budget.reservation("a", None)
    assert barred is not None
    assert barred.usd is None
