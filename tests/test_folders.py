"""Folders as people and programs leave them: other files lie among the documents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.kit.letters import age
from tests.kit.projects import make_project, model
from tests.kit.reading import read, reason
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.documents import LeftOut, iter_documents, read_documents, write_documents
from tierwise.errors import Misuse
from tierwise.records import Outcome


def letters(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("1.txt", "2.txt", "3.txt"):
        (folder / name).write_text(f"This is the letter {name}.")
    return folder


def write_results(source: Path, out: Path) -> None:
    """Read a source, and write the results of a step, as a run does."""
    batches = [
        batch.with_documents(
            tuple(
                document.with_outcome(
                    Outcome(
                        step="sort",
                        status="accepted",
                        value={"label": "a"},
                        sensitivity="internal",
                    )
                )
                for document in batch.load()
            )
        )
        for batch in read_documents(source, sensitivity="internal")
    ]
    write_documents(batches, out)


def ids(source: Path) -> list[str]:
    return list(read(source))


def said(source: Path) -> str:
    left_out = LeftOut()
    list(iter_documents(source, sensitivity="internal", left_out=left_out))
    return left_out.describe()


# --- results below the source --------------------------------------------------------------------


@pytest.mark.parametrize(
    "out", ["results", "a/b/results", "../in/results", "a/../results", "results.d"]
)
def test_results_below_the_source_are_not_read_again(tmp_path: Path, out: str) -> None:
    source = letters(tmp_path / "in")
    for _ in range(3):
        write_results(source, source / out)
        assert ids(source) == ["1.txt", "2.txt", "3.txt"]
    assert "4 of earlier results" in said(source)


def test_a_page_is_no_document_without_its_outcomes_either(tmp_path: Path) -> None:
    """A run that was stopped leaves pages only, and an old page stays when its letter is gone."""
    source = letters(tmp_path / "in")
    write_results(source, source / "results")
    (source / "results" / "outcomes.jsonl").unlink()
    (source / "3.txt").unlink()
    assert ids(source) == ["1.txt", "2.txt"]


def test_results_of_a_run_with_nothing_new_are_left_out(tmp_path: Path) -> None:
    source = letters(tmp_path / "in")
    write_documents([], source / "results")
    assert ids(source) == ["1.txt", "2.txt", "3.txt"]


def test_letters_among_results_are_read(tmp_path: Path) -> None:
    source = letters(tmp_path / "in")
    write_results(source, source)
    letters(source, "own.md")
    (source / "rows.jsonl").write_text('{"id": "a", "text": "hello"}\n')
    assert ids(source) == ["1.txt", "2.txt", "3.txt", "own.md", "rows.jsonl#a"]


def test_results_in_many_forms_are_known(tmp_path: Path) -> None:
    """Odd ids, many fields, texts of their own."""
    source = letters(tmp_path / "in", "`x`.txt", 'a"b.txt', "é.txt", "plain.txt")
    rows = [{"id": "r/1", "text": "hi", "note": "x" * 9000, "language": "none"}]
    (source / "rows.jsonl").write_text("".join(json.dumps(row) for row in rows))
    before = ids(source)
    write_results(source, source / "out")
    assert ids(source) == before
    assert "6 of earlier results" in said(source)


def test_a_folder_of_results_only_is_a_source(tmp_path: Path) -> None:
    """One flow works on another's results; their sensitivity still counts."""
    source = letters(tmp_path / "in")
    write_results(source, tmp_path / "out" / "inbox")
    found = read(tmp_path / "out" / "inbox", "public")
    pages = [each for each in found.values() if each.id.endswith(".md")]
    assert len(pages) == 3
    assert {page.sensitivity for page in pages} == {"internal"}
    assert ids(tmp_path / "out" / "inbox" / "1.txt.md") == ["1.txt.md"]
    with pytest.raises(Misuse, match="to read results, name their own folder"):
        ids(tmp_path / "out")


def test_a_link_to_results_is_left_out(tmp_path: Path) -> None:
    source = letters(tmp_path / "in")
    write_results(source, tmp_path / "elsewhere")
    (source / "results").symlink_to(tmp_path / "elsewhere")
    (source / "page.md").symlink_to(tmp_path / "elsewhere" / "1.txt.md")
    (source / "out").symlink_to(letters(tmp_path / "others"))
    documents = read(source)
    assert list(documents) == ["1.txt", "2.txt", "3.txt", "out"]
    assert "leads out of the folder" in reason(documents["out"])


# --- files of other programs ---------------------------------------------------------------------


LITTER = [
    "Thumbs.db", "thumbs.db", "ehthumbs.db", "Desktop.ini", "desktop.ini", "~$letter.docx",
    "~$letter.txt", ".DS_Store", "._letter.docx", ".~lock.letter.odt#", "~lock.x#",
    "~WRL0003.tmp", "~wrd1.TMP", "letter.tmp", "Icon\r", "letter.txt~", "#letter.txt#",
    "__MACOSX/letter.txt", "__MACOSX/._letter.txt", "$RECYCLE.BIN/letter.txt",
    "System Volume Information/x.txt", "sub/@eaDir/x.txt", "sub/Thumbs.db", ".hidden.txt",
]  # fmt: skip


@pytest.mark.parametrize("name", LITTER)
def test_a_file_of_another_program_is_left_out(tmp_path: Path, name: str) -> None:
    source = letters(tmp_path / "in")
    letters((source / name).parent, Path(name).name)
    assert ids(source) == ["1.txt", "2.txt", "3.txt"]
    assert said(source).startswith("1 ")


def test_what_was_left_out_is_said_once_with_the_first_names(tmp_path: Path) -> None:
    source = letters(tmp_path / "in")
    letters(source, "Thumbs.db", "a.tmp", "~$a.docx", "~$b.docx", ".DS_Store", "Icon\r")
    assert said(source) == (
        "1 hidden (.DS_Store); 5 of other programs (Icon\\r, Thumbs.db, a.tmp, …)"
    )


@pytest.mark.parametrize("name", ["tmp.txt", "thumbs.txt", "~letter.txt", "desktop.md"])
def test_a_letter_of_a_similar_name_is_read(tmp_path: Path, name: str) -> None:
    assert ids(letters(tmp_path / "in", name)) == [name]


def test_a_folder_that_is_called_like_a_temporary_file_is_read(tmp_path: Path) -> None:
    letters(tmp_path / "in" / "old.tmp", "a.txt")
    assert ids(tmp_path / "in") == ["old.tmp/a.txt"]


def test_a_file_of_its_own_is_read_whatever_its_name(tmp_path: Path) -> None:
    source = letters(tmp_path / "in", "~$letter.txt")
    assert ids(source / "~$letter.txt") == ["~$letter.txt"]


def test_a_folder_of_such_files_only_holds_no_document(tmp_path: Path) -> None:
    source = letters(tmp_path / "in", "Thumbs.db", ".DS_Store")
    with pytest.raises(
        Misuse, match=r"no document but .*1 of other programs \(Thumbs.db\)"
    ):
        iter_documents(source, sensitivity="internal")


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    root = make_project(tmp_path / "project", model("small", standin.url))
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    (root / "routing_rules" / "rules.yaml").write_text(rules)
    letters(root / "in", "1.txt", "Thumbs.db")
    return root


def run(terminal: Terminal, root: Path, *options: str) -> tuple[int, str]:
    done = terminal("run", "support_inbox", *options, cwd=root)
    return done.code, done.out + done.err


def test_a_run_reads_no_results_and_says_so(
    prefect_server: str, terminal: Terminal, project: Path
) -> None:
    for _ in range(2):
        code, screen = run(
            terminal, project, "--source", "in", "--out", "in/results", "--strict"
        )
        assert code == 0, screen
        assert "1 document: 1 accepted" in screen
    assert "Not read: 1 of other programs (Thumbs.db); 2 of earlier results" in screen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", ""], "name a folder or a file of documents"),
        (["--source", "."], "name a folder or a file of documents"),
        (["--source", ".."], "name a folder or a file of documents"),
        (["--source", "in", "--out", "in"], "name another folder"),
        (["--source", "in", "--out", "in/../in/"], "name another folder"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_source_of_more_than_documents_is_refused(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    standin: Standin,
    command: str,
    options: list[str],
    message: str,
) -> None:
    done = terminal(command, "support_inbox", *options, cwd=project)
    assert done.code == 2, done.out + done.err
    assert message in " ".join(done.err.split())
    assert standin.count == 0


def test_a_watched_folder_may_hold_nothing_but_results(
    prefect_server: str, terminal: Terminal, project: Path, standin: Standin
) -> None:
    options = ["--source", "in", "--out", "in/results", "--only-new", "true"]
    age(project / "in" / "1.txt")
    assert run(terminal, project, *options)[0] == 0
    calls = standin.count
    (project / "in" / "1.txt").unlink()
    code, screen = run(terminal, project, *options)
    assert code == 0, screen
    shutil.rmtree(project / "in" / "results")
    assert run(terminal, project, *options)[0] == 0
    assert standin.count == calls
