"""`tierwise check SOURCE` and a project's own readers, which run under the limits of all others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kit.formats import msg, pptx_file, xlsx
from tests.kit.reading import read, reason
from tests.kit.terminal import Terminal
from tests.test_archives import packed
from tierwise.documents.readers import ReadingSettings
from tierwise.errors import ConfigError
from tierwise.project import Project

READER = '''
def read(data: bytes) -> list[dict[str, str]]:
    """A document for each segment."""
    first, *segments = data.decode("latin-1").split("'")
    if not first.startswith("UNB"):
        raise ValueError("the-secret-words")
    return [{"id": each[:1], "text": each[1:], "sensitivity": "restricted"} for each in segments]
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "routing_rules").mkdir(parents=True)
    (root / "readers").mkdir()
    (root / "in").mkdir()
    (root / "readers" / "edi.py").write_text(READER)
    settings(root, '".edi" = "readers.edi:read"')
    return root


def settings(root: Path, readers: str) -> None:
    (root / "pyproject.toml").write_text(f"[tool.tierwise.readers]\n{readers}\n")


def put(root: Path, **files: bytes) -> None:
    for name, content in files.items():
        stem, _, ending = name.rpartition("_")
        (root / "in" / f"{stem}.{ending}").write_bytes(content)


def own(root: Path, source: str) -> ReadingSettings:
    """Settings with a reader of this source; each in a module of its own."""
    (root / "readers" / "edi.py").write_text(source)
    return Project(root).reading


def test_a_source_is_checked_before_a_run(project: Path, terminal: Terminal) -> None:
    put(
        project,
        a_xlsx=xlsx({"S": [["id", "text"], ["A1", "The lamp"], ["A2", None]]}),
        b_pptx=pptx_file(),
        c_zip=packed({"x.txt": "Hello", "y.doc": "x", "z.doc": "x"}),
        d_msg=msg(),
        e_edi=b"UNB'1One'2Two",
    )
    done = terminal("check", "in", cwd=project)
    assert done.code == 1
    lines = done.out.splitlines()
    title = lines.index("Cannot be read:")
    assert lines[title + 1 : title + 5] == [
        "  .doc files are not read; save it as .docx",
        "      c.zip/y.doc, c.zip/z.doc",
        "  row 3: it has no 'text'; fill it in, or delete the row",
        "      a.xlsx#S!A2",
    ]
    counts = [line.split() for line in lines[:title]]
    assert ["doc", "0", "2"] in counts
    assert ["msg", "1", "0"] in counts
    assert lines[-1].startswith("6 documents can be read; 3 documents cannot")
    data = json.loads(terminal("check", "in", "--json", cwd=project).out)
    assert data["formats"]["edi"] == {"read": 2, "in_part": 0, "waiting": 0}
    assert data["formats"]["xlsx"] == {"read": 1, "in_part": 0, "waiting": 1}
    assert [remark["id"] for remark in data["remarks"]] == [
        "a.xlsx#S!A2",
        "c.zip/y.doc",
        "c.zip/z.doc",
    ]


def test_a_reason_is_printed_once_for_all_formats_and_rows(
    project: Path, terminal: Terminal
) -> None:
    rows = "".join(f"{number},\n" for number in range(9))
    put(project, a_csv=f"id,text\n{rows}".encode(), b_pdf=b"x", c_png=b"x", d_docx=b"x")
    out = terminal("check", "in", cwd=project).out
    assert out.count("it has no 'text'") == 1
    assert out.count("not what its ending says") == 1
    assert "b.pdf, d.docx" in out


def test_what_a_run_refuses_is_refused_here(project: Path, terminal: Terminal) -> None:
    for source in (".", "..", project):
        assert terminal("check", source, cwd=project).code == 2
    put(project, a_txt=b"One")
    assert terminal("check", ".", cwd=project / "in").code == 0


def test_a_source_that_can_be_read_passes(
    project: Path, tmp_path: Path, terminal: Terminal
) -> None:
    def code(*arguments: str, cwd: Path = project) -> int:
        return terminal("check", *arguments, cwd=cwd).code

    put(project, a_csv=b"body\nOne\n", b_txt=b"Two")
    assert code("in", "--text-column", "body") == 0
    assert code("in") == 1
    (project / "in" / "a.csv").unlink()
    rows = [["a"], ["=1+1"]]
    put(project, c_xlsx=xlsx({"S": rows}))
    assert code("in") == 0
    assert code("in", "--strict") == 1
    assert code("nowhere") != 0
    # without a project: the defaults
    assert code("project/in", cwd=tmp_path) == 0


def test_a_project_reads_a_format_of_its_own(project: Path) -> None:
    put(project, a_edi=b"UNB'1One'2Two", b_zip=packed({"c.edi": b"UNB'9Nine"}))
    documents = read(project / "in", settings=Project(project).reading)
    assert {name: document.text for name, document in documents.items()} == {
        "a.edi#1": "One",
        "a.edi#2": "Two",
        "b.zip/c.edi#9": "Nine",
    }
    assert {document.sensitivity for document in documents.values()} == {"restricted"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('the-secret-words')", "ValueError (readers/edi.py:2)"),
        ("raise SystemExit", "SystemExit"),
        ("return 7", "returned a int"),
        ("return [7]", "document 1 is a int"),
        ("return {'words': 'x'}", "it has no 'text'"),
        ("return ''", "no text"),
        (
            "import socket; socket.create_connection(('127.0.0.1', 9))",
            "PermissionError",
        ),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.system('true')", "PermissionError"),
        ("while True: pass", "took longer than 1 s of processor time"),
        ("import time; time.sleep(900)", "did not end within 10 s"),
        ("return bytearray(4 << 30)", "memory"),
        ("import os; os._exit(3)", "ended its process"),
        (
            "from tierwise.errors import DocumentError; raise DocumentError('no UNB; add one')",
            "readers.edi:read says: no UNB; add one",
        ),
    ],
)
def test_a_reader_that_fails_is_named_and_the_next_file_is_read(
    project: Path, body: str, words: str
) -> None:
    put(project, a_edi=b"x", b_txt=b"Fine")
    how = own(project, f"def read(data):\n    {body}\n")
    documents = read(project / "in", settings=how, max_seconds=1)
    found = reason(documents["a.edi"])
    assert words in found
    assert "the-secret-words" not in found
    assert documents["b.txt"].text == "Fine"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_like_this\n", "ModuleNotFoundError"),
        ("def other(data): ...\n", "AttributeError"),
        ("def read(data:\n", "SyntaxError"),
    ],
)
def test_a_reader_that_cannot_be_imported_is_named(
    project: Path, source: str, words: str
) -> None:
    put(project, a_edi=b"x")
    [document] = read(project / "in", settings=own(project, source)).values()
    assert words in reason(document)
    assert "readers.edi:read" in reason(document)


@pytest.mark.parametrize(
    "readers",
    [
        '"edi" = "readers.edi:read"',
        '".EDI" = "readers.edi:read"',
        '".edi" = "readers.edi"',
        '".edi" = "rm -rf:/"',
        '".edi" = 7',
    ],
)
def test_a_wrong_setting_is_refused(project: Path, readers: str) -> None:
    settings(project, readers)
    with pytest.raises(ConfigError):
        _ = Project(project).settings


def test_a_reader_may_replace_ours_and_return_a_text(project: Path) -> None:
    settings(project, '".csv" = "readers.edi:read"')
    put(project, a_csv=b"One")
    how = own(project, "def read(data): return data.decode() + ' line'\n")
    assert read(project / "in", settings=how)["a.csv"].text == "One line"


def test_a_changed_reader_is_a_change_of_reading(project: Path) -> None:
    before = Project(project).reading.key()
    assert own(project, READER).key() == before
    assert own(project, READER + "\n").key() != before
