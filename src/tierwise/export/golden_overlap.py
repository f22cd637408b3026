"""The texts that models are certified on: whoever is trained on one of them, or nearly, knows the answers."""

from __future__ import annotations

from pathlib import Path

from tierwise.steps.examples import load_golden
from tierwise.text.terms import normalised

NEARLY = 90.0  # of 100: how equal two texts are, from the characters that one has to change
_QUOTED_WORDS = 12  # a golden text of so many words is not to stand inside of another text either


class Measured:
    """The texts of all golden sets in a folder, those of other steps too: their answers are in later prompts."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError with file and line for a golden set that is damaged."""
        files = [path for ending in ("jsonl", "csv") for path in sorted(folder.glob(f"*.{ending}"))]
        sets = [
            load_golden(path, at_least=0) for path in files if not path.stem.endswith("-examples")
        ]
        self._texts = sorted(
            {normalised(example.text) for found in sets for example in found.examples}
        )
        self._long = [text for text in self._texts if text.count(" ") >= _QUOTED_WORDS - 1]

    def has(self, text: str) -> bool:
        """Whether a text is, nearly is or quotes one of them; case, spaces and punctuation do not count."""
        from rapidfuzz import fuzz, process

        words = normalised(text)
        near = process.extractOne(words, self._texts, scorer=fuzz.ratio, score_cutoff=NEARLY)
        return near is not None or any(quoted in words for quoted in self._long)
