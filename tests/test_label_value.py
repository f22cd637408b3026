"""The value of a label: the next one settles decisions sooner, and nothing is counted because of what it shows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy
import pytest

from benchmarks.label_value import (
    Step,
    alike,
    by_value,
    labels_until_demoted,
    population,
)
from tests.kit.samples import ENOUGH, certify, documents, opened
from tests.kit.terminal import Terminal
from tierwise.ledger.people.label_order import LabelOrder, label_order
from tierwise.ledger.people.samples import Audit, item_id
from tierwise.policy.certificates import Certificates
from tierwise.policy.label_value import (
    Decision,
    believe,
    labels_until,
    outlook,
    value,
)
from tierwise.policy.sequential_test import (
    Evidence,
    demotion,
    expected_until_certified,
    expected_until_demotion,
    update,
)

FLOORS = (0.5, 0.7, 0.8, 0.9, 0.95)


def evidence(passed: int, failed: int, floor: float = 0.9) -> Evidence:
    """Evidence with the wrong answers last."""
    found = Evidence(floor=floor)
    for number in range(passed + failed):
        found = update(found, number < passed)
    return found


# ---- how many labels are left -------------------------------------------------------------------


@pytest.mark.parametrize("floor", [0.7, 0.9])
@pytest.mark.parametrize("so_far", [(0, 0), (20, 1), (10, 4)])
def test_a_number_of_labels_left_is_what_it_takes(
    floor: float, so_far: tuple[int, int]
) -> None:
    """Labels like the forecast's settle it with the last of them, and not before."""
    start = evidence(*so_far, floor=floor)
    decision = Decision("demotion", start)
    count = labels_until(decision, 0.0)
    assert count is not None
    for number in range(1, count + 1):
        start = update(start, False)
        assert (demotion(start) is not None) == (number == count)


def test_no_number_of_labels_demotes_a_model_above_its_floor() -> None:
    decision = Decision("demotion", evidence(3, 0))
    assert labels_until(decision, 0.95) is None
    assert labels_until(Decision("promotion", evidence(3, 0)), 0.85) is None


@pytest.mark.parametrize("accuracy", [0.3, 0.6, 0.75])
def test_the_short_forecast_agrees_with_the_long_one(accuracy: float) -> None:
    start = evidence(10, 1)
    exact = labels_until(Decision("demotion", start), accuracy)
    assert expected_until_demotion(start, accuracy) == pytest.approx(exact, rel=0.35)
    exact = labels_until(Decision("promotion", start), 0.99)
    assert expected_until_certified(start, 0.99) == pytest.approx(exact, rel=0.45)


def test_the_next_floor_is_the_steps_own_until_it_is_shown() -> None:
    none_yet = outlook(Evidence(floor=0.8), FLOORS)
    assert (none_yet.shown, none_yet.next_floor) == (None, 0.8)
    half_way = outlook(evidence(none_yet.more or 0, 0, 0.8), FLOORS)
    assert (half_way.shown, half_way.next_floor) == (0.8, 0.9)
    # at three wrong of ten, 0.8 is out of reach and 0.7 too; 0.5 is not
    poor = outlook(evidence(7, 3, 0.8), FLOORS)
    assert (poor.shown, poor.next_floor) == (None, 0.5)
    assert outlook(evidence(2000, 0, 0.8), FLOORS).next_floor is None


# ---- what is worth the most ---------------------------------------------------------------------


def worth(labels: list[bool], waiting: int = 10, floor: float = 0.9) -> float:
    found = Evidence(floor=floor)
    for is_right in labels:
        found = update(found, is_right)
    belief = believe(labels, waiting=waiting, golden=(57, 3))
    return value(Decision("demotion", found), belief)


def test_wrong_answers_make_the_next_label_worth_more() -> None:
    good = [True] * 30
    bad = [True] * 24 + [False] * 6
    assert worth(bad) > 5 * worth(good)


def test_late_wrong_answers_weigh_more_than_early_ones() -> None:
    assert worth([True] * 27 + [False] * 3) > 2 * worth([False] * 3 + [True] * 27)


def test_a_model_that_nobody_looked_at_for_long_is_looked_at_again() -> None:
    good = [True] * 60
    assert worth(good, waiting=200) > 3 * worth(good, waiting=1) > 0


def test_what_is_settled_is_worth_nothing() -> None:
    assert worth([False] * 30) == 0


# ---- which sample is next -----------------------------------------------------------------------


def audits(
    step: str,
    labels: Iterable[bool | None],
    *,
    counted: bool = True,
    shadow: str = "small",
    disagrees: bool = False,
    start: float = 0,
) -> list[Audit]:
    """Samples of a shadow, one a second, the first `labels` of them labelled."""
    made: list[Audit] = []
    number = 0
    for right in labels:
        while True:
            number += 1
            item = item_id(step, str(counted), f"{start}-{number}")
            sample = Audit(
                id=f"{item}.accepted",
                run_id="run",
                document_id=f"{number}",
                document_hash=f"{number}",
                step=step,
                model="large",
                identity="i",
                value={},
                accepted_model="large",
                accepted={},
                agreed=None,
                recorded_at=start + number,
                right=right,
            )
            if sample.counted == counted:
                break
        made.append(sample)
        made.append(
            replace(sample, id=f"{item}.shadow", model=shadow, agreed=not disagrees)
        )
    return made


def order_of(*samples: list[Audit], floors: tuple[str, ...] = ("a", "b")) -> LabelOrder:
    recorded = [audit for some in samples for audit in some]
    recorded.sort(key=lambda audit: (audit.recorded_at, audit.id))
    return label_order(recorded, Certificates(), dict.fromkeys(floors, 0.9))


def test_the_step_that_is_nearly_settled_comes_first_in_the_order_of_recording() -> (
    None
):
    near = audits("a", [True] * 40 + [None] * 5)
    far = audits("b", [True] * 3 + [None] * 20, start=-100)
    order = order_of(near, far)
    waiting = [audit.item for audit in near if audit.right is None]
    assert [item.id for item in order.items[:2]] == list(dict.fromkeys(waiting))[:2]
    assert [each.step for each in order.decisions] == ["a", "b"]
    within = [item.id for item in order.items if item.accepted.step == "b"]
    recorded = [audit.item for audit in far if audit.right is None]
    assert within == list(dict.fromkeys(recorded))


def test_what_chance_did_not_mark_is_asked_last_and_changes_no_order() -> None:
    samples = [audits("a", [True] * 10 + [None] * 3), audits("b", [None] * 3)]
    before = order_of(*samples)
    more = audits("b", [False] * 30 + [None] * 4, counted=False, disagrees=True)
    after = order_of(*samples, more)
    ids = [item.id for item in before.items]
    assert [item.id for item in after.items[: len(ids)]] == ids
    assert len(after.items) == len(ids) + 4
    assert [each.value for each in before.decisions] == [
        each.value for each in after.decisions
    ]


def test_a_label_behind_a_gap_does_not_count_yet() -> None:
    order = order_of(audits("a", [True, None, False, False, False]))
    [decision] = order.decisions
    assert decision.decision.evidence.n == 1
    assert (len(decision.waiting), decision.unread) == (1, 3)


def test_without_a_floor_disagreements_come_first_as_ever() -> None:
    agreeing = audits("c", [None] * 3)
    disagreeing = audits("c", [None] * 3, disagrees=True, start=100)
    items = order_of(agreeing, disagreeing).items
    assert [item.disagrees for item in items] == [True] * 3 + [False] * 3


# ---- simulation ---------------------------------------------------------------------------------


def test_by_value_finds_the_model_that_fell_with_fewer_labels() -> None:
    chance = numpy.random.default_rng(5)
    in_turn = []
    chosen = []
    for before in (0, 40):
        for _ in range(5):
            made = population(chance, 6, 0.96, 0.75, before)
            in_turn.append(labels_until_demoted(made, before, 0.9, alike))
            chosen.append(labels_until_demoted(made, before, 0.9, by_value))
    assert mean(chosen) < 0.6 * mean(in_turn)


def test_at_the_floor_it_biases_nothing() -> None:
    """Few are demoted, and the labels given are right as often as the models are."""
    chance = random.Random(11)
    labels: list[bool] = []
    demoted = 0
    draws = 80
    for _ in range(draws):
        steps = [
            Step(0.9, [chance.random() < 0.9 for _ in range(40)], Evidence(floor=0.9))
            for _ in range(3)
        ]
        for _ in range(30):
            waiting = [step for step in steps if step.waiting]
            demoted += by_value(waiting, 0).label()
        for step in steps:
            # each step's labels are its first ones: chance chose them, not what they show
            assert step.labels == step.truth[: len(step.labels)]
            labels += step.labels
    assert len(labels) == 30 * draws
    assert mean(labels) == pytest.approx(0.9, abs=4 * 0.3 / len(labels) ** 0.5)
    assert demoted <= 0.05 * 3 * draws


# ---- the command --------------------------------------------------------------------------------


def test_the_command_says_what_is_next_and_how_many_labels_are_left(
    terminal: Terminal, tmp_path: Path
) -> None:
    with opened(tmp_path / "project") as office:
        office.made()
        certify(office, "dear")
        office.run(documents(ENOUGH // 4))
        listed = " ".join(terminal("label", cwd=office.root).out.split())
        assert "What further labels would show" in listed
        assert "classify: dear no counted label; 48 without an error would" in listed
        assert "show 0.9; a fall to 0.8 would be noticed after about 118" in listed
        data = json.loads(terminal("label", "--json", cwd=office.root).out)
        assert {row["wanted"] for row in data["decisions"]} == {"demotion", "promotion"}
        first = data["ask_next"][0]
        waiting = {row["wanted"]: row["waiting"] for row in data["decisions"]}
        assert first in (waiting["demotion"][0], waiting["promotion"][0])
        # recorded first, so the certificate's evidence begins with it
        item = waiting["demotion"][0]
        done = terminal("label", item, "--right", "neither", cwd=office.root)
        assert "classify: dear: 1 counted label, 1 wrong; " in done.out
        assert sorted(data["ask_next"]) == sorted(row["id"] for row in data["queue"])


def test_a_step_may_be_chosen(terminal: Terminal, tmp_path: Path) -> None:
    with opened(tmp_path / "project") as office:
        office.made().run(documents(8))
        every = json.loads(terminal("label", "--json", cwd=office.root).out)
        chosen = terminal("label", "--step", "classify", "--json", cwd=office.root)
        assert json.loads(chosen.out) == every
        wrong = terminal("label", "--step", "clasify", cwd=office.root)
        assert wrong.code == 2
        assert "classify" in wrong.err
        both = terminal(
            "label", every["ask_next"][0], "--step", "classify", cwd=office.root
        )
        assert both.code == 2
        assert "--step is for the list" in both.err
