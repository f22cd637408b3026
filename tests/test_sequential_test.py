"""Audits: evidence that may be looked at after every label, and an alarm that comes soon and seldom falsely."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.errors import Misuse
from tierwise.policy.certificates import lower_bound
from tierwise.policy.sequential_test import Evidence, demotion, update

FLOORS = st.floats(0.02, 0.98)
COUNTS = st.integers(0, 5_000)


def after(labels: Iterable[bool], floor: float = 0.9) -> Evidence:
    evidence = Evidence(floor=floor)
    for passed in labels:
        evidence = update(evidence, bool(passed))
    return evidence


def first_alarm(labels: Iterable[bool], floor: float = 0.9) -> int | None:
    """How many labels `demotion` needed, looked at after each."""
    evidence = Evidence(floor=floor)
    for passed in labels:
        evidence = update(evidence, bool(passed))
        if demotion(evidence):
            return evidence.n
    return None


def fewest_passes(n: int, floor: float) -> int:
    """The fewest passes among n labels that certify; n + 1 when none do."""
    low, high = -1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        certifies = Evidence(floor=floor, passed=middle, failed=n - middle).certifies()
        low, high = (low, middle) if certifies else (middle, high)
    return high


def most_passes(n: int, floor: float) -> int:
    """The most passes among n labels that refute; -1 when none do."""
    low, high = -1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        refutes = Evidence(floor=floor, passed=middle, failed=n - middle).refutes()
        low, high = (middle, high) if refutes else (low, middle)
    return low


def chance(rate: float, stops: list[np.ndarray]) -> float:
    """The exact chance that labels at this accuracy ever reach a stop, looked at after every label.

    `stops[n - 1]` says for each number of passes among n labels whether the test stops there.
    """
    going, stopped = np.array([1.0]), 0.0
    for stop in stops:
        going = np.append(going * (1 - rate), 0) + np.insert(going * rate, 0, 0)
        stopped += going[stop].sum()
        going[stop] = 0
    return float(stopped)


def certifying(floor: float, labels: int) -> list[np.ndarray]:
    return [np.arange(n + 1) >= fewest_passes(n, floor) for n in range(1, labels + 1)]


def refuting(floor: float, labels: int) -> list[np.ndarray]:
    return [np.arange(n + 1) <= most_passes(n, floor) for n in range(1, labels + 1)]


@pytest.mark.parametrize("floor", [0.5, 0.80, 0.90, 0.95])
def test_peeking_after_every_label_rarely_certifies_a_model_at_the_floor(
    floor: float,
) -> None:
    """With 2,000 looks at 2,000 labels exactly at the floor, the chance to certify it is at most 5 %."""
    assert 0.03 < chance(floor, certifying(floor, 2_000)) <= 0.05


@pytest.mark.parametrize("floor", [0.5, 0.80, 0.90, 0.95])
def test_peeking_after_every_label_rarely_refutes_a_model_at_the_floor(
    floor: float,
) -> None:
    assert 0.03 < chance(floor, refuting(floor, 2_000)) <= 0.05


def test_peeking_at_the_bound_of_a_golden_set_would_not_be_safe() -> None:
    """Why audits need evidence of their own: that bound holds for one look at a number of labels fixed before."""
    looks = [
        np.array([lower_bound(errors, n) >= 0.9 for errors in range(n, -1, -1)])
        for n in range(1, 301)
    ]
    assert chance(0.9, looks) > 0.1


@pytest.mark.parametrize(("rate", "labels"), [(1.0, 50), (0.97, 120), (0.95, 200)])
def test_a_capable_model_is_certified_soon(rate: float, labels: int) -> None:
    """Half of all runs at this accuracy certify the floor 0.90 within so many labels."""
    assert chance(rate, certifying(0.9, labels)) >= 0.5


def test_a_drop_is_caught_within_150_audits_at_the_median() -> None:
    """From 0.95 to 0.80 after 300 good audits, with the floor 0.90."""
    random = np.random.default_rng(4)
    delays = []
    for _ in range(300):
        good, bad = random.random(300) < 0.95, random.random(1_000) < 0.80
        alarm = first_alarm([*good, *bad])
        assert alarm is not None
        delays.append(alarm - 300)
    assert sum(delay <= 0 for delay in delays) <= 3
    assert median(delays) <= 150


@pytest.mark.parametrize(("rate", "most"), [(0.95, 0.005), (0.90, 0.05)])
def test_false_alarms_are_rare_over_a_thousand_audits(rate: float, most: float) -> None:
    """With the floor 0.90: nearly none at 0.95, and at most 5 % exactly at the floor."""
    random = np.random.default_rng(5)
    alarms = [first_alarm(random.random(1_000) < rate) is not None for _ in range(200)]
    assert sum(alarms) / len(alarms) <= most


@given(floor=FLOORS, passed=st.integers(0, 200), failed=st.integers(0, 200))
def test_at_the_floor_no_bet_gains_on_average(
    floor: float, passed: int, failed: int
) -> None:
    """The expected capital after one more label at the floor is the capital before it."""
    now = Evidence(floor=floor, passed=passed, failed=failed)
    won, lost = update(now, True), update(now, False)
    for side in ("log_for", "log_against"):
        expected = floor * math.exp(getattr(won, side)) + (1 - floor) * math.exp(
            getattr(lost, side)
        )
        assert math.isclose(expected, math.exp(getattr(now, side)), rel_tol=1e-9)


@given(floor=FLOORS, labels=st.lists(st.booleans(), max_size=60))
def test_at_the_floor_the_detector_gains_only_the_unit_that_is_staked(
    floor: float, labels: list[bool]
) -> None:
    now = after(labels, floor)
    won, lost = update(now, True), update(now, False)
    expected = floor * math.exp(won.log_drop) + (1 - floor) * math.exp(lost.log_drop)
    assert math.isclose(expected, math.exp(now.log_drop) + 1, rel_tol=1e-9)


@given(floor=FLOORS, passed=COUNTS, failed=COUNTS)
def test_a_pass_never_speaks_against_and_a_failure_never_for(
    floor: float, passed: int, failed: int
) -> None:
    now = Evidence(floor=floor, passed=passed, failed=failed)
    won, lost = update(now, True), update(now, False)
    assert won.log_for > now.log_for > lost.log_for
    assert won.log_against < now.log_against < lost.log_against
    assert won.log_drop <= lost.log_drop


def test_no_labels_say_nothing() -> None:
    evidence = Evidence(floor=0.9)
    assert evidence.log_for == evidence.log_against == evidence.log_drop == 0
    assert not any(
        [
            evidence.certifies(),
            evidence.refutes(),
            evidence.dropped(),
            demotion(evidence),
        ]
    )


@given(labels=st.lists(st.booleans(), max_size=60))
def test_evidence_survives_being_stored(labels: list[bool]) -> None:
    """Stored as JSON and read back, it goes on as if nothing had been."""
    kept = json.loads(json.dumps(asdict(after(labels))))
    read = Evidence(**{**kept, "staked": tuple(kept["staked"])})
    assert read == after(labels)
    assert read.n == len(labels)


def test_years_of_audits_stay_finite() -> None:
    """Neither endless passes nor endless failures overflow."""
    for label in (True, False):
        evidence = after([label] * 20_000)
        assert all(
            map(
                math.isfinite,
                (evidence.log_for, evidence.log_against, evidence.log_drop),
            )
        )


def test_a_model_that_was_never_capable_is_told_apart_from_one_that_dropped() -> None:
    assert (
        demotion(after([False] * 8))
        == "8 of 8 audits failed: the accuracy is below the floor of 0.9"
    )
    fell = demotion(after([True] * 500 + [False] * 12))
    assert (
        fell
        == "the accuracy fell below the floor of 0.9 (12 of 512 audits failed, most of them lately)"
    )


@pytest.mark.parametrize("floor", [0.0, 1.0, 1.2])
def test_a_floor_that_audits_cannot_reach_is_refused(floor: float) -> None:
    with pytest.raises(Misuse, match="between 0 and 1"):
        Evidence(floor=floor)
