"""The only door to tiktoken: a fast token count that is near every model's own.

Against real tokenizers it is off by -30 % to 0 %, so a model's `token_margin` belongs to every use.
Costs are computed from the usage that servers report, never from these counts.
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

PER_MESSAGE = 6  # tokens that chat templates put around each message, at most
PER_PROMPT = 3
_NONE: Mapping[str, int] = {}

# characters; at a million spaces tiktoken panics with a BaseException, other long runs are slow
_RUN = 1000
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{_RUN},}}|(?<!\s)\s{{{_RUN},}}")


def count_tokens(text: str) -> int:
    """Count a text's tokens by o200k_base; special tokens in it count as plain text."""
    encode = _encoding().encode_ordinary
    return sum(len(encode(piece)) for piece in _pieces(text))


def estimate_prompt_tokens(
    messages: Iterable[Message],
    margin: float = 1.0,
    *,
    known: Mapping[str, int] = _NONE,
) -> int:
    """Estimate a prompt's tokens with its chat template, times `token_margin`, rounded up.

    `known` has texts that may be part of the prompt, with their tokens, to avoid counting again.
    """
    tokens = PER_PROMPT
    for message in messages:
        tokens += PER_MESSAGE + _message_tokens(message, known)
    return math.ceil(margin * tokens)


def _message_tokens(message: Message, known: Mapping[str, int]) -> int:
    if message.role == "system":
        return _system_message_tokens(message.content)
    for text, tokens in known.items():
        if text and text in message.content:
            before, _, after = message.content.partition(text)
            return count_tokens(before) + tokens + count_tokens(after)
    return count_tokens(message.content)


@lru_cache(maxsize=64)
def _system_message_tokens(text: str) -> int:
    # cached, as a step's system message is the same for all documents
    return count_tokens(text)


def _pieces(text: str) -> Iterable[str]:
    """Yield the text with its long runs (scanned noise, dots, base64) cut into short pieces."""
    if not _may_have_long_run(text):
        yield text
        return
    end = 0
    for run in _LONG_RUN.finditer(text):
        yield text[end : run.start()]
        for start in range(run.start(), run.end(), _RUN):
            yield text[start : min(start + _RUN, run.end())]
        end = run.end()
    yield text[end:]


def _may_have_long_run(text: str) -> bool:
    """Return True if a block of half a run's length has only spaces, or no space at all.

    A whole run must fill at least one such block, and this test is far cheaper than a search.
    """
    size = _RUN // 2
    for start in range(0, len(text) - size + 1, size):
        block = text[start : start + size]
        if block.isspace():
            return True
        first_word = block.split(None, 1)[0]
        if len(first_word) == size:
            return True
    return False


@cache
def _encoding() -> Encoding:
    """Load o200k_base from the tables in LiteLLM's package: no download, no LiteLLM import."""
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
