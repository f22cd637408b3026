"""The audit trail: what is in it, and that nobody changes it, the ledger or its seals unnoticed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from tests.kit.ledgers import (
    DATABASES,
    DOCUMENT,
    REPLY,
    RUN,
    attempt,
    migrated_url,
    python,
    run,
)
from tests.kit.terminal import Terminal
from tierwise.audit.files import read_trail, write_trail
from tierwise.audit.verify import verify_file
from tierwise.documents import iter_documents
from tierwise.documents.redaction.redact import Redaction
from tierwise.documents.spool import Spool
from tierwise.ledger import Decision, Ledger
from tierwise.ledger.people.chain import START, Scope, digest
from tierwise.ledger.people.samples import Audit
from tierwise.records import Batch, Choice, Outcome, Rejection, Route, Verdict

SECRET = "the patient has a fever"
ROUTE = Route(
    step="classify",
    rule="confidential",
    models=("small",),
    rejected=(
        Rejection(
            "large",
            "guard confidential-stays-local: what is confidential may only go to local",
            "guard",
            detail="confidential-stays-local",
        ),
    ),
    reason="the order that the route names",
    choices=(Choice("small", Decimal("0.001"), ""),),
    features={"tags": {"subject": SECRET}},
)


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return migrated_url(request.param, tmp_path)


@pytest.fixture
def project(url: str, tmp_path: Path) -> Path:
    """A project of which only the ledger matters: two runs, the first one with a decision."""
    (tmp_path / "routing_rules").mkdir()
    (tmp_path / "pyproject.toml").write_text(f'[tool.tierwise]\nledger_url = "{url}"\n')
    with Ledger.open(url, root=tmp_path) as ledger:
        record(ledger, "run-1", started=1_790_000_000.25)
        ledger.reviews.decide(decision())
        record(ledger, "run-2", started=1_790_086_400.5)
    return tmp_path


def record(ledger: Ledger, run_id: str, *, started: float, ends: bool = True) -> None:
    """A run of one document whose answer fails a check that quotes it."""
    ledger.start_run(replace(RUN, id=run_id, started_at=started))

    async def story() -> None:
        made = attempt(
            id=f"{run_id}-1",
            call_hash=f"call of {run_id}",
            cost=Decimal("0.00075"),
            text=SECRET,
            verdicts=(
                Verdict("schema", True),
                Verdict("grounding", False, f"not in the document: {SECRET}", 0.25),
            ),
        )
        await ledger.claim(made.call_hash)
        await ledger.settle(run_id, made, replace(REPLY, text=SECRET))
        outcome = Outcome(
            step="classify",
            status="deferred",
            reason=f"small: grounding: {SECRET}",
            value={"note": SECRET},
            sensitivity="internal",
            route=ROUTE,
        )
        await ledger.record_outcome(run_id, DOCUMENT, outcome, "q" * 64)

    run(story())
    if ends:
        ledger.finish_run(run_id, "completed")


def decision(**changes: Any) -> Decision:
    usual = {
        "run_id": "run-1",
        "document_id": DOCUMENT.id,
        "document_hash": DOCUMENT.hash,
        "step": "classify",
        "question": "q" * 64,
        "decision": "edited",
        "value": {"note": SECRET},
        "sensitivity": "internal",
        "reviewer": "ada",
        "reviewed_at": 1_790_000_100.0,
        "note": SECRET,
    }
    return Decision(**usual | changes)


def exported(
    project: Path, terminal: Terminal, *arguments: str, form: str = "jsonl"
) -> Path:
    path = project / f"trail.{form}"
    done = terminal(
        "audit", "export", "--format", form, "-o", path, *arguments, cwd=project
    )
    assert done.code == 0, done.err
    return path


def sql(url: str, *statements: str) -> None:
    """What somebody does who has the database."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_every_run_attempt_outcome_and_decision_has_a_record_that_explains_it(
    project: Path, terminal: Terminal
) -> None:
    lines = [
        json.loads(line)
        for line in exported(project, terminal).read_text().splitlines()
    ]
    assert [line["record"] for line in lines] == [
        *["run", "attempt", "outcome"] * 2,
        "decision",
        "end",
    ]
    started, tried, outcome = lines[:3]
    assert (started["flow"], started["time"]) == (
        "support-inbox",
        "2026-09-21T14:13:20.250000+00:00",
    )
    assert (tried["model"], tried["tier"], tried["cost_usd"]) == (
        "small",
        "local",
        "0.00075",
    )
    assert tried["checks"] == [["schema", True, None], ["grounding", False, 0.25]]
    assert (outcome["document"], outcome["rule"], outcome["status"]) == (
        DOCUMENT.hash,
        "confidential",
        "deferred",
    )
    assert (outcome["sensitivity"], outcome["sensitivity_source"]) == (
        "internal",
        "flow",
    )
    assert outcome["rejected"][0][0] == "large"
    assert outcome["policy"] == RUN.policy_hash
    assert (lines[6]["decision"], lines[6]["by"], lines[6]["run"]) == (
        "edited",
        "ada",
        "run-1",
    )


def test_who_set_a_sensitivity_is_on_record(ledger: Ledger, tmp_path: Path) -> None:
    """The flow, the document itself, a redaction or an earlier step; also after a wait on disk."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.txt").write_text("The desk is late.")
    (inbox / "b.txt").write_text(
        "---\nsensitivity: confidential\n---\nThe desk of my patient is late."
    )
    flow, own = iter_documents(inbox, sensitivity="internal")
    lowered = Redaction(to="internal").apply(own)
    batch = Spool(tmp_path / "spool", "run-1").put(Batch((flow, own, lowered)))
    ledger.start_run(RUN)

    async def story() -> None:
        for number, document in enumerate(batch.load()):
            level = document.strictest
            outcome = Outcome(
                step="classify", status="accepted", value=1, sensitivity=level
            )
            await ledger.record_outcome(
                RUN.id, replace(document, id=str(number)), outcome
            )
        derived = Outcome(
            step="classify", status="accepted", value=1, sensitivity="restricted"
        )
        await ledger.record_outcome(RUN.id, replace(flow, id="3"), derived)

    run(story())
    [block] = ledger.seals.blocks()
    told = [
        (r["sensitivity"], r["sensitivity_source"])
        for r in block.records
        if r["record"] == "outcome"
    ]
    assert told == [
        ("internal", "flow"),
        ("confidential", "document"),
        ("internal", "redact"),
        ("restricted", "an earlier step"),
    ]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_no_text_is_in_the_trail(project: Path, terminal: Terminal, form: str) -> None:
    """Not of the document, the answer, the check that quotes it, the metadata, the decision or its note."""
    written = exported(project, terminal, form=form).read_text()
    assert SECRET not in written
    assert DOCUMENT.text not in written
    assert DOCUMENT.id not in written


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_nobody_touched_is_verified(
    project: Path, terminal: Terminal, form: str
) -> None:
    path = exported(project, terminal, form=form)
    for arguments in ([path], [path, "--alone"], []):
        done = terminal("audit", "verify", *arguments, cwd=project)
        assert (done.code, "nothing is wrong" in done.out) == (0, True), (
            done.out + done.err
        )


def test_both_formats_say_the_same(project: Path, terminal: Terminal) -> None:
    """A record's digest does not depend on the format."""
    one, two = (
        read_trail(exported(project, terminal)),
        read_trail(exported(project, terminal, form="csv")),
    )
    assert {n: [d for _, d in lines] for n, lines in one.blocks.items()} == {
        n: [d for _, d in lines] for n, lines in two.blocks.items()
    }


def swapped(lines: list[str]) -> list[str]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (
            lambda lines: [lines[0].replace("run-1", "run-9"), *lines[1:]],
            "line {0} was changed",
        ),
        (
            lambda lines: [
                *lines[:2],
                lines[2].replace("internal", "public"),
                *lines[3:],
            ],
            "line {2} was changed",
        ),
        (lambda lines: [*lines[:3], *lines[4:]], "line {3} does not follow line {2}"),
        (lambda lines: lines[1:], "line {0} does not follow the start"),
        (swapped, "line {1} does not follow line {0}"),
        (
            lambda lines: [*lines[:4], lines[3], *lines[4:]],
            "line {4} does not follow line {3}",
        ),
        (lambda lines: lines[:-1], "ends after line {6} without its end record"),
        (lambda lines: lines[:4], "ends after line {3} without its end record"),
        (lambda lines: [*lines, lines[1]], "line {8} comes after the end record"),
    ],
    ids=[
        "first changed",
        "changed",
        "removed",
        "first removed",
        "swapped",
        "repeated",
        "end cut",
        "cut",
        "added",
    ],
)
def test_a_file_that_was_tampered_with_is_told_by_its_line(
    project: Path,
    terminal: Terminal,
    form: str,
    harm: Callable[[list[str]], list[str]],
    told: str,
) -> None:
    path = exported(project, terminal, form=form)
    head, lines = (1 if form == "csv" else 0), path.read_text().splitlines()
    path.write_text("\n".join([*lines[:head], *harm(lines[head:])]) + "\n")
    done = terminal("audit", "verify", path, "--alone", cwd=project)
    assert done.code == 1
    assert told.format(*range(1 + head, 20)) in done.out, done.out


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A sound file's lines, and a place for others."""
    folder = tmp_path_factory.mktemp("trail")
    with Ledger.open(migrated_url("sqlite", folder), root=folder) as ledger:
        record(ledger, "run-1", started=5.0)
        ledger.reviews.decide(decision())
        with (folder / "trail").open("w") as file:
            write_trail(file, ledger.seals.blocks(), Scope(), None, "jsonl")
    return folder / "trail", (folder / "trail").read_text().splitlines()


@given(data=st.data())
def test_any_other_order_or_choice_of_the_lines_is_found(
    sound: tuple[Path, list[str]], data: st.DataObject
) -> None:
    path, lines = sound
    others = data.draw(
        st.lists(st.sampled_from(lines), min_size=1, max_size=8).filter(
            lambda some: some != lines
        )
    )
    path.write_text("".join(f"{line}\n" for line in others))
    assert verify_file(path, None).faults


def forged(
    path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    """Change records and make the whole chain anew, as somebody would who knows how it is made."""
    rows, head = (
        change([json.loads(line) for line in path.read_text().splitlines()]),
        START,
    )
    lines = []
    for row in rows:
        content = {k: v for k, v in row.items() if k != "hash"} | {"previous": head}
        head = digest(content)
        lines.append(json.dumps(content | {"hash": head}))
    path.write_text("".join(f"{line}\n" for line in lines))


def cheaper(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows[1]["cost_usd"] = "0.00001"
    return rows


def without_the_second_run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        row | {"records": 4} if row["record"] == "end" else row
        for row in rows
        if row.get("run") != "run-2"
    ]


def with_a_run_of_its_own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0] | {"run": "run-0"}, *rows[:-1], rows[-1] | {"records": 8}]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (cheaper, "line 2: not what the ledger has"),
        (without_the_second_run, "run run-2 is missing from the file"),
        (with_a_run_of_its_own, "line 1: the ledger has no run run-0"),
    ],
)
def test_a_file_whose_chain_was_made_anew_is_found_by_the_ledger(
    project: Path, terminal: Terminal, change: Callable[..., Any], told: str
) -> None:
    path = exported(project, terminal)
    forged(path, change)
    assert terminal("audit", "verify", path, "--alone", cwd=project).code == 0
    done = terminal("audit", "verify", path, cwd=project)
    assert (done.code, told in done.out) == (1, True), done.out


CHANGED_ROWS = [
    (
        "UPDATE attempts SET cost = 1 WHERE run_id = 'run-1'",
        "run run-1: a record in the ledger was changed",
    ),
    (
        "UPDATE attempts SET model = 'large' WHERE run_id = 'run-1'",
        "run run-1: a record in the ledger was changed",
    ),
    (
        "UPDATE verdicts SET passed = true WHERE attempt_id = 'run-1-1'",
        "run run-1: a record in the ledger was changed",
    ),
    (
        "UPDATE outcomes SET status = 'accepted'",
        "run run-2: a record in the ledger was changed",
    ),
    (
        "UPDATE outcomes SET sensitivity = 'public'",
        "run run-2: a record in the ledger was changed",
    ),
    (
        "UPDATE runs SET policy_hash = 'x' WHERE id = 'run-2'",
        "run run-2: a record in the ledger was changed",
    ),
    (
        "DELETE FROM outcomes WHERE run_id = 'run-2'",
        "run run-2: the ledger has 2 records, 3 were sealed",
    ),
    (
        "UPDATE reviews SET reviewer = 'bob'",
        "decision 1: a record in the ledger was changed",
    ),
    ("DELETE FROM reviews", "decision 1 was sealed, and is no longer in the ledger"),
    (
        "DELETE FROM seals WHERE seq = 2",
        "seal 3 (run run-2) does not follow the one before",
    ),
    ("DELETE FROM seals WHERE seq = 3", "run run-2 has no seal"),
    (
        "UPDATE seals SET head = previous WHERE seq = 2",
        "seal 2 (decision 1) was changed",
    ),
    (
        "UPDATE outcomes SET value = '{}' WHERE run_id = 'run-1'",
        "run run-1: the value of a.txt, classify, was changed",
    ),
    ("UPDATE reviews SET note = 'fine'", "decision 1: its value or note was changed"),
    (
        "UPDATE calls SET reply = replace(reply, 'fever', 'cold') WHERE attempt_id = 'run-1-1'",
        "run run-1: an answer for a.txt, classify, was changed",
    ),
]


@pytest.mark.parametrize(
    ("statement", "told"), CHANGED_ROWS, ids=[told for _, told in CHANGED_ROWS]
)
def test_a_ledger_that_was_changed_is_found_by_its_seals(
    project: Path, url: str, terminal: Terminal, statement: str, told: str
) -> None:
    sql(url, statement)
    done = terminal("audit", "verify", cwd=project)
    assert (done.code, told in done.out) == (1, True), done.out


def test_an_old_file_tells_a_changed_ledger_and_where(
    project: Path, url: str, terminal: Terminal
) -> None:
    path = exported(project, terminal)
    sql(url, "UPDATE attempts SET cost = 1 WHERE run_id = 'run-1'")
    done = terminal("audit", "verify", path, cwd=project)
    assert done.code == 1
    assert (
        "line 2: the file has what was sealed, the ledger has something else"
        in done.out
    )


def test_a_file_kept_elsewhere_tells_a_ledger_whose_seals_were_all_made_anew(
    project: Path, url: str, terminal: Terminal, tmp_path: Path
) -> None:
    """Who can write the database can seal it again; then only a copy tells."""
    path = exported(project, terminal)
    sql(url, "UPDATE attempts SET cost = 1", "DELETE FROM seals")
    with Ledger.open(url, root=tmp_path) as ledger:
        ledger.seals.seal_run("run-1")
        ledger.seals.seal_run("run-2")
    done = terminal("audit", "verify", path, cwd=project)
    assert done.code == 1
    assert "seal 3 is not what it was when the file was written" in done.out


def test_a_run_under_way_is_exported_with_a_note_and_differs_once_it_has_ended(
    project: Path, url: str, terminal: Terminal, tmp_path: Path
) -> None:
    with Ledger.open(url, root=tmp_path) as ledger:
        record(ledger, "run-3", started=1_790_090_000.0, ends=False)
        path = exported(project, terminal)
        done = terminal("audit", "verify", path, cwd=project)
        assert done.code == 0
        assert "run run-3 has not ended: no seal vouches for its 3 records" in done.err
        ledger.finish_run("run-3", "completed")
    done = terminal("audit", "verify", path, cwd=project)
    assert done.code == 1
    assert (
        "line 7: not what the ledger has; changed, or written before the run had ended"
        in done.out
    )


def test_a_run_or_a_time_can_be_asked_for(project: Path, terminal: Terminal) -> None:
    def runs(*arguments: str) -> list[tuple[str, str | None]]:
        path = exported(project, terminal, *arguments)
        assert terminal("audit", "verify", path, cwd=project).code == 0
        return [
            (row["record"], row.get("run"))
            for row in map(json.loads, path.read_text().splitlines())
        ]

    one = [
        ("run", "run-1"),
        ("attempt", "run-1"),
        ("outcome", "run-1"),
        ("decision", "run-1"),
        ("end", None),
    ]
    assert runs("--run", "run-1") == one
    later = [
        ("run", "run-2"),
        ("attempt", "run-2"),
        ("outcome", "run-2"),
        ("end", None),
    ]
    assert runs("--since", "2026-09-22T01:00+00:00") == later


def test_a_spreadsheet_can_read_the_csv(project: Path, terminal: Terminal) -> None:
    with exported(project, terminal, form="csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[1]["record"], rows[1]["cost_usd"], rows[2]["sensitivity"]) == (
        "attempt",
        "0.00075",
        "internal",
    )


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["export", "--format", "xml"], "no format 'xml'; use jsonl or csv"),
        (["export", "--since", "yesterday"], "--since 'yesterday' is not a date"),
        (["export", "--run", "nobody"], "no run named 'nobody'"),
        (["export", "-o", "no/such/folder/file"], "cannot be written"),
        (["verify", "nowhere.jsonl"], "cannot be read"),
        (["verify", "pyproject.toml"], "is no audit trail"),
        (["verify", "--alone"], "name the file"),
    ],
)
def test_a_wrong_command_says_what_is_right(
    project: Path, terminal: Terminal, arguments: list[str], why: str
) -> None:
    done = terminal("audit", *arguments, cwd=project)
    assert (done.code, why in done.err) == (2, True), done.err


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(url, root=tmp_path) as opened:
        yield opened


def test_a_run_is_sealed_once(ledger: Ledger) -> None:
    """Sealing it again would hide what was changed between."""
    record(ledger, "run-1", started=5.0)
    before = list(ledger.seals.in_order())
    ledger.seals.seal_run("run-1")
    ledger.finish_run("run-1", "failed")
    assert list(ledger.seals.in_order()) == before


DIES = """
import sys
from pathlib import Path
from tests.test_audit import record
from tierwise.ledger import Ledger

ledger = Ledger.open(sys.argv[1], root=Path(sys.argv[2]))
record(ledger, "run-3", started=1_790_090_000.0, ends=False)
print("ready", flush=True)
sys.stdin.read()
"""
AGED = "UPDATE outcomes SET recorded_at = recorded_at - 3600 WHERE run_id = 'run-3'"


def killed(url: str, folder: Path) -> None:
    """A process that started a run, and was killed."""
    process = python(DIES, url, str(folder))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    process.kill()
    process.wait()


def lines_of(path: Path, record_kind: str) -> list[dict[str, Any]]:
    return [
        row
        for row in map(json.loads, path.read_text().splitlines())
        if row["record"] == record_kind
    ]


def verify(project: Path, terminal: Terminal) -> list[str]:
    """The ledger's faults."""
    faults: list[str] = json.loads(
        terminal("audit", "verify", "--json", cwd=project).out
    )["faults"]
    return faults


def test_a_run_whose_process_was_killed_is_ended_on_record_and_sealed(
    project: Path, url: str, terminal: Terminal, tmp_path: Path
) -> None:
    """At the next export, or when the next run starts, such as the one that goes on with its work."""
    killed(url, tmp_path)
    path = exported(project, terminal)
    assert lines_of(path, "run")[-1]["state"] == "running", (
        "others may have worked for it a moment ago"
    )
    sql(url, AGED)
    done = terminal("audit", "export", "-o", path, cwd=project)
    assert (
        "run run-3: its process is gone; it is now on record as crashed, and sealed"
        in done.err
    )
    dead = lines_of(path, "run")[-1]
    assert (dead["run"], dead["state"], "ended" in dead) == ("run-3", "crashed", True)
    assert "crashed" not in terminal("audit", "export", "-o", path, cwd=project).err, (
        "once is enough"
    )
    with Ledger.open(url, root=tmp_path) as ledger:
        record(ledger, "run-4", started=1_790_095_000.0)
    assert verify(project, terminal) == []
    exported(project, terminal)
    with Ledger.open(url, root=tmp_path) as ledger:
        report = verify_file(path, ledger.seals)
    assert (report.faults, report.notes) == ([], [])
    sql(url, "UPDATE attempts SET cost = 1 WHERE run_id = 'run-3'")
    assert verify(project, terminal) == [
        "run run-3: a record in the ledger was changed after it was sealed"
    ]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_next_runs_start_ends_what_crashed(
    project: Path, url: str, tmp_path: Path
) -> None:
    killed(url, tmp_path)
    sql(url, AGED)
    with Ledger.open(url, root=tmp_path) as ledger:
        record(ledger, "run-4", started=1_790_095_000.0)
        assert (
            ledger.runs.resolve("run-3").state,
            ledger.runs.resolve("run-4").state,
        ) == (
            "crashed",
            "completed",
        )
        assert [(seal.kind, seal.subject) for seal in ledger.seals.in_order()][-2:] == [
            ("crash", "run-3"),
            ("run", "run-4"),
        ]


def test_a_run_elsewhere_lives_as_long_as_its_lease(
    project: Path, url: str, terminal: Terminal, tmp_path: Path
) -> None:
    """One that comes back all the same ends as any other, and the seal of that end counts."""
    with Ledger.open(url, root=tmp_path) as ledger:
        record(ledger, "run-3", started=1_790_090_000.0, ends=False)
        sql(url, AGED)
        assert ledger.seals.end_crashed() == [], (
            "this process lives, however long nothing is recorded"
        )
        sql(url, "UPDATE runs SET owner = 'elsewhere 1 a' WHERE id = 'run-3'")
        assert ledger.seals.end_crashed() == []
        sql(url, "UPDATE runs SET lease_until = 1790090000 WHERE id = 'run-3'")
        assert ledger.seals.end_crashed() == ["run-3"]
        assert verify(project, terminal) == []

        async def goes_on() -> None:
            outcome = Outcome(
                step="draft", status="accepted", value=1, sensitivity="internal"
            )
            await ledger.record_outcome("run-3", DOCUMENT, outcome)

        run(goes_on())
        [fault] = verify(project, terminal)
        assert (
            "run run-3: the ledger has 4 records, 3 were sealed; its process was taken for dead"
            in fault
        )
        ledger.finish_run("run-3", "completed")
        assert ledger.runs.resolve("run-3").state == "completed"
    assert verify(project, terminal) == []


def labelled(ledger: Ledger) -> None:
    """One answer that a person called right, and a second person called wrong."""
    audit = Audit(
        id="a1.accepted",
        run_id="run-1",
        document_id=DOCUMENT.id,
        document_hash=DOCUMENT.hash,
        step="classify",
        model="small",
        identity="i" * 64,
        value={"note": SECRET},
        accepted_model="small",
        accepted={"note": SECRET},
        agreed=None,
        recorded_at=1_790_000_050.0,
    )
    shadow = replace(
        audit, id="a1.shadow", model="tiny", agreed=False, value={"note": "else"}
    )
    run(ledger.samples.record([audit, shadow]))
    ledger.samples.label("a1", "accepted", "ada")
    ledger.samples.label("a1", "shadow", "bob")


def test_every_word_of_a_person_on_an_audit_is_in_the_trail(
    project: Path, url: str, terminal: Terminal, tmp_path: Path
) -> None:
    """Who said what, when, of which answers: the later word replaces the first one, and both stay on record."""
    with Ledger.open(url, root=tmp_path) as ledger:
        labelled(ledger)
    path = exported(project, terminal)
    words = lines_of(path, "label")
    assert [(row["decision"], row["by"], row["item"]) for row in words] == [
        ("accepted", "ada", "a1"),
        ("shadow", "bob", "a1"),
    ]
    assert (words[0]["model"], words[0]["shadow"], words[0]["document"]) == (
        "small",
        "tiny",
        DOCUMENT.hash,
    )
    assert words[0]["time"] <= words[1]["time"]
    assert SECRET not in path.read_text()
    for form in ("jsonl", "csv"):
        assert (
            terminal(
                "audit", "verify", exported(project, terminal, form=form), cwd=project
            ).code
            == 0
        )
    assert verify(project, terminal) == []


CHANGED_LABELS = [
    (
        "UPDATE labels SET reviewer = 'eve' WHERE seq = 1",
        "label 1: a record in the ledger was changed",
    ),
    (
        "UPDATE labels SET word = 'both' WHERE seq = 2",
        "label 2: a record in the ledger was changed",
    ),
    (
        "DELETE FROM labels WHERE seq = 1",
        "label 1 was sealed, and is no longer in the ledger",
    ),
    (
        "UPDATE audits SET \"right\" = true WHERE id = 'a1.accepted'",
        "audit a1.accepted: its label is not the one on",
    ),
    (
        "UPDATE audits SET \"right\" = NULL WHERE id = 'a1.accepted'",
        "audit a1.accepted: its label is not the one on",
    ),
    (
        "UPDATE audits SET reviewer = 'ada' WHERE id = 'a1.shadow'",
        "audit a1.shadow: its label is not the one on",
    ),
]


@pytest.mark.parametrize(
    ("statement", "told"),
    CHANGED_LABELS,
    ids=[statement for statement, _ in CHANGED_LABELS],
)
def test_a_label_that_was_changed_is_found(
    project: Path,
    url: str,
    terminal: Terminal,
    tmp_path: Path,
    statement: str,
    told: str,
) -> None:
    """Also where evidence reads it: there it decides which certificates count."""
    with Ledger.open(url, root=tmp_path) as ledger:
        labelled(ledger)
    sql(url, statement)
    assert any(told in fault for fault in verify(project, terminal))
