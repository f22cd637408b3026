"""Whose folder it is: the same letter in another source, or for another output, is a new one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from prefect import flow
from sqlalchemy import MetaData, create_engine, text

from tasks.classify import classify
from tests.kit.ledgers import DATABASES, fresh_url
from tests.kit.letters import age
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tierwise import documents_from, read_documents, recorded_run, write_documents
from tierwise.documents.places import names_place, place_of, source_of
from tierwise.ledger import Ledger, RunFolders
from tierwise.ledger.database import MIGRATIONS, VERSION_TABLE
from tierwise.orchestrate.process_state import STATE, engine

RULES = "version: 1\nroutes: [{name: all, try: [small]}]\n"
LETTER = "My order has not come."


@pytest.fixture
def project(
    tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch, prefect_server: str
) -> Path:  # fmt: skip
    root = make_project(tmp_path / "project", model("small", standin.url), rules=RULES)
    monkeypatch.chdir(root)
    return root


def drop(root: Path, *names: str, text: str = LETTER) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        age(path)


@flow(name="sorting")
def sorting(source: Path, out: Path, only_new: bool = True) -> Any:
    with recorded_run() as run:
        letters = read_documents(source, sensitivity="internal", only_new=only_new)
        done = classify.map(letters, labels=["order", "other"], descriptions={})
        write_documents(done, out)
    return run.summary()


def lines(folder: Path) -> list[tuple[str, str]]:
    rows = map(json.loads, (folder / "outcomes.jsonl").read_text().splitlines())
    return [(row["source"], row["id"]) for row in rows]


def pages(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.md"))


def test_each_tenant_gets_its_letter_and_it_is_paid_once(
    project: Path, standin: Standin
) -> None:
    """The same name and text: in another source, for another output, and for both."""
    drop(project, "a/in/x.txt", "b/in/x.txt")
    assert sorting(Path("a/in"), Path("a/out")).run.documents == 1
    assert sorting(Path("a/in"), Path("a/out")).run.documents == 0
    assert sorting(Path("b/in"), Path("b/out")).run.documents == 1
    assert sorting(Path("b/in"), Path("b/out")).run.documents == 0
    assert sorting(Path("a/in"), Path("copy")).run.documents == 1
    assert sorting(Path("a/in"), Path("copy")).run.documents == 0
    assert sorting(Path("b/in"), Path("copy")).run.documents == 1
    assert standin.count == 1
    assert pages(project / "a/out") == pages(project / "b/out") == ["x.txt.md"]
    # Both are there, each on a page of its own, and they stay.
    assert sorted(lines(project / "copy")) == [("a/in", "x.txt"), ("b/in", "x.txt")]
    before = pages(project / "copy")
    assert len(before) == 2
    assert "x.txt.md" in before
    drop(project, "a/in/x.txt", "b/in/x.txt", text="Another letter.")
    assert sorting(Path("b/in"), Path("copy")).run.documents == 1
    assert sorting(Path("a/in"), Path("copy")).run.documents == 1
    assert sorted(lines(project / "copy")) == [("a/in", "x.txt"), ("b/in", "x.txt")]
    assert pages(project / "copy") == before


def test_another_spelling_of_a_folder_is_the_same_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch, standin: Standin
) -> None:
    drop(project, "a/in/x.txt")
    (project / "link").symlink_to("a/in")
    assert sorting(Path("a/in"), Path("out")).run.documents == 1
    for source in ("a/in/", "a/../a/in", "link", project / "a/in", "a/in/x.txt"):
        assert sorting(Path(source), project / "out").run.documents == 0, source
    # A project that was moved, its folders named by their absolute paths before and after.
    assert sorting(project / "a/in", project / "abs").run.documents == 1
    engine().close()
    monkeypatch.setattr(STATE, "_engines", {})
    moved = project.with_name("moved")
    project.rename(moved)
    monkeypatch.chdir(moved)
    assert sorting(Path("a/in"), Path("out")).run.documents == 0
    assert sorting(moved / "a/in", moved / "abs").run.documents == 0
    assert standin.count == 1


def test_an_output_that_has_another_name_or_none_among_the_parameters(
    project: Path, standin: Standin
) -> None:
    drop(project, "in/x.txt")

    @flow(name="for-tenants")
    def for_tenants(source: Path, tenant: str, words: int = 1) -> Any:
        with recorded_run() as run:
            letters = read_documents(source, sensitivity="internal", only_new=True)
            done = classify.map(letters, labels=["order", "other"], descriptions={})
            write_documents(done, Path("out") / tenant)
        return run.summary()

    assert for_tenants(Path("in"), "a").run.documents == 1
    assert for_tenants(Path("in"), "a", words=2).run.documents == 0
    assert for_tenants(Path("in"), "b").run.documents == 1

    @flow(name="by-code")
    def by_code(folder: Path, words: int = 1) -> Any:
        with recorded_run() as run:
            letters = read_documents(folder, sensitivity="internal", only_new=True)
            done = classify.map(letters, labels=["order", "other"], descriptions={})
            write_documents(done, Path("out/by-code"))
        return run.summary()

    assert by_code(Path("in")).run.documents == 1
    assert by_code(Path("in"), words=2).run.documents == 0
    assert standin.count == 1


def test_a_run_may_read_several_sources(project: Path, standin: Standin) -> None:
    """Each keeps its documents, whichever comes first; a new source changes nothing for others."""

    @flow(name="several")
    def several(sources: list[str], out: Path) -> Any:
        with recorded_run() as run:
            letters = []
            for source in sources:
                letters += read_documents(
                    Path(source), sensitivity="internal", only_new=True
                )
            done = classify.map(letters, labels=["order", "other"], descriptions={})
            write_documents(done, out)
        return run.summary()

    drop(project, "a/x.txt", "b/x.txt", "c/x.txt")
    assert several(["b", "c"], Path("out")).run.documents == 2
    before = pages(project / "out")
    assert len(before) == 2
    assert several(["a", "b", "c"], Path("out")).run.documents == 1
    assert several(["c", "b", "a"], Path("out")).run.documents == 0
    assert sorted(source for source, _ in lines(project / "out")) == ["a", "b", "c"]
    assert set(before) < set(pages(project / "out"))
    drop(project, "b/x.txt", text="A second letter.")
    assert several(["c", "b", "a"], Path("out")).run.documents == 1
    assert several(["b", "a", "c"], Path("out")).run.documents == 0
    assert len(pages(project / "out")) == 3


def test_documents_of_a_program_name_their_source(
    project: Path, standin: Standin
) -> None:
    @flow(name="rows")
    def rows(customers: list[str]) -> Any:
        with recorded_run() as run:
            letters = []
            for customer in customers:
                items = [{"id": "1", "text": LETTER}]
                letters += documents_from(
                    items, sensitivity="internal", only_new=True, source=customer
                )
            done = classify.map(letters, labels=["order", "other"], descriptions={})
            write_documents(done, Path("out"))
        return run.summary()

    assert rows(["ann"]).run.documents == 1
    assert rows(["ann", "bea"]).run.documents == 1
    assert rows(["bea", "ann"]).run.documents == 0
    assert len(pages(project / "out")) == 2
    assert standin.count == 1


# --- ledgers of earlier versions -----------------------------------------------------------------


def test_a_ledger_of_an_earlier_version_delivers_nothing_again(
    project: Path, standin: Standin
) -> None:
    """What it has no folders of counts by the parameters that it has."""
    drop(project, "a/in/x.txt", "b/in/x.txt")
    sorting(Path("a/in"), Path("a/out"))
    sorting(Path("a/in"), project / "shared")
    engine().close()
    STATE._engines.clear()
    as_version_7(project / ".tierwise/ledger.db")

    assert sorting(project / "a/in", Path("a/out")).run.documents == 0
    assert sorting(Path("a/in"), Path("shared")).run.documents == 0
    assert sorting(Path("b/in"), Path("shared")).run.documents == 1
    # The old page stays the page of the source that wrote it.
    assert len(pages(project / "shared")) == 2
    assert standin.count == 1


def as_version_7(ledger: Path) -> None:
    """Write a ledger's rows into the tables of version 7, before folders were on record."""
    newer = ledger.with_suffix(".newer")
    ledger.rename(newer)
    database = create_engine(f"sqlite:///{ledger}")
    with database.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, "0007")
        connection.execute(text(f"ATTACH DATABASE '{newer}' AS newer"))
        tables = MetaData()
        tables.reflect(connection)
        for table in tables.sorted_tables:
            if table.name != VERSION_TABLE:
                columns = ", ".join(f'"{column.name}"' for column in table.columns)
                source = f"SELECT {columns} FROM newer.{table.name}"
                connection.execute(
                    text(f"INSERT INTO main.{table.name} ({columns}) {source}")
                )
    database.dispose()


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(fresh_url(request.param, tmp_path), root=tmp_path) as opened:
        yield opened


def test_a_folder_belongs_to_its_first_source(ledger: Ledger) -> None:
    owner = ledger.folders.owner
    assert owner("out", "a", lambda _: None) == "a"
    assert owner("out", "b", lambda _: None) == "a"
    assert owner("other", "", lambda _: None) == ""
    assert owner("other", "b", lambda _: None) == ""


# --- names of folders ----------------------------------------------------------------------------


def test_a_place_is_the_same_for_each_spelling(tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "in").mkdir(parents=True)
    (root / "in/x.txt").write_text("x")
    (tmp_path / "also").symlink_to(root)
    for spelling in ("in", "in/", "./in", "in/../in", root / "in", tmp_path / "also/in"):  # fmt: skip
        assert place_of(spelling, root) == "in"
        assert place_of(spelling, tmp_path / "also") == "in"
    assert place_of("../mail", root) == str(tmp_path / "mail")
    assert place_of(root, root) == "."
    assert source_of("in/x.txt", root) == "in"
    assert source_of("gone", root) == "gone"
    assert place_of("in", Path("/")) == "in"
    place_of("a\0b", root)


def test_parameters_that_name_a_place(tmp_path: Path) -> None:
    assert names_place("out/a", "out/a", tmp_path)
    assert names_place("out", "out/a", tmp_path)
    assert names_place("a", "out/a", tmp_path)
    assert names_place(str(tmp_path / "out"), "out/a", tmp_path)
    for other in ("", " ", "outer", "b", "internal", "out/a/b", "a\0b"):
        assert not names_place(other, "out/a", tmp_path)


def test_folders_are_the_same_text_when_they_are_equal() -> None:
    folders = RunFolders(source="a", output="out", naming={"b": "1", "a": "2"})
    same = RunFolders(source="a", output="out", naming={"a": "2", "b": "1"})
    assert folders.as_json() == same.as_json()
    assert RunFolders.from_json(folders.as_json()) == folders
