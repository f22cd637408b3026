"""The child's side of the sandbox: `python -m tierwise.documents.readers.sandbox_child SECONDS BYTES`."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

from tierwise.documents.readers.formats import extract
from tierwise.documents.readers.sandbox import receive, send
from tierwise.errors import DocumentError


def answer(message: bytes) -> bytes:
    """Convert one message (ending, NUL, content) into JSON with the text, or with the error."""
    suffix, _, data = message.partition(b"\0")
    try:
        found = extract(data, suffix.decode())
    except DocumentError as error:
        return json.dumps({"error": str(error)}).encode()
    return json.dumps(
        {"text": found.text, "metadata": found.metadata, "declared": found.declared}
    ).encode()


def main(seconds: int, memory_bytes: int) -> None:
    """Answer messages until the parent is gone."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a parent that ignores it would hand that down
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    while (message := receive(sys.stdin.buffer)) is not None:
        signal.alarm(seconds)  # ends the process, even inside C code
        reply = answer(message)
        signal.alarm(0)
        send(answers, reply)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
