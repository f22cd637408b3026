"""Loads what every run needs during other work: most of a start is waiting for Prefect."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from tierwise.text.language import load_language_model
from tierwise.text.tokens import load_tokenizer


def preload() -> None:
    """Begin to load what the first document needs, in threads of their own.

    They are no daemons: the end of the process waits for them, as native code cannot be cut off.
    """
    for load in (load_tokenizer, load_language_model, _load_lean_lane):
        threading.Thread(target=_quietly, args=(load,), name="tierwise-preload").start()


def _load_lean_lane() -> None:
    # LiteLLM is not imported here: it takes seconds, and few projects need it.
    import_module("tierwise.gateway.lean_lane")


def _quietly(load: Callable[[], object]) -> None:
    # The first document that needs it loads it again, and raises what is wrong.
    with suppress(Exception):
        load()
        # Full collections would otherwise walk through all that was loaded.
        gc.freeze()
