"""At most d worse: the exact test, and certificates beside a reference through a real socket."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest

from tests.kit.golden_sets import (
    DEAR,
    WORDS,
    certify,
    lazy,
    right,
    route_one,
    write_golden,
)
from tests.kit.projects import make_project, model
from tests.kit.standin import Fault, Request, Standin
from tests.kit.terminal import Terminal
from tierwise.errors import ConfigError
from tierwise.evidence.certify.paired_test import paired_p_value
from tierwise.policy.certificates import load_certificates
from tierwise.policy.paired import least_chance, score
from tierwise.project import CERTIFICATES


def _likelihoods(
    n: int, share_lost: float, share_gained: float
) -> dict[tuple[int, int], float]:
    """Return the chance of each result, by plain enumeration."""
    equal = 1 - share_lost - share_gained
    chances = {}
    for lost in range(n + 1):
        for gained in range(n - lost + 1):
            ways = math.comb(n, lost) * math.comb(n - lost, gained)
            chances[lost, gained] = (
                ways
                * share_lost**lost
                * share_gained**gained
                * max(equal, 0.0) ** (n - lost - gained)
            )
    return chances


@pytest.mark.parametrize(("n", "worse"), [(9, 0.3), (14, 0.2), (23, 0.1)])
def test_the_test_is_exact_wherever_nothing_should_be_shown(
    n: int, worse: float
) -> None:
    """By enumeration of all results, over a grid of shares: never more often than its level."""
    p_values = {
        (lost, gained): paired_p_value(lost, gained, n, worse)
        for lost in range(n + 1)
        for gained in range(n - lost + 1)
    }
    worst = {0.05: 0.0, 0.03: 0.0, 0.2: 0.0}
    for share_gained in numpy.linspace(0, (1 - worse) / 2, 25):
        for further in (0.0, 0.01, 0.05, 0.2):
            share_lost = share_gained + worse + further
            if share_lost + share_gained > 1:
                continue
            chances = _likelihoods(n, float(share_lost), float(share_gained))
            for level, until_now in worst.items():
                wrongly = sum(
                    chance
                    for result, chance in chances.items()
                    if p_values[result] <= level
                )
                assert wrongly <= level
                worst[level] = max(until_now, wrongly)
    # and it is no more careful than whole numbers of items make it
    assert worst[0.2] > 0.1


@pytest.mark.parametrize(("n", "worse"), [(12, 0.25), (20, 0.15)])
def test_the_p_value_is_the_largest_chance_of_a_result_as_good(
    n: int, worse: float
) -> None:
    """Compared with a grid of shares: never below it, and hardly above."""
    for lost, gained in [(0, 0), (0, 3), (1, 2), (2, 4), (1, 0)]:
        observed = score(lost, gained, n, worse)
        largest = 0.0
        for share_gained in numpy.linspace(0, (1 - worse) / 2, 300):
            chances = _likelihoods(n, float(share_gained + worse), float(share_gained))
            largest = max(
                largest,
                sum(
                    chance
                    for (more, fewer), chance in chances.items()
                    if score(more, fewer, n, worse) <= observed + 1e-9
                ),
            )
        p_value = paired_p_value(lost, gained, n, worse)
        assert largest <= p_value <= largest * 1.03 + 1e-5
        assert least_chance(lost, gained, n, worse) <= p_value


def test_a_lost_item_never_helps_and_a_gained_one_never_hurts() -> None:
    """Barnard's condition, without which the edge of the hypothesis would not be its worst case."""
    for n, worse in [(30, 0.02), (60, 0.1), (25, 0.5)]:
        for lost in range(n):
            for gained in range(n - lost):
                here = score(lost, gained, n, worse)
                assert score(lost + 1, gained, n, worse) >= here - 1e-12
                assert score(lost, gained + 1, n, worse) <= here + 1e-12


def test_without_a_difference_it_needs_as_many_items_as_one_share_would() -> None:
    """149 equal answers show `at most 2 points worse` to 95 %, as 0 errors would show .98."""
    assert 0.98**150 < paired_p_value(0, 0, 150, 0.02) < 0.05
    assert paired_p_value(0, 0, 120, 0.02) > 0.05
    assert paired_p_value(5, 0, 150, 0.02) == 1.0
    assert paired_p_value(0, 0, 0, 0.02) == 1.0


# Certificates beside a reference, over a real socket

RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
floors: {classify: {at_most_worse: 0.05, than: dear}}
routes:
  - {name: proven, pick: cheapest_capable}
"""
COUNT = 120


def rows(count: int = COUNT) -> list[dict[str, str]]:
    """Messages of which every fifth is hard."""
    labels = list(WORDS)
    return [
        {
            "id": f"g{n}",
            "text": f"Message {n}: {WORDS[labels[n % 2]]}, "
            f"{'hard to say' if n % 5 == 0 else 'please help'}.",
            "label": labels[n % 2],
        }
        for n in range(count)
    ]


def wrong(request: Request) -> str:
    answer = json.loads(right(request))
    other = "delivery" if answer["label"] == "billing" else "billing"
    return json.dumps({**answer, "label": other})


def wrong_on(*messages: int) -> Callable[[Request], str]:
    """A model that is wrong on these messages."""
    starts = tuple(f"Message {n}:" for n in messages)

    def answer(request: Request) -> str:
        if request.document.startswith(starts):
            return wrong(request)
        return right(request)

    return answer


def unsure(request: Request) -> Fault:
    """A model that is wrong on what is hard, and knows it."""
    if "hard to say" in request.document:
        return Fault(text=wrong(request), probability=0.4)
    return Fault(text=right(request), probability=0.95)


@pytest.fixture
def servers() -> Iterator[dict[str, Standin]]:
    """The reference is wrong on some items; two candidates differ from it here and there."""
    with Standin() as near, Standin() as lazy_one, Standin() as sure, Standin() as dear:
        dear.answer(wrong_on(*range(20, 44)))
        near.answer(wrong_on(*range(20, 43)))
        lazy_one.answer(lazy)
        sure.answer(unsure)
        yield {"near": near, "lazy": lazy_one, "sure": sure, "dear": dear}


@pytest.fixture
def project(tmp_path: Path, servers: dict[str, Standin]) -> Path:
    root = make_project(
        tmp_path / "project",
        model("near", servers["near"].url, strength=10),
        model("lazy", servers["lazy"].url, strength=11),
        model("sure", servers["sure"].url, strength=12) + "    confidence: true\n",
        model("dear", servers["dear"].url, strength=20, price=DEAR),
        rules=RULES,
    )
    write_golden(root, rows())
    return root


def set_floor(project: Path, floor: str) -> None:
    path = project / "routing_rules" / "rules.yaml"
    old = "{at_most_worse: 0.05, than: dear}"
    path.write_text(path.read_text().replace(old, floor))


def test_a_model_that_is_as_good_as_the_reference_is_certified_beside_it(
    terminal: Terminal, project: Path
) -> None:
    """The reference is right on four fifths: no floor of .9 would certify either of the two."""
    dear, near, lazy_one = certify(terminal, project, "-m", "near", "-m", "lazy")
    assert (dear["candidate"], dear["right"], dear["lost"]) == ("dear", 96, None)
    assert (near["right"], near["lost"], near["gained"]) == (97, 0, 1)
    assert (near["certified"], near["at_most_worse"], near["reference"]) == (
        True,
        0.05,
        "dear",
    )
    assert not lazy_one["certified"]
    assert "more labels like these never will" in lazy_one["says"]
    written = load_certificates(project / CERTIFICATES)
    [found] = written.certificates
    assert (found.models, found.than, found.lost, found.gained) == (
        ("near",),
        "dear",
        0,
        1,
    )
    # the reference takes no part of the level
    assert (found.compared, found.look, found.bound) == (2, 1, 0.0)
    assert found.claim == "at most 5 points worse than dear"
    [look] = written.looks
    assert (look.at_most_worse, look.floor) == (0.05, None)

    outcome = route_one(project)
    assert outcome.route is not None
    assert outcome.route.models == ("near", "dear")
    assert outcome.route.reason.startswith(
        "the cheapest shown to be at most 5 points worse than dear: "
        "near: 0 lost and 1 gained in 120 beside dear"
    )
    why = {r.model: r.reason for r in outcome.route.rejected}
    assert why["lazy"].startswith("not certified")


def test_the_comparison_is_void_when_the_reference_or_the_golden_set_changes(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project, "-m", "near")
    catalog = project / "routing_rules" / "catalog.yaml"
    before = catalog.read_text()
    catalog.write_text(before.replace("openai/dear", "openai/dear-2"))
    outcome = route_one(project)
    assert outcome.route is not None
    assert "nothing is certified for classify, so dear comes first, the reference" in (
        outcome.route.reason
    )
    why = {r.model: r.reason for r in outcome.route.rejected}
    assert why == {}
    checked = terminal("check", "--json", cwd=project)
    assert "the reference dear changed" in checked.out

    catalog.write_text(before)
    golden = project / "golden" / "classify.jsonl"
    kept = golden.read_text()
    golden.write_text(kept.replace("please help.", "please help", 1))
    checked = terminal("check", "--json", cwd=project)
    assert "the golden set classify.jsonl changed" in checked.out
    outcome = route_one(project)
    assert outcome.route is not None
    assert outcome.route.models[0] == "dear"

    golden.write_text(kept)
    outcome = route_one(project)
    assert outcome.route is not None
    assert outcome.route.models[0] == "near"


def test_a_stricter_floor_or_another_reference_is_not_covered(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project, "-m", "near")
    set_floor(project, "{at_most_worse: 0.02, than: dear}")
    assert _first(project) == "dear"
    set_floor(project, "{at_most_worse: 0.02, than: dear}")
    path = project / "routing_rules" / "rules.yaml"
    rules = path.read_text()
    path.write_text(rules.replace("0.02, than: dear", "0.1, than: dear"))
    assert _first(project) == "near"
    # an accuracy is another claim
    path.write_text(rules.replace("{at_most_worse: 0.02, than: dear}", "0.5"))
    assert _first(project) == "dear"
    # the reference comes first where nothing is shown, though another one is stronger
    path.write_text(rules.replace("0.02, than: dear", "0.02, than: sure"))
    assert _first(project) == "sure"


def test_without_a_name_the_reference_is_the_strongest_model_that_is_available(
    terminal: Terminal, project: Path
) -> None:
    set_floor(project, "{at_most_worse: 0.05}")
    dear, near = certify(terminal, project, "-m", "near")
    assert (dear["candidate"], near["reference"]) == ("dear", "dear")
    assert _first(project) == "near"
    catalog = project / "routing_rules" / "catalog.yaml"
    text = catalog.read_text()
    # a stronger one came, and may be better by any amount
    catalog.write_text(text.replace("strength: 12", "strength: 30"))
    assert _first(project) == "sure"
    # with its key gone it is no measure of what can be had
    catalog.write_text(text.replace("api_key: test", 'api_key: "${NO_KEY}"', 3))
    assert _first(project) == "dear"


def test_a_model_that_is_sure_of_some_answers_is_certified_together_with_the_reference(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    """Where it is unsure, the reference answers: so only what it keeps can be lost."""
    _, plain, together = certify(terminal, project, "-m", "sure")
    assert (plain["capable"], plain["certified"]) == (False, False)
    assert together["models"] == ["sure", "dear"]
    assert together["coverage"] == pytest.approx(0.8)
    assert (together["lost"], together["certified"]) == (0, True)
    before = servers["dear"].count
    sure = route_one(project, "Message 900: my invoice is wrong, please help.")
    assert sure.route is not None
    assert sure.route.models == ("sure", "dear")
    assert (sure.model, servers["dear"].count) == ("sure", before)
    unsure_one = route_one(project, "Message 901: my invoice is wrong, hard to say.")
    assert unsure_one.model == "dear"


def test_certify_says_how_many_more_labels_it_likely_needs_and_counts_the_look(
    terminal: Terminal, project: Path
) -> None:
    write_golden(project, rows(40))
    _, near = certify(terminal, project, "-m", "near")
    assert not near["certified"]
    assert near["next_floor"]["floor"] == "at most 5 points worse than dear"
    more = near["next_floor"]["more"]
    # 103 equal answers show it at the second look's .01
    assert 60 <= more <= 70
    assert [
        look.number for look in load_certificates(project / CERTIFICATES).looks
    ] == [1]
    write_golden(project, rows(40 + more))
    _, near = certify(terminal, project, "-m", "near")
    assert near["certified"]
    assert near["alpha"] == pytest.approx(0.01)
    said = terminal("certify", "classify", "--yes", "-m", "near", cwd=project)
    assert "floor: at most 5 points worse than" in said.out
    assert "the reference that the others are compared with" in said.out


def test_wrong_settings_are_named_with_their_place(
    terminal: Terminal, project: Path
) -> None:
    for floor, said in [
        ("{at_most_worse: 0.05, than: deer}", "deer"),
        ("{at_most_worse: 5}", "write 0.05"),
        ("{at_most_worse: 1}", "less than 1"),
        ("{at_most_worse: 0}", "greater than 0"),
        ("{at_most: 0.05}", "at_most"),
        ("1.5", "less than or equal to 1"),
    ]:
        path = project / "routing_rules" / "rules.yaml"
        path.write_text(RULES.replace("{at_most_worse: 0.05, than: dear}", floor))
        checked = terminal("check", cwd=project)
        assert checked.code != 0
        assert said in checked.out + checked.err
        assert "rules.yaml" in checked.out + checked.err
    set_floor(project, "x")
    path.write_text(RULES)
    alone = terminal("certify", "classify", "--yes", "-m", "dear", cwd=project)
    assert alone.code != 0
    assert "dear is the reference of classify" in alone.err


def test_a_certificate_that_was_edited_by_hand_is_refused(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project, "-m", "near")
    path = project / CERTIFICATES
    text = path.read_text()
    for edit in [
        ("lost: 0", "lost: 6"),
        ("at_most_worse: 0.05", "at_most_worse: 0.01"),
        ("bound: 0.0", "bound: 0.5"),
    ]:
        path.write_text(text.replace(*edit))
        assert text != path.read_text()
        with pytest.raises(ConfigError):
            load_certificates(path)


def _first(project: Path) -> str:
    outcome = route_one(project)
    assert outcome.route is not None
    return outcome.route.models[0]
