"""A poll of a watched folder in which nothing has changed, beside a bare walk of the folder.

    python -m benchmarks.polling
    python -m benchmarks.polling --files 100000 --pdfs 200

The first poll reads every file, and all documents go on record as done. The polls after it find
nothing new. Ratios are to a walk with `os.scandir` that looks at each file (`stat`) and keeps nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prefect import flow
from sqlalchemy import create_engine, insert, update

from tests.kit.pdf_files import PdfFile
from tests.kit.projects import make_project, model
from tierwise import read_documents, recorded_run
from tierwise.engine import Engine
from tierwise.ledger.rows import outcome_row
from tierwise.ledger.tables import OutcomeRecord, Run
from tierwise.orchestrate.dry_run import dry_run
from tierwise.project import Project
from tierwise.records import Document, Outcome

STEPS = ("classify", "summarize", "draft")
RULES = "version: 1\nroutes: [{name: all, try: [small]}]\n"
POLLS = 3


def main() -> None:
    """Print a line for each folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--pdfs", type=int, default=200)
    options = parser.parse_args()
    print("| folder | bare walk, s | first poll | later poll, s | ratio to the walk |")
    print("|---|---|---|---|---|")
    for name, fill, number in (
        ("text files", fill_with_texts, options.files),
        ("PDFs of 10 pages", fill_with_pdfs, options.pdfs),
    ):
        with tempfile.TemporaryDirectory() as folder:
            root = make_project(
                Path(folder) / "project",
                model("small", "http://127.0.0.1:9"),
                rules=RULES,
            )
            # the files were made just now
            (root / "pyproject.toml").write_text("[tool.tierwise]\nminimum_age = 0\n")
            fill(root / "in", number)
            measure(f"{number:,} {name}", root)


def fill_with_texts(source: Path, number: int) -> None:
    for index in range(number):
        path = source / f"{index // 1000:03}" / f"{index:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Letter {index}: my order has not come, where is it?")


def fill_with_pdfs(source: Path, number: int) -> None:
    source.mkdir(parents=True)
    for index in range(number):
        file = PdfFile()
        for page in range(10):
            file.page(f"Letter {index}, page {page}: my order has not come.")
        (source / f"{index:06}.pdf").write_bytes(file.data())


def measure(name: str, root: Path) -> None:
    with Engine(Project(root), env={}) as engine:
        seconds, documents = timed(lambda: poll(engine))
        put_on_record(engine, documents)
        later = []
        walks = []
        for _ in range(POLLS):  # in turns, as other work comes and goes
            walks.append(timed(lambda: walk(root / "in"))[0])
            took, found = timed(lambda: poll(engine))
            if found:
                sys.exit(f"{len(found)} documents are new in a poll without any")
            later.append(took)
    best = min(later)
    bare = min(walks)
    print(f"| {name} | {bare:.3f} | {seconds:.1f} | {best:.3f} | {best / bare:.1f} |")


def poll(engine: Engine) -> list[Document]:
    """Read what is new, as a run does; no step is mapped over it."""
    found: list[Document] = []

    @flow(name="polling")
    def polling(source: Path) -> None:
        with recorded_run():
            for batch in read_documents(source, sensitivity="internal", only_new=True):
                found.extend(batch.load())

    dry_run(polling, {"source": Path("in")}, engine)
    return found


def put_on_record(engine: Engine, documents: list[Document]) -> None:
    """Record an accepted outcome of each step for each document, in the run that read them."""
    [run] = engine.ledger.runs.newest(1)
    rows: Iterator[dict[str, Any]] = (
        outcome_row(
            run.id,
            document,
            Outcome(step=step, status="accepted", value={"label": "order"}),
            time.time(),
            None,
        )
        for document in documents
        for step in STEPS
    )
    with create_engine(engine.ledger.url).begin() as connection:
        connection.execute(insert(OutcomeRecord), list(rows))
        # a dry run has no flow run of that name
        connection.execute(update(Run).values(flow="polling"))


def walk(source: Path) -> int:
    """Look at each file below a folder."""
    files = 0
    to_visit = [str(source)]
    while to_visit:
        with os.scandir(to_visit.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    to_visit.append(entry.path)
                else:
                    entry.stat()
                    files += 1
    return files


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that something took, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
