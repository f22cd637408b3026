"""`order: depth`: a batch goes through all steps before new batches begin."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prefect import flow, task
from pydantic import BaseModel

from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal
from tierwise import (
    RunSummary,
    read_documents,
    recorded_run,
    step,
    task_runner,
    write_documents,
)
from tierwise.cascade.job import RunContext, rank_of
from tierwise.cascade.permits import Held, Permits
from tierwise.documents import iter_documents
from tierwise.errors import ConfigError, Misuse
from tierwise.orchestrate import documents as reading
from tierwise.orchestrate import mapped_batches, task_runners
from tierwise.orchestrate.mapped_batches import READING_THREAD
from tierwise.orchestrate.ready_queue import AHEAD
from tierwise.policy.budget import RunBudget
from tierwise.policy.router import Policy
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome

STEPS = ("first", "second", "third")
BATCH = 20
DOCUMENTS = 6 * BATCH
AT_ONCE = 2  # batches of a step, in place of BATCHES
PATIENCE_S = 60.0
PROMPT = """---
step: {step}
version: 1
max_output_tokens: 60
---
{{% block system %}}The {step} step. Answer with a JSON object.{{% endblock %}}
{{% block user %}}{{{{ document }}}}{{% endblock %}}
"""


class Label(BaseModel):
    """A label."""

    label: str


first, second, third = (step(name, returns=Label) for name in STEPS)


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(json.dumps({"label": "yes"}))
        yield server


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runners, "BATCHES", AT_ONCE)


@pytest.fixture
def project(tmp_path: Path, provider: Standin, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three steps over rows, all on one model."""
    root = make_three_steps(tmp_path / "project", provider, ("small",) * 3)
    monkeypatch.chdir(root)
    return root


def make_three_steps(root: Path, provider: Standin, models: tuple[str, ...]) -> Path:
    entries = [
        model(name, provider.url) + "    concurrency: 8\n"
        for name in dict.fromkeys(models)
    ]
    routes = [
        f"  - {{name: {name}, when: {{step: [{name}]}}, try: [{served}]}}\n"
        for name, served in zip(STEPS, models, strict=True)
    ]
    routes.append(f"  - {{name: default, try: [{models[0]}]}}\n")
    make_project(root, *entries, rules=f"version: 1\nroutes:\n{''.join(routes)}")
    for name in STEPS:
        (root / "prompts" / f"{name}.md.j2").write_text(PROMPT.format(step=name))
    write_rows(root, DOCUMENTS)
    return root


def write_rows(root: Path, number: int, word: str = "Parcel") -> None:
    rows = [
        json.dumps({"id": f"row-{row:03}", "text": f"{word} {row:03} is late."})
        for row in range(number)
    ]
    (root / "rows.jsonl").write_text("\n".join(rows))


def three_steps(rows: Any) -> Any:
    return third.map(second.map(first.map(rows)))


def run_flow(
    use: Callable[[Any], Any] = three_steps, *, batch_size: int = BATCH, **settings: Any
) -> RunSummary:
    @flow(name="three-steps", task_runner=task_runner())
    def three_steps_flow() -> RunSummary:
        with recorded_run(**settings) as run:
            rows = read_documents(
                Path("rows.jsonl"), sensitivity="internal", batch_size=batch_size
            )
            done = use(rows)
            if done is not None:
                write_documents(done, Path("out"))
        return run.summary()

    return three_steps_flow()


def finished(root: Path) -> int:
    """The number of documents that went through all steps."""
    lines = (root / "out" / "outcomes.jsonl").read_text().splitlines()
    outcomes = [json.loads(line)["outcomes"] for line in lines]
    return sum(one["third"]["status"] == "accepted" for one in outcomes)


def steps_of(requests: list[Request]) -> list[str]:
    bodies = [str(request.body) for request in requests]
    return [
        next(name for name in STEPS if f"The {name} step" in body) for body in bodies
    ]


# ---- the order of calls


@pytest.mark.parametrize(
    "models", [("small",) * 3, STEPS], ids=["one model", "a model for each step"]
)
def test_half_the_money_finishes_nearly_half_of_the_documents(
    prefect_server: str,
    tmp_path: Path,
    provider: Standin,
    monkeypatch: pytest.MonkeyPatch,
    models: tuple[str, ...],
) -> None:
    """In the order `breadth`, it finishes none."""
    root = make_three_steps(tmp_path / "project", provider, models)
    monkeypatch.chdir(root)
    write_rows(root, 10, "Letter")  # as long as the rows
    ten = run_flow().run.cost
    assert ten is not None
    half = ten / 10 * DOCUMENTS / 2
    write_rows(root, DOCUMENTS)
    summary = run_flow(budget_usd=half)
    assert summary.run.cost is not None
    assert summary.run.cost <= half
    assert finished(root) >= 0.4 * DOCUMENTS


def test_whenever_a_run_is_ended_few_documents_are_half_done(
    prefect_server: str, few_threads: None, project: Path, provider: Standin
) -> None:
    """At most AHEAD times as many batches as run at once, and some of the start."""
    size = 2
    documents = 12 * size
    write_rows(project, documents)
    run_flow(batch_size=size)
    begun = 0
    done = 0
    most = 0
    for name in steps_of(provider.requests):
        begun += name == "first"
        done += name == "third"
        most = max(most, begun - done)
    assert (begun, done) == (documents, documents)
    assert most <= (AHEAD + 1) * AT_ONCE * size


def test_calls_rank_by_their_step_then_by_their_batch() -> None:
    def batch(first: int, *steps: str, unreadable: bool = False) -> Batch:
        outcomes = {name: Outcome(step=name, status="accepted") for name in steps}
        readable = Document(id="1", text="one", outcomes=outcomes)
        if not unreadable:
            return Batch((readable,), first=first)
        other = Outcome(step="read", status="deferred", reason="it is empty")
        outcomes = {"read": other, **outcomes}
        return Batch(
            (readable, Document(id="2", text="", outcomes=outcomes)), first=first
        )

    in_order = [
        batch(51, "first", "second"),
        batch(1, "first"),
        batch(101, "first"),
        batch(1, unreadable=True),
        batch(51),
    ]
    policy = cast("Policy", None)
    depth = RunContext(id="1", policy=policy, budget=RunBudget())
    ranks = [rank_of(depth, one) for one in in_order]
    assert sorted(ranks) == ranks
    assert len(set(ranks)) == len(ranks)
    breadth = replace(depth, order="breadth")
    assert len({rank_of(breadth, one) for one in in_order}) == 1


def test_breadth_asks_all_documents_step_by_step(
    prefect_server: str, project: Path, provider: Standin
) -> None:
    """By a parameter or by the project's setting, which the parameter overrides."""
    run_flow(order="breadth")
    half = len(provider.requests) // 2
    assert "third" not in steps_of(provider.requests)[:half]
    (project / "pyproject.toml").write_text('[tool.tierwise]\norder = "breadth"\n')
    assert Project(project).settings.order == "breadth"
    (project / "pyproject.toml").write_text('[tool.tierwise]\norder = "deep"\n')
    with pytest.raises(ConfigError, match="order"):
        _ = Project(project).settings
    (project / "pyproject.toml").unlink()
    with pytest.raises(Misuse, match="order is 'deep'; write depth or breadth"):
        run_flow(order="deep")


def test_a_step_on_a_slow_model_keeps_no_thread_from_other_steps(
    prefect_server: str,
    few_threads: None,
    tmp_path: Path,
    provider: Standin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second step answers only once more batches are through the first than run at once."""
    root = make_three_steps(tmp_path / "project", provider, STEPS)
    monkeypatch.chdir(root)
    write_rows(root, 2 * AT_ONCE)
    asked: Counter[str] = Counter()
    enough = threading.Event()

    def answer(request: Request) -> str:
        [name] = steps_of([request])
        asked[name] += 1
        if asked["first"] > AT_ONCE:
            enough.set()
        if name == "second" and not enough.wait(PATIENCE_S):
            return "no document of another batch was asked meanwhile"
        return json.dumps({"label": "yes"})

    provider.answer(answer)
    summary = run_flow(batch_size=1)
    assert (summary.run.documents, summary.run.deferred) == (2 * AT_ONCE, 0)


# ---- reading and writing meanwhile


def test_results_are_written_while_later_documents_are_read(
    prefect_server: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_written() -> bool:
        return any((project / "out").glob("*row-000.md"))

    def slow_documents(*args: Any, **kwargs: Any) -> Iterator[Document]:
        for number, document in enumerate(iter_documents(*args, **kwargs)):
            if number == 3 * BATCH:
                wait_until(is_written)
            yield document

    monkeypatch.setattr(reading, "iter_documents", slow_documents)
    summary = run_flow()
    assert (summary.run.documents, summary.run.deferred) == (DOCUMENTS, 0)
    assert finished(project) == DOCUMENTS


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_reading_ahead_is_bounded(
    prefect_server: str,
    project: Path,
    provider: Standin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the models take, and all documents are read in the end."""
    monkeypatch.setattr(mapped_batches, "READ_AHEAD", 3)
    documents = 20
    write_rows(project, documents)
    most = 0
    read = 0
    released = threading.Event()

    def counted(*args: Any, **kwargs: Any) -> Iterator[Document]:
        nonlocal read
        for document in iter_documents(*args, **kwargs):
            read += 1
            yield document

    def answer(request: Request) -> str:
        nonlocal most
        if not released.is_set():
            wait_until(lambda: read >= 3)
            time.sleep(0.5)  # it could read all of them
            most = max(most, read)
            released.set()
        return json.dumps({"label": "yes"})

    monkeypatch.setattr(reading, "iter_documents", counted)
    provider.answer(answer)
    summary = run_flow(first.map, batch_size=1)
    assert (summary.run.documents, summary.run.deferred) == (documents, 0)
    assert (
        most <= 5
    )  # one more is in the reader's hands, and one may have been answered
    assert read == documents


def test_an_error_of_reading_ends_the_run(
    prefect_server: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing waits for the steps."""

    def broken(*args: Any, **kwargs: Any) -> Iterator[Document]:
        for number, document in enumerate(iter_documents(*args, **kwargs)):
            if number == 2 * BATCH:
                raise Misuse("the disk is gone")
            yield document

    monkeypatch.setattr(reading, "iter_documents", broken)
    with pytest.raises(Misuse, match="the disk is gone"):
        run_flow()
    with pytest.raises(Misuse, match="the disk is gone"):
        run_flow(lambda rows: first.map(rows) and None)


def test_nothing_is_recorded_after_the_end_of_a_run(
    prefect_server: str,
    project: Path,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file may take longer to read than the run; the seal of its audit trail stays valid."""
    is_over = threading.Event()

    def slow_documents(*args: Any, **kwargs: Any) -> Iterator[Document]:
        for number, document in enumerate(iter_documents(*args, **kwargs)):
            if number == BATCH + 1:
                is_over.wait(PATIENCE_S)
            unreadable = Outcome(step="read", status="deferred", reason="it is empty")
            yield document.with_outcome(unreadable)

    def fail_at_once(rows: Any) -> None:
        futures = iter(first.map(rows))
        next(futures).result()
        raise Misuse("the flow itself fails")

    monkeypatch.setattr(reading, "iter_documents", slow_documents)
    with pytest.raises(Misuse, match="the flow itself fails"):
        run_flow(fail_at_once)
    is_over.set()
    for thread in threading.enumerate():
        if thread.name == READING_THREAD:
            thread.join(PATIENCE_S)
    assert terminal("audit", "verify", cwd=project).code == 0


@pytest.mark.parametrize("order", ["depth", "breadth"])
def test_futures_can_be_used_as_a_list(
    prefect_server: str, project: Path, order: str
) -> None:
    seen: dict[str, Any] = {}

    def use(rows: Any) -> Any:
        firsts = first.map(rows)
        assert firsts
        seen["length"] = len(firsts)
        seen["labels"] = [batch.label for batch in firsts.result()][-1]
        nothing: list[Any] = []
        seen["slice"] = len(firsts[1:3]) + len(firsts + firsts) + len(nothing + firsts)
        seen["same"] = firsts[0] in firsts and list(firsts) == firsts
        seen["index"] = firsts.index(firsts[2])
        firsts.wait()
        # All are collected between two steps, which is breadth in any order.
        collected = [future.result() for future in firsts]
        seconds = second.map(collected)
        return third.map(seconds, wait_for=seconds)

    summary = run_flow(use, order=order)
    assert (summary.run.documents, summary.run.deferred) == (DOCUMENTS, 0)
    assert seen == {
        "length": 6,
        "labels": f"documents {DOCUMENTS - BATCH + 1}-{DOCUMENTS} of {DOCUMENTS}",
        "slice": 2 + 12 + 6,
        "same": True,
        "index": 2,
    }


# ---- threads


@task
def double(number: int) -> int:
    return 2 * number


@task
def double_inside(number: int) -> int:
    return double.submit(number).result()


@task
def add(one: int, other: int) -> int:
    return one + other


@pytest.mark.parametrize("order", ["depth", "breadth"])
def test_no_task_run_waits_for_ever(
    prefect_server: str, few_threads: None, project: Path, order: Any
) -> None:
    """With more of each kind than threads: chains, joins of the first and the last, nested ones."""
    number = 5 * AT_ONCE

    @flow(task_runner=task_runner())
    def arithmetic() -> tuple[list[int], list[int]]:
        with recorded_run(order=order):
            doubled = double.map(range(number))
            again = double.map(doubled, wait_for=[doubled[-1]])
            joined = add.map(again, list(again)[::-1])
            nested = double_inside.map(range(3 * AT_ONCE))
            return joined.result(timeout=120), nested.result(timeout=120)

    joined, nested = arithmetic()
    assert joined == [4 * (number - 1)] * number
    assert nested == [2 * one for one in range(3 * AT_ONCE)]


def test_permits_go_to_the_lowest_rank_and_none_is_lost() -> None:
    async def ask() -> list[str]:
        permits = Permits(1)
        order: list[str] = []

        async def use(name: str, rank: tuple[int, int]) -> None:
            async with Held(rank, permits):
                order.append(name)
                await asyncio.sleep(0)

        async with Held((0, 0), permits):
            ranks = {"new": (0, 9), "old": (0, 1), "late": (0, 9), "next": (-1, 9)}
            tasks = [
                asyncio.create_task(use(name, rank)) for name, rank in ranks.items()
            ]
            cancelled = asyncio.create_task(use("cancelled", (-2, 0)))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        # cancelled at the very moment when its turn comes
        await permits.acquire()
        waiting = asyncio.create_task(use("never", (0, 0)))
        await asyncio.sleep(0)
        permits.release()
        waiting.cancel()
        await asyncio.sleep(0)
        permits.total = 2
        async with Held((0, 0), permits), Held((0, 0), permits):
            return order

    order = asyncio.run(asyncio.wait_for(ask(), PATIENCE_S))
    assert order == ["next", "old", "new", "late"]
