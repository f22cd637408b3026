"""The desk's pages over a large ledger: how long the server takes for each.

    python -m benchmarks.desk_pages build FOLDER [--documents 100000] [--runs 200]
    python -m benchmarks.desk_pages measure FOLDER [--writing 500]

`build` makes a project with a ledger: runs of two steps, with escalations, failed checks, deferred
and confidential documents. `measure` serves its desk as it is after a start, loads each page ten
times and decides about ten items. It prints the first, the median and the slowest time in
milliseconds, as seen by a client on the same machine. With `--writing N` a second process records
N documents a second meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kit.projects import make_project, model
from tierwise.ledger import Ledger, RunInfo
from tierwise.records import (
    Attempt,
    Choice,
    Document,
    Outcome,
    Rejection,
    Reply,
    Route,
    Usage,
    Verdict,
    canonical_hash,
)

if TYPE_CHECKING:
    import httpx

    from tests.kit.desk import Browser

DAY_S = 86_400.0
STEPS = ("classify", "extract")
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "evidence": {"type": "string"}},
    "required": ["label", "evidence"],
}
MODELS = (("small", "local"), ("large", "proprietary"))
TIMES = 10
ROUTE = Route(
    step="classify",
    rule="default",
    models=("small", "large"),
    reason="the cheapest certified model first",
    rejected=(Rejection("huge", "more expensive than small", "cost"),),
    choices=(Choice("small", Decimal("0.0001"), "certified: 97 of 100"),),
    features={"tokens": 120, "language": "en"},
)


def build(folder: Path, documents: int, runs: int) -> None:
    """Make a project whose ledger has this many documents in this many runs."""
    root = folder / "project"
    url = "http://127.0.0.1:1"
    make_project(
        root, model("small", url), model("large", url, tier="proprietary", strength=50)
    )
    began = time.perf_counter()
    with Ledger.open(root=root) as ledger:
        per_run = documents // runs
        for step in STEPS:
            ledger.reviews.ask(f"q-{step}", step, SCHEMA)
        now = time.time()
        for number in range(runs):
            started = now - DAY_S * 60 * (runs - number) / runs
            asyncio.run(record_run(ledger, f"run-{number:04}", started, per_run))
    print(f"built in {time.perf_counter() - began:.0f} s: {root}")


async def record_run(
    ledger: Ledger, run_id: str, started: float, documents: int, *, ends: bool = True
) -> None:
    """Record a run with its documents."""
    info = RunInfo(
        id=run_id,
        flow=("support-inbox", "invoices", "minutes")[hash_of(run_id) % 3],
        policy_hash="p" * 64,
        tierwise_version="0.1.0",
        started_at=started,
        budget_usd=Decimal(5),
        tags={"team": ("claims", "sales")[hash_of(run_id) % 2]},
    )
    ledger.start_run(info)
    for first in range(0, documents, 500):
        many = range(first, min(first + 500, documents))
        await asyncio.gather(
            *(record_document(ledger, run_id, started, number) for number in many)
        )
    if ends:
        ledger.finish_run(run_id, "completed")


async def record_document(
    ledger: Ledger, run_id: str, started: float, number: int
) -> None:
    """Record one document of two steps, some escalated, deferred or confidential."""
    chance = random.Random(f"{run_id} {number}")
    document = Document(
        id=f"inbox/letter-{number:06}.txt",
        text=f"{run_id}: I want my money back for order {number}.",
        sensitivity="confidential" if chance.random() < 0.1 else "internal",
    )
    for step in STEPS:
        is_escalated = chance.random() < 0.15
        is_deferred = chance.random() < 0.03
        models = MODELS if is_escalated else MODELS[:1]
        for position, (name, tier) in enumerate(models):
            passed = position == len(models) - 1 and not is_deferred
            made = attempt_of(document, step, name, tier, started + number, position)
            reply = Reply(
                text='{"label": "refund"}',
                finish_reason="stop",
                usage=made.usage,
                latency_s=0.4,
            )
            await ledger.settle(run_id, made, reply)
            verdicts = (
                Verdict("schema", True),
                Verdict("grounding", passed, "" if passed else "no quote in the text"),
            )
            await ledger.record_verdicts(run_id, made.id, verdicts)
        outcome = Outcome(
            step=step,
            status="deferred" if is_deferred else "accepted",
            value=None
            if is_deferred
            else {"label": "refund", "evidence": "money back"},
            cause="failed_checks" if is_deferred else None,
            reason="no model passed grounding" if is_deferred else "",
            model=models[-1][0],
            sensitivity=document.sensitivity,
            route=replace(ROUTE, step=step),
        )
        await ledger.record_outcome(run_id, document, outcome, f"q-{step}")


def attempt_of(
    document: Document, step: str, name: str, tier: str, at: float, position: int
) -> Attempt:
    """Return an attempt at a document."""
    key = canonical_hash([document.text, step, name])
    return Attempt(
        id=key[:32],
        step=step,
        document_id=document.id,
        document_hash=document.hash,
        model=name,
        tier=tier,
        kind="escalation" if position else "first",
        call_hash=key,
        prompt=f"{step} v1",
        prompt_hash=key,
        policy_hash="p" * 64,
        usage=Usage(700, 50, 20),
        cost=Decimal("0.0001") if tier == "local" else Decimal("0.004"),
        price_date="2026-11-01",
        latency_s=0.4,
        started_at=at,
        finish_reason="stop",
        served_model=f"{name}-1",
    )


def hash_of(text: str) -> int:
    """Return a number that is the same in every process."""
    return int(canonical_hash(text)[:8], 16)


def write(folder: Path, rate: int, seconds: float) -> None:
    """Record documents at a rate in a run of their own, and print the rate that was reached."""
    root = folder / "project"

    async def story(ledger: Ledger) -> None:
        run_id = f"live-{time.time():.0f}"
        await record_run(ledger, run_id, time.time(), 0, ends=False)
        began = time.perf_counter()
        number = 0
        while time.perf_counter() - began < seconds:
            many = range(number, number + rate // 10)
            tasks = (record_document(ledger, run_id, time.time(), n) for n in many)
            await asyncio.gather(*tasks)
            number += len(many)
            due = number / rate - (time.perf_counter() - began)
            await asyncio.sleep(max(0.0, due))
        took = time.perf_counter() - began
        print(f"written: {number / took:.0f} documents a second")
        ledger.finish_run(run_id, "completed")

    with Ledger.open(root=root) as ledger:
        asyncio.run(story(ledger))


def measure(folder: Path, writing: int) -> None:
    """Serve the desk and time its pages."""
    from tests.kit.desk import desk_at
    from tierwise.desk.server import kept_fresh, warm_up

    root = folder / "project"
    with desk_at(root, keep_s=2.0) as desk, kept_fresh(desk.app.state.desk):
        began = time.perf_counter()
        warm_up(desk.app)
        print(f"reading ahead, as at each start: {time.perf_counter() - began:.1f} s")
        browser = desk.signed_in()
        run_id = desk.ledger.runs.newest(1)[0].id
        outcome = next(desk.ledger.runs.outcomes(run_id))
        document = {"id": outcome.document_id}
        pages: dict[str, dict[str, Any]] = {
            "/": {},
            "/?days=90": {},
            "/runs": {},
            f"/runs/{run_id}": {},
            f"/runs/{run_id}/document": {"params": document},
            "/alerts": {},
            "/review": {},
            "/labels": {},
            "/compare": {},
            "/metrics": {},
        }
        writer = None
        if writing:
            command = ["benchmarks.desk_pages", "write", str(folder)]
            rate = ["--writing", str(writing)]
            writer = subprocess.Popen([sys.executable, "-m", *command, *rate])
            time.sleep(5)
        for path, settings in pages.items():
            times = []
            used = []
            for _ in range(TIMES):
                began = time.perf_counter()
                began_cpu = time.process_time()
                answer = browser.get(path, **settings)
                times.append(1000 * (time.perf_counter() - began))
                used.append(1000 * (time.process_time() - began_cpu))
                assert answer.status_code == 200, (path, answer.status_code)
                time.sleep(0.3)
            print_times(path, times, used)
        for what, both in decide(browser).items():
            print_times(what, *both)
        if writer is not None:
            writer.wait()


def print_times(what: str, times: list[float], used: list[float]) -> None:
    """Print the first time, the median and the slowest, and the median of the CPU's time, in ms."""
    median = statistics.median(times)
    figures = f"first {times[0]:6.0f} ms, median {median:6.0f} ms"
    load, _, _ = os.getloadavg()
    slowest = f"slowest {max(times):6.0f} ms"
    cpu = f"CPU {statistics.median(used):4.0f} ms"
    print(f"{what:32} {figures}, {slowest}, {cpu} (load {load:.1f})", flush=True)


def decide(browser: Browser) -> dict[str, tuple[list[float], list[float]]]:
    """Reject a few items one after the other, and take each back."""
    from tests.test_desk_review import first_item, form_of

    kinds = ("an item", "a decision", "an undo")
    found: dict[str, tuple[list[float], list[float]]] = {
        kind: ([], []) for kind in kinds
    }

    def timed(kind: str, load: Callable[[], httpx.Response]) -> httpx.Response:
        began = time.perf_counter()
        began_cpu = time.process_time()
        answer = load()
        times, used = found[kind]
        times.append(1000 * (time.perf_counter() - began))
        used.append(1000 * (time.process_time() - began_cpu))
        return answer

    place = first_item(browser).request.url.raw_path.decode()
    for _ in range(TIMES):
        page = timed("an item", lambda: browser.get(place))
        form = {**form_of(page, "/review/decide"), "word": "reject"}
        done = timed("a decision", partial(browser.post, "/review/decide", form))
        assert done.status_code == 303, done.text
        undo = form_of(browser.get(done.headers["location"]), "/review/undo")
        back = timed("an undo", partial(browser.post, "/review/undo", undo))
        assert back.status_code == 303, back.text
    return found


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["build", "measure", "write"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--writing", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=40)
    arguments = parser.parse_args()
    if arguments.command == "build":
        build(arguments.folder, arguments.documents, arguments.runs)
    elif arguments.command == "write":
        write(arguments.folder, arguments.writing, arguments.seconds)
    else:
        measure(arguments.folder, arguments.writing)


if __name__ == "__main__":
    main()
