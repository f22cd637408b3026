"""What redaction finds in sentences written for this, by kind, and how long it takes.

python -m benchmarks.redaction
"""

from __future__ import annotations

import time
from collections import Counter

from tests.kit.pii import CASES, HARMLESS
from tierwise.documents.redaction.redact import Redaction
from tierwise.records import Document


def main() -> None:
    redaction = Redaction(to="internal")
    redaction.apply(Document(id="warm", text="up"))
    begun = time.perf_counter()
    done = [
        redaction.apply(Document(id="a", text=case.text, sensitivity="confidential"))
        for case in CASES
    ]
    seconds = time.perf_counter() - begun
    gone = Counter(
        c.kind for c, d in zip(CASES, done, strict=True) if c.secret not in d.text
    )
    print(f"{'kind':<24} taken out")
    for kind, count in Counter(case.kind for case in CASES).items():
        print(f"{kind:<24} {gone[kind]} of {count}")
    changed = sum(
        redaction.apply(Document(id="a", text=text)).text != text for text in HARMLESS
    )
    print(f"{'harmless sentences':<24} {changed} of {len(HARMLESS)} changed")
    characters = sum(len(case.text) for case in CASES)
    print(
        f"{seconds / len(CASES) * 1e3:.1f} ms a sentence, {characters / seconds / 1e3:.0f} characters a millisecond"
    )


if __name__ == "__main__":
    main()
