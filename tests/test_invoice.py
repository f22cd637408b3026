"""What is on record against an independent invoice: who is charged for what goes wrong, on both lanes."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import (
    ERROR_INSIDE,
    NO_CHOICES,
    NO_USAGE,
    NOT_JSON,
    REFUSAL,
    RESET,
    RESET_MID_BODY,
    TRICKLE,
    TRUNCATED_JSON,
    Fault,
    Request,
    Standin,
    raw,
    status,
    unused_address,
)
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Attempt, Batch, Document, Outcome

LANES = pytest.mark.parametrize("lane", ["lean", "litellm"])
FREE = "{input: 0, output: 0, source: test, date: 2026-11-01}"
PROMPT_TOKENS = 100
ANSWER_TOKENS = 20
A_CALL = Decimal(PROMPT_TOKENS + 2 * ANSWER_TOKENS) / 1_000_000
COUNTS = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": ANSWER_TOKENS,
    "total_tokens": PROMPT_TOKENS + ANSWER_TOKENS,
}
GOOD_REPLY = Fault(text=GOOD, usage=COUNTS)


def gateway(code: int) -> Fault:
    """The page of a proxy that answers in place of the provider."""
    page = b"<html><h1>Gateway Time-out</h1></html>"
    return Fault(status=code, body=page, headers={"Content-Type": "text/html"})


def failed_with(usage: Any, code: int = 500) -> Fault:
    """An error of the provider that reports tokens."""
    error = {"message": "it fell over", "type": "server_error"}
    return Fault(
        status=code, body=json.dumps({"error": error, "usage": usage}).encode()
    )


def stream(*events: dict[str, Any]) -> Fault:
    """A stream of events, though none was asked for."""
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return Fault(
        body="".join(lines).encode(), headers={"Content-Type": "text/event-stream"}
    )


def piece(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


LIMIT = {"error": {"message": "slow down", "code": 429}}
# What no provider bills.
REFUSED = {
    **{
        str(code): status(code)
        for code in (
            *(400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 429, 451),
            *(500, 501, 502, 503, 504, 507, 521, 522, 523, 525, 529, 530),
        )
    },
    "a page with 500": gateway(500),
    "a page with 502": gateway(502),
    "a page with 503": gateway(503),
    "an empty 500": raw(b"", 500),
    "a redirect": Fault(
        status=302, body=b"", headers={"Location": "https://x.invalid"}
    ),
    "500 with a usage of nothing": failed_with(
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    ),
    "429 in a 200": raw(json.dumps(LIMIT)),
    "429 in a stream": stream(LIMIT),
}
# What a provider may bill, though it sends no answer that can be used or no usage.
UNKNOWN = {
    "408": status(408),
    "499": status(499),
    "520": gateway(520),
    "524": gateway(524),
    "a page with 504": gateway(504),
    "an empty 504": raw(b"", 504),
    "a proxy's message with 504": raw('{"message": "Endpoint request timed out"}', 504),
    "LiteLLM's proxy with 504": Fault(
        status=504,
        headers={"x-litellm-version": "1.80"},
        body=status(504).body,
    ),
    "a filter with 400": status(400, "filtered", code="content_filter"),
    "reset": RESET,
    "reset in the body": RESET_MID_BODY,
    "half a body": TRUNCATED_JSON,
    "a page with 200": NOT_JSON,
    "no choices": NO_CHOICES,
    "no usage": NO_USAGE,
    "an error in a 200": ERROR_INSIDE,
    "a text, then a 429": stream(piece('{"evidence": "has'), LIMIT),
    "a thought, then a 429": stream(
        {"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]}, LIMIT
    ),
    "500 with a usage that is no count": failed_with({"prompt_tokens": "many"}),
    "500 with an impossible usage": failed_with({"prompt_tokens": 10**15}),
    "500 with half a usage": failed_with({"completion_tokens": 5}),
    "no end": TRICKLE,
}
# What a provider bills, and says so.
BILLED = {
    **{f"{code} with a usage": failed_with(COUNTS, code) for code in (400, 429, 500)},
    "empty": Fault(text="", usage=COUNTS),
    "refused": Fault(text="", refusal=str(REFUSAL.refusal), usage=COUNTS),
    "filtered": Fault(text="", finish_reason="content_filter", usage=COUNTS),
}


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between tries."""
    monkeypatch.setattr("tierwise.cascade.answers._BACKOFF_S", 0.0)
    monkeypatch.setattr("tierwise.cascade.answers._JITTER_S", 0.0)


def entry(lane: str, name: str, url: str, **how: Any) -> str:
    text = model(name, url, tier="proprietary", **how)
    return text.replace("timeout_s: 20", f"timeout_s: 1\n    lane: {lane}")


def engine_of(root: Path, *names: str, entries: list[str]) -> Engine:
    rules = RULES.replace("[small, large]", f"[{', '.join(names)}], patience: 0")
    return Engine(Project(make_project(root, *entries, rules=rules)), env={})


def ask(engine: Engine, number: int = 1) -> tuple[list[Attempt], Decimal]:
    """All attempts at some documents, and the USD that their run's budget counts."""
    run = engine.start_run("test", budget_usd=Decimal(1))
    documents = [
        Document(id=str(n), text=f"{TEXT} {n}", sensitivity="internal")
        for n in range(number)
    ]
    done = engine.run_batch(run, CLASSIFY, Batch(tuple(documents)), LABELS).load()
    outcomes: list[Outcome] = [document.outcomes["classify"] for document in done]
    [state] = engine.ledger.budgets.states([f"run {run.id}"])
    assert state.reserved == 0
    attempts = [attempt for outcome in outcomes for attempt in outcome.attempts]
    recorded = engine.ledger.runs.resolve(run.id)
    unknown = [attempt for attempt in attempts if attempt.cost is None]
    assert recorded.cost_unknown == len(unknown)
    return attempts, state.spent


def slug(name: str) -> str:
    return "m-" + "".join(sign if sign.isalnum() else "-" for sign in name)


@LANES
def test_what_nobody_bills_costs_nothing_and_what_may_be_billed_is_unknown(
    tmp_path: Path, lane: str, unhurried: None
) -> None:
    expected: dict[str, Decimal | None] = {
        **dict.fromkeys(REFUSED, Decimal(0)),
        **dict.fromkeys(UNKNOWN, None),
        **dict.fromkeys(BILLED, A_CALL),
    }
    faults = {
        slug(name): fault for name, fault in {**REFUSED, **UNKNOWN, **BILLED}.items()
    }
    assert len(faults) == len(expected)
    with Standin() as provider:
        provider.answer(lambda request: faults.get(request.model, GOOD_REPLY))
        addresses = dict.fromkeys(faults, provider.url)
        addresses["m-refused-connection"] = unused_address()
        addresses["m-no-host"] = "http://no-such-host.invalid"
        addresses["m-no-tls"] = provider.url.replace("http:", "https:")
        addresses["good"] = provider.url
        entries = [entry(lane, name, url) for name, url in addresses.items()]
        engine = engine_of(tmp_path / "p", *addresses, entries=entries)
        try:
            attempts, spent = ask(engine)
            notes = {
                change.reservation: change.note
                for state in engine.ledger.budgets.states()
                for change in engine.ledger.budgets.history(state.name)
                if change.kind == "settled"
            }
        finally:
            engine.close()
    costs: defaultdict[str, set[Decimal | None]] = defaultdict(set)
    for attempt in attempts:
        costs[attempt.model].add(attempt.cost)
    wrong = {
        name: (costs[slug(name)], cost)
        for name, cost in expected.items()
        if costs[slug(name)] != {cost}
    }
    assert not wrong
    for name in ("m-refused-connection", "m-no-host", "m-no-tls"):
        assert costs[name] == {Decimal(0)}, name
    known = [attempt.cost for attempt in attempts if attempt.cost is not None]
    assert sum(known) < spent
    for attempt in attempts:
        if attempt.cost == 0:
            assert notes[attempt.id].startswith(("not sent: ", "not billed: "))


def test_a_model_that_costs_nothing_costs_nothing_whatever_becomes_of_the_call(
    tmp_path: Path, unhurried: None
) -> None:
    names = ("reset", "a page with 200", "a page with 504", "no end")
    faults = {slug(name): UNKNOWN[name] for name in names}
    with Standin() as provider:
        entries = [
            entry("lean", name, provider.url, price=FREE) for name in (*faults, "good")
        ]
        engine = engine_of(tmp_path / "p", *faults, "good", entries=entries)
        provider.answer(
            lambda request: faults.get(request.model, Fault(text=GOOD, usage=None))
        )
        try:
            attempts, spent = ask_without_budget(engine)
        finally:
            engine.close()
    assert {attempt.cost for attempt in attempts} == {Decimal(0)}
    assert spent == 0


def ask_without_budget(engine: Engine) -> tuple[list[Attempt], Decimal]:
    """As `ask`: free models draw on no budget."""
    run = engine.start_run("test")
    document = Document(id="1", text=TEXT, sensitivity="internal")
    done = engine.run_batch(run, CLASSIFY, Batch((document,)), LABELS).load()
    outcome = done[0].outcomes["classify"]
    assert outcome.status == "accepted"
    return list(outcome.attempts), engine.ledger.runs.resolve(run.id).cost or Decimal(0)


# ---- any sequence of replies and faults, with an invoice of the provider's own

KINDS = {
    **{name: fault for name, fault in REFUSED.items() if name != "a redirect"},
    **{name: fault for name, fault in UNKNOWN.items() if name != "no end"},
    **BILLED,
    "good": GOOD_REPLY,
}
STEP = st.tuples(st.sampled_from(sorted(KINDS)), st.booleans())
SEQUENCES = st.lists(st.lists(STEP, min_size=1, max_size=4), min_size=1, max_size=4)


class Invoice:
    """A provider that follows a sequence for each model, and adds up what it charges."""

    def __init__(self, sequences: list[list[tuple[str, bool]]]) -> None:
        self.total = Decimal(0)
        self._left = {
            f"m-{number}": list(sequence) for number, sequence in enumerate(sequences)
        }
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Fault:
        with self._lock:
            left = self._left.get(request.model)
            name, charges = left.pop(0) if left else ("good", True)
            # What is in REFUSED is never charged; of UNKNOWN, some is.
            if name in BILLED or name == "good" or (name in UNKNOWN and charges):
                self.total += A_CALL
        return KINDS[name]


@LANES
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sequences=SEQUENCES)
def test_the_invoice_is_within_what_is_on_record(
    tmp_path_factory: pytest.TempPathFactory,
    unhurried: None,
    lane: str,
    sequences: list[list[tuple[str, bool]]],
) -> None:
    invoice = Invoice(sequences)
    names = [f"m-{number}" for number in range(len(sequences))]
    with Standin() as provider:
        provider.answer(invoice.answer)
        entries = [entry(lane, name, provider.url) for name in (*names, "last")]
        folder = tmp_path_factory.mktemp("invoice") / "p"
        engine = engine_of(folder, *names, "last", entries=entries)
        try:
            attempts, spent = ask(engine, number=3)
        finally:
            engine.close()
    known = sum(
        (attempt.cost for attempt in attempts if attempt.cost is not None), Decimal(0)
    )
    assert known <= invoice.total <= spent
    if all(attempt.cost is not None for attempt in attempts):
        assert known == invoice.total == spent
