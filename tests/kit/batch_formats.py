"""The formats of the stand-in for batch APIs: requests come in, batches and results go out."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import orjson
from aiohttp import web

from tests.kit.standin import Fault, _send, status

if TYPE_CHECKING:
    from tests.kit.batch_standin import (
        BatchStandin,
        ItemAnswer,
        Order,
        StandinBatch,
    )

_OPENAI_STATES = {
    "open": "in_progress",
    "cancelling": "cancelling",
    "ended": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}
_MISTRAL_STATES = {
    "open": "RUNNING",
    "cancelling": "CANCELLATION_REQUESTED",
    "ended": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelled": "CANCELLED",
}
_GEMINI_STATES = {
    "open": "BATCH_STATE_RUNNING",
    "cancelling": "BATCH_STATE_RUNNING",
    "ended": "BATCH_STATE_SUCCEEDED",
    "failed": "BATCH_STATE_FAILED",
    "expired": "BATCH_STATE_EXPIRED",
    "cancelled": "BATCH_STATE_CANCELLED",
}


async def respond(
    standin: BatchStandin, incoming: web.BaseRequest
) -> web.StreamResponse | None:
    """Answer a request to a batch API; None for a path that is none of theirs."""
    method = incoming.method
    path = unquote(incoming.path)
    query = {
        name: values[0] for name, values in parse_qs(incoming.query_string).items()
    }
    for pattern, handler in _ROUTES.get(method, ()):
        match = re.fullmatch(pattern, path)
        if match is not None:
            body = await incoming.read()
            return await handler(standin, incoming, body, query, *match.groups())
    return None


# Files: OpenAI's and Mistral's.


async def _upload(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: Any
) -> web.StreamResponse:
    refused = await _refused(standin, incoming, "upload")
    if refused is not None:
        return refused
    boundary = incoming.headers["content-type"].partition("boundary=")[2].encode()
    parts = body.split(b"--" + boundary)
    fields = {}
    name = ""
    content = b""
    for part in parts[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        field = re.search(rb'name="(\w+)"', head)
        filename = re.search(rb'filename="([^"]+)"', head)
        assert field is not None
        if filename is not None:
            name = filename[1].decode()
            content = value.removesuffix(b"\r\n")
        else:
            fields[field[1].decode()] = value.removesuffix(b"\r\n").decode()
    assert fields.get("purpose") == "batch"
    if standin.max_bytes is not None and len(content) > standin.max_bytes:
        return await _fault(incoming, status(413, "The file is too large"))
    file_id = standin.store(name, content)
    return _json(
        {"id": file_id, "object": "file", "bytes": len(content), "filename": name}
    )


async def _file(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    file_id: str,
) -> web.StreamResponse:
    if file_id not in standin.stored:
        return await _fault(incoming, status(404, "No such File object"))
    return _json({"id": file_id, "object": "file", "filename": standin.names[file_id]})


async def _delete_file(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    file_id: str,
) -> web.StreamResponse:
    if standin.stored.pop(file_id, None) is None:
        return await _fault(incoming, status(404, "No such File object"))
    standin.deleted.append(file_id)
    return _json({"id": file_id, "deleted": True})


async def _content(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    file_id: str,
) -> web.StreamResponse:
    order = standin.take_order("results")
    if order is not None:
        return await _fault(incoming, order.details["fault"])
    content = standin.stored.get(file_id)
    if content is None:
        return await _fault(incoming, status(404, "No such File object"))
    lines = [content] if isinstance(content, bytes) else content
    of_batch = [b for b in standin.batches.values() if b.files.get("output") == file_id]
    extra = standin.many_lines(of_batch[0]) if of_batch else iter(())
    return await _stream(standin, incoming, lines, extra)


def _lines_of(body: bytes) -> Iterator[dict[str, Any]]:
    for line in body.splitlines():
        yield orjson.loads(line)


# OpenAI.


async def _openai_create(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: Any
) -> web.StreamResponse:
    from tests.kit.batch_standin import Item

    wanted = orjson.loads(body)
    content = standin.stored.get(wanted["input_file_id"])
    assert isinstance(content, bytes)
    lines = list(_lines_of(content))
    items = [Item(line["custom_id"], line["body"]) for line in lines]
    assert all(line["url"] == wanted["endpoint"] for line in lines)
    refused = await _refused(standin, incoming, "create", len(items))
    if refused is not None:
        return refused
    hours = float(wanted["completion_window"].removesuffix("h"))
    key = (wanted.get("metadata") or {}).get("tierwise_batch")

    def make() -> StandinBatch:
        model = items[0].body["model"]
        batch = standin.make(
            "openai", model, key, items, min(hours * 3600, standin.window_s)
        )
        batch.files["input"] = wanted["input_file_id"]
        return batch

    return await _made(standin, incoming, make, _openai_batch)


def _openai_batch(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
    _write_files(standin, batch, _openai_line)
    counts = {"total": len(batch.items), "completed": 0, "failed": 0}
    if batch.state != "open":
        counts |= {"completed": len(batch.good), "failed": len(batch.bad)}
    entry = {
        "id": batch.id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "status": _OPENAI_STATES[batch.state],
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.files.get("input"),
        "output_file_id": batch.files.get("output"),
        "error_file_id": batch.files.get("error"),
        "created_at": int(batch.created),
        "expires_at": int(batch.expires),
        "request_counts": counts,
        "metadata": {"tierwise_batch": batch.key} if batch.key else None,
    }
    if batch.ended is not None:
        entry[f"{_OPENAI_STATES[batch.state]}_at"] = int(batch.ended)
    return entry


def _openai_line(answer: ItemAnswer) -> dict[str, Any]:
    line: dict[str, Any] = {"id": "batch_req_1", "custom_id": answer.custom_id}
    if answer.kind != "answered":
        code = f"batch_{answer.kind}"
        error = {"code": code, "message": "This request could not be executed."}
        return {**line, "response": None, "error": error}
    response = {"status_code": answer.status, "request_id": "r", "body": _body(answer)}
    return {**line, "response": response, "error": None}


async def _openai_list(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    return await _listed(standin, incoming, query, _openai_batch, "after")


# Mistral.


async def _mistral_create(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: Any
) -> web.StreamResponse:
    from tests.kit.batch_standin import Item

    wanted = orjson.loads(body)
    content = standin.stored.get(wanted["input_files"][0])
    assert isinstance(content, bytes)
    items = [Item(line["custom_id"], line["body"]) for line in _lines_of(content)]
    refused = await _refused(standin, incoming, "create", len(items))
    if refused is not None:
        return refused
    key = (wanted.get("metadata") or {}).get("tierwise_batch")

    def make() -> StandinBatch:
        window = min(wanted["timeout_hours"] * 3600, standin.window_s)
        batch = standin.make("mistral", wanted["model"], key, items, window)
        batch.files["input"] = wanted["input_files"][0]
        return batch

    return await _made(standin, incoming, make, _mistral_job)


def _mistral_job(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
    _write_files(standin, batch, _openai_line)
    done = batch.state != "open"
    return {
        "id": batch.id,
        "object": "batch",
        "input_files": [batch.files["input"]],
        "metadata": {"tierwise_batch": batch.key} if batch.key else {},
        "endpoint": "/v1/chat/completions",
        "model": batch.model,
        "output_file": batch.files.get("output"),
        "error_file": batch.files.get("error"),
        "errors": batch.errors,
        "status": _MISTRAL_STATES[batch.state],
        "created_at": int(batch.created),
        "total_requests": len(batch.items),
        "completed_requests": len(batch.answers) if done else 0,
        "succeeded_requests": len(batch.good) if done else 0,
        "failed_requests": len(batch.bad) if done else 0,
        "completed_at": int(batch.ended) if batch.ended is not None else None,
    }


async def _mistral_list(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    order = standin.take_order("list")
    if order is not None:
        return await _fault(incoming, order.details["fault"])
    jobs = [batch for batch in standin.all_current() if batch.api == "mistral"]
    size = int(query["page_size"])
    begin = int(query["page"]) * size
    page = [_mistral_job(standin, batch) for batch in jobs[begin : begin + size]]
    return _json({"object": "list", "data": page, "total": len(jobs)})


# Anthropic.


async def _anthropic_create(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: Any
) -> web.StreamResponse:
    from tests.kit.batch_standin import Item

    refused = await _refused(standin, incoming, "upload")
    if refused is not None:
        return refused
    if standin.max_bytes is not None and len(body) > standin.max_bytes:
        return await _fault(incoming, status(413, "Request exceeds the maximum size"))
    wanted = orjson.loads(body)
    items = [Item(each["custom_id"], each["params"]) for each in wanted["requests"]]
    refused = await _refused(standin, incoming, "create", len(items))
    if refused is not None:
        return refused
    model = items[0].body["model"]
    assert "anthropic-version" in incoming.headers

    def make() -> StandinBatch:
        return standin.make("anthropic", model, None, items, standin.window_s)

    return await _made(standin, incoming, make, _anthropic_batch)


def _anthropic_batch(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
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
        "created_at": _iso(batch.created),
        "expires_at": _iso(batch.expires),
        "ended_at": _iso(batch.ended),
        "cancel_initiated_at": _iso(batch.cancel_asked),
        "archived_at": None,
        "results_url": f"https://elsewhere.example/{batch.id}" if done else None,
    }


def _anthropic_line(answer: ItemAnswer) -> dict[str, Any]:
    if answer.kind == "expired":
        result: dict[str, Any] = {"type": "expired"}
    elif answer.kind == "cancelled":
        result = {"type": "canceled"}
    elif answer.status < 300:
        result = {"type": "succeeded", "message": _body(answer)}
    else:
        names = {400: "invalid_request_error", 429: "rate_limit_error"}
        kind = names.get(answer.status, "api_error")
        given = _body(answer)
        message = given["error"]["message"] if isinstance(given, dict) else "failed"
        error = {"type": kind, "message": message}
        result = {"type": "errored", "error": {"type": "error", "error": error}}
    return {"custom_id": answer.custom_id, "result": result}


async def _anthropic_results(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    own_id: str,
) -> web.StreamResponse:
    order = standin.take_order("results")
    if order is not None:
        return await _fault(incoming, order.details["fault"])
    batch = standin.current(own_id)
    is_gone = batch is None or any(
        batch.ordered(name) is not None for name in ("results_gone", "results_missing")
    )
    if batch is None or batch.is_open or is_gone:
        return await _fault(incoming, status(404, "the results are not available"))
    lines = lines_with_faults(batch, batch.answers, _anthropic_line)
    return await _stream(standin, incoming, lines)


async def _anthropic_list(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    return await _listed(standin, incoming, query, _anthropic_batch, "after_id")


async def _anthropic_delete(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    own_id: str,
) -> web.StreamResponse:
    standin.deleted.append(own_id)
    return _json({"id": own_id, "type": "message_batch_deleted"})


# Gemini.


async def _gemini_upload(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    refused = await _refused(standin, incoming, "upload")
    if refused is not None:
        return refused
    if incoming.headers["x-goog-upload-command"] == "start":
        size = int(incoming.headers["x-goog-upload-header-content-length"])
        if standin.max_bytes is not None and size > standin.max_bytes:
            return await _fault(incoming, status(413, "The file is too large"))
        address = f"{standin.url}{incoming.path}?upload_id=1"
        return web.Response(headers={"X-Goog-Upload-URL": address})
    file_id = standin.store("input.jsonl", body)
    return _json({"file": {"name": f"files/{file_id}"}})


async def _gemini_create(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    model: str,
) -> web.StreamResponse:
    from tests.kit.batch_standin import Item

    wanted = orjson.loads(body)["batch"]
    file_name = wanted["input_config"]["file_name"]
    content = standin.stored.get(file_name.removeprefix("files/"))
    assert isinstance(content, bytes)
    items = [Item(line["key"], line["request"]) for line in _lines_of(content)]
    refused = await _refused(standin, incoming, "create", len(items))
    if refused is not None:
        return refused

    def make() -> StandinBatch:
        key = wanted["display_name"]
        batch = standin.make("gemini", model, key, items, standin.window_s)
        batch.files["input"] = file_name.removeprefix("files/")
        return batch

    return await _made(standin, incoming, make, _gemini_batch)


def _gemini_batch(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
    _write_files(standin, batch, _gemini_line)
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
        "createTime": _iso(batch.created),
        "endTime": _iso(batch.ended),
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


def _gemini_line(answer: ItemAnswer) -> dict[str, Any]:
    if answer.kind == "answered" and answer.status < 300:
        return {"key": answer.custom_id, "response": _body(answer)}
    codes = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14}
    code = codes.get(answer.status, 13)
    if answer.kind != "answered":
        code = 1
    return {"key": answer.custom_id, "error": {"code": code, "message": "ordered"}}


async def _gemini_list(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    order = standin.take_order("list")
    if order is not None:
        return await _fault(incoming, order.details["fault"])
    batches = [each for each in standin.all_current() if each.api == "gemini"]
    begin = int(query.get("pageToken", 0))
    page = batches[begin : begin + standin.page_size]
    answer: dict[str, Any] = {
        "operations": [_gemini_batch(standin, batch) for batch in page]
    }
    if begin + len(page) < len(batches):
        answer["nextPageToken"] = str(begin + len(page))
    return _json(answer)


async def _gemini_cancel(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    own_id: str,
) -> web.StreamResponse:
    batch = standin.current(own_id)
    if batch is None:
        return await _fault(incoming, status(404, "No such batch"))
    standin.cancel(batch)
    return _json({})


async def _gemini_delete(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    own_id: str,
) -> web.StreamResponse:
    standin.deleted.append(own_id)
    return _json({})


# The parts that the formats share.


async def _status(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    batch_id: str,
    write: Callable[[BatchStandin, StandinBatch], dict[str, Any]],
) -> web.StreamResponse:
    order = standin.take_order("status")
    if order is not None:
        return await _fault(incoming, order.details["fault"])
    batch = standin.current(batch_id)
    if batch is None:
        return await _fault(
            incoming, status(404, f"No batch found with id '{batch_id}'")
        )
    return _json(write(standin, batch))


async def _cancelled(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    batch_id: str,
    write: Callable[[BatchStandin, StandinBatch], dict[str, Any]],
) -> web.StreamResponse:
    batch = standin.current(batch_id)
    if batch is None:
        return await _fault(incoming, status(404, "No such batch"))
    if not batch.is_open:
        return await _fault(
            incoming, status(409, "Cannot cancel a batch that has ended")
        )
    standin.cancel(batch)
    return _json(write(standin, batch))


async def _listed(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    query: Mapping[str, str],
    write: Callable[[BatchStandin, StandinBatch], dict[str, Any]],
    after_name: str,
) -> web.StreamResponse:
    order = standin.take_order("list")
    if order is not None:
        return await _fault(incoming, order.details["fault"])
    batches = standin.all_current()
    after = query.get(after_name)
    if after:
        places = [place for place, batch in enumerate(batches) if batch.id == after]
        batches = batches[places[0] + 1 :]
    page = batches[: min(int(query.get("limit", 20)), standin.page_size)]
    return _json(
        {
            "object": "list",
            "data": [write(standin, batch) for batch in page],
            "has_more": len(batches) > len(page),
            "last_id": page[-1].id if page else None,
        }
    )


async def _refused(
    standin: BatchStandin, incoming: web.BaseRequest, stage: str, items: int = 0
) -> web.StreamResponse | None:
    """Refuse an upload or a batch, where that is ordered or it has too many items."""
    if (
        stage == "create"
        and standin.max_items is not None
        and items > standin.max_items
    ):
        message = (
            f"The batch exceeds the maximum number of requests: {standin.max_items}"
        )
        return await _fault(incoming, status(400, message))
    if any(order.name == "create_lost" for order in standin.ordered()):
        return None
    order = standin.take_order(stage)
    if order is None:
        return None
    return await _fault(incoming, _refusal(order))


def _refusal(order: Order) -> Fault:
    if "fault" in order.details:
        fault: Fault = order.details["fault"]
        return fault
    if order.name == "file_too_large":
        return status(413, "The file is too large")
    if order.name == "too_many_items":
        return status(400, "The batch exceeds the maximum number of requests: 50000")
    if order.name == "queue_full":
        message = "Enqueued token limit reached. Try again once batches have completed."
        return status(429, message, code="token_limit_exceeded")
    if order.name == "create_failed":
        return status(500, "it failed")
    return status(int(order.details.get("status", 400)), "This model has no batches")


async def _made(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    make: Callable[[], StandinBatch],
    write: Callable[[BatchStandin, StandinBatch], dict[str, Any]],
) -> web.StreamResponse:
    """Make a batch and say so, unless the answer is to be lost."""
    lost = next((o for o in standin.ordered() if o.name == "create_lost"), None)
    if lost is not None:
        standin.take_order("create")
    batch = make()
    if lost is None:
        return _json(write(standin, batch))
    if "status" in lost.details:
        return await _fault(incoming, status(int(lost.details["status"]), "it failed"))
    return await _send(incoming, b"", Fault(cut_at=0))


def _write_files(
    standin: BatchStandin,
    batch: StandinBatch,
    write: Callable[[ItemAnswer], dict[str, Any]],
) -> None:
    """Store the files of results of a batch that has ended, once."""
    if batch.is_open or batch.state == "failed" or batch.files.get("written"):
        return
    batch.files["written"] = "yes"
    if batch.ordered("results_missing") is not None:
        return
    good = lines_with_faults(batch, batch.good, write)
    if good or batch.ordered("many_lines") is not None:
        batch.files["output"] = standin.store("output.jsonl", good)
    if batch.bad:
        lines = [orjson.dumps(write(answer)) + b"\n" for answer in batch.bad]
        batch.files["error"] = standin.store("error.jsonl", lines)
    if batch.ordered("results_gone") is not None:
        for name in ("output", "error"):
            standin.stored.pop(batch.files.get(name, ""), None)


def lines_with_faults(
    batch: StandinBatch,
    answers: Iterable[ItemAnswer],
    write: Callable[[ItemAnswer], dict[str, Any]],
) -> list[bytes]:
    """The lines of a file of results, with what is ordered for it."""
    lines = [orjson.dumps(write(answer)) + b"\n" for answer in answers]
    if batch.ordered("duplicate") is not None and lines:
        lines.append(lines[0])
    if batch.ordered("unknown_id") is not None and lines:
        own_id = batch.items[0].custom_id.encode()
        lines.insert(0, lines[0].replace(own_id, b"f" * 64))
    raw = batch.ordered("raw_lines")
    if raw is not None:
        given = [
            each if isinstance(each, bytes) else each.encode() for each in raw["lines"]
        ]
        lines = [each + b"\n" for each in given] + lines
    if batch.ordered("truncated") is not None:
        lines = lines[: len(lines) // 2]
    return lines


def _body(answer: ItemAnswer) -> Any:
    """The body of an answer, as JSON where it is."""
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return answer.body.decode(errors="replace")


async def _stream(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    lines: Iterable[bytes],
    extra: Iterable[bytes] = (),
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-jsonl"})
    stamp = time.gmtime(standin.clock.time())
    response.headers["Date"] = time.strftime("%a, %d %b %Y %H:%M:%S GMT", stamp)
    await response.prepare(incoming)
    for line in lines:
        await response.write(line)
    async for chunk in _chunks(extra):
        await response.write(chunk)
    await response.write_eof()
    return response


async def _chunks(lines: Iterable[bytes]) -> AsyncIterator[bytes]:
    chunk: list[bytes] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) >= 50:
            yield b"".join(chunk)
            chunk = []
    yield b"".join(chunk)


async def _fault(incoming: web.BaseRequest, fault: Fault) -> web.StreamResponse:
    return await _send(incoming, fault.body or b"", fault)


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _routed(
    handler: Any, write: Callable[[BatchStandin, StandinBatch], dict[str, Any]]
) -> Any:
    """A handler of a path with a batch's id, in one format."""

    async def handle(
        standin: BatchStandin,
        incoming: web.BaseRequest,
        body: bytes,
        query: Any,
        own_id: str,
    ) -> web.StreamResponse:
        found: web.StreamResponse = await handler(standin, incoming, own_id, write)
        return found

    return handle


_ID = r"([\w.:-]+)"
_GEMINI_ID = r"(batches/[\w.-]+)"
_ROUTES: dict[str, list[tuple[str, Any]]] = {
    "POST": [
        (r"/upload/v1beta/files", _gemini_upload),
        (r".*/v1beta/models/([\w.-]+):batchGenerateContent", _gemini_create),
        (rf".*/v1beta/{_GEMINI_ID}:cancel", _gemini_cancel),
        (r".*/messages/batches", _anthropic_create),
        (rf".*/messages/batches/{_ID}/cancel", _routed(_cancelled, _anthropic_batch)),
        (r".*/batch/jobs", _mistral_create),
        (rf".*/batch/jobs/{_ID}/cancel", _routed(_cancelled, _mistral_job)),
        (r".*/files", _upload),
        (rf".*/batches/{_ID}/cancel", _routed(_cancelled, _openai_batch)),
        (r".*/batches", _openai_create),
    ],
    "GET": [
        (rf"/download/v1beta/files/{_ID}:download", _content),
        (rf".*/v1beta/{_GEMINI_ID}", _routed(_status, _gemini_batch)),
        (r".*/v1beta/batches", _gemini_list),
        (rf".*/messages/batches/{_ID}/results", _anthropic_results),
        (rf".*/messages/batches/{_ID}", _routed(_status, _anthropic_batch)),
        (r".*/messages/batches", _anthropic_list),
        (rf".*/batch/jobs/{_ID}", _routed(_status, _mistral_job)),
        (r".*/batch/jobs", _mistral_list),
        (rf".*/files/{_ID}/content", _content),
        (rf".*/files/{_ID}", _file),
        (rf".*/batches/{_ID}", _routed(_status, _openai_batch)),
        (r".*/batches", _openai_list),
    ],
    "DELETE": [
        (rf".*/v1beta/{_GEMINI_ID}", _gemini_delete),
        (rf".*/messages/batches/{_ID}", _anthropic_delete),
        (rf".*/files/{_ID}", _delete_file),
    ],
}
