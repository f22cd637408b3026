"""A stand-in behind every model of a project's catalog, on a real socket, for the project's tests.

    with StandIn({"label": "invoice"}) as models:
        [outcome] = models.ask("classify", "For two days of work I ask for 380.00.")
    assert outcome.status == "accepted"
    assert models.requests[0].model == "qwen-0.5b"

Rules, prompts and checks are the project's own. Every model counts as available, whatever keys and
weights this machine has, so a test sees the route that production would take. Nothing leaves this
machine or costs anything, and the ledger is a temporary one. Flows called inside the block use the
stand-in too.

What goes wrong in production can be ordered, too:

    StandIn(faults=[Fault(429, retry_after=0), None])  # the first call fails, the others do not
    StandIn(confidence=0.4)                            # below a route's threshold
    StandIn(unavailable=["qwen-0.5b"])                 # as if its weights were not here
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tierwise.engine import Engine
from tierwise.policy.catalog import Catalog, Model
from tierwise.policy.router import Policy
from tierwise.project import Identities, Project
from tierwise.records import Batch, Document, Outcome, Sensitivity
from tierwise.steps.golden_settings import load_settings
from tierwise.text.language import detect

_LEAST_CONFIDENCE = 1e-9  # 0 has no logarithm
_ERROR = '{"error": {"message": "the test ordered this fault"}}'
_DOCUMENT = re.compile(r"<document\b[^>]*>(.*?)</document\b[^>]*>", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """A request to a model: its name in the catalog, the prompt, and the answer's JSON schema."""

    model: str
    system: str
    prompt: str  # the last user message
    schema: Mapping[str, Any]
    characters: int = 0  # of all messages

    @property
    def document(self) -> str:
        """The document in the prompt."""
        documents: list[str] = _DOCUMENT.findall(self.prompt)
        # few-shot examples come before it
        text = documents[-1] if documents else self.prompt
        return text.strip()


@dataclass(frozen=True)
class Fault:
    """A reply that is a provider's fault: an HTTP status, or a connection that breaks (status 0).

    `retry_after` is the header of that name, in seconds. `body` replaces the text of the error;
    with status 200 it is an answer of the wrong form.
    """

    status: int = 500
    retry_after: float | None = None
    body: str = ""


_Fields = Mapping[str, Any]
RightAnswer = _Fields | Callable[[Request], _Fields]
# one for each request in order of arrival, None for a good reply; or a function of the request
Faults = Iterable[Fault | None] | Callable[[Request], Fault | None]
Confidence = float | Callable[[Request], float | None] | None


class StandIn:
    """A server that answers for every model of a project: `with StandIn({…}) as models:`.

    `answer` has the fields of the right answer, or is a function that returns them for a request.
    Missing fields are filled in: the first allowed value, else words of the document. Fields that
    the schema does not have are left out, so one answer can serve several steps.

    `faults` come in the order of requests, each once, or from a function of the request.
    `confidence` is that of every answer, 0 to 1, or from a function of the request; None reports
    none, as some providers do. `unavailable` names models that cannot be used. Raises UnknownName
    for a model that is not in the catalog.
    """

    def __init__(
        self,
        answer: RightAnswer | None = None,
        *,
        faults: Faults = (),
        confidence: Confidence = 1.0,
        unavailable: Collection[str] = (),
        root: Path | None = None,
    ) -> None:
        self.requests: list[Request] = []  # in order of arrival
        self._answer: RightAnswer = {} if answer is None else answer
        self._faults = faults if callable(faults) else iter(faults)
        self._confidence = confidence
        self._unavailable = unavailable
        self._lock = threading.Lock()  # requests arrive in threads of their own
        self._root = root
        self._open = ExitStack()

    def __enter__(self) -> Self:
        from tierwise.orchestrate.process_state import using

        with ExitStack() as stack:
            url = stack.enter_context(_Server(self._reply))
            scratch = stack.enter_context(
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            )
            root = Project.find(self._root).root
            unavailable = frozenset(self._unavailable)
            project = _StandInProject(root, url, Path(scratch), unavailable)
            for name in unavailable:
                project.catalog.model(name)  # raises UnknownName
            self._engine = stack.enter_context(Engine(project, env={}))
            stack.enter_context(using(self._engine))
            # all of it started, so it stays open until the end of the caller's block
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def ask(
        self,
        step: str,
        *documents: str | Document,
        sensitivity: Sensitivity = "internal",
        **parameters: Any,
    ) -> list[Outcome]:
        """Run a step of the project over documents and return their outcomes.

        Texts become documents of the given sensitivity. Without parameters, those of
        golden/<step>.yaml are used. Raises UnknownName, ConfigError.
        """
        project = self._engine.project
        spec = project.load_step(step)
        if not parameters:
            settings = load_settings(project.root / "golden" / f"{step}.yaml")
            parameters = dict(settings.parameters)
        prepared = [
            _as_document(number, each, sensitivity)
            for number, each in enumerate(documents, 1)
        ]
        run = self._engine.start_run("test")
        done = self._engine.run_batch(run, spec, Batch(tuple(prepared)), parameters)
        self._engine.finish_run(run, "completed")
        return [document.outcomes[spec.name] for document in done.load()]

    def _reply(self, request: Request) -> Fault | dict[str, Any]:
        """Return the fault that comes next, or a chat completion."""
        with self._lock:
            self.requests.append(request)
            if callable(self._faults):
                fault = self._faults(request)
            else:
                fault = next(self._faults, None)
        if fault is not None:
            return fault
        confidence = self._confidence
        if callable(confidence):
            confidence = confidence(request)
        return _completion(request, self._right_answer(request), confidence)

    def _right_answer(self, request: Request) -> str:
        """Return the right answer as JSON, in the fields of the request's schema."""
        answer = self._answer(request) if callable(self._answer) else self._answer
        definitions = request.schema.get("$defs", {})
        words = " ".join(request.document.split()[:8])
        reply: dict[str, Any] = {}
        for name, schema in request.schema.get("properties", {}).items():
            if name in answer:
                reply[name] = answer[name]
            else:
                reply[name] = _fill_in(schema, definitions, words)
        return json.dumps(reply)


def _as_document(
    number: int, given: str | Document, sensitivity: Sensitivity
) -> Document:
    if isinstance(given, Document):
        return given
    return Document(
        id=f"{number}", text=given, sensitivity=sensitivity, language=detect(given)
    )


def _fill_in(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], words: str
) -> Any:
    """Return a small value that a schema allows; `words` where it allows any text."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _fill_in(definitions[name], definitions, words)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _fill_in(schema["anyOf"][0], definitions, words)
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {
            name: _fill_in(part, definitions, words)
            for name, part in properties.items()
        }
    if kind == "array":
        item = _fill_in(schema.get("items", {}), definitions, words)
        return [item] * schema.get("minItems", 0)
    if kind in ("integer", "number"):
        above = schema.get("exclusiveMinimum", -1) + 1
        return max(schema.get("minimum", 0), above)
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    return words[: schema.get("maxLength")]


@dataclass(frozen=True)
class _StandInProject(Project):
    """A project whose models are all available, at one address, and whose ledger is elsewhere."""

    url: str
    scratch: Path
    unavailable: frozenset[str] = frozenset()

    @cached_property
    def catalog(self) -> Catalog:
        real = Project(self.root)
        models = {
            name: self._replace_model(model)
            for name, model in real.catalog.models.items()
        }
        return real.catalog.model_copy(update={"models": models})

    @property
    def ledger_url(self) -> str:
        return f"sqlite:///{self.scratch / 'ledger.db'}"

    @property
    def patience_s(self) -> float:
        """No test waits for a model that its faults put out."""
        return 0.0

    def policy(self, env: Mapping[str, str]) -> Policy:  # noqa: ARG002 - the test decides
        missing = "the test says that it cannot be used"
        return Policy(
            catalog=self.catalog,
            rules=self.rules,
            certificates=self.certificates,
            unavailable=dict.fromkeys(sorted(self.unavailable), missing),
        )

    def identities(self, env: Mapping[str, str]) -> Identities:
        """Return the identities of the real models, so that their certificates are valid here.

        A model that cannot be identified on this machine counts as the one that was certified.
        """
        real = Project(self.root).identities({**os.environ, **env})
        known = dict(real.known)
        for certificate in self.certificates.certificates:
            for name, identity in certificate.identities.items():
                known.setdefault(name, identity)
        for name in self.catalog.models:
            known.setdefault(name, name)
        return Identities(known, {})

    def _replace_model(self, model: Model) -> Model:
        litellm_params = {
            "model": f"openai/{model.name}",
            "api_base": f"{self.url}/v1",
            "api_key": "none",
        }
        # without weights and classifier, so that every model is a language model on the socket
        standing_for = {"weights", "learned", "embedder", "terms"}
        fields = model.model_dump(exclude=standing_for)
        fields |= {
            "litellm_params": litellm_params,
            "lane": "lean",
            "structured_output": "grammar",
        }
        return Model.model_validate(fields)


class _Server:
    """A server in OpenAI's format on a loopback socket; the context manager returns its address."""

    def __init__(self, reply: Callable[[Request], Fault | dict[str, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections stay open

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                call = json.loads(self.rfile.read(length))
                answer = reply(_parse_request(call))
                if not isinstance(answer, Fault):
                    self._send(200, json.dumps(answer))
                elif answer.status == 0:
                    self.close_connection = True  # without a word
                else:
                    text = answer.body or _ERROR
                    self._send(answer.status, text, answer.retry_after)

            def _send(
                self, status: int, text: str, retry_after: float | None = None
            ) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if retry_after is not None:
                    self.send_header("Retry-After", f"{retry_after:g}")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(
            target=self._http.serve_forever, args=(0.05,), daemon=True
        ).start()
        return f"http://127.0.0.1:{self._http.server_port}"

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def _parse_request(body: Mapping[str, Any]) -> Request:
    """Return the body of a chat completion call as a request; the last message of a role counts."""
    by_role = {message["role"]: str(message["content"]) for message in body["messages"]}
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    return Request(
        model=body["model"],
        system=by_role.get("system", ""),
        prompt=by_role.get("user", ""),
        schema=schema,
        characters=sum(len(str(message["content"])) for message in body["messages"]),
    )


def _completion(
    request: Request, text: str, confidence: float | None
) -> dict[str, Any]:
    """Return a reply of this confidence.

    Its usage is as long as the prompt, roughly: a server that counts far fewer tokens than it was
    sent has cut the prompt, and its answer counts as a fault.
    """
    prompt_tokens = max(100, request.characters // 3)
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 10,
        "total_tokens": prompt_tokens + 10,
    }
    logprobs = None
    if confidence is not None:
        # the confidence of an answer is the likelihood of its least likely token
        logprob = math.log(max(confidence, _LEAST_CONFIDENCE))
        token = {"token": "a", "logprob": logprob, "top_logprobs": []}
        logprobs = {"content": [token]}
    message = {"role": "assistant", "content": text}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "stop",
        "logprobs": logprobs,
    }
    return {
        "id": "stand-in",
        "object": "chat.completion",
        "created": 0,
        "model": request.model,
        "choices": [choice],
        "usage": usage,
    }
