"""Rows of old runs removed: totals, the audit trail, `only_new`, budgets and decisions stay."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tests.kit.steps import CLASSIFY, GOOD, INVENTED, LABELS, TEXT
from tests.kit.terminal import Terminal
from tierwise.audit.files import write_trail
from tierwise.engine import Engine
from tierwise.ledger import Ledger
from tierwise.ledger.people.chain import Scope
from tierwise.project import Project
from tierwise.records import Batch, Document

RULES = "version: 1\nroutes: [{name: default, try: [small]}]\n"
NAMES = ("a.txt", "b.txt", "c.txt")


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(GOOD)
        yield server


@pytest.fixture
def project(tmp_path: Path, url: str, provider: Standin) -> Path:
    root = make_project(tmp_path, model("small", provider.url), rules=RULES)
    settings = f'[tool.tierwise]\nledger_url = "{url}"\n'
    (root / "pyproject.toml").write_text(settings)
    return root


def run(project: Path, *names: str) -> str:
    documents = tuple(
        Document(id=name, text=f"{TEXT} {name}", sensitivity="internal")
        for name in names or NAMES
    )
    with Engine(Project(project), env={}) as engine:
        context = engine.start_run("inbox", budget_usd=Decimal(1), budget_name="month")
        engine.run_batch(context, CLASSIFY, Batch(documents), LABELS)
        engine.finish_run(context, "completed")
    return context.id


def remove(project: Path, terminal: Terminal, *more: str) -> dict[str, int]:
    done = terminal(
        *("retention", "--older-than", "0h", "--rows", "--by", "ada", "--json"),
        *more,
        cwd=project,
    )
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def number_of(url: str, table: str, where: str = "1 = 1") -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        query = text(f"SELECT count(*) FROM {table} WHERE {where}")
        number = connection.scalar(query)
    engine.dispose()
    return int(number or 0)


def execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def known(url: str, project: Path, run_id: str) -> object:
    """What later runs, bills and monthly statements need of a run."""
    with Ledger.open(url, root=project) as ledger:
        return (
            ledger.runs.resolve(run_id),
            ledger.runs.settled("inbox", lambda *_: False),
            ledger.budgets.states(),
            list(ledger.budgets.history("month")),
        )


def test_rows_go_while_totals_trail_budgets_and_settled_documents_stay(
    project: Path, url: str, provider: Standin, terminal: Terminal
) -> None:
    removed_run = run(project)
    trail = project / "trail.jsonl"
    terminal("audit", "export", "-o", trail, cwd=project)
    before = known(url, project, removed_run)

    dry = remove(project, terminal, "--dry-run")
    assert (dry["runs"], dry["attempts"], dry["outcomes"]) == (1, 3, 3)
    assert number_of(url, "attempts") == 3
    done = remove(project, terminal, "--why", "400 days", "--compact")
    for counted in ("runs", "attempts", "outcomes", "waiting", "altered"):
        assert done[counted] == dry[counted]
    for table in ("attempts", "outcomes", "verdicts"):
        assert number_of(url, table) == 0
    assert number_of(url, "calls", "reply IS NOT NULL") == 0
    assert known(url, project, removed_run) == before

    verified = terminal("audit", "verify", cwd=project)
    assert verified.code == 0, verified.out
    today = time.strftime("%Y-%m-%d", time.gmtime())
    said = f"1 run removed by retention on {today} by ada: 400 days"
    assert said in verified.err
    archived = terminal("audit", "verify", trail, cwd=project)
    assert archived.code == 0, archived.out
    assert said in archived.err
    assert terminal("show", removed_run, cwd=project).code == 0
    # What is lost: an answer of that age is paid again.
    run(project)
    assert provider.count == 6
    assert remove(project, terminal, "--dry-run")["runs"] == 1


def test_a_forged_copy_of_a_removed_run_is_found(
    project: Path, url: str, terminal: Terminal
) -> None:
    """Its own chain is right; the seal stayed in the ledger."""
    run(project)
    forged = project / "forged.jsonl"
    with Ledger.open(url, root=project) as ledger, forged.open("w") as file:
        blocks = [
            replace(block, records=[{**each, "model": "x"} for each in block.records])
            for block in ledger.seals.blocks()
        ]
        *_, newest = ledger.seals.in_order()
        write_trail(file, blocks, Scope(), newest, "jsonl")
    remove(project, terminal)
    done = terminal("audit", "verify", forged, cwd=project)
    assert done.code == 1
    assert "is not what was sealed before its rows were removed" in done.out


def test_a_reply_that_a_newer_run_used_stays(
    project: Path, url: str, provider: Standin, terminal: Terminal
) -> None:
    run(project, "a.txt", "b.txt")
    newer = run(project, "a.txt")
    with Ledger.open(url, root=project) as ledger:
        started = ledger.runs.resolve(newer).started_at
        assert ledger.row_removal.remove_older(started, by="ada").attempts == 2
    run(project, "a.txt")
    assert provider.count == 2
    run(project, "b.txt")
    assert provider.count == 3
    verified = terminal("audit", "verify", cwd=project)
    assert verified.code == 0, verified.out


def test_runs_in_which_documents_wait_and_altered_runs_are_left(
    project: Path, url: str, provider: Standin, terminal: Terminal
) -> None:
    altered = run(project, "a.txt")
    execute(url, f"UPDATE attempts SET tier = 'other' WHERE run_id = '{altered}'")
    provider.answer(INVENTED)
    waiting = run(project, "b.txt")
    removed = remove(project, terminal)
    assert (removed["runs"], removed["waiting"], removed["altered"]) == (0, 1, 1)
    assert number_of(url, "outcomes", f"run_id = '{waiting}'") == 1
    # Once a later run has solved it, it may go.
    provider.answer(GOOD)
    run(project, "b.txt")
    assert remove(project, terminal)["runs"] == 2


def test_a_removal_without_its_record_is_a_fault(
    project: Path, url: str, terminal: Terminal
) -> None:
    """Rows deleted by hand, with the mark of a removal; and with a record that was changed."""
    first = run(project, "a.txt")
    second = run(project, "b.txt")
    with Ledger.open(url, root=project) as ledger:
        started = ledger.runs.resolve(second).started_at
        ledger.row_removal.remove_older(started, by="ada")
    assert terminal("audit", "verify", cwd=project).code == 0
    execute(url, f"UPDATE runs SET removed_at = 1 WHERE id = '{second}'")
    execute(url, f"DELETE FROM outcomes WHERE run_id = '{second}'")
    assert terminal("audit", "verify", cwd=project).code == 1
    execute(url, f"UPDATE deletions SET scope = replace(scope, '{first}', '{second}')")
    assert terminal("audit", "verify", cwd=project).code == 1


def test_an_interrupted_removal_goes_on_with_the_next(
    project: Path, url: str, terminal: Terminal
) -> None:
    interrupted = run(project)
    with Ledger.open(url, root=project) as ledger:
        # Its record is written; the process ends before the rows go.
        ledger.row_removal._record([interrupted], time.time(), by="ada", why="")
    assert terminal("audit", "verify", cwd=project).code == 0
    assert remove(project, terminal)["runs"] == 0
    assert number_of(url, "attempts") == 0


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "arguments",
    [["--rows"], ["--rows", "--document", "a"], ["--why", "x", "--document", "a"]],
)
def test_rows_are_removed_by_age_alone(
    project: Path, terminal: Terminal, arguments: list[str]
) -> None:
    assert terminal("retention", *arguments, cwd=project).code == 2
