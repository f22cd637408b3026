"""Price bands: what a call costs online, by the flex service tier and in a batch."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.calls import CALL, ask, catalog_at
from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import Fault, Standin, status
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT
from tierwise.engine import Engine
from tierwise.errors import CallError, ConfigError
from tierwise.policy.catalog import Model, load_catalog
from tierwise.policy.prices import BANDS, Band, BandPrice, Price, ReducedPrice
from tierwise.policy.router import worst_case
from tierwise.project import Project
from tierwise.records import Batch, Document, Transport, Usage

SOURCE = {"source": "a test", "date": "2026-11-28"}
CATALOG = """\
version: 1
tiers:
  hosted: {description: elsewhere}
models:
  small:
    tier: hosted
    litellm_params: {model: anthropic/claude-haiku-5-5}
    context_tokens: 8000
    max_output_tokens: 1000
    strength: 10
    price: {input: 2, output: 10, source: x, date: 2026-11-28}
    batch: {api: anthropic, discount: 0.5}
"""


def a_model(price: Any, batch: Any = None, **settings: Any) -> Model:
    return Model.model_validate(
        {
            "name": "m",
            "tier": "t",
            "litellm_params": {"model": "openai/m"},
            "context_tokens": 1_000_000,
            "max_output_tokens": 100_000,
            "strength": 1,
            "price": price,
            "batch": batch,
            **settings,
        }
    )


# ---- arithmetic

usd = st.decimals(min_value=0, max_value=100, places=4)
maybe_usd = st.none() | usd
counts = st.integers(0, 300_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    plain, cached, five, hour, answer = (draw(counts) for _ in range(5))
    prompt = plain + cached + five + hour
    return Usage(prompt, answer, cached, five + hour, hour)


@st.composite
def band_prices(draw: st.DrawFn) -> dict[str, Any]:
    names = ("cached_input", "cache_write", "cache_write_1h")
    prices: dict[str, Any] = {name: draw(maybe_usd) for name in names}
    return {"input": draw(usd), "output": draw(usd), **prices}


@st.composite
def prices(draw: st.DrawFn) -> dict[str, Any]:
    above = None
    if draw(st.booleans()):
        above = {**draw(band_prices()), "prompt_tokens": draw(st.integers(1, 500_000))}
    return {**draw(band_prices()), "above": above}


discounts = st.decimals(min_value=0, max_value="0.99", places=2)


def by_hand(price: dict[str, Any], usage: Usage) -> Decimal:
    """The cost as an invoice adds it up: each kind of token at its own price."""
    above = price["above"]
    if above and usage.prompt_tokens > above["prompt_tokens"]:
        price = above
    plain = price["input"]
    read = plain if price["cached_input"] is None else price["cached_input"]
    write = plain if price["cache_write"] is None else price["cache_write"]
    hour = write if price["cache_write_1h"] is None else price["cache_write_1h"]
    five_minutes = usage.cache_write_tokens - usage.cache_write_1h_tokens
    fresh = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
    lines = [
        fresh * plain,
        usage.cached_tokens * read,
        five_minutes * write,
        usage.cache_write_1h_tokens * hour,
        usage.completion_tokens * price["output"],
    ]
    return sum(lines, Decimal(0)) / 1_000_000


@given(prices(), usages(), discounts, discounts)
def test_a_cost_is_the_sum_of_its_parts_in_every_band(
    price: dict[str, Any], usage: Usage, flex: Decimal, batch: Decimal
) -> None:
    model = a_model(
        {**price, **SOURCE, "flex": {"discount": flex}},
        {"api": "openai", "discount": batch},
    )
    online = by_hand(price, usage)
    assert model.cost(usage) == online
    assert model.cost(usage, "flex") == online * (1 - flex)
    assert model.cost(usage, "batch") == online * (1 - batch)


@given(prices(), prices(), usages())
def test_a_band_with_a_price_of_its_own_has_its_long_prompts_too(
    price: dict[str, Any], own: dict[str, Any], usage: Usage
) -> None:
    model = a_model(
        {**price, **SOURCE, "flex": {"price": own}}, {"api": "openai", "price": own}
    )
    assert model.cost(usage, "flex") == by_hand(own, usage)
    assert model.cost(usage, "batch") == by_hand(own, usage)


@given(prices(), usages(), discounts, st.sampled_from(BANDS))
def test_a_reservation_covers_whatever_the_cache_does(
    price: dict[str, Any], usage: Usage, discount: Decimal, band: Band
) -> None:
    reduced = {"discount": discount}
    model = a_model(
        {**price, **SOURCE, "flex": reduced},
        {"api": "openai", **reduced},
        token_margin=1,
    )
    reserved = worst_case(model, usage.prompt_tokens, usage.completion_tokens, band)
    within = replace(
        usage, completion_tokens=min(usage.completion_tokens, model.max_output_tokens)
    )
    cost = model.cost(within, band)
    assert reserved is not None
    assert cost is not None
    assert cost <= reserved


@given(usages(), st.sampled_from(BANDS))
def test_what_is_unknown_stays_unknown_in_every_band(usage: Usage, band: Band) -> None:
    unpriced = a_model("unknown", {"api": "openai", "discount": "0.5"})
    assert unpriced.cost(usage, band) is None
    assert worst_case(unpriced, 10, 10, band) is None
    priced = a_model({"input": 1, "output": 1, **SOURCE})
    assert priced.cost(None, band) is None


@given(usages())
def test_a_band_without_a_price_costs_as_much_as_online(usage: Usage) -> None:
    model = a_model({"input": 1, "output": 3, **SOURCE})
    assert model.cost(usage, "flex") == model.cost(usage) == model.cost(usage, "batch")


@given(prices(), usages(), st.booleans())
def test_a_free_model_costs_nothing_whatever_is_reported(
    price: dict[str, Any], usage: Usage, reported: bool
) -> None:
    zero = {**dict.fromkeys(price, 0), "above": None}
    model = a_model({**zero, **SOURCE})
    assert model.billed(usage if reported else None, "online", "priority") == 0


@pytest.mark.parametrize(
    ("transport", "tier", "band"),
    [
        ("online", None, "online"),
        ("online", "default", "online"),
        ("online", "standard", "online"),
        ("online", "on_demand", "online"),
        ("online", "flex", "flex"),
        ("online", "FLEX", "flex"),
        ("online", "ON_DEMAND_FLEX", "flex"),
        ("batch", None, "batch"),
        ("batch", "default", "batch"),
        ("batch", "standard", "batch"),
    ],
)
def test_the_reported_service_tier_decides_the_price(
    transport: Transport, tier: str | None, band: Band
) -> None:
    price = {"input": 8, "output": 8, "flex": {"discount": "0.5"}, **SOURCE}
    model = a_model(price, {"api": "openai", "discount": "0.75"})
    usage = Usage(1000, 10)
    assert model.billed(usage, transport, tier) == model.cost(usage, band)


def test_a_priority_tier_costs_more_than_the_catalog_knows() -> None:
    model = a_model({"input": 8, "output": 8, **SOURCE})
    assert model.billed(Usage(1000, 10), "online", "priority") is None


# ---- what is wrong with a catalog


def said(tmp_path: Path, old: str, new: str) -> str:
    assert old in CATALOG
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_catalog(path)
    return str(caught.value).removeprefix(f"{tmp_path}/")


BATCH = "{api: anthropic, discount: 0.5}"
WRONG_BATCHES = {
    "no price": ("{api: anthropic}", "batch"),
    "two prices": (
        "{api: anthropic, discount: 0.5, price: {input: 1, output: 2}}",
        "batch",
    ),
    "no format": ("{discount: 0.5}", "batch → api"),
    "an unknown format": ("{api: bedrock, discount: 0.5}", "batch → api"),
    "another provider's format": ("{api: openai, discount: 0.5}", ""),
    "free": ("{api: anthropic, discount: 1}", "batch → discount"),
    "a negative discount": ("{api: anthropic, discount: -0.1}", "batch → discount"),
    "a percentage": ("{api: anthropic, discount: 50}", "batch → discount"),
    "half a price": ("{api: anthropic, price: {input: 1}}", "batch → price → output"),
    "no items": (
        "{api: anthropic, discount: 0.5, max_items: 0}",
        "batch → max_items",
    ),
    "no bytes": (
        "{api: anthropic, discount: 0.5, max_bytes: 0}",
        "batch → max_bytes",
    ),
    "no window": (
        "{api: anthropic, discount: 0.5, window_hours: 0}",
        "batch → window_hours",
    ),
    "longer than the window": (
        "{api: anthropic, discount: 0.5, window_hours: 1, expected_minutes: 61}",
        "batch",
    ),
    "a misspelt setting": (
        "{api: anthropic, discount: 0.5, max_item: 10}",
        "batch → max_item",
    ),
}


@pytest.mark.parametrize("case", WRONG_BATCHES)
def test_a_wrong_batch_is_refused_at_its_place(tmp_path: Path, case: str) -> None:
    wrong, place = WRONG_BATCHES[case]
    found = said(tmp_path, BATCH, wrong)
    assert found.startswith("catalog.yaml:12: ")
    assert place in found


def test_only_a_priced_model_of_a_provider_has_a_batch_price(tmp_path: Path) -> None:
    unknown = CATALOG.replace(
        "{input: 2, output: 10, source: x, date: 2026-11-28}", "unknown"
    )
    path = tmp_path / "catalog.yaml"
    path.write_text(unknown)
    assert load_catalog(path).models["small"].cost(Usage(1, 1), "batch") is None
    path.write_text(unknown.replace("discount: 0.5", "price: {input: 1, output: 2}"))
    with pytest.raises(ConfigError) as caught:
        load_catalog(path)
    assert str(caught.value).startswith(f"{path}:12: ")
    learned = "tier: hosted\n    learned: classify"
    params = "    litellm_params: {model: anthropic/claude-haiku-5-5}\n"
    path.write_text(CATALOG.replace("tier: hosted", learned).replace(params, ""))
    with pytest.raises(ConfigError) as caught:
        load_catalog(path)
    assert str(caught.value).startswith(f"{path}:12: ")


def test_a_gateway_may_speak_another_format_than_the_models_provider(
    tmp_path: Path,
) -> None:
    """Where it takes the same requests: these stay as they are online."""
    path = tmp_path / "catalog.yaml"
    moved = CATALOG.replace("-5-5}", "-5-5, api_base: https://gateway.example/v1}")
    path.write_text(
        moved.replace("api: anthropic", "api: openai").replace("anthropic/", "mistral/")
    )
    assert load_catalog(path).models["small"].batch is not None
    others = (
        moved.replace("api: anthropic", "api: openai"),
        moved.replace("anthropic/", "mistral/"),
        moved.replace("api: anthropic", "api: gemini").replace("anthropic/", "openai/"),
    )
    for text in others:
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_catalog(path)
        assert str(caught.value).startswith(f"{path}:12: ")


def test_a_discount_leaves_what_has_no_price_without_one() -> None:
    half = ReducedPrice(discount=Decimal("0.5")).of(
        Price.model_validate({"input": 2, "output": 4, **SOURCE})
    )
    assert half == BandPrice(input=Decimal(1), output=Decimal(2))


# ---- what servers report

PRICE = (
    "{input: 2, output: 10, cached_input: 0.2, cache_write: 2.5, cache_write_1h: 4, "
)
PRICE += "flex: {discount: 0.5}, source: a test, date: 2026-11-28}"
REPORTED = {
    "prompt_tokens": 1000,
    "completion_tokens": 10,
    "total_tokens": 1010,
    "prompt_tokens_details": {"cached_tokens": 200, "cache_write_tokens": 300},
}
ONLINE = (
    500 * Decimal(2) + 200 * Decimal("0.2") + 300 * Decimal("2.5") + 10 * Decimal(10)
) / 1_000_000


@pytest.mark.parametrize(
    ("tier", "cost"),
    [
        (None, ONLINE),
        ("default", ONLINE),
        ("flex", ONLINE / 2),
        ("priority", None),
    ],
)
@pytest.mark.parametrize("lane", ["lean", "litellm"])
def test_a_run_pays_the_tier_that_the_server_granted(
    tmp_path: Path,
    standin: Standin,
    lane: str,
    tier: str | None,
    cost: Decimal | None,
) -> None:
    standin.answer(GOOD)
    standin.faults([Fault(usage=REPORTED, service_tier=tier)])
    entry = model("small", standin.url, price=PRICE) + f"    lane: {lane}\n"
    rules = RULES.replace("[small, large]", "[small]")
    root = make_project(tmp_path, entry, rules=rules)
    batch = Batch((Document(id="0", text=TEXT, sensitivity="internal"),))
    with closing(Engine(Project(root), env={})) as engine:
        started = engine.start_run("test", budget_usd=Decimal(1))
        [document] = engine.run_batch(started, CLASSIFY, batch, LABELS).load()
        [attempt] = document.outcomes["classify"].attempts
        [recorded] = engine.ledger.runs.attempts(started.id)
    assert attempt.cost == recorded.cost == cost
    assert attempt.service_tier == recorded.service_tier == tier
    assert attempt.usage == recorded.usage == Usage(1000, 10, 200, 300)


@pytest.mark.parametrize("name", ["openai", "openai-litellm", "anthropic"])
def test_each_lane_reads_the_service_tier(standin: Standin, name: str) -> None:
    standin.faults([Fault(service_tier="flex"), Fault(), Fault(service_tier="sk-1 x")])
    call = replace(CALL, model=name)
    replies = [ask(catalog_at(standin.url), call)[0] for _ in range(3)]
    assert [reply.service_tier for reply in replies] == ["flex", None, None]


def test_gemini_names_its_service_tier_in_a_header(standin: Standin) -> None:
    standin.faults([Fault(headers={"x-gemini-service-tier": "flex"})])
    [reply] = ask(catalog_at(standin.url), replace(CALL, model="gemini"))
    assert reply.service_tier == "flex"


def test_an_error_with_a_usage_has_its_service_tier(standin: Standin) -> None:
    body = {
        "error": {"message": "no answer"},
        "service_tier": "flex",
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }
    fault = replace(status(500, "x"), body=json.dumps(body).encode())
    standin.faults([fault, Fault(refusal="no", service_tier="flex")])
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            ask(catalog_at(standin.url), CALL)
        assert caught.value.service_tier == "flex"
