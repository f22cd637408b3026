"""The child's side of the sandbox.

Started as `python -m tierwise.documents.readers.sandbox_child SECONDS BYTES`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from tierwise.documents.readers import time_limit
from tierwise.documents.readers.formats import extract
from tierwise.documents.readers.messages import (
    error_messages,
    parse_request,
    receive,
    reply_messages,
    send,
)
from tierwise.documents.readers.pages.recognizer import Recognizer, is_installed
from tierwise.errors import DocumentError

# Events of Python for connections and programs; readers need neither.
_REFUSED = (
    *("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"),
    *("socket.getaddrinfo", "socket.gethostbyname"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"),
)


def convert(
    head: bytes, data: bytes, recognizer: Recognizer | None = None
) -> list[bytes]:
    """Convert one file into the messages of a reply: its content, or the error."""
    try:
        return reply_messages(extract(data, parse_request(head), recognizer))
    except DocumentError as error:
        return error_messages(str(error))


def refuse(event: str, _: tuple[object, ...]) -> None:
    """Raise PermissionError for an event of Python's audit that no reader needs."""
    if event in _REFUSED:
        raise PermissionError(f"a reader may not use {event}")


def main(seconds: int, memory_bytes: int) -> None:
    """Convert messages until the parent is gone."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    # a parent that ignores them would hand that down
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Replies get a stream of their own: what a library prints must not mix with them.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.addaudithook(refuse)
    # Its models are loaded once for all files, at the first page that needs them.
    recognizer = Recognizer() if is_installed() else None
    while (head := receive(sys.stdin.buffer)) is not None:
        data = receive(sys.stdin.buffer)
        if data is None:
            break
        time_limit.start(seconds)
        messages = convert(head, data, recognizer)
        time_limit.stop()
        for message in messages:
            send(replies, message)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
