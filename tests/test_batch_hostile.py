"""Hostile or broken results of provider batches, and results without end."""

from __future__ import annotations

import tracemalloc
from typing import Any

import orjson
import pytest

from tests.kit.batch_calls import (
    KEY,
    at_door,
    batch_catalog,
    collect,
    items_of,
    round_trip,
)
from tests.kit.batch_standin import BatchStandin
from tests.kit.calls import ENV, catalog, entry
from tests.kit.standin import Fault, status
from tierwise import errors
from tierwise.cascade.faults import batch_decision
from tierwise.errors import CallError, ModelUnavailable
from tierwise.gateway import Gateway
from tierwise.gateway.batch import ProviderBatch
from tierwise.gateway.connection_pool import LARGEST_BODY
from tierwise.records import Reply

FORMATS = ["openai", "openrouter", "mistral", "anthropic", "gemini"]
every_format = pytest.mark.parametrize("model", FORMATS)
KEY_VALUE = ENV["API_KEY"]


def with_lines(
    standin: BatchStandin, model: str, lines: list[bytes], number: int = 3
) -> dict[str, Reply | CallError]:
    """The results of a batch with these lines in front of its own."""
    standin.order("raw_lines", lines=lines)
    items = items_of(model, number)
    _, results = at_door(
        batch_catalog(standin.url), lambda gateway: round_trip(gateway, model, items)
    )
    for item in items:
        assert isinstance(results[item.custom_id], Reply)
    return {
        own_id: result
        for own_id, result in results.items()
        if own_id not in {item.custom_id for item in items}
    }


@pytest.mark.parametrize("model", [each for each in FORMATS if each != "openrouter"])
def test_lines_that_cannot_be_read_disturb_no_other_line(model: str) -> None:
    id_name = "key" if model == "gemini" else "custom_id"
    lines: list[Any] = [
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b"\xff\xfe{",
        b"{" * 5000,
        orjson.dumps({id_name: 7, "response": {}}),
        orjson.dumps({id_name: None, "response": {}}),
        orjson.dumps({id_name: ["a"], "response": {}}),
        orjson.dumps({id_name: "x" * 5000, "response": {}}),
        orjson.dumps({id_name: "", "response": {}}),
        b'{"%s": "' % id_name.encode() + b"a" * 64 + b'", "response": {',
    ]
    with BatchStandin() as standin:
        others = with_lines(standin, model, lines)
    assert list(others) == ["a" * 64]
    assert type(others["a" * 64]) is errors.BadReply


WRONG = [
    7,
    "text",
    [],
    None,
    {},
    {"status_code": "200", "body": 3},
    {"status_code": True, "body": {}},
    {"status_code": 99999, "body": {"choices": 1}},
    {"status_code": 0, "body": None},
    {"status_code": 200, "body": None},
    {"status_code": 200, "body": []},
    {"status_code": 200, "body": "text"},
    {"status_code": 200, "body": {"choices": [{"message": 3}]}},
    {"status_code": 200, "body": {"choices": {"a": 1}}},
    {"type": "succeeded", "message": 3},
    {"type": "succeeded"},
    {"type": "errored", "error": 7},
    {"type": 3},
    {"candidates": 7},
    {"candidates": [{"content": 3}]},
]


@every_format
def test_results_of_wrong_types_are_errors_of_their_item(model: str) -> None:
    id_name = "key" if model == "gemini" else "custom_id"
    name = "result" if model == "anthropic" else "response"
    lines = [
        orjson.dumps({id_name: f"{place:064x}", name: wrong})
        for place, wrong in enumerate(WRONG)
    ]
    lines += [
        orjson.dumps({id_name: f"{place:064x}", "response": None, "error": wrong})
        for place, wrong in enumerate([7, "text", [], {"code": 7}, {"code": None}], 100)
    ]
    with BatchStandin() as standin:
        others = with_lines(standin, model, lines)
    assert len(others) == len(lines)
    for error in others.values():
        assert isinstance(error, CallError)


def test_a_huge_line_is_an_error_of_its_item_alone() -> None:
    head = b'{"id":"r","custom_id":"' + b"a" * 64 + b'","response":"'
    huge = head + b"x" * (LARGEST_BODY + 1000) + b'"}'
    with BatchStandin() as standin:
        others = with_lines(standin, "openai", [huge, b"y" * (LARGEST_BODY + 7)])
    assert list(others) == ["a" * 64]
    assert type(others["a" * 64]) is errors.BadReply


def test_results_without_end_take_the_memory_of_a_line() -> None:
    """2,000 results are 60 MB; they are read one by one."""
    with BatchStandin() as standin:
        standin.order("many_lines", number=2_000, size=30_000)
        items = items_of("openai", 1)

        async def go(gateway: Gateway) -> tuple[int, int]:
            made = await gateway.batches.submit("openai", items, KEY)
            batch = await gateway.batches.status("openai", made.id)
            tracemalloc.start()
            seen = 0
            async for _ in gateway.batches.results("openai", batch):
                seen += 1
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return seen, peak

        seen, peak = at_door(batch_catalog(standin.url), go)
    assert seen == 2_001
    assert peak < 12 * 2**20


@every_format
def test_a_key_that_results_repeat_is_refused(model: str) -> None:
    with BatchStandin() as standin:
        standin.order("items", fault=Fault(text=f"the key is {KEY_VALUE}"), places=(1,))
        items = items_of(model, 2)
        _, results = at_door(
            batch_catalog(standin.url),
            lambda gateway: round_trip(gateway, model, items),
        )
        error = results[items[0].custom_id]
        assert type(error) is errors.BadReply
        assert error.usage is not None
        assert KEY_VALUE not in str(error)
        assert isinstance(results[items[1].custom_id], Reply)


@every_format
def test_no_error_of_a_batch_repeats_a_key_or_a_document(model: str) -> None:
    quoted = f"cannot read: Invoice 1 is open, with the key {KEY_VALUE}"
    with BatchStandin() as standin:
        for name in ("upload_refused", "create_refused"):
            standin.order(name, fault=status(400, quoted, code=KEY_VALUE))

            async def go(gateway: Gateway) -> CallError:
                with pytest.raises(CallError) as caught:
                    await gateway.batches.submit(model, items_of(model, 2), KEY)
                return caught.value

            error = at_door(batch_catalog(standin.url), go)
            assert KEY_VALUE not in str(error)
            assert "Invoice" not in str(error)


@every_format
def test_results_that_end_early_are_asked_for_again(model: str) -> None:
    with BatchStandin() as standin:
        standin.order("truncated")
        items = items_of(model, 6)
        seen: list[str] = []

        async def go(gateway: Gateway) -> CallError:
            made = await gateway.batches.submit(model, items, KEY)
            batch = await gateway.batches.status(model, made.id)
            try:
                async for result in gateway.batches.results(model, batch):
                    seen.append(result.custom_id)  # noqa: PERF401 - those before it, too
            except CallError as error:
                return error
            raise AssertionError("no error")

        error = at_door(batch_catalog(standin.url), go)
        assert type(error) is errors.BatchIncomplete
        assert batch_decision(error) == "retry"
        assert len(seen) == 3


@every_format
def test_a_connection_that_is_lost_in_the_results_is_a_passing_fault(
    model: str,
) -> None:
    with BatchStandin() as standin:
        cut = Fault(body=b'{"custom_id": "', cut_at=0.5)
        standin.order("results", fault=cut)

        async def go(gateway: Gateway) -> tuple[CallError, int]:
            items = items_of(model, 3)
            made = await gateway.batches.submit(model, items, KEY)
            batch = await gateway.batches.status(model, made.id)
            with pytest.raises(CallError) as caught:
                await collect(gateway, model, batch, items)
            again = await collect(gateway, model, batch, items)
            return caught.value, len(again)

        error, number = at_door(batch_catalog(standin.url), go)
        assert type(error) is errors.Unreachable
        assert number == 3


ODD_ANSWERS: list[Any] = [
    {},
    {"id": 7, "status": "completed", "processing_status": "ended", "name": 7},
    {"id": "../../v1/keys", "status": "completed", "name": "batches/../../x"},
    {"id": "a b", "status": "completed", "name": "a b"},
    {"id": "batch_1", "name": "batches/1", "metadata": 7},
    {"id": "batch_1", "status": 7, "processing_status": 7, "name": "batches/1"},
]


@every_format
def test_an_answer_that_is_no_batch_is_a_bad_reply(model: str) -> None:
    """Nothing of it is used, above all no id that leads to another path."""
    with BatchStandin() as standin:
        for odd in ODD_ANSWERS:
            standin.order("poll", fault=Fault(body=orjson.dumps(odd)))

            async def go(gateway: Gateway) -> CallError:
                with pytest.raises(CallError) as caught:
                    await gateway.batches.status(model, "batch_1")
                return caught.value

            error = at_door(batch_catalog(standin.url), go)
            assert type(error) is errors.BadReply, odd


def test_an_id_of_ours_that_leads_elsewhere_is_not_asked_for() -> None:
    with BatchStandin() as standin:
        for bad in ("../files", "a/../../b", "http://elsewhere.example", "", "a?b=c"):

            async def go(gateway: Gateway) -> None:
                with pytest.raises(CallError):
                    await gateway.batches.status("openai", bad)  # noqa: B023

            at_door(batch_catalog(standin.url), go)
        assert not standin.paths


def test_documents_go_to_no_other_server_than_that_of_the_entry() -> None:
    """Gemini's API gives the address of the upload: it must be on the same server."""
    with BatchStandin() as elsewhere, BatchStandin() as standin:
        address = {
            "X-Goog-Upload-URL": f"{elsewhere.url}/upload/v1beta/files?upload_id=1"
        }
        standin.order("upload_refused", fault=Fault(body=b"{}", headers=address))

        async def go(gateway: Gateway) -> CallError:
            with pytest.raises(CallError) as caught:
                await gateway.batches.submit("gemini", items_of("gemini", 2), KEY)
            return caught.value

        error = at_door(batch_catalog(standin.url), go)
        assert type(error) is errors.BadReply
        assert not elsewhere.paths


def test_a_model_of_the_house_has_its_batches_in_the_house(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No proxy sees them, and an address outside is refused."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    batch = {"api": "openai", "discount": 0.5}
    with BatchStandin() as standin:
        inside = entry("openai/small", f"{standin.url}/v1", tier="local", batch=batch)
        outside = entry(
            "openai/small", "http://192.0.2.1/v1", tier="local", batch=batch
        )
        models = catalog({"inside": inside, "outside": outside})
        items = items_of("inside", 2)
        _, results = at_door(
            models, lambda gateway: round_trip(gateway, "inside", items)
        )
        assert len(results) == 2

        async def go(gateway: Gateway) -> None:
            with pytest.raises(ModelUnavailable):
                await gateway.batches.submit("outside", items_of("outside", 2), KEY)
            with pytest.raises(ModelUnavailable):
                await gateway.batches.status("outside", "batch_1")

        at_door(models, go)


def test_the_files_of_a_batch_can_be_deleted() -> None:
    """Providers keep them for weeks, else."""
    with BatchStandin() as standin:
        for model in FORMATS:
            items = items_of(model, 2)

            async def go(gateway: Gateway) -> ProviderBatch:
                batch, _ = await round_trip(gateway, model, items)  # noqa: B023
                await gateway.batches.delete(model, batch)  # noqa: B023
                await gateway.batches.delete(model, batch)  # noqa: B023
                return batch

            at_door(batch_catalog(standin.url), go)
        assert not standin.stored
        assert any(each.startswith("msgbatch") for each in standin.deleted)


def test_a_batch_refused_for_the_name_of_the_limit_teaches_the_next_one() -> None:
    """As an online call does: later requests have the other name."""

    def needs_other_name(request: Any) -> str | Fault:
        if "max_tokens" in request.body:
            message = "Unsupported parameter: use 'max_completion_tokens' instead."
            return status(
                400, message, code="unsupported_parameter", param="max_tokens"
            )
        return "fine"

    with BatchStandin() as standin:
        standin.answer(needs_other_name)
        items = items_of("openai", 3)

        async def go(gateway: Gateway) -> tuple[Any, Any]:
            _, first = await round_trip(gateway, "openai", items)
            _, second = await round_trip(gateway, "openai", items)
            return first, second

        first, second = at_door(batch_catalog(standin.url), go)
        kinds = {type(result) for result in first.values()}
        assert kinds == {errors.BatchRenamed}
        assert batch_decision(next(iter(first.values()))) == "retry"
        assert {type(result) for result in second.values()} == {Reply}
