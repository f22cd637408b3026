"""A small HTTP server on a real socket, in the place of a model hub or of an embeddings API."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Body = dict[str, Any]
Answer = tuple[int, Any]  # status, body (bytes as they are, else JSON)


@dataclass
class SmallServer:
    """Serves files by path; answers POST by a function of the request's body.

    A refusal has `retry_after` in its header. `cut` closes the connection after N bytes of a file, once.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    answer: Callable[[Body], Answer] | None = None
    retry_after: str | None = None
    resumes: bool = True
    cut: int | None = None
    paths: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        small = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                small.serve(self)

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                small.paths.append(self.path)
                small.bodies.append(body)
                small.headers.append({k.lower(): v for k, v in self.headers.items()})
                assert small.answer is not None
                status, content = small.answer(body)
                data = (
                    content if isinstance(content, bytes) else _json_with_nan(content)
                )
                self.send_response(status)
                if self.path in small.redirects:
                    self.send_header("Location", small.redirects[self.path])
                if small.retry_after is not None and status >= 400:
                    self.send_header("Retry-After", small.retry_after)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one GET."""
        self.paths.append(handler.path)
        self.ranges.append(handler.headers.get("Range"))
        target = self.redirects.get(handler.path)
        if target is not None:
            handler.send_response(302)
            handler.send_header("Location", target)
            handler.end_headers()
            return
        data = self.files.get(handler.path)
        if data is None:
            handler.send_error(404)
            return
        start = 0
        wanted = handler.headers.get("Range")
        if wanted and self.resumes:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        rest = data[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        cut = self.cut
        self.cut = None
        handler.wfile.write(rest if cut is None else rest[:cut])


def _json_with_nan(content: Any) -> bytes:
    return json.dumps(content).encode()
