"""Loads what every run needs during other work: most of a start is waiting for Prefect."""

from __future__ import annotations

import atexit
import gc
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

from tierwise.text.language import load_language_model
from tierwise.text.tokens import load_tokenizer

_END_WITHIN_S = 5.0


def preload() -> None:
    """Begin to load what the first document needs, in threads of their own."""
    threads = []
    for load in (load_tokenizer, load_language_model, _load_lean_lane):
        thread = threading.Thread(
            target=_quietly, args=(load,), name="tierwise-preload", daemon=True
        )
        thread.start()
        threads.append(thread)
    atexit.register(_wait_for, threads)


def _wait_for(threads: Sequence[threading.Thread]) -> None:
    """Let the threads end before the process does, as native code cannot be cut off.

    Not for ever: a Ctrl-C in an import of the main thread can leave that module's lock held, and a
    thread that imports the same module then waits for it.
    """
    deadline = time.monotonic() + _END_WITHIN_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _load_lean_lane() -> None:
    # LiteLLM is not imported here: it takes seconds, and few projects need it.
    import_module("tierwise.gateway.lean_lane")


def _quietly(load: Callable[[], object]) -> None:
    # The first document that needs it loads it again, and raises what is wrong.
    with suppress(Exception):
        load()
        # Full collections would otherwise walk through all that was loaded.
        gc.freeze()
