"""Certificates: what counts as proof, what voids it, how it is kept, and which order is cheapest."""

from __future__ import annotations

import datetime
import subprocess
import sys
from decimal import Decimal
from itertools import chain, combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.kit.certificates import TODAY, certificate
from tierwise.errors import ConfigError, Misuse
from tierwise.policy.catalog import Model
from tierwise.policy.certificates import (
    Candidate,
    Certificates,
    Current,
    MeanUsage,
    expected_cost,
    labels_needed,
    load_certificates,
    lower_bound,
    order_by_expected_cost,
    save_certificates,
)

ANCHORS = [
    (0, 29, 0.90),
    (3, 76, 0.90),
    (8, 142, 0.90),
    (20, 286, 0.90),
    (0, 59, 0.95),
    (3, 153, 0.95),
    (5, 208, 0.95),
]


def current(**changed: Any) -> Current:
    fields: dict[str, Any] = {
        "identities": {"small": "small-1", "large": "large-1"},
        "prompt_hash": "p1",
        "step_hash": "s1",
        "today": TODAY,
    }
    return Current(**{**fields, **changed})


# What is proof


@pytest.mark.parametrize(("errors", "n", "floor"), ANCHORS)
def test_so_many_labels_certify_and_one_fewer_do_not(
    errors: int, n: int, floor: float
) -> None:
    assert lower_bound(errors, n) >= floor > lower_bound(errors, n - 1)


@given(n=st.integers(1, 1_000), rate=st.floats(0.01, 0.99), compared=st.integers(1, 20))
def test_the_chance_of_a_false_certificate_is_at_most_alpha(
    n: int, rate: float, compared: int
) -> None:
    """Exactly, whatever the accuracy, the number of labels and the candidates compared."""
    from scipy.stats import binom  # here, as it takes a second to import

    # the most errors whose bound claims at least `rate`, by bisection on the falling bound
    low, high = -1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        claims = lower_bound(middle, n, compared=compared) >= rate
        low, high = (middle, high) if claims else (low, middle)
    assert binom.cdf(low, n, 1 - rate) <= 0.05 / compared * (1 + 1e-9)


@pytest.mark.parametrize("floor", [0.80, 0.90, 0.95])
@pytest.mark.parametrize("n", [60, 185, 600])
@pytest.mark.parametrize("compared", [1, 8])
def test_choosing_among_candidates_at_the_floor_rarely_certifies_any(
    floor: float, n: int, compared: int
) -> None:
    """2,000 synthetic golden sets; the candidates share the hard items, as real ones do."""
    random = np.random.default_rng(7)
    failing = np.array(
        [floor - 0.15, min(1.0, floor + 0.15)]
    )  # pass rates on the hard and the easy items
    hard = random.random((2_000, n, 1)) < (failing[1] - floor) / (
        failing[1] - failing[0]
    )
    errors = (random.random((2_000, n, compared)) >= np.where(hard, *failing)).sum(
        axis=1
    )
    bounds = np.array([lower_bound(k, n, compared=compared) for k in range(n + 1)])
    # two standard deviations of 2,000 draws above the 5 % that the test above proves
    assert (bounds[errors] >= floor).any(axis=1).mean() <= 0.05 + 2 * (
        0.05 * 0.95 / 2_000
    ) ** 0.5


def test_choosing_the_best_of_many_without_paying_for_it_would_mislead() -> None:
    """Why alpha is divided: eight candidates exactly at the floor, the best one taken at its word."""
    errors = np.random.default_rng(8).binomial(185, 0.10, (2_000, 8))
    bounds = np.array([lower_bound(k, 185) for k in range(186)])
    assert (bounds[errors] >= 0.90).any(axis=1).mean() > 0.2


@pytest.mark.parametrize(
    ("errors", "n", "alpha", "compared"),
    [(-1, 5, 0.05, 1), (6, 5, 0.05, 1), (0, 5, 0, 1)],
)
def test_counts_that_make_no_sense_have_no_bound(
    errors: int, n: int, alpha: float, compared: int
) -> None:
    with pytest.raises(Misuse, match="no bound"):
        lower_bound(errors, n, alpha=alpha, compared=compared)


def test_no_labels_and_no_passes_prove_nothing() -> None:
    assert lower_bound(0, 0) == lower_bound(7, 7) == 0


@given(errors=st.integers(0, 30), n=st.integers(0, 300), floor=st.floats(0.5, 0.97))
def test_the_labels_asked_for_are_enough_and_no_more(
    errors: int, n: int, floor: float
) -> None:
    """With that many more, all right, the floor is proven; with one fewer it is not."""
    errors = min(errors, n)
    more = labels_needed(errors, n, floor).if_all_right
    assert more is not None
    assert lower_bound(errors, n + more) >= floor
    assert more == 0 or lower_bound(errors, n + more - 1) < floor


def test_a_shortfall_says_what_to_label_next() -> None:
    assert labels_needed(2, 40, 0.90).sentence == (
        "2 errors in 40 labels: an accuracy of at least 0.850 is shown; "
        "0.9 needs about 67 more like these, or 21 more without an error"
    )
    assert labels_needed(6, 60, 0.90).sentence == (
        "6 errors in 60 labels: an accuracy of at least 0.812 is shown; "
        "0.9 needs fewer errors: 56 more without an error would show it, more like these never will"
    )
    assert (
        labels_needed(0, 0, 0.90).sentence
        == "there are no labels yet; 0.9 needs 29 more without an error"
    )
    assert labels_needed(3, 76, 0.90).sentence.endswith(
        "0.901 is shown, which covers the floor of 0.9"
    )
    assert labels_needed(0, 9, 1.0).sentence.endswith("no number of labels shows 1")


def test_a_rate_at_or_below_the_floor_never_gets_there() -> None:
    assert labels_needed(10, 100, 0.90).at_this_rate is None
    assert (
        labels_needed(0, 10, 0.90).at_this_rate
        == labels_needed(0, 10, 0.90).if_all_right
        == 19
    )


# What a certificate says, and what voids it


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"bound": 0.95}, "claims more than"),
        ({"compared": 2}, "claims more than"),
        ({"errors": 9, "n": 8, "bound": 0.1}, "among the `n` items"),
        ({"deferred": 9}, "among the `errors`"),
        ({"identities": {"large": "1"}}, "one entry for each"),
        ({"models": ("small", "small")}, "each model once"),
        ({"threshold": 0.5}, "go together"),
        ({"judged_by": "large"}, "a judge never certifies alone"),
        ({"expires": TODAY}, "later than"),
    ],
)
def test_a_certificate_that_contradicts_itself_is_refused(
    changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        certificate(**changed)


@given(data=st.data(), n=st.integers(1, 3_000), compared=st.integers(1, 30))
def test_every_bound_that_we_compute_is_one_that_we_accept(
    data: st.DataObject, n: int, compared: int
) -> None:
    """And one that is a little higher is not."""
    errors = data.draw(st.integers(0, n))
    bound = lower_bound(errors, n, compared=compared)
    assert certificate(errors=errors, n=n, compared=compared, bound=bound).covers(bound)
    with pytest.raises(ValidationError, match="claims more than"):
        certificate(
            errors=errors, n=n, compared=compared, bound=bound + (1 - bound) * 1e-3
        )


def test_a_certificate_holds_for_180_days_unless_it_says_otherwise() -> None:
    holds = certificate()
    assert holds.expires == datetime.date(2026, 8, 28)
    assert holds.void_reasons(current(today=datetime.date(2026, 8, 27))) is None
    assert (
        holds.void_reasons(current(today=datetime.date(2026, 8, 28)))
        == "it expired on 2026-08-28"
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"prompt_hash": "p2"},
            "the prompt is no longer the one measured (classify v1)",
        ),
        (
            {"step_hash": "s2"},
            "the step's schema, checks, parameters or an earlier step changed",
        ),
        (
            {"identities": {"small": "small-1", "large": "large-2"}},
            "model large changed",
        ),
        ({"identities": {"small": "small-1"}}, "the catalog has no model 'large'"),
        (
            {"identities": {"small": "2", "large": "large-1"}, "step_hash": "s2"},
            "model small changed; the step's schema, checks, parameters or an earlier step changed",
        ),
    ],
)
def test_a_change_of_what_was_measured_voids_it(
    changed: dict[str, Any], reason: str
) -> None:
    assert certificate("small", "large").void_reasons(current(**changed)) == reason


def test_a_chain_is_another_candidate_than_its_parts() -> None:
    """What two models deliver together proves nothing about either, nor about the other order."""
    held = Certificates(certificates=(certificate("small", "large"),))
    assert (
        held.certified("classify", ["small", "large"], 0.90, current())
        == held.certificates[0]
    )
    for other in (["small"], ["large"], ["large", "small"]):
        assert held.certified("classify", other, 0.90, current()) is None


def test_why_a_model_is_not_shown_capable_is_said() -> None:
    held = Certificates(certificates=(certificate("small"),))
    assert held.missing_proof("classify", ["small"], 0.90, current()) is None
    assert held.missing_proof("classify", ["small"], 0.95, current()) == (
        "below the floor of 0.95: 8 errors in 142 show 0.900 (95% sure, 2026-03-01)"
    )
    assert held.missing_proof(
        "classify", ["small"], 0.90, current(prompt_hash="p2")
    ) == (
        "its certificate is void: the prompt is no longer the one measured (classify v1)"
    )
    assert held.missing_proof("draft", ["small"], 0.90, current()) == (
        "not certified for draft; `tierwise certify draft` measures it"
    )


# The file


def test_certificates_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    full = certificate(
        "small",
        "large",
        deferred=2,
        threshold=-1e-7,
        coverage=0.75,
        mean_cost=Decimal("0.000000012345678901234567890"),
        latency_p50_s=0.25,
        judged_by="huge",
        human_labels=40,
        machine="2 cores: 'one', #two",
    )
    save_certificates(tmp_path / "certificates.yaml", [full, certificate("small")])
    assert load_certificates(tmp_path / "certificates.yaml").certificates == (
        certificate("small"),
        full,
    )


def test_no_file_means_no_certificates(tmp_path: Path) -> None:
    assert load_certificates(tmp_path / "certificates.yaml") == Certificates()


def test_a_new_certificate_takes_the_place_of_the_one_for_its_step_and_chain(
    tmp_path: Path,
) -> None:
    path = tmp_path / "certificates.yaml"
    save_certificates(
        path,
        [
            certificate("small"),
            certificate("large"),
            certificate("small", step="draft"),
        ],
    )
    newer = certificate("small", errors=3, n=76)
    held = save_certificates(path, [newer])
    assert held == load_certificates(path)
    assert held.find("classify", ["small"]) == newer
    assert len(held.certificates) == 3


def test_the_order_of_saving_leaves_no_trace(tmp_path: Path) -> None:
    some = [
        certificate("small"),
        certificate("large"),
        certificate("large", "small"),
        certificate("small", step="a"),
    ]
    save_certificates(tmp_path / "one.yaml", some)
    for each in reversed(some):
        save_certificates(tmp_path / "two.yaml", [each])
    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()
    assert (
        load_certificates(tmp_path / "one.yaml").hash
        == load_certificates(tmp_path / "two.yaml").hash
    )


def test_the_comment_on_top_belongs_to_people(tmp_path: Path) -> None:
    path = tmp_path / "certificates.yaml"
    save_certificates(path, [certificate()])
    assert path.read_text().startswith("# Which model")
    path.write_text(
        "# Ask Ines before you trust these.\n\n"
        + path.read_text().partition("stay.\n")[2]
    )
    save_certificates(path, [certificate("large")])
    assert path.read_text().startswith(
        "# Ask Ines before you trust these.\n\nversion: 1\n"
    )


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "certificates.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"certificates\.yaml"):
        save_certificates(tmp_path / "certificates.yaml", [certificate()])
    with pytest.raises(ConfigError, match="cannot be written"):
        save_certificates(tmp_path / "nowhere" / "certificates.yaml", [certificate()])
    assert [p.name for p in tmp_path.iterdir()] == ["certificates.yaml"]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("errors: 8", "errors: 9", 5, "claims more"),
        ("errors: 8", "errors: many", 18, "valid integer"),
        ("  golden:", "  goldenn:", 15, "did you mean 'golden'?"),
    ],
)
def test_a_mistake_in_the_file_is_shown_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    path = tmp_path / "certificates.yaml"
    save_certificates(path, [certificate()])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_certificates(path)
    assert caught.value.line == line, caught.value
    assert message in str(caught.value)


def test_two_certificates_for_one_chain_are_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "certificates.yaml"
    save_certificates(path, [certificate()])
    text = path.read_text()
    path.write_text(text + text.partition("certificates:\n")[2])
    with pytest.raises(
        ConfigError,
        match=r"yaml:27: a second certificate of classify for small; keep one",
    ):
        load_certificates(path)


def test_using_certificates_needs_no_scipy(tmp_path: Path) -> None:
    """SciPy is for making them; a run that only reads them starts without it."""
    path = tmp_path / "certificates.yaml"
    save_certificates(path, [certificate()])
    code = (
        "import datetime, pathlib, sys\n"
        "from tierwise.policy.certificates import Current, load_certificates\n"
        "now = Current(identities={'small': 'small-1'}, prompt_hash='p1', step_hash='s1',"
        " today=datetime.date(2026, 3, 1))\n"
        f"held = load_certificates(pathlib.Path({str(path)!r})).certified('classify', ['small'], 0.9, now)\n"
        "print(held.errors, 'scipy' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["8", "False", "False"]


# The cheapest order

COSTS = st.decimals(0, 10, places=2)
RATES = st.integers(0, 100).map(lambda percent: percent / 100)
CANDIDATES = st.lists(st.tuples(COSTS, RATES), min_size=1, max_size=5).map(
    lambda pairs: [
        Candidate(f"m{i}", cost, passes) for i, (cost, passes) in enumerate(pairs)
    ]
)


@given(candidates=CANDIDATES)
def test_no_other_order_costs_less_until_an_answer_is_accepted(
    candidates: list[Candidate],
) -> None:
    ours = expected_cost(order_by_expected_cost(candidates))
    assert ours == min(expected_cost(order) for order in permutations(candidates))  # type: ignore[type-var]


@given(candidates=CANDIDATES, last=COSTS)
def test_no_other_choice_or_order_before_a_last_model_costs_less(
    candidates: list[Candidate], last: Decimal
) -> None:
    """Brute force over every subset in every order: which models pay at all before one that must deliver."""
    end = Candidate("end", last, 1.0)
    subsets = chain.from_iterable(
        combinations(candidates, size) for size in range(len(candidates) + 1)
    )
    orders = chain.from_iterable(permutations(subset) for subset in subsets)
    ours = expected_cost(order_by_expected_cost(candidates, last=end))
    assert ours == min(expected_cost([*order, end]) for order in orders)  # type: ignore[type-var]


@given(candidates=st.permutations([Candidate(name, Decimal(1), 0.5) for name in "abc"]))
def test_a_tie_goes_by_name(candidates: list[Candidate]) -> None:
    assert [c.name for c in order_by_expected_cost(candidates)] == ["a", "b", "c"]


def test_trying_the_small_model_first_pays_when_it_costs_less_than_it_saves() -> None:
    """c1 < p1 * c2, and not at equality."""
    large = Candidate("large", Decimal("1.00"), 0.99)
    for cost, tried in (("0.59", True), ("0.60", False), ("0.61", False)):
        order = order_by_expected_cost(
            [Candidate("small", Decimal(cost), 0.6)], last=large
        )
        assert [c.name for c in order] == (["small", "large"] if tried else ["large"])


def test_an_unknown_cost_is_not_zero() -> None:
    """It comes last, is worth no try before a model with a price, and makes the chain's cost unknown."""
    unknown, useless, known = (
        Candidate("a", None, 0.9),
        Candidate("b", Decimal(0), 0.0),
        Candidate("c", Decimal(1), 0.9),
    )
    assert order_by_expected_cost([unknown, useless, known]) == (
        known,
        useless,
        unknown,
    )
    assert order_by_expected_cost([unknown, useless], last=known) == (known,)
    assert order_by_expected_cost([known, useless], last=unknown) == (known, unknown)
    assert expected_cost([known, unknown]) is None
    assert expected_cost([Candidate("sure", Decimal(2), 1.0), unknown]) == 2


def test_mean_usage_with_long_prompts_costs_the_price_for_long_prompts() -> None:
    """An expected cost by the usual price would rank a model too low whose prompts are long."""
    price = {
        "input": 1,
        "output": 2,
        "above": {"prompt_tokens": 1000, "input": 10, "output": 20},
        "source": "test",
        "date": TODAY,
    }
    model = Model.model_validate(
        {
            "tier": "proprietary",
            "context_tokens": 8000,
            "max_output_tokens": 500,
            "price": price,
            "strength": 50,
        }
    )
    usual = MeanUsage(prompt_tokens=1000, completion_tokens=500)
    long = MeanUsage(prompt_tokens=1000.5, completion_tokens=500)
    assert usual.cost(model) == Decimal("0.002")
    assert long.cost(model) == Decimal("0.020005")
