"""A ledger that version 0.1.0 wrote, carried through every command of today.

`ledgers_of_old/0.1.0` holds the ledger as SQL and its project. The README there says how they were
made. These tests are the tests of every migration: a new one has to pass them unchanged.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from alembic import command
from alembic.config import Config
from sqlalchemy import Boolean, MetaData, Table, create_engine, text

from tests.kit.ledgers import fresh_url
from tests.kit.modules import modules_apart
from tests.kit.old_project import LEDGER, restore
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Done, Terminal
from tierwise.cli.program import app
from tierwise.ledger import Ledger
from tierwise.ledger.database import MIGRATIONS

# Runs of the old ledger.
MEASURED = "20261128-045240-9c7e"  # certified small for classify
DIED = "20261128-045243-cc31"  # its process died; sealed as crashed since
MORNING = "20261128-045248-fb48"  # planned; ten letters, with answers of every kind
NOON = "20261128-045249-e5b5"
REDACTED = "20261128-045250-9af7"
# the budget ended after an answer that the reason quotes
QUOTED = "20261128-045255-c577"
STOPPED = "20261128-045300-765f"  # by a person, before its end
RETRIED = "20261128-045258-53dd"  # MORNING once more, after a person had decided
LEFT = "20261128-045356-565f"  # its process died, and no command has noticed yet

RUN_BUDGET = f"run {RETRIED}"
EDITED_ANSWER = "We bring a new leg on Friday."


@dataclass(frozen=True)
class Use:
    """One use of a command: its arguments, the words it has to print, and its exit code."""

    arguments: tuple[str, ...]
    shows: tuple[str, ...]
    code: int = 0
    needs_prefect: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """Such as `show latest`, for the list of tests."""
        return " ".join(self.arguments)[:60]


def use(words: str, *shows: str, code: int = 0, needs_prefect: bool = False) -> Use:
    """Make a use of words without spaces in them."""
    return Use(tuple(words.split()), shows, code, needs_prefect=needs_prefect)


USES: dict[str, list[Use]] = {
    "canaries": [use("canaries --yes", "no certificate is suspended")],
    "runs": [
        use("runs", MORNING, DIED),
        use("runs --json", '"crashed"', '"cancelled"', LEFT),
    ],
    "show": [
        use("show", "20261128-045300-1e2b"),
        use(f"show {MORNING} --documents", "02-wardrobe.txt", "09-scan.pdf", "Planned"),
        use(f"show {QUOTED}", "budget"),
        use(f"show {DIED} --json", '"crashed"'),
        use(f"show {NOON} --csv", "classify"),
        use(f"show {REDACTED} --documents", "32-note.md", "redact"),
        use(f"show {MEASURED}", "small"),
        use(f"show {RETRIED}", RETRIED),
    ],
    "report": [
        use(f"report {MORNING} --out old.html", "old.html"),
        use("report --since 9000w --out all.html", "all.html"),
    ],
    "explain": [
        use(f"explain 02-wardrobe.txt --run {MORNING}", "medium", "grounding"),
        use(
            f"explain 05-operation.md classify --run {MORNING}",
            "confidential-stays-local",
        ),
        use(
            f"explain 51-wardrobe.txt --run {QUOTED} --json", "budget: small: grounding"
        ),
        use("explain --step classify --tokens 100 --sensitivity internal", "sorting"),
    ],
    "review": [
        use(f"review {MORNING}", "07-piano.txt"),
        use(f"review {MORNING} 10-table.txt --step reply", EDITED_ANSWER, "ada"),
        use(
            f"review {MORNING} 07-piano.txt --step classify --reject --by eve",
            "rejected by eve",
        ),
        use(f"review {RETRIED} --json", "07-piano.txt"),
    ],
    "retry": [
        use(
            f"retry {MORNING} --json",
            f"run {MORNING} are asked again",
            needs_prefect=True,
        )
    ],
    "resume": [
        use(f"resume {STOPPED} --json", '"completed"', needs_prefect=True),
        use(f"resume {MORNING}", MORNING, code=2),
    ],
    "run": [
        use(
            "run post --source documents/noon --out out/noon --json",
            '"completed"',
            needs_prefect=True,
        ),
    ],
    "plan": [
        use("plan post --source documents/noon --json", "post", needs_prefect=True)
    ],
    "batches": [use("batches", "no batch is open"), use("batches --all --json", "[]")],
    "budgets": [
        use("budgets", "claims", RUN_BUDGET),
        Use(("budgets", RUN_BUDGET), ("the week before the fair", "granted")),
        Use(
            ("budgets", RUN_BUDGET, "--add", "1", "--note", "later"),
            ("the week before the fair", "later"),
        ),
    ],
    "label": [
        use("label --list", "wait for a label", "classify"),
        use("label --json", '"queue"', MORNING[:8]),
    ],
    "audit export": [
        use("audit export", DIED, '"decision"', "ada"),
        use("audit export --format csv", MORNING),
    ],
    "audit verify": [use("audit verify", "nothing is wrong")],
    "reprice": [use("reprice", "no price in the catalog", "Nothing to change")],
    "retention": [
        use("retention --older-than 0h --dry-run --by eve", "would delete"),
        use("retention --document 51-wardrobe.txt --by eve", "deleted"),
        use("retention --older-than 0h --by eve", "deleted"),
    ],
    "export": [
        use(
            "export --step reply --sensitivity-max restricted --validation 0",
            "a person rejected the answer",
        )
    ],
    "try": [
        use(
            "try classify documents/noon/22-shelf.txt -m small --sensitivity internal",
            "small",
        )
    ],
    "golden add": [use(f"golden add {MORNING}", "reply")],
    "golden samples": [use("golden samples reply", "sample", code=2)],
    "diff": [
        use(
            "diff routing_rules/rules.yaml routing_rules/rules.yaml --since 9000w",
            "decisions about",
        )
    ],
    "doctor": [use("doctor", "17 runs")],
    "status": [use("status", "not decided", code=1)],
    "check": [use("check --no-flows", "no error")],
    "models": [use("models", "small", "POST_KEY_OF_NOBODY")],
    "certify": [
        use("certify classify -m small --threshold none --yes --json", '"n": 16'),
        use(
            "certify reply -m medium --judge large --yes --json", '"judged_by": "large"'
        ),
    ],
    "calibrate": [
        use(
            "calibrate small --gpu-hour-usd 1 --documents documents/noon --sensitivity internal"
            " --seconds 1 --most 1 --dry-run",
            "Knee",
        )
    ],
    "replay": [use("replay --fit past.csv --on past.csv --labels 6", "items")],
    "new step": [use("new step urgency", "tasks/urgency.py")],
    "new flow": [use("new flow night_post --step classify", "flows/night_post.py")],
    "down": [use("down", "nothing runs")],
}

# Commands that open no ledger and start services, download or train, with the reason.
LEFT_OUT = {
    "docs": "prints pages of the documentation, and looks at no ledger",
    "init": "makes a project, which has no ledger yet",
    "fetch": "downloads weights, and looks at no ledger",
    "train": "learns from labelled files alone, for a model that this project does not have",
    "distil": "asks a teacher as certify does, for a classifier that this project does not have",
    "up": "starts services that stay; they open no ledger",
    "desk add": "asks for a password, and looks at no ledger",
    "desk remove": "changes the password file, and looks at no ledger",
    "desk people": "lists the password file, and looks at no ledger",
    "ui": "starts Prefect's server and waits; it opens no ledger",
}


def answer(request: Request) -> str:
    """Return a valid answer to a call that the old ledger has no reply to."""
    names = set((request.schema or {}).get("properties", {}))
    if "label" in names:
        return json.dumps({"label": "order", "evidence": request.document.split()[0]})
    if names & {"summary", "reply"}:
        return json.dumps(
            {name: " ".join(request.document.split()[:6]) for name in names}
        )
    return json.dumps({name: {"reason": "it does", "met": True} for name in names})


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old project after the version of today has opened, and so migrated, its ledger."""
    root = restore(tmp_path_factory.mktemp("old") / "project")
    Ledger.open(root=root).close()
    return root


@pytest.fixture
def project(
    opened: Path, tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A copy for one test, which imports its own `flows` and `tasks`, not this repository's."""
    root = tmp_path / "project"
    shutil.copytree(opened, root)
    rows = [
        f"{item},sort,{100 + item},{model},{tier},{score},{cost}"
        for item in range(12)
        for model, tier, score, cost in (
            ("small", "local", item % 2, 0.001),
            ("large", "proprietary", 1, 0.01),
        )
    ]
    (root / "past.csv").write_text(
        "\n".join(["item,step,prompt_tokens,model,tier,score,cost_usd", *rows]) + "\n"
    )
    standin.answer(answer)
    monkeypatch.setenv("POST_SERVER", standin.url)
    with modules_apart():
        yield root


def commands(group: click.Group, above: str = "") -> Iterator[str]:
    """Yield the names of all commands, as they are typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if hasattr(found, "list_commands"):
            yield from commands(found, f"{above}{name} ")  # type: ignore[arg-type]
        else:
            yield f"{above}{name}"


def test_every_command_is_tried_with_the_old_ledger_or_left_out_for_a_reason() -> None:
    """A new command is listed here, or this fails."""
    named = {*USES, *LEFT_OUT}
    assert named == set(commands(typer.main.get_command(app)))  # type: ignore[arg-type]
    assert not USES.keys() & LEFT_OUT.keys()


def succeeded(done: Done, used: Use) -> None:
    """Check how a command ended, and what it printed."""
    printed = done.out + done.err
    assert done.code == used.code, printed
    assert "Traceback" not in printed
    for words in used.shows:
        assert words in printed


@pytest.mark.parametrize(
    "used",
    [
        pytest.param(used, id=used.name)
        for uses in USES.values()
        for used in uses
        if not used.needs_prefect
    ],
)
def test_a_command_works_with_the_old_ledger(
    used: Use, terminal: Terminal, project: Path
) -> None:
    succeeded(terminal(*used.arguments, cwd=project), used)


@pytest.mark.parametrize(
    "used",
    [used for uses in USES.values() for used in uses if used.needs_prefect],
    ids=lambda used: used.name,
)
def test_a_flow_continues_with_the_old_ledger(
    used: Use, prefect_server: str, terminal: Terminal, project: Path
) -> None:
    succeeded(terminal(*used.arguments, cwd=project), used)


def test_answers_that_were_paid_then_are_asked_for_once_more(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    """A call of 0.1.0 does not say which address answered, so its answer proves nothing today."""
    command = [
        "certify",
        "classify",
        "-m",
        "small",
        "--threshold",
        "none",
        "--yes",
        "--json",
    ]
    [row] = json.loads(terminal(*command, cwd=project).out)
    assert row["n"] == 16
    asked = standin.count
    assert asked == 16
    assert json.loads(terminal(*command, cwd=project).out) == [row]
    assert standin.count == asked


# ---- the migration ------------------------------------------------------------------------------

# Tables and columns of 0.1.0 that have another name today.
TABLES: dict[str, str] = {}
COLUMNS: dict[tuple[str, str], str] = {}

KEYS = {
    "runs": ("id",),
    "attempts": ("id",),
    "calls": ("call_hash",),
    "verdicts": ("attempt_id", "check"),
    "outcomes": ("run_id", "document_id", "step"),
    "audits": ("id",),
    "labels": ("seq",),
    "reviews": ("seq",),
    "questions": ("hash",),
    "texts": ("document_hash",),
    "deletions": ("seq",),
    "seals": ("seq",),
    "budgets": ("name",),
    "reservations": ("id", "budget"),
    "budget_entries": ("seq",),
}


def rows_of(ledger: Path, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table as the database has them."""
    with closing(sqlite3.connect(ledger)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f'SELECT * FROM "{table}"')]


def kept(before: Any, now: Any) -> bool:
    """Return True if a value is the same. JSON may have more fields, but none that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(
            name in now and kept(value, now[name]) for name, value in before.items()
        )
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(kept, before, now))
    if (
        isinstance(before, str)
        and isinstance(now, str)
        and before != now
        and before[:1] in ("{", "[")
    ):
        return kept(json.loads(before), json.loads(now))
    return bool(before == now)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger's file as version 0.1.0 left it."""
    return restore(tmp_path_factory.mktemp("original") / "project") / LEDGER


def test_the_old_ledger_has_something_of_everything(original: Path) -> None:
    """The other tests rely on this."""

    def values(table: str, column: str) -> set[Any]:
        return {row[column] for row in rows_of(original, table)}

    assert all(rows_of(original, table) for table in KEYS)
    assert values("runs", "state") == {
        "completed",
        "crashed",
        "failed",
        "cancelled",
        "running",
    }
    assert values("attempts", "kind") == {
        "first",
        "retry",
        "fallback",
        "escalation",
        "repair",
        "judge",
        "shadow",
    }
    assert values("attempts", "error") == {
        None,
        "ContentRefused",
        "RateLimited",
        "Overloaded",
    }
    assert values("outcomes", "status") == {
        "accepted",
        "deferred",
        "skipped",
        "rejected",
    }
    assert values("reviews", "decision") == {
        "approved",
        "edited",
        "rejected",
        "reopened",
    }
    assert values("labels", "word") == {"accepted", "shadow", "both", "neither"}
    assert values("seals", "kind") == {"run", "crash", "decision", "label", "deletion"}
    assert values("budget_entries", "kind") == {
        "reserved",
        "settled",
        "lost",
        "granted",
    }
    waits = {
        row["reason"]
        for row in rows_of(original, "outcomes")
        if row["status"] == "deferred"
    }
    for reason in (
        "the file is damaged",  # at the step read
        "budget: small: the call may cost",
        # quotes an answer
        "budget: small: grounding: words that are not in the letter",
        "waits for a person's review",
        "small: grounding:",
        "small: the provider's content filter refused",
        "no acceptable model is left",
    ):
        assert any(waiting.startswith(reason) for waiting in waits), reason


@pytest.mark.parametrize("table", KEYS)
def test_every_row_is_still_there_after_the_migration_with_the_same_values(
    table: str, original: Path, opened: Path
) -> None:
    """Columns and fields in JSON may be added, but none may change or go."""
    now = {
        tuple(row[COLUMNS.get((table, column), column)] for column in KEYS[table]): row
        for row in rows_of(opened / LEDGER, TABLES.get(table, table))
    }
    before = rows_of(original, table)
    assert len(now) == len(before)
    for row in before:
        key = tuple(row[column] for column in KEYS[table])
        changed = {
            column: (value, now[key][COLUMNS.get((table, column), column)])
            for column, value in row.items()
            if not kept(value, now[key][COLUMNS.get((table, column), column)])
        }
        assert not changed, key


def test_what_the_ledger_says_of_an_old_run_is_what_it_said(opened: Path) -> None:
    """This reads through the ledger's methods, not its tables."""
    with Ledger.open(root=opened) as ledger:
        # The run that was left died before its first document, so it is not the latest.
        assert ledger.runs.resolve("latest").id == "20261128-045300-1e2b"
        run = ledger.runs.resolve(MORNING)
        assert (run.flow, run.state, run.tags, run.tierwise_version) == (
            "post",
            "completed",
            {"team": "claims"},
            "0.1.0",
        )
        assert (run.documents, run.deferred, run.plan is None) == (10, 3, False)
        [row] = ledger.runs.outcomes(MORNING, "02-wardrobe.txt", step="classify")
        assert (row.outcome.status, row.outcome.model, row.outcome.value["label"]) == (
            "accepted",
            "medium",
            "complaint",
        )
        assert row.outcome.route is not None
        assert row.outcome.route.models == ("small", "medium", "large")
        tried = list(ledger.runs.attempts(MORNING, "02-wardrobe.txt", "classify"))
        assert [(a.model, a.kind) for a in tried] == [
            ("small", "first"),
            ("medium", "escalation"),
        ]
        assert [
            verdict.check
            for a in tried
            for verdict in a.verdicts
            if verdict.passed is False
        ] == ["grounding"]


def test_the_seals_of_then_are_accepted_and_still_find_a_change(
    terminal: Terminal, project: Path
) -> None:
    """Ledger and export are in order until an old row is changed."""
    assert terminal("audit", "verify", cwd=project).code == 0
    assert terminal("audit", "export", "-o", "trail.jsonl", cwd=project).code == 0
    assert terminal("audit", "verify", "trail.jsonl", cwd=project).code == 0
    with closing(sqlite3.connect(project / LEDGER)) as connection:
        connection.execute(
            "UPDATE attempts SET cost = cost + 1 WHERE run_id = ? AND kind = 'escalation'",
            (MORNING,),
        )
        connection.commit()
    done = terminal("audit", "verify", cwd=project)
    assert done.code == 1
    assert MORNING in done.out


def test_a_run_whose_process_died_is_ended_now(
    terminal: Terminal, project: Path
) -> None:
    """Its lease ended long ago."""
    assert terminal("audit", "export", "-o", "trail.jsonl", cwd=project).code == 0
    states = {
        run["id"]: run["state"]
        for run in json.loads(terminal("runs", "--json", cwd=project).out)
    }
    assert (states[DIED], states[LEFT]) == ("crashed", "crashed")


# ---- the same in PostgreSQL ---------------------------------------------------------------------

SCHEMA_OF_THEN = "0005"


@pytest.fixture
def project_on_postgresql(project: Path, original: Path, tmp_path: Path) -> Path:
    """The project with its ledger in PostgreSQL, in the schema of version 0.1.0."""
    url = fresh_url("postgresql", tmp_path)
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, SCHEMA_OF_THEN)
        tables = MetaData()
        tables.reflect(connection)
        for table in tables.sorted_tables:
            if table.name in KEYS:
                connection.execute(
                    table.insert(),
                    [
                        _with_booleans(table, row)
                        for row in rows_of(original, table.name)
                    ],
                )
                if "seq" in table.columns:
                    sequence = f"pg_get_serial_sequence('{table.name}', 'seq')"
                    newest = f"SELECT setval({sequence}, max(seq)) FROM {table.name}"
                    connection.execute(text(newest))
    engine.dispose()
    (project / LEDGER).unlink()
    (project / "pyproject.toml").write_text(
        f'[tool.tierwise]\nkeep_text = "all"\nledger_url = "{url}"\n'
    )
    return project


def _with_booleans(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of SQLite with booleans in place of its numbers."""
    booleans = {
        column.name for column in table.columns if isinstance(column.type, Boolean)
    }
    return {
        name: bool(value) if name in booleans and value is not None else value
        for name, value in row.items()
    }


def test_an_old_ledger_in_postgresql_is_migrated_and_works(
    terminal: Terminal, project_on_postgresql: Path
) -> None:
    for command_name in (
        "runs",
        "show",
        "report",
        "explain",
        "review",
        "budgets",
        "audit verify",
        "doctor",
        "retention",
    ):
        for used in USES[command_name]:
            succeeded(terminal(*used.arguments, cwd=project_on_postgresql), used)


def test_an_old_reason_that_ends_with_the_budget_loses_its_quotation(
    terminal: Terminal, project: Path
) -> None:
    """The migration marks reasons that quote an answer, so that a deletion rewrites them."""
    ledger = project / ".tierwise" / "ledger.db"
    quoted = "words that nobody wrote about the wardrobe"
    assert any(quoted in str(row) for row in rows_of(ledger, "outcomes"))
    done = terminal("retention", "--document", "51-wardrobe.txt", cwd=project)
    assert done.code == 0, done.err
    assert not any(quoted in str(row) for row in rows_of(ledger, "outcomes"))
