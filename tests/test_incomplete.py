"""Documents that lost a part on reading: they say so, and the setting `incomplete` decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from tasks.classify import classify
from tests.kit.letters import age
from tests.kit.pdf_files import PdfFile
from tests.kit.projects import make_project, model
from tests.kit.reading import hide_text_recognition, read, reason
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise import read_documents, recorded_run, write_documents
from tierwise.documents import iter_documents, iter_items
from tierwise.errors import ConfigError, UnknownName
from tierwise.ledger import Ledger
from tierwise.orchestrate.process_state import engine
from tierwise.project import Project
from tierwise.records import Document
from tierwise.review.queue import find_texts, plan_retry

COVER = "Fax cover sheet. Pages: 4. To: purchasing"
LOST = "pages 2-4 of 4 have no text"


@pytest.fixture(autouse=True)
def _no_text_recognition(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scans here have no words; looking for some takes seconds a page."""
    folder = tmp_path_factory.mktemp("path") / "hidden"
    hide_text_recognition(folder, monkeypatch)


def fax() -> bytes:
    """A cover sheet with text, and three scanned pages."""
    file = PdfFile()
    file.page(COVER)
    for number in range(3):
        file.image_page(seed=number)
    return file.data()


def read_one(path: Path, data: bytes, **options: object) -> Document:
    path.write_bytes(data)
    return read(path, **options)[path.name]


@pytest.mark.parametrize("setting", ["wait_for_pages", "wait", None])
def test_a_document_whose_pages_are_missing_waits_and_says_what_to_do(
    tmp_path: Path, setting: str | None
) -> None:
    options = {"incomplete": setting} if setting else {}
    document = read_one(tmp_path / "fax.pdf", fax(), **options)
    assert document.outcomes["read"].cause == "unreadable"
    assert document.metadata["incomplete"] == LOST
    said = reason(document)
    assert said.startswith(f"{LOST}: ")
    assert said.endswith(
        ', or set incomplete = "accept" in [tool.tierwise] of pyproject.toml'
    )


def test_it_goes_on_where_that_is_accepted(tmp_path: Path) -> None:
    document = read_one(tmp_path / "fax.pdf", fax(), incomplete="accept")
    assert document.text == COVER
    assert document.outcomes == {}
    assert document.metadata["incomplete"] == LOST


def test_a_document_that_a_program_read_keeps_the_word(tmp_path: Path) -> None:
    document = read_one(tmp_path / "fax.pdf", fax(), incomplete="accept")
    [again] = iter_items([document])
    assert again.metadata["incomplete"] == LOST
    assert again.text == COVER


def test_a_misspelt_setting_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UnknownName, match=r"incomplete.*acept.*accept"):
        iter_documents(tmp_path, sensitivity="public", incomplete="acept")  # type: ignore[arg-type]
    (tmp_path / "pyproject.toml").write_text('[tool.tierwise]\nincomplete = "acept"\n')
    with pytest.raises(ConfigError, match=r"incomplete.*wait_for_pages"):
        _ = Project(tmp_path).settings


# ---- in a run -----------------------------------------------------------------------------------


def sorting(only_new: bool) -> Any:
    @flow(name="sorting")
    def sorting_flow(source: Path) -> Any:
        with recorded_run() as run:
            letters = read_documents(source, sensitivity="internal", only_new=only_new)
            done = classify.map(letters, labels=["order", "other"], descriptions={})
            write_documents(done, Path("out"))
        return run.summary()

    return sorting_flow(Path("inbox"))


@pytest.fixture
def project(tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> Path:
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    root = make_project(tmp_path / "project", model("small", standin.url), rules=rules)
    (root / "inbox").mkdir()
    (root / "inbox" / "fax.pdf").write_bytes(fax())
    age(root / "inbox" / "fax.pdf")
    monkeypatch.chdir(root)
    return root


def accept(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.tierwise]\nincomplete = "accept"\n')


def result(project: Path) -> dict[str, Any]:
    [line] = (project / "out" / "outcomes.jsonl").read_text().splitlines()
    outcome: dict[str, Any] = json.loads(line)
    return outcome


def test_a_run_holds_it_until_the_setting_changes_and_shows_what_it_lost(
    prefect_server: str, project: Path, standin: Standin, terminal: Terminal
) -> None:
    """`only_new` takes the document again after the change, and once."""
    first = sorting(only_new=True)
    assert (first.run.documents, first.run.deferred, standin.count) == (1, 1, 0)
    assert sorting(only_new=True).run.documents == 0
    assert LOST in first.deferred[0].reason
    accept(project)
    second = sorting(only_new=True)
    assert (second.run.deferred, standin.count) == (0, 1)
    assert sorting(only_new=True).run.documents == 0

    found = result(project)
    assert found["outcomes"]["classify"]["status"] == "accepted"
    assert found["metadata"]["incomplete"] == LOST
    assert LOST in (project / "out" / "fax.pdf.md").read_text()
    run_id = second.run.id
    shown = terminal("show", run_id, "--documents", "--json", cwd=project)
    [row] = json.loads(shown.out)["documents"]
    assert row["incomplete"] == LOST
    table = terminal("show", run_id, "--documents", "--csv", cwd=project).out
    assert LOST in table
    explained = terminal("explain", "fax.pdf", "--run", run_id, cwd=project)
    assert "pages 2-4 of 4" in " ".join(explained.out.split()), explained.err
    assert terminal("report", run_id, "--out", "r.html", cwd=project).code == 0
    assert LOST in (project / "r.html").read_text()


def test_a_retry_takes_it_again_after_the_change(
    prefect_server: str, project: Path, standin: Standin
) -> None:
    (project / "inbox" / "b.txt").write_text("My order has not come.")
    first = sorting(only_new=False)
    assert (first.run.deferred, standin.count) == (1, 1)
    accept(project)
    with Ledger.open(root=project) as ledger:
        plan = plan_retry(ledger, first.run.id).retry
    assert plan.again == {"fax.pdf"}
    engine().retry = plan
    try:
        again = sorting(only_new=False)
    finally:
        engine().retry = None
    assert (again.run.documents, again.run.deferred, standin.count) == (2, 0, 2)


def test_the_text_of_an_accepted_one_is_found_again(
    prefect_server: str, project: Path
) -> None:
    """Also where the setting of today would hold it: review, export and explain look for it."""
    accept(project)
    done = sorting(only_new=False)
    (project / "pyproject.toml").unlink()
    [document] = read(project / "inbox", incomplete="accept").values()
    with Ledger.open(root=project) as ledger:
        run = ledger.runs.resolve(done.run.id)
        texts = find_texts(ledger, Project(project), run, [document.hash])
    assert texts == {document.hash: COVER}
