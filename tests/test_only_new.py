"""What is new again: documents that were deferred for a passing reason, and how a retry finds them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.ledgers import DATABASES, DOCUMENT, RUN, attempt, migrated_url
from tests.kit.letters import age
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.cascade.passing import is_passing
from tierwise.ledger import Ledger
from tierwise.records import Outcome, Rejection, Route

TWO = Route(step="classify", rule="all", models=("small", "large"))


def rejected(*kinds: Any) -> Route:
    rejections = tuple(Rejection(f"m{n}", "why", kind) for n, kind in enumerate(kinds))
    return Route(step="classify", rule="all", models=(), rejected=rejections)


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(migrated_url(request.param, tmp_path), root=tmp_path) as opened:
        yield opened


def record(
    ledger: Ledger,
    number: int,
    documents: dict[str, Outcome],
    *,
    errors: tuple[tuple[str, str], ...] = (),
    state: Any = "completed",
) -> None:
    """A run with outcomes, and with attempts that failed: model and error."""
    info = replace(RUN, id=f"run-{number}", started_at=RUN.started_at + number)
    ledger.start_run(info)

    async def story() -> None:
        for name, outcome in documents.items():
            for model_name, error in errors:
                made = attempt(
                    document_id=name,
                    model=model_name,
                    error=error,
                    cost=Decimal(0),
                    usage=None,
                )
                await ledger.settle(info.id, made, None)
            await ledger.record_outcome(info.id, replace(DOCUMENT, id=name), outcome)

    asyncio.run(story())
    ledger.finish_run(info.id, state)


def deferred(cause: Any, route: Route | None = TWO) -> Outcome:
    return Outcome(step="classify", status="deferred", cause=cause, route=route)


def accepted() -> Outcome:
    return Outcome(step="classify", status="accepted", value={"label": "a"})


def done_with(ledger: Ledger) -> set[str]:
    return {name for name, _ in ledger.runs.settled(RUN.flow, is_passing)}


@pytest.mark.parametrize(
    ("outcome", "errors", "is_new"),
    [
        (deferred("budget"), (), True),
        (deferred("provider_fault"), (("small", "RateLimited"), ("large", "Overloaded")), True),
        (deferred("provider_fault"), (("small", "Unreachable"),), True),
        (deferred("provider_fault"), (("small", "CoolingDown"), ("large", "CoolingDown")), True),
        (deferred("provider_fault"), (("small", "AuthenticationFailed"), ("large", "OutOfCredit")), True),
        (deferred("provider_fault"), (("small", "ContentRefused"), ("large", "ServerFault")), True),
        (deferred("provider_fault"), (("small", "ContentRefused"),), True),  # the other was not asked
        (deferred("provider_fault"), (), True),
        (deferred("provider_fault", None), (), True),
        (deferred("provider_fault"), (("small", "ContentRefused"), ("large", "ContextTooLong")), False),
        (deferred("provider_fault"), (("small", "BadRequest"), ("large", "BadReply")), False),
        (deferred("no_model", rejected("unavailable", "guard")), (), True),
        (deferred("no_model", rejected("budget")), (), True),
        (deferred("no_model", rejected("guard", "context_length")), (), False),
        (deferred("no_model", rejected()), (), False),
        (deferred("outage"), (), True),
        (deferred("setup"), (), True),
        (deferred("refused"), (("small", "ContentRefused"),), False),
        (deferred("unpriced", rejected("unknown_price")), (), False),
        (deferred("failed_checks"), (("small", "RateLimited"),), False),
        (deferred("review"), (), False),
        (deferred("unreadable", None), (), False),
        (accepted(), (("small", "RateLimited"),), False),
    ],
)  # fmt: skip
def test_a_document_is_new_again_where_its_reason_passes(
    ledger: Ledger, outcome: Outcome, errors: tuple[tuple[str, str], ...], *, is_new: bool
) -> None:  # fmt: skip
    record(ledger, 1, {"a": outcome, "b": accepted()}, errors=errors)
    assert done_with(ledger) == ({"b"} if is_new else {"a", "b"})


def test_the_last_run_decides(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred("budget"), "b": accepted(), "c": deferred("budget")})  # fmt: skip
    record(ledger, 2, {"a": accepted(), "b": deferred("budget")})
    record(ledger, 3, {"c": accepted()}, state="failed")
    assert done_with(ledger) == {"a"}


def test_the_latest_run_with_documents_that_wait_is_found(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred("budget"), "b": deferred("review")})
    record(ledger, 2, {"c": deferred("failed_checks")})
    record(ledger, 3, {"c": accepted(), "a": accepted()})
    record(ledger, 4, {"d": accepted()})
    assert list(ledger.runs.waiting()) == ["run-1"]


FLOW = '''
from pathlib import Path
from prefect import flow
from tasks.classify import classify
from tierwise import RunSummary, read_documents, recorded_run, write_documents

@flow(name="sort-inbox")
def sort_inbox(source: Path = Path("inbox"), budget_usd: float = 1, only_new: bool = False) -> RunSummary:
    """Sort a folder."""
    with recorded_run(budget_usd=budget_usd) as run:
        letters = read_documents(source, sensitivity="internal", only_new=only_new)
        sorted_ = classify.map(letters, labels=["order", "complaint"], descriptions={})
        write_documents(sorted_, Path("out"))
    return run.summary()
'''


@pytest.fixture
def project(tmp_path: Path, standin: Standin, own_modules: None) -> Path:
    root = make_project(tmp_path / "project", model("small", standin.url))
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    (root / "routing_rules" / "rules.yaml").write_text(rules)
    (root / "flows" / "sort_inbox.py").write_text(FLOW)
    for folder in ("inbox", "other"):
        (root / folder).mkdir()
        for name in ("a.txt", "b.txt"):
            path = root / folder / f"{folder}-{name}"
            path.write_text(f"Letter {name}, {folder}.")
            age(path)
    return root


def results(root: Path) -> dict[str, str]:
    lines = (root / "out" / "outcomes.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["id"]: row["outcomes"]["classify"]["status"] for row in rows}


def test_a_watched_folder_asks_again_once_there_is_money(
    prefect_server: str, terminal: Terminal, project: Path, standin: Standin
) -> None:
    watch = ("run", "sort_inbox", "--only-new", "true")
    poor = terminal(*watch, "--budget-usd", "0", cwd=project)
    assert "2 documents: 0 accepted, 2 deferred" in poor.out, poor.err
    assert standin.count == 0
    assert "2 deferred" in terminal(*watch, "--budget-usd", "0", cwd=project).out
    rich = terminal(*watch, cwd=project)
    assert "2 documents: 2 accepted" in rich.out, rich.err
    assert set(results(project).values()) == {"accepted"}
    terminal(*watch, cwd=project)
    assert standin.count == 2


def test_a_retry_finds_the_run_that_has_documents_that_wait(
    prefect_server: str, terminal: Terminal, project: Path, standin: Standin
) -> None:
    """Not the latest, which was about another folder; also of a run with `only_new`."""
    standin.answer("no JSON at all")
    terminal("run", "sort_inbox", "--only-new", "true", cwd=project)
    standin.answer(lambda r: json.dumps({"label": "order", "evidence": r.document[:8]}))
    terminal("run", "sort_inbox", "--source", "other", cwd=project)
    with Ledger.open(root=project) as ledger:
        latest, first = ledger.runs.newest(2)

    asked = terminal("retry", "latest", cwd=project)
    assert asked.code == 2
    assert f"2 documents of run {first.id} wait: tierwise retry {first.id}" in asked.err
    assert f"run {latest.id} deferred no such document" in asked.err

    retried = terminal("retry", "--fresh", cwd=project)
    assert f"2 of 2 documents of run {first.id} are asked again" in retried.err
    assert "Of 2 that waited, 2 are done and 0 still wait." in retried.err
    assert set(results(project).values()) == {"accepted"}

    nothing = terminal("retry", cwd=project)
    assert (nothing.code, "deferred no such document" in nothing.err) == (2, True)


def test_retry_all_asks_again_for_what_waits_in_any_run(
    prefect_server: str, terminal: Terminal, project: Path, standin: Standin
) -> None:
    """A letter and a whole folder are gone: both are said, and the others are done."""
    standin.answer("no JSON at all")
    terminal("run", "sort_inbox", cwd=project)
    terminal("run", "sort_inbox", "--source", "other", cwd=project)
    (project / "inbox" / "inbox-a.txt").unlink()
    (project / "other").rename(project / "away")
    standin.answer(lambda r: json.dumps({"label": "order", "evidence": r.document[:8]}))

    options = ("--fresh", "--flow", "sort_inbox", "--cause", "failed_checks")
    retried = terminal("retry", "--all", *options, cwd=project)
    assert retried.code == 1
    assert "4 documents of 2 runs are asked again" in retried.err
    assert "Of 2 that waited, 1 are done and 0 still wait." in retried.err
    assert "No longer in the source: inbox-a.txt" in retried.err
    assert "2 documents still wait" in retried.err

    (project / "away").rename(project / "other")
    assert terminal("retry", "--all", "--fresh", cwd=project).code == 0
    left = json.loads(terminal("review", "--json", cwd=project).out)
    assert [row["document"] for row in left] == ["inbox-a.txt"]
