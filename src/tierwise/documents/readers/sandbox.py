"""Foreign formats are converted in a child process with limits, so that no file can stop a run.

A few hundred kilobytes of crafted HTML or PDF keep the parsers busy for hours. The child kills
itself when the time for a file is up; the next file gets a new one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import IO, cast

from tierwise.documents.readers.formats import Extracted
from tierwise.errors import DocumentError

_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")


class Sandbox:
    """A child process that converts, one file at a time; started when first needed.

    One file may take `seconds`, and the child `memory_bytes`.
    """

    def __init__(self, *, seconds: int = 60, memory_bytes: int = 2 << 30) -> None:
        self.seconds = seconds
        self.memory_bytes = memory_bytes
        self._child: subprocess.Popen[bytes] | None = None

    def extract(self, data: bytes, suffix: str) -> Extracted:
        """Like `formats.extract`, within the limits. Raises DocumentError."""
        self._child = child = self._child or self._start()
        try:
            send(cast("IO[bytes]", child.stdin), suffix.encode() + b"\0" + data)
            reply = receive(cast("IO[bytes]", child.stdout))
        except BrokenPipeError:
            reply = None
        if reply is None:
            raise DocumentError(self._bury(child))
        answer = json.loads(reply)
        if "error" in answer:
            raise DocumentError(answer["error"])
        return Extracted(answer["text"], answer["metadata"], tuple(answer["declared"]))

    def close(self) -> None:
        """End the child process, if there is one."""
        if self._child:
            self._child.kill()
            self._bury(self._child)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        # no keys for whoever takes over a parser; and numpy would reserve memory for every core
        env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        env |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "tierwise.documents.readers.sandbox_child"]
        command += [str(self.seconds), str(self.memory_bytes)]
        return subprocess.Popen(  # noqa: S603 - our own module
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _bury(self, child: subprocess.Popen[bytes]) -> str:
        """Forget a child that has ended, and say why it did."""
        self._child = None
        child.communicate()
        if child.returncode == -signal.SIGALRM:
            return f"converting it took longer than {self.seconds} s; split it or save it as plain text"
        return f"converting it ended its process ({child.returncode}); split it or save it as plain text"


def send(stream: IO[bytes], data: bytes) -> None:
    """Write one message: eight bytes of length, then the data."""
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes | None:
    """The next message, or None when the other side is gone."""
    head = stream.read(8)
    data = stream.read(int.from_bytes(head, "big")) if len(head) == 8 else b""
    return data if len(head) == 8 and len(data) == int.from_bytes(head, "big") else None
