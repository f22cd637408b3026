"""The choice of a call's lane, and the lean lane's limits; no proxy sees calls in the house."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from tests.kit.calls import (
    BOTH_LANES,
    CALL,
    DOCUMENT,
    ENV,
    ask,
    catalog,
    catalog_at,
    entry,
    forced_lane,
)
from tests.kit.standin import Fault, Standin
from tierwise.errors import BadReply, CallError, ModelUnavailable, Unreachable
from tierwise.gateway import Gateway
from tierwise.gateway.litellm_lane import IN_HOUSE
from tierwise.gateway.resolved_model import ResolvedModel, resolve_model
from tierwise.policy.catalog import Model
from tierwise.records import Message

HERE = "http://127.0.0.1:8000/v1"


def target(
    litellm_model: str,
    api_base: str | None,
    hosts: tuple[str, ...] = (),
    **settings: Any,
) -> ResolvedModel:
    model = Model.model_validate(
        {"name": "it", **entry(litellm_model, api_base, **settings)}
    )
    return resolve_model(model, model.resolved_params(ENV), hosts)


@pytest.mark.parametrize(
    ("litellm_model", "api_base", "lane"),
    [
        ("openai/qwen", HERE, "lean"),
        ("hosted_vllm/qwen", "http://gpu.example.com/v1", "lean"),
        ("lm_studio/qwen", HERE, "lean"),
        ("llamafile/qwen", HERE, "lean"),
        ("openai/gpt-oss-20b", HERE, "lean"),
        (
            "openai/https://clarifai.com/a/b/models/c",
            "https://api.clarifai.com/v2/ext/openai/v1",
            "lean",
        ),
        ("openai/small", None, "litellm"),
        ("openai/small", "https://api.openai.com/v1", "litellm"),
        ("openai/small", "https://eu.api.openai.com/v1", "litellm"),
        ("openai/my-deployment", "https://mine.openai.azure.com/openai/v1", "litellm"),
        ("openai/gpt-6-luna", HERE, "litellm"),
        ("openai/o5-mini", HERE, "litellm"),
        ("mistral/mistral-small", HERE, "litellm"),
        ("anthropic/claude", HERE, "litellm"),
    ],
)
def test_servers_that_speak_openais_format_are_called_directly(
    litellm_model: str, api_base: str | None, lane: str
) -> None:
    """OpenAI's own models are not: some refuse a temperature, and LiteLLM knows which."""
    assert target(litellm_model, api_base).lane == lane


@pytest.mark.parametrize("lane", ["lean", "litellm"])
@pytest.mark.parametrize(
    "litellm_model", ["openai/qwen", "openai/gpt-6-luna", "mistral/small"]
)
def test_an_entry_may_force_either_lane(litellm_model: str, lane: str) -> None:
    assert target(litellm_model, HERE, lane=lane).lane == lane


def test_a_parameter_that_only_litellm_knows_takes_its_lane() -> None:
    assert (
        target("openai/qwen", HERE, params={"api_version": "2026-01-01"}).lane
        == "litellm"
    )


def test_the_lean_lane_refuses_what_it_does_not_know_and_says_what_to_do() -> None:
    with pytest.raises(
        ModelUnavailable,
        match=r"`api_version`, `mock_response`; put it under `extra_body`",
    ):
        target(
            "openai/qwen",
            HERE,
            lane="lean",
            params={"mock_response": "x", "api_version": "1"},
        )
    with pytest.raises(ModelUnavailable, match="needs `api_base`"):
        target("openai/qwen", None, lane="lean")


@pytest.mark.parametrize("name", ["extra_body", "extra_headers"])
def test_extras_without_names_are_refused(name: str) -> None:
    with pytest.raises(ModelUnavailable, match=f"`{name}` must be names with values"):
        target("openai/qwen", HERE, params={name: ["a"]})


@pytest.mark.parametrize(
    ("api_base", "direct"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://10.1.2.3/v1", True),
        ("http://gpu.house/v1", True),
        ("https://api.example.com/v1", False),
        (None, False),
    ],
)
def test_an_address_in_the_house_is_called_past_any_proxy(
    api_base: str | None, direct: bool
) -> None:
    assert target("openai/qwen", api_base, hosts=("gpu.house",)).direct is direct


@BOTH_LANES
def test_both_lanes_honour_the_catalogs_parameters_alike(
    standin: Standin, name: str
) -> None:
    params = {
        "temperature": None,
        "top_k": 20,
        "seed": 7,
        "stop": ["\n\n"],
        "extra_body": {
            "cache_prompt": True,
            "chat_template_kwargs": {"enable_thinking": False},
        },
        "extra_headers": {"X-Team": "mail room"},
        "timeout": 0.000001,
        "drop_params": True,
    }
    ask(catalog_at(standin.url, params=params), replace(CALL, model=name))
    sent = standin.last.body
    assert "temperature" not in sent, "null leaves it out"
    assert (sent["top_k"], sent["seed"], sent["stop"]) == (20, 7, ["\n\n"])
    assert sent["cache_prompt"] is True
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent.keys().isdisjoint(
        {"timeout", "drop_params", "extra_body", "api_key", "api_base"}
    )
    assert standin.last.headers["x-team"] == "mail room"
    assert standin.last.headers["authorization"] == f"Bearer {ENV['API_KEY']}"


@BOTH_LANES
@pytest.mark.parametrize("end", ["/v1", "/v1/", "/v1/chat/completions"])
def test_an_address_may_end_as_it_likes(standin: Standin, name: str, end: str) -> None:
    ask(
        catalog({name: entry("openai/small", standin.url + end, **forced_lane(name))}),
        replace(CALL, model=name),
    )
    assert standin.last.path == "/v1/chat/completions"


@BOTH_LANES
@pytest.mark.parametrize(
    "text", ["half a character: \ud83d", "naïve – 文書 🙂", 'quotes " and \\ and \x00']
)
def test_any_text_arrives_as_it_is(standin: Standin, name: str, text: str) -> None:
    standin.answer("billing")
    ask(
        catalog_at(standin.url),
        replace(CALL, model=name, messages=(Message("user", text),)),
    )
    assert standin.last.body["messages"][-1]["content"] == text


@BOTH_LANES
@pytest.mark.parametrize(
    "thought", ["<think>Who knows?</think>\n", "<thinking>\nA {brace}.\n</thinking>"]
)
def test_what_a_model_thinks_aloud_first_is_no_part_of_its_answer(
    standin: Standin, name: str, thought: str
) -> None:
    standin.answer(thought + "billing")
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=name))
    assert reply.text.strip() == "billing"
    assert reply.usage is not None


@BOTH_LANES
@pytest.mark.parametrize(
    ("said", "meant"),
    [("max_tokens", "length"), ("eos_token", "stop"), (None, "stop"), ("odd", "odd")],
)
def test_finish_reasons_are_put_in_openais_words(
    standin: Standin, name: str, said: str, meant: str
) -> None:
    standin.faults([Fault(finish_reason=said)])
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=name))
    assert reply.finish_reason == meant


@BOTH_LANES
def test_a_secret_among_the_headers_is_not_shown(standin: Standin, name: str) -> None:
    secret = "opensesame-1234"
    standin.faults(
        [
            Fault(
                status=401,
                body=json.dumps(
                    {"error": {"message": f"Bad {secret}, sorry"}}
                ).encode(),
            )
        ]
    )
    with pytest.raises(CallError) as caught:
        ask(
            catalog_at(standin.url, params={"extra_headers": {"X-Auth": secret}}),
            replace(CALL, model=name),
        )
    assert "sorry" in str(caught.value)
    assert secret not in str(caught.value)


@BOTH_LANES
def test_a_packed_reply_is_unpacked(standin: Standin, name: str) -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "billing"},
        "finish_reason": "stop",
    }
    reply = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    standin.faults(
        [
            Fault(
                body=gzip.compress(json.dumps(reply).encode()),
                headers={"Content-Encoding": "gzip"},
            )
        ]
    )
    assert ask(catalog_at(standin.url), replace(CALL, model=name))[0].text == "billing"


@BOTH_LANES
def test_a_packed_reply_that_unpacks_to_very_much_is_no_answer(
    standin: Standin, name: str
) -> None:
    bomb = gzip.compress(b" " * (64 * 2**20), compresslevel=1)
    standin.faults([Fault(body=bomb, headers={"Content-Encoding": "gzip"})])
    with pytest.raises(BadReply, match="larger than any answer"):
        ask(catalog_at(standin.url), replace(CALL, model=name))


@BOTH_LANES
def test_a_connection_is_used_again_and_lost_without_a_second_request(
    standin: Standin, name: str
) -> None:
    """HTTP clients like to repeat a request when a kept connection turns out to be dead."""
    call = replace(CALL, model=name)

    async def go() -> None:
        gateway = Gateway(catalog_at(standin.url), ENV)
        await gateway.complete(call)
        await gateway.complete(call)
        assert standin.connections == 1
        standin.faults([Fault(cut_at=0)])
        with pytest.raises(Unreachable):
            await gateway.complete(call)
        assert standin.count == 3
        await gateway.complete(call)
        await gateway.aclose()

    asyncio.run(go())
    assert standin.count == 4


@BOTH_LANES
def test_as_many_calls_run_at_once_as_are_made(standin: Standin, name: str) -> None:
    """The limit is the model's `concurrency`, which the caller keeps; the pool sets no other."""
    standin.hold(150)
    calls = [replace(CALL, model=name, max_tokens=n) for n in range(1, 151)]
    assert len(ask(catalog_at(standin.url), *calls)) == 150


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """A proxy that the environment asks everyone to use."""
    with Standin() as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, server.url)
            monkeypatch.setenv(name.lower(), server.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield server


@BOTH_LANES
def test_a_model_outside_is_reached_through_the_proxy(
    proxy: Standin, name: str
) -> None:
    outside = entry("openai/small", "http://provider.invalid/v1", **forced_lane(name))
    assert ask(catalog({name: outside}), replace(CALL, model=name))[0].text
    assert proxy.last.headers["host"] == "provider.invalid"


@BOTH_LANES
def test_an_exception_from_the_proxy_is_kept(
    proxy: Standin, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "provider.invalid")
    outside = entry("openai/small", "http://provider.invalid/v1", **forced_lane(name))
    with pytest.raises(Unreachable, match="no such host"):
        ask(catalog({name: outside}), replace(CALL, model=name))
    assert proxy.count == 0


@pytest.mark.filterwarnings("ignore:.*ReadOnly")  # LiteLLM's and Pydantic's business
@pytest.mark.parametrize("lane", ["lean", "litellm"])
@pytest.mark.parametrize("provider", sorted(IN_HOUSE))
def test_no_proxy_sees_a_document_that_stays_in_the_house(
    standin: Standin, proxy: Standin, provider: str, lane: str
) -> None:
    """Whichever way LiteLLM talks to a local server, and whatever the environment says."""
    model = entry(f"{provider}/small", standin.url + "/v1", tier="local", lane=lane)
    foreign = (
        provider.startswith("ollama") and lane == "litellm"
    )  # a format that the stand-in does not speak
    with pytest.raises(CallError) if foreign else nullcontext():
        ask(catalog({"openai": model}), CALL)
    assert standin.last.document == DOCUMENT or DOCUMENT in json.dumps(
        standin.last.body
    )
    assert DOCUMENT not in json.dumps([request.body for request in proxy.requests])


@pytest.mark.parametrize("provider", ["oobabooga", "cohere", "sagemaker", "lemonade"])
def test_a_provider_with_a_client_of_its_own_is_not_called_in_the_house(
    standin: Standin, proxy: Standin, provider: str
) -> None:
    """Those clients would take the document to the proxy."""
    with pytest.raises(ModelUnavailable, match="write `openai/<model>`"):
        ask(
            catalog(
                {
                    "openai": entry(
                        f"{provider}/small", standin.url + "/v1", tier="local"
                    )
                }
            ),
            CALL,
        )
    assert (standin.count, proxy.count) == (0, 0)
