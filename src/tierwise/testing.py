"""For the tests of a project: a stand-in behind every model of its catalog, on a real socket.

    with StandIn({"label": "invoice"}) as models:
        [outcome] = models.ask("classify", "For two days of work I ask for 380.00.")
    assert outcome.status == "accepted"
    assert models.requests[0].model == "qwen-0.5b"

Rules, prompts and checks are the project's own and every model counts as available, whatever keys and weights
are here, so that a test sees the route that production would take. Nothing leaves this machine or costs anything,
and the ledger is a temporary one. Flows that are called inside the block use the stand-in too.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tierwise.engine import Engine
from tierwise.evidence.golden import load_settings
from tierwise.policy.catalog import Catalog, Model
from tierwise.policy.router import Policy
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome, Sensitivity
from tierwise.text.language import detect

_DOCUMENT = re.compile(r"<document\b[^>]*>(.*?)</document\b[^>]*>", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """What a model was asked. `model` is its name in the catalog, `schema` the JSON schema of the answer."""

    model: str
    system: str
    prompt: str  # the last user message
    schema: Mapping[str, Any]

    @property
    def document(self) -> str:
        """The document in the prompt."""
        found = _DOCUMENT.findall(self.prompt)
        return (found[-1] if found else self.prompt).strip()


Answer = Mapping[str, Any] | Callable[[Request], Mapping[str, Any]]


class StandIn:
    """Answers for every model of a project, as told: see the module.

    `answer` has the fields of the right answer, or is a function of the request that gives them. Fields that it
    does not have are filled in: the first allowed value, else words of the document. Fields that were not asked
    for are left out, so one answer can serve several steps.
    """

    def __init__(self, answer: Answer | None = None, *, root: Path | None = None) -> None:
        self.requests: list[Request] = []  # in the order in which they came
        self._answer: Answer = {} if answer is None else answer
        self._root = root
        self._open = ExitStack()

    def __enter__(self) -> Self:
        from tierwise.orchestrate.flows import using

        with ExitStack() as stack:
            url = stack.enter_context(_Server(self._reply))
            scratch = Path(
                stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            )
            project = _Stage(Project.find(self._root).root, url, scratch)
            self._engine = stack.enter_context(Engine(project, env={}))
            stack.enter_context(using(self._engine))
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
        """What documents get from a step of the project; texts become documents of this sensitivity.

        Without parameters, those of golden/<step>.yaml. Raises UnknownName, ConfigError.
        """
        project = self._engine.project
        spec = project.load_step(step)
        given = parameters or dict(
            load_settings(project.root / "golden" / f"{step}.yaml").parameters
        )
        batch = Batch(tuple(_document(n, each, sensitivity) for n, each in enumerate(documents, 1)))
        run = self._engine.start_run("test")
        done = self._engine.run_batch(run, spec, batch, given)
        self._engine.finish_run(run, "completed")
        return [document.outcomes[spec.name] for document in done.documents]

    def _reply(self, request: Request) -> str:
        self.requests.append(request)
        given = self._answer(request) if callable(self._answer) else self._answer
        fields = request.schema.get("properties", {})
        shared = request.schema.get("$defs", {})
        words = " ".join(request.document.split()[:8])
        return json.dumps(
            {name: given.get(name, _filled(part, shared, words)) for name, part in fields.items()}
        )


def _document(number: int, given: str | Document, sensitivity: Sensitivity) -> Document:
    if isinstance(given, Document):
        return given
    return Document(id=f"{number}", text=given, sensitivity=sensitivity, language=detect(given))


def _filled(schema: Mapping[str, Any], shared: Mapping[str, Any], words: str) -> Any:
    """A small value that a schema allows."""
    if "$ref" in schema:
        return _filled(shared[schema["$ref"].rpartition("/")[2]], shared, words)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if "anyOf" in schema:
        return _filled(schema["anyOf"][0], shared, words)
    kind = schema.get("type")
    if kind == "object":
        return {
            name: _filled(part, shared, words)
            for name, part in schema.get("properties", {}).items()
        }
    if kind == "array":
        return [_filled(schema.get("items", {}), shared, words)] * schema.get("minItems", 0)
    if kind in ("integer", "number"):
        return max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
    return {"boolean": False, "null": None}.get(str(kind), words[: schema.get("maxLength")])


class _Stood(Model):
    """A catalog entry that the stand-in answers for. What was proven of the real one holds for it."""

    real: str

    @cached_property
    def identity(self) -> str:
        return self.real


@dataclass(frozen=True)
class _Stage(Project):
    """A project whose models are all there, at one address, and whose ledger is elsewhere."""

    url: str
    scratch: Path

    @cached_property
    def catalog(self) -> Catalog:
        real = Project(self.root)
        stood = {
            name: self._stood(model, real.identity(model))
            for name, model in real.catalog.models.items()
        }
        return real.catalog.model_copy(update={"models": stood})

    @property
    def ledger_url(self) -> str:
        return f"sqlite:///{self.scratch / 'ledger.db'}"

    def policy(self, env: Mapping[str, str]) -> Policy:  # noqa: ARG002 - every model is available
        return Policy(catalog=self.catalog, rules=self.rules, certificates=self.certificates)

    def _stood(self, model: Model, identity: str) -> Model:
        params = {"model": f"openai/{model.name}", "api_base": f"{self.url}/v1", "api_key": "none"}
        ours = {
            "litellm_params": params,
            "lane": "lean",
            "structured_output": "grammar",
            "real": identity,
        }
        return _Stood.model_validate({**model.model_dump(exclude={"weights", "learned"}), **ours})


class _Server:
    """OpenAI's format on a loopback socket, in threads of its own. As a context manager it gives its address."""

    def __init__(self, reply: Callable[[Request], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections stay open

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.dumps(_completion(asked["model"], reply(_request(asked)))).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self._http.server_port}"

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def _request(body: Mapping[str, Any]) -> Request:
    by_role = {message["role"]: str(message["content"]) for message in body["messages"]}
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    return Request(body["model"], by_role.get("system", ""), by_role.get("user", ""), schema)


def _completion(model: str, text: str) -> dict[str, Any]:
    """A reply of which the server is sure; the tokens are made up."""
    sure = {"content": [{"token": "a", "logprob": 0.0, "top_logprobs": []}]}
    message = {"role": "assistant", "content": text}
    return {
        "id": "stand-in",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": sure}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }
