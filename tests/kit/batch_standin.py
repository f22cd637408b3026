"""A stand-in for providers' batch APIs on a real socket: OpenAI's, Anthropic's, Mistral's, Gemini's.

    with BatchStandin() as standin:
        standin.prices["small"] = StandinPrice(input=2, output=10)
        standin.turnaround_s = 3600          # or a function of the batch; 0 unless told otherwise
        standin.order("expired", share=0.5)  # one fault, of the next batch or request
        ...                                  # call standin.url + "/v1"
        standin.clock.advance(3600)          # or standin.finish()
        assert standin.billed == 1234        # micro-dollars; standin.invoice has them by item

It answers online calls too, at twice the price, with the same answers. Alone, so that it outlives
its client: `python -m tests.kit.batch_standin --port 8701 --turnaround-s 60`; then `Remote(url)`
orders its faults, moves its clock and reads its invoice.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import count
from typing import Any

import orjson
from aiohttp import web

from tests.kit.batch_values import (
    HOUR_S,
    OF_A_BATCH,
    OF_A_REQUEST,
    Api,
    InvoiceLine,
    Item,
    ItemAnswer,
    Order,
    StandinBatch,
    StandinClock,
    StandinPrice,
    State,
    cost_of,
    system_prompt_of,
)
from tests.kit.standin import (
    OK,
    Fault,
    Request,
    Standin,
    _encoder,
    _send,
    status,
)

__all__ = [
    "HOUR_S",
    "BatchStandin",
    "InvoiceLine",
    "Remote",
    "StandinBatch",
    "StandinPrice",
]


class BatchStandin(Standin):
    """The server, in a thread of its own. Online calls as in `Standin`."""

    def __init__(
        self, *, port: int = 0, latency_s: float = 0, keep: bool = True
    ) -> None:
        super().__init__(port=port, latency_s=latency_s, keep=keep)
        self.clock = StandinClock()
        self.prices: dict[str, StandinPrice] = {}
        self.batch_share = Decimal("0.5")  # of the online price
        self.turnaround_s: float | Callable[[StandinBatch], float] = 0.0
        self.window_s = 24 * HOUR_S
        self.keeps_metadata = True
        self.is_together = False  # OpenAI's format as Together has it
        self.caches_prefixes = False  # reads and writes of the system prompt, by model
        self.max_items: int | None = None
        self.max_bytes: int | None = None
        self.max_enqueued_tokens: int | None = None
        self.page_size = 100  # of lists of batches
        self.revoked: str = ""  # a key that gets a 401
        self.batches: dict[str, StandinBatch] = {}
        self.stored: dict[str, bytes | list[bytes]] = {}  # files by id
        self.names: dict[str, str] = {}  # of files, by id
        self.deleted: list[str] = []
        self.paths: list[tuple[str, str]] = []  # methods and paths of all requests
        self.invoice: list[InvoiceLine] = []
        self._orders: deque[Order] = deque()
        self._numbers = count(1)
        self._prefixes: set[tuple[str, str]] = set()
        self._lock = threading.RLock()

    # What tests do.

    def order(self, name: str, **details: Any) -> None:
        """Order one fault: `OF_A_REQUEST` for the next such request, else for the next batch."""
        if name not in OF_A_REQUEST and name not in OF_A_BATCH:
            raise ValueError(f"no fault named {name}")
        with self._lock:
            self._orders.append(Order(name, details))

    def finish(self, batch: str | None = None) -> None:
        """End a batch, or all that are open, with all answers."""
        with self._lock:
            for each in list(self.batches.values()):
                if each.is_open and batch in (None, each.id):
                    self._end(each, "ended", 1.0)

    @property
    def billed(self) -> Decimal:
        """Micro-dollars of all answers."""
        return sum((line.micros for line in self.invoice), Decimal(0))

    def billed_items(self) -> dict[str, int]:
        """How often each item of batches was charged, by its id."""
        times: dict[str, int] = {}
        for line in self.invoice:
            if line.custom_id is not None:
                times[line.custom_id] = times.get(line.custom_id, 0) + 1
        return times

    # What the formats need.

    def ordered(self) -> list[Order]:
        """The faults that have not been met yet."""
        with self._lock:
            return list(self._orders)

    def take_order(self, stage: str) -> Order | None:
        """The next fault of a request, if one is ordered."""
        with self._lock:
            for order in self._orders:
                if OF_A_REQUEST.get(order.name) == stage:
                    self._orders.remove(order)
                    return order
        return None

    def store(self, name: str, content: bytes | list[bytes]) -> str:
        """Keep a file, and return its id."""
        file_id = f"file-{next(self._numbers)}"
        self.stored[file_id] = content
        self.names[file_id] = name
        return file_id

    def make(
        self, api: Api, model: str, key: str | None, items: list[Item], window_s: float
    ) -> StandinBatch:
        """Make a batch, with the faults that are ordered for it."""
        with self._lock:
            own = [order for order in self._orders if order.name in OF_A_BATCH]
            for order in own:
                self._orders.remove(order)
            prefix = {"anthropic": "msgbatch_", "gemini": "batches/"}.get(api, "batch_")
            batch = StandinBatch(
                id=f"{prefix}{next(self._numbers)}",
                api=api,
                model=model,
                key=key if self.keeps_metadata else None,
                items=items,
                created=self.clock.time(),
                window_s=window_s,
                turnaround_s=None,
                orders=own,
            )
            if batch.ordered("hangs") is None:
                turnaround = self.turnaround_s
                is_fixed = isinstance(turnaround, int | float)
                batch.turnaround_s = turnaround if is_fixed else turnaround(batch)
            self._validate(batch)
            self.batches[batch.id] = batch
            return batch

    def current(self, batch_id: str) -> StandinBatch | None:
        """A batch as it is by now."""
        with self._lock:
            batch = self.batches.get(batch_id)
            if batch is not None:
                self._advance(batch)
            return batch

    def all_current(self) -> list[StandinBatch]:
        """All batches, the newest first."""
        with self._lock:
            found = [self.current(batch_id) for batch_id in self.batches]
        return [batch for batch in reversed(found) if batch is not None]

    def cancel(self, batch: StandinBatch) -> None:
        """Begin to cancel."""
        with self._lock:
            if batch.is_open:
                batch.state = "cancelling"
                batch.cancel_asked = self.clock.time()

    def tokens_waiting(self, model: str) -> int:
        """Prompt tokens of the open batches of a model."""
        return sum(
            len(orjson.dumps(item.body)) // 4
            for batch in self.batches.values()
            if batch.is_open and batch.model == model
            for item in batch.items
        )

    def many_lines(self, batch: StandinBatch) -> Iterator[bytes]:
        """The lines of other items, where many are ordered, and none of them in memory."""
        details = batch.ordered("many_lines")
        if details is None:
            return
        body = {"choices": [{"message": {"content": "x" * details.get("size", 1500)}}]}
        response = {"status_code": 200, "body": body}
        rest = orjson.dumps({"response": response, "error": None})[1:]
        for number in range(details["number"]):
            yield b'{"custom_id":"%064x",' % number + rest + b"\n"

    # How batches go.

    def _validate(self, batch: StandinBatch) -> None:
        """Fail a batch whose validation has an ordered fault, or that passes a limit."""
        waiting = self.max_enqueued_tokens
        is_full = waiting is not None and (
            self.tokens_waiting(batch.model)
            + sum(len(orjson.dumps(item.body)) // 4 for item in batch.items)
            > waiting
        )
        if is_full or batch.ordered("validation_full") is not None:
            batch.errors = [
                {"code": "token_limit_exceeded", "message": "Enqueued token limit"}
            ]
        elif (details := batch.ordered("lines_invalid")) is not None:
            batch.errors = [
                {"code": "invalid_json_line", "message": "not valid", "line": line}
                for line in details["lines"]
            ]
        elif batch.ordered("all_invalid") is not None:
            batch.errors = [{"code": "mismatched_model", "message": "not valid"}]
        elif batch.ordered("failed") is not None:
            batch.errors = [{"code": "internal_error", "message": "it failed"}]
        else:
            return
        batch.state = "failed"
        batch.ended = batch.created

    def _advance(self, batch: StandinBatch) -> None:
        now = self.clock.time()
        if not batch.is_open:
            return
        cancelled = batch.ordered("cancelled")
        expired = batch.ordered("expired")
        if batch.state == "cancelling":
            self._end(batch, "cancelled", self._share(batch, now))
        elif cancelled is not None:
            self._end(batch, "cancelled", cancelled.get("share", 0.5))
        elif expired is not None:
            self._end(batch, "expired", expired.get("share", 0.5))
        elif (
            batch.turnaround_s is not None and now >= batch.created + batch.turnaround_s
        ):
            self._end(batch, "ended", 1.0)
        elif now >= batch.expires and batch.ordered("hangs") is None:
            self._end(batch, "expired", self._share(batch, batch.expires))

    def _share(self, batch: StandinBatch, now: float) -> float:
        """The share of the items that is answered at a time."""
        if not batch.turnaround_s:
            return 0.0
        return min(1.0, (now - batch.created) / batch.turnaround_s)

    def _end(self, batch: StandinBatch, state: State, share: float) -> None:
        answered = int(len(batch.items) * share)
        left_out = (batch.ordered("left_out") or {}).get("places", ())
        for place, item in enumerate(batch.items, start=1):
            if place in left_out:
                continue
            if place <= answered:
                batch.answers.append(self._answered(batch, item, place))
            else:
                kind = "cancelled" if state == "cancelled" else "expired"
                batch.answers.append(ItemAnswer(item.custom_id, kind))
        batch.state = state
        batch.ended = self.clock.time()
        if batch.ordered("shuffled") is not None:
            random.Random(7).shuffle(batch.answers)

    def _answered(self, batch: StandinBatch, item: Item, place: int) -> ItemAnswer:
        paths = {
            "anthropic": "/v1/messages",
            "gemini": f"/{batch.model}:generateContent",
        }
        path = paths.get(batch.api, "/v1/chat/completions")
        request = Request(path, {}, item.body)
        fault = OK
        details = batch.ordered("items")
        if details is not None and place in details.get("places", (place,)):
            fault = details["fault"]
        if batch.ordered("errors_only") is not None:
            fault = status(400, "ordered fault")
        if batch.ordered("no_usage") is not None:
            fault = Fault(usage=None)
        status_code, body = self.answer_to(request, fault, item.custom_id, batch)
        return ItemAnswer(item.custom_id, "answered", status_code, body)

    def answer_to(
        self,
        request: Request,
        fault: Fault,
        custom_id: str | None,
        batch: StandinBatch | None,
    ) -> tuple[int, bytes]:
        """The status and body of an answer, which is charged if it is good."""
        if fault.body is not None:
            return fault.status, fault.body
        text = self._answer(request) if fault.text is None else fault.text
        if isinstance(text, Fault):
            fault = text
            text = fault.text or ""
            if fault.body is not None:
                return fault.status, fault.body
        encode = _encoder(request.path)
        assert encode is not None
        number = next(self._ids)
        encoded = encode(request, text, fault, number)
        if self.caches_prefixes:
            self._note_cache(request, encoded)
        reply = self._named(request, encoded)
        if fault.status < 300:
            # The provider knows what it did, also where its answer does not say so.
            full = encoded
            if fault.usage is None:
                full = encode(request, text, OK, number)
            self._charge(request, full, custom_id, batch)
        return fault.status, orjson.dumps(reply)

    def _note_cache(self, request: Request, reply: dict[str, Any]) -> None:
        """Count the system prompt as written to the cache, or read from it."""
        prefix = system_prompt_of(request.body)
        tokens = len(prefix) // 4
        if not tokens:
            return
        place = (request.model, prefix)
        is_read = place in self._prefixes
        self._prefixes.add(place)
        usage = reply.get("usage")
        if isinstance(usage, dict) and "prompt_tokens" in usage:
            cached = min(tokens, usage["prompt_tokens"]) if is_read else 0
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        elif isinstance(usage, dict):
            usage["cache_read_input_tokens"] = tokens if is_read else 0
            usage["cache_creation_input_tokens"] = 0 if is_read else tokens
        elif isinstance(reply.get("usageMetadata"), dict):
            meta = reply["usageMetadata"]
            cached = min(tokens, meta["promptTokenCount"]) if is_read else 0
            meta["cachedContentTokenCount"] = cached

    def _charge(
        self,
        request: Request,
        reply: Mapping[str, Any],
        custom_id: str | None,
        batch: StandinBatch | None,
    ) -> None:
        model = batch.model if batch is not None else request.model
        price = self.prices.get(model) or self.prices.get(request.model)
        micros = Decimal(0)
        if price is not None:
            micros = cost_of(reply, price)
            if batch is not None:
                micros *= self.batch_share
        line = InvoiceLine(custom_id, model, batch.id if batch else None, micros)
        self.invoice.append(line)

    # The requests.

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        from tests.kit import batch_formats

        self.paths.append((incoming.method, incoming.path))
        if incoming.path.startswith("/standin/"):
            return await _controlled(self, incoming)
        key = incoming.headers.get("authorization", "").removeprefix("Bearer ")
        key = key or incoming.headers.get("x-api-key", "")
        key = key or incoming.headers.get("x-goog-api-key", "")
        if self.revoked and self.revoked in ("*", key):
            fault = status(401, "Incorrect API key provided")
            return await _send(incoming, fault.body or b"", fault)
        response = await batch_formats.respond(self, incoming)
        if response is not None:
            date = time.gmtime(self.clock.time())
            stamp = time.strftime("%a, %d %b %Y %H:%M:%S GMT", date)
            if not response.prepared:
                response.headers["Date"] = stamp
            return response
        return await super()._handle(incoming)

    def _note_reply(self, request: Request, reply: dict[str, Any]) -> None:
        """Charge an online call."""
        with self._lock:
            if self.caches_prefixes:
                self._note_cache(request, reply)
            self._charge(request, reply, None, None)


async def _controlled(
    standin: BatchStandin, incoming: web.BaseRequest
) -> web.StreamResponse:
    """Do what a test in another process wants."""
    wanted = incoming.path.removeprefix("/standin/")
    given: dict[str, Any] = orjson.loads(await incoming.read() or b"{}")
    if wanted == "order":
        fault = given.get("fault")
        if fault is not None:
            given["fault"] = status(**{"status_code": 500, **_renamed(fault)})
        standin.order(given.pop("name"), **given)
    elif wanted == "finish":
        standin.finish(given.get("batch"))
    elif wanted == "advance":
        standin.clock.advance(given["seconds"])
    elif wanted == "set":
        prices = given.pop("prices", {})
        standin.prices.update(
            {name: StandinPrice(**price) for name, price in prices.items()}
        )
        for name, value in given.items():
            setattr(standin, name, value)
    lines = [
        [line.custom_id, line.model, line.batch, str(line.micros)]
        for line in standin.invoice
    ]
    batches = {batch.id: batch.state for batch in standin.all_current()}
    return web.json_response({"invoice": lines, "batches": batches})


def _renamed(fault: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `status` in a fault that came as JSON."""
    return {
        ("status_code" if name == "status" else name): fault[name] for name in fault
    }


class Remote:
    """A stand-in in another process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def order(self, name: str, **details: Any) -> None:
        self._ask("order", {"name": name, **details})

    def finish(self, batch: str | None = None) -> None:
        self._ask("finish", {"batch": batch})

    def advance(self, seconds: float) -> None:
        self._ask("advance", {"seconds": seconds})

    def set(self, **values: Any) -> None:
        """Set attributes of the stand-in; `prices` is a dictionary of dictionaries."""
        self._ask("set", values)

    @property
    def invoice(self) -> list[InvoiceLine]:
        """What was charged by now."""
        lines = self._ask("look", {})["invoice"]
        return [InvoiceLine(a, b, c, Decimal(micros)) for a, b, c, micros in lines]

    @property
    def batches(self) -> dict[str, State]:
        """The states of all batches, by id."""
        states: dict[str, State] = self._ask("look", {})["batches"]
        return states

    def _ask(self, wanted: str, given: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/standin/{wanted}", data=orjson.dumps(given), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = orjson.loads(response.read())
            return answer


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A stand-in for batch APIs.")
    parser.add_argument("--port", type=int, default=8701)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--turnaround-s", type=float, default=0)
    parser.add_argument("--speed", type=float, default=1, help="of its clock")
    options = parser.parse_args()
    standin = BatchStandin(
        port=options.port, latency_s=options.latency_ms / 1000, keep=False
    )
    standin.turnaround_s = options.turnaround_s
    standin.clock.run_at(options.speed)

    async def serve() -> None:
        serving = asyncio.create_task(standin._serve())
        while not standin._started.is_set():
            await asyncio.sleep(0.01)
        print(f"serving on {standin.url}", flush=True)  # noqa: T201 - a command
        await serving

    asyncio.run(serve())


if __name__ == "__main__":
    main()
