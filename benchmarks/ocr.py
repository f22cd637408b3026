"""Text recognition on receipts as page images: errors, time, and the fields that models find.

    python -m benchmarks.ocr                          # 6 receipts, 2 minutes on 2 idle cores
    python -m benchmarks.ocr --receipts 30            # the error rates in docs/documents.md
    python -m benchmarks.ocr --receipts 10 --fields   # the fields in docs/documents.md, by the embedded models

Each receipt of SROIE is drawn in one of three fonts, with noise and a tilt of 2 degrees, at 150
dots an inch, and read in the sandbox as in a run. The character error rate is the edit distance
to the receipt's text, without white space at the ends of lines, divided by its length.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidfuzz.distance import Levenshtein

from tierwise.documents.readers import Extracted, Sandbox

RECEIPTS = Path("../shared/data/sroie/receipts.jsonl")
FOLDER = Path("/usr/share/fonts/truetype")
FONTS = {
    "monospace": FOLDER / "dejavu/DejaVuSansMono.ttf",
    "sans serif": FOLDER / "liberation/LiberationSans-Regular.ttf",
    "serif": FOLDER / "dejavu/DejaVuSerif.ttf",
}
DPI = 150
TILT = 2.0  # degrees
NOISE = 15.0  # of 255, the standard deviation of a dot
LETTERS = 21  # dots: 10 points
PITCH = 30
MARGIN = 60
WIDTH = int(8.27 * DPI)
HEIGHT = int(11.69 * DPI)


@dataclass(frozen=True)
class Receipt:
    id: str
    text: str
    gold: dict[str, str]


def receipts(path: Path, number: int) -> list[Receipt]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    chosen = [row for row in rows if fits(row["text"])][:number]
    return [Receipt(row["id"], row["text"], row["gold"]) for row in chosen]


def fits(text: str) -> bool:
    """Only what a page of A4 can show."""
    lines = text.splitlines()
    return len(lines) <= (HEIGHT - 2 * MARGIN) // PITCH and all(
        len(line) <= 60 for line in lines
    )


def picture(text: str, font: str, seed: int) -> bytes:
    """The page as a PNG."""
    image = Image.new("L", (WIDTH, HEIGHT), 255)
    draw = ImageDraw.Draw(image)
    letters = ImageFont.truetype(str(FONTS[font]), LETTERS)
    for number, line in enumerate(text.splitlines()):
        draw.text((MARGIN, MARGIN + number * PITCH), line, font=letters, fill=0)
    sign = 1 if seed % 2 else -1
    image = image.rotate(sign * TILT, resample=Image.Resampling.BICUBIC, fillcolor=255)
    noise = np.random.default_rng(seed).normal(0, NOISE, (HEIGHT, WIDTH))
    dots = (np.asarray(image, dtype=np.float64) + noise).clip(0, 255).astype(np.uint8)
    output = io.BytesIO()
    Image.fromarray(dots).save(output, "PNG")
    return output.getvalue()


def plain(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines()).strip()


def measured(chosen: list[Receipt]) -> Iterator[tuple[Receipt, str, Extracted, float]]:
    """Each receipt with its font, what was read, and the seconds."""
    with Sandbox(seconds=600) as sandbox:
        warm = picture("A first page loads the models", "serif", 0)
        started = time.perf_counter()
        sandbox.extract(warm, ".png")
        print(
            f"first page, with the models' loading: {time.perf_counter() - started:.1f} s"
        )
        for number, receipt in enumerate(chosen):
            font = list(FONTS)[number % len(FONTS)]
            data = picture(receipt.text, font, number)
            started = time.perf_counter()
            extracted = sandbox.extract(data, ".png")
            yield receipt, font, extracted, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--receipts", type=int, default=6)
    parser.add_argument("--data", type=Path, default=RECEIPTS)
    parser.add_argument("--fields", action="store_true")
    arguments = parser.parse_args()
    missing = [str(path) for path in FONTS.values() if not path.exists()]
    if missing:
        parser.error(
            f"{', '.join(missing)}: missing; install fonts-dejavu-core and fonts-liberation"
        )
    chosen = receipts(arguments.data, arguments.receipts)
    errors: dict[str, list[tuple[int, int]]] = defaultdict(list)
    exact = 0
    lines = 0
    seconds = []
    read: dict[str, str] = {}
    for receipt, font, extracted, taken in measured(chosen):
        want = plain(receipt.text)
        got = plain(extracted.text)
        errors[font].append((Levenshtein.distance(want, got), len(want)))
        read_lines = got.splitlines()
        exact += sum(line in read_lines for line in want.splitlines())
        lines += len(want.splitlines())
        seconds.append(taken)
        read[receipt.id] = extracted.text
    child = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = child.ru_utime + child.ru_stime
    print("\n| font | receipts | character error rate |\n|---|---|---|")
    for font, found in errors.items():
        wrong = sum(distance for distance, _ in found)
        total = sum(length for _, length in found)
        print(f"| {font} | {len(found)} | {wrong / total:.2%} |")
    pairs = [pair for found in errors.values() for pair in found]
    rate = sum(distance for distance, _ in pairs) / sum(length for _, length in pairs)
    print(f"| all | {len(pairs)} | {rate:.2%} |")
    print(f"\nlines without an error: {exact / lines:.1%} of {lines}")
    print(
        f"seconds a page: median {np.median(seconds):.1f}, CPU {cpu / (len(seconds) + 1):.1f} "
        f"(load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores)"
    )
    print(f"memory of the child: {child.ru_maxrss / 1024:.0f} MB")
    if arguments.fields:
        from benchmarks.ocr_fields import compare

        texts = {receipt.id: receipt.text for receipt in chosen}
        gold = {receipt.id: receipt.gold for receipt in chosen}
        compare(texts, read, gold)


if __name__ == "__main__":
    main()
