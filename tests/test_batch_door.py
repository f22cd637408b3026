"""The door to provider batches: the same requests as online, and the same answers, for less."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.kit.batch_calls import (
    BATCH_MODELS,
    SCHEMA,
    at_door,
    batch_catalog,
    items_of,
    round_trip,
)
from tests.kit.batch_standin import BatchStandin, StandinPrice
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
