"""Process identities: names of claim owners, which tell others on this machine if one is alive."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path


def new_process_identity() -> str:
    """Return a name for this process as an owner: its place, number, start and a random part."""
    pid = os.getpid()
    started = _started(str(pid)) or ""
    return f"{_place()} {pid} {uuid.uuid4().hex} {started}".rstrip()


# At the end of an owner's name: a claim on a call that waits for its batch, so nothing was sent.
_GATHERING = " gathering"
_BATCH = "batch:"  # before a batch's id, as the owner of its calls


def gathering(owner: str) -> str:
    """Return the owner of a claim on a call that waits for its batch to be sent."""
    return f"{owner}{_GATHERING}"


def is_gathering(owner: str) -> bool:
    """Return True if nothing was sent for a claim yet."""
    return owner.endswith(_GATHERING)


def batch_owner(batch_id: str) -> str:
    """Return the owner of the calls in a batch. It never dies, and any process may collect it."""
    return f"{_BATCH}{batch_id}"


def batch_of_owner(owner: str) -> str | None:
    """Return the id of the batch that owns a call, if one does."""
    return owner.removeprefix(_BATCH) if owner.startswith(_BATCH) else None


def is_dead(owner: str) -> bool:
    """Return True if an owner is certainly dead; if that is unknown, its lease decides."""
    pid = _pid(owner)
    if pid is None:
        return False
    if not is_running(int(pid)):
        return True
    # The number is taken by another process by now, as after a restart of a container.
    started = _start_in(owner)
    return bool(started) and started != (_started(pid) or started)


def is_here(owner: str) -> bool:
    """Return True if an owner ran on this machine, so that `is_dead` can tell."""
    return _pid(owner) is not None


def pid_here(owner: str) -> int | None:
    """Return an owner's process id if it ran on this machine."""
    pid = _pid(owner)
    return int(pid) if pid else None


def is_of_earlier_boot(owner: str) -> bool:
    """Return True if an owner ran on a machine of this name before its last start.

    Nearly always it died with that boot or container. But two machines may share a name, so that
    something else has to confirm it.
    """
    place = owner.partition(" ")[0]
    host = place.partition("/")[0]
    return host == _place().partition("/")[0] and place != _place()


def describe_owner(owner: str) -> str:
    """Return an owner as a person knows it: `process 4711 on mail-1`."""
    place, _, process = owner.partition(" ")
    return f"process {process.partition(' ')[0]} on {place.partition('/')[0]}"


def name_of_place() -> str:
    """Return this machine's name with a digest of its present boot or container."""
    digest = hashlib.sha256(_place().encode()).hexdigest()[:12]
    return f"{_place().partition('/')[0]}-{digest}"


def is_running(pid: int) -> bool:
    """Return True if a process with this number runs on this machine, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it exists, but belongs to another user
    return not _is_zombie(str(pid))


def started_at(pid: int) -> float | None:
    """Return when a process of this machine began (seconds since the epoch); None if unknown."""
    ticks = _started(str(pid))
    if ticks is None:
        return None
    with suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "btime":
                return int(value) + int(ticks) / os.sysconf("SC_CLK_TCK")
    return None


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
    fields = _stat(pid)
    return bool(fields) and fields[0] in "ZX"


def _started(pid: str) -> str | None:
    """Return when a process began, in clock ticks since the boot; None if that is unknown."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else None


def _stat(pid: str) -> list[str]:
    """Return what Linux says of a process, from its state on; empty elsewhere, and for none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The name of the program comes before, in brackets, and may contain any sign.
    return stat.rpartition(")")[2].split()


def _start_in(owner: str) -> str | None:
    """Return the start in an owner's name; those of older versions have none."""
    # A claim has further words: its number, and whether it is gathered for a batch.
    words = owner.split(" ")
    has_start = len(words) > 3 and words[3].isdecimal()
    return words[3] if has_start else None


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
