"""Embedded llama.cpp servers: started on demand, shared by equal settings, private to this process.

Each model has a process of its own (`server_child.py`), because loading holds Python's lock for
seconds, a fault in native code ends its process, and its log goes to the process's stderr. Nothing
is sent over the network: the servers listen on 127.0.0.1, on ports and with keys of their own.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO, cast

from tierwise.errors import WeightsError
from tierwise.gateway.local.weights import (
    Progress,
    cache_folder,
    fetch_weights,
    weights_path,
    weights_present,
)
from tierwise.policy.catalog import Model
from tierwise.policy.weights import Weights
from tierwise.text.private import open_private

# Threads that wait by spinning are a quarter faster alone, and four times slower once another
# process wants a core.
_PASSIVE_WAIT = {"OMP_WAIT_POLICY": "passive"}
log = logging.getLogger(__name__)
_CHILD = Path(__file__).with_name("server_child.py")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address and key of a server that speaks OpenAI's format."""

    api_base: str
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Settings:
    """The settings of a server; equal settings share one server."""

    path: str
    context_tokens: int  # of each request
    parallel: int  # requests at a time
    threads: int
    prompt_cache_mib: int = 512


@dataclass(frozen=True, slots=True)
class _RunningServer:
    process: subprocess.Popen[str]
    endpoint: Endpoint

    def is_alive(self) -> bool:
        return self.process.poll() is None


class LocalServers:
    """The servers of this process, one for each set of weights and settings. Thread-safe.

    With `allow_fetch`, absent weights are downloaded, and `progress` gets (bytes so far, total).
    Otherwise they are a WeightsError that ends in `remedy`.
    """

    def __init__(
        self,
        *,
        allow_fetch: bool = False,
        remedy: str = "run `tierwise fetch`",
        progress: Progress | None = None,
    ) -> None:
        self.allow_fetch = allow_fetch
        self.remedy = remedy
        self.progress = progress
        self._servers: dict[_Settings, _RunningServer] = {}
        self._lock = Lock()
        self._owner_pid = os.getpid()
        self.loading: str | None = None  # the model whose server is being started

    def endpoint(self, model: Model, env: Mapping[str, str]) -> Endpoint:
        """Return the endpoint of `model`; starting its server blocks for seconds.

        A server that has died is started again. Raises WeightsError when the weights are missing
        or llama.cpp cannot load them.
        """
        if model.weights is None:
            raise WeightsError(
                "the catalog entry names no `weights`, so it cannot be embedded",
                model=model.name,
            )
        path = weights_path(model.weights, env)
        settings = _Settings(
            str(path), model.context_tokens, model.concurrency, threads=usable_cores()
        )
        server = self._alive_server(settings)
        if server:
            return server.endpoint
        with self._lock:
            # Another thread may have started it while this one waited for the lock.
            server = self._alive_server(settings)
            if server is None:
                self._ensure_weights(model.name, model.weights, env)
                log = cache_folder(env) / "logs" / f"{path.stem[:40]}.log"
                self.loading = model.name
                try:
                    server = _start(settings, log, env)
                finally:
                    self.loading = None
                self._servers[settings] = server
                atexit.register(self.close)
            return server.endpoint

    def close(self) -> None:
        """Stop all servers; requests under way are cut off. A forked process stops nothing."""
        if os.getpid() != self._owner_pid:
            return
        with self._lock:
            servers = list(self._servers.values())
            self._servers = {}
            for server in servers:
                server.process.kill()  # it holds nothing that this could harm
            for server in servers:
                with server.process:  # waits, and closes the pipes
                    pass
        atexit.unregister(self.close)

    def _alive_server(self, settings: _Settings) -> _RunningServer | None:
        server = self._servers.get(settings)
        return server if server and server.is_alive() else None

    def _ensure_weights(
        self, name: str, weights: Weights, env: Mapping[str, str]
    ) -> None:
        """Fetch absent weights where that is allowed. Raises WeightsError."""
        if weights_present(weights, env):
            return
        only_verified = bool(weights.file)  # a user's own file is never downloaded
        if not self.allow_fetch and not only_verified:
            raise WeightsError(
                f"its weights are not on this machine; {self.remedy}", model=name
            )
        fetch_weights(weights, env, self.progress, _log_source)


def _log_source(place: str, fault: str | None) -> None:
    """Log a source of weights that could not be used."""
    if fault is not None:
        log.warning("%s: %s; trying the next source", place, fault)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start(settings: _Settings, log: Path, env: Mapping[str, str]) -> _RunningServer:
    """Start a server and wait until it listens.

    Raises WeightsError with llama.cpp's reason when it cannot load the model.
    """
    key = secrets.token_urlsafe(24)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", opener=open_private) as stderr:
        log_start = stderr.tell()
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", str(_CHILD)],
            env={**env, **_PASSIVE_WAIT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        # Over stdin, not as arguments: other users of this machine can read those.
        settings_json = json.dumps({**asdict(settings), "api_key": key})
        address = _send_settings(process, settings_json)
    except BaseException:  # Ctrl-C while it loads, too
        process.kill()
        raise
    if address is None:
        reason = _first_error(log, log_start)
        raise WeightsError(
            f"{settings.path}: llama.cpp cannot serve it: {reason}; see {log}"
        )
    return _RunningServer(process, Endpoint(f"{address}/v1", key))


def _send_settings(process: subprocess.Popen[str], settings: str) -> str | None:
    """Hand over the settings, and wait for the address.

    It comes once the model is loaded; None when it cannot be.
    """
    stdin = cast("IO[str]", process.stdin)
    stdout = cast("IO[str]", process.stdout)
    with suppress(BrokenPipeError):  # it has died already
        stdin.write(settings + "\n")
        stdin.flush()
    for line in stdout:
        if line.startswith("http://"):
            return line.strip()
    process.wait()
    return None


def _first_error(log: Path, start: int) -> str:
    """Return the first error that llama.cpp logged: the later ones follow from it."""
    lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    errors = [line.split(" E ", 1)[1] for line in lines if " E " in line]
    if errors:
        return errors[0]
    return lines[0] if lines else "it gave no reason"
