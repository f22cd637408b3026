"""The child's side of the sandbox.

Started as `python -m tierwise.documents.readers.sandbox_child SECONDS BYTES`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

from tierwise.documents.readers.formats import extract
from tierwise.documents.readers.sandbox import receive, send
from tierwise.errors import DocumentError


def convert(message: bytes) -> bytes:
    """Convert one message (ending, NUL, content) into JSON with the content, or with the error."""
    suffix, _, data = message.partition(b"\0")
    reply: dict[str, object]
    try:
        extracted = extract(data, suffix.decode())
    except DocumentError as error:
        reply = {"error": str(error)}
    else:
        reply = {
            "text": extracted.text,
            "metadata": extracted.metadata,
            "declared": extracted.declared,
            "unread": extracted.unread,
            "unread_pages": extracted.unread_pages,
            "remedy": extracted.remedy,
        }
    return json.dumps(reply).encode()


def main(seconds: int, memory_bytes: int) -> None:
    """Convert messages until the parent is gone."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    # a parent that ignores it would hand that down
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Replies get a stream of their own: what a library prints must not mix with them.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while (message := receive(sys.stdin.buffer)) is not None:
        signal.alarm(seconds)  # ends the process, even inside C code
        reply = convert(message)
        signal.alarm(0)
        send(replies, reply)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
