"""How likely an answer was, and each of its fields, by the log-probabilities of its tokens."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from tierwise.text.json_objects import find_objects, leaf_spans, value_spans

_LEAST_LOGPROB = -1e6


def confidence_of(logprobs: Any) -> float | None:
    """Return the probability of the least likely token; None where one of them is no probability."""
    values = _log_probabilities(logprobs)
    if not values or not all(_is_log_probability(value) for value in values):
        return None
    return math.exp(min(values))


def field_confidences(logprobs: Any, answer: str) -> dict[str, float] | None:
    """Return the probability of the least likely token of each value in an answer's JSON object.

    By the object's keys. The tokens that share a character with a value count for it: also the one
    that opens or closes a text, as that decides whether there is a value, and where it ends. Of an
    object or a list, only those of the values in it: brackets, keys and spaces are the grammar's, and
    some servers report how likely they were without it. None where the tokens are not those of the
    answer, or one of them has no probability.
    """
    if confidence_of(logprobs) is None:
        return None
    texts = _token_bytes(logprobs)
    if texts is None:
        return None
    joined = b"".join(texts)
    encoded = answer.encode("utf-8", "surrogatepass")
    # Around the answer there may be thoughts, white space and the marks of the chat format.
    start = joined.rfind(encoded)
    if start < 0 or not encoded:
        return None
    starts = _starts(texts)
    values = _log_probabilities(logprobs)
    least: dict[str, float] = {}
    # Of a long answer with many values, no value looks through all tokens.
    place = start
    read = 0
    for found in find_objects(answer):
        for key, span in value_spans(answer, found.start):
            own: list[float] = []
            for leaf in leaf_spans(answer, span):
                first = place + _bytes_in(answer[read : leaf.start])
                end = first + _bytes_in(answer[leaf])
                place = end
                read = leaf.stop
                token = bisect_right(starts, first) - 1
                while token < len(starts) and starts[token] < end:
                    if starts[token] + len(texts[token]) > first:
                        own.append(values[token])
                    token += 1
            likely = math.exp(min(own))
            # Where an answer has an object twice, or a draft of it, the less likely value counts.
            least[key] = min(likely, least.get(key, 1.0))
    return least or None


def _is_log_probability(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # The lower bound is below all that servers write for "almost never", such as -9999.
    return is_number and _LEAST_LOGPROB < value <= 0


def _log_probabilities(logprobs: Any) -> list[Any]:
    """Return each token's log-probability, in OpenAI's form or the one before it."""
    tokens = logprobs
    if isinstance(logprobs, Mapping):
        tokens = logprobs.get("content")
        if not tokens and isinstance(logprobs.get("token_logprobs"), list):
            return list(logprobs["token_logprobs"])
    if not isinstance(tokens, list):
        return []
    return [
        token.get("logprob") if isinstance(token, Mapping) else None for token in tokens
    ]


def _token_bytes(logprobs: Any) -> list[bytes] | None:
    """Return the text of each token in UTF-8; None where a token has no text."""
    tokens = logprobs
    if isinstance(logprobs, Mapping):
        tokens = logprobs.get("content") or logprobs.get("tokens")
    if not isinstance(tokens, list) or len(tokens) != len(_log_probabilities(logprobs)):
        return None
    texts: list[bytes] = []
    for token in tokens:
        text = _bytes_of(token)
        if text is None:
            return None
        texts.append(text)
    return texts


def _bytes_of(token: Any) -> bytes | None:
    """Return a token's bytes: a token may hold a part of a character, which its text cannot show."""
    if isinstance(token, str):
        return token.encode("utf-8", "surrogatepass")
    if not isinstance(token, Mapping):
        return None
    numbers = token.get("bytes")
    if isinstance(numbers, list):
        try:
            return bytes(numbers)
        except (TypeError, ValueError):
            return None
    text = token.get("token")
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None


def _starts(texts: Sequence[bytes]) -> list[int]:
    """Return the position of each text in all of them together."""
    starts: list[int] = []
    position = 0
    for text in texts:
        starts.append(position)
        position += len(text)
    return starts


def _bytes_in(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
