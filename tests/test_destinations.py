"""Where a model's calls go: what the catalog may say, what `check` finds, and the host that is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.calls import CALL, ask, catalog, entry
from tests.kit.letters import classify, letter
from tests.kit.litellm_facts import FILE
from tests.kit.projects import ROOT, make_project
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.errors import ConfigError
from tierwise.policy.catalog import Model, load_catalog
from tierwise.policy.litellm_facts import litellm_facts

CATALOG = """\
version: 1
tiers:
  hosted: {description: elsewhere}
models:
  m:
    tier: hosted
    litellm_params: {PARAMS}
    context_tokens: 8000
    max_output_tokens: 1000
    strength: 10
    price: unknown
"""
HERE = "http://127.0.0.1:9/v1"


def fault(tmp_path: Path, params: str) -> str | None:
    """What loading says about these parameters, which are in line 7."""
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG.replace("PARAMS", params))
    try:
        load_catalog(path)
    except ConfigError as error:
        return str(error).removeprefix(f"{tmp_path}/")
    return None


# ---- what LiteLLM does --------------------------------------------------------------------------


def test_the_facts_about_litellm_are_those_of_the_installed_one(tmp_path: Path) -> None:
    """Its parameters, its providers, the host of each, and the variables that move the calls."""
    found = tmp_path / "litellm.json"
    command = [sys.executable, "-m", "tests.kit.litellm_facts", str(found)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    remedy = "run `python -m tests.kit.litellm_facts`"
    assert json.loads(found.read_text()) == json.loads(FILE.read_text()), remedy


def test_every_known_model_of_openai_may_be_called_without_an_address(
    tmp_path: Path,
) -> None:
    for name in litellm_facts().openai_models:
        assert fault(tmp_path, f'model: "openai/{name}"') is None, name


# ---- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("apibase", "no parameter named 'apibase'; did you mean 'api_base'?"),
        ("api-base", "no parameter named 'api-base'; did you mean 'api_base'?"),
        ("API_BASE", "no parameter named 'API_BASE'; did you mean 'api_base'?"),
        ("api_bsae", "no parameter named 'api_bsae'; did you mean 'api_base'?"),
        ("apikey", "no parameter named 'apikey'; did you mean 'api_key'?"),
        ("temprature", "no parameter named 'temprature'; did you mean 'temperature'?"),
        ("extra_header", "did you mean 'extra_headers'?"),
        ("guided_zzz", "no parameter named 'guided_zzz'; a parameter that only the"),
        ("base_url", "cannot have `base_url`; write it as `api_base`"),
        ("endpoint", "cannot have `endpoint`; write it as `api_base`"),
        ("custom_llm_provider", "write it before the model's name"),
        ("use_litellm_proxy", "write `litellm_proxy/<model>` and the proxy's"),
        ("mock_response", "an answer must come from the model"),
        ("max_tokens", "write the entry's `max_output_tokens`"),
        ("timeout", "write the entry's `timeout_s`"),
        ("rpm", "write the entry's `requests_per_minute`"),
        ("stream", "tierwise sets it for every call"),
    ],
)
def test_a_parameter_that_does_not_exist_is_an_error_with_the_remedy(
    tmp_path: Path, params: str, said: str
) -> None:
    found = fault(tmp_path, f"model: openai/gpt-6-luna, {params}: x") or ""
    assert found.startswith("catalog.yaml:7: litellm_params ")
    assert said in found


@pytest.mark.parametrize(
    "params",
    [
        "temperature: 0, top_p: 1, seed: 7, stop: [x], reasoning_effort: low",
        "top_k: 5, min_p: 0.1, repetition_penalty: 1.1, logit_bias: {5: 1}",
        "organization: o, api_version: '1', drop_params: true, service_tier: flex",
        "extra_body: {anything: {at: all}}, extra_headers: {x-any: y}",
        "num_ctx: 8192, safe_prompt: true, thinking: {type: disabled}",
        "vertex_project: p, aws_region_name: r, oci_region: r, project_id: p",
    ],
)
def test_parameters_of_litellm_and_of_providers_are_known(
    tmp_path: Path, params: str
) -> None:
    assert fault(tmp_path, f"model: openai/gpt-6-luna, {params}") is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("extra_body: {NAME: 9}", "extra_body cannot have `NAME`"),
        ("additional_drop_params: [top_p, NAME]", "`NAME` cannot be dropped"),
        ("NAME: 9", "litellm_params cannot have `NAME`"),
    ],
)
def test_the_limit_of_an_answer_cannot_be_set_or_dropped_behind_the_reservation(
    tmp_path: Path, params: str, said: str, name: str
) -> None:
    found = fault(tmp_path, f"model: openai/x, {params}".replace("NAME", name)) or ""
    assert said.replace("NAME", name) in found
    assert "`output_limit_parameter: max_completion_tokens`" in found


def test_a_misspelt_address_never_sends_a_document(
    tmp_path: Path, terminal: Terminal, standin: Standin
) -> None:
    """`check` names file, line and the right spelling, and no run begins."""
    root = make_project(tmp_path / "project", model_entry(f"apibase: {standin.url}/v1"))
    done = terminal("check", "--no-flows", cwd=root)
    assert done.code == 1
    assert (
        "routing_rules/catalog.yaml:11: error: litellm_params has no parameter named 'apibase'; "
        "did you mean 'api_base'?"
    ) in done.out
    with pytest.raises(ConfigError, match="api_base"):
        classify(root, letter())
    assert standin.count == 0


RULES = """
version: 1
budget: {allow_unpriced: [small, large]}
routes: [{name: default, try: [small, large]}]
"""


def model_entry(params: str, name: str = "m", model: str = "openai/gpt-6-luna") -> str:
    return f"""
  {name}:
    tier: proprietary
    litellm_params: {{model: {model}, {params}}}
    context_tokens: 8000
    max_output_tokens: 1000
    strength: 10
    price: unknown
"""


# ---- providers and addresses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        # LiteLLM sends these to api.openai.com.
        ("model: openai/my-model", "'my-model' is none of OpenAI's own models"),
        ("model: openai/gtp-4o", "'gtp-4o' is none of OpenAI's own models"),
        ("model: openai/gpt-4all-j", "'gpt-4all-j' is none of OpenAI's own models"),
        ("model: openai/gpt-oss-20b", "'gpt-oss-20b' is none of OpenAI's own models"),
        ("model: openai/openai/gpt-6", "'openai/gpt-6' is none of OpenAI's own models"),
        ("model: hosted_vllm/qwen", "`hosted_vllm/` needs `api_base`"),
        ("model: lm_studio/qwen", "`lm_studio/` needs `api_base`"),
        ("model: litellm_proxy/gpt-6", "`litellm_proxy/` needs `api_base`"),
        ("model: custom_openai/m", "`custom_openai/` needs `api_base`"),
        ("model: aiohttp_openai/m", "`aiohttp_openai/` needs `api_base`"),
        # No provider, or one that does not exist.
        ("model: gpt-6-luna", "'gpt-6-luna' names no provider"),
        (f"model: my-model, api_base: '{HERE}'", "'my-model' names no provider"),
        ("model: openai/", "'openai/' names no provider"),
        (
            "model: opnai/gpt-6",
            "no provider named 'opnai'; did you mean 'openai'?",
        ),
        (
            "model: OpenAI/gpt-6",
            "no provider named 'OpenAI'; did you mean 'openai'?",
        ),
        (f"model: mine/m, api_base: '{HERE}'", "no provider named 'mine'; "),
        (f"model: azure/m, api_base: '{HERE}'", "write `openai/<deployment>`"),
        # No address.
        ("model: openai/m, api_base: ''", "`api_base` must be a plain http address"),
        ("model: openai/m, api_base: null", "`api_base` must be a plain http address"),
        ("model: openai/m, api_base: 5", "`api_base` must be a plain http address"),
        ("model: openai/m, api_base: 10.0.0.5:8000/v1", "must be a plain http address"),
        ("model: openai/m, api_base: 'http//10.0.0.5'", "must be a plain http address"),
        ("model: openai/m, api_base: 'http://h:0/v1'", "must be a plain http address"),
        (
            "model: openai/m, api_base: 'http://h:65536/v1'",
            "must be a plain http address",
        ),
        ("model: openai/m, api_base: 'http://h /v1'", "must be a plain http address"),
        (
            "model: openai/m, api_base: 'http://me:pw@h/v1'",
            "must be a plain http address",
        ),
    ],
)
def test_a_destination_that_is_not_meant_is_refused_at_load(
    tmp_path: Path, params: str, said: str
) -> None:
    found = fault(tmp_path, params) or ""
    assert found.startswith("catalog.yaml:7: ")
    assert said in found


@pytest.mark.parametrize(
    "params",
    [
        "model: openai/gpt-7-mini",
        "model: openai/o5",
        "model: openai/responses/gpt-6-luna",
        "model: 'openai/ft:gpt-4o-mini:acme::x'",
        "model: openai/new-family, api_base: 'https://api.openai.com/v1'",
        "model: anthropic/claude-haiku-5-5",
        "model: ollama/llama3",
        "model: llamafile/m",
        "model: bedrock/anthropic.claude",
        f"model: hosted_vllm/qwen, api_base: '{HERE}'",
        "model: hosted_vllm/qwen, api_base: '${SERVER}'",
        "model: '${MODEL}'",
        "model: 'openai/${MODEL}'",
    ],
)
def test_a_destination_that_is_meant_is_no_fault(tmp_path: Path, params: str) -> None:
    assert fault(tmp_path, params) is None


def test_a_name_from_a_variable_is_checked_with_its_value(standin: Standin) -> None:
    models = catalog({"openai": entry("openai/${NAME}", None)})
    model = models.model("openai")
    env = {"API_KEY": "k", "NAME": "my-model"}
    assert "'my-model' is none of OpenAI's" in (models.unavailable(model, env) or "")
    assert models.unavailable(model, {"API_KEY": "k", "NAME": "gpt-6-luna"}) is None


@pytest.mark.parametrize(
    "value", ["10.0.0.5:8000/v1", "http://10.0.0.5:8000/v1 ", "http://", "http://h:x/"]
)
def test_check_finds_a_malformed_address_in_a_variable(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MY_SERVER_URL", value)
    root = make_project(
        tmp_path / "project",
        model_entry('api_base: "${MY_SERVER_URL}"', "small", "openai/small"),
        model_entry("api_key: k", "large"),
        rules=RULES,
    )
    done = terminal("check", "--no-flows", cwd=root)
    assert done.code == 1
    assert (
        "routing_rules/catalog.yaml:11: error: the address of small comes from MY_SERVER_URL, "
        "and must be a plain http address"
    ) in done.out
    # The value may contain a password.
    assert value not in done.out.replace("http://10.0.0.5:8000/v1 or", "")
    monkeypatch.setenv("MY_SERVER_URL", HERE)
    assert terminal("check", "--no-flows", cwd=root).code == 0


def test_check_says_that_a_variable_of_litellm_moves_the_calls(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gateway.example:8080/v1")
    root = make_project(
        tmp_path / "project",
        model_entry("api_key: k", "small"),
        model_entry("api_key: k", "large", "openai/gpt-6.1-sol"),
        rules=RULES,
    )
    done = terminal("check", "--no-flows", cwd=root)
    assert done.code == 0
    assert (
        "routing_rules/catalog.yaml:11: warning: OPENAI_BASE_URL is set, so the calls of small go "
        "to gateway.example:8080; "
    ) in done.out


def test_no_variable_sends_calls_over_a_proxy_that_the_catalog_does_not_name(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteLLM would otherwise ask the proxy for `mistral/mistral-small-2603`."""
    monkeypatch.setenv("USE_LITELLM_PROXY", "True")
    models = {"openai": entry("mistral/mistral-small-2603", standin.url + "/v1")}
    ask(catalog(models), CALL)
    assert standin.requests[-1].model == "mistral-small-2603"


# ---- the host that is shown ---------------------------------------------------------------------


def shown(
    litellm_model: str,
    api_base: str | None = None,
    env: dict[str, str] | None = None,
    **settings: Any,
) -> str:
    values = {"name": "m", **entry(litellm_model, api_base, **settings)}
    return Model.model_validate(values).host(env or {})


@pytest.mark.parametrize(
    ("litellm_model", "api_base", "env", "host"),
    [
        ("openai/gpt-6-luna", None, {}, "api.openai.com"),
        ("anthropic/claude", None, {}, "api.anthropic.com"),
        ("gemini/g", None, {}, "generativelanguage.googleapis.com"),
        ("mistral/m", None, {}, "api.mistral.ai"),
        ("ollama/m", None, {}, "localhost:11434"),
        ("openai/gpt-6", None, {"OPENAI_API_BASE": "http://a/v1"}, "a"),
        (
            "openai/gpt-6",
            None,
            {"OPENAI_API_BASE": "http://a/v1", "OPENAI_BASE_URL": "http://b/v1"},
            "b",
        ),
        ("openai/gpt-6", HERE, {"OPENAI_BASE_URL": "http://b/v1"}, "127.0.0.1:9"),
        ("bedrock/m", None, {}, "(chosen by LiteLLM for bedrock)"),
        ("openai/m", "https://User:pw@h/v1", {}, "(not a plain http address)"),
        ("openai/m", "http://[::1]:80/v1", {}, "[::1]:80"),
        ("openai/m", "${URL}", {}, "(variable URL not set)"),
        ("openai/m", "${URL|OTHER}", {}, "(variable URL or OTHER not set)"),
        ("openai/m", "${URL}", {"URL": "http://GPU:80/v1?key=k"}, "gpu:80"),
        ("${NAME}", None, {}, "(variable NAME not set)"),
        ("${NAME}", None, {"NAME": "groq/m"}, "api.groq.com"),
    ],
)
def test_the_host_is_where_the_calls_go(
    litellm_model: str, api_base: str | None, env: dict[str, str], host: str
) -> None:
    assert shown(litellm_model, api_base, env) == host


def test_an_embedded_or_trained_model_is_on_this_machine() -> None:
    assert shown("openai/m", weights={"file": "m.gguf"}) == "this machine"
    learned = {**entry("openai/m", None), "litellm_params": {}, "learned": "classify"}
    assert Model.model_validate(learned).host({}) == "this machine"


KEY = "planted-key-0123456789"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standin: Standin) -> Path:
    """`small` at the stand-in, `large` at an address from a variable that is not set."""
    monkeypatch.delenv("MY_SERVER_URL", raising=False)
    standin.answer(json.dumps({"label": "billing", "evidence": "The parcel"}))
    params = f'api_base: "{standin.url}/v1", api_key: {KEY}'
    address = f'api_base: "${{MY_SERVER_URL}}", api_key: {KEY}'
    return make_project(
        tmp_path / "project",
        model_entry(params, "small", "openai/small"),
        model_entry(address, "large", "openai/large"),
        rules=RULES,
    )


def test_models_shows_each_host_and_no_key(
    project: Path, terminal: Terminal, standin: Standin
) -> None:
    host = standin.url.removeprefix("http://")
    done = terminal("models", "--json", cwd=project)
    rows = {row["model"]: row["calls go to"] for row in json.loads(done.out)}
    assert rows == {"small": host, "large": "(variable MY_SERVER_URL not set)"}
    assert KEY not in done.out + terminal("models", cwd=project).out


def test_an_address_in_a_secret_block_is_named_by_its_block(
    project: Path, terminal: Terminal
) -> None:
    """It is known in a flow run alone, so that it is not malformed here."""
    (project / "pyproject.toml").write_text(
        '[tool.tierwise.secrets]\nMY_SERVER_URL = "server-url"\n'
    )
    done = terminal("models", "--json", cwd=project)
    [row] = [row for row in json.loads(done.out) if row["model"] == "large"]
    assert row["calls go to"] == "(from the Prefect secret block server-url)"
    assert row["available"] == "from the Prefect secret block server-url"


def test_explain_shows_where_calls_go_now(
    project: Path, terminal: Terminal, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SERVER_URL", "https://gpu.example:8443/v1")
    asked = ("--step", "classify", "--sensitivity", "public")
    text = terminal("explain", *asked, cwd=project).out
    assert "Calls go to\n" in text
    host = standin.url.removeprefix("http://")
    assert f"  small  {host}\n  large  gpu.example:8443\n" in text
    classify(project, letter())
    past = terminal("explain", "mail-07", cwd=project).out
    assert "Calls go to, with the catalog and variables of now\n" in past
    [found] = json.loads(terminal("explain", "mail-07", "--json", cwd=project).out)
    assert found["hosts"]["small"] == host
    assert KEY not in text + past


def test_plan_shows_where_calls_go(
    project: Path, terminal: Terminal, standin: Standin, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.txt").write_text("The parcel with my desk has not arrived.")
    asked = ("plan", "support_inbox", "--source", inbox)
    host = standin.url.removeprefix("http://")
    found = json.loads(terminal(*asked, "--json", cwd=project).out)
    assert found["hosts"]["small"] == host
    printed = terminal(*asked, cwd=project).out
    assert "calls go to" in printed
    assert host in printed
    assert standin.count == 0
