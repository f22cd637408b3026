"""The only door to tiktoken: a fast token count that is near every model's own.

Against real tokenizers it is off by -30 % to 0 %, so a model's `token_margin` belongs to every use.
Costs are computed from the usage that servers report, never from these counts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import re
import threading
from binascii import a2b_base64
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

from tierwise.records import Message
from tierwise.text.once import once

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


class TokenCounts:
    """The counts of the latest texts, by their hash: each step asks for those of all documents.

    Thread-safe.
    """

    def __init__(self, most: int = 100_000) -> None:
        """`most` is the number of counts that are kept: 100,000 are about 15 MB."""
        self._most = most
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def count(self, text: str, text_hash: str) -> int:
        """Return a text's tokens, counted or remembered."""
        tokens = self._counts.get(text_hash)
        if tokens is not None:
            return tokens
        tokens = count_tokens(text)
        with self._lock:
            self._counts[text_hash] = tokens
            if len(self._counts) > self._most:
                oldest = next(iter(self._counts))
                del self._counts[oldest]
        return tokens


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
    end = 0  # of the last run
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


def load_tokenizer() -> None:
    """Load the tables now, not at the first text."""
    _encoding()


@once
def _encoding() -> Encoding:
    """Load o200k_base from the tables in LiteLLM's package: no download, no LiteLLM import."""
    import tiktoken
    from tiktoken_ext import openai_public  # type: ignore[import-untyped] # it has none

    if "TIKTOKEN_CACHE_DIR" in os.environ:
        return tiktoken.get_encoding("o200k_base")
    # tiktoken would read the folder of its tables from a variable. Another thread may be reading
    # the environment, so instead its definition runs with another reader of tables.
    names = {**vars(openai_public), "load_tiktoken_bpe": _read_table}
    definition = FunctionType(openai_public.o200k_base.__code__, names)
    return tiktoken.Encoding(**definition())


def _read_table(url: str, expected_hash: str) -> dict[bytes, int]:
    """Read a table of tokens and their ranks, from LiteLLM's package if it is there."""
    from tiktoken.load import load_tiktoken_bpe

    package = importlib.util.find_spec("litellm")
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        # the name that tiktoken gives to a table in its cache
        name = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
        path = Path(folder) / "litellm_core_utils" / "tokenizers" / name
        if path.is_file():
            table = path.read_bytes()
            if hashlib.sha256(table).hexdigest() == expected_hash:
                return _parse_table(table)
    return load_tiktoken_bpe(url, expected_hash)


def _parse_table(table: bytes) -> dict[bytes, int]:
    """Parse lines of a token in base64 and its rank."""
    ranks = {}
    for line in table.splitlines():
        token, _, rank = line.partition(b" ")
        ranks[a2b_base64(token)] = int(rank)
    return ranks
