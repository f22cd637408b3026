"""How much memory a run takes, and that it does not grow with the number of documents.

    python -m benchmarks.memory

Each number of one-line documents goes through a step in a process of its own, with what a flow uses (`recorded_run`,
`read_documents`, a step over each batch, `write_documents`, the run's summary), against a stand-in provider. Prefect's
own memory is not in it: it keeps a future for each batch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gateway import serving
from tests.kit.projects import make_project, model

LABELS = ["billing", "delivery", "praise"]
RULES = "{version: 1, routes: [{name: default, try: [small]}]}"
AT_ONCE = 8  # batches


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--one-run", nargs=2, metavar=("PROJECT", "SOURCE"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.one_run:
        run(*map(Path, options.one_run))
        return
    print(
        "| documents | minutes | MB at the start | MB at most | to the first row |\n|---|---|---|---|---|"
    )
    first = None
    for number in options.documents:
        begun = time.perf_counter()
        start, peak = measured(number)
        first = first or peak
        minutes = (time.perf_counter() - begun) / 60
        print(
            f"| {number:,} | {minutes:.1f} | {start:.0f} | {peak:.0f} | {peak / first:.2f} |",
            flush=True,
        )


def measured(number: int) -> tuple[float, float]:
    """MB that a run had before its first document, and at most."""
    with tempfile.TemporaryDirectory() as folder, serving(0) as url:
        entry = (
            model("small", url.removesuffix("/v1"))
            + "    lane: lean\n    concurrency: 64\n"
        )
        project = make_project(Path(folder) / "project", entry, rules=RULES)
        source = Path(folder) / "lines.jsonl"
        lines = (
            json.dumps({"text": f"Invoice {n} is still open, please look."})
            for n in range(number)
        )
        with source.open("w") as file:
            file.writelines(f"{line}\n" for line in lines)
        command = [
            sys.executable,
            "-m",
            "benchmarks.memory",
            "--one-run",
            str(project),
            str(source),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    start, peak = done.stdout.split()
    return float(start), float(peak)


def run(project: Path, source: Path) -> None:
    """One run; prints what memory it took."""
    from tasks.classify import classify
    from tierwise import Batch, read_documents, recorded_run, write_documents

    def one(batch: Batch) -> Batch:
        return classify.fn(batch, labels=LABELS)

    os.chdir(project)
    with recorded_run() as this, ThreadPoolExecutor(AT_ONCE) as pool:
        start = peak()
        write_documents(
            pool.map(one, read_documents(source, sensitivity="internal")), Path("out")
        )
    assert this.summary().run.accepted
    print(start, peak())


def peak() -> float:
    """The most memory (MB) that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
