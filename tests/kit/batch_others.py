"""Anthropic's message batches and Gemini's batches, as the stand-in speaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from tests.kit.batch_answers import (
    batch_list,
    body_of,
    faulty,
    iso,
    json_answer,
    lines_with_faults,
    made,
    refused,
    stream,
    write_files,
)
from tests.kit.batch_openai import lines_of
from tests.kit.batch_values import Item, ItemAnswer, StandinBatch
from tests.kit.standin import status

if TYPE_CHECKING:
    from tests.kit.batch_standin import BatchStandin

_GEMINI_STATES = {
    "open": "BATCH_STATE_RUNNING",
    "cancelling": "BATCH_STATE_RUNNING",
    "ended": "BATCH_STATE_SUCCEEDED",
    "failed": "BATCH_STATE_FAILED",
    "expired": "BATCH_STATE_EXPIRED",
    "cancelled": "BATCH_STATE_CANCELLED",
}


# Anthropic.


async def anthropic_create(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: Any
) -> web.StreamResponse:
    refusal = await refused(standin, incoming, "upload")
    if refusal is not None:
        return refusal
    if standin.max_bytes is not None and len(body) > standin.max_bytes:
        return await faulty(incoming, status(413, "Request exceeds the maximum size"))
    wanted = orjson.loads(body)
    items = [Item(each["custom_id"], each["params"]) for each in wanted["requests"]]
    refusal = await refused(standin, incoming, "create", len(items))
    if refusal is not None:
        return refusal
    model = items[0].body["model"]
    assert "anthropic-version" in incoming.headers

    def make() -> StandinBatch:
        return standin.make("anthropic", model, None, items, standin.window_s)

    return await made(standin, incoming, make, anthropic_batch)


def anthropic_batch(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
    kinds = [answer.kind for answer in batch.answers]
    done = not batch.is_open
    errored = sum(a.status >= 300 for a in batch.answers if a.kind == "answered")
    counts = {
        "processing": 0 if done else len(batch.items),
        "succeeded": len(batch.good) if done else 0,
        "errored": errored if done else 0,
        "canceled": kinds.count("cancelled"),
        "expired": kinds.count("expired"),
    }
    states = {"open": "in_progress", "cancelling": "canceling"}
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": states.get(batch.state, "ended"),
        "request_counts": counts,
        "created_at": iso(batch.created),
        "expires_at": iso(batch.expires),
        "ended_at": iso(batch.ended),
        "cancel_initiated_at": iso(batch.cancel_asked),
        "archived_at": None,
        "results_url": f"https://elsewhere.example/{batch.id}" if done else None,
    }


def anthropic_line(answer: ItemAnswer) -> dict[str, Any]:
    if answer.kind == "expired":
        result: dict[str, Any] = {"type": "expired"}
    elif answer.kind == "cancelled":
        result = {"type": "canceled"}
    elif answer.status < 300:
        result = {"type": "succeeded", "message": body_of(answer)}
    else:
        names = {400: "invalid_request_error", 429: "rate_limit_error"}
        kind = names.get(answer.status, "api_error")
        given = body_of(answer)
        message = given["error"]["message"] if isinstance(given, dict) else "failed"
        error = {"type": kind, "message": message}
        result = {"type": "errored", "error": {"type": "error", "error": error}}
    return {"custom_id": answer.custom_id, "result": result}


async def anthropic_results(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    own_id: str,
) -> web.StreamResponse:
    order = standin.take_order("results")
    if order is not None:
        return await faulty(incoming, order.details["fault"])
    batch = standin.current(own_id)
    is_gone = batch is None or any(
        batch.ordered(name) is not None for name in ("results_gone", "results_missing")
    )
    if batch is None or batch.is_open or is_gone:
        return await faulty(incoming, status(404, "the results are not available"))
    lines = lines_with_faults(batch, batch.answers, anthropic_line)
    return await stream(standin, incoming, lines)


async def anthropic_list(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    return await batch_list(standin, incoming, query, anthropic_batch, "after_id")


async def anthropic_delete(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    own_id: str,
) -> web.StreamResponse:
    standin.deleted.append(own_id)
    return json_answer({"id": own_id, "type": "message_batch_deleted"})


# Gemini.


async def gemini_upload(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    refusal = await refused(standin, incoming, "upload")
    if refusal is not None:
        return refusal
    if incoming.headers["x-goog-upload-command"] == "start":
        size = int(incoming.headers["x-goog-upload-header-content-length"])
        if standin.max_bytes is not None and size > standin.max_bytes:
            return await faulty(incoming, status(413, "The file is too large"))
        address = f"{standin.url}{incoming.path}?upload_id=1"
        return web.Response(headers={"X-Goog-Upload-URL": address})
    file_id = standin.store("input.jsonl", body)
    return json_answer({"file": {"name": f"files/{file_id}"}})


async def gemini_create(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    model: str,
) -> web.StreamResponse:
    wanted = orjson.loads(body)["batch"]
    file_name = wanted["input_config"]["file_name"]
    content = standin.stored.get(file_name.removeprefix("files/"))
    assert isinstance(content, bytes)
    items = [Item(line["key"], line["request"]) for line in lines_of(content)]
    refusal = await refused(standin, incoming, "create", len(items))
    if refusal is not None:
        return refusal

    def make() -> StandinBatch:
        key = wanted["display_name"]
        batch = standin.make("gemini", model, key, items, standin.window_s)
        batch.files["input"] = file_name.removeprefix("files/")
        return batch

    return await made(standin, incoming, make, gemini_batch)


def gemini_batch(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
    write_files(standin, batch, gemini_line)
    done = not batch.is_open
    # Gemini has one file for all, and none where nothing was answered.
    files = [batch.files.get(name) for name in ("output", "error")]
    named = [f"files/{each}" for each in files if each]
    stats = {
        "requestCount": str(len(batch.items)),
        "successfulRequestCount": str(len(batch.good) if done else 0),
        "failedRequestCount": str(len(batch.bad) if done else 0),
        "pendingRequestCount": str(0 if done else len(batch.items)),
    }
    metadata = {
        "model": f"models/{batch.model}",
        "displayName": batch.key or "",
        "createTime": iso(batch.created),
        "endTime": iso(batch.ended),
        "batchStats": stats,
        "state": _GEMINI_STATES[batch.state],
        "inputConfig": {"fileName": f"files/{batch.files.get('input')}"},
        "name": batch.id,
    }
    entry: dict[str, Any] = {"name": batch.id, "metadata": metadata, "done": done}
    if named:
        metadata["output"] = {"responsesFile": named[-1]}
        entry["response"] = {"responsesFile": named[0]}
    if batch.errors:
        codes = {"token_limit_exceeded": 8, "internal_error": 13}
        entry["error"] = {"code": codes.get(batch.errors[0]["code"], 3), "message": "x"}
    return entry


def gemini_line(answer: ItemAnswer) -> dict[str, Any]:
    if answer.kind == "answered" and answer.status < 300:
        return {"key": answer.custom_id, "response": body_of(answer)}
    codes = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14}
    code = codes.get(answer.status, 13)
    if answer.kind != "answered":
        code = 1
    return {"key": answer.custom_id, "error": {"code": code, "message": "ordered"}}


async def gemini_list(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    order = standin.take_order("list")
    if order is not None:
        return await faulty(incoming, order.details["fault"])
    batches = [each for each in standin.all_current() if each.api == "gemini"]
    begin = int(query.get("pageToken", 0))
    page = batches[begin : begin + standin.page_size]
    answer: dict[str, Any] = {
        "operations": [gemini_batch(standin, batch) for batch in page]
    }
    if begin + len(page) < len(batches):
        answer["nextPageToken"] = str(begin + len(page))
    return json_answer(answer)


async def gemini_cancel(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    own_id: str,
) -> web.StreamResponse:
    batch = standin.current(own_id)
    if batch is None:
        return await faulty(incoming, status(404, "No such batch"))
    standin.cancel(batch)
    return json_answer({})


async def gemini_delete(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    own_id: str,
) -> web.StreamResponse:
    standin.deleted.append(own_id)
    return json_answer({})
