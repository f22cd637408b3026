"""The done folder: what is done moves there, nothing else does, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from tasks.classify import classify
from tests.kit.letters import age
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin, sensible_answer
from tierwise import read_documents, recorded_run, write_documents
from tierwise.documents import SeenFiles, Watch, iter_documents
from tierwise.documents.done_folder import (
    Moves,
    ReadFile,
    check_done_folder,
    make_done_folder,
    move_done_files,
)
from tierwise.documents.reading import Shard
from tierwise.errors import Misuse
from tierwise.ledger import Ledger
from tierwise.orchestrate import runs as recorded_runs
from tierwise.orchestrate.process_state import engine
from tierwise.project import Project
from tierwise.review.queue import edit, find_item, find_texts, plan_retry

RULES = "version: 1\nroutes: [{name: all, try: [small]}]\n"


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    age(path)
    return path


def tree(folder: Path) -> dict[str, str]:
    """The files below a folder with their texts; `-> target` for a link."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
    return found


# --- files ---------------------------------------------------------------------------------------


class Folder:
    """A source beside its done folder, with the documents that are not done."""

    def __init__(self, root: Path) -> None:
        self.source = root / "in"
        self.done = root / "done"
        self.source.mkdir()
        self.done.mkdir()

    def read(self, shard: str = "1/1") -> list[ReadFile]:
        time.sleep(0.11)  # so that a later change gives a file other times
        files: list[ReadFile] = []
        reading = iter_documents(
            self.source,
            sensitivity="internal",
            watch=Watch(files=files),
            shard=Shard.parse(shard),
        )
        list(reading)
        return files

    def move(self, files: list[ReadFile], *waiting: str) -> Moves:
        known = {document for file in files for document in file.documents}
        done = {document for document in known if document[0] not in waiting}
        return move_done_files(files, done, self.source, self.done)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_what_is_done_moves_with_its_sub_folders_and_the_rest_stays(
    folder: Folder,
) -> None:
    put(folder.source / "a.txt", "a")
    put(folder.source / "deep/er/b.md", "b")
    put(folder.source / "waits.txt", "w")
    put(folder.source / "rows.csv", "id,text\n1,One\n2,Two\n")
    put(folder.source / "all.jsonl", '{"text": "x"}\n{"text": "y"}\n')
    moves = folder.move(folder.read(), "waits.txt", "rows.csv#2")
    assert moves.describe("done") == ["3 files moved to done"]
    assert set(tree(folder.source)) == {"waits.txt", "rows.csv"}
    assert set(tree(folder.done)) == {"a.txt", "deep/er/b.md", "all.jsonl"}
    assert folder.move(folder.read()).describe("done") == ["2 files moved to done"]
    assert tree(folder.source) == {}


def test_nothing_is_overwritten(folder: Folder) -> None:
    texts = ["one", "two", "two", "two"]
    for text in texts:
        put(folder.source / "a.b.txt", text)
        assert folder.move(folder.read()).moved == 1
    found = tree(folder.done)
    assert sorted(found.values()) == sorted(texts)
    assert found["a.b.txt"] == "one"
    others = sorted(set(found) - {"a.b.txt"})
    assert all(name.startswith("a.b~") and name.endswith(".txt") for name in others)


@pytest.mark.parametrize("change", ["longer text", "same"])
def test_a_file_that_has_changed_since_it_was_read_stays(
    folder: Folder, change: str
) -> None:
    path = put(folder.source / "a.txt", "text")
    files = folder.read()
    put(path, change)
    moves = folder.move(files)
    assert moves.describe("done") == [
        "1 file changed meanwhile: left for the next run (a.txt)"
    ]
    assert tree(folder.source) == {"a.txt": change}
    path.unlink()
    assert folder.move(files).describe("done") == []  # gone: nothing to say


def test_a_file_whose_change_may_not_show_stays(folder: Folder) -> None:
    path = put(folder.source / "a.txt", "text")
    [file] = folder.read()
    early = ReadFile(path, file.signature, file.documents, file.signature[2])
    assert folder.move([early]).moved == 0
    assert folder.move([file]).moved == 1


def test_what_is_not_read_to_its_end_or_in_part_alone_is_no_candidate(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder.source / "rows.csv", "id,text\n1,One\n2,Two\n")
    path = put(folder.source / "a.txt", "a")
    assert len(folder.read()) == 2
    for number in (1, 2):  # each row is in one of the shards, so no run knows both
        names = [file.path.name for file in folder.read(f"{number}/2")]
        assert "rows.csv" not in names
    real = Path.read_bytes

    def broken(path: Path) -> bytes:
        if path.name == "a.txt":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", broken)
    assert [file.path.name for file in folder.read()] == ["rows.csv"]
    assert path.exists()


def test_a_file_that_was_not_opened_moves_too(folder: Folder) -> None:
    """As after a crash between a run's end and the move."""
    put(folder.source / "a.txt", "a")
    time.sleep(0.11)
    for expected in (0, 1):
        seen = SeenFiles.load(folder.source.parent / "seen", "in", [])
        watch = Watch(0.0, seen, lambda _: True, files=[])
        list(iter_documents(folder.source, sensitivity="internal", watch=watch))
        assert watch.unopened == expected
        assert watch.files is not None
    assert folder.move(watch.files).moved == 1


def test_a_link_moves_as_one_and_its_target_not_before_it(folder: Folder) -> None:
    put(folder.source / "a.txt", "a")
    (folder.source / "z.txt").symlink_to("a.txt")
    files = folder.read()
    assert folder.move(files, "z.txt").moved == 0
    assert folder.move(files).moved == 2
    assert tree(folder.done) == {"a.txt": "a", "z.txt": "-> a.txt"}
    assert (folder.done / "z.txt").read_text() == "a"


def test_a_source_that_cannot_be_changed_is_one_line(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        put(folder.source / name, name)
    files = folder.read()

    def refuse(
        *_: object,
    ) -> None:  # as for a folder that is read-only; root may do all
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        [line] = folder.move(files).describe("done")
    assert line == (
        "4 files not moved to done: a.txt: Permission denied, b.txt: Permission denied, "
        "c.txt: Permission denied, …; check the permissions; the next run tries again"
    )
    assert tree(folder.done) == {}  # no reserved name is left
    put(folder.done / "deep", "a file in the way")
    put(folder.source / "deep/e.txt", "e")
    assert len(folder.move(folder.read()).failed) == 1
    assert set(tree(folder.source)) == {"deep/e.txt"}


@pytest.mark.parametrize(
    "done",
    ["in", "in/done", ".", "out", "out/done", "a.txt/done", "in/../in/sub"],
)
def test_a_done_folder_is_apart(tmp_path: Path, done: str) -> None:
    put(tmp_path / "in/x.txt", "x")
    put(tmp_path / "a.txt", "x")
    wanted = (tmp_path / done).resolve()
    with pytest.raises(Misuse):
        check_done_folder(wanted, [tmp_path / "in"], [tmp_path / "out"])
    check_done_folder(tmp_path / "d/e", [tmp_path / "in"], [tmp_path / "out"])
    # That of one file may lie beside it, but is not its folder.
    check_done_folder(tmp_path / "in/done", [tmp_path / "in/x.txt"], [])
    with pytest.raises(Misuse):
        check_done_folder(tmp_path / "in", [tmp_path / "in/x.txt"], [])


def test_a_done_folder_is_on_the_same_device_and_can_be_made(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second device")
    with pytest.raises(Misuse, match="another device"):
        check_done_folder(other / "none/done", [tmp_path], [])
    put(tmp_path / "file", "x")
    with pytest.raises(Misuse, match="cannot be written"):
        make_done_folder(tmp_path / "file/done")


# --- runs ----------------------------------------------------------------------------------------


@flow(name="moving")
def moving(source: Path, out: Path, done: Path | None) -> Any:
    with recorded_run() as run:
        letters = read_documents(source, sensitivity="internal", done=done)
        kinds = classify.map(letters, labels=["order", "other"], descriptions={})
        write_documents(kinds, out)
    return run.summary()


@pytest.fixture
def project(
    tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch, prefect_server: str
) -> Iterator[Path]:  # fmt: skip
    root = make_project(tmp_path / "project", model("small", standin.url), rules=RULES)
    monkeypatch.chdir(root)
    yield root
    engine().retry = None


def test_a_document_moves_when_all_its_steps_are_done_and_not_before(
    project: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Request) -> str:
        return "none" if "unclear" in request.prompt else sensible_answer(request)

    standin.answer(answer)
    put(project / "in/a.txt", "My order has not come.")
    put(project / "in/sub/b.txt", "Another one.")
    put(project / "in/rows.csv", "id,text\n1,A good row.\n2,An unclear row.\n")
    run = (Path("in"), Path("out"), Path("archive"))
    for wrong in ("in/done", "out", ""):
        with pytest.raises(Misuse, match="the done folder"):
            moving(Path("in"), Path("out"), Path(wrong))
    assert standin.count == 0

    # A crash between the run's end and the move: the next run moves, and delivers nothing twice.
    with monkeypatch.context() as patch:
        patch.setattr(recorded_runs, "move_files_of_run", lambda _: None)
        first = moving(*run)
    assert (first.run.documents, first.run.deferred) == (4, 1)
    assert tree(project / "archive") == {}
    asked = standin.count
    second = moving(*run)
    assert (second.run.documents, standin.count) == (0, asked)
    assert engine().moved[-1:] == ["2 files moved to archive"]
    assert set(tree(project / "archive")) == {"a.txt", "sub/b.txt"}
    assert set(tree(project / "in")) == {"rows.csv"}

    # The text of a document that moved is found, though the flow's parameter names it not.
    with Ledger.open(root=project) as ledger:
        row = ledger.runs.resolve(first.run.id)
        assert ledger.folders.done_folders(row.id) == ["archive"]
        other = type(row)(**{**_fields(row), "parameters": {"source": "in"}})
        outcome = next(ledger.runs.outcomes(row.id, "a.txt"))
        hashes = [outcome.document_hash]
        texts = find_texts(ledger, Project(project), other, hashes)
        assert list(texts.values()) == ["My order has not come."]
        # A person decides. The steps after it are still to come, so the file stays.
        item = find_item(ledger, row.id, "rows.csv#2")
        edit(ledger, item, json.dumps({"label": "other", "evidence": "row"}), by="eve")
        plan = plan_retry(ledger, row.id).retry
    assert moving(*run).run.documents == 0
    assert set(tree(project / "in")) == {"rows.csv"}
    engine().retry = plan
    last = moving(*run)
    engine().retry = None
    assert last.run.deferred == 0
    assert tree(project / "in") == {}
    assert "rows.csv" in tree(project / "archive")
    lines = (project / "out/outcomes.jsonl").read_text().splitlines()
    ids = sorted(json.loads(line)["id"] for line in lines)
    assert ids == ["a.txt", "rows.csv#1", "rows.csv#2", "sub/b.txt"]

    # The same name again, with another text: delivered, and moved beside the first.
    put(project / "in/a.txt", "A second letter.")
    assert moving(*run).run.documents == 1
    assert len(tree(project / "archive")) == 4
    # A source without a file is none to complain about.
    assert moving(*run).run.documents == 0


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
