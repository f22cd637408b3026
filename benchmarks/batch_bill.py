"""The bill of a run in provider batches beside the same run online, with escalations and repairs.

    python -m benchmarks.batch_bill --documents 1000

A stand-in on a real socket answers both, and writes the invoice: cached reads and writes included.
Every fifth document escalates to the large model, and every twentieth answer is repaired once. The
results have to be the same bytes, and the ledger's sum the invoice to the micro-dollar.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tests.kit.batch_standin import BatchStandin, StandinPrice
from tests.kit.clock import FastClock
from tests.kit.projects import make_project, model
from tests.kit.standin import Request
from tests.kit.steps import CLASSIFY, TEXT
from tierwise.engine import Engine
from tierwise.policy.transport import TransportSetting
from tierwise.project import Project
from tierwise.records import Attempt, Batch, Document
from tierwise.steps.step import Step

SPEED = 20.0  # of the waits for batches
ESCALATED_EVERY = 5  # documents
REPAIRED_EVERY = 20
LABELS = (("billing", "delivery"), ("delivery", "thanks"), ("complaint", "delivery"))
PRICES = {
    "small": StandinPrice(input=1, output=2, cached=0.25, cache_write=1.25),
    "large": StandinPrice(input=10, output=30, cached=2.5, cache_write=12.5),
}
BATCH = "    batch: {api: openai, discount: 0.5}\n"
RULES = """
version: 1
routes:
  - {name: default, try: [small, large]}
"""


@dataclass(frozen=True)
class Bill:
    """One run: its attempts, its results, and the invoice in micro-dollars."""

    attempts: list[Attempt]
    results: Path
    invoice: Decimal
    seconds: float

    @property
    def on_record(self) -> Decimal:
        """Micro-dollars by the ledger."""
        costs = [attempt.cost or Decimal(0) for attempt in self.attempts]
        return sum(costs, Decimal(0)) * 1_000_000


def answer(request: Request) -> str:
    """Answer by the document's number alone, so that both runs get the same."""
    number = int(re.search(r"Number (\d+)\.", json.dumps(request.body))[1])  # type: ignore[index]
    messages = request.body["messages"]
    is_first = not any(message["role"] == "assistant" for message in messages)
    if number % REPAIRED_EVERY == 1 and is_first:
        return '{"evidence": "has not arri'  # cut short, so that it is repaired
    is_wrong = number % ESCALATED_EVERY == 0 and request.model.endswith("small")
    label = "weather" if is_wrong else "delivery"
    return json.dumps({"evidence": "has not arrived", "label": label})


def price(name: str) -> str:
    """Return a model's price as the catalog has it."""
    of_model = PRICES[name]
    return (
        f"{{input: {of_model.input}, output: {of_model.output}, "
        f"cached_input: {of_model.cached}, cache_write: {of_model.cache_write}, "
        "source: test, date: 2026-11-01}"
    )


def run(
    folder: Path, documents: int, transport: TransportSetting, speed: float
) -> Bill:
    """Take the documents through three steps."""
    with BatchStandin() as standin:
        standin.prices.update(PRICES)
        standin.caches_prefixes = True
        standin.answer(answer)
        entries = [
            model(name, standin.url, strength=10 * place, price=price(name)).replace(
                "timeout_s: 20", "timeout_s: 120\n    concurrency: 20"
            )
            + BATCH
            for place, name in enumerate(PRICES, start=1)
        ]
        root = make_project(folder, *entries, rules=RULES)
        batch = Batch(
            tuple(
                Document(
                    id=f"{number:06}",
                    text=f"{TEXT} Number {number}.",
                    sensitivity="internal",
                )
                for number in range(documents)
            )
        )
        began = time.monotonic()
        with Engine(Project(root), {}, FastClock(speed)) as engine:
            context = engine.start_run(
                "bill", budget_usd=Decimal(1000), transport=transport
            )
            for number, labels in enumerate(LABELS):
                step = Step(
                    name=f"step{number}",
                    returns=CLASSIFY.returns,
                    prompt="classify",
                    checks=CLASSIFY.checks,
                    choices=CLASSIFY.choices,
                )
                given = {"labels": list(labels), "descriptions": {}}
                batch = engine.run_batch(context, step, batch, given)
            engine.finish_run(context, "completed")
            results = engine.write_documents([batch], Path("out"), keep=False)
            attempts = list(engine.ledger.runs.attempts(context.id))
        seconds = time.monotonic() - began
        return Bill(attempts, results.parent, standin.billed, seconds)


def differing(one: Path, other: Path) -> list[str]:
    """Return the names of the files that are not the same bytes."""
    names = sorted({path.name for folder in (one, other) for path in folder.iterdir()})
    _, unequal, missing = filecmp.cmpfiles(one, other, names, shallow=False)
    return [*unequal, *missing]


def described(name: str, bill: Bill) -> str:
    """Return a bill in one line."""
    kinds = Counter(attempt.kind for attempt in bill.attempts)
    words = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
    return (
        f"{name:<8} {len(bill.attempts):>6,} calls ({words}); invoice "
        f"{bill.invoice / 1_000_000:.6f} USD, ledger {bill.on_record / 1_000_000:.6f} USD, "
        f"{bill.seconds:.0f} s"
    )


def main() -> None:
    """Run both, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--speed", type=float, default=SPEED)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        online = run(Path(folder, "a"), options.documents, "online", options.speed)
        print(described("online", online), flush=True)
        batched = run(Path(folder, "b"), options.documents, "batch", options.speed)
        print(described("batches", batched))
        cached = sum(
            attempt.usage.cached_tokens
            for attempt in batched.attempts
            if attempt.usage is not None
        )
        files = differing(online.results, batched.results)
        print(f"share of the online bill: {batched.invoice / online.invoice:.3f}")
        print(f"cached tokens in batches: {cached:,}")
        print(f"results that differ: {len(files)}")
        for bill in (online, batched):
            assert bill.on_record == bill.invoice, (bill.on_record, bill.invoice)
        assert not files, files[:5]
        print("the ledger's sums equal the invoices to the micro-dollar")


if __name__ == "__main__":
    main()
