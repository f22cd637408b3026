"""The only door to py3langid: language detection, offline."""

from __future__ import annotations

from itertools import islice
from typing import Any

from tierwise.text.once import once

ENOUGH_CHARACTERS = 2_000  # more changes nothing and takes longer
FEWEST_LETTERS = 12
LEAST_CONFIDENCE = 0.5
_NO_LANGUAGE = ("zxx", "und")  # "no linguistic content" and "undetermined"


def detect(text: str) -> str | None:
    """Return the ISO 639-1 code of a text's language; None if it is too short or unsure."""
    sample = text[:ENOUGH_CHARACTERS]
    letters = filter(str.isalpha, sample)
    # counted no further than needed
    if len([*islice(letters, FEWEST_LETTERS)]) < FEWEST_LETTERS:
        return None
    language, confidence = _identifier().classify(sample)
    if confidence < LEAST_CONFIDENCE or language in _NO_LANGUAGE:
        return None
    return str(language)


def load_language_model() -> None:
    """Load the model now, not at the first text."""
    _identifier()


@once
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE

    from tierwise.text.language_model import FastIdentifier

    return FastIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
