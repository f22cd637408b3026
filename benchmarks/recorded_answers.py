"""A server in front of embedded models that keeps their answers: nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tierwise.gateway.local import LocalServers
from tierwise.policy.catalog import Model

TIMEOUT_S = 1800  # on a busy machine an answer takes minutes


class RecordedAnswers:
    """Answers by the hash of their question: model, messages, and the fields asked for."""

    def __init__(self, folder: Path, models: Mapping[str, Model]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "answers.jsonl"
        self.models = models
        self.asked = 0
        self._servers = LocalServers()
        self._lock = threading.Lock()
        self._answers: dict[str, dict[str, Any]] = {}
        if self.file.exists():
            for line in self.file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self._answers[row["question"]] = row["reply"]

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recorded answer, or ask the embedded model and record it."""
        question = question_hash(request)
        with self._lock:
            if question in self._answers:
                return self._answers[question]
        reply = self._ask(request)
        with self._lock:
            self.asked += 1
            self._answers[question] = reply
            row = {"question": question, "model": request["model"], "reply": reply}
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return reply

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        endpoint = self._servers.endpoint(self.models[request["model"]], {})
        call = urllib.request.Request(
            f"{endpoint.api_base}/chat/completions",
            json.dumps(dict(request)).encode(),
            {
                "Content-Type": "application/json",
                "Authorization": f"Bearer {endpoint.api_key}",
            },
        )
        with urllib.request.urlopen(call, timeout=TIMEOUT_S) as reply:
            body: dict[str, Any] = json.load(reply)
        return body

    def close(self) -> None:
        """Stop the embedded servers."""
        self._servers.close()


def question_hash(request: Mapping[str, Any]) -> str:
    """Return the hash of all that decides an answer."""
    schema = request.get("response_format", {}).get("json_schema", {}).get("schema", {})
    parts = [
        request["model"],
        request["messages"],
        sorted(schema.get("properties", {})),
    ]
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def serve(answers: RecordedAnswers) -> Iterator[str]:
    """Serve OpenAI's format on loopback; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            request = json.loads(self.rfile.read(length))
            body = json.dumps(answers.answer(request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        answers.close()
