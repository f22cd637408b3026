"""Write src/tierwise/text/letter_pairs.json: how often a letter follows another, by language.

    pip download --no-deps chardet==7.7.0 && unzip -d chardet chardet-7.7.0-*.whl
    python -m benchmarks.letter_pairs chardet

The counts come out of the models of chardet 7 (0BSD), which were trained on web pages. Its models
are tables of pairs of bytes; here they become pairs of letters, in one case. A level is twice the
binary logarithm of a count, so that one character holds it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

from tierwise.text.letters import LEVELS, PAIRS_FILE

# For each language, the encoding whose model has all of its letters.
MODELS = {
    "cp1252": "da de en es fi fr ga id is it nl no pt sv",
    "cp1250": "cs hr hu pl sk sl",
    "iso8859-16": "ro",
    "cp1251": "be bg mk ru sr uk",
    "cp1253": "el",
    "cp1254": "tr",
    "cp1255": "he",
    "cp1256": "ar fa",
    "cp1257": "et lt lv",
    "cp1258": "vi",
    "cp874": "th",
}


def main() -> None:
    """Convert the models."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="an unpacked wheel of chardet")
    options = parser.parse_args()
    sys.path.insert(0, str(options.folder))
    from chardet.models import load_models  # type: ignore[import-not-found]

    models = load_models()
    languages: dict[str, dict[str, str]] = {}
    for encoding, names in MODELS.items():
        for language in names.split():
            table = models[f"{language}/{encoding}"]
            languages[language] = _rows(_counts(table, encoding))
    lines = [
        f"  {json.dumps(name)}: {json.dumps(rows, ensure_ascii=False)}"
        for name, rows in sorted(languages.items())
    ]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    PAIRS_FILE.write_text(text, encoding="utf-8")
    print(f"{PAIRS_FILE}: {len(text.encode()):,} bytes, {len(languages)} languages")


def _counts(table: bytes, encoding: str) -> dict[tuple[str, str], int]:
    """Return how often each pair of letters occurs; what is no letter is a space."""
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    for place, weight in enumerate(table):
        if not weight:
            continue
        pair = bytes(divmod(place, 256)).decode(encoding, "replace")
        if len(pair) != 2:
            continue
        first, second = (_letter(character) for character in pair)
        if (first, second) != (" ", " "):
            counts[first, second] += weight
    # A rare pair of ASCII letters says little about a language.
    return {
        pair: count
        for pair, count in counts.items()
        if count > 1 or not "".join(pair).isascii()
    }


def _letter(character: str) -> str:
    lower = character.lower()
    is_mark = 0x300 <= ord(character) < 0x370 or "\u0e31" <= character <= "\u0e4e"
    if len(lower) == 1 and (character.isalpha() or is_mark):
        return {"ș": "ş", "ț": "ţ"}.get(lower, lower)
    return " "


def _rows(counts: dict[tuple[str, str], int]) -> dict[str, str]:
    """Return, by the first letter, the second ones, each with its level behind it."""
    rows: defaultdict[str, str] = defaultdict(str)
    for (first, second), count in sorted(counts.items()):
        level = min(round(2 * math.log2(count)), len(LEVELS) - 1)
        rows[first] += second + LEVELS[level]
    return dict(rows)


if __name__ == "__main__":
    main()
