"""Thresholds in a fixed order: with all labels, and at most a share alpha of wrong certificates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tierwise.evidence.certify.levels import Level, alpha_of_look, share_level
from tierwise.evidence.certify.thresholds import (
    AtThreshold,
    Foretold,
    log_wealth,
    most_errors,
    p_value,
    starts_for,
    widest_along,
    widest_shown,
)
from tierwise.policy.certificates import ALPHA


def thresholds_with(*counts: tuple[int, int]) -> list[AtThreshold]:
    """Thresholds, the strictest first, with what each keeps and how much of it is wrong."""
    return [
        AtThreshold(1 - place / 100, n, errors)
        for place, (n, errors) in enumerate(counts)
    ]


def test_a_walk_goes_on_to_wider_thresholds_until_one_fails() -> None:
    """The last one passes again, but nothing beyond a failure is shown."""
    found = thresholds_with((60, 0), (100, 1), (200, 60), (1_000, 1))
    assert widest_shown(found, (0,), 0.9, 0.05) == 1
    assert widest_shown(found, (3,), 0.9, 0.05) == 3


def test_a_walk_that_begins_too_strictly_shows_nothing_and_the_other_one_does() -> None:
    found = thresholds_with((10, 0), (60, 0), (100, 1))
    assert widest_shown(found, (0,), 0.9, 0.05) is None
    assert widest_shown(found, (0, 1), 0.9, 0.05) == 2


def test_where_two_walks_meet_their_shares_of_the_level_add_up() -> None:
    """30 right of 30 have a chance of .042: too much for half of .05, not for all of it."""
    last = (30, 0)
    assert widest_shown(thresholds_with((60, 0), last), (1,), 0.9, 0.025) is None
    assert widest_shown(thresholds_with((60, 0), last), (0, 1), 0.9, 0.05) == 1


@given(
    counts=st.lists(
        st.tuples(st.integers(1, 300), st.floats(0, 0.5)), min_size=1, max_size=8
    ),
    starts=st.lists(st.integers(0, 7), min_size=1, max_size=2),
    level=st.floats(0.001, 0.2),
)
def test_nothing_is_shown_that_its_own_exact_test_at_the_full_level_does_not_show(
    counts: list[tuple[int, float]], starts: list[int], level: float
) -> None:
    found = [AtThreshold(0.5, n, int(n * rate)) for n, rate in counts]
    places = [start % len(found) for start in starts]
    shown = widest_shown(found, places, 0.9, level)
    if shown is not None:
        assert p_value(found[shown], 0.9) <= level * (1 + 1e-9)
    lenient = widest_shown(found, places, 0.8, level)
    assert shown is None or (lenient is not None and lenient >= shown)


@given(
    n=st.integers(0, 2_000),
    floor=st.floats(0.05, 0.99),
    level=st.floats(1e-5, 0.3),
)
def test_the_most_errors_are_those_of_the_exact_test(
    n: int, floor: float, level: float
) -> None:
    most = most_errors(n, floor, level)
    if most is None:
        assert n == 0 or binom.cdf(0, n, 1 - floor) > level
        return
    assert p_value(AtThreshold(None, n, most), floor) <= level
    assert most == n or p_value(AtThreshold(None, n, most + 1), floor) > level


def test_the_walks_begin_where_a_certificate_is_surest_and_where_it_brings_most() -> (
    None
):
    foretold = [
        Foretold(0.99, coverage=0.05, accuracy=1.0),  # too few items to show anything
        Foretold(0.90, coverage=0.40, accuracy=0.99),
        Foretold(0.70, coverage=0.70, accuracy=0.955),
        Foretold(None, coverage=1.00, accuracy=0.85),
    ]
    assert starts_for(foretold, 400, 0.9, 0.05) == (1, 2)


def test_a_false_threshold_is_shown_in_at_most_a_share_alpha_of_golden_sets() -> None:
    """Exactly: the first threshold that misses the floor is the one test that can go wrong."""
    floor = 0.9
    level = 0.05
    too_low = 0.899  # the accuracy of what the second threshold keeps besides
    chance = 0.0
    for errors_first in range(101):
        for errors_more in range(101):
            found = thresholds_with(
                (100, errors_first), (200, errors_first + errors_more)
            )
            if widest_shown(found, (0, 1), floor, level) == 1:
                chance += binom.pmf(errors_first, 100, 1 - too_low) * binom.pmf(
                    errors_more, 100, 1 - too_low
                )
    assert 0.005 < chance <= level


def test_the_wealth_is_worth_one_on_average_where_the_accuracy_is_just_the_floor() -> (
    None
):
    """Which is what makes 1 / level rare, by Markov's inequality."""
    for n in (1, 10, 200):
        mean = sum(
            binom.pmf(errors, n, 0.1) * math.exp(log_wealth(errors, n, 0.9))
            for errors in range(n + 1)
        )
        assert mean == pytest.approx(1)


def test_the_surest_answers_are_kept_down_to_the_lowest_confidence_that_shows_the_floor() -> (
    None
):
    confidences = [0.95] * 120 + [0.4] * 30
    right = [True] * 120 + [False] * 30
    assert widest_along(confidences, right, 0.9, 0.05) == 0.95
    assert widest_along(confidences[:30], right[:30], 0.9, 0.05) is None
    assert widest_along([], [], 0.9, 0.05) is None


def test_equal_confidences_count_together() -> None:
    """No threshold keeps the right one of two answers that are equally sure."""
    right = [True] * 100 + [False] * 100
    assert widest_along([0.8] * 200, right, 0.9, 0.05) is None


@pytest.mark.parametrize("certainty", [0.0, 0.5, 1.0])
def test_along_the_confidence_a_model_just_below_the_floor_is_seldom_certified(
    certainty: float,
) -> None:
    """However well its confidence tells right from wrong: what it keeps misses the floor."""
    random = np.random.default_rng(7)
    wrong = 0
    draws = 400
    for _ in range(draws):
        confidence = random.random(300)
        # from .88 where it is least sure up to .899 where it is surest: below .9 everywhere
        accuracy = 0.899 - 0.019 * certainty * (1 - confidence)
        right = random.random(300) < accuracy
        shown = widest_along(confidence.tolist(), right.tolist(), 0.9, ALPHA)
        wrong += shown is not None
    # three standard errors above alpha
    assert wrong / draws <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / draws)


def test_all_looks_together_spend_alpha() -> None:
    spent = [alpha_of_look(number) for number in range(1, 100_000)]
    assert sum(spent) == pytest.approx(ALPHA, rel=1e-4)
    assert sum(spent) <= ALPHA
    assert spent == sorted(spent, reverse=True)


def test_a_candidate_that_is_shown_whole_passes_its_part_of_alpha_on() -> None:
    """By Holm's procedure: the second one needs only half as much."""
    p_values = {"sure": 0.01, "close": 0.03, "bad": 0.9}

    def is_shown(name: str, level: Level) -> bool:
        return p_values[name] <= level.each

    levels = share_level(["sure", "close", "bad"], 0.06, is_shown)
    assert {name: level.compared for name, level in levels.items()} == {
        "sure": 3,
        "close": 2,
        "bad": 1,
    }
    # without the sure one to begin with, nothing is passed on
    alone = share_level(["close", "bad"], 0.05, is_shown)
    assert {level.compared for level in alone.values()} == {2}
