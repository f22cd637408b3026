"""What a call costs, whatever its server reports: through the engine and the ledger."""

from __future__ import annotations

import itertools
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import (
    RESET,
    RESET_MID_BODY,
    Fault,
    Request,
    Standin,
    unused_address,
)
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT
from tests.kit.usages import USAGE, owed
from tierwise.cascade import RunContext
from tierwise.engine import Engine
from tierwise.gateway import Gateway
from tierwise.project import Project
from tierwise.records import Batch, Call, Document, Outcome, Reply

LANES = pytest.mark.parametrize("lane", ["lean", "litellm"])
Build = Callable[..., Engine]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Engines of a project whose models lie at these addresses, on this lane."""
    made: list[Engine] = []

    def engine(lane: str, context: int = 8000, **urls: str) -> Engine:
        entries = [
            model(name, url, context=context, tier="proprietary").replace(
                "timeout_s: 20", f"timeout_s: 20\n    lane: {lane}\n    concurrency: 4"
            )
            for name, url in urls.items()
        ]
        rules = RULES.replace("[small, large]", f"[{', '.join(urls)}], patience: 0")
        root = make_project(tmp_path / str(len(made)), *entries, rules=rules)
        made.append(Engine(Project(root), env={}))
        return made[-1]

    yield engine
    for each in made:
        each.close()


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(GOOD)
        yield server


def documents(number: int, more: str = "") -> Batch:
    return Batch(
        tuple(
            Document(
                id=str(n), text=f"{TEXT} Number {n}. {more}", sensitivity="internal"
            )
            for n in range(number)
        )
    )


def run(engine: Engine, batch: Batch, budget: str = "1") -> list[Outcome]:
    started = engine.start_run("test", budget_usd=Decimal(budget))
    done = engine.run_batch(started, CLASSIFY, batch, LABELS).load()
    return [document.outcomes["classify"] for document in done]


def with_usage(usage: Any, text: str = GOOD) -> Fault:
    """A good reply in OpenAI's format with exactly this usage."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "x", "model": "m", "object": "chat.completion", "choices": [choice]}
    return Fault(body=json.dumps({**body, "usage": usage}).encode())


def counts(prompt: Any, answer: Any, total: Any, **more: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": total,
        **more,
    }


# ---- calls that were never sent


def no_tls(url: str) -> str:
    return url.replace("http:", "https:")


UNSENT = {
    "connection refused": (lambda _: unused_address(), "is the server running?"),
    "no such host": (lambda _: "http://no-such-host.invalid", "is the address right?"),
    "TLS failed": (lambda standin: no_tls(standin.url), "does the server speak https?"),
}


@LANES
@pytest.mark.parametrize("reason", UNSENT)
def test_a_call_that_was_never_sent_costs_nothing_and_is_called_by_its_name(
    build: Build, provider: Standin, lane: str, reason: str
) -> None:
    address, remedy = UNSENT[reason]
    url = address(provider)
    engine = build(lane, small=url)
    [outcome] = run(engine, documents(1))
    assert outcome.status == "deferred"
    assert f"{reason} at {url}: {remedy}" in outcome.reason
    assert [attempt.cost for attempt in outcome.attempts] == [0] * len(outcome.attempts)
    [state] = engine.ledger.budgets.states()
    assert (state.spent, state.reserved) == (0, 0)
    notes = {change.note for change in engine.ledger.budgets.history(state.name)}
    assert any(f"{reason} at {url}" in note for note in notes)
    assert engine.ledger.runs.newest()[0].cost == 0


@contextmanager
def proxy_that_says(answer: bytes) -> Iterator[str]:
    """A proxy that gives every request for a tunnel this answer, and then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@LANES
@pytest.mark.parametrize(
    "answer", [None, b"HTTP/1.1 403 Forbidden\r\n\r\n", b"HTTP/1.1 407 Who?\r\n\r\n"]
)
def test_a_proxy_that_lets_nothing_through_costs_nothing(
    build: Build, lane: str, answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with proxy_that_says(answer or b"") as listening:
        proxy = listening if answer else unused_address()
        with_password = proxy.replace("http://", "http://me:secret-word@")
        monkeypatch.setenv("https_proxy", with_password)
        engine = build(lane, small="https://provider.invalid")
        [outcome] = run(engine, documents(1))
    assert f"the proxy {proxy} lets no call through" in outcome.reason
    assert "secret-word" not in outcome.reason
    assert outcome.cost == 0


@LANES
@pytest.mark.parametrize("fault", [RESET, RESET_MID_BODY], ids=["at once", "later"])
def test_a_connection_lost_after_sending_is_of_unknown_cost(
    build: Build, provider: Standin, lane: str, fault: Fault
) -> None:
    provider.faults([fault])
    engine = build(lane, small=provider.url)
    [outcome] = run(engine, documents(1))
    lost, answered = outcome.attempts
    assert (lost.error, lost.cost) == ("Unreachable", None)
    assert f"connection lost at {provider.url}" in (lost.error_text or "")
    assert answered.cost
    [state] = engine.ledger.budgets.states()
    assert state.spent > answered.cost


# ---- tokens that the answer's count leaves out

THOUGHTS = {
    "in the total alone": counts(100, 10, 3110),
    "in the details": counts(
        100, 10, None, completion_tokens_details={"reasoning_tokens": 3000}
    ),
    "in both": counts(
        100, 10, 3110, completion_tokens_details={"reasoning_tokens": 3000}
    ),
    "in texts": counts("100", "10", "3110"),
}


@LANES
@pytest.mark.parametrize("case", THOUGHTS)
def test_a_budget_holds_for_a_model_that_thinks_more_than_it_may(
    build: Build, provider: Standin, lane: str, case: str
) -> None:
    provider.faults([with_usage(THOUGHTS[case])] * 40)
    engine = build(lane, small=provider.url)
    outcomes = run(engine, documents(40), budget="0.01")
    answered = [outcome for outcome in outcomes if outcome.status == "accepted"]
    deferred = [outcome for outcome in outcomes if outcome.status == "deferred"]
    assert [outcome.cost for outcome in answered] == [Decimal("0.00612")]
    assert {outcome.cause for outcome in deferred} == {"budget"}
    [state] = engine.ledger.budgets.states()
    assert state.spent == Decimal("0.00612")
    assert provider.count == 1


def test_doubt_about_usage_is_on_record_and_counted(
    build: Build, provider: Standin
) -> None:
    provider.faults(
        [with_usage(counts(100, 10, 3110)), with_usage(counts(100, 10, 110))]
    )
    engine = build("lean", small=provider.url)
    run(engine, documents(2))
    [row] = engine.ledger.runs.newest()
    assert row.usage_unclear == 1
    recorded = [
        attempt.usage.unclear
        for attempt in engine.ledger.runs.attempts(row.id)
        if attempt.usage
    ]
    assert sorted(recorded) == [
        "",
        "the total of 3,110 tokens is above prompt and answer (100 + 10)",
    ]


# ---- replies that cannot be read

STRANGE = [
    counts(120.0, 9.0, 129.0),
    counts("120", "9", "129"),
    counts(120.5, 9.5, 130),
    counts(None, None, None),
    counts(True, False, True),
    counts(-1, -1, -1),
    counts(2**70, 2**80, 2**90),
    counts([1], {"a": 2}, "x"),
    counts(120, 9, 129, prompt_tokens_details=[1, {"cached_tokens": "x"}]),
    [1, 2, 3],
    "120",
    120,
    None,
    {"prompt_tokens": {"prompt_tokens": {"prompt_tokens": 120}}},
]


@LANES
def test_no_usage_ends_a_run_or_loses_an_answer(
    build: Build, provider: Standin, lane: str
) -> None:
    provider.faults([with_usage(usage) for usage in STRANGE])
    engine = build(lane, small=provider.url)
    outcomes = run(engine, documents(len(STRANGE)))
    assert {outcome.status for outcome in outcomes} == {"accepted"}
    assert engine.ledger.runs.newest()[0].attempts == len(STRANGE)


def test_a_fault_of_ours_in_reading_a_reply_is_one_documents_fault(
    build: Build, provider: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = Gateway.complete

    async def failing(self: Gateway, call: Call) -> Reply:
        reply = await complete(self, call)
        if "Number 1." in call.messages[-1].content:
            raise TypeError(f"cannot read {call.messages[-1].content}")
        return reply

    monkeypatch.setattr(Gateway, "complete", failing)
    engine = build("lean", small=provider.url)
    outcomes = run(engine, documents(3))
    assert [outcome.status for outcome in outcomes] == [
        "accepted",
        "deferred",
        "accepted",
    ]
    [attempt] = outcomes[1].attempts
    assert (attempt.error, attempt.cost) == ("UnreadableReply", None)
    assert "TypeError at test_bills.py" in outcomes[1].reason
    assert TEXT not in outcomes[1].reason
    [state] = engine.ledger.budgets.states()
    known = sum(outcome.cost or 0 for outcome in outcomes)
    assert state.spent > known
    assert state.reserved == 0


# ---- prompts that the server cut

LONG = "The contract names a sum, a date and a place for each of the deliveries. " * 900
RARE = "ኢትዮጵያ አዲስ አበባ ሰላም ነው። " * 600  # o200k needs more than a token a character


def counting(share: float) -> Callable[[Request], Fault]:
    """Replies whose usage counts this share of the prompt's tokens, as ours are."""

    def fault(request: Request) -> Fault:
        from tierwise.records import Message
        from tierwise.text.tokens import estimate_prompt_tokens

        messages = [
            Message(message["role"], message["content"])
            for message in request.body["messages"]
        ]
        prompt = math.ceil(share * estimate_prompt_tokens(messages))
        return with_usage(counts(prompt, 20, prompt + 20))

    return fault


@LANES
def test_an_answer_to_a_cut_prompt_is_a_fault_and_the_next_model_is_asked(
    build: Build, provider: Standin, lane: str
) -> None:
    with Standin() as whole:
        whole.answer(GOOD)
        provider.answer(counting(0.14))
        engine = build(lane, context=65536, small=provider.url, large=whole.url)
        [outcome] = run(engine, documents(1, LONG))
    assert (outcome.status, outcome.model) == ("accepted", "large")
    cut, _ = outcome.attempts
    assert (cut.model, cut.error, provider.count) == ("small", "PromptCut", 1)
    assert cut.usage is not None
    assert cut.cost == (cut.usage.prompt_tokens + 2 * 20) / Decimal(1_000_000)


def test_the_reason_of_a_cut_prompt_has_both_counts_and_the_remedy(
    build: Build, provider: Standin
) -> None:
    provider.faults([with_usage(counts(2051, 20, 2071))])
    engine = build("lean", context=65536, small=provider.url)
    [outcome] = run(engine, documents(1, LONG))
    assert outcome.cause == "setup"
    assert "small: the server counted 2,051 of about 15,500 tokens" in outcome.reason
    assert "it cut the prompt; raise num_ctx" in outcome.reason
    assert "set context_tokens" in outcome.reason
    assert engine.ledger.runs.newest()[0].cost == Decimal("0.002091")


@pytest.mark.parametrize("text", [LONG, RARE], ids=["English", "a rare script"])
@pytest.mark.parametrize(
    ("share", "fits"), [(0.1, False), (0.13, False), (0.8, True), (1.3, True)]
)
def test_counts_of_other_tokenizers_are_no_cut(
    build: Build, provider: Standin, text: str, share: float, fits: bool
) -> None:
    provider.answer(counting(share))
    engine = build("lean", context=65536, small=provider.url)
    [outcome] = run(engine, documents(1, text))
    assert (outcome.status == "accepted") is fits


def test_a_tokenizer_made_for_a_rare_script_needs_a_third_of_our_tokens(
    build: Build, provider: Standin
) -> None:
    provider.answer(counting(0.34))
    engine = build("lean", context=65536, small=provider.url)
    [rare] = run(engine, documents(1, RARE))
    [english] = run(engine, documents(1, LONG))
    assert (rare.status, english.status) == ("accepted", "deferred")


UNCUT = {
    "a short prompt": ("", counts(20, 9, 29)),
    "no count": (LONG, counts(0, 9, 9)),
    "no usage": (LONG, None),
    "Anthropic's count without the cache": (
        LONG,
        {
            "input_tokens": 20,
            "cache_read_input_tokens": 12_000,
            "cache_creation_input_tokens": 1_000,
            "output_tokens": 9,
        },
    ),
    "cached tokens inside": (
        LONG,
        counts(14_000, 9, 14_009, prompt_tokens_details={"cached_tokens": 13_900}),
    ),
}


@pytest.mark.parametrize("case", UNCUT)
def test_a_usage_that_does_not_show_a_cut_is_no_fault(
    build: Build, provider: Standin, case: str
) -> None:
    text, usage = UNCUT[case]
    provider.faults([with_usage(usage)])
    engine = build("lean", context=65536, small=provider.url)
    [outcome] = run(engine, documents(1, text))
    assert outcome.status == "accepted"


def test_a_cut_answer_that_was_paid_before_is_not_reused_without_a_word(
    build: Build, provider: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.answer(counting(0.14))
    engine = build("lean", context=65536, small=provider.url)
    with monkeypatch.context() as before:
        before.setattr("tierwise.cascade.attempt_ends.prompt_cut", lambda *_: None)
        [accepted] = run(engine, documents(1, LONG))
    [again] = run(engine, documents(1, LONG))
    assert (accepted.status, again.status) == ("accepted", "deferred")
    assert [attempt.reused for attempt in again.attempts] == [True]
    assert provider.count == 1


# ---- whatever a usage says, what it may have cost is on record


@pytest.fixture
def paying(build: Build, provider: Standin) -> Callable[[str, Any], Decimal]:
    """Returns what is on record for one document whose call has this usage."""
    engines: dict[str, Engine] = {}
    runs: dict[str, RunContext] = {}
    spent: dict[str, Decimal] = {}
    numbers = itertools.count()

    def pay(lane: str, usage: Any) -> Decimal:
        if lane not in engines:
            engines[lane] = build(lane, small=provider.url)
            budget = Decimal(1000)
            runs[lane] = engines[lane].start_run("test", budget_usd=budget)
            spent[lane] = Decimal(0)
        engine = engines[lane]
        started = runs[lane]
        provider.faults([with_usage(usage)])
        document = Document(
            id="1", text=f"{TEXT} Letter {next(numbers)}.", sensitivity="internal"
        )
        done = engine.run_batch(started, CLASSIFY, Batch((document,)), LABELS).load()
        outcome = done[0].outcomes["classify"]
        assert outcome.status == "accepted"
        [state] = engine.ledger.budgets.states([f"run {started.id}"])
        assert state.reserved == 0
        known = [
            attempt.cost for attempt in outcome.attempts if attempt.cost is not None
        ]
        paid = state.spent - spent[lane]
        spent[lane] = state.spent
        assert sum(known) <= paid
        return paid

    return pay


@LANES
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(usage=USAGE)
@example(usage=counts(100, 10, 3110))
@example(usage={"completion_tokens": 4000})
@example(usage={"prompt_tokens": 4000})
@example(usage={"total_tokens": 4000})
def test_what_a_usage_may_mean_is_on_record(
    paying: Callable[[str, Any], Decimal], lane: str, usage: dict[str, Any]
) -> None:
    assert paying(lane, usage) >= owed(usage)
