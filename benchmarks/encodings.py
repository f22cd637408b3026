"""Read letters in 31 languages in the encodings from before Unicode: right, wrong, or waiting.

    python -m benchmarks.encodings

Each piece of a letter is written in each encoding of its language and read without a label. A
piece that waits is deferred with the reason. Prints a table by the number of letters.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

from tests.kit.languages import samples
from tierwise.documents.readers import decode
from tierwise.errors import DocumentError

LENGTHS = {
    20: 60,
    40: 80,
    80: 120,
    160: 120,
    400: 200,
}  # letters, and between two beginnings


def main() -> None:
    """Print the table."""
    print("| letters | texts | right | wrong | wait |")
    print("|---|---|---|---|---|")
    for letters, step in LENGTHS.items():
        counts: Counter[str] = Counter()
        for _, encoding, text in samples(letters, step):
            counts[_outcome(text, encoding)] += 1
        total = counts.total()
        figures = " | ".join(str(counts[name]) for name in ("right", "wrong", "waits"))
        print(f"| {letters} | {total} | {figures} |", flush=True)


def _outcome(text: str, encoding: str) -> str:
    try:
        found, _ = decode(text.encode(encoding))
    except DocumentError:
        return "waits"
    same = unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", text)
    return "right" if same else "wrong"


if __name__ == "__main__":
    main()
