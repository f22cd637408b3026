"""Places: 10,000 quotations from a document of 300 pages, and the words of 300 PDF pages.

    python -m benchmarks.places

It makes a text and a PDF of words that mean nothing, always the same ones, and prints seconds of
processor time.
"""

from __future__ import annotations

import random
import time
from unittest import mock

from fpdf import FPDF

from tierwise.documents.readers import pdf
from tierwise.documents.readers.pages.text_layer import placed_pages
from tierwise.steps.quotations import QuotableText

PAGES = 300
LINES = 45
QUOTATIONS = 10_000
_SYLLABLES = ("an", "be", "dor", "é", "fi", "ga", "ko", "lum", "no", "ß", "tra", "zi")


def lines(rng: random.Random) -> list[str]:
    words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(4000)]
    return [" ".join(rng.choices(words, k=11)) for _ in range(PAGES * LINES)]


def quote(text: str, rng: random.Random) -> float:
    """Return the seconds that the quotations take, with squeezing the text."""
    words = text.split()
    places = [rng.randrange(len(words) - 8) for _ in range(QUOTATIONS)]
    quotations = [" ".join(words[place : place + 8]).upper() for place in places]
    begun = time.process_time()
    quotable = QuotableText(text)
    for quotation in quotations:
        assert quotable.find(quotation) is not None
    return time.process_time() - begun


def read(text: list[str]) -> tuple[float, float]:
    """Return the seconds of reading a PDF, and those of them for the places of its words."""
    file = FPDF()
    file.set_font("Helvetica", size=9)
    file.set_auto_page_break(False)
    for page in range(PAGES):
        file.add_page()
        for line in text[page * LINES : (page + 1) * LINES]:
            file.cell(0, 5.5, line, new_x="LMARGIN", new_y="NEXT")
    data = bytes(file.output())
    spent = 0.0

    def measured(*values: object, **options: object) -> object:
        nonlocal spent
        begun = time.process_time()
        pages = placed_pages(*values, **options)  # type: ignore[arg-type]
        spent += time.process_time() - begun
        return pages

    begun = time.process_time()
    with mock.patch.object(pdf, "placed_pages", measured):
        pdf.read_pdf(data)
    return time.process_time() - begun, spent


def main() -> None:
    rng = random.Random(17)
    text = lines(rng)
    whole = "\n".join(text)
    seconds = quote(whole, rng)
    print(f"{QUOTATIONS:,} quotations, {len(whole):,} characters: {seconds:.1f} s")
    total, places = read(text)
    share = total / (total - places)
    print(
        f"{PAGES} pages of a PDF: {total:.1f} s, places {places:.1f} s ({share:.2f} times)"
    )


if __name__ == "__main__":
    main()
