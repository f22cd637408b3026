"""Embedded models behind the gateway: started on demand, and nothing else is loaded for them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.kit.calls import CALL, ask, catalog, entry
from tests.kit.standin import Standin, unused_address
from tierwise.errors import ModelUnavailable, Unreachable
from tierwise.gateway import Gateway
from tierwise.policy.catalog import Catalog, Model
from tierwise.records import Reply


@dataclass
class Servers:
    """Embedded models that all listen at one address, from the second start on if `fails_first`."""

    api_base: str
    api_key: str = "embedded-key"
    fails_first: bool = False
    threads: list[int] = field(default_factory=list)
    settings: list[tuple[int, int]] = field(default_factory=list)

    def endpoint(self, model: Model, env: Any) -> Servers:
        self.threads.append(threading.get_ident())
        self.settings.append((model.context_tokens, model.concurrency))
        if self.fails_first and len(self.threads) == 1:
            raise ModelUnavailable(f"{model.name}: no room")
        return self


def embedded() -> Catalog:
    model = entry(
        "openai/qwen", None, tier="local", weights={"file": "/models/qwen.gguf"}
    )
    del model["litellm_params"]["api_key"]
    return catalog({"openai": model})


def test_an_embedded_model_is_started_once_and_not_on_the_loop(
    standin: Standin,
) -> None:
    servers = Servers(standin.url + "/v1")
    ask(embedded(), *[replace(CALL, max_tokens=n) for n in range(1, 11)], local=servers)
    assert standin.count == 10
    assert standin.last.headers["authorization"] == "Bearer embedded-key"
    assert len(servers.threads) == 1
    assert threading.get_ident() not in servers.threads


def test_an_embedded_model_that_did_not_start_may_start_later(standin: Standin) -> None:
    servers = Servers(standin.url + "/v1", fails_first=True)

    async def go() -> Reply:
        gateway = Gateway(embedded(), {}, servers)
        with pytest.raises(ModelUnavailable, match="no room"):
            await gateway.complete(CALL)
        reply = await gateway.complete(CALL)
        await gateway.aclose()
        return reply

    assert asyncio.run(go()).text


def test_an_embedded_model_needs_something_that_starts_it() -> None:
    with pytest.raises(ModelUnavailable, match="no embedded models"):
        ask(embedded(), CALL)


def test_an_embedded_model_that_died_is_started_again(standin: Standin) -> None:
    servers = Servers(unused_address() + "/v1")

    async def go() -> Reply:
        gateway = Gateway(embedded(), {}, servers)
        with pytest.raises(Unreachable):
            await gateway.complete(CALL)
        servers.api_base = standin.url + "/v1"
        reply = await gateway.complete(CALL)
        await gateway.aclose()
        return reply

    assert asyncio.run(go()).text
    assert len(servers.threads) == 2


LOCAL_RUN = """
import asyncio, sys
from tests.kit.calls import CALL, ENV, catalog, entry
from tierwise.gateway import Gateway
from tests.test_gateway_embedded import Servers, embedded

async def main():
    url = sys.argv[1] + "/v1"
    for models in (embedded(), catalog({"openai": entry("hosted_vllm/qwen", url, tier="local")})):
        gateway = Gateway(models, ENV, Servers(url))
        assert (await gateway.complete(CALL)).text
        await gateway.aclose()

asyncio.run(main())
print({"litellm", "httpx", "openai"} & {*sys.modules})
"""


def test_a_run_on_local_models_never_imports_litellm(standin: Standin) -> None:
    """That would take it 5 s and 190 MB."""
    done = subprocess.run(
        [sys.executable, "-c", LOCAL_RUN, standin.url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")
    assert standin.count == 2


def test_entries_with_the_same_weights_start_one_server_for_the_larger_settings(
    standin: Standin,
) -> None:
    """The file is loaded once, for the longest context and the most calls of all its entries."""
    shared = {"file": "/models/qwen.gguf"}
    entries = {}
    for name, tokens, calls in (("openai", 4096, 8), ("other", 8192, 2)):
        entries[name] = entry("openai/qwen", None, tier="local", weights=shared)
        entries[name] |= {"context_tokens": tokens, "concurrency": calls}
        del entries[name]["litellm_params"]["api_key"]
    entries["apart"] = {**entries["other"], "weights": {"file": "/models/b.gguf"}}
    servers = Servers(standin.url + "/v1")
    calls = [replace(CALL, model=name) for name in entries]
    ask(catalog(entries), *calls, local=servers)
    assert servers.settings == [(8192, 8), (8192, 8), (8192, 2)]
