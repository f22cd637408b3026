"""Calls go out in each provider's format, once; a reply claims only what the server said."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from tests.kit.calls import (
    BOTH_LANES,
    CALL,
    CLARIFAI_MODEL,
    DOCUMENT,
    ENV,
    MODELS,
    OPENAI_FORMAT,
    ask,
    catalog,
    catalog_at,
    entry,
    forced_lane,
)
from tests.kit.standin import NO_USAGE, Fault, Request, Standin, status
from tierwise import errors
from tierwise.errors import BadReply, ModelUnavailable, UnknownName
from tierwise.gateway import Gateway
from tierwise.records import Message, Reply, Usage

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["billing", "other"]},
        "evidence": {"type": "string"},
    },
    "required": ["label", "evidence"],
    "additionalProperties": False,
}
FORMATS = sorted(MODELS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_reply_carries_text_usage_and_what_served_it(
    standin: Standin, name: str
) -> None:
    standin.answer("billing")
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=name))
    assert (reply.text, reply.finish_reason) == ("billing", "stop")
    assert reply.usage is not None
    assert reply.usage.prompt_tokens > reply.usage.completion_tokens > 0
    assert reply.served_model == standin.last.model
    assert reply.latency_s > 0
    assert standin.count == 1


@pytest.mark.parametrize("name", FORMATS)
def test_the_prompt_arrives_whole_with_its_limit(standin: Standin, name: str) -> None:
    ask(catalog_at(standin.url), replace(CALL, model=name))
    body = json.dumps(standin.last.body)
    assert standin.last.document == DOCUMENT
    assert "Sort the document." in body
    assert any(
        f'"{limit}": 50' in body
        for limit in ("max_tokens", "max_completion_tokens", "max_output_tokens")
    )
    assert '"stream": true' not in body


@pytest.mark.parametrize("name", ["clarifai", "clarifai-litellm"])
def test_clarifai_is_called_under_its_own_path_with_the_models_address(
    standin: Standin, name: str
) -> None:
    ask(catalog_at(standin.url), replace(CALL, model=name))
    assert standin.last.path == "/v2/ext/openai/v1/chat/completions"
    assert standin.last.body["model"] == CLARIFAI_MODEL
    assert standin.last.headers["authorization"] == "Bearer sk-test-0123456789"


@pytest.mark.parametrize("name", FORMATS)
def test_a_schema_reaches_every_provider_and_the_answer_comes_back_as_text(
    standin: Standin, name: str
) -> None:
    call = replace(CALL, model=name, response_schema=SCHEMA, schema_name="classify")
    [reply] = ask(catalog_at(standin.url), call)
    sent = standin.last.schema
    assert sent is not None
    assert sent["properties"]["label"]["enum"] == ["billing", "other"]
    value = json.loads(reply.text)
    jsonschema.validate(value, SCHEMA)
    assert value["evidence"] in DOCUMENT


@BOTH_LANES
def test_an_openai_schema_is_named_and_strict(standin: Standin, name: str) -> None:
    ask(
        catalog_at(standin.url),
        replace(CALL, model=name, response_schema=SCHEMA, schema_name="classify"),
    )
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "classify", "schema": SCHEMA, "strict": True},
    }
    assert standin.last.body["response_format"] == wanted


@BOTH_LANES
def test_a_model_that_is_instructed_gets_no_schema(standin: Standin, name: str) -> None:
    models = catalog_at(standin.url, structured_output="instruct")
    ask(models, replace(CALL, model=name, response_schema=SCHEMA))
    assert "response_format" not in standin.last.body


@BOTH_LANES
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_temperature_is_sent_as_given(
    standin: Standin, name: str, temperature: float
) -> None:
    ask(catalog_at(standin.url), replace(CALL, model=name, temperature=temperature))
    assert standin.last.body["temperature"] == temperature


def test_a_model_that_takes_no_temperature_is_sent_none(standin: Standin) -> None:
    ask(catalog_at(standin.url), replace(CALL, model="no-temperature"))
    assert "temperature" not in standin.last.body


@BOTH_LANES
def test_the_catalog_fixes_parameters_but_not_retries_or_the_limit(
    standin: Standin, name: str
) -> None:
    more = {"stream": True, "n": 5, "max_tokens": 9999, "max_completion_tokens": 9999}
    params = {
        "temperature": 1,
        "top_p": 0.5,
        "max_retries": 5,
        "num_retries": 5,
        "extra_body": more,
        **more,
    }
    standin.faults([Fault(status=500, body=b"{}")])
    with pytest.raises(Exception, match="500"):
        ask(catalog_at(standin.url, params=params), replace(CALL, model=name))
    sent = standin.last.body
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (1, 0.5, 50)
    assert not sent.get("stream")
    assert "n" not in sent
    assert "max_completion_tokens" not in sent
    assert standin.count == 1


@pytest.mark.parametrize(
    ("name", "reported", "usage"),
    [
        (
            "openai",
            {"prompt_tokens": 90, "prompt_tokens_details": {"cached_tokens": 64}},
            (90, 64),
        ),
        (
            "openai-litellm",
            {"prompt_tokens": 90, "prompt_tokens_details": {"cached_tokens": 64}},
            (90, 64),
        ),
        (
            "vllm",
            {"prompt_tokens": 90, "prompt_tokens_details": {"cached_tokens": 64}},
            (90, 64),
        ),
        ("anthropic", {"input_tokens": 26, "cache_read_input_tokens": 64}, (90, 64)),
        ("gemini", {"promptTokenCount": 90, "cachedContentTokenCount": 64}, (90, 64)),
    ],
)
def test_cached_tokens_are_a_part_of_the_prompts(
    standin: Standin, name: str, reported: dict[str, Any], usage: tuple[int, int]
) -> None:
    standin.faults([Fault(usage=reported)])
    standin.answer("x" * 15)
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=name))
    assert reply.usage == Usage(usage[0], 4, usage[1])


@pytest.mark.parametrize("name", OPENAI_FORMAT)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(NO_USAGE, id="none"),
        pytest.param(
            Fault(usage={"prompt_tokens": None, "completion_tokens": None}), id="null"
        ),
        pytest.param(
            Fault(usage={"prompt_tokens": 0, "completion_tokens": 0}), id="zero"
        ),
        pytest.param(
            Fault(usage={"completion_tokens": 0}), id="no output though there is some"
        ),
        pytest.param(
            Fault(usage={"prompt_tokens": -5, "total_tokens": None}), id="negative"
        ),
    ],
)
def test_usage_that_the_server_did_not_properly_report_is_unknown(
    standin: Standin, name: str, fault: Fault
) -> None:
    """LiteLLM puts zeros there; a zero would be a pretended price."""
    standin.faults([fault])
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=name))
    assert reply.text
    assert reply.usage is None


def test_calls_that_run_together_do_not_mix(standin: Standin) -> None:
    standin.answer(lambda request: request.document)
    documents = [f"document number {n}" for n in range(60)]
    calls = [
        replace(
            CALL,
            model=FORMATS[n % len(FORMATS)],
            messages=(Message("user", f"<document>{text}</document>"),),
        )
        for n, text in enumerate(documents)
    ]
    assert [reply.text for reply in ask(catalog_at(standin.url), *calls)] == documents
    assert standin.count == 60


@BOTH_LANES
def test_a_cancelled_call_leaves_the_gateway_usable(
    standin: Standin, name: str
) -> None:
    call = replace(CALL, model=name)

    async def go() -> str:
        gateway = Gateway(catalog_at(standin.url), ENV)
        await gateway.complete(call)
        standin.faults([Fault(delay_s=30)])
        slow = asyncio.create_task(gateway.complete(call))
        while standin.count < 2:
            await asyncio.sleep(0.01)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        reply = await gateway.complete(call)
        await gateway.aclose()
        return reply.text

    assert asyncio.run(go())
    assert standin.count == 3


def test_an_unknown_model_is_named(standin: Standin) -> None:
    with pytest.raises(UnknownName, match="did you mean 'openai'"):
        ask(catalog_at(standin.url), replace(CALL, model="opena"))


def test_a_model_without_its_key_is_unavailable_and_says_what_to_set(
    standin: Standin,
) -> None:
    with pytest.raises(ModelUnavailable, match="openai: set API_KEY"):
        ask(catalog_at(standin.url), CALL, env={})
    assert standin.count == 0


@pytest.mark.parametrize(
    "address", ["nonsense", "http://", "/v1", "http://host:70000/v1"]
)
def test_an_address_that_is_none_is_said_to_be(address: str) -> None:
    with pytest.raises(ModelUnavailable, match="must be a plain http address"):
        ask(catalog({"openai": entry("openai/small", address)}), CALL)


def test_azures_own_prefix_is_refused_with_the_way_that_works(standin: Standin) -> None:
    with pytest.raises(ModelUnavailable, match="openai/<deployment>"):
        ask(catalog({"openai": entry("azure/small", standin.url)}), CALL)
    assert standin.count == 0


def test_a_local_model_outside_the_house_is_never_called() -> None:
    models = catalog(
        {"openai": entry("openai/small", "https://api.example.com/v1", tier="local")}
    )
    with pytest.raises(
        ModelUnavailable, match=r"api\.example\.com is outside the house"
    ):
        ask(models, CALL)


def test_a_local_model_without_an_address_is_never_called(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteLLM would take one from the environment, or the provider's own."""
    monkeypatch.setenv("OPENAI_BASE_URL", standin.url + "/v1")
    with pytest.raises(ModelUnavailable, match="leave the house"):
        ask(catalog({"openai": entry("openai/small", None, tier="local")}), CALL)
    assert standin.count == 0


@BOTH_LANES
def test_a_local_server_is_not_sent_another_providers_key(
    standin: Standin, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-somebody-elses")
    model = entry(
        "openai/small", standin.url + "/v1", tier="local", **forced_lane(name)
    )
    del model["litellm_params"]["api_key"]
    ask(catalog({name: model}), replace(CALL, model=name), env={})
    assert "somebody" not in json.dumps(dict(standin.last.headers))


def test_importing_the_gateway_imports_no_provider_library() -> None:
    libraries = {"litellm", "httpx", "openai", "tiktoken", "aiohttp"}
    code = f"import sys, tierwise.gateway, tierwise.text.tokens; print({libraries} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


CALL_ALONE = """
import asyncio, sys
from tests.kit.standin import unused_address
from tests.test_gateway import CALL, ENV, Gateway, catalog_at, replace
from tierwise.errors import Unreachable

async def main():
    gateway = Gateway(catalog_at(sys.argv[1]), ENV)
    for model in ("openai", "openai-litellm", "anthropic", "gemini"):
        await gateway.complete(replace(CALL, model=model))
    await gateway.aclose()

asyncio.run(main())
"""


def test_nothing_but_the_calls_goes_over_the_network_and_nothing_is_printed(
    standin: Standin,
) -> None:
    """Another connection would pass the proxy, which is the stand-in too; open sessions warn."""
    proxies = dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), standin.url
    )
    env = {
        **os.environ,
        **proxies,
        "NO_PROXY": "127.0.0.1",
        "PYTHONWARNINGS": "default::ResourceWarning",
    }
    done = subprocess.run(
        [sys.executable, "-c", CALL_ALONE, standin.url],
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert standin.count == 4


def test_the_stand_in_answers_any_schema_with_a_valid_instance() -> None:
    schema = {
        "$defs": {
            "Line": {
                "type": "object",
                "properties": {"amount": {"type": "number", "exclusiveMinimum": 0}},
            }
        },
        "type": "object",
        "properties": {
            "lines": {
                "type": "array",
                "items": {"$ref": "#/$defs/Line"},
                "minItems": 2,
            },
            "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
            "kind": {"const": "invoice"},
            "note": {"type": "string", "minLength": 80, "maxLength": 90},
            "paid": {"type": ["boolean", "null"]},
            "year": {"type": "integer", "minimum": 2000},
        },
        "required": ["lines", "due", "kind", "note", "paid", "year"],
    }
    from tests.kit.standin import sensible_answer

    body = {"messages": [{"role": "user", "content": DOCUMENT}]}
    request = Request(
        "/v1/chat/completions",
        {},
        {**body, "response_format": {"json_schema": {"schema": schema}}},
    )
    jsonschema.validate(json.loads(sensible_answer(request)), schema)


@BOTH_LANES
def test_an_empty_reply_still_says_what_it_cost(standin: Standin, name: str) -> None:
    standin.answer("")
    with pytest.raises(BadReply, match="empty") as caught:
        ask(catalog_at(standin.url), replace(CALL, model=name))
    assert caught.value.usage is not None


@BOTH_LANES
def test_a_reply_that_was_cut_off_before_its_first_word_is_a_reply(
    standin: Standin, name: str
) -> None:
    """A model may think away its whole limit: that is paid for, and a check will fail it."""
    standin.faults([Fault(text="", finish_reason="length")])
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=name))
    assert (reply.text, reply.finish_reason) == ("", "length")
    assert reply.usage is not None


def wants_other_limit(request: Request) -> str | Fault:
    """A server that takes the limit of an answer only by its newer name."""
    if "max_tokens" not in request.body:
        return "fine"
    return status(
        400,
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
    )


REFUSALS = [
    status(
        400,
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        code="unsupported_parameter",
    ),
    status(400, "no", code="unsupported_parameter", param="max_tokens"),
    status(400, "max_tokens is deprecated, use max_completion_tokens"),
    status(422, "`max_tokens` is not supported. Use `max_completion_tokens`."),
]


@BOTH_LANES
@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_name_of_the_limit_is_learned_once_from_the_servers_refusal(
    standin: Standin, name: str, refusal: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: Request) -> str | Fault:
        return refusal if "max_tokens" in request.body else "fine"

    standin.answer(answer)

    async def three_calls(gateway: Gateway) -> list[Reply]:
        call = replace(CALL, model=name)
        first = await gateway.complete(call)
        others = await asyncio.gather(gateway.complete(call), gateway.complete(call))
        await gateway.aclose()
        return [first, *others]

    async def go() -> list[Reply]:
        return await three_calls(Gateway(catalog_at(standin.url), ENV))

    replies = asyncio.run(go())
    assert [reply.text for reply in replies] == ["fine"] * 3
    assert standin.count == 4
    assert standin.last.body["max_completion_tokens"] == CALL.max_tokens
    said = [line for line in caplog.messages if "output_limit_parameter" in line]
    assert len(said) == 1


@BOTH_LANES
def test_the_catalog_can_say_the_name_of_the_limit(standin: Standin, name: str) -> None:
    standin.answer(wants_other_limit)
    named = catalog_at(standin.url, output_limit_parameter="max_completion_tokens")
    ask(named, replace(CALL, model=name))
    assert standin.count == 1
    assert standin.last.body["max_completion_tokens"] == CALL.max_tokens
    old = catalog_at(standin.url, output_limit_parameter="max_tokens")
    with pytest.raises(errors.BadRequest, match="Use 'max_completion_tokens'"):
        ask(old, replace(CALL, model=name))
    assert standin.count == 2


@BOTH_LANES
@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 9999. This model supports at most 4096 tokens.",
        "max_tokens must be at least 1",
        "temperature is not supported with this model",
    ],
)
def test_another_fault_of_the_limit_is_no_reason_to_rename_it(
    standin: Standin, name: str, message: str
) -> None:
    standin.answer(lambda _: status(400, message))
    with pytest.raises(errors.BadRequest):
        ask(catalog_at(standin.url), replace(CALL, model=name))
    assert standin.count == 1


def test_a_limit_that_the_catalog_drops_is_put_back(standin: Standin) -> None:
    """Such an entry is refused when a catalog file is loaded; the call is limited all the same."""
    params = {"additional_drop_params": ["max_tokens", "temperature"]}
    ask(catalog_at(standin.url, params=params), replace(CALL, model="openai-litellm"))
    assert standin.last.body["max_tokens"] == CALL.max_tokens
    assert "temperature" not in standin.last.body
