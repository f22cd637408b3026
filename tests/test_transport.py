"""The transport of a call: online or in a batch, by the rules, the time left and past batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tierwise.cascade.steps_ahead import StepsAhead
from tierwise.policy.rules import Features, Rules
from tierwise.policy.transport import (
    ENOUGH_BATCHES,
    TransportChoice,
    TransportSetting,
    Turnaround,
    expected_turnaround,
    online_reserve,
    online_seconds,
    rescue_at,
    transport_for,
)

HOUR = 3600.0


@dataclass(frozen=True)
class Times:
    """What a catalog entry says of its batches."""

    expected_minutes: float = 60
    stores_days: float | None = 30


SETTINGS = st.sampled_from(["online", "batch", "auto"])
TURNAROUNDS = st.none() | st.builds(
    Turnaround.of,
    st.lists(st.floats(1, 24 * HOUR), min_size=1, max_size=30),
)
TIMES = st.builds(Times, st.floats(1, 1440))
LEFT = st.none() | st.floats(-HOUR, 100 * HOUR) | st.just(math.inf)


def choose(setting: TransportSetting = "auto", **given: Any) -> str:
    batch = given.pop("batch", Times())
    settings = {"time_left_s": 6 * HOUR, "steps_left": 1, **given}
    return transport_for(setting, batch, **settings).transport


# ---- the choice


@pytest.mark.parametrize(
    ("given", "transport"),
    [
        ({}, "batch"),
        ({"steps_left": 5}, "batch"),
        ({"steps_left": 6}, "online"),
        ({"time_left_s": None}, "online"),
        ({"time_left_s": math.inf}, "batch"),
        ({"time_left_s": HOUR}, "online"),
        ({"forbidden": "guard"}, "online"),
        ({"batch": None}, "online"),
        ({"setting": "online"}, "online"),
        ({"setting": "batch", "time_left_s": None}, "batch"),
        ({"setting": "batch", "time_left_s": HOUR, "steps_left": 9}, "batch"),
        ({"setting": "batch", "time_left_s": 30.0}, "online"),
        ({"setting": "batch", "time_left_s": -1.0}, "online"),
        ({"setting": "batch", "forbidden": "guard"}, "online"),
        ({"setting": "batch", "batch": None}, "online"),
    ],
)
def test_the_transport(given: dict[str, Any], transport: str) -> None:
    assert choose(**given) == transport


@given(
    setting=SETTINGS,
    times=st.none() | TIMES,
    left=LEFT,
    steps=st.integers(0, 12),
    turnaround=TURNAROUNDS,
    forbidden=st.none() | st.just("a guard"),
)
def test_a_batch_is_never_chosen_against_a_guard_or_a_deadline(
    setting: TransportSetting,
    times: Times | None,
    left: float | None,
    steps: int,
    turnaround: Turnaround | None,
    forbidden: str | None,
) -> None:
    choice = transport_for(
        setting,
        times,
        time_left_s=left,
        steps_left=steps,
        turnaround=turnaround,
        forbidden=forbidden,
    )
    assert isinstance(choice, TransportChoice)
    assert choice.reason
    if choice.transport == "online":
        return
    assert setting != "online"
    assert forbidden is None
    assert times is not None
    # What is missing can still be done online after it.
    assert left is None or left > online_reserve(steps)
    if setting == "auto":
        assert left is not None
        expected_s, _ = expected_turnaround(times, turnaround)
        assert left >= expected_s * max(1, steps)


@given(
    times=TIMES,
    left=st.floats(0, 100 * HOUR),
    more=st.floats(0, 100 * HOUR),
    steps=st.integers(1, 12),
    turnaround=TURNAROUNDS,
)
def test_more_time_and_fewer_steps_never_lead_away_from_a_batch(
    times: Times, left: float, more: float, steps: int, turnaround: Turnaround | None
) -> None:
    def chosen(time_left_s: float, steps_left: int) -> str:
        return choose(
            batch=times,
            time_left_s=time_left_s,
            steps_left=steps_left,
            turnaround=turnaround,
        )

    if chosen(left, steps) == "batch":
        assert chosen(left + more, steps) == "batch"
        assert chosen(left, steps - 1) == "batch"


# ---- how long batches take


def test_what_batches_took_counts_once_there_are_some() -> None:
    few = Turnaround.of([60.0] * (ENOUGH_BATCHES - 1))
    some = Turnaround.of([60.0] * ENOUGH_BATCHES)
    assert expected_turnaround(Times(), None)[0] == HOUR
    assert expected_turnaround(Times(), few)[0] == HOUR
    assert expected_turnaround(Times(), some)[0] == 60
    # Ten minutes left: enough for batches of a minute, and not for those of an hour.
    assert choose(time_left_s=600.0, turnaround=few) == "online"
    assert choose(time_left_s=600.0, turnaround=some) == "batch"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_nine_of_ten_batches_took_at_most_the_high_quantile(
    seconds: list[float],
) -> None:
    turnaround = Turnaround.of(seconds)
    assert turnaround is not None
    assert turnaround.batches == len(seconds)
    within = sum(each <= turnaround.high_s for each in seconds)
    assert within * 10 >= 9 * len(seconds)
    assert min(seconds) <= turnaround.median_s <= turnaround.high_s <= max(seconds)


def test_no_batch_has_no_turnaround() -> None:
    assert Turnaround.of([]) is None


# ---- a deadline in danger


@given(
    deadline=st.floats(1e9, 2e9),
    steps=st.integers(1, 12),
    items=st.integers(1, 100_000),
    latency=st.none() | st.floats(0.01, 600),
    concurrency=st.integers(1, 100),
)
def test_the_rest_fits_between_the_rescue_and_the_deadline(
    deadline: float, steps: int, items: int, latency: float | None, concurrency: int
) -> None:
    online_s = online_seconds(items, latency, concurrency)
    kept = deadline - rescue_at(deadline, steps, online_s)
    needed = steps * items * (latency or 0.0) / concurrency
    assert kept > 0
    assert kept >= needed * (1 - 1e-6)


# ---- the rules


def rules(*guards: dict[str, Any], **route: Any) -> Rules:
    return Rules.model_validate(
        {
            "version": 1,
            "guards": guards,
            "routes": [{"name": "all", "try": ["a"], **route}],
        }
    )


ONLINE_ONLY = {
    "name": "not-kept",
    "when": {"sensitivity_min": "confidential"},
    "allow_transports": ["online"],
}


def test_a_guard_keeps_documents_out_of_batches_and_of_no_tier() -> None:
    guarded = rules(ONLINE_ONLY)
    confidential = Features(step="draft", tokens=1, sensitivity="confidential")
    internal = Features(step="draft", tokens=1, sensitivity="internal")
    refusal = guarded.batch_forbidden(confidential, 30)
    assert refusal is not None
    assert "30 days" in refusal
    assert guarded.batch_forbidden(confidential, None)
    assert guarded.batch_forbidden(internal, 30) is None
    assert guarded.forbidden("anything", confidential) is None


def test_a_guard_may_forbid_tiers_and_batches_at_once() -> None:
    guard = {"name": "both", "allow_tiers": ["local"], "allow_transports": ["online"]}
    anything = Features(step="draft", tokens=1)
    assert rules(guard).batch_forbidden(anything, None)
    assert rules(guard).forbidden("proprietary", anything)
    assert rules(guard).forbidden("local", anything) is None


@pytest.mark.parametrize(
    "guard",
    [
        {"name": "g"},
        {"name": "g", "allow_transports": []},
        {"name": "g", "allow_transports": ["batch"]},
        {"name": "g", "allow_transports": ["post"]},
    ],
)
def test_a_guard_that_makes_no_sense_is_refused(guard: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rules(guard)


def test_transports_change_the_rules_hash_only_where_they_are_used() -> None:
    plain = {"name": "g", "allow_tiers": ["local"]}
    unused = rules(plain)
    assert "transport" not in str(unused.routes[0].model_dump(exclude_defaults=True))
    assert rules(plain, transport="batch").hash != unused.hash
    assert rules({**plain, "allow_transports": ["online"]}).hash != unused.hash


# ---- the steps that remain


def test_the_steps_that_remain_are_those_that_the_flow_named() -> None:
    steps = StepsAhead()
    assert steps.left_from("sort") == 1
    for name in ("sort", "sum up", "sort", "answer"):
        steps.note(name)
    assert [steps.left_from(name) for name in ("sort", "sum up", "answer")] == [3, 2, 1]
    assert steps.left_from("another") == 1
