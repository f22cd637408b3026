"""OpenAI's files and batches, and Mistral's jobs, as the stand-in speaks them."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
from tests.kit.batch_values import Item, ItemAnswer, StandinBatch
from tests.kit.standin import status

if TYPE_CHECKING:
    from tests.kit.batch_standin import BatchStandin

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


# Files: OpenAI's and Mistral's.


async def upload_file(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: Any
) -> web.StreamResponse:
    refusal = await refused(standin, incoming, "upload")
    if refusal is not None:
        return refusal
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
    wanted = "batch-api" if incoming.path.endswith("/upload") else "batch"
    assert fields.get("purpose") == wanted
    if standin.max_bytes is not None and len(content) > standin.max_bytes:
        return await faulty(incoming, status(413, "The file is too large"))
    file_id = standin.store(name, content)
    return json_answer(
        {"id": file_id, "object": "file", "bytes": len(content), "filename": name}
    )


async def file_entry(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    file_id: str,
) -> web.StreamResponse:
    if file_id not in standin.stored:
        return await faulty(incoming, status(404, "No such File object"))
    return json_answer(
        {"id": file_id, "object": "file", "filename": standin.names[file_id]}
    )


async def delete_file(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    file_id: str,
) -> web.StreamResponse:
    if standin.stored.pop(file_id, None) is None:
        return await faulty(incoming, status(404, "No such File object"))
    standin.deleted.append(file_id)
    return json_answer({"id": file_id, "deleted": True})


async def file_content(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    file_id: str,
) -> web.StreamResponse:
    order = standin.take_order("results")
    if order is not None:
        return await faulty(incoming, order.details["fault"])
    content = standin.stored.get(file_id)
    if content is None:
        return await faulty(incoming, status(404, "No such File object"))
    lines = [content] if isinstance(content, bytes) else content
    of_batch = [b for b in standin.batches.values() if b.files.get("output") == file_id]
    extra = standin.many_lines(of_batch[0]) if of_batch else iter(())
    return await stream(standin, incoming, lines, extra)


def lines_of(body: bytes) -> Iterator[dict[str, Any]]:
    for line in body.splitlines():
        yield orjson.loads(line)


# OpenAI.


async def openai_create(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: Any
) -> web.StreamResponse:
    wanted = orjson.loads(body)
    if "requests" in wanted:
        return await openrouter_create(standin, incoming, wanted)
    content = standin.stored.get(wanted["input_file_id"])
    assert isinstance(content, bytes)
    lines = list(lines_of(content))
    items = [Item(line["custom_id"], line["body"]) for line in lines]
    assert all(line["url"] == wanted["endpoint"] for line in lines)
    refusal = await refused(standin, incoming, "create", len(items))
    if refusal is not None:
        return refusal
    hours = float(wanted["completion_window"].removesuffix("h"))
    key = (wanted.get("metadata") or {}).get("tierwise_batch")

    def make() -> StandinBatch:
        model = items[0].body["model"]
        batch = standin.make(
            "openai", model, key, items, min(hours * 3600, standin.window_s)
        )
        batch.files["input"] = wanted["input_file_id"]
        return batch

    def write(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
        entry = openai_batch(standin, batch)
        return {"job": entry, "warning": ""} if standin.is_together else entry

    return await made(standin, incoming, make, write)


def openai_batch(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
    write_files(standin, batch, openai_line)
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
    if standin.is_together:
        del entry["request_counts"], entry["metadata"], entry["expires_at"]
        entry["status"] = entry["status"].upper()
        entry["created_at"] = iso(batch.created)
        entry["job_deadline"] = iso(batch.expires)
        return entry
    if batch.ended is not None:
        entry[f"{_OPENAI_STATES[batch.state]}_at"] = int(batch.ended)
    return entry


async def openrouter_create(
    standin: BatchStandin, incoming: web.BaseRequest, wanted: dict[str, Any]
) -> web.StreamResponse:
    """Make a batch of the requests in the body; its answer names neither files nor a key."""
    assert list(wanted) == ["endpoint", "model", "requests"]
    for stage in ("upload", "create"):
        refusal = await refused(standin, incoming, stage, len(wanted["requests"]))
        if refusal is not None:
            return refusal
    items = [Item(each["custom_id"], each["body"]) for each in wanted["requests"]]

    def make() -> StandinBatch:
        return standin.make("openai", wanted["model"], None, items, standin.window_s)

    return await made(standin, incoming, make, openrouter_batch)


def openrouter_batch(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
    batch.files["written"] = "yes"  # it has none
    entry = openai_batch(standin, batch)
    kept = ("id", "object", "endpoint", "status", "created_at", "request_counts")
    return {name: entry[name] for name in kept} | {"finalized_at": batch.ended}


async def openrouter_results(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: dict[str, str],
    own_id: str,
) -> web.StreamResponse:
    order = standin.take_order("results")
    if order is not None:
        return await faulty(incoming, order.details["fault"])
    batch = standin.current(own_id)
    gone = ("results_gone", "results_missing")
    if (
        batch is None
        or batch.is_open
        or any(batch.ordered(name) is not None for name in gone)
    ):
        return await faulty(incoming, status(404, "no results"))
    lines = lines_with_faults(batch, batch.answers, openai_line)
    rows = [orjson.loads(line) for line in lines]
    begin = int(query.get("cursor", 0))
    end = begin + standin.page_size
    following = str(end) if end < len(rows) else None
    page = {"object": "list", "data": rows[begin:end], "next_cursor": following}
    return json_answer(page)


async def delete_batch(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    body: bytes,
    query: Any,
    own_id: str,
) -> web.StreamResponse:
    standin.deleted.append(own_id)
    return json_answer({"id": own_id, "deleted": True})


def openai_line(answer: ItemAnswer) -> dict[str, Any]:
    line: dict[str, Any] = {"id": "batch_req_1", "custom_id": answer.custom_id}
    if answer.kind != "answered":
        code = f"batch_{answer.kind}"
        error = {"code": code, "message": "This request could not be executed."}
        return {**line, "response": None, "error": error}
    response = {
        "status_code": answer.status,
        "request_id": "r",
        "body": body_of(answer),
    }
    return {**line, "response": response, "error": None}


async def openai_list(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    answer = await batch_list(standin, incoming, query, openai_batch, "after")
    if standin.is_together and isinstance(answer, web.Response):
        assert isinstance(answer.body, bytes)
        return json_answer(orjson.loads(answer.body)["data"])
    return answer


# Mistral.


async def mistral_create(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: Any
) -> web.StreamResponse:
    wanted = orjson.loads(body)
    content = standin.stored.get(wanted["input_files"][0])
    assert isinstance(content, bytes)
    items = [Item(line["custom_id"], line["body"]) for line in lines_of(content)]
    refusal = await refused(standin, incoming, "create", len(items))
    if refusal is not None:
        return refusal
    key = (wanted.get("metadata") or {}).get("tierwise_batch")

    def make() -> StandinBatch:
        window = min(wanted["timeout_hours"] * 3600, standin.window_s)
        batch = standin.make("mistral", wanted["model"], key, items, window)
        batch.files["input"] = wanted["input_files"][0]
        return batch

    return await made(standin, incoming, make, mistral_job)


def mistral_job(standin: BatchStandin, batch: StandinBatch) -> dict[str, Any]:
    write_files(standin, batch, openai_line)
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


async def mistral_list(
    standin: BatchStandin, incoming: web.BaseRequest, body: bytes, query: dict[str, str]
) -> web.StreamResponse:
    order = standin.take_order("list")
    if order is not None:
        return await faulty(incoming, order.details["fault"])
    jobs = [batch for batch in standin.all_current() if batch.api == "mistral"]
    size = int(query["page_size"])
    begin = int(query["page"]) * size
    page = [mistral_job(standin, batch) for batch in jobs[begin : begin + size]]
    return json_answer({"object": "list", "data": page, "total": len(jobs)})
