"""Embedded llama.cpp servers: started on demand, shared, private to the run.

Each model has a process of its own (`server_child.py`), because loading holds Python's lock for seconds, a
fault in native code ends its process, and its log goes to the process's stderr. Nothing is sent over
the network: the servers listen on 127.0.0.1, on ports and with keys of their own.
"""

from __future__ import annotations

import atexit
import json
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
from tierwise.policy.catalog import Model, Weights

# Threads that wait by spinning are a quarter faster alone, and four times slower once another process wants a core.
_WAIT_CALMLY = {"OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served, in OpenAI's format."""

    api_base: str
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a server is started with; equal settings share one server."""

    path: str
    context_tokens: int  # of each request
    parallel: int  # requests at a time
    threads: int
    prompt_cache_mib: int = 512


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[str]
    endpoint: Endpoint

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class LocalServers:
    """The servers of this process, one for each set of weights and settings. Thread-safe.

    `allow_fetch` lets absent weights be downloaded, with `progress` told (bytes so far, total);
    otherwise they are a WeightsError that ends in `remedy`.
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
        self._running: dict[_Settings, _Running] = {}
        self._lock = Lock()
        self._owner = os.getpid()

    def endpoint(self, model: Model, env: Mapping[str, str]) -> Endpoint:
        """Where `model` is served; blocks for the seconds that starting its server takes.

        A server that has died is started again. Raises WeightsError when the weights are missing or
        llama.cpp cannot load them.
        """
        if model.weights is None:
            raise WeightsError(
                "the catalog entry names no `weights`, so it cannot be embedded", model=model.name
            )
        path = weights_path(model.weights, env)
        wanted = _Settings(str(path), model.context_tokens, model.concurrency, threads=cores())
        running = self._running.get(wanted)
        if running and running.alive:
            return running.endpoint
        with self._lock:
            running = self._running.get(wanted)
            if not (running and running.alive):
                self._ensure_weights(model.name, model.weights, env)
                running = _start(wanted, cache_folder(env) / "logs" / f"{path.stem[:40]}.log", env)
                self._running[wanted] = running
                atexit.register(self.close)
            return running.endpoint

    def close(self) -> None:
        """Stop all servers; requests under way are cut off. A forked process stops nothing."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            running = list(self._running.values())
            self._running = {}
            for server in running:
                server.process.kill()  # it holds nothing that this could harm
            for server in running:
                with server.process:  # waits, and closes the pipes
                    pass
        atexit.unregister(self.close)

    def _ensure_weights(self, name: str, weights: Weights, env: Mapping[str, str]) -> None:
        if weights_present(weights, env):
            return
        if not (self.allow_fetch or weights.file):  # one's own file is only verified
            raise WeightsError(f"its weights are not on this machine; {self.remedy}", model=name)
        fetch_weights(weights, env, self.progress)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start(settings: _Settings, log: Path, env: Mapping[str, str]) -> _Running:
    """Start a server and wait until it listens. Raises WeightsError with llama.cpp's reason when it does not."""
    key = secrets.token_urlsafe(24)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stderr:
        told = stderr.tell()
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", str(Path(__file__).with_name("server_child.py"))],
            env={**env, **_WAIT_CALMLY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        address = _ask(process, json.dumps({**asdict(settings), "api_key": key}))
    except BaseException:  # Ctrl-C while it loads, too
        process.kill()
        raise
    if address is None:
        raise WeightsError(
            f"{settings.path}: llama.cpp cannot serve it: {_reason(log, told)}; see {log}"
        )
    return _Running(process, Endpoint(f"{address}/v1", key))


def _ask(process: subprocess.Popen[str], settings: str) -> str | None:
    """Hand over the settings; the address comes back once the model is loaded, None when it cannot be."""
    stdin = cast("IO[str]", process.stdin)
    stdout = cast("IO[str]", process.stdout)
    with suppress(BrokenPipeError):  # it has died already
        stdin.write(settings + "\n")
        stdin.flush()
    address = next((line.strip() for line in stdout if line.startswith("http://")), None)
    if address is None:
        process.wait()
    return address


def _reason(log: Path, start: int) -> str:
    """The first error that llama.cpp told: the later ones follow from it."""
    lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    errors = [line.split(" E ", 1)[1] for line in lines if " E " in line]
    return next(iter(errors or lines), "it gave no reason")
