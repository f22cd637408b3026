"""A provider in a process of its own, with faults to order and an invoice that is not the ledger.

    python -m tests.oncall.provider --port 8700 --invoice invoice.jsonl --key right

It survives whatever is killed around it. Every request is a line in the invoice; one that was
answered is billed, whether or not its client still listened. Orders come in at `/_bed/orders`. With
`--names ADDRESS` it also answers DNS there, until it is ordered to be silent.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import struct
import time
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, TextIO

from aiohttp import web

from tests.kit.standin import Fault, Request, Standin

FOREVER_S = 3600.0
CONTROL = "/_bed/"
ALERTS = CONTROL + "alerts"  # a webhook
_DNS_PORT = 53
_LOOPBACK = bytes([127, 0, 0, 1])

Kind = Literal["status", "hang", "no_names"]


@dataclass
class Order:
    """One fault: what it is, after how many answers it begins, and how long it lasts."""

    fault: Kind
    after: int = 0  # answers that come before it
    status: int = 0
    retry_after: float | None = None
    calls: int | None = None  # it hits so many calls, or
    seconds: float | None = None  # it lasts so long
    begun: float | None = None
    hits: int = 0

    def is_on(self, answered: int, now: float) -> bool:
        """Whether it hits what comes in now; the first question after its number begins it."""
        if self.begun is None:
            if answered < self.after:
                return False
            self.begun = now
        if self.calls is not None:
            return self.hits < self.calls
        assert self.seconds is not None
        return now - self.begun < self.seconds


@dataclass(frozen=True)
class Line:
    """One request on the invoice."""

    came: float  # epoch seconds
    answered: float
    status: int
    model: str
    question: str  # hash of the whole body
    document: str  # its first line
    last_line: str

    @property
    def is_billed(self) -> bool:
        return self.status == HTTPStatus.OK


def read_invoice(path: Path) -> list[Line]:
    """All lines that are complete."""
    if not path.exists():
        return []
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    return [Line(**json.loads(line)) for line in complete.splitlines()]


class Provider(Standin):
    """The stand-in with orders, an invoice and, if wanted, a name server."""

    def __init__(
        self,
        *,
        port: int,
        invoice: TextIO,
        key: str | None,
        latency_s: float,
        keep_alive: bool,
    ) -> None:
        super().__init__(port=port, latency_s=latency_s, keep=False)
        self._invoice = invoice
        self._key = key
        self._keep_alive = keep_alive
        self._orders: list[Order] = []
        self._slow: tuple[str, float] | None = None
        self._garbled: str | None = None
        self._alerts: list[Any] = []
        self._arrived = 0
        self._billed = 0

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        if incoming.path.startswith(CONTROL):
            return await self._control(incoming)
        came = time.time()
        self._arrived += 1
        body = await incoming.read()
        response = await self._response(incoming)
        request = Request(incoming.path, {}, json.loads(body))
        line = Line(
            came=came,
            answered=time.time(),
            status=response.status,
            model=request.model,
            question=hashlib.sha256(body).hexdigest(),
            document=request.document.partition("\n")[0],
            last_line=request.document.rpartition("\n")[2],
        )
        self._billed += line.is_billed
        self._invoice.write(json.dumps(asdict(line)) + "\n")
        self._invoice.flush()
        if not self._keep_alive:
            response.force_close()
        return response

    async def _response(self, incoming: web.BaseRequest) -> web.StreamResponse:
        order = self._order_for("status", "hang")
        if order and order.fault == "hang":
            await asyncio.sleep(FOREVER_S)
        if order:
            headers = {}
            if order.retry_after is not None:
                headers["Retry-After"] = str(order.retry_after)
            return _error(order.status, "ordered fault", headers)
        if self._key and incoming.headers.get("Authorization") != f"Bearer {self._key}":
            return _error(HTTPStatus.UNAUTHORIZED, "Incorrect API key provided")
        if self._slow:
            word, seconds = self._slow
            request = Request(incoming.path, {}, json.loads(await incoming.read()))
            if request.document.startswith(word):
                await asyncio.sleep(seconds)
        return await super()._handle(incoming)

    def _answer(self, request: Request) -> str | Fault:
        if self._garbled and request.document.startswith(self._garbled):
            return json.dumps({"label": "no such label", "summary": ""})
        return super()._answer(request)

    def names_are_known(self) -> bool:
        """Whether the name server answers now."""
        return self._order_for("no_names") is None

    def _order_for(self, *kinds: Kind) -> Order | None:
        now = time.time()
        for order in self._orders:
            if order.fault in kinds and order.is_on(self._billed, now):
                order.hits += 1
                return order
        return None

    async def _control(self, incoming: web.BaseRequest) -> web.Response:
        """`GET` tells what came, `POST` takes orders and new latencies."""
        if incoming.path == ALERTS:
            self._alerts.append(json.loads(await incoming.read()))
        elif incoming.method == "POST":
            wanted = json.loads(await incoming.read())
            self._orders += [Order(**order) for order in wanted.get("orders", ())]
            self.latency_s = wanted.get("latency_s", self.latency_s)
            if "slow" in wanted:
                word, seconds = wanted["slow"]
                self._slow = (word, seconds)
            self._garbled = wanted.get("garbled", self._garbled)
        told = {
            "arrived": self._arrived,
            "billed": self._billed,
            "alerts": self._alerts,
            "orders": [asdict(order) for order in self._orders],
        }
        return web.json_response(told)


class Names(asyncio.DatagramProtocol):
    """A name server: every name is this machine, while the provider says so."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._provider.names_are_known():
            self._transport.sendto(name_reply(data), addr)


def name_reply(query: bytes) -> bytes:
    """The reply to a DNS query of one question: 127.0.0.1, and no address of another kind."""
    identity = query[:2]
    end_of_name = query.index(b"\0", 12) + 1
    question = query[12 : end_of_name + 4]
    (kind,) = struct.unpack("!H", query[end_of_name : end_of_name + 2])
    is_address = kind == 1
    header = identity + struct.pack("!HHHHH", 0x8180, 1, int(is_address), 0, 0)
    if not is_address:
        return header + question
    # The name is that of the question, at byte 12; an address, for one second.
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + _LOOPBACK
    return header + question + record


def _error(
    status: int, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"error": {"message": message, "type": "ordered", "code": status}}
    return web.json_response(body, status=status, headers=headers or {})


async def serve(provider: Provider, names_at: str | None) -> None:
    """Serve until the process is ended."""
    if names_at:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(
            lambda: Names(provider), local_addr=(names_at, _DNS_PORT)
        )
    await provider._serve()


def main() -> None:
    """Serve until interrupted, or until the process that started it is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--invoice", type=Path, required=True)
    parser.add_argument("--key")
    parser.add_argument("--latency-ms", type=float, default=200)
    parser.add_argument("--close", action="store_true", help="one call a connection")
    parser.add_argument("--names", help="the address for a name server")
    options = parser.parse_args()
    with options.invoice.open("a") as invoice:
        provider = Provider(
            port=options.port,
            invoice=invoice,
            key=options.key,
            latency_s=options.latency_ms / 1000,
            keep_alive=not options.close,
        )
        asyncio.run(_while_parent_lives(provider, options.names))


async def _while_parent_lives(provider: Provider, names_at: str | None) -> None:
    """A test that was killed leaves no provider behind."""
    parent = os.getppid()
    serving = asyncio.create_task(serve(provider, names_at))
    while os.getppid() == parent and not serving.done():
        await asyncio.sleep(1)
    if serving.done():
        serving.result()
    serving.cancel()


if __name__ == "__main__":
    main()
