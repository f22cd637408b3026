"""The door to provider batches: the same requests as online, and the same answers, for less."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.kit.batch_calls import (
    BATCH_MODELS,
    KEY,
    SCHEMA,
    at_door,
    batch_catalog,
    collect,
    items_of,
    round_trip,
)
from tests.kit.batch_standin import BatchStandin, Remote, StandinPrice
from tests.kit.rooms import ROOT
from tierwise.cascade.faults import is_free
from tierwise.errors import BadReply, CallError
from tierwise.gateway import Gateway
from tierwise.records import Reply

every_format = pytest.mark.parametrize("model", list(BATCH_MODELS))


@every_format
def test_a_batch_has_the_requests_and_the_answers_of_online_calls(model: str) -> None:
    """Body by body and answer by answer, in every format; and at half the price."""
    with BatchStandin() as standin:
        name = BATCH_MODELS[model][0].partition("/")[2]
        standin.prices[name] = StandinPrice(input=2, output=10)
        items = items_of(model, 5, response_schema=SCHEMA)

        async def both(gateway: Gateway) -> tuple[object, object, object]:
            online = [await gateway.complete(item.call) for item in items]
            batch, results = await round_trip(gateway, model, items)
            return online, batch, results

        online, batch, results = at_door(batch_catalog(standin.url), both)
        sent_online = [request.body for request in standin.requests]
        sent_together = [
            item.body for made in standin.batches.values() for item in made.items
        ]
        assert sent_together == sent_online
        assert batch.state == "ended"
        assert (batch.total, batch.succeeded, batch.failed) == (5, 5, 0)
        for item, reply in zip(items, online, strict=True):
            later = results[item.custom_id]
            assert isinstance(later, Reply)
            assert replace(later, latency_s=reply.latency_s) == reply
        of_batch = [line for line in standin.invoice if line.batch is not None]
        of_calls = [line for line in standin.invoice if line.batch is None]
        assert sum(line.micros for line in of_batch) * 2 == sum(
            line.micros for line in of_calls
        )
        assert standin.billed_items() == {item.custom_id: 1 for item in items}


def test_an_answer_that_cannot_be_read_is_no_free_call() -> None:
    """LiteLLM refuses a request before it looks at the answer, which the provider bills."""
    with BatchStandin() as standin:
        items = items_of("anthropic", 1)

        async def work(gateway: Gateway) -> dict[str, Reply | CallError]:
            batch, _ = await round_trip(gateway, "anthropic", items)
            emptied = [
                replace(item, call=replace(item.call, messages=())) for item in items
            ]
            return await collect(gateway, "anthropic", batch, emptied)

        [error] = at_door(batch_catalog(standin.url), work).values()
        assert isinstance(error, BadReply)
        assert not is_free(error)


PRICE = {
    "input": 2,
    "output": 10,
    "cached_input": 0.2,
    "cache_write": 2.5,
    "source": "a test",
    "date": "2026-11-28",
}


@every_format
def test_the_cost_of_a_batch_is_the_invoice_to_the_micro_dollar(model: str) -> None:
    """Cached reads and writes included, at half the price, item by item."""
    with BatchStandin() as standin:
        standin.caches_prefixes = True
        name = BATCH_MODELS[model][0].partition("/")[2]
        standin.prices[name] = StandinPrice(
            input=2, output=10, cached=0.2, cache_write=2.5
        )
        models = batch_catalog(standin.url, price=PRICE)
        items = items_of(model, 40)
        _, results = at_door(models, lambda gateway: round_trip(gateway, model, items))
        charged = {line.custom_id: line.micros for line in standin.invoice}
        entry = models.model(model)
        for item in items:
            reply = results[item.custom_id]
            assert isinstance(reply, Reply)
            assert reply.usage is not None
            cost = entry.cost(reply.usage, band="batch")
            assert cost is not None
            assert cost * 1_000_000 == charged[item.custom_id]
        reads = [
            reply.usage.cached_tokens
            for reply in results.values()
            if isinstance(reply, Reply) and reply.usage
        ]
        assert sum(reads) > 0


def test_a_batch_outlives_the_process_that_submitted_it() -> None:
    """The stand-in runs in a process of its own, as a benchmark or a kill test has it."""
    with served("--turnaround-s", "60") as url:
        remote = Remote(url)
        remote.set(prices={"small": {"input": 2, "output": 10}})
        remote.order("items", fault={"status": 400}, places=[2])
        items = items_of("openai", 3)
        models = batch_catalog(url)
        made = at_door(
            models, lambda gateway: gateway.batches.submit("openai", items, KEY)
        )
        assert remote.batches == {made.id: "open"}
        assert remote.invoice == []
        remote.advance(61)

        async def later(gateway: Gateway) -> dict[str, Reply | CallError]:
            found = await gateway.batches.find("openai", KEY, time.time())
            assert found is not None
            return await collect(gateway, "openai", found, items)

        results = at_door(models, later)
        kinds = [type(results[item.custom_id]).__name__ for item in items]
        assert kinds == ["Reply", "BadRequest", "Reply"]
        assert len(remote.invoice) == 2


@contextmanager
def served(*options: str) -> Iterator[str]:
    """The address of a stand-in in a process of its own."""
    command = [sys.executable, "-m", "tests.kit.batch_standin", "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield line.removeprefix("serving on ").strip()
        finally:
            process.kill()
