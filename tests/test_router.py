"""The router: whatever it is asked, it never names a model that a guard, the house or the purse forbids."""

from __future__ import annotations

import datetime
import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import Certificates, Current
from tierwise.policy.router import Policy, choices, route, worst_case
from tierwise.policy.rules import Features, Rules
from tierwise.records import SENSITIVITIES, Rejection, Route, Usage

TIERS = ("local", "clarifai", "proprietary")
NAMES = ("a", "b", "c", "d", "e")
STEPS = ("classify", "draft")
PRICE = {"input": 1, "output": 2, "source": "test", "date": "2026-11-22"}


def model(tier: str = "local", **settings: Any) -> dict[str, Any]:
    needed = {
        "context_tokens": 8000,
        "max_output_tokens": 1000,
        "strength": 10,
        "price": PRICE,
        "token_margin": 1,
    }
    return {"tier": tier, "litellm_params": {"model": "openai/m"}, **needed, **settings}


def policy(
    models: dict[str, Any], unavailable: dict[str, str] | None = None, **rules: Any
) -> Policy:
    tiers = {tier: {"description": tier} for tier in TIERS}
    routes = rules.pop("routes", [{"name": "default", "try": list(models)}])
    return Policy(
        catalog=Catalog.model_validate(
            {"version": 1, "tiers": tiers, "models": models}
        ),
        rules=Rules.model_validate({"version": 1, "routes": routes, **rules}),
        unavailable=unavailable or {},
    )


F = Features(step="draft", tokens=500, prompt_tokens=600, sensitivity="internal")


# ---- what always holds --------------------------------------------------------------------------

amounts = st.decimals(min_value=0, max_value=5, places=3).map(str)
prices = st.just("unknown") | st.fixed_dictionaries(
    {
        "input": amounts,
        "output": amounts,
        "source": st.just("test"),
        "date": st.just("2026-11-22"),
    }
)
models = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(
        model,
        st.sampled_from(TIERS),
        context_tokens=st.integers(1, 4000),
        max_output_tokens=st.integers(1, 2000),
        strength=st.integers(0, 100),
        token_margin=st.floats(1, 2),
        price=prices,
    ),
    min_size=1,
)
conditions = st.fixed_dictionaries(
    {},
    optional={
        "step": st.lists(st.sampled_from(STEPS), min_size=1),
        "sensitivity_min": st.sampled_from(SENSITIVITIES),
        "tokens_max": st.integers(0, 1000),
        "stakes": st.lists(st.sampled_from(["low", "normal", "high"]), min_size=1),
        "tags": st.just({"desk": "legal"}),
        "budget_used_min": st.floats(0, 1),
    },
)
guards = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.just("g"),
            "when": conditions,
            "allow_tiers": st.lists(st.sampled_from(TIERS), unique=True),
        }
    ),
    max_size=4,
)
questions = st.builds(
    Features,
    step=st.sampled_from(STEPS),
    tokens=st.integers(0, 1500),
    prompt_tokens=st.integers(0, 3000),
    sensitivity=st.sampled_from(SENSITIVITIES),
    language=st.sampled_from([None, "en", "de"]),
    stakes=st.sampled_from(["low", "normal", "high"]),
    tags=st.sampled_from([{}, {"desk": "legal"}]),
    outcomes=st.just({}),
    budget_used=st.floats(0, 1),
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    catalog = draw(models)
    names = st.lists(st.sampled_from(sorted(catalog)), min_size=1)
    ways = st.fixed_dictionaries({"try": names}) | st.just({"pick": "cheapest_capable"})
    routes = [
        {"name": f"r{i}", "when": draw(conditions), **draw(ways)}
        for i in range(draw(st.integers(0, 3)))
    ]
    return policy(
        catalog,
        draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", "set KEY"]))),
        guards=draw(guards),
        routes=[*routes, {"name": "default", **draw(ways)}],
        budget={"allow_unpriced": draw(st.lists(st.sampled_from(sorted(catalog))))},
    )


@given(
    f=questions,
    p=policies(),
    output=st.integers(1, 2000),
    splits=st.booleans(),
    left=st.none() | st.decimals(min_value=0, max_value="0.02", places=6),
)
def test_a_route_names_only_what_is_allowed_and_gives_a_reason_for_the_rest(
    f: Features, p: Policy, output: int, splits: bool, left: Decimal | None
) -> None:
    found = route(f, p, max_output_tokens=output, splits=splits, budget_left=left)
    for name in found.models:
        chosen = p.catalog.models[name]
        prompt, answer = (
            math.ceil(f.prompt_tokens * chosen.token_margin),
            min(output, chosen.max_output_tokens),
        )
        cost = chosen.cost(Usage(prompt, answer))
        assert all(
            chosen.tier in guard.allow_tiers
            for guard in p.rules.guards
            if guard.when.matches(f)
        )
        assert name not in p.unavailable
        assert splits or prompt + answer <= chosen.context_tokens
        if left is not None:
            assert (
                name in p.rules.budget.allow_unpriced if cost is None else cost <= left
            )
    rule = p.rules.matching(f)
    assert rule is not None
    candidates = set(rule.candidates) or set(p.catalog.models)
    named = [*found.models, *(rejection.model for rejection in found.rejected)]
    assert sorted(named) == sorted(candidates)
    assert all(rejection.reason.strip() for rejection in found.rejected)
    assert found.reason


@given(
    f=questions,
    p=policies(),
    left=st.none() | st.decimals(min_value=0, max_value="0.02", places=6),
)
def test_the_same_question_gets_the_same_route(
    f: Features, p: Policy, left: Decimal | None
) -> None:
    """Also from files that were read anew, in another order of models."""
    models = dict(reversed(p.catalog.model_dump(mode="json")["models"].items()))
    again = replace(
        p,
        catalog=Catalog.model_validate(
            {**p.catalog.model_dump(mode="json"), "models": models}
        ),
        rules=Rules.model_validate(p.rules.model_dump(mode="json", by_alias=True)),
    )
    assert again.hash == p.hash
    asked = {"max_output_tokens": 100, "budget_left": left}
    assert route(f, again, **asked) == route(f, p, **asked)  # type: ignore[arg-type]


@given(f=questions, p=policies(), name=st.sampled_from(NAMES))
def test_one_more_guard_only_takes_models_away(
    f: Features, p: Policy, name: str
) -> None:
    data = p.rules.model_dump(mode="json", by_alias=True)
    stricter = replace(
        p,
        rules=Rules.model_validate(
            {
                **data,
                "guards": [*data["guards"], {"name": name, "allow_tiers": ["local"]}],
            }
        ),
    )
    before = route(f, p, max_output_tokens=100).models
    after = route(f, stricter, max_output_tokens=100).models
    assert after == tuple(
        name for name in before if p.catalog.models[name].tier == "local"
    )


# ---- each reason --------------------------------------------------------------------------------


def only(p: Policy, f: Features = F, **asked: Any) -> Route:
    return route(f, p, **{"max_output_tokens": 100, **asked})


def test_models_come_in_the_order_that_the_route_names() -> None:
    found = only(
        policy(
            {"a": model(), "b": model()},
            routes=[{"name": "r", "try": ["b", "a"], "review": "human"}],
        )
    )
    assert found == Route(
        step="draft",
        rule="r",
        models=("b", "a"),
        review="human",
        reason="the order that the route names",
    )


def test_a_model_named_twice_is_tried_once() -> None:
    assert only(
        policy({"a": model()}, routes=[{"name": "r", "try": ["a", "a"]}])
    ).models == ("a",)


def test_without_proof_the_strongest_allowed_model_comes_first() -> None:
    entries = {
        "a": model(strength=5),
        "b": model(strength=90),
        "c": model("proprietary", strength=99),
        "d": model(),
    }
    guard = {"name": "g", "allow_tiers": ["local"]}
    found = only(
        policy(
            entries, guards=[guard], routes=[{"name": "r", "pick": "cheapest_capable"}]
        )
    )
    assert found.models == ("b", "d", "a")
    assert [rejection.model for rejection in found.rejected] == ["c"]


@pytest.mark.parametrize(
    ("entry", "asked", "reason"),
    [
        (model("proprietary"), {}, "guard g: what is internal may only go to local"),
        (
            model(context_tokens=699),
            {},
            "needs about 700 tokens, its context window has 699",
        ),
        (
            model(token_margin=1.5, context_tokens=999),
            {},
            "needs about 1000 tokens, its context window has 999",
        ),
        (
            model(price="unknown"),
            {"budget_left": Decimal(9)},
            "unknown price; add the model to budget.allow_unpriced",
        ),
        (
            model(),
            {"budget_left": Decimal("0.000799")},
            "may cost 0.000800 USD, the budget has 0.000799 left",
        ),
    ],
)
def test_a_model_is_left_out_with_the_reason(
    entry: dict[str, Any], asked: dict[str, Any], reason: str
) -> None:
    found = only(
        policy({"a": entry}, guards=[{"name": "g", "allow_tiers": ["local"]}]), **asked
    )
    assert found.models == ()
    assert found.reason == "no acceptable model is left"
    assert found.rejected[0].reason.startswith(reason)


def test_an_unavailable_model_says_what_to_set() -> None:
    assert only(policy({"a": model()}, {"a": "set KEY"})).rejected == (
        Rejection("a", "unavailable: set KEY", "unavailable", detail="set KEY"),
    )


def test_a_guard_is_named_before_anything_else() -> None:
    """Nobody should set a key for a model that the document may not go to."""
    found = only(
        policy(
            {"a": model("proprietary")},
            {"a": "set KEY"},
            guards=[{"name": "g", "allow_tiers": []}],
        )
    )
    assert found.rejected[0].reason.startswith("guard g")


def test_what_fits_exactly_is_taken() -> None:
    fits = policy({"a": model(context_tokens=700)})
    assert only(fits, budget_left=Decimal("0.0008")).models == ("a",)


def test_a_prompt_that_is_dear_for_its_length_is_held_against_the_purse() -> None:
    """Above a length, some providers charge the whole call at another price."""
    price = {**PRICE, "above": {"prompt_tokens": 600, "input": 10, "output": 20}}
    fits = policy({"a": model(price=price)})
    assert only(fits, budget_left=Decimal("0.0008")).models == ("a",)
    assert (
        only(fits, replace(F, prompt_tokens=601), budget_left=Decimal("0.0008")).models
        == ()
    )
    assert only(
        fits, replace(F, prompt_tokens=601), budget_left=Decimal("0.00801")
    ).models == ("a",)


def test_proof_counts_for_what_it_is_asked_about_and_no_longer() -> None:
    """The same policy answers anew when a prompt has changed in between."""
    certificate = {
        "step": "draft",
        "models": ["a"],
        "prompt": "draft v1",
        "prompt_hash": "p",
        "step_hash": "s",
        "golden": "draft.jsonl",
        "golden_hash": "g",
        "identities": {"a": "i"},
        "n": 100,
        "errors": 0,
        "bound": 0.97,
        "date": "2026-11-22",
        "tierwise_version": "0",
    }
    routes = [{"name": "r", "pick": "cheapest_capable"}]
    asked = replace(
        policy(
            {"a": model(), "b": model(strength=90)},
            routes=routes,
            floors={"draft": 0.9},
        ),
        certificates=Certificates.model_validate({"certificates": [certificate]}),
    )
    now = Current(
        identities={"a": "i"},
        prompt_hash="p",
        step_hash="s",
        today=datetime.date(2026, 11, 22),
    )
    assert only(asked, current=now).models == ("a", "b")
    assert only(asked, current=replace(now, prompt_hash="other")).models == ("b", "a")
    assert only(asked, current=None).models == ("b", "a")
    assert only(asked, current=now).models == ("a", "b")


def test_a_step_that_splits_takes_models_with_small_windows() -> None:
    assert only(policy({"a": model(context_tokens=100)}), splits=True).models == ("a",)


def test_a_model_is_judged_by_what_it_can_write_at_most() -> None:
    """A call never asks for more than the model's own limit, so neither window nor purse need more."""
    short = policy({"a": model(context_tokens=650, max_output_tokens=50)})
    assert only(
        short, max_output_tokens=5000, budget_left=Decimal("0.0007")
    ).models == ("a",)


def test_an_unpriced_model_may_be_called_under_a_budget_that_allows_it() -> None:
    entries = {"a": model(price="unknown")}
    assert only(
        policy(entries, budget={"allow_unpriced": ["a"]}), budget_left=Decimal(0)
    ).models == ("a",)
    assert only(policy(entries)).models == ("a",)


def test_no_matching_route_is_a_route_without_models() -> None:
    """Only rules that were not loaded from a file can lack a last route."""
    rules = [{"name": "r", "when": {"step": "other"}, "try": ["a"]}]
    assert only(policy({"a": model()}, routes=rules)).reason.startswith(
        "no route matches"
    )


def test_the_worst_case_is_never_below_the_estimate() -> None:
    entry = policy({"a": model(token_margin=1.3)}).catalog.models["a"]
    assert worst_case(entry, 1, 0) == Decimal("0.000002")
    assert worst_case(entry, 1000, 5000) == Decimal("0.0033")


def test_the_policys_hash_is_of_both_files_and_not_of_this_machine() -> None:
    before = policy({"a": model()})
    assert replace(before, unavailable={"a": "set KEY"}).hash == before.hash
    assert policy({"a": model(strength=11)}).hash != before.hash
    assert (
        policy({"a": model()}, guards=[{"name": "g", "allow_tiers": []}]).hash
        != before.hash
    )


NOW = Current(
    identities=dict.fromkeys(("cheap", "small", "large", "words"), "i"),
    prompt_hash="p",
    step_hash="s",
    today=datetime.date(2026, 11, 22),
)


def proof(*names: str, **settings: Any) -> dict[str, Any]:
    """A certificate at 0.97 for a model or a chain, each model taking 1,000 tokens in and 100 out."""
    return {
        "step": "draft",
        "models": names,
        "prompt": "draft v1",
        "prompt_hash": "p",
        "step_hash": "s",
        "golden": "draft.jsonl",
        "golden_hash": "g",
        "identities": dict.fromkeys(names, "i"),
        "n": 100,
        "errors": 0,
        "bound": 0.97,
        "mean_usage": {
            name: {"prompt_tokens": 1000, "completion_tokens": 100} for name in names
        },
        "date": "2026-11-22",
        "tierwise_version": "0",
        **settings,
    }


def priced(usd: float, **settings: Any) -> dict[str, Any]:
    return model(price={**PRICE, "input": usd, "output": usd}, **settings)


def proven(catalog: dict[str, Any], *proofs: dict[str, Any], **settings: Any) -> Policy:
    made = policy(
        catalog,
        routes=[{"name": "r", "pick": "cheapest_capable"}],
        **{
            "floors": {"draft": 0.9},
            "escalate": {"on": ["low_confidence"]},
            **settings,
        },
    )
    return replace(
        made, certificates=Certificates.model_validate({"certificates": proofs})
    )


LADDER = {"small": priced(1, strength=20), "large": priced(10, strength=90)}


def test_a_new_price_ranks_anew_without_a_new_certificate() -> None:
    """What was measured are tokens; what they cost is the catalog's business of today."""
    proofs = (proof("small", mean_cost="0.0011"), proof("large", mean_cost="0.011"))
    assert only(proven(LADDER, *proofs), current=NOW).models == ("small", "large")
    dearer = {**LADDER, "small": priced(100, strength=20)}
    assert only(proven(dearer, *proofs), current=NOW).models == ("large",)


def test_the_cost_that_counts_is_that_of_the_whole_way() -> None:
    """A small model that seldom gets an answer through costs its own call and the large one's."""
    catalog = {**LADDER, "small": priced(8, strength=20)}
    seldom = proof("small", n=100, errors=40, deferred=40, bound=0.48)
    assert only(
        proven(catalog, seldom, proof("large"), floors={"draft": 0.4}), current=NOW
    ).models == ("large",)
    often = proof("small")
    assert only(
        proven(catalog, often, proof("large"), floors={"draft": 0.4}), current=NOW
    ).models == ("small", "large")


WORDS = {**LADDER, "words": priced(0, learned="draft", strength=1, litellm_params={})}
SURE = proof("words", threshold=0.8, coverage=0.6)


def test_a_model_that_is_proven_only_where_it_is_sure_keeps_that_and_hands_on_the_rest() -> (
    None
):
    chosen = only(proven(WORDS, SURE, proof("small"), proof("large")), current=NOW)
    assert chosen.models == ("words", "small", "large")
    assert chosen.thresholds == {"words": 0.8}
    assert "words where it is at least 0.80 sure" in chosen.reason


def test_without_escalation_on_low_confidence_a_threshold_is_worth_nothing() -> None:
    chosen = only(
        proven(WORDS, SURE, proof("small"), escalate={"on": ["schema"]}), current=NOW
    )
    assert chosen.models == ("small", "large")
    assert chosen.thresholds == {}


def test_a_chain_keeps_the_threshold_that_it_was_certified_with() -> None:
    chain = proof("small", "large", threshold=0.7, coverage=0.9)
    assert only(proven(LADDER, chain), current=NOW).thresholds == {"small": 0.7}


def test_a_classifier_is_asked_only_with_proof_and_only_for_its_step() -> None:
    """Nothing else tells where it may be trusted."""
    unproven = only(proven(WORDS, proof("large")), current=NOW)
    assert "words" not in unproven.models
    without_any = only(proven(WORDS), current=NOW)
    assert "words" not in without_any.models
    other = only(
        proven(
            {**WORDS, "words": priced(0, learned="classify", litellm_params={})}, SURE
        ),
        current=NOW,
    )
    assert (
        Rejection("words", "is trained for classify only", "other_step")
        in other.rejected
    )


def test_a_named_order_stays_and_takes_only_the_threshold_from_a_certificate() -> None:
    named = proven(WORDS, SURE)
    routes = named.rules.model_copy(
        update={
            "routes": policy(
                WORDS, routes=[{"name": "r", "try": ["words", "large"]}]
            ).rules.routes
        }
    )
    chosen = only(replace(named, rules=routes), current=NOW)
    assert (chosen.models, chosen.thresholds) == (("words", "large"), {"words": 0.8})


def test_a_choice_tells_what_a_call_should_cost_and_what_is_proven() -> None:
    asked = proven(LADDER, proof("small"))
    small, large = choices(
        only(asked, current=NOW),
        replace(F, prompt_tokens=500),
        asked,
        max_output_tokens=300,
        current=NOW,
    )
    # 500 in, and the 100 out that were measured
    assert small.expected_cost == Decimal("0.0006")
    # nothing was measured: all 300 that are allowed
    assert large.expected_cost == Decimal("0.008")
    assert small.proof.startswith("0 errors in 100 show 0.970")
    assert large.proof.startswith("not certified for draft")
