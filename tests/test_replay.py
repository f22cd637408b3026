"""Replay: recorded outcomes are read strictly, learned from honestly, and measured as RouteLLM does."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.projects import ROOT
from tests.kit.terminal import Terminal
from tierwise.errors import ConfigError, Misuse
from tierwise.evidence.replay import (
    COLUMNS,
    RANDOM,
    OutcomeTable,
    Replay,
    fit,
    measure,
    read_outcomes,
    read_texts,
    replay,
    sweep,
    true_quality,
)

DATA = ROOT.parent / "shared" / "data" / "outcomes"
RECORDED = DATA / "routellm_mmlu_train.csv.gz"
HEADER = ",".join(COLUMNS)
Item = tuple[str, int, tuple[float, ...]]  # step, prompt tokens, score of each model


def outcomes(
    items: Iterable[Item], prices: tuple[float, ...] = (0.001, 0.1)
) -> OutcomeTable:
    """Items by number; a model costs its price for each prompt token."""
    items = list(items)
    tokens = numpy.array([float(tokens) for _, tokens, _ in items])
    return OutcomeTable(
        path=Path("made.csv"),
        items=tuple((step, str(number)) for number, (step, _, _) in enumerate(items)),
        prompt_tokens=tokens,
        models=tuple(f"m{i}" for i in range(len(prices))),
        tiers=("local",) * len(prices),
        scores=numpy.array([scores for _, _, scores in items], dtype=float),
        costs=numpy.outer(tokens, prices),
    )


def file_of(recorded: OutcomeTable, path: Path) -> Path:
    """Write outcomes as a file, the rows in no particular order."""
    header = list(COLUMNS)
    if recorded.confidences is not None:
        header.append("confidence")
    if recorded.answers is not None:
        header.append("answer")
    rows = []
    for i, (step, item) in enumerate(recorded.items):
        for j, model in enumerate(recorded.models):
            row = [
                item,
                step,
                int(recorded.prompt_tokens[i]),
                model,
                "local",
                recorded.scores[i, j],
                recorded.costs[i, j],
            ]
            if recorded.confidences is not None:
                confidence = recorded.confidences[i, j]
                row.append("" if numpy.isnan(confidence) else confidence)
            if recorded.answers is not None:
                row.append(recorded.answers[i, j])
            rows.append(row)
    random.Random(1).shuffle(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def planted(count: int = 400, *, length: bool = False) -> OutcomeTable:
    """The cheap model fails on the step `hard` (or on long prompts) and else passes; the strong one always passes."""
    steps = [("easy", "hard")[i % 2] for i in range(count)]
    tokens = [10 if i % 4 < 2 else 1000 for i in range(count)]
    fails = [
        (t == 1000) if length else (s == "hard")
        for s, t in zip(steps, tokens, strict=True)
    ]
    return outcomes(
        (s, t, (float(not f), 1.0))
        for s, t, f in zip(steps, tokens, fails, strict=True)
    )


# ---- reading ------------------------------------------------------------------------------------


def test_a_packed_file_reads_like_a_plain_one(tmp_path: Path) -> None:
    plain = file_of(planted(20), tmp_path / "plain.csv")
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    one, other = read_outcomes(plain), read_outcomes(packed)
    assert one.items == other.items
    assert (one.scores == other.scores).all()
    assert (one.costs == other.costs).all()


def test_models_stand_in_the_order_of_what_they_cost(tmp_path: Path) -> None:
    rows = [
        "a,s,5,dear,api,1,0.5",
        "a,s,7,cheap,local,0,0.1",
        "",
        "b,s,5,cheap,local,1,0.1",
        "b,s,5,dear,api,0,0.2",
    ]
    path = tmp_path / "o.csv"
    path.write_text(
        "\n".join(
            [f"\ufeff{HEADER},note", *(f"{row},x" if row else "" for row in rows)]
        ),
        encoding="utf-8",
    )
    found = read_outcomes(path)
    assert (found.models, found.tiers) == (("cheap", "dear"), ("local", "api"))
    assert found.scores.tolist() == [[0, 1], [1, 0]]
    assert found.prompt_tokens.tolist() == [6, 5]


def test_the_same_item_in_two_steps_is_two_decisions(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(
        "\n".join(
            [HEADER, *(f"a,{s},1,{m},t,1,0" for s in ("x", "y") for m in ("m", "n"))]
        )
    )
    assert read_outcomes(path).items == (("x", "a"), ("y", "a"))


GOOD = [
    "a,s,5,m,local,1,0.1",
    "a,s,5,n,api,1,0.2",
    "b,s,5,m,local,1,0.1",
    "b,s,5,n,api,1,0.2",
]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "o.csv: the file is empty; the header needs item,step,"),
        ([HEADER], "o.csv: has a header and no rows; record"),
        (
            [HEADER.replace("score", "grade"), *GOOD],
            "o.csv:1: has no column 'score' (found item, step, ",
        ),
        ([f"{HEADER},item", *GOOD], "o.csv:1: has two columns 'item'; rename"),
        (
            [HEADER, *GOOD[:3]],
            "o.csv:4: item 'b' (step s) has no row of model 'n'; record its outcome, or leave the",
        ),
        (
            [HEADER, *GOOD, GOOD[1]],
            "o.csv:6: item 'a' has a row for model 'n' on line 3 already; remove one",
        ),
        ([HEADER, *GOOD[::2]], "o.csv: every row is of model 'm'; routing needs"),
        (
            [HEADER, *GOOD, "c,s,5,m,api,1,0.1"],
            "o.csv:6: model 'm' is in tier 'api' here and in 'local' on line 2",
        ),
        ([HEADER, *GOOD, "c,s,5,,api,1,0.1"], "o.csv:6: model is empty; name it"),
        (
            [HEADER, *GOOD, "c,s,5,m,local,1"],
            "o.csv:6: has 6 cells where the header has 7; check its commas",
        ),
        (
            [HEADER, *GOOD, "c,s,5,m,local,good,0.1"],
            "o.csv:6: score must be a number from 0 to 1 (found 'good')",
        ),
        (
            [HEADER, *GOOD, "c,s,5,m,local,1.5,0.1"],
            "o.csv:6: score must be a number from 0 to 1 (found '1.5')",
        ),
        (
            [HEADER, *GOOD, "c,s,5,m,local,nan,0.1"],
            "o.csv:6: score must be a number from 0 to 1 (found 'nan')",
        ),
        (
            [HEADER, *GOOD, "c,s,5,m,local,1,"],
            "o.csv:6: cost_usd must be USD, 0 or more (found '')",
        ),
        (
            [HEADER, *GOOD, "c,s,5,m,local,1,inf"],
            "o.csv:6: cost_usd must be USD, 0 or more (found 'inf')",
        ),
        (
            [HEADER, *GOOD, "c,s,-1,m,local,1,0"],
            "o.csv:6: prompt_tokens must be a number, 0 or more (found '-1')",
        ),
        ([HEADER, *GOOD, 'c,"s,5,m,local,1,0'], "o.csv:6: not valid CSV: "),
    ],
)
def test_a_wrong_file_is_told_with_place_and_remedy(
    tmp_path: Path, rows: list[str], told: str
) -> None:
    path = tmp_path / "o.csv"
    path.write_text("\n".join(rows))
    with pytest.raises(ConfigError) as caught:
        read_outcomes(path)
    assert str(caught.value).startswith(f"{tmp_path}/{told}")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("o.csv", b"\xff\xfe\x00", "it is not UTF-8; save it"),
        ("o.csv.gz", b"item,step", "damaged, or not gzip as its name says"),
        (
            "o.csv.gz",
            gzip.compress("\n".join([HEADER, *GOOD]).encode(), mtime=0)[:-8],
            "damaged, or not gzip",
        ),
        ("o.csv", None, "this file of outcomes is missing; check its name"),
    ],
)
def test_an_unreadable_file_says_what_it_is(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        read_outcomes(tmp_path / name)


def test_both_files_need_the_same_models(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text("\n".join([HEADER, *GOOD]))
    assert read_outcomes(path, models=("n", "m")).models == ("n", "m")
    with pytest.raises(
        ConfigError,
        match="has no rows of model 'o', which was fitted; record its outcomes too",
    ):
        read_outcomes(path, models=("m", "n", "o"))
    with pytest.raises(
        ConfigError, match=r"o.csv:3: model 'n' is not among the models fitted \(m, o\)"
    ):
        read_outcomes(path, models=("m", "o"))


# ---- labels -------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 2**32),
)
def test_labels_are_drawn_evenly_over_the_steps(
    sizes: list[int], share: float, seed: int
) -> None:
    """As many as asked for, none twice, and of each step its share give or take one; the same in any order."""
    made = outcomes(
        (str(s), i, (0, 1)) for s, size in enumerate(sizes) for i in range(size)
    )
    count = max(1, int(share * len(made)))
    drawn = made.draw(count, seed)
    assert len(set(drawn.items)) == len(drawn) == count
    by_step = Counter(drawn.steps)
    for step, size in enumerate(sizes):
        assert abs(by_step[str(step)] - count * size / len(made)) <= 2
    assert (
        made.part(range(len(made) - 1, -1, -1)).draw(count, seed).items == drawn.items
    )


def test_another_seed_draws_other_labels_and_too_many_are_refused() -> None:
    made = planted(100)
    assert set(made.draw(20, 1).items) != set(made.draw(20, 2).items)
    with pytest.raises(
        Misuse, match=r"cannot draw 101 labels: made\.csv has 100 items"
    ):
        made.draw(101)


# ---- the estimate -------------------------------------------------------------------------------


def test_a_step_with_few_labels_is_held_closer_to_the_rest() -> None:
    """Observed alike, estimated by how much was observed."""
    many = [("many", 10, (float(i % 2), 1.0)) for i in range(60)]
    few = [("few", 10, (float(i % 2), 1.0)) for i in range(4)]
    others = [(f"other{i % 6}", 10, (1.0, float(i % 10 > 0))) for i in range(240)]
    learned = fit(outcomes(many + few + others))
    asked = learned.quality(
        outcomes([("many", 10, (0, 0)), ("few", 10, (0, 0)), ("unknown", 10, (0, 0))])
    )
    assert 0.5 < asked[0, 0] < asked[1, 0] < asked[2, 0]
    assert learned.overall[0] + 1 == pytest.approx(asked[2, 0], abs=1e-6)
    assert [
        row["m0: observed"] for row in learned.cells() if row["step"] in ("few", "many")
    ] == [
        "0.500",
        "0.500",
    ]


def test_prompt_length_counts_where_it_matters_and_not_where_it_does_not() -> None:
    by_length, by_step = fit(planted(length=True)), fit(planted())
    asked = outcomes(
        [("easy", 10, (0, 0)), ("easy", 1000, (0, 0)), ("hard", 10, (0, 0))]
    )
    short, long, other = by_length.quality(asked)[:, 0]
    assert short == pytest.approx(other, abs=0.01)
    assert short - long > 0.9
    short, long, other = by_step.quality(asked)[:, 0]
    assert short == pytest.approx(long, abs=0.01)
    assert short - other > 0.9


def test_a_step_on_which_both_fail_is_no_reason_to_pay() -> None:
    """What counts is the difference, not how often the cheap model is right."""
    hopeless = [("hopeless", 10, (0.0, 0.0))] * 50
    learned = fit(
        outcomes([*hopeless, *[("gain", 10, (float(i % 2), 1.0)) for i in range(50)]])
    )
    asked = learned.quality(outcomes([("hopeless", 10, (0, 0)), ("gain", 10, (0, 0))]))
    assert asked[0, 0] > 0.95
    assert asked[1, 0] < 0.6


def test_the_estimate_sees_no_score_and_no_cost() -> None:
    learned, items = fit(planted()), [("easy", 10), ("hard", 500)]
    one = outcomes((step, tokens, (0, 1)) for step, tokens in items)
    other = outcomes(((step, tokens, (1, 0)) for step, tokens in items), prices=(3, 4))
    assert (learned.quality(one) == learned.quality(other)).all()
    assert (learned.worth(one) == learned.worth(other)).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_labels_is_enough_to_answer(count: int) -> None:
    learned = fit(outcomes([("s", 10, (0.0, 1.0))] * count))
    assert numpy.isfinite(learned.quality(planted(4))).all()
    assert numpy.isfinite(learned.worth(planted(4))).all()


def test_a_model_that_is_dearer_and_no_better_is_left_out() -> None:
    learned = fit(outcomes([("s", 10, (0.0, 1.0, 1.0))] * 5, prices=(1, 2, 3)))
    assert learned.candidates == ("m0", "m1")


# ---- the curve ----------------------------------------------------------------------------------

beliefs = st.floats(0, 1.5).map(lambda x: round(x, 2))
score = st.sampled_from([0.0, 0.5, 1.0])


@st.composite
def believed(draw: st.DrawFn) -> tuple[OutcomeTable, Any]:
    """Outcomes of two to four models, and any belief about them."""
    models, items = draw(st.integers(2, 4)), draw(st.integers(1, 12))
    scores = st.tuples(*[score] * models)
    made = outcomes(
        [("s", 1 + i, draw(scores)) for i in range(items)],
        prices=tuple(10.0**m for m in range(models)),
    )
    quality = numpy.array(
        [[draw(beliefs) for _ in range(models - 1)] + [1.0] for _ in range(items)]
    )
    return made, quality


@given(believed())
def test_the_sweep_goes_from_always_the_cheapest_to_always_the_strongest(
    case: tuple[OutcomeTable, Any],
) -> None:
    made, quality = case
    points = sweep(quality, made)
    assert points[0].cost_usd == pytest.approx(made.costs[:, 0].sum())
    assert points[-1].cost_usd == pytest.approx(made.costs[:, -1].sum())
    assert (points[0].strong_share, points[-1].strong_share) == (0, 1)
    for before, after in pairwise(points):
        assert before.floor is not None
        assert after.floor is not None
        assert before.floor < after.floor
        assert before.strong_share <= after.strong_share


@given(believed())
def test_each_floor_sends_an_item_to_the_cheapest_model_that_reaches_it(
    case: tuple[OutcomeTable, Any],
) -> None:
    """Said again item by item, in the plainest way."""
    made, quality = case
    last = quality.shape[1] - 1
    for point in sweep(quality, made):
        chosen = [
            next((m for m in range(last) if row[m] >= point.floor), last)
            for row in quality.tolist()
        ]
        assert point.quality == pytest.approx(
            numpy.mean([made.scores[i, m] for i, m in enumerate(chosen)])
        )
        assert point.strong_share == pytest.approx(chosen.count(last) / len(chosen))


def test_believing_all_items_alike_is_worth_what_chance_is() -> None:
    made = planted(100)
    measures = measure(sweep(numpy.tile([0.5, 1.0], (100, 1)), made))
    assert measures.cpt50 == pytest.approx(RANDOM.cpt50)
    assert measures.cpt80 == pytest.approx(RANDOM.cpt80)
    assert measures.apgr == pytest.approx(RANDOM.apgr)
    assert measures.usd50 == pytest.approx(RANDOM.usd50)


def test_the_measures_by_hand() -> None:
    """Ten items, gap 3 of 10: four are gained, one is lost, on five it is all the same.

    The oracle gains 4/3 of the gap with 4 strong calls, stays there for 5, and falls to 1 with the last:
    half the gap after 1.5 calls, 80 % after 2.4, the area .4 * 2/3 + .5 * 4/3 + .1 * 7/6.
    """
    pairs = [(0.0, 1.0)] * 4 + [(1.0, 1.0)] * 3 + [(0.0, 0.0)] * 2 + [(1.0, 0.0)]
    made = outcomes(("s", 10, pair) for pair in pairs)
    found = measure(sweep(true_quality(made, 2), made))
    assert found.cpt50 == pytest.approx(0.15)
    assert found.cpt80 == pytest.approx(0.24)
    assert found.apgr == pytest.approx(0.4 * 2 / 3 + 0.5 * 4 / 3 + 0.1 * 7 / 6)
    assert found.usd50 == pytest.approx(0.15)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    generator = numpy.random.default_rng(0)
    made = planted(3000)
    points = sweep(numpy.column_stack([generator.random(3000), numpy.ones(3000)]), made)
    assert len(points) == 1001
    assert (points[0].strong_share, points[-1].strong_share) == (0, 1)
    assert (
        max(
            after.strong_share - before.strong_share
            for before, after in pairwise(points)
        )
        < 0.002
    )


# ---- the whole ----------------------------------------------------------------------------------


def test_the_router_finds_the_step_on_which_the_strong_model_is_needed() -> None:
    """Half of the items need it, so half of the strong calls recover all of the gap."""
    done = replay(planted(), planted(), labels=40)
    assert done.router.cpt50 == pytest.approx(0.25, abs=0.03)
    assert done.router.apgr == pytest.approx(0.75, abs=0.02)
    assert (done.labels, done.left_out, done.items) == (40, 40, 360)


def test_beside_the_router_stand_all_that_it_must_beat() -> None:
    done = replay(planted(), planted(), labels=40)
    cheapest, best, half, chance, most, chance_again, oracle = done.strategies
    assert [p.name for p in (cheapest, best, oracle)] == [
        "always cheapest: m0",
        "best single model: m1",
        "oracle",
    ]
    assert (cheapest.point.quality, best.point.quality, oracle.point.quality) == (
        0.5,
        1.0,
        1.0,
    )
    assert half.point.cost_usd == pytest.approx(chance.point.cost_usd)
    assert most.point.cost_usd == pytest.approx(chance_again.point.cost_usd)
    assert half.point.quality > chance.point.quality
    assert oracle.point.cost_usd < best.point.cost_usd
    assert oracle.recovered == 1.0


def test_a_model_between_the_cheapest_and_the_strongest_gets_what_it_can_do() -> None:
    items = [
        (f"s{i % 3}", 10, (float(i % 3 == 0), float(i % 3 <= 1), 1.0))
        for i in range(300)
    ]
    done = replay(outcomes(items, (1, 2, 20)), outcomes(items, (1, 2, 20)), labels=60)
    [point] = {
        p.quality: p for p in done.points if p.quality == 1.0 and p.strong_share < 0.4
    }.values()
    assert point.strong_share == pytest.approx(1 / 3, abs=0.02)
    assert point.cost_usd == pytest.approx(240 / 3 * (1 + 2 + 20) * 10, rel=0.02)


def test_where_there_is_no_gap_nothing_is_claimed() -> None:
    same = outcomes([("s", 10, (1.0, 1.0))] * 10)
    done = replay(same, same, labels=5)
    assert done.router.apgr is None
    assert done.random.apgr is None
    assert all(policy.recovered is None for policy in done.strategies)


# ---- the model's own confidence -----------------------------------------------------------------


def confident(
    count: int = 1000,
    *,
    prices: tuple[float, ...] = (0.01, 0.02, 0.1),
    by_answer: bool = False,
    flip: bool = False,
) -> OutcomeTable:
    """Two weak models and a strong one that is right in 95 %. Step and length tell nothing.

    The first model is right by chance and always sure. The second one is right in nearly all answers
    of which it is surer than 0.5, and in few others; with `by_answer` that is so for "yes", and
    the other way round for "no". `flip` turns all scores of the second half of the items.
    """
    generator = numpy.random.default_rng(7)
    chance = generator.random((count, 3))
    sureness = generator.random(count)
    said_yes = generator.random(count) < 0.5
    is_good = sureness > 0.5
    if by_answer:
        is_good = numpy.where(said_yes, is_good, ~is_good)
    scores = numpy.column_stack(
        [
            chance[:, 0] < 0.5,
            numpy.where(is_good, chance[:, 1] < 0.98, chance[:, 1] < 0.3),
            chance[:, 2] < 0.95,
        ]
    ).astype(float)
    if flip:
        scores[count // 2 :] = 1 - scores[count // 2 :]
    made = outcomes([("s", 10, tuple(row)) for row in scores.tolist()], prices)
    never = numpy.full(count, numpy.nan)
    answers = numpy.where(said_yes, "yes", "no").astype(object)
    return replace(
        made,
        confidences=numpy.column_stack([numpy.ones(count), sureness, never]),
        answers=numpy.column_stack([answers] * 3) if by_answer else None,
    )


def halves(made: OutcomeTable) -> tuple[OutcomeTable, OutcomeTable]:
    half = len(made) // 2
    return made.part(range(half)), made.part(range(half, len(made)))


def replayed(made: OutcomeTable) -> Replay:
    return replay(*halves(made))


def test_a_confidence_says_which_answers_to_keep() -> None:
    """The sure half is kept, at the quality of the strong model; before the call nothing is known."""
    done = replayed(confident())
    assert done.before_call is not None
    assert done.before_call.apgr is not None
    assert done.router.apgr is not None
    assert done.router.apgr > done.before_call.apgr + 0.1
    found = done.at_strongest
    assert found.models == ("m1", "m2")  # the first model is not worth its call
    assert found.point.strong_share == pytest.approx(0.5, abs=0.05)
    assert found.point.quality >= found.strongest.quality - 0.03
    # half of the calls at 0.02 + 0.1, half at 0.02, in place of 0.1
    assert found.saved == pytest.approx(1 - (0.02 + 0.5 * 0.1) / 0.1, abs=0.05)


def test_a_call_whose_answer_is_not_used_is_paid_too() -> None:
    _, on = halves(confident())
    done = replayed(confident())
    calls = on.costs[:, 1].sum() + done.at_strongest.point.strong_share * (
        on.costs[:, 2].sum()
    )
    assert done.at_strongest.point.cost_usd == pytest.approx(calls)


def test_a_weak_model_that_costs_nearly_as_much_is_not_asked_first() -> None:
    done = replayed(confident(prices=(0.01, 0.09, 0.1)))
    assert "m1" not in done.at_strongest.models
    assert done.at_strongest.saved == pytest.approx(0, abs=0.02)


def test_models_and_floors_come_from_the_labels_alone() -> None:
    """Other scores of the measured items move what is measured, and nothing that is decided."""
    one = replayed(confident())
    other = replayed(confident(flip=True))
    assert one.at_strongest.models == other.at_strongest.models
    assert one.at_strongest.point.floor == other.at_strongest.point.floor
    assert [point.floor for point in one.points] == [
        point.floor for point in other.points
    ]
    assert one.at_strongest.point.quality > 0.9
    assert other.at_strongest.point.quality < 0.2


def test_a_confidence_may_mean_the_opposite_with_another_answer() -> None:
    made = confident(by_answer=True)
    blind = replayed(replace(made, answers=None))
    seeing = replayed(made)
    assert blind.at_strongest.saved == pytest.approx(0, abs=0.1)
    assert seeing.at_strongest.saved == pytest.approx(0.3, abs=0.06)


def test_confidences_and_answers_go_through_a_file(tmp_path: Path) -> None:
    made = confident(60, by_answer=True)
    read = read_outcomes(file_of(made, tmp_path / "o.csv"))
    order = [made.items.index(key) for key in read.items]
    made = made.part(order)
    assert read.confidences is not None
    assert made.confidences is not None
    assert numpy.array_equal(read.confidences, made.confidences, equal_nan=True)
    assert made.answers is not None
    assert (read.answers == made.answers).all()


def test_a_column_of_confidences_is_read_strictly(tmp_path: Path) -> None:
    def told(column: str, cells: list[str]) -> str:
        path = tmp_path / "o.csv"
        rows = [f"{row},{cell}" for row, cell in zip(GOOD, cells, strict=True)]
        path.write_text("\n".join([f"{HEADER},{column}", *rows]))
        with pytest.raises(ConfigError) as caught:
            read_outcomes(path)
        return str(caught.value).removeprefix(f"{tmp_path}/")

    wrong = "confidence must be a number from 0 to 1, or empty (found '-0.3')"
    assert told("confidence", ["1", "", "-0.3", ""]).startswith(f"o.csv:4: {wrong}")
    assert "(found 'nan')" in told("confidence", ["nan", "", "", ""])
    twice = told("confidence,confidence", ["1,1"] * 4)
    assert "two columns 'confidence'" in twice


def test_an_empty_column_of_confidences_is_none(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text("\n".join([f"{HEADER},confidence", *(f"{row}," for row in GOOD)]))
    assert read_outcomes(path).confidences is None


def test_prompt_lengths_may_be_unknown_but_not_in_some_rows(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    unknown = [row.replace(",5,", ",,") for row in GOOD]
    path.write_text("\n".join([HEADER, *unknown]))
    assert read_outcomes(path).prompt_tokens.tolist() == [0, 0]
    path.write_text("\n".join([HEADER, *GOOD[:3], unknown[3]]))
    with pytest.raises(
        ConfigError, match=r"o\.csv:5: prompt_tokens is empty here and not on line 2;"
    ):
        read_outcomes(path)


@pytest.mark.parametrize("count", [1, 2, 3, 19, 21])
def test_a_handful_of_labels_with_confidences_is_enough_to_answer(count: int) -> None:
    made = confident(200)
    done = replay(made, made, labels=count)
    assert all(numpy.isfinite(point.quality) for point in done.points)


@pytest.mark.parametrize(
    "name", ["frugalml_yelp", "frugalml_imdb", "frugalml_waimai", "frugalml_shop"]
)
def test_on_public_outcomes_a_confidence_saves_money_at_the_same_quality(
    name: str,
) -> None:
    path = DATA / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    recorded = read_outcomes(path)
    done = replay(recorded, recorded, labels=2000)
    found = done.at_strongest
    assert found.saved is not None
    assert found.saved > 0.1
    assert found.point.quality > found.strongest.quality - 0.015


# ---- texts --------------------------------------------------------------------------------------


def on_two_subjects(count: int = 200) -> tuple[OutcomeTable, list[str]]:
    """The cheap model fails on contracts, and never on parcels. Step and length tell nothing."""
    contract = [
        "clause",
        "lease",
        "tenant",
        "landlord",
        "liability",
        "notice",
        "term",
        "rent",
    ]
    parcel = [
        "box",
        "courier",
        "delivery",
        "address",
        "street",
        "door",
        "late",
        "tracking",
    ]
    generator = random.Random(3)
    texts = []
    items: list[Item] = []
    for number in range(count):
        is_contract = number % 2 == 0
        words = contract if is_contract else parcel
        texts.append(" ".join(generator.choices(words, k=6)))
        items.append(("s", 10, (float(not is_contract), 1.0)))
    return outcomes(items), texts


def texts_file(path: Path, texts: Iterable[str]) -> Path:
    if path.suffix == ".jsonl":
        rows = [
            json.dumps({"id": str(i), "text": text}) for i, text in enumerate(texts)
        ]
        path.write_text("\n".join(rows))
        return path
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["item", "text"], *enumerate(texts)])
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def test_the_subjects_of_texts_say_where_the_strong_model_is_needed(
    terminal: Terminal, tmp_path: Path
) -> None:
    made, texts = on_two_subjects()
    path = file_of(made, tmp_path / "o.csv")
    found = {}
    for name in ("", "t.csv", "t.csv.gz", "t.jsonl"):
        more = ["--texts", texts_file(tmp_path / name, texts)] if name else []
        done = terminal(
            "replay",
            "--fit",
            path,
            "--on",
            path,
            "--labels",
            60,
            "--json",
            *more,
            cwd=tmp_path,
        )
        assert done.code == 0, done.err
        data = json.loads(done.out)
        assert data["uses_texts"] is bool(name)
        found[name] = data["measures"]["router"]["apgr"]
    assert found[""] == pytest.approx(0.5, abs=0.05)
    assert found["t.csv"] > 0.7
    assert found["t.csv"] == found["t.csv.gz"] == found["t.jsonl"]


def test_a_wrong_file_of_texts_is_one_line_with_place_and_remedy(
    terminal: Terminal, tmp_path: Path
) -> None:
    made, _ = on_two_subjects(20)
    path = file_of(made, tmp_path / "o.csv")
    cases = {
        "item,text\n0,a lease\n1,a box\n": "has no text of item '",
        "item,words\n0,a lease\n": "has no column 'text' (found item, words)",
        "item,text\n0,a lease\n0,a box\n": "item '0' has another text on line 2; remove",
        "item,text\n0,\n": "item '0' has an empty text; fill it in",
        "item,text\n,a lease\n": "item is empty; name it",
        "item,text\n" + "".join(f"{i},same\n" for i in range(20)): "fewer than two",
        "item,text\n": "has a header and no rows",
        "": "the file is empty; the header needs item,text",
    }
    for content, told in cases.items():
        (tmp_path / "t.csv").write_text(content)
        done = terminal(
            *("replay", "--fit", path, "--on", path, "--labels", 5),
            *("--texts", tmp_path / "t.csv"),
            cwd=tmp_path,
        )
        assert done.code == 2, content
        assert told in done.err
        assert len(done.err.strip().splitlines()) == 1
    done = terminal(
        "replay", "--fit", path, "--on", path, "--texts", "no.csv", cwd=tmp_path
    )
    assert "this file of texts is missing" in done.err
    jsonl = tmp_path / "t.jsonl"
    jsonl.write_text('{"id": "0", "words": "a lease"}\n')
    with pytest.raises(ConfigError, match=r"t\.jsonl:1: needs the fields item"):
        read_texts(jsonl)


def test_a_text_of_a_step_is_that_steps_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("item,step,text\n0,a,one\n0,b,two\n0,,three\n")
    texts = read_texts(path)
    assert texts["a", "0"] == "one"
    assert texts["b", "0"] == "two"


def test_both_files_need_what_was_fitted_on(terminal: Terminal, tmp_path: Path) -> None:
    made = confident(40)
    fitted = file_of(made, tmp_path / "fit.csv")
    on = file_of(replace(made, confidences=None), tmp_path / "on.csv")
    done = terminal("replay", "--fit", fitted, "--labels", 20, "--on", on, cwd=tmp_path)
    assert done.code == 2
    assert "on.csv: has no column 'confidence', which the router was fitted on" in (
        done.err
    )
    # the other way round, what was not fitted on is not used
    done = terminal(
        "replay", "--fit", on, "--labels", 20, "--on", fitted, "--json", cwd=tmp_path
    )
    assert done.code == 0
    assert json.loads(done.out)["uses_confidence"] is False


# ---- the command --------------------------------------------------------------------------------

Ask = Callable[..., Any]


@pytest.fixture
def ask(terminal: Terminal, tmp_path: Path) -> Ask:
    """`tierwise replay` on the planted outcomes, with these further options."""
    path = file_of(planted(), tmp_path / "o.csv")
    return lambda *options: terminal(
        "replay", "--fit", path, "--on", path, *options, cwd=tmp_path
    )


def test_the_command_writes_the_curve_and_prints_what_stands_beside_it(
    ask: Ask, tmp_path: Path
) -> None:
    done = ask("--labels", 40, "--curve", "curve.csv")
    assert done.code == 0
    for name in (
        "always cheapest: m0",
        "best single model: m1",
        "router, 50%",
        "random router of the same",
        "oracle",
    ):
        assert name in done.out
    assert all(
        word in done.out
        for word in ("CPT50", "CPT80", "APGR", "USD50", "40 labelled items left out")
    )
    with (tmp_path / "curve.csv").open() as file:
        rows = [
            {name: float(cell) for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]
    assert list(rows[0]) == ["floor", "strong_share", "quality", "cost_usd"]
    assert (rows[0]["strong_share"], rows[0]["quality"]) == (0, 0.5)
    assert (rows[-1]["strong_share"], rows[-1]["quality"]) == (1, 1)


def test_the_measures_are_those_of_the_file(ask: Ask, tmp_path: Path) -> None:
    """Whoever has the curve can check what was printed."""
    done = ask("--labels", 40, "--curve", "curve.csv", "--json")
    data = json.loads(done.out)
    table = numpy.loadtxt(tmp_path / "curve.csv", delimiter=",", skiprows=1)
    share, quality = table[:, 1], table[:, 2]
    recovered = (quality - quality[0]) / (quality[-1] - quality[0])
    assert data["measures"]["router"]["apgr"] == pytest.approx(
        numpy.trapezoid(recovered, share), abs=1e-6
    )
    assert data["measures"]["router"]["cpt50"] == pytest.approx(
        numpy.interp(0.5, recovered, share), abs=1e-6
    )


def test_the_same_seed_gives_the_same_curve_and_the_estimates_can_be_read(
    ask: Ask, tmp_path: Path
) -> None:
    first = ask("--labels", 40, "--curve", "a.csv", "--estimates")
    ask("--labels", 40, "--curve", "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert "m0: observed" in first.out
    assert "hard" in first.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--labels", 401), "cannot draw 401 labels: "),
        ((), "was fitted on; replay on others, or fit on fewer with --labels"),
        (
            ("--labels", 40, "--curve", "no/such/folder.csv"),
            "cannot be written: No such file or directory; name a",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    ask: Ask, options: tuple[Any, ...], told: str
) -> None:
    done = ask(*options)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert "Traceback" not in done.err


def test_no_gap_is_said_in_words(terminal: Terminal, tmp_path: Path) -> None:
    path = file_of(outcomes([("s", 10, (1.0, 1.0))] * 10), tmp_path / "o.csv")
    done = terminal("replay", "--fit", path, "--labels", 5, "--on", path, cwd=tmp_path)
    assert done.code == 0
    assert "nothing is to be recovered" in done.out


# ---- on public outcomes -------------------------------------------------------------------------


@pytest.mark.skipif(not RECORDED.exists(), reason=f"{RECORDED} is not there")
def test_on_public_outcomes_the_router_recovers_more_than_chance_and_less_than_the_oracle() -> (
    None
):
    """Fewer strong calls by default, fewer USD with `--per-usd`."""
    recorded = read_outcomes(RECORDED)
    done, thrifty = (
        replay(recorded, recorded, labels=1500, per_usd=per_usd)
        for per_usd in (False, True)
    )
    assert done.router.apgr is not None
    assert done.oracle.apgr is not None
    assert 0.62 < done.router.apgr < done.oracle.apgr
    assert done.router.cpt50 is not None
    assert done.router.cpt50 < 0.36
    assert done.oracle.cpt50 == pytest.approx(0.065, abs=0.01)
    assert thrifty.router.usd50 is not None
    assert done.router.usd50 is not None
    assert thrifty.router.usd50 < 0.3 < done.router.usd50
