"""Untrusted formats are converted in a child process with limits, so that no file can stop a run.

A few hundred kilobytes of crafted HTML or PDF keep the parsers busy for hours. The child kills
itself when the time for a file is up; the next file gets a new child. It opens no connection and
starts no program.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import IO, cast

from tierwise.documents.readers.messages import (
    parse_reply,
    receive,
    request_head,
    send,
)
from tierwise.documents.readers.results import Extracted
from tierwise.documents.readers.settings import Request
from tierwise.documents.readers.time_limit import WALL_FACTOR
from tierwise.errors import DocumentError

# Nothing else: no API keys for an attacker who takes over a parser.
_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
# Otherwise numpy would reserve memory for every core, of the little that the child may have.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class ConversionStopped(DocumentError):
    """The child died, or took too long: another time it may not."""


class Sandbox:
    """A child process that converts one file at a time, started at the first file.

    One file may take `seconds` of processor time, and each page that text recognition
    reads as long again. The child may use `memory_bytes`.
    """

    def __init__(self, *, seconds: int = 60, memory_bytes: int = 2 << 30) -> None:
        self.seconds = seconds
        self.memory_bytes = memory_bytes
        self._child: subprocess.Popen[bytes] | None = None

    def extract(self, data: bytes, request: Request | str) -> Extracted:
        """Do what `formats.extract` does, within the limits. Raises DocumentError."""
        if isinstance(request, str):
            request = Request(request)
        if self._child is None:
            self._child = self._start()
        child = self._child
        replies = cast("IO[bytes]", child.stdout)

        def next_message() -> bytes:
            message = receive(replies)
            if message is None:
                raise ConversionStopped(self._discard(child))
            return message

        try:
            requests = cast("IO[bytes]", child.stdin)
            send(requests, request_head(request))
            send(requests, data)
        except BrokenPipeError:
            raise ConversionStopped(self._discard(child)) from None
        result = json.loads(next_message())
        if "error" in result:
            raise DocumentError(result["error"])
        return parse_reply(result, next_message)

    def close(self) -> None:
        """End the child process, if there is one."""
        if self._child:
            self._child.kill()
            self._discard(self._child)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        env.update(_ONE_THREAD)
        command = [
            sys.executable,
            "-P",
            "-m",
            "tierwise.documents.readers.sandbox_child",
        ]
        command += [str(self.seconds), str(self.memory_bytes)]
        return subprocess.Popen(  # noqa: S603 - our own module
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _discard(self, child: subprocess.Popen[bytes]) -> str:
        """Forget a child that has ended, and return the reason for a person."""
        self._child = None
        child.communicate()
        if child.returncode == -signal.SIGPROF:
            problem = f"took longer than {self.seconds} s of processor time"
        elif child.returncode == -signal.SIGALRM:
            problem = f"did not end within {self.seconds * WALL_FACTOR} s"
        else:
            problem = f"ended its process ({child.returncode})"
        return f"converting it {problem}; split it or save it as plain text"
