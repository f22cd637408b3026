"""How long the commands take that only read the ledger, for a run of 1,000 documents.

    python -m benchmarks.commands

Makes a project with a certificate, and runs its documents through one step on a stand-in provider.
Then each command runs in a process of its own, once to warm the disk's cache and then five times.
The ratio is to `import tierwise.ledger`, the least that any of them does. On a machine that others
use too, only the processor time and the ratio can be trusted.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.gateway import serving
from tests.kit.projects import RULES, make_project, model

LABELS = ["billing", "delivery", "praise"]
BASELINE = ["-c", "import tierwise.ledger"]
COMMANDS = (
    "runs",
    "show",
    "show --documents",
    "show --json",
    "explain doc-00500",
    "report",
    "review",
    "label --list",
    "budgets",
    "audit export --output trail.jsonl",
    "audit verify",
    "retention --older-than 1d --dry-run",
    "diff routing_rules/rules.yaml routing_rules/rules.yaml",
    "models",
    "doctor",
)
FLOOR = "floors: {classify: 0.5}\n"


@dataclass(frozen=True)
class Taken:
    """The time of one command."""

    wall_s: float
    processor_s: float  # user and system


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument(
        "--keep", type=Path, help="make the project here, or use the one there"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = options.keep or Path(folder) / "project"
        if not project.exists():
            with serving(0) as url:
                prepare(project, url, options.documents)
        least = measure(BASELINE, project, options.times)
        print(
            "| command | wall time, s | processor time, s | ratio |\n|---|---|---|---|"
        )
        print(row("import tierwise.ledger", least, least))
        for command in COMMANDS:
            taken = measure(
                ["-m", "tierwise", *command.split()], project, options.times
            )
            print(row(f"tierwise {command}", taken, least), flush=True)


def prepare(root: Path, url: str, number: int) -> None:
    """Make the project, and run the documents through its step."""
    make_project(root, model("small", url.removesuffix("/v1")), rules=RULES + FLOOR)
    rules = root / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("[small, large]", "[small]"))
    (root / "golden").mkdir()
    (root / "golden" / "classify.yaml").write_text(
        f"parameters: {{labels: {LABELS}}}\n"
    )
    documents = root / "documents"
    documents.mkdir()
    for index in range(number):
        # One in 50 is too long for the model's window, and waits for a person.
        words = 12_000 if index % 50 == 0 else 60
        text = f"Invoice {index} is still open. " + "please pay it soon " * (words // 4)
        (documents / f"doc-{index:05}.txt").write_text(text)
    with chdir(root):
        certify(root)
        run(documents)


def run(documents: Path) -> None:
    """Classify all documents, without Prefect."""
    from tasks.classify import classify
    from tierwise.orchestrate.documents import read_documents
    from tierwise.orchestrate.runs import recorded_run

    with recorded_run(budget_usd=100.0) as current:
        for batch in read_documents(documents, sensitivity="internal"):
            parameters = {"labels": LABELS}
            current.engine.run_batch(current.context, classify.spec, batch, parameters)


def certify(root: Path) -> None:
    """Write a certificate of the step's only model, as `tierwise certify` does."""
    from tierwise.identity import current_of
    from tierwise.policy.certificates import Certificate, lower_bound, save_certificates
    from tierwise.project import CERTIFICATES, Project

    project = Project(root)
    step = project.load_step("classify")
    current = current_of(project, os.environ, step, {"labels": LABELS})
    certificate = Certificate(
        step="classify",
        **current.evidence(("small",), "classify.jsonl"),
        prompt="classify v1",
        golden_hash="0" * 64,
        n=100,
        errors=2,
        bound=lower_bound(2, 100),
        date=datetime.date.today(),
        tierwise_version="0.1.0",
    )
    save_certificates(root / CERTIFICATES, [certificate])


def measure(arguments: Sequence[str], project: Path, times: int) -> Taken:
    """Return the medians of a command, after a first time that is not counted."""
    taken = [once(arguments, project) for _ in range(times + 1)][1:]
    return Taken(median(t.wall_s for t in taken), median(t.processor_s for t in taken))


def once(arguments: Sequence[str], project: Path) -> Taken:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env={**os.environ, "TIERWISE_PROJECT": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    wall_s = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(wall_s, processor_s)


def row(name: str, taken: Taken, least: Taken) -> str:
    ratio = taken.processor_s / least.processor_s
    return f"| `{name}` | {taken.wall_s:.2f} | {taken.processor_s:.2f} | {ratio:.1f} |"


if __name__ == "__main__":
    main()
