"""`function_step`: a Python function as a step, with checks, retries, a price and the ledger."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from prefect import flow
from pydantic import BaseModel, Field

from tests.kit.projects import make_project, model
from tierwise import (
    Document,
    RunSummary,
    Sensitivity,
    StepTask,
    TryAgain,
    check,
    function_step,
    join,
    read_documents,
    recorded_run,
    task_runner,
    write_documents,
)
from tierwise.cascade import RunContext
from tierwise.engine import Engine
from tierwise.errors import ConfigError, Misuse
from tierwise.orchestrate.dry_run import dry_run
from tierwise.plan import Planner
from tierwise.project import Project
from tierwise.records import Batch, FieldSource, Outcome, Place

GUARDED = """
version: 1
guards:
  - {name: nothing-may-see, when: {sensitivity_min: restricted}, allow_tiers: []}
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
routes:
  - {name: default, try: [small]}
"""
calls: Counter[str] = Counter()


class Policy(BaseModel):
    """Whether an expense is within the policy."""

    allowed: bool
    why: str


@check("why")
def says_why(output: Policy, document: Document) -> str | None:
    """Require a reason."""
    return None if output.why else "no reason is given"


def decide(document: Document, *, limit: float = 50) -> Policy:
    calls[document.id] += 1
    amount = float(document.text.rpartition(" ")[2])
    return Policy(allowed=amount <= limit, why=f"{amount:g} of {limit:g}")


@pytest.fixture(autouse=True)
def no_calls() -> Iterator[None]:
    calls.clear()
    yield
    calls.clear()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_project(
        tmp_path / "project", model("small", "http://127.0.0.1:1"), rules=GUARDED
    )
    (root / "inbox").mkdir()
    for number in range(1, 5):
        (root / "inbox" / f"{number}.txt").write_text(f"A taxi for {20 * number}")
    monkeypatch.chdir(root)
    return root


@contextmanager
def engine_of(root: Path, url: str | None = None) -> Iterator[Engine]:
    if url is not None:
        (root / "pyproject.toml").write_text(f'[tool.tierwise]\nledger_url = "{url}"\n')
    with Engine(Project(root)) as engine:
        yield engine


def receipts(
    *amounts: float, sensitivity: Sensitivity = "internal"
) -> tuple[Document, ...]:
    return tuple(
        Document(id=f"{amount}", text=f"A taxi for {amount}", sensitivity=sensitivity)
        for amount in amounts
    )


def run_once(
    engine: Engine,
    task: StepTask[Any],
    documents: tuple[Document, ...],
    run: RunContext | None = None,
    **parameters: Any,
) -> tuple[Outcome, ...]:
    begun = run or engine.start_run("test")
    done = engine.run_batch(begun, task.spec, Batch(documents), parameters)
    if run is None:
        engine.finish_run(begun, "completed")
    return tuple(document.outcomes[task.name] for document in done.load())


def one(engine: Engine, function: Callable[..., Any], **settings: Any) -> Outcome:
    """The outcome of one document."""
    task = function_step("policy", function, returns=Policy, **settings)
    return run_once(engine, task, receipts(20))[0]


policy = function_step("policy", decide, returns=Policy, checks=[says_why])


def test_a_result_is_an_outcome_with_an_attempt_on_record(
    project: Path, url: str
) -> None:
    priced = function_step("policy", decide, returns=Policy, price_usd="0.002")
    with engine_of(project, url) as engine:
        run = engine.start_run("test", budget_usd=Decimal(1))
        low, high = run_once(engine, priced, receipts(20, 80), run, limit=50)
        engine.finish_run(run, "completed")
        [row] = engine.ledger.runs.summary(run.id)
        totals = engine.ledger.runs.resolve(run.id)
    assert (low.status, low.value) == ("accepted", {"allowed": True, "why": "20 of 50"})
    assert high.value["allowed"] is False
    [attempt] = low.attempts
    assert (attempt.tier, attempt.model) == ("local", "function:policy")
    assert attempt.cost == Decimal("0.002")
    assert attempt.latency_s > 0
    assert low.route is not None
    assert low.route.rule == "function"
    assert (row.step, row.tier, row.model) == ("policy", "local", "function:policy")
    assert totals.cost_known == Decimal("0.004")


def test_a_recorded_result_is_used_again_for_the_same_code_document_and_parameters(
    project: Path, url: str
) -> None:
    def decide_otherwise(document: Document, *, limit: float = 50) -> Policy:
        calls[document.id] += 1
        return Policy(allowed=False, why="never")

    other = function_step("policy", decide_otherwise, returns=Policy)
    unsure = function_step("policy", decide, returns=Policy, reuse=False)
    [document] = receipts(20)
    seen = document.with_outcome(
        Outcome(step="classify", status="accepted", value={"label": "taxi"})
    )
    with engine_of(project, url) as engine:
        for expected, task, each, parameters in (
            (1, policy, document, {"limit": 50}),
            (1, policy, document, {"limit": 50}),
            (2, policy, document, {"limit": 60}),
            (3, other, document, {"limit": 50}),
            (4, policy, seen, {"limit": 50}),  # another input
            (4, policy, seen, {"limit": 50}),
            (5, unsure, document, {"limit": 50}),
            (6, unsure, document, {"limit": 50}),
        ):
            [outcome] = run_once(engine, task, (each,), **parameters)
            assert outcome.status == "accepted"
            assert calls["20"] == expected
        run = engine.start_run("test")
        for _ in range(2):
            run_once(engine, unsure, (document,), run, limit=50)
        engine.finish_run(run, "completed")
        assert calls["20"] == 7


def test_a_result_is_not_used_again_where_what_the_function_reads_has_changed(
    project: Path, tmp_path: Path
) -> None:
    """Which model gave an output and how sure it was, where its words are; a parameter's file."""
    limits = tmp_path / "limits.txt"

    def read(document: Document, *, table: Path = limits) -> Policy:
        calls[document.id] += 1
        return Policy(allowed=True, why=table.read_text())

    task = function_step("policy", read, returns=Policy)
    [document] = receipts(20)
    first = Outcome(step="extract", status="accepted", value={"total": 20})
    source = FieldSource("small", "attempt", 0.5)
    outcomes = [
        first,
        replace(first, model="small"),
        replace(first, sources={"total": source}),
        replace(first, sources={"total": replace(source, confidence=0.9)}),
        replace(first, places=(Place("total", 11, 13),)),
        replace(first, status="skipped", value=None, cause="condition"),
    ]
    # what differs from run to run is none of these
    same = replace(
        first,
        sources={"total": replace(source, attempt="another", confidence=0.9)},
        reason="in other words",
    )
    limits.write_text("100")
    with engine_of(project) as engine:
        for expected, outcome in enumerate([*outcomes, same], 1):
            run_once(engine, task, (document.with_outcome(outcome),), table=limits)
            assert calls["20"] == min(expected, len(outcomes))
        limits.write_text("200")
        seen = document.with_outcome(first)
        [again] = run_once(engine, task, (seen,), table=limits)
    assert again.value == {"allowed": True, "why": "200"}


class Number(BaseModel):
    """An output model whose keys in JSON are not the names of its fields."""

    country: str = Field(alias="Country code")


class Vat(BaseModel):
    number: Number = Field(validation_alias="VAT number")
    kind: Literal["full", "reduced"] = Field(serialization_alias="rate")
    due: date


class Kind(Enum):
    FULL = "full"


def test_outputs_of_models_with_aliases_and_of_plain_enums(project: Path) -> None:
    number = Number.model_validate({"Country code": "DE"})
    due = date(2026, 5, 1)

    def as_model(document: Document) -> Vat:
        return Vat.model_validate({"VAT number": number, "kind": "full", "due": due})

    def by_alias(document: Document) -> dict[str, Any]:
        return {"VAT number": {"Country code": "DE"}, "kind": Kind.FULL, "due": due}

    def by_name(document: Document) -> dict[str, Any]:
        return {"number": number, "kind": Kind.FULL, "due": due}

    def with_an_object(document: Document) -> dict[str, Any]:
        return {"number": number, "kind": object(), "due": due}

    [document] = receipts(20)
    with engine_of(project) as engine:
        for function in (as_model, by_alias, by_name):
            task = function_step("vat", function, returns=Vat)
            [outcome] = run_once(engine, task, (document,))
            assert outcome.value == {
                "number": {"country": "DE"},
                "kind": "full",
                "due": "2026-05-01",
            }
            assert task.of(document.with_outcome(outcome)) == as_model(document)
        task = function_step("vat", with_an_object, returns=Vat)
        [outcome] = run_once(engine, task, (document,))
    assert (outcome.status, outcome.cause) == ("deferred", "function")


def fail_once(error: Exception) -> Callable[[Document], Policy]:
    tries = Counter[str]()

    def function(document: Document) -> Policy:
        tries[document.id] += 1
        if tries[document.id] == 1:
            raise error
        return Policy(allowed=True, why="the second time")

    return function


def test_what_passes_by_itself_is_tried_again(project: Path) -> None:
    with engine_of(project) as engine:
        for error, settings in (
            (TryAgain(retry_after=0), {}),
            (ConnectionError("away"), {"retry_on": [OSError]}),
        ):
            outcome = one(engine, fail_once(error), **settings)
            assert outcome.status == "accepted"
            assert [attempt.error for attempt in outcome.attempts] == [
                "FunctionBusy",
                None,
            ]
            assert outcome.attempts[1].kind == "retry"


def test_retries_end_and_the_document_waits_for_a_passing_reason(project: Path) -> None:
    def never(document: Document) -> Policy:
        calls[document.id] += 1
        raise TryAgain(retry_after=0)

    with engine_of(project) as engine:
        outcome = one(engine, never, retries=1)
    assert (outcome.status, outcome.cause) == ("deferred", "outage")
    assert calls["20"] == 2


class Secretive(Exception):
    pass


def quoting(document: Document) -> Policy:
    calls[document.id] += 1
    raise Secretive(f"cannot decide {document.text}")


async def quoting_async(document: Document) -> Policy:
    await asyncio.sleep(0)
    raise Secretive(f"cannot decide {document.text}")


def leaving(document: Document) -> Policy:
    raise SystemExit(document.text)


def stopping(document: Document) -> Policy:
    raise StopIteration(document.text)


ENDED = threading.Event()


def hanging(document: Document) -> Policy:
    ENDED.wait(60)
    return Policy(allowed=True, why="too late")


async def hanging_async(document: Document) -> Policy:
    await asyncio.sleep(60)
    return Policy(allowed=True, why="too late")


async def cancelling(document: Document) -> Policy:
    raise asyncio.CancelledError


def wordy(document: Document) -> Any:
    return document.text


def unwritable(document: Document) -> Any:
    return {"allowed": True, "why": {(1, 2): object()}}


FAILURES: Mapping[Callable[..., Any], str] = {
    quoting: "Secretive",
    quoting_async: "Secretive",
    leaving: "SystemExit",
    stopping: "StopIteration",
    hanging: "0.05 s",
    hanging_async: "0.05 s",
    cancelling: "RuntimeError",
    wordy: "str",
    unwritable: "SerializationError",
}


def test_what_a_function_raises_defers_the_document_without_its_words(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with engine_of(project) as engine:
        for function, names in FAILURES.items():
            outcome = one(engine, function, timeout_s=0.05)
            assert (outcome.status, outcome.cause) == ("deferred", "function"), names
            assert names in outcome.reason
            assert "taxi" not in outcome.reason
            [attempt] = outcome.attempts
            assert attempt.error == "FunctionFailed"
            assert "taxi" not in str(attempt.error_text)
        ENDED.set()
    assert "taxi" not in caplog.text


def test_a_function_that_takes_too_long_is_called_again_only_where_that_is_asked_for(
    project: Path,
) -> None:
    """A TimeoutError is an OSError, too, and the first call may still be under way."""
    ended = threading.Event()

    def hangs(document: Document) -> Policy:
        calls[document.id] += 1
        ended.wait(30)
        return Policy(allowed=True, why="at last")

    settings = {"timeout_s": 0.05, "retries": 1}
    with engine_of(project) as engine:
        for kind, expected in ((OSError, 1), (TimeoutError, 2)):
            calls.clear()
            outcome = one(engine, hangs, retry_on=(kind,), reuse=False, **settings)
            assert outcome.status == "deferred"
            assert calls["20"] == expected
    ended.set()


def test_rules_may_name_a_step_without_a_model(project: Path) -> None:
    (project / "tasks" / "own.py").write_text(
        "from tierwise import function_step, http_step\n"
        'first = function_step("first", print, returns=dict)\n'
        'second = http_step(name="second", url="http://127.0.0.1:1", returns=dict)\n'
    )
    path = project / "routing_rules" / "rules.yaml"
    named = "when: {step: [first, second], sensitivity_min: restricted}"
    path.write_text(GUARDED.replace("when: {sensitivity_min: restricted}", named))
    assert Project(project).rules.guards[0].when.step == ("first", "second")
    path.write_text(
        GUARDED.replace("when: {sensitivity_min: restricted}", "when: {step: third}")
    )
    with pytest.raises(ConfigError):
        Project(project).rules  # noqa: B018


def test_one_failing_document_stops_no_other(project: Path) -> None:
    """Ten failures in a row open no circuit: they are the documents'."""

    def picky(document: Document) -> Policy:
        if document.id != "1":
            raise ValueError
        return decide(document)

    task = function_step("policy", picky, returns=Policy, concurrency=1)
    with engine_of(project) as engine:
        outcomes = run_once(engine, task, receipts(*range(20, 1, -1), 1))
    assert [outcome.status for outcome in outcomes] == ["deferred"] * 19 + ["accepted"]


def test_an_output_is_validated_and_checked(project: Path) -> None:
    def unexplained(document: Document) -> dict[str, Any]:
        return {"allowed": True, "why": ""}

    def half(document: Document) -> dict[str, Any]:
        return {"allowed": True}

    with engine_of(project) as engine:
        for function, failed in ((unexplained, "why"), (half, "schema")):
            outcome = one(engine, function, checks=[says_why])
            assert (outcome.status, outcome.cause) == ("deferred", "failed_checks")
            [attempt] = outcome.attempts
            assert [v.check for v in attempt.verdicts if v.passed is False] == [failed]


def test_dicts_async_functions_and_texts_with_braces_are_outputs(project: Path) -> None:
    why = '{"allowed": false} </think> {'

    async def as_dict(document: Document) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"allowed": True, "why": why}

    def as_model(document: Document) -> Policy:
        return Policy(allowed=True, why=why)

    with engine_of(project) as engine:
        for function in (as_dict, as_model):
            assert one(engine, function).value == {"allowed": True, "why": why}


def test_at_most_so_many_calls_run_at_once(project: Path) -> None:
    running = Counter[str]()
    most = Counter[str]()
    lock = threading.Lock()

    def counted(document: Document) -> Policy:
        with lock:
            running["now"] += 1
            most["ever"] = max(most["ever"], running["now"])
        threading.Event().wait(0.01)
        with lock:
            running["now"] -= 1
        return Policy(allowed=True, why="yes")

    task = function_step("policy", counted, returns=Policy, concurrency=2)
    with engine_of(project) as engine:
        run_once(engine, task, receipts(*range(12)))
    assert most["ever"] == 2


def test_its_price_is_reserved_and_the_budget_ends_it(project: Path, url: str) -> None:
    priced = function_step("policy", decide, returns=Policy, price_usd=0.4)
    with engine_of(project, url) as engine:
        run = engine.start_run("test", budget_usd=Decimal(1))
        outcomes = run_once(engine, priced, receipts(1, 2, 3, 4), run)
        engine.finish_run(run, "completed")
    causes = Counter(outcome.cause for outcome in outcomes)
    assert causes == {None: 2, "budget": 2}
    assert calls.total() == 2


@pytest.mark.parametrize("sensitivity", ["confidential", "restricted"])
def test_no_guard_about_tiers_keeps_a_document_from_the_projects_own_code(
    project: Path, sensitivity: Sensitivity
) -> None:
    with engine_of(project) as engine:
        [outcome] = run_once(engine, policy, receipts(20, sensitivity=sensitivity))
    assert outcome.status == "accepted"
    assert outcome.sensitivity == sensitivity


def test_settings_and_parameters_that_cannot_be_are_refused(project: Path) -> None:
    for settings in (
        {"price_usd": -1},
        {"price_usd": float("nan")},
        {"retries": -1},
        {"timeout_s": 0},
        {"concurrency": 0},
        {"requests_per_minute": 0},
    ):
        with pytest.raises(Misuse):
            function_step("policy", decide, returns=Policy, **settings)
    with pytest.raises(Misuse):
        function_step("policy", "decide", returns=Policy)  # type: ignore[call-overload]


@function_step("policy", returns=Policy)
def decorated(document: Document) -> Policy:
    """Allow everything."""
    return Policy(allowed=True, why=document.id)


# ---- in flows


@function_step("words", returns=Policy)
def words(document: Document) -> dict[str, Any]:
    return {"allowed": True, "why": str(len(document.text.split()))}


def over_40(document: Document) -> bool:
    return document.text.rpartition(" ")[2] > "40"


def make_flow(**parameters: Any) -> Any:
    @flow(name="check-expenses", task_runner=task_runner())
    def check_expenses() -> RunSummary:
        with recorded_run(budget_usd=1) as run:
            inbox = read_documents(
                Path("inbox"), sensitivity="confidential", batch_size=2
            )
            decided = policy.map(inbox, only=over_40, **parameters)
            write_documents(join(decided, words.map(inbox)), Path("out"))
        return run.summary()

    return check_expenses


def test_a_function_is_a_step_of_a_flow(prefect_server: str, project: Path) -> None:
    summary = make_flow(limit=70)()
    assert (summary.run.documents, summary.run.deferred) == (4, 0)
    lines = (project / "out" / "outcomes.jsonl").read_text().splitlines()
    rows = {row["id"]: row["outcomes"] for row in map(json.loads, lines)}
    assert {name: row["policy"]["status"] for name, row in rows.items()} == {
        "1.txt": "skipped",
        "2.txt": "skipped",
        "3.txt": "accepted",
        "4.txt": "accepted",
    }
    assert rows["4.txt"]["policy"]["value"]["allowed"] is False
    assert rows["1.txt"]["words"]["value"]["why"] == "4"


def test_unknown_parameters_are_refused(prefect_server: str, project: Path) -> None:
    with pytest.raises(Misuse):
        make_flow(limits=70)()
    assert calls.total() == 0


def test_a_plan_calls_no_function_and_counts_its_price(project: Path) -> None:
    priced = function_step("policy", decide, returns=Policy, price_usd=0.25)

    @flow(name="check-expenses")
    def check_expenses() -> None:
        with recorded_run(budget_usd=1):
            priced.map(read_documents(Path("inbox"), sensitivity="confidential"))

    plan = plan_of(project, check_expenses)
    assert calls.total() == 0
    [row] = plan.rows
    assert (row.step, row.model) == ("policy", "function:policy")
    assert row.expected == row.most == Decimal(1)
    [route] = plan.routes
    assert (route.route, route.tier, route.documents) == ("function", "local", 4)


def plan_of(root: Path, planned: Any) -> Any:
    planner = Planner(Project(root), {})
    try:
        dry_run(planned, {}, planner)
        return planner.plan("check-expenses", {})
    finally:
        planner.close()


def test_a_plan_knows_what_is_on_record(prefect_server: str, project: Path) -> None:
    planned = make_flow(limit=70)
    planned()
    assert calls.total() == 2
    plan = plan_of(project, planned)
    assert {row.step: row.reused for row in plan.rows} == {"policy": 2, "words": 4}
    assert calls.total() == 2
