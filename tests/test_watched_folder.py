"""A watched folder: what is half-written waits, and what is known is not opened again."""

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
from tests.kit.pdf_files import PdfFile
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise import read_documents, recorded_run, write_documents
from tierwise.documents import SeenFiles, Watch, iter_documents
from tierwise.documents.seen_files import is_racy, signature_of
from tierwise.errors import ConfigError
from tierwise.project import Project

RULES = "version: 1\nroutes: [{name: all, try: [small]}]\n"


class Folder:
    """A folder that is polled: the texts that a poll gives, and the ids that are done since."""

    def __init__(self, source: Path, minimum_age_s: float = 0.0) -> None:
        self.source = source
        self.minimum_age_s = minimum_age_s
        self.done: set[tuple[str, str]] = set()
        self.settings: list[Any] = []
        self.last = Watch()

    def poll(self) -> dict[str, str]:
        """Read what is new, as a run does, and be done with it."""
        seen = SeenFiles.load(self.source.parent / "seen", "in", self.settings)
        self.last = Watch(self.minimum_age_s, seen, self.done.__contains__)
        read = list(
            iter_documents(self.source, sensitivity="internal", watch=self.last)
        )
        new = [each for each in read if (each.own_id, each.hash) not in self.done]
        self.done.update((each.own_id, each.hash) for each in read)
        return {each.id: each.text for each in new}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "in").mkdir()
    return Folder(tmp_path / "in")


def put(folder: Folder, name: str, content: str | bytes, seconds: float = 60) -> Path:
    path = folder.source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    age(path, seconds)
    return path


def settle() -> None:
    """Wait until a change gives a file other times, as it is for a file of an earlier poll."""
    time.sleep(0.11)


def pdf(text: str) -> bytes:
    file = PdfFile()
    file.page(text)
    return file.data()


def test_an_unchanged_file_is_not_opened_again(folder: Folder) -> None:
    """Of each kind: a text, a table, a PDF, a page in Markdown, one that cannot be read."""
    put(folder, "a.txt", "A letter.")
    put(folder, "deep/b.csv", "id,text\n1,One\n2,Two\n")
    put(folder, "c.pdf", pdf("A letter in a PDF."))
    put(folder, "d.md", "# A page")
    put(folder, "e.docx", b"damaged")
    (folder.source / "link.txt").symlink_to("a.txt")
    settle()
    assert len(folder.poll()) == 7
    assert folder.poll() == {}
    assert folder.last.unopened == 7


def test_a_file_that_changes_is_read_again(folder: Folder) -> None:
    path = put(folder, "a.txt", "one")
    settle()
    assert folder.poll() == {"a.txt": "one"}
    put(folder, "a.txt", "two")
    settle()
    assert folder.poll() == {"a.txt": "two"}
    # The same size and time, by another file in its place.
    facts = path.stat()
    other = folder.source.parent / "other"
    other.write_text("six")
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.rename(path)
    settle()
    assert folder.poll() == {"a.txt": "six"}
    # The same size, time and inode.
    path.write_text("ten")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    settle()
    assert folder.poll() == {"a.txt": "ten"}
    path.unlink()
    assert folder.poll() == {}


def test_a_change_within_one_tick_of_the_clock_is_found(folder: Folder) -> None:
    """Whatever the clock's tick is: a file that is too fresh goes on no record."""
    for number in range(40):
        put(folder, "a.txt", f"{number:04}")
        assert folder.poll() == {"a.txt": f"{number:04}"}


def test_a_file_is_racy_until_a_later_change_would_show() -> None:
    second = 1_000_000_000
    fine = (1, 5 * second, 5 * second + 1, 7)
    assert is_racy(fine, 5 * second + 2)
    assert is_racy(fine, 4 * second)
    assert not is_racy(fine, 6 * second)
    coarse = (1, 4 * second, 4 * second, 7)
    assert is_racy(coarse, 5 * second)
    assert not is_racy(coarse, 7 * second)


def test_settings_and_versions_of_the_reader_count(folder: Folder) -> None:
    put(folder, "a.txt", "one")
    settle()
    folder.poll()
    folder.poll()
    assert folder.last.unopened == 1
    folder.settings = ["wait"]
    folder.poll()
    assert folder.last.unopened == 0
    folder.settings = []
    [record] = [
        path
        for path in (folder.source.parent / "seen").iterdir()
        if path != SeenFiles.load(path.parent, "in", ["wait"]).path
    ]
    for damage in ('{"reader": "0.1", "files": {}, "young": {}}', "{", "[]", ""):
        record.write_text(damage)
        assert folder.poll() == {}
        assert folder.last.unopened == 0
        assert folder.poll() == {}
        assert folder.last.unopened == 1


def test_what_the_ledger_takes_again_is_read_again(folder: Folder) -> None:
    """A document that was deferred for a passing cause; one row of a table is enough."""
    put(folder, "b.csv", "id,text\n1,One\n2,Two\n")
    settle()
    folder.poll()
    [one, two] = sorted(folder.done)
    folder.done = {one}
    assert set(folder.poll()) == {two[0]}
    assert folder.poll() == {}
    assert folder.done == {one, two}


def test_what_another_reading_may_heal_is_read_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "a.txt", "one")
    settle()
    real = Path.read_bytes

    def broken(path: Path) -> bytes:
        if path.name == "a.txt":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", broken)
    assert folder.poll() == {"a.txt": ""}
    monkeypatch.setattr(Path, "read_bytes", real)
    assert folder.poll() == {"a.txt": "one"}


def test_a_young_file_waits_and_one_with_a_time_in_the_future_not_for_ever(
    folder: Folder,
) -> None:
    folder.minimum_age_s = 0.3
    put(folder, "old.txt", "old")
    put(folder, "new.txt", "new", seconds=0)
    put(folder, "future.txt", "future", seconds=-1e6)
    assert folder.poll() == {"old.txt": "old"}
    assert folder.last.describe() == (
        "2 files still being written: next run (future.txt, new.txt)"
    )
    time.sleep(0.35)
    put(folder, "future.txt", "more of it", seconds=-2e6)
    assert folder.poll() == {"new.txt": "new"}
    time.sleep(0.35)
    assert folder.poll() == {"future.txt": "more of it"}
    assert folder.last.describe() == ""


def test_a_file_that_is_written_while_it_is_read_is_not_delivered(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder, "a.txt", "half")
    real = Path.read_bytes

    def writing(path: Path) -> bytes:
        data = real(path)
        if path.name == "a.txt":
            with path.open("a") as file:
                file.write(" and half")
        return data

    monkeypatch.setattr(Path, "read_bytes", writing)
    [direct] = iter_documents(path, sensitivity="internal")
    assert "written while it was read" in direct.outcomes["read"].reason
    age(path)
    folder.minimum_age_s = 5
    assert folder.poll() == {}
    assert folder.last.waiting == ["a.txt"]


def test_an_unopened_file_still_counts_for_duplicates_and_ids(folder: Folder) -> None:
    put(folder, "a.csv", "id,text\n1,One\n")
    settle()
    folder.poll()
    put(folder, "a.csv#1", "One more")
    put(folder, "z.txt", "One")
    settle()
    seen = SeenFiles.load(folder.source.parent / "seen", "in", folder.settings)
    watch = Watch(0, seen, folder.done.__contains__)
    found = list(iter_documents(folder.source, sensitivity="internal", watch=watch))
    assert [each.id for each in found] == ["a.csv#1~2", "z.txt"]
    assert found[1].metadata["duplicate_of"] == "a.csv#1"


def test_the_record_names_only_files_that_are_there(folder: Folder) -> None:
    put(folder, "a.txt", "one")
    put(folder, "b.txt", "two")
    settle()
    folder.poll()
    (folder.source / "a.txt").unlink()
    folder.poll()
    [record] = (folder.source.parent / "seen").iterdir()
    data = json.loads(record.read_text())
    assert list(data["files"]) == ["b.txt"]
    facts = (folder.source / "b.txt").stat()
    assert data["files"]["b.txt"][0] == list(signature_of(facts))


# --- runs ----------------------------------------------------------------------------------------


@flow(name="watching")
def watching(source: Path, only_new: bool = True) -> Any:
    with recorded_run() as run:
        letters = read_documents(source, sensitivity="internal", only_new=only_new)
        done = classify.map(letters, labels=["order", "other"], descriptions={})
        write_documents(done, Path("out"))
    return run.summary()


@pytest.fixture
def project(
    tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    root = make_project(tmp_path / "project", model("small", standin.url), rules=RULES)
    (root / "in").mkdir()
    monkeypatch.chdir(root)
    return root


def test_a_run_leaves_what_is_still_written_and_a_direct_run_does_not(
    prefect_server: str, project: Path, standin: Standin, terminal: Terminal
) -> None:
    setting = project / "pyproject.toml"
    setting.write_text('[tool.tierwise]\nminimum_age = "1 h"\n')
    (project / "in/a.txt").write_text("Half a let")
    command = ("run", "support_inbox", "--source", "in", "--only-new", "true")
    done = terminal(*command, cwd=project)
    assert done.code == 0, done.err
    assert "1 file still being written: next run (a.txt)" in done.out + done.err
    assert watching(Path("in")).run.documents == 0
    assert standin.count == 0
    (project / "in/a.txt").write_text("Half a letter, and the other half.")
    age(project / "in/a.txt", 7200)
    assert watching(Path("in")).run.documents == 1
    assert watching(Path("in")).run.documents == 0
    assert [path.name for path in (project / ".tierwise/seen").iterdir()]
    (project / "in/b.txt").write_text("Now.")
    assert watching(Path("in"), only_new=False).run.documents == 2
    setting.write_text("[tool.tierwise]\nminimum_age = 0\n")
    (project / "in/c.txt").write_text("And now.")
    assert watching(Path("in")).run.documents == 1


@pytest.mark.parametrize("value", ["5", "'5'", "'soon'", "-1", "true"])
def test_a_minimum_age_needs_a_unit(tmp_path: Path, value: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.tierwise]\nminimum_age = {value}")
    with pytest.raises(ConfigError, match=r"minimum_age.*with its unit"):
        _ = Project(tmp_path).settings
