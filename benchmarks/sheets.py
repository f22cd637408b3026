"""The time that a large spreadsheet takes to be read, row by row.

    python -m benchmarks.sheets                # 20,000 rows: the figures in docs/documents.md
    python -m benchmarks.sheets --rows 100000

Processor time of the child that converts the file and of the process that makes the documents, and
the time by the clock, which the machine's other work lengthens.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import tempfile
import time
from pathlib import Path

import openpyxl

from tierwise.documents import iter_documents


def write_sheet(path: Path, rows: int) -> None:
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Letters")
    sheet.append(["id", "text", "customer", "amount", "date"])
    day = datetime.date(2026, 1, 1)
    for number in range(rows):
        text = f"Where is lamp {number}? I ordered it weeks ago, and it has not come."
        sheet.append([f"A{number}", text, f"Ann {number}", number * 1.5, day])
    book.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "letters.xlsx")
        write_sheet(path, arguments.rows)
        size = path.stat().st_size
        began = time.perf_counter()
        began_here = time.process_time()
        documents = sum(1 for _ in iter_documents(Path(folder), sensitivity="internal"))
    child = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{documents:,} documents of {size / 1e6:.1f} MB")
    print(f"child: {child.ru_utime + child.ru_stime:.1f} s of processor time")
    print(f"here: {time.process_time() - began_here:.1f} s of processor time")
    print(f"by the clock: {time.perf_counter() - began:.1f} s")
    print(f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
