"""The golden texts, which must not be trained on: a model that saw one knows the answer."""

from __future__ import annotations

from pathlib import Path

from tierwise.steps.examples import load_golden
from tierwise.text.near_duplicates import NearDuplicates
from tierwise.text.terms import normalised
from tierwise.text.vectors import Encoder

# share of equal characters from which two texts are nearly the same
SIMILARITY_PERCENT = 90.0
# a golden text of this length must not be quoted in another text either
_FEWEST_QUOTED_WORDS = 12


class GoldenTexts:
    """The texts of all golden sets in a folder.

    Those of other steps are among them: their answers are in later prompts.
    """

    def __init__(self, folder: Path, encoder: Encoder | None = None) -> None:
        """Read the golden sets whose texts stay out of training data. Raises ConfigError.

        With an encoder, so do texts that say nearly the same in other words.
        """
        texts: set[str] = set()
        originals: set[str] = set()
        json_files = sorted(folder.glob("*.jsonl"))
        csv_files = sorted(folder.glob("*.csv"))
        for path in (*json_files, *csv_files):
            # few-shot examples, which nothing is measured on
            if path.stem.endswith("-examples"):
                continue
            golden = load_golden(path, at_least=0)
            texts |= {normalised(example.text) for example in golden.examples}
            originals |= {example.text for example in golden.examples}
        self._texts = sorted(texts)
        # A text of a few words, such as "yes please", occurs in others by chance.
        self._quotable_texts = [
            text for text in self._texts if len(text.split(" ")) >= _FEWEST_QUOTED_WORDS
        ]
        self._by_meaning: NearDuplicates | None = None
        if encoder is not None:
            self._by_meaning = NearDuplicates(sorted(originals), encoder)

    def overlaps(self, text: str) -> bool:
        """Return True if a text is, nearly is, or quotes a golden text.

        Case, spaces and punctuation do not count.
        """
        from rapidfuzz import fuzz, process

        words = normalised(text)
        similar = process.extractOne(
            words, self._texts, scorer=fuzz.ratio, score_cutoff=SIMILARITY_PERCENT
        )
        if similar is not None:
            return True
        if any(quoted in words for quoted in self._quotable_texts):
            return True
        return self._by_meaning is not None and self._by_meaning.find([text]) != [None]
