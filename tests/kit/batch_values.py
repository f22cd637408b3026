"""The values of the stand-in for batch APIs: faults, prices, the clock, batches and invoices."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

Api = Literal["openai", "anthropic", "mistral", "gemini"]
State = Literal["open", "cancelling", "ended", "failed", "expired", "cancelled"]
HOUR_S = 3600.0

# Faults of one request, by the request that they meet; all others are of the next batch.
OF_A_REQUEST = {
    "upload_refused": "upload",
    "file_too_large": "upload",
    "create_refused": "create",
    "too_many_items": "create",
    "queue_full": "create",
    "create_lost": "create",  # the batch is made, and the answer is lost
    "create_failed": "create",  # nothing is made, and the server says 500
    "poll": "status",
    "results": "results",
    "list": "list",
}
OF_A_BATCH = {
    "validation_full",  # the enqueued-token limit, found by the validation
    "lines_invalid",  # lines=(2, 5)
    "all_invalid",
    "failed",
    "expired",  # share=0.5
    "cancelled",  # share=0.5, by someone else
    "shuffled",
    "duplicate",
    "unknown_id",
    "results_missing",  # ended, and no file of results is named
    "results_gone",  # the file is deleted
    "errors_only",
    "items",  # fault=Fault(...), places=(1, 3); all without places
    "no_usage",
    "hangs",
    "truncated",  # the file ends early, properly
    "raw_lines",  # lines=[b"..."] in front of the others
    "left_out",  # places=(1,): no result at all
    "many_lines",  # number=50_000: lines of other items, made as they are sent
}


@dataclass(frozen=True, kw_only=True)
class StandinPrice:
    """USD per million tokens, which is micro-dollars a token."""

    input: Decimal | float
    output: Decimal | float
    cached: Decimal | float | None = None
    cache_write: Decimal | float | None = None


@dataclass(frozen=True)
class InvoiceLine:
    """One answer that was charged; `custom_id` is None for an online call."""

    custom_id: str | None
    model: str
    batch: str | None
    micros: Decimal


@dataclass(frozen=True)
class Order:
    """One fault that was ordered."""

    name: str
    details: Mapping[str, Any]


class StandinClock:
    """The provider's clock: real time and what tests add to it."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._speed = 1.0
        self._since = time.time()

    def time(self) -> float:
        """Seconds since the epoch."""
        passed = time.time() - self._since
        return self._since + passed * self._speed + self._ahead_s

    def advance(self, seconds: float) -> None:
        """Move the clock, for ever; also back, so that it differs from the client's."""
        self._ahead_s += seconds

    def run_at(self, speed: float) -> None:
        """Let the clock run faster from now on."""
        now = self.time()
        self._since = time.time()
        self._ahead_s = now - self._since
        self._speed = speed


@dataclass
class Item:
    """One request of a batch."""

    custom_id: str
    body: dict[str, Any]


@dataclass
class ItemAnswer:
    """The answer to one item, before a format writes it. `kind` says why there is none."""

    custom_id: str
    kind: Literal["answered", "expired", "cancelled"]
    status: int = 200
    body: bytes = b""


@dataclass
class StandinBatch:
    """One batch. `turnaround_s` is None for one that never ends."""

    id: str
    api: Api
    model: str
    key: str | None
    items: list[Item]
    created: float
    window_s: float
    turnaround_s: float | None
    orders: list[Order] = field(default_factory=list)
    state: State = "open"
    ended: float | None = None
    cancel_asked: float | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    answers: list[ItemAnswer] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # input, output, error

    def ordered(self, name: str) -> Mapping[str, Any] | None:
        """The details of a fault, if this batch has it."""
        for order in self.orders:
            if order.name == name:
                return order.details
        return None

    @property
    def expires(self) -> float:
        return self.created + self.window_s

    @property
    def is_open(self) -> bool:
        return self.state in ("open", "cancelling")

    @property
    def good(self) -> list[ItemAnswer]:
        return [a for a in self.answers if a.kind == "answered" and a.status < 300]

    @property
    def bad(self) -> list[ItemAnswer]:
        return [a for a in self.answers if a.kind != "answered" or a.status >= 300]


def cost_of(reply: Mapping[str, Any], price: StandinPrice) -> Decimal:
    """Micro-dollars of an answer, by what it says of its tokens, at the online price."""
    full = Decimal(str(price.input))
    cached = full if price.cached is None else Decimal(str(price.cached))
    write = full if price.cache_write is None else Decimal(str(price.cache_write))
    output = Decimal(str(price.output))
    usage = reply.get("usage") or {}
    meta = reply.get("usageMetadata") or {}
    if meta:
        read = meta.get("cachedContentTokenCount", 0)
        plain = meta["promptTokenCount"] - read
        return plain * full + read * cached + meta["candidatesTokenCount"] * output
    if "prompt_tokens" in usage:
        read = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        plain = usage["prompt_tokens"] - read
        return plain * full + read * cached + usage["completion_tokens"] * output
    read = usage.get("cache_read_input_tokens", 0)
    written = usage.get("cache_creation_input_tokens", 0)
    plain = usage.get("input_tokens", 0)
    answer = usage.get("output_tokens", 0)
    return plain * full + read * cached + written * write + answer * output


def system_prompt_of(body: Mapping[str, Any]) -> str:
    """The text of the system prompt, in any format."""
    system = body.get("system") or body.get("system_instruction") or ""
    if system:
        return json.dumps(system)
    for message in body.get("messages") or ():
        if message.get("role") == "system":
            return str(message.get("content"))
    return ""
