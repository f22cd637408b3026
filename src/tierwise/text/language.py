"""The only door to py3langid: which language a text is in, offline."""

from __future__ import annotations

from functools import cache
from typing import Any

ENOUGH_CHARACTERS = 2_000  # more changes nothing and takes longer
FEWEST_LETTERS = 12
LEAST_CONFIDENCE = 0.5


def detect(text: str) -> str | None:
    """ISO 639-1 code of the text's language; None when it is too short, not a language, or unsure."""
    sample = text[:ENOUGH_CHARACTERS]
    if sum(map(str.isalpha, sample)) < FEWEST_LETTERS:
        return None
    language, confidence = _identifier().classify(sample)
    return (
        str(language) if confidence >= LEAST_CONFIDENCE and language not in ("zxx", "und") else None
    )


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
