"""What a model is asked for at once and a minute, and how it cools down when it keeps failing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.ledgers import run
from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import Request, Standin, status, unused_address
from tests.kit.steps import GOOD, TEXT, classify, kinds
from tierwise.cascade.attempts import Attempts
from tierwise.cascade.circuit import (
    COOLDOWN_SHARE,
    FAULTS_TO_OPEN,
    LONGEST_COOLDOWN_S,
    LONGEST_RETRY_AFTER_S,
    SHORTEST_COOLDOWN_S,
    Circuit,
)
from tierwise.cascade.outages import OutagePatience
from tierwise.cascade.rate_limits import MINUTE_S, ModelLimits, PerMinute
from tierwise.engine import Engine
from tierwise.errors import BadRequest, CallError, CoolingDown, RateLimited, ServerFault
from tierwise.policy.catalog import Model
from tierwise.project import Project
from tierwise.records import Document, Usage

ALONE = RULES.replace("[small, large]", "[small]")


def limits(**settings: object) -> ModelLimits:
    return ModelLimits(named("small", **settings))


def named(name: str, **settings: object) -> Model:
    usual = {
        "name": name,
        "tier": "local",
        "context_tokens": 8000,
        "max_output_tokens": 100,
        "strength": 1,
    }
    return Model.model_validate({**usual, "price": "unknown", **settings})


def fault(
    kind: type[CallError] = ServerFault, retry_after: float | None = None
) -> CallError:
    return kind("it failed", model="small", retry_after=retry_after)


@pytest.fixture
def small() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(GOOD)
        yield server


def documents(number: int) -> list[Document]:
    return [
        Document(id=str(n), text=f"{TEXT} Number {n}.", sensitivity="internal")
        for n in range(number)
    ]


# ---- so much a minute


@given(
    most=st.integers(1, 50),
    calls=st.lists(
        st.tuples(st.floats(0, 40), st.integers(1, 60), st.none() | st.integers(0, 60)),
        max_size=30,
    ),
)
def test_no_60_seconds_ever_hold_more_than_a_minute_may(
    most: int, calls: list[tuple[float, int, int | None]]
) -> None:
    """Whatever comes when, and though it turns out to have been less; more than a minute holds goes alone."""
    meter, now, taken = PerMinute(most), 0.0, []
    for pause, amount, truth in calls:
        now += pause
        while (wait := meter.wait(amount, now)) > 0:
            now += wait
        mine = meter.take(amount, now)
        taken.append(mine)
        within = sum(t.amount for t in taken if t.at + MINUTE_S > now)
        assert within <= most or within == amount
        if truth is not None and truth <= amount:
            meter.correct(mine, truth)


def test_what_fits_does_not_wait() -> None:
    meter = PerMinute(3)
    for now in (0.0, 1.0, 2.0):
        assert meter.wait(1, now) == 0
        meter.take(1, now)
    assert meter.wait(1, 10) == 50
    assert meter.wait(2, 10) == 51
    assert meter.wait(1, 60) == 0


def test_tokens_that_were_not_used_are_there_for_others() -> None:
    async def story() -> None:
        model = limits(tokens_per_minute=1000)
        permit = await model.rate_permit(900)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.rate_permit(900), 0.05)
        permit.succeeded(Usage(80, 20))
        await model.rate_permit(900)

    run(story())


def test_a_minutes_requests_are_held_to() -> None:
    async def story() -> None:
        model = limits(requests_per_minute=2)
        await model.rate_permit(1)
        await model.rate_permit(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.rate_permit(1), 0.05)

    run(story())


# ---- so many at once


def test_entries_that_share_weights_share_the_calls_at_once() -> None:
    """They are one embedded server, which answers as many calls as its largest entry says."""

    async def story() -> None:
        weights = {"file": "/models/qwen.gguf"}
        attempts = Attempts(cast("Any", None), cast("Any", None))
        plain = attempts.limits(named("plain", weights=weights, concurrency=2))
        taught = attempts.limits(named("taught", weights=weights, concurrency=3))
        other = attempts.limits(named("other", weights={"file": "/models/b.gguf"}))
        alone = attempts.limits(named("alone"))
        async with (
            plain.in_flight_permit(),
            plain.in_flight_permit(),
            taught.in_flight_permit(),
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), taught.in_flight_permit():
                    pass
            # a wait that was given up has taken nothing from the others
            async with other.in_flight_permit(), alone.in_flight_permit():
                pass
        async with (
            taught.in_flight_permit(),
            taught.in_flight_permit(),
            taught.in_flight_permit(),
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), plain.in_flight_permit():
                    pass
        async with plain.in_flight_permit(), plain.in_flight_permit():
            pass

    run(story())


def test_a_429_halves_how_many_go_at_once_and_a_round_of_successes_adds_one() -> None:
    circuit = Circuit(8, 8).after_fault(fault(RateLimited), begun=0, now=1)
    assert circuit.concurrency_limit == 4
    for width in (5, 6):
        for _ in range(circuit.concurrency_limit):
            circuit = circuit.after_success(begun=2)
        assert circuit.concurrency_limit == width


def test_many_429s_of_one_moment_count_once() -> None:
    circuit = Circuit(8, 8)
    # all began before the first came back
    for now in (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7):
        circuit = circuit.after_fault(fault(RateLimited), begun=0.5, now=now)
    assert (circuit.concurrency_limit, circuit.faults) == (4, 1)
    assert (
        circuit.after_fault(fault(RateLimited), begun=2, now=3).concurrency_limit == 2
    )


@given(st.lists(st.booleans(), max_size=200))
def test_there_is_always_one_slot_and_never_more_than_the_catalog_says(
    outcomes: list[bool],
) -> None:
    circuit = Circuit(6, 6)
    for now, good in enumerate(outcomes):
        circuit = (
            circuit.after_success(now)
            if good
            else circuit.after_fault(fault(RateLimited), begun=now, now=now)
        )
        assert 1 <= circuit.concurrency_limit <= 6


@pytest.mark.parametrize(("concurrency", "claimed"), [(1, 2), (4, 5), (128, 160)])
def test_no_more_is_claimed_than_a_quarter_ahead_of_what_goes_at_once(
    concurrency: int, claimed: int
) -> None:
    """A kill can make no more calls be paid again than are claimed."""

    async def run() -> int:
        model, there, most, all_in = (
            limits(concurrency=concurrency),
            0,
            0,
            asyncio.Event(),
        )

        async def claim() -> None:
            nonlocal there, most
            async with model.claim_permit():
                there += 1
                most = max(most, there)
                await all_in.wait()
                there -= 1

        tasks = [asyncio.create_task(claim()) for _ in range(2 * claimed)]
        for _ in range(4 * claimed):
            await asyncio.sleep(0)
        all_in.set()
        await asyncio.gather(*tasks)
        return most

    assert asyncio.run(run()) == claimed


def test_calls_wait_for_a_slot_when_there_are_fewer() -> None:
    async def story() -> int:
        model = limits(concurrency=4)
        (await model.rate_permit(1)).failed(fault(RateLimited))
        inside, most = 0, 0

        async def call() -> None:
            nonlocal inside, most
            async with model.in_flight_permit():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.01)
                inside -= 1

        await asyncio.gather(*(call() for _ in range(10)))
        return most

    assert run(story()) == 2


# ---- rests


def test_a_model_that_keeps_failing_rests_for_a_share_of_its_outage() -> None:
    """So work goes on soon after an outage ends, and a long one is not asked about all the time."""
    circuit, now = Circuit(8, 8), 1000.0
    cooldowns = {}
    for _ in range(FAULTS_TO_OPEN - 1):
        circuit = circuit.after_fault(fault(), begun=now, now=now)
        assert circuit.open_until <= now
    while now < 1000 + 3600:
        circuit = circuit.after_fault(fault(), begun=now, now=now)
        cooldowns[now - 1000] = circuit.open_until - now
        now = circuit.open_until
    assert list(cooldowns.values())[:4] == [SHORTEST_COOLDOWN_S] * 4
    assert max(cooldowns.values()) == LONGEST_COOLDOWN_S
    assert all(
        cooldown <= max(SHORTEST_COOLDOWN_S, COOLDOWN_SHARE * outage)
        for outage, cooldown in cooldowns.items()
    )
    assert len(cooldowns) < 30
    circuit = circuit.after_success(now).after_fault(fault(), begun=now, now=now)
    assert circuit.open_until <= now


def test_a_fault_that_shows_life_breaks_the_row() -> None:
    circuit = Circuit(8, 8)
    for _ in range(20):
        for kind in (ServerFault, ServerFault, BadRequest):
            circuit = circuit.after_fault(fault(kind), begun=0, now=0)
    assert circuit.open_until < 0


def test_slow_faults_of_a_model_that_answers_younger_calls_are_no_reason_to_rest() -> (
    None
):
    """Time-outs come late and together: when they come, the model may long be well."""
    circuit = Circuit(8, 8).after_success(begun=10)
    for _ in range(20):
        circuit = circuit.after_fault(fault(), begun=9, now=40)
    assert (circuit.faults, circuit.open_until < 0) == (0, True)


def test_a_short_wait_that_a_server_asks_for_is_waited_and_a_long_one_is_a_rest() -> (
    None
):
    short = Circuit(8, 8).after_fault(fault(RateLimited, 7), begun=0, now=100)
    assert (short.not_before, short.open_until < 0) == (107, True)
    long = Circuit(8, 8).after_fault(fault(RateLimited, 90), begun=0, now=100)
    assert (long.not_before < 0, long.open_until) == (True, 190)
    endless = Circuit(8, 8).after_fault(fault(RateLimited, 1e9), begun=0, now=100)
    assert endless.open_until == 100 + LONGEST_RETRY_AFTER_S


def test_a_resting_model_is_not_asked_and_says_for_how_long() -> None:
    async def story() -> None:
        model = limits()
        (await model.rate_permit(1)).failed(fault(RateLimited, 90))
        with pytest.raises(
            CoolingDown, match=r"small: circuit open for another \d\d s"
        ) as caught:
            await model.rate_permit(1)
        assert 80 < (caught.value.retry_after or 0) <= 90
        refusal = caught.value
        impatient = OutagePatience(60, None, "wait")
        reason = await model.wait_until_ready(impatient, refusal)
        assert reason == "out for 0 s, the patience is 60 s"
        model.circuit = replace(model.circuit, open_until=time.monotonic() + 0.05)
        assert await model.wait_until_ready(impatient, refusal) is None
        await model.rate_permit(1)

    run(story())


# ---- through the socket


def test_the_wait_that_one_call_was_asked_for_holds_for_the_others(
    tmp_path: Path, small: Standin
) -> None:
    came: list[float] = []

    def answer(request: Request) -> str:
        came.append(time.monotonic())
        return GOOD

    small.answer(answer)
    small.faults([status(429, retry_after=1)])
    root = make_project(
        tmp_path, model("small", small.url) + "    concurrency: 1\n", rules=ALONE
    )
    with Engine(Project(root), env={}) as engine:
        begun = time.monotonic()
        outcomes = classify(engine, *documents(3))
    assert [outcome.status for outcome in outcomes] == ["accepted"] * 3
    assert min(came) - begun >= 1


def test_the_documents_of_a_model_that_keeps_failing_take_the_next_one_at_once(
    tmp_path: Path, small: Standin
) -> None:
    with Standin() as large:
        large.answer(GOOD)
        small.faults([status(503, retry_after=0)] * 100)
        root = make_project(
            tmp_path,
            model("small", small.url) + "    concurrency: 1\n",
            model("large", large.url, strength=20),
        )
        with Engine(Project(root), env={}) as engine:
            outcomes = classify(engine, *documents(12))
    assert {(outcome.status, outcome.model) for outcome in outcomes} == {
        ("accepted", "large")
    }
    assert small.count == FAULTS_TO_OPEN
    assert (large.count, sum(len(o.attempts) for o in outcomes)) == (
        12,
        12 + FAULTS_TO_OPEN,
    )


def test_where_nothing_else_is_left_a_long_rest_defers_with_the_reason(
    tmp_path: Path, small: Standin
) -> None:
    small.faults([status(503, retry_after=600)])
    root = make_project(tmp_path, model("small", small.url), rules=ALONE)
    with Engine(Project(root), env={}) as engine:
        [outcome] = classify(engine, documents(1)[0])
        [later] = classify(engine, documents(2)[1])
    assert (outcome.status, later.status) == ("deferred", "deferred")
    assert "small: the provider has no capacity now (503) at 127.0.0.1" in later.reason
    assert "not tried for this document" in later.reason
    assert later.cause == "outage"
    assert kinds(outcome) == [("small", "first", "Overloaded")]
    assert (small.count, later.attempts) == (1, ())


def test_who_waits_for_a_model_that_turns_out_to_be_out_of_order_does_not_ask_it(
    tmp_path: Path, small: Standin
) -> None:
    with Standin() as large:
        large.answer(GOOD)
        small.faults([status(401)] * 100)
        root = make_project(
            tmp_path,
            model("small", small.url) + "    concurrency: 2\n",
            model("large", large.url),
        )
        with Engine(Project(root), env={}) as engine:
            outcomes = classify(engine, *documents(20))
    assert {(outcome.status, outcome.model) for outcome in outcomes} == {
        ("accepted", "large")
    }
    assert small.count <= 2


def test_what_was_paid_before_is_had_while_the_model_rests(
    tmp_path: Path, small: Standin
) -> None:
    root = make_project(tmp_path, model("small", small.url), rules=ALONE)
    with Engine(Project(root), env={}) as engine:
        known, new = documents(2)
        classify(engine, known)
        small.faults([status(429, retry_after=600)])
        classify(engine, new)
        [again] = classify(engine, known)
    assert (again.status, again.attempts[0].reused) == ("accepted", True)


def test_a_server_that_is_gone_is_left_alone_after_a_few_tries(
    tmp_path: Path, small: Standin
) -> None:
    root = make_project(
        tmp_path,
        model("small", unused_address()) + "    concurrency: 2\n",
        model("large", small.url),
    )
    with Engine(Project(root), env={}) as engine:
        outcomes = classify(engine, *documents(20))
    assert all((o.status, o.model) == ("accepted", "large") for o in outcomes)
    assert (
        sum(a.error == "Unreachable" for o in outcomes for a in o.attempts)
        <= FAULTS_TO_OPEN + 1
    )
