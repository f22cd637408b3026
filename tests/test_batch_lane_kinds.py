"""Every kind of call goes in batches: shadows, re-asks, parts, judges; each as it is online."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kit.batch_runs import (
    ONE_ROUTE,
    answer,
    batch_project,
    letters,
    micros,
    opened,
    priced,
)
from tests.kit.batch_standin import BatchStandin, StandinPrice
from tests.kit.standin import Request
from tests.kit.steps import CLASSIFY, LABELS, SUMMARIZE, Summary
from tierwise.cascade import RunContext
from tierwise.engine import Engine
from tierwise.evidence.judge import judge_job
from tierwise.records import Batch, Document
from tierwise.steps.correctness import Rubric

Work = Callable[[Engine, RunContext], Sequence[Any]]


@pytest.fixture
def provider() -> Iterator[BatchStandin]:
    """The stand-in of batch APIs, with prices and answers."""
    with BatchStandin() as standin:
        yield priced(standin)


def both_ways(
    provider: BatchStandin, folder: Path, rules: str, work: Work
) -> tuple[Counter[str], list[set[str]]]:
    """Check that some work in batches has the results of online; return its calls.

    The calls are the number by kind, and the kinds of each batch in the order of sending.
    """
    results = {}
    kinds = {}
    for transport in ("online", "batch"):
        root = batch_project(folder / transport, provider.url, rules=rules)
        catalog = root / "routing_rules" / "catalog.yaml"
        head, large, rest = catalog.read_text().partition("  large:")
        price = provider.prices["large"]
        own_price = f"input: {price.input}, output: {price.output}"
        rest = rest.replace("input: 1, output: 2", own_price, 1)
        catalog.write_text(head + large + rest)
        before = provider.billed
        with opened(root) as engine:
            run = engine.start_run("letters", transport=transport)
            results[transport] = work(engine, run)
            engine.finish_run(run, "completed")
            sent = list(engine.ledger.runs.attempts(run.id))
            kinds[transport] = Counter(attempt.kind for attempt in sent)
            assert {attempt.transport for attempt in sent} == {transport}
            assert micros(engine) == provider.billed - before
            assert engine.ledger.batches.open_batches() == []
            kind_of = {attempt.call_hash: attempt.kind for attempt in sent}
    assert results["batch"] == results["online"]
    assert kinds["batch"] == kinds["online"]
    assert set(provider.billed_items().values()) == {1}
    of_batches = [
        {kind_of[item.custom_id] for item in batch.items}
        for batch in provider.batches.values()
    ]
    return kinds["batch"], of_batches


def values(documents: Sequence[Document], step: str) -> list[Any]:
    return [
        (document.outcomes[step].status, document.outcomes[step].value)
        for document in documents
    ]


def classified(engine: Engine, run: RunContext) -> Sequence[Any]:
    done = engine.run_batch(run, CLASSIFY, Batch(letters(4)), LABELS)
    return values(done.load(), "classify")


def test_shadows_join_a_later_batch(provider: BatchStandin, tmp_path: Path) -> None:
    hosted = (
        "guards:\n  - {name: hosted, when: {step: classify}, allow_tiers: [clarifai]}"
    )
    rules = ONE_ROUTE.replace("guards:", hosted)
    rules = rules.replace("try: [small, large]", "try: [large]")
    rules += "shadow: {share: 1, money: 1}\n"
    provider.prices["large"] = StandinPrice(input=10, output=20)
    kinds, of_batches = both_ways(provider, tmp_path, rules, classified)
    assert kinds == {"first": 4, "shadow": 4}
    assert of_batches == [{"first"}, {"shadow"}]


def test_reasks_and_repairs_join_a_later_batch(
    provider: BatchStandin, tmp_path: Path
) -> None:
    def invented_at_first(request: Request) -> str:
        """The second letter is malformed at first, and the others quote what is not there."""
        messages = request.body["messages"]
        if len(messages) > 2:
            question = replace(request, body={**request.body, "messages": messages[:2]})
            return answer(question)
        if "number 1 of" in request.document:
            return "no JSON"
        return json.dumps({"evidence": "invented", "label": "billing"})

    provider.answer(invented_at_first)
    rules = ONE_ROUTE + "escalate: {reask: 1}\n"
    kinds, of_batches = both_ways(provider, tmp_path, rules, classified)
    assert kinds == {"first": 4, "reask": 3, "repair": 1}
    assert of_batches == [{"first"}, {"reask", "repair"}]


def test_the_parts_of_a_document_share_a_batch(
    provider: BatchStandin, tmp_path: Path
) -> None:
    def joined(parts: Sequence[Any]) -> Summary:
        return Summary(summary=" ".join(part.summary for part in parts))

    step = replace(SUMMARIZE, splits=None, gathers=joined)
    sentences = [f"Letter {number} asks about a desk." for number in range(60)]
    long = Document(id="long", text="\n\n".join(sentences), sensitivity="internal")

    def summarized(engine: Engine, run: RunContext) -> Sequence[Any]:
        parameters = {"max_words": 400, "part_tokens": 100}
        done = engine.run_batch(run, step, Batch((long,)), parameters)
        return values(done.load(), "summarize")

    kinds, of_batches = both_ways(provider, tmp_path, ONE_ROUTE, summarized)
    assert kinds["first"] > 3
    assert of_batches == [{"first"}]


def test_a_judge_is_asked_in_a_batch(provider: BatchStandin, tmp_path: Path) -> None:
    def judged_or_answered(request: Request) -> str:
        properties = (request.schema or {}).get("properties") or {}
        if "criterion_1" in properties:
            return json.dumps({"criterion_1": {"reason": "its words", "met": True}})
        return answer(request)

    provider.answer(judged_or_answered)
    rubric = Rubric(criteria=("The label fits.",))

    def judged(engine: Engine, run: RunContext) -> Sequence[Any]:
        done = engine.run_batch(run, CLASSIFY, Batch(letters(3)), LABELS)
        job = judge_job(engine, run, CLASSIFY, rubric, "large")
        judgements = engine.run_job(job, done)
        return values(judgements.load(), "classify")

    kinds, of_batches = both_ways(provider, tmp_path, ONE_ROUTE, judged)
    assert kinds == {"first": 3, "judge": 3}
    assert of_batches == [{"first"}, {"judge"}]
