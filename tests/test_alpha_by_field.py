"""However fields and thresholds are chosen on the labels: at most a share alpha of the claims is too high."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from tierwise.evidence.certify.by_field import (
    GRID,
    FieldCandidate,
    FieldItem,
    choices_of,
    counts_from,
    fields_shown,
)
from tierwise.evidence.certify.levels import alpha_of_look
from tierwise.evidence.certify.measure import Measurement
from tierwise.policy.certificates import lower_bound

FIELDS = ("company", "date", "address", "total")
ALPHA = alpha_of_look(1)


def items_of(chance: random.Random, n: int, right: float) -> list[FieldItem]:
    """Values whose confidences say nothing: each is right with the same chance."""
    return [
        FieldItem("", True, chance.random() < right, chance.random()) for _ in range(n)
    ]


def candidate(items: Sequence[FieldItem], floor: float) -> FieldCandidate:
    n, errors = counts_from(items, None)
    return FieldCandidate(
        chain=("small",),
        measurement=Measurement(models=("small",), n=n, errors=errors, deferred=0),
        floor=floor,
        share=0.5,
        items=tuple(items),
        fits=True,
    )


@pytest.mark.parametrize(("n", "floor"), [(60, 0.7), (150, 0.9)])
def test_no_field_is_certified_that_is_not_better_than_its_floor(
    n: int, floor: float
) -> None:
    """Each field is right just as often as its floor asks at most, so every certificate is wrong."""
    chance = random.Random(17)
    runs = 400
    wrong = 0
    for _ in range(runs):
        candidates = {
            ("small", name): candidate(items_of(chance, n, floor - 1e-6), floor)
            for name in FIELDS
        }
        shown = fields_shown(candidates, ALPHA)
        wrong += any(found is not None for _, found in shown.values())
    assert wrong / runs <= ALPHA


@pytest.mark.parametrize(
    ("floor", "small", "large"), [(0.6, 0.75, 0.7), (0.8, 0.9, 0.6)]
)
def test_the_bound_of_a_chain_holds_though_its_fields_were_chosen_on_the_same_labels(
    floor: float, small: float, large: float
) -> None:
    """The chain's true accuracy is known: fields are right independently of each other."""
    chance = random.Random(29)
    n = 80
    runs = 300
    too_high = 0
    chosen = set()
    for _ in range(runs):
        items = {name: items_of(chance, n, small) for name in FIELDS}
        later = {name: items_of(chance, n, large) for name in FIELDS}
        shown = fields_shown(
            {("small", name): candidate(items[name], floor) for name in FIELDS}, ALPHA
        )
        kept = {
            name: found.threshold
            for (_, name), (_, found) in shown.items()
            if found is not None
        }
        chosen.add(tuple(sorted(kept.items(), key=str)))
        errors = 0
        for place in range(n):
            right = True
            for name in FIELDS:
                own = items[name][place]
                is_kept = name in kept and own.confidence >= (kept[name] or 0.0)
                right = right and (own if is_kept else later[name][place]).right
            errors += not right
        truth = 1.0
        for name in FIELDS:
            share = 1 - (kept[name] or 0.0) if name in kept else 0.0
            truth *= share * small + (1 - share) * large
        choices = choices_of({"small": kept}, ("small", "large"), len(FIELDS))
        too_high += lower_bound(errors, n, alpha=ALPHA, compared=choices) > truth
    assert len(chosen) > 3  # the choice does depend on the labels
    assert too_high / runs <= ALPHA


def test_the_shares_of_all_choices_add_up_to_one() -> None:
    one_field = [{}, {"total": None}, *({"total": threshold} for threshold in GRID)]
    shares = [
        1 / choices_of({"small": kept}, ("small", "large"), 1) for kept in one_field
    ]
    assert math.fsum(shares) == pytest.approx(1)
    two_models = {"small": {"total": None}, "middle": {"total": 0.9}}
    chain = ("small", "middle", "large")
    alone = choices_of({"small": {"total": None}}, ("small", "large"), 3)
    then = choices_of({"middle": {"total": 0.9}}, ("middle", "large"), 3)
    assert choices_of(two_models, chain, 3) == alone * then
