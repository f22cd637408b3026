"""Faults of provider batches: each through the socket, with the class that decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.kit.batch_calls import (
    BATCH_MODELS,
    KEY,
    at_door,
    batch_catalog,
    collect,
    items_of,
    round_trip,
)
from tests.kit.batch_standin import HOUR_S, BatchStandin, StandinPrice
from tests.kit.standin import Fault, raw, status
from tierwise import errors
from tierwise.cascade.faults import batch_decision, is_free
from tierwise.errors import CallError
from tierwise.gateway import Gateway
from tierwise.gateway.batch import ProviderBatch, missing_item
from tierwise.records import Reply

FORMATS = ["openai", "openrouter", "mistral", "anthropic", "gemini"]
every_format = pytest.mark.parametrize("model", FORMATS)


async def error_of(work: Awaitable[Any]) -> CallError:
    with pytest.raises(CallError) as caught:
        await work
    return caught.value


def submit(model: str, number: int = 5) -> Callable[[Gateway], Awaitable[Any]]:
    async def go(gateway: Gateway) -> Any:
        return await error_of(
            gateway.batches.submit(model, items_of(model, number), KEY)
        )

    return go


REFUSALS = {
    "upload_refused": (errors.BatchRefused, "online"),
    "file_too_large": (errors.BatchTooLarge, "split"),
    "create_refused": (errors.BatchRefused, "online"),
    "too_many_items": (errors.BatchTooLarge, "split"),
    "queue_full": (errors.BatchQueueFull, "retry"),
}


@every_format
def test_a_refused_submission_has_the_class_that_decides_and_costs_nothing(
    model: str,
) -> None:
    with BatchStandin() as standin:
        models = batch_catalog(standin.url)
        for name, (kind, decision) in REFUSALS.items():
            standin.order(name)
            error = at_door(models, submit(model))
            assert type(error) is kind, name
            assert batch_decision(error) == decision, name
            assert is_free(error), name
        assert not standin.batches


STATUSES = {
    401: errors.AuthenticationFailed,
    402: errors.OutOfCredit,
    403: errors.BatchRefused,
    404: errors.BatchRefused,
    405: errors.BatchRefused,
    422: errors.BatchRefused,
    429: errors.RateLimited,
    500: errors.ServerFault,
    503: errors.Overloaded,
}


@every_format
def test_a_status_of_an_upload_is_a_fault_of_the_batch_or_of_the_account(
    model: str,
) -> None:
    """What has no batches goes online; a key, credit and outages are decided as for calls."""
    with BatchStandin() as standin:
        models = batch_catalog(standin.url)
        for code, kind in STATUSES.items():
            standin.order("upload_refused", fault=status(code, "no"))
            error = at_door(models, submit(model))
            assert type(error) is kind, code
            if model not in ("anthropic", "openrouter"):
                # There, the upload is the batch.
                assert is_free(error), code


def test_a_key_without_the_right_to_upload_is_good_for_calls() -> None:
    message = "You have insufficient permissions. Missing scopes: api.files.write"
    with BatchStandin() as standin:
        standin.order("upload_refused", fault=status(401, message))
        error = at_door(batch_catalog(standin.url), submit("openai"))
        assert type(error) is errors.BatchRefused


def test_a_batch_above_the_entrys_limits_is_not_even_sent() -> None:
    with BatchStandin() as standin:
        for limits in ({"max_items": 4}, {"max_bytes": 500}):
            models = batch_catalog(standin.url, limits)
            error = at_door(models, submit("openai"))
            assert type(error) is errors.BatchTooLarge
            assert not error.sent
        assert not standin.paths


def test_the_sizes_of_items_are_those_of_the_upload() -> None:
    with BatchStandin() as standin:
        items = items_of("openai", 5)

        async def go(gateway: Gateway) -> list[int]:
            sizes = await gateway.batches.sizes("openai", items)
            await gateway.batches.submit("openai", items, KEY)
            return sizes

        sizes = at_door(batch_catalog(standin.url), go)
        (content,) = standin.stored.values()
        assert sum(sizes) == len(content)


def test_a_model_without_batches_is_refused_before_anything_is_sent() -> None:
    with BatchStandin() as standin:
        models = batch_catalog(standin.url)
        models = models.model_copy(
            update={
                "models": {
                    "openai": models.model("openai").model_copy(update={"batch": None})
                }
            }
        )
        error = at_door(models, submit("openai"))
        assert type(error) is errors.BatchRefused
        assert is_free(error)
        assert not standin.paths


@every_format
@pytest.mark.parametrize("lost", [{}, {"status": 500}, {"status": 504}])
def test_a_batch_whose_answer_was_lost_is_found_again(
    model: str, lost: dict[str, int]
) -> None:
    """It is not free, so it is looked for: by our key, or by its items."""
    with BatchStandin() as standin:
        standin.turnaround_s = HOUR_S
        items = items_of(model, 5)
        ids = [item.custom_id for item in items]

        async def go(gateway: Gateway) -> tuple[CallError, ProviderBatch | None]:
            door = gateway.batches
            since = standin.clock.time()
            await door.submit(model, items_of(model, 3), "another")
            standin.order("create_lost", **lost)
            error = await error_of(door.submit(model, items, KEY))
            assert await door.find(model, "no-such-key", since, ids[:2]) is None
            return error, await door.find(model, KEY, since, ids)

        error, found = at_door(batch_catalog(standin.url), go)
        assert not is_free(error)
        assert batch_decision(error) == "retry"
        made = [each for each in standin.batches.values() if len(each.items) == 5]
        assert [each.id for each in made] == [found.id]


@every_format
def test_a_batch_that_was_never_made_is_not_found(model: str) -> None:
    with BatchStandin() as standin:
        standin.order("create_failed")
        items = items_of(model, 5)

        async def go(gateway: Gateway) -> tuple[CallError, ProviderBatch | None]:
            error = await error_of(gateway.batches.submit(model, items, KEY))
            ids = [item.custom_id for item in items]
            since = standin.clock.time()
            return error, await gateway.batches.find(model, KEY, since, ids)

        error, found = at_door(batch_catalog(standin.url), go)
        assert type(error) is errors.ServerFault
        assert not is_free(error)
        assert found is None


@every_format
@pytest.mark.parametrize("skew_s", [-5 * HOUR_S, 10 * HOUR_S])
def test_a_batch_is_found_on_a_later_page_and_by_a_wrong_clock(
    model: str, skew_s: float
) -> None:
    """The provider's clock may be hours before or behind ours."""
    with BatchStandin() as standin:
        standin.page_size = 2
        standin.turnaround_s = HOUR_S
        standin.clock.advance(skew_s)
        items = items_of(model, 5)
        ids = [item.custom_id for item in items]

        async def go(gateway: Gateway) -> ProviderBatch | None:
            since = time.time()
            door = gateway.batches
            await door.submit(model, items, KEY)
            for place in range(5):
                await door.submit(model, items_of(model, 2), f"other-{place}")
            return await door.find(model, KEY, since, ids)

        found = at_door(batch_catalog(standin.url), go)
        assert found is not None
        assert found.total == 5
        assert found.age_s is not None
        assert found.age_s < 60


def test_a_batch_is_found_by_its_file_where_the_server_keeps_no_metadata() -> None:
    with BatchStandin() as standin:
        standin.keeps_metadata = False

        async def go(gateway: Gateway) -> tuple[ProviderBatch, ProviderBatch | None]:
            door = gateway.batches
            since = standin.clock.time()
            made = await door.submit("openai", items_of("openai", 2), KEY)
            await door.submit("openai", items_of("openai", 3), "another")
            return made, await door.find("openai", KEY, since)

        made, found = at_door(batch_catalog(standin.url), go)
        assert found is not None
        assert found.id == made.id


VALIDATION: dict[str, tuple[dict[str, Any], type[errors.BatchError], str]] = {
    "validation_full": ({}, errors.BatchQueueFull, "retry"),
    "lines_invalid": ({"lines": (2, 5)}, errors.BatchLinesInvalid, "split"),
    "all_invalid": ({}, errors.BatchInvalid, "online"),
    "failed": ({}, errors.BatchFailed, "retry"),
}


@pytest.mark.parametrize("model", ["openai", "mistral", "gemini"])
def test_a_batch_that_fails_says_why_in_its_class(model: str) -> None:
    """Anthropic has no such state: each item has its error."""
    with BatchStandin() as standin:
        for name, (details, kind, decision) in VALIDATION.items():
            if model == "gemini" and name == "lines_invalid":
                continue  # it names no line
            standin.order(name, **details)
            work = lambda gateway: round_trip(gateway, model, items_of(model, 6))  # noqa: E731
            batch, results = at_door(batch_catalog(standin.url), work)
            assert batch.state == "failed", name
            assert type(batch.fault) is kind, name
            assert batch_decision(batch.fault) == decision, name
            assert results == {}, name
            if isinstance(batch.fault, errors.BatchLinesInvalid):
                assert batch.fault.lines == (2, 5)
            assert missing_item(batch, model) is batch.fault


@every_format
@pytest.mark.parametrize(
    ("name", "state", "kind", "decision"),
    [
        ("expired", "expired", errors.BatchExpired, "retry"),
        ("cancelled", "cancelled", errors.BatchCancelled, "defer"),
    ],
)
def test_a_batch_that_ends_early_has_the_answers_of_a_part(
    model: str, name: str, state: str, kind: type[CallError], decision: str
) -> None:
    """Answered items are charged; the others are free, and have a class of their own."""
    with BatchStandin() as standin:
        standin.prices[BATCH_MODELS[model][0].partition("/")[2]] = StandinPrice(
            input=2, output=10
        )
        standin.order(name, share=0.5)
        items = items_of(model, 6)
        batch, results = at_door(
            batch_catalog(standin.url),
            lambda gateway: round_trip(gateway, model, items),
        )
        assert batch.state == state
        assert type(batch.fault) is kind
        answered = [item for item in items if _is_reply(results.get(item.custom_id))]
        assert answered == items[:3]
        for item in items[3:]:
            error = results.get(item.custom_id) or missing_item(batch, model)
            assert isinstance(error, CallError)
            assert type(error) is kind
            assert batch_decision(error) == decision
            assert is_free(error)
        assert sorted(standin.billed_items()) == sorted(
            item.custom_id for item in answered
        )


def _is_reply(result: object) -> bool:
    return isinstance(result, Reply)


@pytest.mark.parametrize("model", [each for each in FORMATS if each != "openrouter"])
def test_a_batch_can_be_cancelled(model: str) -> None:
    with BatchStandin() as standin:
        standin.turnaround_s = HOUR_S
        items = items_of(model, 4)

        async def go(gateway: Gateway) -> tuple[str, ProviderBatch, Any]:
            door = gateway.batches
            made = await door.submit(model, items, KEY)
            standin.clock.advance(HOUR_S / 2)
            asked = await door.cancel(model, made.id)
            batch = await door.status(model, made.id)
            assert (batch.age_s or 0) > HOUR_S / 2 - 5
            return asked.state, batch, await collect(gateway, model, batch, items)

        asked, batch, results = at_door(batch_catalog(standin.url), go)
        assert asked in ("cancelling", "cancelled")
        assert batch.state == "cancelled"
        replies = [result for result in results.values() if isinstance(result, Reply)]
        assert len(replies) == 2


def test_a_batch_that_cannot_be_cancelled_goes_on() -> None:
    """OpenRouter has no cancellation."""
    with BatchStandin() as standin:
        standin.turnaround_s = HOUR_S

        async def go(gateway: Gateway) -> str:
            made = await gateway.batches.submit(
                "openrouter", items_of("openrouter", 2), KEY
            )
            return (await gateway.batches.cancel("openrouter", made.id)).state

        assert at_door(batch_catalog(standin.url), go) == "in_progress"


def test_results_in_pages_are_all_read() -> None:
    with BatchStandin() as standin:
        standin.page_size = 2
        items = items_of("openrouter", 7)
        work = lambda gateway: round_trip(gateway, "openrouter", items)  # noqa: E731
        _, results = at_door(batch_catalog(standin.url), work)
        assert [type(results[item.custom_id]) for item in items] == [Reply] * 7


def test_togethers_words_are_understood() -> None:
    """Another upload, states in capitals, no counts, no metadata, a list without an object."""
    with BatchStandin() as standin:
        standin.is_together = True
        standin.turnaround_s = HOUR_S
        items = items_of("openai", 3)

        async def go(gateway: Gateway) -> tuple[Any, ...]:
            door = gateway.batches
            since = standin.clock.time()
            made = await door.submit("openai", items, KEY)
            await door.submit("openai", items_of("openai", 2), "another")
            found = await door.find("openai", KEY, since)
            standin.finish()
            batch = await door.status("openai", made.id)
            return made, found, batch, await collect(gateway, "openai", batch, items)

        models = batch_catalog(standin.url, {"api": "together"})
        made, found, batch, results = at_door(models, go)
        assert found.id == made.id == batch.id
        assert batch.state == "ended"
        assert made.total == 3
        assert made.expires_at is not None
        assert [type(results[item.custom_id]) for item in items] == [Reply] * 3


@every_format
def test_results_come_in_any_order_and_each_item_once(
    model: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice the same id is used once; an id that is not ours is passed on."""
    with BatchStandin() as standin:
        for name in ("shuffled", "duplicate", "unknown_id"):
            standin.order(name)
        items = items_of(model, 6)

        async def go(gateway: Gateway) -> list[str]:
            made = await gateway.batches.submit(model, items, KEY)
            batch = await gateway.batches.status(model, made.id)
            found = gateway.batches.results(model, batch)
            return [result.custom_id async for result in found]

        with caplog.at_level(logging.WARNING):
            ids = at_door(batch_catalog(standin.url), go)
        known = [item.custom_id for item in items]
        assert len(ids) == len(set(ids))
        assert set(known) <= set(ids)
        assert ids != known
        assert set(ids) - set(known) <= {"f" * 64}
        assert "more than one result" in caplog.text


@every_format
@pytest.mark.parametrize("name", ["results_missing", "results_gone"])
def test_results_that_are_gone_are_no_empty_results(model: str, name: str) -> None:
    with BatchStandin() as standin:
        standin.order(name)
        error = at_door(
            batch_catalog(standin.url),
            lambda gateway: error_of(round_trip(gateway, model, items_of(model, 3))),
        )
        assert type(error) is errors.BatchResultsGone
        assert batch_decision(error) == "online"
        assert not is_free(error)


@every_format
def test_a_batch_that_the_provider_does_not_know_has_no_results(model: str) -> None:
    with BatchStandin() as standin:
        for ask_for in ("status", "cancel"):
            error = at_door(
                batch_catalog(standin.url),
                lambda gateway: error_of(
                    getattr(gateway.batches, ask_for)(model, "batch_none")  # noqa: B023
                ),
            )
            assert type(error) is errors.BatchResultsGone


@every_format
def test_a_file_of_errors_alone_has_the_error_of_each_item(model: str) -> None:
    with BatchStandin() as standin:
        standin.order("errors_only")
        items = items_of(model, 3)
        batch, results = at_door(
            batch_catalog(standin.url),
            lambda gateway: round_trip(gateway, model, items),
        )
        assert batch.state == "ended"
        assert batch.succeeded == 0
        assert [type(results[item.custom_id]) for item in items] == [
            errors.BadRequest
        ] * 3


# Each kind of error that a call can get online.
ITEM_FAULTS: dict[str, Fault] = {
    "context": status(400, "This model's maximum context length is 8192 tokens."),
    "filter": status(400, "blocked", code="content_filter"),
    "bad request": status(400, "no"),
    "key": status(401, "Incorrect API key provided"),
    "credit": status(402, "no credit"),
    "forbidden": status(403, "no"),
    "gone": status(404, "The model `small` does not exist"),
    "timeout": status(408, "too late"),
    "rate limit": status(429, "slow down"),
    "quota": status(429, "You exceeded your current quota", code="insufficient_quota"),
    "server": status(500, "it failed"),
    "overloaded": status(503, "no capacity"),
    "refusal": Fault(text="", refusal="I cannot help with that."),
    "filtered": Fault(text="", finish_reason="content_filter"),
    "empty": Fault(text=""),
    "error inside": raw('{"error": {"message": "upstream fell over", "code": 502}}'),
    "no choices": raw('{"id": "1", "object": "chat.completion", "choices": []}'),
    "no json": raw("<html>Bad gateway, but with a 200</html>"),
    "cut off": Fault(finish_reason="length"),
    "no usage": Fault(usage=None),
    "wrong usage": Fault(usage={"prompt_tokens": -5, "completion_tokens": "many"}),
}


def test_each_error_of_an_item_is_that_of_an_online_call() -> None:
    """Also what the reply says, whether it may be charged, and its usage."""
    with BatchStandin() as standin:
        models = batch_catalog(standin.url, lane="lean")
        items = items_of("openai", 2)
        for name, fault in ITEM_FAULTS.items():
            standin.faults([fault])
            online = at_door(
                models, lambda gateway: _outcome(gateway.complete(items[1].call))
            )
            standin.faults([])
            standin.order("items", fault=fault, places=(2,))
            _, results = at_door(
                models, lambda gateway: round_trip(gateway, "openai", items)
            )
            later = results[items[1].custom_id]
            assert type(later) is type(online), name
            assert later.usage == online.usage, name
            if isinstance(online, Reply):
                assert later.text == online.text
                assert later.finish_reason == online.finish_reason
            else:
                assert is_free(later) == is_free(online), name
            assert isinstance(results[items[0].custom_id], Reply), name


async def _outcome(work: Awaitable[Reply]) -> Reply | CallError:
    try:
        return await work
    except CallError as error:
        return error


ITEM_KINDS = {
    400: errors.BadRequest,
    429: errors.RateLimited,
    500: errors.ServerFault,
}


@pytest.mark.parametrize("model", ["mistral", "anthropic", "gemini"])
def test_each_error_of_an_item_is_read_in_every_format(model: str) -> None:
    with BatchStandin() as standin:
        for code, kind in ITEM_KINDS.items():
            standin.order("items", fault=status(code, "no"), places=(2,))
            items = items_of(model, 3)
            batch, results = at_door(
                batch_catalog(standin.url),
                lambda gateway: round_trip(gateway, model, items),  # noqa: B023
            )
            assert (batch.succeeded, batch.failed) == (2, 1)
            assert type(results[items[1].custom_id]) is kind
            assert isinstance(results[items[2].custom_id], Reply)


@every_format
def test_a_missing_usage_is_unknown_not_zero(model: str) -> None:
    with BatchStandin() as standin:
        standin.order("no_usage")
        items = items_of(model, 2)
        _, results = at_door(
            batch_catalog(standin.url),
            lambda gateway: round_trip(gateway, model, items),
        )
        for item in items:
            reply = results[item.custom_id]
            assert isinstance(reply, Reply)
            assert reply.usage is None


@every_format
def test_a_status_that_never_changes_is_a_fault_after_the_window(model: str) -> None:
    """By the provider's clock alone: the test's clock does not move."""
    with BatchStandin() as standin:
        standin.order("hangs")

        async def go(gateway: Gateway) -> list[Any]:
            door = gateway.batches
            made = await door.submit(model, items_of(model, 2), KEY)
            faults = []
            for hours in (1, 22, 20):
                standin.clock.advance(hours * HOUR_S)
                batch = await door.status(model, made.id)
                assert not batch.has_ended
                faults.append(batch.fault)
            return faults

        faults = at_door(batch_catalog(standin.url), go)
        assert [type(fault) for fault in faults] == [
            type(None),
            type(None),
            errors.BatchStalled,
        ]
        assert batch_decision(faults[-1]) == "online"


@every_format
def test_faults_while_polling_are_those_of_calls_and_leave_the_batch(
    model: str,
) -> None:
    with BatchStandin() as standin:
        standin.turnaround_s = HOUR_S
        polls = {
            429: (errors.RateLimited, "retry"),
            500: (errors.ServerFault, "retry"),
            503: (errors.Overloaded, "retry"),
            302: (errors.ModelGone, "stop"),
        }

        async def go(gateway: Gateway) -> str:
            door = gateway.batches
            made = await door.submit(model, items_of(model, 2), KEY)
            for code, (kind, decision) in polls.items():
                standin.order("poll", fault=status(code, "no", retry_after=7))
                error = await error_of(door.status(model, made.id))
                assert type(error) is kind
                assert batch_decision(error) == decision
                if code == 429:
                    assert error.retry_after == 7
            standin.order("poll", fault=raw("<html>fine</html>"))
            assert type(await error_of(door.status(model, made.id))) is errors.BadReply
            standin.revoked = "*"
            error = await error_of(door.status(model, made.id))
            assert type(error) is errors.AuthenticationFailed
            assert batch_decision(error) == "stop"
            standin.revoked = ""
            standin.finish()
            return (await door.status(model, made.id)).state

        assert at_door(batch_catalog(standin.url), go) == "ended"
