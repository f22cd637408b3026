"""Runs that are killed while their calls are in provider batches; see `tests.batch_kill`."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.kit.batch_runs import (
    batch_project,
    letters,
    micros,
    opened,
    priced,
    two_steps,
)
from tests.kit.batch_standin import BatchStandin
from tests.kit.ledgers import migrated_url

PRELOAD = [
    "tests.kit.batch_kills",
    "tierwise.gateway.lean_lane",
    "tierwise.gateway.batch",
    "tierwise.gateway.batch.openai",
    "tiktoken",
    "alembic.command",
    "ruamel.yaml",
]
LATENCY_S = 0.03  # of the provider, so that uploads and polls take a moment
TURNAROUND_S = 20.0  # by its clock, which runs as fast as the job's


@dataclass(frozen=True)
class Moment:
    """When a job is killed: some seconds after its start, or after a number of its requests."""

    seconds: float
    requests: int | None = None

    def __str__(self) -> str:
        if self.requests is None:
            return f"{self.seconds:.2f} s"
        return f"request {self.requests} + {self.seconds:.2f} s"

    def wait(self, process: BaseProcess, provider: BatchStandin) -> None:
        """Return at this moment, or once the job is done."""
        if self.requests is not None:
            while process.is_alive() and len(provider.paths) < self.requests:
                time.sleep(0.002)
        time.sleep(self.seconds)


@dataclass(frozen=True)
class KillReport:
    """What came of one kill. `again` are items that were billed twice."""

    moment: Moment
    was_alive: bool
    batches: int
    open_when_killed: int
    under_way: int  # items of a submission that was under way
    again: int
    same_results: bool
    same_sum: bool  # the ledger's sum is the invoice

    @property
    def holds(self) -> bool:
        """Whether it is as we claim."""
        return self.again <= self.under_way and self.same_results and self.same_sum


def started(root: Path, documents: int, out: Path) -> BaseProcess:
    """The job in a process of its own, forked from one that has imported everything."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=job, args=(root, documents, out))
    process.start()
    return process


def job(root: Path, documents: int, out: Path) -> None:
    """Both steps over some letters; the results are written at the end."""
    logging.basicConfig(filename=root / "job.log", level=logging.WARNING)
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch")
        done = two_steps(engine, run, letters(documents))
        engine.finish_run(run, "completed")
    values = {document.id: document.value("summarize") for document in done}
    out.write_text(json.dumps(values))


def killed_once(
    database: str, folder: Path, *, documents: int, moment: Moment
) -> KillReport:
    """Kill a job at a moment, and let another one finish the work."""
    with priced(BatchStandin(latency_s=LATENCY_S)) as provider:
        provider.turnaround_s = TURNAROUND_S
        provider.clock.run_at(60)
        root = batch_project(
            folder / "project", provider.url, ledger=migrated_url(database, folder)
        )
        out = folder / "results.json"
        process = started(root, documents, out)
        moment.wait(process, provider)
        was_alive = process.is_alive()
        process.kill()
        process.join()
        with opened(root) as engine:
            rows = engine.ledger.batches.open_batches()
        under_way = sum(row.items for row in rows if row.provider_id is None)
        last = started(root, documents, out)
        last.join(60)
        assert last.exitcode == 0, (root / "job.log").read_text()
        with opened(root) as engine:
            sums = micros(engine)
        again = sum(times - 1 for times in provider.billed_items().values())
        expected = {d.id: summary(d.text) for d in letters(documents)}
        assert len(provider.billed_items()) == 2 * documents
        return KillReport(
            moment=moment,
            was_alive=was_alive,
            batches=len(provider.batches),
            open_when_killed=len(rows),
            under_way=under_way,
            again=again,
            same_results=json.loads(out.read_text()) == expected,
            same_sum=sums == provider.billed,
        )


def summary(text: str) -> dict[str, str]:
    """The stand-in's summary of a letter."""
    return {"summary": " ".join(text.split()[:5])}


def calm_seconds(folder: Path, documents: int) -> float:
    """How long the job takes undisturbed."""
    with priced(BatchStandin(latency_s=LATENCY_S)) as provider:
        provider.turnaround_s = TURNAROUND_S
        provider.clock.run_at(60)
        root = batch_project(folder / "project", provider.url)
        # Twice: the first one waits until everything is imported.
        for number in range(2):
            begun = time.monotonic()
            process = started(root, documents + number, folder / "results.json")
            process.join()
            assert process.exitcode == 0, (root / "job.log").read_text()
        return time.monotonic() - begun
