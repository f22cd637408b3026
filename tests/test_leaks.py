"""No key ever gets anywhere, and no document text where it does not belong, whatever goes wrong."""

from __future__ import annotations

import json
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel, field_validator

from tests.kit.ledgers import DATABASES, migrated_url
from tests.kit.projects import make_project, model
from tests.kit.standin import OK, Fault, Standin, raw, status
from tests.kit.steps import CLASSIFY, GOOD, LABELS
from tests.kit.terminal import Terminal
from tests.kit.traces import Everything, columns, found, log, prefects_database
from tierwise.engine import Engine
from tierwise.errors import TierwiseError
from tierwise.gateway.resolved_model import resolve_model
from tierwise.policy.rules import Features
from tierwise.project import Project
from tierwise.records import Batch, Call, Document, Message, Reply
from tierwise.steps.checks import check
from tierwise.steps.examples import Example, GoldenSet

__all__ = ["log"]  # a fixture

KEY = "planted-key-0123456789"  # in a variable
# in a variable, in a header whose name says nothing
TENANT = "planted-tenant-0123456789"
LITERAL = "planted-literal-0123456789"  # in the catalog itself
PASSWORD = "planted-password-0123456789"  # in an address
KEYS = (KEY, TENANT, LITERAL, PASSWORD)
ENV = {"STANDIN_KEY": KEY, "STANDIN_TENANT": TENANT, "STANDIN_PASSWORD": PASSWORD}
# in several short lines, since what a server repeats is often put on one line
TEXT = "Name: Quennelby Roth\nIBAN: DE02 1203 0000 0000 2020 51\nMy parcel has not arrived, says Quennelby Roth."
METADATA = {"patient": "Ottoline Brask"}
BODY = ("Quennelby", "DE02", "1203 0000", "IBAN")
TEXTS = (*BODY, "Ottoline", "Brask")
# answers are kept: in the reply, in what became of it, and in what a check says of it
KEPT = {
    ("calls", "reply"),
    ("outcomes", "value"),
    ("audits", "value"),
    ("audits", "accepted"),
}
ROUTES = ("outcomes", "route")  # holds what rules could look at, so the metadata
REASONS = {("verdicts", "reason"), ("outcomes", "reason")}


def catalog(url: str, **changes: str) -> list[str]:
    """Two models whose entries hold every kind of secret: `small` on the lean lane, `large` through LiteLLM."""
    safe = f'"{url}/v1", api_key: test'
    headers = f'{{X-Tenant: "${{STANDIN_TENANT}}", X-Word: "${{STANDIN_PASSWORD}}", X-Desk: {LITERAL}}}'
    kept = f'api_key: "${{STANDIN_KEY}}", extra_headers: {headers}'
    small = model("small", url, tier="proprietary").replace(safe, f'"{url}/v1", {kept}')
    large = model("large", url, tier="clarifai", strength=20).replace(
        "openai/large", "anthropic/large"
    )
    large = large.replace(safe, f'"{url}", {kept}')
    return [small, large]


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    standin.answer(GOOD)
    return make_project(tmp_path / "project", *catalog(standin.url))


def document(number: int = 0) -> Document:
    return Document(
        id=f"file-{number}.txt",
        text=TEXT + "\n" * number,
        sensitivity="internal",
        metadata=METADATA,
    )


ECHO = f"cannot work with {KEY} {TENANT} {LITERAL} http://user:{PASSWORD}@example.com/v1?key={KEY} for"
ONE_LINE = " ".join(TEXT.split())
FAULTS: dict[str, list[Fault]] = {
    "a refused key": [status(401, ECHO)] * 2,
    "the prompt in one line": [status(400, f"no: {ONE_LINE[10:]}")] * 2,
    "the prompt in capitals": [status(422, f"no: {TEXT.upper()}")] * 2,
    "the prompt as JSON in JSON": [status(400, f"no: {json.dumps(TEXT)}")] * 2,
    "a line of the prompt": [status(400, "cannot read 'IBAN: DE02 1203 0000'")] * 2,
    "its digits without spaces": [status(400, "cannot read DE021203000000002020")] * 2,
    "metadata": [status(400, "cannot read 'Ottoline Brask'")] * 2,
    "a garbled body": [raw(f"<html>{ECHO} {TEXT}</html>")] * 6,
    "an error in a 200": [raw(json.dumps({"error": {"message": f"{ECHO} {TEXT}"}}))] * 6,
    "an error that is a list": [raw(json.dumps([ECHO, TEXT]), 400)] * 2,
    "an answer that repeats the key": [Fault(text=json.dumps({"label": KEY}))] * 6,
    "a name of the model that is a key": [raw(json.dumps({"model": KEY, "choices": [{"message": {"content": GOOD}}]}))]
    * 6,
    "a name of the model that is no name": [
        raw(json.dumps({"model": {"a": [TEXT]}, "choices": [{"message": {"content": GOOD}}]}))
    ],
    "all is well": [OK],
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_no_fault_takes_a_key_or_a_document_anywhere(
    project: Path, standin: Standin, log: Everything, tmp_path: Path, name: str
) -> None:
    """Not into the ledger, not into any log however loud, not into what the outcome says."""
    (project / "prompts" / "classify.md.j2").write_text(
        (project / "prompts" / "classify.md.j2")
        .read_text()
        .replace("{{ document }}", "{{ metadata }} {{ document }}")
    )
    standin.answer(GOOD)
    standin.faults(
        [replace(fault, headers={"Retry-After": "0"}) for fault in FAULTS[name]]
    )
    url = migrated_url("sqlite", tmp_path)
    (project / "pyproject.toml").write_text(f'[tool.tierwise]\nledger_url = "{url}"\n')
    with Engine(Project(project), env=ENV) as engine:
        done = engine.run_batch(
            engine.start_run("leaks"), CLASSIFY, Batch((document(),)), LABELS
        )
    assert standin.count
    # before the test itself reads the tables, which SQLAlchemy logs
    lines = list(log.lines)
    everywhere = [text for _, _, text in columns(url)] + lines + [repr(done.load()[0])]
    assert found(KEYS, *everywhere) == set()
    places = {
        (table, column, text)
        for table, column, text in columns(url)
        if (table, column) not in KEPT
    }
    assert found(TEXTS, *lines, repr(done.load()[0])) == set()
    assert {place[:2] for place in places if found(TEXTS, place[2])} <= {ROUTES}
    assert found(BODY, *(text for _, _, text in places)) == set()


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize(
    ("keep", "answers", "texts"),
    [("never", False, False), ("outputs", True, False), ("all", True, True)],
)
def test_the_ledger_keeps_the_texts_that_the_setting_says(
    project: Path,
    standin: Standin,
    tmp_path: Path,
    database: str,
    keep: str,
    answers: bool,
    texts: bool,
) -> None:
    """With `never` not even what a check quotes, with `all` the document in the one place for it."""
    url = migrated_url(database, tmp_path)
    (project / "pyproject.toml").write_text(
        f'[tool.tierwise]\nledger_url = "{url}"\nkeep_text = "{keep}"\n'
    )
    wrong = json.dumps({"label": "delivery", "evidence": "a planted quotation"})
    standin.answer(
        json.dumps({"label": "delivery", "evidence": "My parcel has not arrived"}),
        wrong,
    )
    with Engine(Project(project), env=ENV) as engine:
        run = engine.start_run("leaks")
        batch = engine.run_batch(run, CLASSIFY, Batch((document(1),)), LABELS)
        batch = engine.run_batch(run, CLASSIFY, Batch((document(2),)), LABELS)
        assert batch.load()[0].outcomes["classify"].status == "deferred"
        engine.finish_run(run, "completed")
    places = {
        (table, column)
        for table, column, text in columns(url)
        if found((*TEXTS, "planted quotation"), text)
    }
    kept = {(table, column) for table, column in places if table != "texts"}
    assert bool(kept) is answers
    assert kept <= {*KEPT, *REASONS, ROUTES}
    assert places - kept == ({("texts", "text")} if texts else set())


@check("own")
def quotes_in_its_error(output: BaseModel, document: Document) -> str | None:
    raise ValueError(document.text)


class Fussy(BaseModel):
    label: str
    evidence: str

    @field_validator("evidence")
    @classmethod
    def no_such_key(cls, value: str) -> str:
        raise KeyError(TEXT + value)


def refuses(document: Document) -> bool:
    raise LookupError(document.text)


WRONG_TEMPLATES = {
    "a key that is not there": "{{ metadata[document].x }}",
    "a number that is none": "{{ '%d' % metadata.patient }}",
    "a filter that fails": "{{ metadata.patient | round }}",
    "an attribute that is private": "{{ metadata.patient.__class__ }}",
}


def test_a_check_that_raises_fails_without_its_words_and_the_others_go_on(
    project: Path, log: Everything, tmp_path: Path
) -> None:
    """A bug in a check that one document finds neither stops the batch nor lets the answer pass."""
    with Engine(Project(project), env=ENV) as engine:
        run = engine.start_run("leaks")
        done = engine.run_batch(
            run,
            replace(CLASSIFY, checks=(quotes_in_its_error,)),
            Batch((document(),)),
            LABELS,
        )
        own = engine.run_batch(
            run, replace(CLASSIFY, returns=Fussy), Batch((document(1),)), LABELS
        )
    raised = done.load()[0].outcomes["classify"]
    assert raised.status == "deferred"
    assert "own: the check raised ValueError at test_leaks.py:" in raised.reason
    assert (
        "Fussy raised KeyError at test_leaks.py:"
        in own.load()[0].outcomes["classify"].reason
    )
    assert (
        found(
            TEXTS, raised.reason, own.load()[0].outcomes["classify"].reason, *log.lines
        )
        == set()
    )


@pytest.mark.parametrize(
    "wrong", ["only", *WRONG_TEMPLATES.values()], ids=["only", *WRONG_TEMPLATES]
)
def test_what_a_projects_own_code_raises_is_told_without_its_words(
    project: Path, log: Everything, wrong: str
) -> None:
    """Nor does the traceback of our error show them: not one of the errors behind it."""
    if wrong != "only":
        path = project / "prompts" / "classify.md.j2"
        path.write_text(path.read_text().replace("{{ document }}", wrong))
    batch, only = Batch((document(),)), refuses if wrong == "only" else None
    with Engine(Project(project), env=ENV) as engine:
        run = engine.start_run("leaks")
        with pytest.raises(TierwiseError) as caught:
            engine.run_batch(run, CLASSIFY, batch, LABELS, only=only)
    told = "".join(traceback.format_exception(caught.value))
    assert found(TEXTS, told, *log.lines) == set()
    assert ("test_leaks.py" if wrong == "only" else "classify.md.j2") in str(
        caught.value
    )


@pytest.mark.parametrize(
    "address", ["ftp://user:{}@example.com", "http://user:{}@127.0.0.1:1/v1", "{}"]
)
@pytest.mark.parametrize("tier", ["local", "proprietary"])
def test_a_password_in_an_address_is_never_told(
    tmp_path: Path, log: Everything, tier: str, address: str
) -> None:
    """Whether the address cannot be used, or nobody answers there."""
    entries = [
        model(name, "http://x", tier=tier)
        .replace('"http://x/v1"', '"${STANDIN_URL}"')
        .replace("openai/", prefix)
        for name, prefix in (("small", "openai/"), ("large", "anthropic/"))
    ]
    root = make_project(tmp_path / "project", *entries)
    env = {"STANDIN_URL": address.format(PASSWORD)}
    with Engine(Project(root), env=env) as engine:
        done = engine.run_batch(
            engine.start_run("leaks"),
            CLASSIFY,
            Batch((document(),)),
            LABELS,
            models=("small",),
        )
        more = engine.run_batch(
            engine.start_run("leaks"),
            CLASSIFY,
            Batch((document(1),)),
            LABELS,
            models=("large",),
        )
    told = [repr(batch.load()[0].outcomes) for batch in (done, more)]
    assert all("deferred" in text for text in told)
    assert found(KEYS, *told, *log.lines) == set()


def test_no_repr_shows_a_text_or_a_key(project: Path, standin: Standin) -> None:
    """Values end up in logs, tracebacks and reports of other tools by their repr."""
    with Engine(Project(project), env=ENV) as engine:
        entry = engine.project.catalog.model("small")
        done = engine.run_batch(
            engine.start_run("leaks"), CLASSIFY, Batch((document(),)), LABELS
        )
    target = resolve_model(entry, entry.resolved_params(ENV), ())
    message = Message("user", TEXT)
    call = Call(model="small", identity="x", messages=(message,), max_tokens=1)
    example = Example("a", TEXT, {"patient": METADATA["patient"]})
    features = Features(
        step="classify", tokens=1, tags=METADATA, outcomes={"classify": TEXT}
    )
    values = [
        *done.load(),
        done,
        call,
        target,
        entry,
        engine.project.catalog,
        example,
        features,
        GoldenSet(project, (example,)),
    ]
    values += [
        Reply(text=TEXT, finish_reason="stop", usage=None, latency_s=0),
        engine,
        engine.policy,
    ]
    shown = [repr(value) for value in values]
    assert "file-0.txt" in shown[0], "what it is can still be told"
    assert found((*TEXTS, *KEYS, "has not arrived"), *shown) == set()


def test_prefect_and_the_command_line_show_no_key_and_no_document(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    standin: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its whole database: logs, artifacts, names, parameters and states; and all that our commands print."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(3):
        (inbox / f"file-{number}.txt").write_text(
            f"---\npatient: Ottoline Brask\n---\n{TEXT} {number}"
        )
    faults = (
        "the prompt in one line",
        "a line of the prompt",
        "the prompt as JSON in JSON",
        "a refused key",
    )
    standin.faults([fault for name in faults for fault in FAULTS[name]])
    commands = [
        (
            "run",
            "support_inbox",
            "--source",
            inbox,
            "--out",
            tmp_path / "out",
            "--verbose",
        ),
        *(
            ("show", "--documents"),
            ("show", "--json"),
            ("show", "--csv"),
            ("doctor",),
            ("explain", "file-0.txt"),
        ),
        ("audit", "export", "-o", tmp_path / "trail.jsonl"),
    ]
    printed = {command[:2]: terminal(*command, cwd=project) for command in commands}
    assert "deferred" in printed["show", "--documents"].out
    texts = [done.out + done.err for done in printed.values()] + [
        (tmp_path / "trail.jsonl").read_text()
    ]
    assert found((*KEYS, *BODY), *texts) == set()
    stored = prefects_database()
    assert "deferred file-0.txt: " in stored, "the log is there"
    assert found((*KEYS, *TEXTS), stored) == set()
