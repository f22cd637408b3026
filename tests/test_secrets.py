"""Keys from Prefect's secret blocks reach the provider, and nothing else."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from tests.kit.projects import make_project, model
from tests.kit.standin import Fault, Request, Standin, status
from tests.kit.terminal import Terminal
from tests.kit.traces import Everything, columns, found, log, prefects_database
from tierwise.errors import ConfigError
from tierwise.project import Project

__all__ = ["log"]  # a fixture

KEY = "planted-key-0123456789"
VARIABLE = "STANDIN_KEY"
RULES = """
version: 1
routes:
  - {name: default, try: [small]}
"""


def asks_for_the_key(request: Request) -> str | Fault:
    """An answer for who brings the key, and for nobody else."""
    if request.headers.get("authorization") != f"Bearer {KEY}":
        return status(401, "no such key")
    properties = (request.schema or {}).get("properties", {})
    words = " ".join(request.document.split()[:4])
    return json.dumps(
        {name: "delivery" if name == "label" else words for name in properties}
    )


@pytest.fixture
def project(tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    standin.answer(asks_for_the_key)
    entry = model("small", standin.url).replace(
        "api_key: test", f'api_key: "${{{VARIABLE}}}"'
    )
    root = make_project(tmp_path / "project", entry, rules=RULES)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.txt").write_text(
        "My parcel has not arrived and nobody answers the phone."
    )
    return root


def mapped(project: Path, block: str) -> None:
    (project / "pyproject.toml").write_text(
        f'[tool.tierwise.secrets]\n{VARIABLE} = "{block}"\n'
    )


def saved(value: object) -> str:
    """The name of a new secret block."""
    from prefect.blocks.system import Secret

    name = f"key-{uuid.uuid4().hex}"
    Secret(value=value).save(name)  # type: ignore[unused-coroutine, arg-type]
    return name


def runs(terminal: Terminal, project: Path) -> tuple[int, str, str]:
    inbox = project.parent / "inbox"
    done = terminal(
        "run",
        "support_inbox",
        "--source",
        inbox,
        "--out",
        project.parent / "out",
        "--verbose",
        cwd=project,
    )
    return done.code, done.out, done.err


def test_a_key_in_a_secret_block_reaches_the_provider_and_nothing_else(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    standin: Standin,
    log: Everything,
) -> None:
    """Not the ledger, Prefect's database, a log, the report, the trail, the process's variables or any file."""
    import os

    mapped(project, saved(KEY))
    printed = [*map(str, runs(terminal, project))]
    assert standin.count == 3, printed
    assert all(
        request.headers["authorization"] == f"Bearer {KEY}"
        for request in standin.requests
    )
    outcomes = json.loads((project.parent / "out" / "outcomes.jsonl").read_text())
    assert "accepted" in json.dumps(outcomes), printed
    for command in (
        ("show", "--json"),
        ("models",),
        ("doctor",),
        ("report",),
        ("audit", "export"),
    ):
        done = terminal(*command, cwd=project)
        printed += [done.out, done.err]
    files = [
        path.read_bytes().decode("latin-1")
        for path in project.parent.rglob("*")
        if path.is_file()
    ]
    ledger = [
        text
        for _, _, text in columns(f"sqlite:///{project / '.tierwise' / 'ledger.db'}")
    ]
    assert (
        found(
            (KEY,),
            *printed,
            *files,
            *ledger,
            *log.lines,
            *os.environ.values(),
            prefects_database(),
        )
        == set()
    )


def test_a_variable_that_is_set_goes_before_the_block(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    standin: Standin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then no block has to be there."""
    mapped(project, "not-there")
    monkeypatch.setenv(VARIABLE, KEY)
    assert runs(terminal, project)[0] == 0
    assert standin.count == 3


@pytest.mark.parametrize(
    "value", [None, "", {"key": KEY}], ids=["no block", "empty", "not a text"]
)
def test_what_is_wrong_with_a_block_is_one_line_before_anything_is_asked(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    standin: Standin,
    value: object,
) -> None:
    name = "not-there" if value is None else saved(value)
    mapped(project, name)
    code, _, err = runs(terminal, project)
    said = [line for line in err.splitlines() if line.startswith("tierwise: ")]
    assert (code, len(said), standin.count) == (2, 1, 0), err
    assert f"Prefect secret block '{name}' for {VARIABLE}" in said[0]
    assert ("`prefect block create secret`" in said[0]) == (value is None)
    assert KEY not in err


def test_without_a_server_the_error_says_what_to_start(
    prefect_server: str, terminal: Terminal, project: Path, standin: Standin
) -> None:
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    mapped(project, "clarifai-pat")
    with temporary_settings(
        {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    ):
        code, _, err = runs(terminal, project)
    assert (code, standin.count) == (2, 0)
    assert (
        f"no Prefect server answers, so there is no {VARIABLE}; `tierwise up` starts one"
        in err
    )


def test_what_is_mapped_is_shown_as_such(terminal: Terminal, project: Path) -> None:
    """No server is asked, so it is a promise; without a mapping the variable is what has to be set."""

    def available() -> tuple[str, str]:
        shown = json.loads(terminal("models", "--json", cwd=project).out)[0][
            "available"
        ]
        tiers = {
            f["what"]: f["detail"]
            for f in json.loads(terminal("doctor", "--json", cwd=project).out)
        }
        return shown, tiers["tier local"]

    assert available() == (f"no: set {VARIABLE}", f"set {VARIABLE}")
    mapped(project, "clarifai-pat")
    told = "from the Prefect secret block clarifai-pat"
    assert available() == (told, f"small ({told})")


def test_a_plan_counts_on_the_block(
    prefect_server: str, terminal: Terminal, project: Path, standin: Standin
) -> None:
    """Planning needs no key, and has the flow run's models."""
    mapped(project, "not-there")
    done = terminal(
        "plan", "support_inbox", "--source", project.parent / "inbox", cwd=project
    )
    assert (done.code, standin.count) == (0, 0), done.err
    assert "small" in done.out


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f'CLARIFAI_PAT = "Sk-{KEY}"', "never the key"),
        ('clarifai_pat = "clarifai-pat"', "write it in capitals"),
    ],
)
def test_a_key_that_stands_in_the_mapping_is_refused_and_not_repeated(
    project: Path, line: str, why: str
) -> None:
    (project / "pyproject.toml").write_text(f"[tool.tierwise.secrets]\n{line}\n")
    with pytest.raises(ConfigError, match=why) as caught:
        Project(project).settings  # noqa: B018 - reads them
    assert KEY not in str(caught.value)
    assert "pyproject.toml" in str(caught.value)
