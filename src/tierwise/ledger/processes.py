"""Process identities: names of claim owners, which tell others on this machine if one is alive."""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path


def new_process_identity() -> str:
    """Return a name for this process as an owner."""
    return f"{_place()} {os.getpid()} {uuid.uuid4().hex}"


def is_dead(owner: str) -> bool:
    """Return True if an owner is certainly dead; if that is unknown, its lease decides."""
    pid = _pid(owner)
    if pid is None:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it exists, but belongs to another user
    return _is_zombie(pid)


def is_here(owner: str) -> bool:
    """Return True if an owner ran on this machine, so that `is_dead` can tell."""
    return _pid(owner) is not None


def _pid(owner: str) -> str | None:
    """Return an owner's process id if it is one of this machine."""
    place, _, process = owner.partition(" ")
    pid = process.partition(" ")[0]
    # On Windows, `os.kill` with 0 is no test: it sends Ctrl+C.
    is_ours = os.name == "posix" and place == _place()
    # A custom owner's name may have any words here.
    return pid if is_ours and pid.isdecimal() else None


def _is_zombie(pid: str) -> bool:
    """Return True for a zombie: dead, but its parent has not collected it yet."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        # The name of the program comes before, in brackets, and may contain any of these signs.
        after_name = stat.rpartition(")")[2]
        state = after_name.split()[0]
        return state in "ZX"
    return False


@cache
def _place() -> str:
    """Return the scope of a process id: the host, its boot, its container."""
    parts = [socket.gethostname().replace(" ", "-")]
    with suppress(OSError):  # not Linux: the host's name has to do
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return "/".join(parts)
