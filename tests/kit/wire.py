"""A wire between a ledger and its PostgreSQL server that a test can cut, on a real socket."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal, Self

from sqlalchemy import make_url

Cut = Literal["before", "after"]  # the server has seen the COMMIT


class Wire:
    """Takes connections at `url`, and hands them on to the server at `target`."""

    def __init__(self, target: str) -> None:
        url = make_url(target)
        self._path = f"{url.query['host']}/.s.PGSQL.{url.port or 5432}"
        self._listener = self._listening(0)
        self._port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._cuts: list[Cut] = []
        self.cuts_made = 0
        self.url = url.set(
            host="127.0.0.1", port=self._port, query={}
        ).render_as_string(hide_password=False)
        self._accept(self._listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut_commits(self, *cuts: Cut) -> None:
        """Cut the connection around each of the next COMMITs: `before` or `after` the server."""
        with self._lock:
            self._cuts = list(cuts)

    def cut(self) -> None:
        """Take no connection any more, and reset those that there are."""
        with suppress(OSError):
            # Wakes the thread in `accept`, which a plain close does not.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _reset(*pair)

    def mend(self) -> None:
        """Take connections again, at the same address."""
        self._listener = self._listening(self._port)
        self._accept(self._listener)

    def _listening(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        def accept() -> None:
            with suppress(OSError):  # closed
                while True:
                    client, _ = listener.accept()
                    self._connect(client)

        threading.Thread(target=accept, daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._path)
        except OSError:
            client.close()
            return
        with self._lock:
            self._pairs.append((client, server))
        ends_at_answer = threading.Event()
        for carry in (self._carry, self._carry_back):
            threading.Thread(
                target=carry, args=(client, server, ends_at_answer), daemon=True
            ).start()

    def _carry(
        self, client: socket.socket, server: socket.socket, ends: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                cut = self._next_cut() if b"COMMIT" in data else None
                if cut == "before":
                    break
                if cut == "after":
                    ends.set()
                server.sendall(data)
        _reset(client, server)

    def _carry_back(
        self, client: socket.socket, server: socket.socket, ends: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if ends.is_set():
                    break  # it was committed; the client never hears of it
                client.sendall(data)
        _reset(client, server)

    def _next_cut(self) -> Cut | None:
        with self._lock:
            if not self._cuts:
                return None
            self.cuts_made += 1
            return self._cuts.pop(0)


def _reset(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
