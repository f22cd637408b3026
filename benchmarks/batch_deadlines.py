"""Runs in provider batches whose turnaround is random, and some of which hang: do all meet their deadline?

    python -m benchmarks.batch_deadlines --runs 100

A stand-in on a real socket ends each batch after a random time, and some never. All runs go side by
side, in real time. Each has a deadline of its own. The cost stands beside the best possible, which
knows each turnaround before: half the price for what a batch answers in time, the full price for
the rest, and nothing paid twice.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import get_args

from tests.kit.batch_standin import BatchStandin, StandinBatch, StandinPrice
from tests.kit.clock import FastClock
from tests.kit.projects import make_project, model
from tests.kit.steps import CLASSIFY, TEXT
from tierwise.engine import Engine
from tierwise.ledger.batches import ItemState
from tierwise.project import Project
from tierwise.records import Attempt, Batch, Document
from tierwise.steps.step import Step

SPEED = 5.0  # of polls, not of deadlines
NEVER_S = 1e9
LABELS = (("billing", "delivery"), ("delivery", "thanks"), ("complaint", "delivery"))
BATCH = "    batch: {api: openai, discount: 0.5, expected_minutes: 0.5}\n"
RULES = "version: 1\nroutes:\n  - {name: default, try: [small]}\n"
GOOD = json.dumps({"evidence": "has not arrived", "label": "delivery"})


@dataclass(frozen=True)
class Result:
    """One run: whether it met its deadline, with the seconds that were left, and its attempts."""

    seconds_left: float
    accepted: bool
    attempts: list[Attempt]

    @property
    def paid(self) -> Decimal:
        """USD of all attempts, late answers included."""
        return sum(
            (attempt.cost or Decimal(0) for attempt in self.attempts), Decimal(0)
        )

    def best(self, hung: set[str]) -> Decimal:
        """USD if each turnaround had been known before: see the page's head.

        `hung` are the calls that a batch did not answer in time.
        """
        total = Decimal(0)
        for attempt in self.attempts:
            cost = attempt.cost or Decimal(0)
            at_half = cost if attempt.transport == "batch" else cost / 2
            is_hung = attempt.call_hash in hung
            if is_hung and attempt.transport == "batch":
                continue  # its late answer, which nobody would have paid
            total += 2 * at_half if is_hung else at_half
        return total


def turnaround(
    seed: int, mean_s: float, hanging: float
) -> Callable[[StandinBatch], float]:
    """Return the function that draws how long a batch takes."""
    draws = random.Random(seed)
    lock = threading.Lock()

    def draw(_: StandinBatch) -> float:
        with lock:
            if draws.random() < hanging:
                return NEVER_S
            return draws.expovariate(1 / mean_s)

    return draw


def one_run(engine: Engine, number: int, documents: int, within_s: float) -> Result:
    """Take some documents of their own through three steps before a deadline."""
    deadline = time.time() + within_s
    run = engine.start_run(
        f"run {number}", budget_usd=Decimal(10), deadline=deadline, transport=None
    )
    batch = Batch(
        tuple(
            Document(
                id=f"{number}-{place}",
                text=f"{TEXT} Number {place} of run {number}.",
                sensitivity="internal",
            )
            for place in range(documents)
        )
    )
    names = [f"step{place}" for place in range(len(LABELS))]
    for name in names:  # as a flow that maps its steps does
        run.steps.note(name)
    for name, labels in zip(names, LABELS, strict=True):
        step = Step(
            name=name,
            returns=CLASSIFY.returns,
            prompt="classify",
            checks=CLASSIFY.checks,
            choices=CLASSIFY.choices,
        )
        given = {"labels": list(labels), "descriptions": {}}
        batch = engine.run_batch(run, step, batch, given)
    left = deadline - time.time()
    engine.finish_run(run, "completed")
    accepted = all(
        outcome.status == "accepted"
        for document in batch.load()
        for outcome in document.outcomes.values()
    )
    return Result(left, accepted, list(engine.ledger.runs.attempts(run.id)))


def main() -> None:
    """Run all, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--documents", type=int, default=5, help="of each run")
    parser.add_argument("--mean-s", type=float, default=20.0, help="of a batch")
    parser.add_argument("--hanging", type=float, default=0.15, help="share of batches")
    parser.add_argument("--within-s", type=float, nargs=2, default=(280.0, 420.0))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draws = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, BatchStandin() as standin:
        standin.prices["small"] = StandinPrice(input=1, output=2)
        standin.turnaround_s = turnaround(options.seed, options.mean_s, options.hanging)
        standin.answer(GOOD)
        entry = model("small", standin.url) + BATCH
        root = make_project(Path(folder), entry, rules=RULES)
        withins = [draws.uniform(*options.within_s) for _ in range(options.runs)]
        with (
            Engine(Project(root), {}, FastClock(SPEED)) as engine,
            ThreadPoolExecutor(options.runs) as threads,
        ):
            futures = [
                threads.submit(one_run, engine, number, options.documents, within_s)
                for number, within_s in enumerate(withins)
            ]
            results = [future.result() for future in futures]
            sent = engine.ledger.batches.newest(100_000)
            hung = {
                item.call_hash
                for row in sent
                if row.state != "ended"
                for item in engine.ledger.batches.items(row.id, get_args(ItemState))
            }
        billed = standin.billed / 1_000_000
    describe(results, billed, [row.state for row in sent], hung)


def describe(
    results: list[Result], billed: Decimal, states: list[str], hung: set[str]
) -> None:
    """Print the figures, and fail where a deadline was missed or a bill is wrong."""
    met = [result for result in results if result.seconds_left >= 0]
    paid = sum((result.paid for result in results), Decimal(0))
    best = sum((result.best(hung) for result in results), Decimal(0))
    attempts = [attempt for result in results for attempt in result.attempts]
    in_batches = sum(attempt.transport == "batch" for attempt in attempts)
    least = min(result.seconds_left for result in results)
    counts = {state: states.count(state) for state in sorted(set(states))}
    print(
        f"deadlines met: {len(met)} of {len(results)}, the closest with {least:.0f} s"
    )
    print(
        f"calls: {len(attempts):,}, of which in batches {in_batches:,}; "
        f"their batch hung: {len(hung):,}"
    )
    print(f"batches by their end: {counts}")
    print(f"paid {paid:.6f} USD, best possible {best:.6f} USD: {paid / best:.3f}")
    print(f"invoice {billed:.6f} USD")
    assert all(result.accepted for result in results)
    assert len(met) == len(results)
    assert paid == billed, (paid, billed)


if __name__ == "__main__":
    main()
