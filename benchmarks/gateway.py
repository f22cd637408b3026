"""What a call costs on each lane of the gateway, beside bare HTTP clients and bare LiteLLM.

    python -m benchmarks.gateway

All ways go, in turns, to one stand-in provider in a process of its own, with a prompt of about 700 tokens. CPU is
this process's own. On a machine that others use too, only the ratios can be trusted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.kit.standin import unused_address
from tierwise.gateway import Gateway
from tierwise.policy.catalog import Catalog
from tierwise.records import Call, Message

PROMPT = (
    "Please sort this message. "
    + "The invoice of March is still open and should be paid by Friday. " * 43
)
MESSAGES = [{"role": "user", "content": PROMPT}]
BODY = {"model": "small", "messages": MESSAGES, "max_tokens": 50, "temperature": 0}
IN_FLIGHT = (1, 32, 128)
LATENCIES_MS = (0, 200)
REFERENCE = "LiteLLM, bare"

Ask = Callable[[], Awaitable[str]]


@dataclass
class Measured:
    calls: int = 0
    seconds: float = 0
    cpu: float = 0

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_ms(self) -> float:
        return self.cpu / self.calls * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of each way in each turn"
    )
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    print(
        "| server's latency | in flight | way | calls/s | CPU ms a call | calls/s to LiteLLM's | CPU to LiteLLM's |"
    )
    print("|---|---|---|---|---|---|---|")
    for latency_ms in LATENCIES_MS:
        with serving(latency_ms) as url:
            asyncio.run(compare(url, latency_ms, options.turns, options.seconds))


async def compare(url: str, latency_ms: int, turns: int, seconds: float) -> None:
    """Print one row for each way and number of calls in flight."""
    for in_flight in IN_FLIGHT:
        found: dict[str, Measured] = defaultdict(Measured)
        for _ in range(turns):
            for name, way in WAYS.items():
                async with way(url) as ask:
                    await measure(ask, in_flight, seconds, found[name])
        reference = found[REFERENCE]
        for name, it in found.items():
            ratios = (
                f"{it.rate / reference.rate:.2f} | {it.cpu_ms / reference.cpu_ms:.2f}"
            )
            print(
                f"| {latency_ms} ms | {in_flight} | {name} | {it.rate:,.0f} | {it.cpu_ms:.2f} | {ratios} |",
                flush=True,
            )


async def measure(ask: Ask, in_flight: int, seconds: float, into: Measured) -> None:
    """Keep so many calls in flight for so long, after as many to warm up."""
    await asyncio.gather(*(ask() for _ in range(in_flight)))
    begun = time.perf_counter()
    cpu = time.process_time()

    async def worker() -> int:
        done = 0
        while time.perf_counter() - begun < seconds:
            assert await ask()
            done += 1
        return done

    into.calls += sum(await asyncio.gather(*(worker() for _ in range(in_flight))))
    into.seconds += time.perf_counter() - begun
    into.cpu += time.process_time() - cpu


@asynccontextmanager
async def bare_httpx(url: str) -> AsyncIterator[Ask]:
    import httpx

    async with httpx.AsyncClient(
        limits=httpx.Limits(max_connections=None), timeout=60
    ) as client:

        async def ask() -> str:
            response = await client.post(f"{url}/chat/completions", json=BODY)
            return text_of(response.json())

        yield ask


@asynccontextmanager
async def bare_aiohttp(url: str) -> AsyncIterator[Ask]:
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0)
    ) as session:

        async def ask() -> str:
            async with session.post(f"{url}/chat/completions", json=BODY) as response:
                return text_of(await response.json())

        yield ask


@asynccontextmanager
async def bare_litellm(url: str) -> AsyncIterator[Ask]:
    os.environ.setdefault(
        "LITELLM_LOCAL_MODEL_COST_MAP", "True"
    )  # else it fetches prices meanwhile
    import litellm

    async def ask() -> str:
        reply = await litellm.acompletion(
            model="hosted_vllm/small",
            api_base=url,
            api_key="none",
            max_retries=0,
            messages=MESSAGES,
            max_tokens=50,
        )
        return str(reply.choices[0].message.content)

    yield ask


def through_gateway(lane: str) -> Callable[[str], AbstractAsyncContextManager[Ask]]:
    """The gateway with one model on a lane."""

    @asynccontextmanager
    async def way(url: str) -> AsyncIterator[Ask]:
        gateway = Gateway(catalog(url, lane), {})

        async def ask() -> str:
            call = Call(
                model="small",
                identity="small",
                messages=(Message("user", PROMPT),),
                max_tokens=50,
            )
            return (await gateway.complete(call)).text

        yield ask
        await gateway.aclose()

    return way


WAYS: dict[str, Callable[[str], AbstractAsyncContextManager[Ask]]] = {
    "httpx, bare": bare_httpx,
    "aiohttp, bare": bare_aiohttp,
    REFERENCE: bare_litellm,
    "tierwise, LiteLLM lane": through_gateway("litellm"),
    "tierwise, lean lane": through_gateway("lean"),
}


def catalog(url: str, lane: str) -> Catalog:
    """One local model."""
    sizes = {
        "context_tokens": 8000,
        "max_output_tokens": 500,
        "strength": 50,
        "price": "unknown",
    }
    model = {
        "tier": "local",
        "lane": lane,
        "litellm_params": {"model": "hosted_vllm/small", "api_base": url},
        **sizes,
    }
    tiers = {"local": {"description": "here", "stays_in_house": True}}
    return Catalog.model_validate(
        {"version": 1, "tiers": tiers, "models": {"small": model}}
    )


def text_of(body: Any) -> str:
    return str(body["choices"][0]["message"]["content"])


@contextmanager
def serving(latency_ms: int) -> Iterator[str]:
    """The stand-in provider in a process of its own; gives its address up to `/v1`."""
    url = unused_address()
    command = [
        sys.executable,
        "-m",
        "tests.kit.standin",
        "--port",
        url.rpartition(":")[2],
        "--latency-ms",
        str(latency_ms),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(url)
            yield f"{url}/v1"
        finally:
            server.terminate()


def wait_for(url: str, seconds: float = 30) -> None:
    """Until the server answers. Raises TimeoutError when it takes longer."""
    parts = urlsplit(url)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection((parts.hostname, parts.port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"nothing answers at {url}")


if __name__ == "__main__":
    main()
