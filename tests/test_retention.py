"""What texts the ledger keeps, and that what is deleted is gone while figures and the audit trail stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine, inspect, text

from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.ledger import Ledger
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.review.queue import By, edit, find_item
from tierwise.steps.checks import evidence_is_quoted
from tierwise.steps.step import Step

DAY = 86_400.0
PRIVATE = "Mrs Abendroth"
DOCUMENTS = (
    Document(
        id="a.txt",
        text=f"{PRIVATE} wants her money back.",
        sensitivity="internal",
        metadata={"to": PRIVATE},
    ),
    Document(
        id="b.txt",
        text="The desk that I ordered has not arrived.",
        sensitivity="internal",
    ),
)
LABELS = {"labels": ["billing", "delivery"]}
RULES = """
version: 1
routes:
  - {name: default, try: [small]}
"""


class Classification(BaseModel):
    label: str
    evidence: str


CLASSIFY = Step(
    name="classify",
    returns=Classification,
    prompt="classify",
    checks=(evidence_is_quoted,),
)


def quoting(request: Request) -> str:
    return json.dumps({"label": "billing", "evidence": request.document[:24]})


def failing(request: Request) -> str:
    return json.dumps(
        {"label": "billing", "evidence": f"{request.document[:24]} and more"}
    )


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(quoting)
        yield server


@pytest.fixture
def project(tmp_path: Path, url: str, provider: Standin) -> Path:
    root = make_project(tmp_path, model("small", provider.url), rules=RULES)
    keep(root, url, "outputs")
    return root


def keep(project: Path, url: str, what: str) -> None:
    settings = f'[tool.tierwise]\nledger_url = "{url}"\nkeep_text = "{what}"\n'
    (project / "pyproject.toml").write_text(settings)


def run(
    project: Path, *documents: Document, age_days: float = 0, state: str = "completed"
) -> str:
    """A run over the documents, made to look as if it had been some days ago; its id."""
    with Engine(Project(project), env={}) as engine:
        context = engine.start_run("inbox")
        engine.run_batch(context, CLASSIFY, Batch(documents or DOCUMENTS), LABELS)
        engine.finish_run(context, state)  # type: ignore[arg-type]
        address = engine.ledger.url
    if age_days:
        database = create_engine(address)
        with database.begin() as connection:
            for column, table in (("started_at", "runs"), ("kept_at", "texts")):
                connection.execute(
                    text(f"UPDATE {table} SET {column} = {column} - {age_days * DAY}")
                )
        database.dispose()
    return context.id


def everything(url: str, project: Path) -> str:
    """All that any row of any table holds."""
    engine = create_engine(url)
    with engine.connect() as connection:
        names = inspect(engine).get_table_names()
        rows = [
            str(tuple(row))
            for name in names
            for row in connection.execute(text(f"SELECT * FROM {name}"))
        ]
    engine.dispose()
    return "\n".join(rows)


def figures(url: str, project: Path, run_id: str) -> object:
    """What reports are made of."""
    with Ledger.open(url, root=project) as ledger:
        return (
            ledger.runs.resolve(run_id),
            ledger.runs.summary(run_id),
            ledger.runs.outcome_counts(run_id),
        )


def verified(project: Path, terminal: Terminal) -> bool:
    done = terminal("audit", "verify", cwd=project)
    return done.code == 0


def test_by_default_answers_are_kept_and_documents_are_not(
    project: Path, url: str
) -> None:
    run(project)
    kept = everything(url, project)
    assert "The desk that I ordered" in kept, "the answer quotes it"
    assert "has not arrived" not in kept


@pytest.mark.parametrize("answer", [quoting, failing], ids=["accepted", "deferred"])
def test_never_keeps_no_text_once_a_run_is_complete(
    project: Path,
    url: str,
    provider: Standin,
    terminal: Terminal,
    answer: Callable[[Request], str],
) -> None:
    """Figures stay, reasons say which model failed which check, and the trail holds; reuse is what is lost."""
    keep(project, url, "never")
    provider.answer(answer)
    first = run(project)
    kept = everything(url, project)
    assert PRIVATE not in kept
    assert "The desk" not in kept
    with Ledger.open(url, root=project) as ledger:
        reasons = {row.outcome.reason for row in ledger.runs.outcomes(first)}
        assert ledger.runs.resolve(first).cost_known > 0
    assert reasons == ({""} if answer is quoting else {"small: grounding"})
    assert verified(project, terminal)
    calls = provider.count
    run(project)
    assert provider.count == 2 * calls


def test_never_keeps_the_answers_of_a_failed_run_until_one_completes(
    project: Path, url: str, provider: Standin
) -> None:
    """Else what was paid would be paid twice."""
    keep(project, url, "never")
    run(project, state="failed")
    assert PRIVATE in everything(url, project)
    run(project)
    assert provider.count == 2
    assert PRIVATE not in everything(url, project)


def test_all_keeps_documents_for_a_review_when_their_source_is_gone(
    project: Path, url: str, provider: Standin, terminal: Terminal
) -> None:
    keep(project, url, "all")
    provider.answer(failing)
    run(project)
    assert DOCUMENTS[1].text in terminal("review", "latest", "b.txt", cwd=project).out


def test_an_unknown_setting_is_an_error_with_its_place(
    project: Path, url: str, terminal: Terminal
) -> None:
    keep(project, url, "some")
    done = terminal("runs", cwd=project)
    assert done.code == 2
    assert "pyproject.toml:1" in done.err
    assert "'never', 'outputs' or 'all'" in done.err


def test_texts_of_old_runs_go_and_newer_ones_stay(
    project: Path, url: str, provider: Standin, terminal: Terminal
) -> None:
    keep(project, url, "all")
    old = run(project, DOCUMENTS[0], age_days=91)
    new = run(project, DOCUMENTS[1])
    before = figures(url, project, old), figures(url, project, new)
    would = terminal("retention", "--older-than", "90d", "--dry-run", cwd=project).out
    assert PRIVATE in everything(url, project)
    done = terminal("retention", "--older-than", "90d", "--by", "ada", cwd=project)
    assert (
        done.out
        == would.replace("would delete", "deleted")
        == "deleted: 1 replies, 1 values, 1 documents\n"
    )
    kept = everything(url, project)
    assert PRIVATE not in kept
    assert DOCUMENTS[1].text in kept
    assert (figures(url, project, old), figures(url, project, new)) == before
    assert (
        terminal("retention", "--older-than", "90d", cwd=project).out
        == "deleted: nothing\n"
    )
    calls = provider.count
    run(project)
    assert provider.count == calls + 1, "only what was deleted is paid again"


def test_an_answer_that_a_newer_run_used_is_the_newer_runs_too(
    project: Path, url: str, provider: Standin, terminal: Terminal
) -> None:
    run(project, DOCUMENTS[0], age_days=91)
    run(project, DOCUMENTS[0])
    assert (
        terminal("retention", "--older-than", "90d", cwd=project).out
        == "deleted: 1 values\n"
    )
    run(project, DOCUMENTS[0])
    assert provider.count == 1


@pytest.mark.parametrize("by_hash", [False, True], ids=["id", "hash"])
def test_a_document_and_its_copies_are_deleted_from_all_runs(
    project: Path, url: str, provider: Standin, terminal: Terminal, by_hash: bool
) -> None:
    """With a person's decision about it; another document stays."""
    keep(project, url, "all")
    provider.answer(failing)
    first = run(project)
    run(project, replace(DOCUMENTS[0], id="copy.txt"))
    with Engine(Project(project), env={}) as engine:
        answer = json.dumps({"label": "billing", "evidence": PRIVATE})
        edit(
            engine.ledger,
            find_item(engine.ledger, first, "a.txt"),
            answer,
            by=By("ada", f"{PRIVATE} called"),
        )
    before = figures(url, project, first)
    name = DOCUMENTS[0].hash[:16] if by_hash else "a.txt"
    done = terminal("retention", "--document", name, "--json", cwd=project)
    assert json.loads(done.out) == {
        "replies": 1,
        "values": 0,
        "decisions": 1,
        "documents": 1,
        "recognized_files": 0,
        "dry_run": False,
    }
    kept = everything(url, project)
    assert PRIVATE not in kept
    assert DOCUMENTS[1].text in kept
    assert figures(url, project, first) == before
    provider.answer(quoting)
    run(project, DOCUMENTS[0])
    assert PRIVATE in everything(url, project), (
        "a later run asks again: the decision's answer went too"
    )


def test_a_budget_that_runs_out_after_an_answer_leaves_no_quotation_behind(
    tmp_path: Path, url: str, provider: Standin
) -> None:
    """Such a deferral quotes the answer that failed; a deletion rewrites it like any other."""
    root = make_project(
        tmp_path / "two",
        model("small", provider.url),
        model("large", provider.url),
        rules=RULES.replace("[small]", "[small, large]"),
    )
    keep(root, url, "outputs")
    provider.answer(failing)
    letter = DOCUMENTS[0]
    other_text = letter.text.replace(PRIVATE, "Mrs Morgenrot")
    as_long = replace(letter, id="other.txt", text=other_text, metadata={})

    def classified(engine: Engine, document: Document, budget_usd: Decimal) -> str:
        context = engine.start_run("inbox", budget_usd=budget_usd)
        engine.run_batch(context, CLASSIFY, Batch((document,)), LABELS)
        engine.finish_run(context, "completed")
        return context.id

    with Engine(Project(root), env={}) as engine:
        classified(engine, as_long, Decimal(1))
        reserved = "SELECT max(usd) FROM budget_entries WHERE kind = 'reserved'"
        with create_engine(engine.ledger.url).connect() as connection:
            worst_case = Decimal(
                connection.execute(text(reserved)).scalar_one()
            ).scaleb(-12)
        # enough for either model's worst case, too little for the second once the first was paid
        run_id = classified(engine, letter, worst_case + Decimal("0.000001"))
        (before,) = engine.ledger.runs.deferred(run_id)
        engine.ledger.retention.forget_document(letter.id, by="ada")
        (after,) = engine.ledger.runs.deferred(run_id)
    assert (before.cause, after.cause) == ("budget", "budget")
    assert PRIVATE in before.reason
    assert PRIVATE not in everything(url, root)
    assert after.reason == "budget: small: grounding"


def test_the_note_of_a_decision_is_deleted_from_the_runs_that_took_it_over(
    project: Path, url: str, provider: Standin
) -> None:
    """A later run's outcome repeats the reviewer's note; a deletion takes it out of both."""
    provider.answer(failing)
    first = run(project, DOCUMENTS[0])
    with Engine(Project(project), env={}) as engine:
        item = find_item(engine.ledger, first, "a.txt")
        answer = json.dumps({"label": "billing", "evidence": "none"})
        edit(engine.ledger, item, answer, by=By("ada", f"{PRIVATE} called"))
    run(project, DOCUMENTS[0])
    with Ledger.open(url, root=project) as ledger:
        ledger.retention.forget_document("a.txt", by="ada")
    assert PRIVATE not in everything(url, project)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_is_deleted_leaves_no_bytes_in_the_file(
    project: Path, terminal: Terminal, tmp_path: Path
) -> None:
    run(project)
    run(project, replace(DOCUMENTS[0], text=DOCUMENTS[0].text * 300))
    assert any(
        PRIVATE.encode() in path.read_bytes() for path in tmp_path.glob("ledger.db*")
    )
    terminal("retention", "--older-than", "0h", cwd=project)
    assert not any(
        PRIVATE.encode() in path.read_bytes() for path in tmp_path.glob("ledger.db*")
    )


def test_the_trail_holds_after_a_deletion_and_tells_of_it(
    project: Path, url: str, terminal: Terminal, provider: Standin
) -> None:
    """Its chain is over hashes; who deleted what and when is a record of its own, and sealed."""
    provider.answer(failing)
    run(project)
    before = project / "before.jsonl"
    terminal("audit", "export", "-o", before, cwd=project)
    terminal("retention", "--document", "a.txt", "--by", "ada", cwd=project)
    assert verified(project, terminal)
    assert terminal("audit", "verify", before, cwd=project).code == 0
    after = project / "after.jsonl"
    terminal("audit", "export", "-o", after, cwd=project)
    [told] = [
        r
        for r in map(json.loads, after.read_text().splitlines())
        if r["record"] == "deletion"
    ]
    assert (told["by"], told["scope"], told["removed"]["replies"]) == (
        "ada",
        {"documents": [DOCUMENTS[0].hash]},
        1,
    )


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "say what to delete"),
        (["--older-than", "90d", "--document", "a.txt"], "say what to delete"),
        (["--older-than", "soon"], "'soon' is no length of time"),
        (["--document", "nobody.txt"], "no document named 'nobody.txt'"),
    ],
)
def test_a_wrong_command_says_what_is_right(
    project: Path, terminal: Terminal, arguments: list[str], why: str
) -> None:
    run(project)
    done = terminal("retention", *arguments, cwd=project)
    assert (done.code, why in done.err) == (2, True), done.err
