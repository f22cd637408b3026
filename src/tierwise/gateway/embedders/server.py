"""An embedder on a server that speaks OpenAI's `/v1/embeddings`.

Requests take the gateway's own connections, errors and timeouts. Whatever a server returns is
checked: the number of vectors, their length, and that they are numbers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tierwise.errors import (
    CallError,
    CallTimeout,
    Overloaded,
    RateLimited,
    ServerFault,
    Unreachable,
)
from tierwise.gateway.connection_pool import ConnectionPool
from tierwise.gateway.embedders.guard import TextGuard
from tierwise.gateway.http_exchange import ErrorStatus, HttpExchange, NotAReply
from tierwise.gateway.lean_lane import build_headers, to_json
from tierwise.gateway.provider_errors import translated_errors
from tierwise.gateway.resolved_model import ResolvedModel, resolve_model
from tierwise.policy.catalog import Catalog, called_as
from tierwise.policy.embedders import EmbedderEntry
from tierwise.policy.rules import Rules
from tierwise.records import Call, Message, Sensitivity
from tierwise.text.tokens import count_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PATH = "embeddings"
_MARGIN = (
    1.3  # tokens are estimated; a server refuses a text that is one token too long
)
_MAY_PASS = (RateLimited, Overloaded, ServerFault, CallTimeout, Unreachable)
_PAUSES_S = (1.0, 4.0, 16.0)  # before each repetition, unless the server names a pause
_LONGEST_PAUSE_S = 60.0


class ServerEmbedder:
    """Asks one server. Thread-safe, as every call has connections of its own."""

    def __init__(
        self,
        catalog: Catalog,
        entry: EmbedderEntry,
        env: Mapping[str, str],
        identity: str,
        rules: Rules | None,
    ) -> None:
        self.name = entry.name
        self.identity = identity
        self.dimensions = entry.dimensions
        self._entry = entry
        self._guard = TextGuard(catalog, entry, rules)
        model = called_as(entry)
        hosts = catalog.tiers[entry.tier].hosts
        self._resolved = resolve_model(model, model.resolved_params(env), hosts)

    def embed(
        self, texts: Sequence[str], *, sensitivity: Sensitivity = "restricted"
    ) -> NDArray[Any]:
        """Return one row a text, of length 1; a text without words has a row of zeros.

        Raises GuardViolation before anything is sent, and CallError.
        """
        import numpy

        self._guard.check(sensitivity)
        rows = numpy.zeros((len(texts), self.dimensions), dtype=numpy.float64)
        places: list[int] = []
        windows: list[str] = []
        for place, text in enumerate(texts):
            for window in split_into_windows(text, self._window_tokens):
                places.append(place)
                windows.append(f"{self._entry.prefix}{window}")
        if windows:
            # A thread of its own, as the caller's may have an event loop that is running.
            with ThreadPoolExecutor(1) as pool:
                vectors = pool.submit(asyncio.run, self._ask_all(windows)).result()
            for place, window, vector in zip(places, windows, vectors, strict=True):
                rows[place] += len(window) * vector
        lengths = numpy.linalg.norm(rows, axis=1, keepdims=True)
        # A row of zeros stays one.
        lengths[lengths == 0] = 1
        normed: NDArray[Any] = (rows / lengths).astype(numpy.float32)
        return normed

    @property
    def _window_tokens(self) -> int:
        own = count_tokens(self._entry.prefix) + 2
        return max(1, math.floor(self._entry.window_tokens / _MARGIN) - own)

    async def _ask_all(self, texts: list[str]) -> list[NDArray[Any]]:
        connections = ConnectionPool()
        try:
            vectors: list[NDArray[Any]] = []
            for start in range(0, len(texts), self._entry.batch):
                batch = texts[start : start + self._entry.batch]
                vectors.extend(await self._ask_patiently(connections, batch))
            return vectors
        finally:
            await connections.aclose()

    async def _ask_patiently(
        self, connections: ConnectionPool, texts: list[str]
    ) -> list[NDArray[Any]]:
        """Repeat a request after a fault that may pass. Raises CallError."""
        for pause_s in _PAUSES_S:
            try:
                return await self._ask(connections, texts)
            except CallError as error:
                if not isinstance(error, _MAY_PASS):
                    raise
                asked_for = error.retry_after
                wait_s = pause_s if asked_for is None else asked_for
                if wait_s > _LONGEST_PAUSE_S:
                    raise
            await asyncio.sleep(wait_s)
        return await self._ask(connections, texts)

    async def _ask(
        self, connections: ConnectionPool, texts: list[str]
    ) -> list[NDArray[Any]]:
        """Return the vectors of one request, each of length 1."""
        resolved = self._resolved
        exchange = HttpExchange(resolved.direct)
        # Errors are made safe with the texts that were sent: none is ever quoted.
        messages = tuple(Message("user", text) for text in texts)
        call = Call(model=self.name, identity="", messages=messages, max_tokens=0)
        with translated_errors(resolved.model, call, exchange, resolved.private):
            async with asyncio.timeout(self._entry.timeout_s):
                await connections.post(
                    exchange,
                    _address(resolved),
                    build_headers(resolved),
                    _body(resolved, texts),
                )
            if exchange.status is None or exchange.status >= 300:
                raise ErrorStatus
            return read_vectors(exchange.body, len(texts), self.dimensions)


def split_into_windows(text: str, tokens: int) -> list[str]:
    """Return the parts of a text that fit into a window, by estimate; none without words."""
    words = text.split()
    if not words:
        return []
    if count_tokens(text) <= tokens:
        return [text]
    windows: list[str] = []
    window: list[str] = []
    filled = 0
    for word in _short_words(words, tokens):
        size = count_tokens(f" {word}")
        if window and filled + size > tokens:
            windows.append(" ".join(window))
            window = []
            filled = 0
        window.append(word)
        filled += size
    windows.append(" ".join(window))
    return windows


def _short_words(words: Sequence[str], tokens: int) -> Iterator[str]:
    """Yield the words, those longer than a window in pieces: some languages have no spaces."""
    for word in words:
        size = count_tokens(f" {word}")
        characters = max(1, len(word) * tokens // (size + 1))
        for start in range(0, len(word), max(characters, 1)):
            yield word[start : start + characters]


def read_vectors(
    body: Mapping[str, Any], expected: int, dimensions: int
) -> list[NDArray[Any]]:
    """Return the vectors of a response in the order of the request, each of length 1.

    Raises NotAReply when there are not as many as expected, or one is not what the catalog says.
    """
    import numpy

    listed = body.get("data")
    if not isinstance(listed, list):
        raise NotAReply("no list of vectors in it")
    if len(listed) != expected:
        raise NotAReply(f"{len(listed)} vectors for {expected} texts")
    vectors: dict[int, NDArray[Any]] = {}
    for number, item in enumerate(listed):
        values = item.get("embedding") if isinstance(item, Mapping) else None
        place = item.get("index", number) if isinstance(item, Mapping) else number
        try:
            vector = numpy.asarray(values, dtype=numpy.float64)
        except (TypeError, ValueError):
            raise NotAReply("a vector that is not a list of numbers") from None
        if vector.ndim != 1:
            raise NotAReply("a vector that is not a list of numbers")
        if len(vector) != dimensions:
            raise NotAReply(
                f"a vector of {len(vector)} numbers where the catalog says {dimensions}"
            )
        length = float(numpy.linalg.norm(vector))
        if not math.isfinite(length) or length == 0:
            raise NotAReply("a vector of zeros, or with something that is not a number")
        vectors[place] = vector / length
    if sorted(vectors) != list(range(expected)):
        raise NotAReply("vectors whose `index` is not that of the texts")
    return [vectors[place] for place in range(expected)]


def _address(resolved: ResolvedModel) -> str:
    """Return the address of requests; `api_base` may have the end of the path itself."""
    base = str(resolved.params["api_base"]).rstrip("/")
    return base if base.endswith(f"/{_PATH}") else f"{base}/{_PATH}"


def _body(resolved: ResolvedModel, texts: list[str]) -> bytes:
    name = str(resolved.params["model"])
    body: dict[str, Any] = {
        "model": name.partition("/")[2] or name,
        "encoding_format": "float",
    }
    body.update(resolved.params.get("extra_body") or {})
    body["input"] = texts
    return to_json(body)
