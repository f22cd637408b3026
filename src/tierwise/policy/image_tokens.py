"""The tokens that an image takes, by the formulas that providers document.

They are for the worst case of a call that is not made yet; the cost of a call is that of the usage
that its server reports. Images come within `SHOWN_PIXELS` and `LARGEST_SIDE`, which no provider
here makes smaller by itself, so that no pixel is paid for that is not looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache

SHOWN_PIXELS = 1_150_000
LARGEST_SIDE = 1568
# Of the way in which pages are drawn: what was certified for another one is void.
PAGES_VERSION = 1
_SMALLEST_SIDE = 8

Formula = Callable[[int, int], int]


def _tiles(base: int, each: int) -> Formula:
    """OpenAI's: the shorter side becomes 768, and each begun square of 512 counts."""

    def tokens(width: int, height: int) -> int:
        scale = min(1.0, 768 / min(width, height))
        across = math.ceil(width * scale / 512)
        down = math.ceil(height * scale / 512)
        return base + each * across * down

    return tokens


def _patches(side: int, factor: float = 1.0, most: float = math.inf) -> Formula:
    """Return the formula that counts each begun square of `side` dots, at most `most` of them."""

    def tokens(width: int, height: int) -> int:
        squares = math.ceil(width / side) * math.ceil(height / side)
        return math.ceil(min(squares, most) * factor)

    return tokens


def _largest(*formulas: Formula) -> Formula:
    def tokens(width: int, height: int) -> int:
        return max(formula(width, height) for formula in formulas)

    return tokens


def _by_area(width: int, height: int) -> int:
    """Anthropic's."""
    return math.ceil(width * height / 750)


def _gemini(width: int, height: int) -> int:
    """Squares of 768 of 258 tokens; from Gemini 3 on, a fixed number."""
    return max(1120, 258 * math.ceil(width / 768) * math.ceil(height / 768))


def _rows_of_patches(width: int, height: int) -> int:
    """Mistral's, with a token at the end of each row. No known open model takes more."""
    rows = math.ceil(height / 16)
    return rows * math.ceil(width / 16) + rows


# (the model's name as LiteLLM has it, the formula); the first that matches counts
_FORMULAS: tuple[tuple[re.Pattern[str], Formula], ...] = (
    (re.compile(r"openai/gpt-4o-mini"), _tiles(2833, 5667)),
    (re.compile(r"openai/(gpt-[45][.\d]*)-nano"), _patches(32, 2.46, 1536)),
    (re.compile(r"openai/o4-mini"), _patches(32, 1.72, 1536)),
    (re.compile(r"openai/(gpt-[45][.\d]*)-mini"), _patches(32, 1.62, 1536)),
    (re.compile(r"openai/(gpt|o\d|chatgpt)"), _largest(_tiles(85, 170), _patches(32))),
    (re.compile(r"anthropic/|.*claude"), _by_area),
    (re.compile(r"(gemini|vertex_ai)/"), _gemini),
)


def image_tokens(model: str, width: int, height: int) -> int:
    """Return the tokens of an image for a model by its name in LiteLLM."""
    for pattern, formula in _FORMULAS:
        if pattern.match(model):
            return formula(width, height)
    return _rows_of_patches(width, height)


@lru_cache(maxsize=256)
def most_image_tokens(model: str) -> int:
    """Return the most tokens of any image within the limits."""
    most = 0
    for width in range(_SMALLEST_SIDE, LARGEST_SIDE + 1, 8):
        height = min(LARGEST_SIDE, SHOWN_PIXELS // width)
        most = max(most, image_tokens(model, width, height))
    return most
