"""Who owns a claim: names for processes that let others on the same machine see whether one still lives."""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path


def new_process_identity() -> str:
    """A name for this process as an owner."""
    return f"{_place()} {os.getpid()} {uuid.uuid4().hex}"


def is_dead(owner: str) -> bool:
    """Whether an owner certainly lives no more; where that cannot be known, its lease decides."""
    pid = _pid(owner)
    if pid is None:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _unburied(pid)


def is_here(owner: str) -> bool:
    """Whether an owner ran where this process runs, so that `gone` knows whether it lives."""
    return _pid(owner) is not None


def _pid(owner: str) -> str | None:
    """An owner's process id where it means something here."""
    place, _, process = owner.partition(" ")
    pid = process.partition(" ")[0]
    return pid if os.name == "posix" and place == _place() and pid.isdecimal() else None


def _unburied(pid: str) -> bool:
    """Whether a process is dead, but its parent has not taken notice yet; where that can be seen."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return False


@cache
def _place() -> str:
    """Where a process id means the same process: the host, its boot, its container."""
    parts = [socket.gethostname().replace(" ", "-")]
    with suppress(OSError):  # not Linux: the host's name has to do
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return "/".join(parts)
