"""What the formats of the stand-in for batch APIs share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from tests.kit.batch_values import ItemAnswer, Order, StandinBatch
from tests.kit.standin import Fault, _send, status

if TYPE_CHECKING:
    from tests.kit.batch_standin import BatchStandin


async def batch_status(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    batch_id: str,
    write: Callable[[BatchStandin, StandinBatch], dict[str, Any]],
) -> web.StreamResponse:
    order = standin.take_order("status")
    if order is not None:
        return await faulty(incoming, order.details["fault"])
    batch = standin.current(batch_id)
    if batch is None:
        return await faulty(
            incoming, status(404, f"No batch found with id '{batch_id}'")
        )
    return json_answer(write(standin, batch))


async def batch_cancelled(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    batch_id: str,
    write: Callable[[BatchStandin, StandinBatch], dict[str, Any]],
) -> web.StreamResponse:
    batch = standin.current(batch_id)
    if batch is None:
        return await faulty(incoming, status(404, "No such batch"))
    if not batch.is_open:
        return await faulty(
            incoming, status(409, "Cannot cancel a batch that has ended")
        )
    standin.cancel(batch)
    return json_answer(write(standin, batch))


async def batch_list(
    standin: BatchStandin,
    incoming: web.BaseRequest,
    query: Mapping[str, str],
    write: Callable[[BatchStandin, StandinBatch], dict[str, Any]],
    after_name: str,
) -> web.StreamResponse:
    order = standin.take_order("list")
    if order is not None:
        return await faulty(incoming, order.details["fault"])
    batches = standin.all_current()
    after = query.get(after_name)
    if after:
        places = [place for place, batch in enumerate(batches) if batch.id == after]
        batches = batches[places[0] + 1 :]
    page = batches[: min(int(query.get("limit", 20)), standin.page_size)]
    return json_answer(
        {
            "object": "list",
            "data": [write(standin, batch) for batch in page],
            "has_more": len(batches) > len(page),
            "last_id": page[-1].id if page else None,
        }
    )


async def refused(
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
        return await faulty(incoming, status(400, message))
    if any(order.name == "create_lost" for order in standin.ordered()):
        return None
    order = standin.take_order(stage)
    if order is None:
        return None
    return await faulty(incoming, refusal(order))


def refusal(order: Order) -> Fault:
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


async def made(
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
        return json_answer(write(standin, batch))
    if "status" in lost.details:
        return await faulty(incoming, status(int(lost.details["status"]), "it failed"))
    return await _send(incoming, b"", Fault(cut_at=0))


def write_files(
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


def body_of(answer: ItemAnswer) -> Any:
    """The body of an answer, as JSON where it is."""
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return answer.body.decode(errors="replace")


async def stream(
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
    async for chunk in chunks(extra):
        await response.write(chunk)
    await response.write_eof()
    return response


async def chunks(lines: Iterable[bytes]) -> AsyncIterator[bytes]:
    chunk: list[bytes] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) >= 50:
            yield b"".join(chunk)
            chunk = []
    yield b"".join(chunk)


async def faulty(incoming: web.BaseRequest, fault: Fault) -> web.StreamResponse:
    return await _send(incoming, fault.body or b"", fault)


def json_answer(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def routed(
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
