"""The most tokens that an image takes, by the formulas that providers document.

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


def _patches(side: int, factor: float = 1.0) -> Formula:
    """Return the formula that counts each begun square of `side` dots.

    The providers' limits on the number of squares are above what `SHOWN_PIXELS` takes.
    """

    def tokens(width: int, height: int) -> int:
        squares = math.ceil(width / side) * math.ceil(height / side)
        return math.ceil(squares * factor)

    return tokens


def _largest(*formulas: Formula) -> Formula:
    def tokens(width: int, height: int) -> int:
        return max(formula(width, height) for formula in formulas)

    return tokens


def _by_area(width: int, height: int) -> int:
    """Anthropic's until 2026."""
    return math.ceil(width * height / 750)


def _gemini(width: int, height: int) -> int:
    """Squares of 768 of 258 tokens; 1,120 from Gemini 3 on; about 256 + 2,048 in Gemini 2.5."""
    return max(2304, 258 * math.ceil(width / 768) * math.ceil(height / 768))


def _rows_of_patches(width: int, height: int) -> int:
    """Mistral's, with a token at the end of each row. Few open models take more."""
    rows = math.ceil(height / 16)
    return rows * math.ceil(width / 16) + rows


def _llama(width: int, height: int) -> int:
    """Llama's, also for what Together bills: up to two by two squares of 560."""
    across = min(2, math.ceil(width / 560))
    down = min(2, math.ceil(height / 560))
    return 1601 * across * down


_OPENAI_SMALL = _largest(_tiles(85, 170), _patches(32, 2.46))
# What a deployment of Azure runs is not in its name, so the largest formula counts.
_ANY_OPENAI = _tiles(2833, 5667)

# The sources are in docs/documents.md, with their dates. Where an earlier version of a provider's
# page or a measured bill had more tokens than the current page, the larger number is here.
# (a part of the model's name as LiteLLM has it, the formula); the first that is found counts
_FORMULAS: tuple[tuple[re.Pattern[str], Formula], ...] = (
    (re.compile(r"gpt-4o-mini"), _tiles(2833, 5667)),
    (re.compile(r"gpt-(4\.1|5[.\d]*)-mini"), _patches(32, 1.62)),
    (re.compile(r"\bo4-mini|codex-mini"), _patches(32, 1.72)),
    (re.compile(r"gpt-[\w.-]*(mini|nano|micro)"), _OPENAI_SMALL),
    (
        re.compile(
            r"\bgpt-(?!oss)|\bo[1-9]\b|chatgpt|\bchat-latest|computer-use|daybreak"
        ),
        _largest(_tiles(85, 170), _patches(32, 1.2)),
    ),
    (re.compile(r"claude|^anthropic/"), _largest(_by_area, _patches(28))),
    (re.compile(r"gemini"), _gemini),
    (re.compile(r"llama|^together_ai/"), _largest(_llama, _rows_of_patches)),
    (re.compile(r"^azure/"), _ANY_OPENAI),
)


def image_tokens(model: str, width: int, height: int) -> int:
    """Return the tokens of an image for a model by its name in LiteLLM."""
    name = model.lower()
    for pattern, formula in _FORMULAS:
        if pattern.search(name):
            return formula(width, height)
    return _rows_of_patches(width, height)


@lru_cache(maxsize=256)
def most_image_tokens(model: str) -> int:
    """Return the most tokens of any image within the limits."""
    most = 0
    for width in range(_SMALLEST_SIDE, LARGEST_SIDE + 1):
        tallest = min(LARGEST_SIDE, SHOWN_PIXELS // width)
        # Formulas that shrink the shorter side to 768 take most at that size.
        for height in {tallest, min(tallest, 768)}:
            most = max(most, image_tokens(model, width, height))
    return most
