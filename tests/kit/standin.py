"""A stand-in provider on a real socket, for tests and benchmarks.

It speaks OpenAI's format (also under Clarifai's path), Anthropic's and Gemini's.

    with Standin() as standin:
        standin.answer("billing")         # or several in order, or a function of the request
        standin.faults([status(429, retry_after=2), OK])   # one a request, then good replies
        ...                               # call standin.url + "/v1"
        assert standin.count == 3

Unless told otherwise, it answers any JSON schema with a minimal valid instance whose strings are
quotations from the document. Alone: `python -m tests.kit.standin --port 8700 --latency-ms 200`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, Self

import orjson
from aiohttp import web


@dataclass(frozen=True)
class Request:
    """One request as it came in. `headers` have lower-case names."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def model(self) -> str:
        return self.body.get("model") or self.path.rpartition("/")[2].partition(":")[0]

    @cached_property
    def prompt(self) -> str:
        """The text of the last user message."""
        if contents := self.body.get("contents"):
            return _text_of(contents[-1].get("parts"))
        turns = [m for m in self.body.get("messages", ()) if m.get("role") == "user"]
        return _text_of(turns[-1].get("content")) if turns else ""

    @property
    def document(self) -> str:
        """The prompt's text between `<document …>` and `</document>`, else its last paragraph."""
        tagged = re.findall(
            r"<document\b[^>]*>(.*?)</document\b[^>]*>", self.prompt, re.DOTALL
        )
        return (
            tagged[-1] if tagged else self.prompt.strip().rpartition("\n\n")[2]
        ).strip()

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema that was asked for, in any of the formats."""
        body = self.body
        return (
            (body.get("response_format") or {}).get("json_schema", {}).get("schema")
            or (body.get("output_format") or {}).get("schema")
            or ((body.get("output_config") or {}).get("format") or {}).get("schema")
            or (self._tool or {}).get("input_schema")
            or _first_of(
                body.get("generationConfig") or {},
                "responseJsonSchema",
                "response_json_schema",
            )
            or _first_of(
                body.get("generationConfig") or {}, "responseSchema", "response_schema"
            )
        )

    @property
    def _tool(self) -> dict[str, Any] | None:
        """The tool that stands for a schema in Anthropic's format."""
        return next(iter(self.body.get("tools") or ()), None)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """How one reply departs from a good one."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # instead of the reply
    delay_s: float = 0
    text: str | None = None  # instead of the answer
    finish_reason: str = "stop"  # in OpenAI's words
    refusal: str | None = None
    usage: Mapping[str, Any] | None = field(
        default_factory=dict
    )  # added to the real one; None leaves it out
    service_tier: str | None = None  # in the place where the provider names it
    cut_at: float | None = None  # share of the body after which the connection is reset
    truncate: bool = False  # half the body, properly ended
    trickle: bool = False  # a space now and then, for ever
    probability: float = 1.0  # of the least likely token, for those who ask
    # of the least likely token of a value, by key of the answer: then the tokens have its text
    probabilities: Mapping[str, float] = field(default_factory=dict)


OK = Fault()


def status(
    status_code: int,
    message: str = "ordered fault",
    *,
    retry_after: object = None,
    **error: Any,
) -> Fault:
    """An error in OpenAI's form; `error` adds fields such as `type` and `code`."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = {
        "error": {
            "message": message,
            "type": "standin_error",
            "code": status_code,
            **error,
        }
    }
    return Fault(status=status_code, headers=headers, body=orjson.dumps(body))


def raw(body: str | bytes, code: int = 200) -> Fault:
    """A body that is sent as it is."""
    return Fault(status=code, body=body.encode() if isinstance(body, str) else body)


def late(seconds: float) -> Fault:
    """A good reply after a while."""
    return Fault(delay_s=seconds)


NOT_JSON = raw("<html>Bad gateway, but with a 200</html>")
TRUNCATED_JSON = Fault(truncate=True)
RESET = Fault(cut_at=0)
RESET_MID_BODY = Fault(cut_at=0.5)
TRICKLE = Fault(trickle=True)
EMPTY = Fault(text="")
REFUSAL = Fault(text="", refusal="I cannot help with that.")
CONTENT_FILTER = Fault(text="", finish_reason="content_filter")
CUT_OFF = Fault(finish_reason="length")
NO_USAGE = Fault(usage=None)
WRONG_USAGE = Fault(usage={"prompt_tokens": -5, "completion_tokens": "many"})
ERROR_INSIDE = raw('{"error": {"message": "upstream fell over", "code": 502}}')
NO_CHOICES = raw(
    '{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}'
)

Answer = str | Callable[[Request], str | Fault]


class Standin:
    """The server, in a thread of its own.

    `url` has no path; `requests` has all requests in order.
    """

    def __init__(
        self, *, port: int = 0, latency_s: float = 0, keep: bool = True
    ) -> None:
        self.port = port
        self.latency_s = latency_s
        self.keep = keep
        self.requests: list[Request] = []
        self._peers: set[object] = set()
        self._together: asyncio.Barrier | None = None
        self._answers: deque[Answer] = deque([sensible_answer])
        self._faults: deque[Fault] = deque()
        self.serves = ["small", "large"]  # listed at /models
        # The model that replies name: the one that was asked for, or this; "" names none.
        self.served: str | Callable[[Request], str] | None = None
        self._ids = count(1)
        self._started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), daemon=True
        )

    def answer(self, *answers: Answer) -> None:
        """Texts, or functions of the request, in order; the last one answers all later requests.

        A function may give a fault: one with a text, to say how likely its tokens were, or one
        with a status or a body.
        """
        self._answers = deque(answers)

    def faults(self, faults: Iterable[Fault]) -> None:
        """One fault a request, from the next one on; `OK` is a good reply."""
        self._faults = deque(faults)

    def hold(self, number: int) -> None:
        """Answer only when `number` requests are waiting."""
        self._together = asyncio.Barrier(number)

    @property
    def connections(self) -> int:
        """How many connections the requests came over."""
        return len(self._peers)

    @property
    def count(self) -> int:
        """How many requests came."""
        return len(self.requests)

    @property
    def last(self) -> Request:
        return self.requests[-1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def clarifai_url(self) -> str:
        """The `api_base` that stands for Clarifai's."""
        return f"{self.url}/v2/ext/openai/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(10):
            raise RuntimeError("the stand-in provider did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        runner = web.ServerRunner(
            web.Server(self._handle, access_log=None), shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _wait(self) -> None:
        """Wait for as long as `latency_s` says, which may be lowered meanwhile."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while (left := since + self.latency_s - loop.time()) > 0:
            await asyncio.sleep(min(left, 0.5))

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        body = await incoming.read()
        headers = {name.lower(): value for name, value in incoming.headers.items()}
        request = Request(incoming.path, headers, _parsed(body) if body else {})
        if self.keep:
            self.requests.append(request)
            self._peers.add(
                incoming.transport and incoming.transport.get_extra_info("peername")
            )
        if self._together:
            await self._together.wait()
        encode = _encoder(request.path)
        if incoming.method == "GET" and request.path.endswith("/models"):
            if self._faults:
                fault = self._faults.popleft()
                return await _send(incoming, fault.body or b"", fault)
            return web.json_response({"data": [{"id": name} for name in self.serves]})
        if encode is None:
            return web.json_response(
                {"error": {"message": f"no such path: {request.path}"}}, status=404
            )
        fault = self._faults.popleft() if self._faults else OK
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        else:
            await self._wait()
        reply = fault.body
        if reply is None:
            text = self._answer(request) if fault.text is None else fault.text
            if isinstance(text, Fault):
                fault = text
                text = fault.text or ""
            reply = fault.body
            if reply is None:
                encoded = encode(request, text, fault, next(self._ids))
                self._note_reply(request, encoded)
                reply = orjson.dumps(self._named(request, encoded))
        return await _send(incoming, reply, fault)

    def _note_reply(self, request: Request, reply: dict[str, Any]) -> None:
        """Do nothing; a stand-in that writes invoices does."""

    def _named(self, request: Request, reply: dict[str, Any]) -> dict[str, Any]:
        """Return a reply with the model that this server says it is."""
        served = self.served
        if served is None:
            return reply
        name = served if isinstance(served, str) else served(request)
        key = "modelVersion" if "modelVersion" in reply else "model"
        others = {each: value for each, value in reply.items() if each != key}
        return {**others, key: name} if name else others

    def _answer(self, request: Request) -> str | Fault:
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        return answer if isinstance(answer, str) else answer(request)


async def _send(
    incoming: web.BaseRequest, body: bytes, fault: Fault
) -> web.StreamResponse:
    if fault.truncate:
        body = body[: len(body) // 2]
    if fault.cut_at is None and not fault.trickle:
        headers = {"Content-Type": "application/json", **fault.headers}
        return web.Response(body=body, status=fault.status, headers=headers)
    response = web.StreamResponse(
        status=fault.status, headers={"Content-Type": "application/json"}
    )
    if fault.trickle:
        await response.prepare(incoming)
        with suppress(ConnectionResetError):  # the client has gone
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.02)
        return response
    if fault.cut_at:
        response.content_length = len(body)
        await response.prepare(incoming)
        await response.write(body[: int(len(body) * fault.cut_at)])
        await asyncio.sleep(0.02)
    transport = incoming.transport
    assert transport is not None
    linger = struct.pack("ii", 1, 0)  # closing sends a reset instead of a proper end
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, linger
    )
    transport.abort()
    return response


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # half characters
        return json.loads(body)


def _encoder(path: str) -> Callable[[Request, str, Fault, int], dict[str, Any]] | None:
    # the answer to a request for embeddings has to be a whole body: see `raw`
    if path.endswith(("/chat/completions", "/embeddings")):
        return _openai
    if path.endswith("/v1/messages"):
        return _anthropic
    return _gemini if path.endswith(":generateContent") else None


def _tokens(request: Request, text: str) -> tuple[int, int]:
    """Prompt and completion tokens at four characters each: not true, but the same every time."""
    turns = request.body.get("messages") or request.body.get("contents") or ()
    prompt = sum(len(_text_of(m.get("content") or m.get("parts"))) for m in turns)
    return prompt // 4 + 1, len(text) // 4 + 1


def _openai(request: Request, text: str, fault: Fault, number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if fault.refusal:
        message["refusal"] = fault.refusal
    reply: dict[str, Any] = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": request.model,
        "choices": [
            {"index": 0, "message": message, "finish_reason": fault.finish_reason}
        ],
    }
    if request.body.get("logprobs"):
        tokens = [
            {"token": "a", "logprob": math.log(share), "top_logprobs": []}
            for share in (1.0, fault.probability)
        ]
        if fault.probabilities:
            tokens = tokens_of(text, fault.probabilities)
        reply["choices"][0]["logprobs"] = {"content": tokens}
    if fault.usage is not None:
        prompt, completion = _tokens(request, text)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        reply["usage"] = _with_total(usage | fault.usage, fault, "total_tokens")
    if fault.service_tier:
        reply["service_tier"] = fault.service_tier
    return reply


def tokens_of(text: str, probabilities: Mapping[str, float]) -> list[dict[str, Any]]:
    """Tokens of three characters each; those of a value are as likely as its key says."""
    unlikely: dict[int, float] = {}
    for key, probability in probabilities.items():
        named = json.dumps(key) + ": "
        if named in text:
            start = text.index(named) + len(named)
            _, end = json.JSONDecoder().raw_decode(text, start)
            # in the last text or number of the value
            unlikely[max(start, end - 3)] = probability
    tokens = []
    for start in range(0, len(text), 3):
        piece = text[start : start + 3]
        share = min(unlikely.get(at, 1.0) for at in range(start, start + 3))
        token = {
            "token": piece,
            "logprob": math.log(share),
            "bytes": list(piece.encode()),
            "top_logprobs": [],
        }
        tokens.append(token)
    return tokens


def _anthropic(
    request: Request, text: str, fault: Fault, number: int
) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    if request._tool and text:
        content = [
            {
                "type": "tool_use",
                "id": "toolu_1",
                "name": request._tool["name"],
                "input": orjson.loads(text),
            }
        ]
    reasons = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
    reply = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": "refusal" if fault.refusal else reasons[fault.finish_reason],
        "stop_sequence": None,
    }
    if fault.usage is not None:
        prompt, completion = _tokens(request, text)
        reply["usage"] = {
            "input_tokens": prompt,
            "output_tokens": completion,
            **({"service_tier": fault.service_tier} if fault.service_tier else {}),
            **fault.usage,
        }
    return reply


def _gemini(request: Request, text: str, fault: Fault, number: int) -> dict[str, Any]:
    reasons = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
    content = {"role": "model", "parts": [{"text": text}]}
    reply: dict[str, Any] = {
        "candidates": [
            {
                "content": content,
                "finishReason": reasons[fault.finish_reason],
                "index": 0,
            }
        ],
        "modelVersion": request.model,
        "responseId": str(number),
    }
    if request.body.get("logprobs"):
        tokens = [
            {"token": "a", "logprob": math.log(share), "top_logprobs": []}
            for share in (1.0, fault.probability)
        ]
        reply["choices"][0]["logprobs"] = {"content": tokens}
    if fault.usage is not None:
        prompt, completion = _tokens(request, text)
        usage = {
            "promptTokenCount": prompt,
            "candidatesTokenCount": completion,
            "totalTokenCount": prompt + completion,
        }
        usage |= fault.usage
        reply["usageMetadata"] = _with_total(usage, fault, "totalTokenCount")
    return reply


def _with_total(usage: dict[str, Any], fault: Fault, name: str) -> dict[str, Any]:
    """The usage with the sum of the first two counts, unless the fault gives another total."""
    prompt, completion = list(usage.values())[:2]
    if (
        name not in fault.usage
        and isinstance(prompt, int)
        and isinstance(completion, int)
    ):
        usage[name] = max(0, prompt) + completion
    return usage


def sensible_answer(request: Request) -> str:
    """Return a minimal valid instance of the request's schema, or a quotation without a schema."""
    schema = request.schema
    if schema is None:
        return _quotation(request.document)
    return orjson.dumps(
        _instance(schema, schema.get("$defs") or {}, _quotation(request.document))
    ).decode()


def _quotation(document: str) -> str:
    """The first line of a document, verbatim, whole words of up to 60 characters."""
    line = next(
        (line.strip() for line in document.splitlines() if line.strip()), "nothing"
    )
    return line if len(line) <= 60 else line[:60].rpartition(" ")[0] or line[:60]


def _instance(schema: Mapping[str, Any], defs: Mapping[str, Any], text: str) -> Any:
    """The first and smallest value that a schema allows; all its properties are given."""
    if "$ref" in schema:
        return _instance(defs[schema["$ref"].rpartition("/")[2]], defs, text)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return _instance(schema[union][0], defs, text)
    kind = schema.get("type", "string")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    if kind == "object":
        return {
            name: _instance(part, defs, text)
            for name, part in (schema.get("properties") or {}).items()
        }
    if kind == "array":
        return [_instance(schema.get("items") or {}, defs, text)] * schema.get(
            "minItems", 0
        )
    if kind in ("integer", "number"):
        return max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
    if kind == "string":
        dates = {"date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z"}
        value = dates.get(schema.get("format", ""), text).ljust(
            schema.get("minLength", 0), "."
        )
        return value[: schema.get("maxLength")]
    return False if kind == "boolean" else None


def _text_of(content: Any) -> str:
    """The text of a message's content: a string, or parts with text."""
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content)
    return content or ""


def _first_of(data: Mapping[str, Any], *names: str) -> Any:
    return next((data[name] for name in names if name in data), None)


def unused_address() -> str:
    """A URL on this machine at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A stand-in provider for benchmarks.")
    parser.add_argument("--port", type=int, default=8700)
    parser.add_argument("--latency-ms", type=float, default=0)
    options = parser.parse_args()
    standin = Standin(
        port=options.port, latency_s=options.latency_ms / 1000, keep=False
    )
    print(f"serving on {standin.url}", flush=True)  # noqa: T201 - it is a command here
    asyncio.run(standin._serve())


if __name__ == "__main__":
    main()
