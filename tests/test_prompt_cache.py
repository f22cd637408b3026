"""Prompt caching: calls with the same beginning, the mark for the cache, and when it pays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import Fault, Request, Standin, status
from tests.kit.steps import CLASSIFY, GOOD, TEXT
from tierwise.cascade.permits import Held, Permits
from tierwise.engine import Engine
from tierwise.policy.catalog import Model
from tierwise.policy.prices import PriceBand
from tierwise.policy.prompt_cache import break_even_reads, is_cached, write_pays
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome

SOLD = "{input: 2, output: 10, cached_input: 0.1, cache_write: 2.5, "
SOLD += "source: a test, date: 2026-11-28}"
NOT_SOLD = "{input: 2, output: 10, source: a test, date: 2026-11-28}"
# More than 1,024 tokens of system message.
MANY_LABELS = {
    "labels": ["billing", "delivery", *(f"department {n}" for n in range(600))],
    "descriptions": {},
}
FEW_LABELS = {"labels": ["billing", "delivery"], "descriptions": {}}

# ---- the decision

usd = st.decimals(min_value="0.01", max_value=100, places=2)


@given(usd, usd, usd, st.integers(1, 50))
def test_a_write_pays_from_the_break_even_on(
    read: Decimal, saving: Decimal, surcharge: Decimal, reads: int
) -> None:
    """Beside an invoice: one write and some reads, against as many calls without a cache."""
    plain = read + saving
    write = plain + surcharge
    band = PriceBand(input=plain, output=plain, cached_input=read, cache_write=write)
    least = break_even_reads(band)
    assert least is not None
    with_cache = write + reads * read
    without = (1 + reads) * plain
    assert (reads >= least) == (with_cache <= without)


def priced(price: Any) -> Model:
    return Model.model_validate(
        {
            "name": "m",
            "tier": "t",
            "litellm_params": {"model": "anthropic/m"},
            "context_tokens": 100_000,
            "max_output_tokens": 1000,
            "strength": 1,
            "price": price,
        }
    )


SOURCE = {"source": "a test", "date": "2026-11-28"}


def test_a_cache_pays_only_where_reads_are_cheaper_and_prompts_are_long() -> None:
    sold = priced({"input": 2, "output": 1, "cached_input": "0.1", **SOURCE})
    assert is_cached(sold, 1024)
    assert not is_cached(sold, 1023)
    assert write_pays(sold, 1024, 1)
    assert not write_pays(sold, 1024, 0)
    for price in (
        "unknown",
        {"input": 2, "output": 1, **SOURCE},
        {"input": 2, "output": 1, "cached_input": 2, **SOURCE},
        {"input": 0, "output": 0, "cached_input": 0, **SOURCE},
    ):
        assert not is_cached(priced(price), 5000)
        assert not write_pays(priced(price), 5000, 100)
    dear = {"input": 2, "output": 1, "cached_input": 1, "cache_write": 6, **SOURCE}
    assert not write_pays(priced(dear), 5000, 3)
    assert write_pays(priced(dear), 5000, 4)


# ---- calls


@contextmanager
def project_with(
    tmp_path: Path, url: str, price: str, litellm_model: str
) -> Iterator[Engine]:
    entry = model("small", url, tier="proprietary", price=price, context=100_000)
    entry = entry.replace("openai/small", litellm_model)
    if litellm_model.startswith("anthropic"):
        entry = entry.replace("/v1", "")
    rules = RULES.replace("[small, large]", "[small]")
    root = make_project(tmp_path, entry, rules=rules)
    with Engine(Project(root), env={}) as engine:
        yield engine


def ask(
    engine: Engine, numbers: range, labels: dict[str, Any] = MANY_LABELS
) -> list[Outcome]:
    documents = tuple(
        Document(id=str(n), text=f"{TEXT} Number {n}.", sensitivity="internal")
        for n in numbers
    )
    run = engine.start_run("test")
    done = engine.run_batch(run, CLASSIFY, Batch(documents), labels).load()
    return [document.outcomes["classify"] for document in done]


def answers(server: Standin, counts: list[int] | None = None) -> None:
    """Good answers, to prompts as long as they are.

    `counts` is filled with the requests that had come when each was answered.
    """

    def answer(request: Request) -> str | Fault:
        if counts is not None:
            counts.append(server.count)
        if request.path.endswith("/v1/messages"):
            # The stand-in does not count Anthropic's system message.
            return Fault(text=GOOD, usage={"input_tokens": 3200})
        return GOOD

    server.answer(answer)


ANTHROPIC = "anthropic/claude-sonnet-5-5"


@pytest.mark.parametrize("litellm_model", ["openai/small", ANTHROPIC])
def test_one_call_goes_first_where_the_provider_sells_cached_prompts(
    tmp_path: Path, standin: Standin, litellm_model: str
) -> None:
    counts: list[int] = []
    answers(standin, counts)
    with project_with(tmp_path, standin.url, SOLD, litellm_model) as engine:
        standin.faults([Fault(delay_s=0.3)])
        outcomes = ask(engine, range(5))
    assert [outcome.reason for outcome in outcomes] == [""] * 5
    assert counts[0] == 1
    assert standin.count == 5


@pytest.mark.parametrize(
    ("price", "labels"), [(NOT_SOLD, MANY_LABELS), (SOLD, FEW_LABELS)]
)
def test_calls_do_not_wait_where_nothing_is_cached(
    tmp_path: Path, standin: Standin, price: str, labels: dict[str, Any]
) -> None:
    """Every one of them has to be under way before any is answered."""
    answers(standin)
    standin.hold(5)
    with project_with(tmp_path, standin.url, price, "openai/small") as engine:
        outcomes = ask(engine, range(5), labels)
    assert {outcome.status for outcome in outcomes} == {"accepted"}


def test_the_others_wait_no_longer_for_a_first_call_that_fails(
    tmp_path: Path, standin: Standin
) -> None:
    answers(standin)
    with project_with(tmp_path, standin.url, SOLD, "openai/small") as engine:
        standin.faults([status(400, "no")])
        outcomes = ask(engine, range(4))
    statuses = [outcome.status for outcome in outcomes]
    assert sorted(statuses) == ["accepted"] * 3 + ["deferred"]


def marks(request: Request) -> int:
    """The blocks of a request that its provider is to cache."""
    system = request.body.get("system")
    blocks = list(system) if isinstance(system, list) else []
    for message in request.body["messages"]:
        if isinstance(message["content"], list):
            blocks += message["content"]
    return sum("cache_control" in block for block in blocks)


def test_anthropics_cache_is_marked_where_the_reads_pay_for_the_write(
    tmp_path: Path, standin: Standin
) -> None:
    answers(standin)
    with project_with(tmp_path, standin.url, SOLD, ANTHROPIC) as engine:
        ask(engine, range(1))
        assert [marks(request) for request in standin.requests] == [0]
        ask(engine, range(1, 4))
    assert [marks(request) for request in standin.requests] == [0, 1, 1, 1]
    # The document is behind the mark.
    [block] = [
        block for block in standin.last.body["system"] if "cache_control" in block
    ]
    assert block["cache_control"] == {"type": "ephemeral"}
    assert TEXT not in block["text"]


@pytest.mark.parametrize(
    ("price", "litellm_model", "labels"),
    [
        (NOT_SOLD, ANTHROPIC, MANY_LABELS),
        (SOLD, ANTHROPIC, FEW_LABELS),
        (SOLD, "openai/small", MANY_LABELS),
    ],
)
def test_no_mark_where_it_does_not_pay_or_the_provider_needs_none(
    tmp_path: Path,
    standin: Standin,
    price: str,
    litellm_model: str,
    labels: dict[str, Any],
) -> None:
    answers(standin)
    with project_with(tmp_path, standin.url, price, litellm_model) as engine:
        ask(engine, range(3), labels)
    assert [marks(request) for request in standin.requests] == [0, 0, 0]


def test_a_mark_changes_no_calls_identity(tmp_path: Path, standin: Standin) -> None:
    """What was paid without a mark is not paid again with one."""
    answers(standin)
    with project_with(tmp_path, standin.url, SOLD, ANTHROPIC) as engine:
        ask(engine, range(1))
        ask(engine, range(3))
    assert standin.count == 3


# ---- the order of calls that wait


def test_permits_stay_with_a_group_and_no_other_waits_for_ever() -> None:
    async def use() -> list[str]:
        permits = Permits(1)
        order: list[str] = []

        async def one(name: str, rank: tuple[int, int], group: str) -> None:
            async with Held(rank, permits, group=group):
                order.append(name)

        async with Held((0, 0), permits, group="a"):
            calls = [("b", (0, 0), "b"), ("none", (0, 1), "")]
            calls += [(f"a{n}", (0, 2 + n), "a") for n in range(40)]
            tasks = [asyncio.create_task(one(*call)) for call in calls]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return order

    order = asyncio.run(asyncio.wait_for(use(), 20))
    assert order[:31] == [f"a{n}" for n in range(31)]
    assert order[31:33] == ["b", "none"]
    assert sorted(order) == sorted(["b", "none", *(f"a{n}" for n in range(40))])
