"""The only door to tiktoken: a fast count that is near every model's own.

Against real tokenizers it is off by -30 % to 0 %, so a model's `token_margin` belongs to every use.
What is paid comes from the usage that servers report, never from here.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.records import Message

if TYPE_CHECKING:
    from tiktoken import Encoding

PER_MESSAGE = 6  # what chat templates put around each message, at most
PER_PROMPT = 3
_NONE: Mapping[str, int] = {}

_RUN = 1000  # characters; at a million spaces tiktoken panics with a BaseException, and other long runs are slow
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{_RUN},}}|(?<!\s)\s{{{_RUN},}}")


def count_tokens(text: str) -> int:
    """Tokens of a text by o200k_base. Special tokens in it count as the plain text that they are."""
    encode = _encoding().encode_ordinary
    return sum(len(encode(piece)) for piece in _pieces(text))


def estimate_prompt_tokens(
    messages: Iterable[Message], margin: float = 1.0, *, known: Mapping[str, int] = _NONE
) -> int:
    """Tokens of a prompt, its chat template included, times a model's `token_margin`, rounded up.

    `known` are texts that may be part of it, with their tokens: what was counted is not counted again.
    """
    return math.ceil(
        margin * (PER_PROMPT + sum(PER_MESSAGE + _tokens_of(m, known) for m in messages))
    )


def _tokens_of(message: Message, known: Mapping[str, int]) -> int:
    if message.role == "system":
        return _tokens_of_system(message.content)
    for text, tokens in known.items():
        if text and text in message.content:
            before, _, after = message.content.partition(text)
            return count_tokens(before) + tokens + count_tokens(after)
    return count_tokens(message.content)


_tokens_of_system = lru_cache(maxsize=64)(
    count_tokens
)  # it is the same for all documents of a step


def _pieces(text: str) -> Iterable[str]:
    """The text, with unbroken runs (scanned noise, tables of dots, base64) cut into short pieces."""
    if not _may_have_long_run(text):
        yield text
        return
    end = 0
    for run in _LONG_RUN.finditer(text):
        yield text[end : run.start()]
        yield from (text[i : min(i + _RUN, run.end())] for i in range(run.start(), run.end(), _RUN))
        end = run.end()
    yield text[end:]


def _may_have_long_run(text: str) -> bool:
    """Whether half a run fills one of the text's blocks, as a whole one must: far cheaper than to look for it."""
    blocks = (text[i : i + _RUN // 2] for i in range(0, len(text) - _RUN // 2 + 1, _RUN // 2))
    return any(block.isspace() or block.split(None, 1)[:1] == [block] for block in blocks)


@cache
def _encoding() -> Encoding:
    """o200k_base from the tables that LiteLLM's package carries: nothing is downloaded, LiteLLM is not imported."""
    import tiktoken

    name = "TIKTOKEN_CACHE_DIR"
    if name in os.environ:
        return tiktoken.get_encoding("o200k_base")
    package = importlib.util.find_spec("litellm")
    folders = package.submodule_search_locations if package else None
    if folders:
        os.environ[name] = str(Path(folders[0]) / "litellm_core_utils" / "tokenizers")
    try:
        return tiktoken.get_encoding("o200k_base")
    finally:
        os.environ.pop(name, None)
