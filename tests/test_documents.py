"""Reading a folder or a file of plain text and rows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.reading import read, reason
from tierwise.documents import iter_documents, read_documents
from tierwise.errors import Misuse
from tierwise.records import SENSITIVITIES, Sensitivity, rank

IN_PROCESS = (".txt", ".md", ".csv", ".jsonl", ".xyz", "")


def write(folder: Path, **files: str | bytes) -> Path:
    """Files by name, with `__` for a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


# --- what is found -------------------------------------------------------------------------------


def test_a_folder_is_read_in_sorted_order_with_paths_as_ids_and_without_hidden_files(
    tmp_path: Path,
) -> None:
    (tmp_path / "b" / ".git").mkdir(parents=True)
    for name in ("c.txt", "a.md", "b/inner.txt", ".hidden.txt", "b/.git/x.txt"):
        (tmp_path / name).write_text(f"This is {name}")
    documents = read(tmp_path)
    assert list(documents) == ["a.md", "b/inner.txt", "c.txt"]
    assert documents["b/inner.txt"].text == "This is b/inner.txt"
    assert documents["b/inner.txt"].metadata == {"path": "b/inner.txt", "format": "txt"}


def test_one_file_is_a_source_too(tmp_path: Path) -> None:
    write(tmp_path, a__txt="one", b__txt="two")
    assert list(read(tmp_path / "b.txt")) == ["b.txt"]


def test_batches_carry_their_place_in_the_run(tmp_path: Path) -> None:
    write(tmp_path, rows__csv="text\n" + "".join(f"row {n}\n" for n in range(1, 6)))
    batches = read_documents(tmp_path, sensitivity="public", batch_size=2)
    assert [batch.label for batch in batches] == [
        "documents 1-2 of 5",
        "documents 3-4 of 5",
        "documents 5-5 of 5",
    ]
    assert [d.text for batch in batches for d in batch.load()] == [
        f"row {n}" for n in range(1, 6)
    ]


def test_a_missing_source_is_refused_at_once_with_what_is_accepted(
    tmp_path: Path,
) -> None:
    with pytest.raises(Misuse, match=r"nowhere: there is no such file.*\.docx.*\.txt"):
        iter_documents(tmp_path / "nowhere", sensitivity="public")


def test_a_folder_without_documents_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / ".hidden.txt").write_text("x")
    with pytest.raises(Misuse, match="holds no document"):
        iter_documents(tmp_path, sensitivity="public")


def test_a_batch_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="batch_size"):
        read_documents(write(tmp_path, a__txt="x"), sensitivity="public", batch_size=0)


def test_links_are_followed_inside_the_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    write(tmp_path, secret__txt="outside")
    write(folder, real__txt="inside")
    (folder / "sub" / "x.txt").write_text("below")
    (folder / "away.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "near.txt").symlink_to("real.txt")
    (folder / "same").symlink_to("sub")
    (folder / "nothing.txt").symlink_to("gone.txt")
    (folder / "loop.txt").symlink_to("loop.txt")
    documents = read(folder)
    assert set(documents) == {
        "away.txt",
        "up",
        "near.txt",
        "nothing.txt",
        "loop.txt",
        "real.txt",
        "sub/x.txt",
    }
    assert "leads out of the folder" in reason(documents["away.txt"])
    assert "leads out of the folder" in reason(documents["up"])
    assert "check the link" in reason(documents["nothing.txt"])
    assert "check the link" in reason(documents["loop.txt"])
    assert documents["near.txt"].text == "inside"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert "not a regular file" in reason(read(tmp_path)["pipe.txt"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_deferred(tmp_path: Path) -> None:
    write(tmp_path, a__txt="x")
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.txt").chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        documents = read(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert "check its permissions" in reason(documents["a.txt"])
    assert "check its permissions" in reason(documents["closed/"])


def test_odd_file_names_become_ids_that_can_be_printed_and_stored(
    tmp_path: Path,
) -> None:
    (tmp_path / "new\nline.txt").write_text("x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.txt")).write_text("y")
    documents = read(tmp_path)
    assert set(documents) == {"new\\nline.txt", "b\\xff.txt"}


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_read_whatever_its_byte_order_mark(
    tmp_path: Path, encoding: str
) -> None:
    text = "Größe, naïve – 注文"
    document = read(write(tmp_path, a__txt=text.encode(encoding)))["a.txt"]
    assert document.text == text
    assert "encoding" not in document.metadata


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (
            "Liebe Kollegin, die Prüfung der Straße für Jürgen Müller ergab Schönes. Grüße",
            "cp1252",
        ),
        (
            "Où est ma commande ? J'ai payé hier, le reçu est joint. À bientôt, Hélène",
            "cp1252",
        ),
        ("Привет, где мой заказ? Прошу вернуть деньги, спасибо.", "cp1251"),
        ("これは日本語のテキストです。注文が届きません。", "cp932"),
    ],
)
def test_an_old_encoding_is_guessed_and_the_guess_is_said(
    tmp_path: Path, text: str, encoding: str
) -> None:
    document = read(write(tmp_path, a__txt=text.encode(encoding)))["a.txt"]
    assert document.text == text
    assert document.metadata["encoding"] == encoding
    assert 0 < float(document.metadata["encoding_confidence"]) <= 1


def test_what_is_no_text_is_deferred_with_the_reason(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        binary__txt=b"PK\x03\x04\x00\x00",
        damaged__txt="Größe und Übermut".encode() + b"\xff",
        cut__txt="text".encode("utf-16") + b"\x00",
        empty__md=b"",
        blank__txt=" \n\t\n",
        big__txt="x" * 101,
        picture__psd=b"8BPS",
        noname="x",
    )
    documents = read(folder, max_bytes=100)
    assert "binary data" in reason(documents["binary.txt"])
    assert "not all of it is UTF-8" in reason(documents["damaged.txt"])
    assert "not all of it is utf-16" in reason(documents["cut.txt"])
    assert "the file is empty" in reason(documents["empty.md"])
    assert "no text found" in reason(documents["blank.txt"])
    assert "101 bytes, more than the limit of 100" in reason(documents["big.txt"])
    assert ".docx" in reason(documents["picture.psd"])
    assert ".docx" in reason(documents["noname"])


def test_endings_are_read_in_any_case(tmp_path: Path) -> None:
    assert read(write(tmp_path, A__TXT="hello"))["A.TXT"].text == "hello"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("My order has not arrived yet, please send it again.", "en"),
        ("Meine Bestellung ist leider noch nicht angekommen.", "de"),
        ("今日は天気がいいですね、注文はまだ届いていません。", "ja"),
        ("Ok", None),
        ("12345 67890 4711 0815 1234 5678 90", None),
        ("def f(x): return x+1\nimport os", None),
    ],
)
def test_the_language_is_told_and_left_open_where_it_is_unsure(
    tmp_path: Path, text: str, language: str | None
) -> None:
    assert read(write(tmp_path, a__txt=text))["a.txt"].language == language


def test_a_text_that_came_before_is_marked(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        a__txt="same\r\ntext\n",
        b__txt="other",
        c__md="same\ntext",
        d__txt="",
        e__txt="",
    )
    documents = read(folder)
    assert documents["c.md"].metadata["duplicate_of"] == "a.txt"
    assert [d.id for d in documents.values() if "duplicate_of" in d.metadata] == [
        "c.md"
    ]


# --- front matter and sensitivity ----------------------------------------------------------------


def test_front_matter_becomes_metadata_and_leaves_the_text(tmp_path: Path) -> None:
    text = (
        "---\n# a comment\ntitle: 'A: letter'\nsensitivity: confidential  # why\n"
        "tags:\n  - one\n  - two\npath: /etc\n---\nDear all,\n"
    )
    document = read(write(tmp_path, a__md=text))["a.md"]
    assert document.text == "Dear all,"
    assert document.sensitivity == "confidential"
    assert document.metadata == {
        "title": "A: letter",
        "tags": "- one - two",
        "path_": "/etc",
        "path": "a.md",
        "format": "md",
    }


def test_a_text_between_rules_is_not_front_matter(tmp_path: Path) -> None:
    text = "---\nOnce upon a time there was\n---\nthe end"
    assert read(write(tmp_path, a__md=text))["a.md"].text == text


def test_a_slip_of_form_in_the_front_matter_does_not_lower_the_sensitivity(
    tmp_path: Path,
) -> None:
    folder = write(
        tmp_path,
        a__md="---\nnot a pair\nSensitivity: restricted\n---\ntext",
        b__md="---\nlabels:\n  sensitivity: confidential\n---\ntext b",
        c__md="---\nsensitivity:\n  - confidential\n---\ntext c",
        d__md="---\nsensitivity: public\nsensitivity: confidential\n---\ntext d",
        e__md="\n\n---\nsensitivity: confidential\n---\ntext e",
        f__md="---\nsensitivity: confidential\n\nnever closed",
        g__md="sensitivity: confidential\nis what they said",
    )
    levels = {name: document.sensitivity for name, document in read(folder).items()}
    expected = [
        "restricted",
        "confidential",
        "restricted",
        "confidential",
        "confidential",
        "confidential",
        "internal",
    ]
    assert list(levels.values()) == expected


def test_an_unknown_sensitivity_means_restricted_and_is_noted(tmp_path: Path) -> None:
    document = read(
        write(tmp_path, a__md="---\nsensitivity: top secret\n---\ntext"), "public"
    )["a.md"]
    assert document.sensitivity == "restricted"
    assert document.metadata["sensitivity_note"].startswith(
        "'top secret' is not one of public, internal"
    )


@pytest.mark.parametrize(
    "letter",
    [
        "---\nFrom: Ann Marsh\nSubject: broken shelf\nDate: 2026-11-23\n---\nHello",
        "---\nComplaint: the shelf is broken, I want 240 euros back\nContact: ann@example.org\n---",
        "---\nsensitivity: confidential\ntopic: x\n---\nHello",
        "+++\ntitle = 'x'\n+++\nHello",
        "***\nHello\n***",
        "---\nHello\n---\nBye",
        "---\n\nHello",
        "---\n---\nHello",
    ],
)
@pytest.mark.parametrize("before", ["", "\ufeff", "\n\n", "\u200b\ufeff\n"])
def test_a_letter_that_begins_with_a_rule_keeps_its_lines(
    tmp_path: Path, letter: str, before: str
) -> None:
    document = read(write(tmp_path, a__txt=before + letter))["a.txt"]
    assert document.text == letter
    assert document.metadata == {"path": "a.txt", "format": "txt"}
    level = "confidential" if "sensitivity" in letter else "internal"
    assert document.sensitivity == level


@pytest.mark.parametrize("name", ["a.txt", "a.md"])
@pytest.mark.parametrize(
    "block",
    [
        "---\nsensitivity: confidential\n---",
        "\ufeff---\nsensitivity: confidential\n---",
        "\u200b\n---\nSensitivity : 'confidential' # why\n---",
        "---\nnot: a: mapping\nsensitivity: confidential\n---",
        "---\nbase: &x 1\nsensitivity: confidential\n---",
        "---\nsensitivity: confidential\n...",
        '+++\nsensitivity = "confidential"\n+++',
        "---\r\nsensitivity: confidential\r\n---\r",
    ],
)
def test_a_declared_sensitivity_counts_under_either_ending(
    tmp_path: Path, name: str, block: str
) -> None:
    document = read(write(tmp_path, **{name.replace(".", "__"): f"{block}\nHello"}))
    assert document[name].sensitivity == "confidential"
    assert document[name].text.endswith("Hello")


@pytest.mark.parametrize(
    "block",
    [
        "Subject: Re: your letter\nFrom: Ann",  # no YAML
        "1: one\n2: two",  # keys that are no words
        "a: &x [1]\nb: *x",
        "Dear Sir, I write: the shelf\n- is broken",
    ],
)
def test_a_block_that_is_no_plain_mapping_stays_in_the_text(
    tmp_path: Path, block: str
) -> None:
    text = f"---\n{block}\n---\nHello"
    assert read(write(tmp_path, a__md=text))["a.md"].text == text


def test_a_block_with_nothing_below_it_is_the_letter(tmp_path: Path) -> None:
    text = "---\nComplaint: the shelf is broken\n---"
    assert read(write(tmp_path, a__md=f"{text}\n\n"))["a.md"].text == text


@pytest.mark.parametrize(
    "text",
    [
        "\u200b\u200c\ufeff",
        "\u00ad\n\u2060 \u200e",
        "\u3164\u2800\u115f",
        "\U000e0041\ufe0f",
        "\u034f\u180e",
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.jsonl"])
def test_characters_without_a_glyph_are_no_text(
    tmp_path: Path, text: str, name: str
) -> None:
    content = {"a.csv": f'text\n"{text}"', "a.jsonl": json.dumps({"text": text})}
    (tmp_path / name).write_text(content.get(name, text))
    [document] = read(tmp_path).values()
    assert "no text found in it" in reason(document)


def test_a_short_text_of_any_script_is_one(tmp_path: Path) -> None:
    for number, text in enumerate(["é", "ก็", "1", "?", "€", "👍🏽", "अ", "\ue000"]):
        (tmp_path / f"{number}.txt").write_text(f"\u200b{text}")
    assert not any(document.deferred for document in read(tmp_path).values())


@settings(max_examples=60, deadline=None)
@given(
    base=st.sampled_from(SENSITIVITIES),
    declared=st.sampled_from(SENSITIVITIES)
    | st.text(st.characters(codec="utf-8"), max_size=12),
)
def test_a_declared_sensitivity_never_lowers(
    tmp_path_factory: pytest.TempPathFactory, base: Sensitivity, declared: str
) -> None:
    """In front matter, CSV and JSON Lines alike; one of ours raises to exactly that."""
    folder = tmp_path_factory.mktemp("in")
    quoted = '"' + declared.replace('"', '""') + '"'
    write(
        folder,
        a__md=f"---\nsensitivity: {declared}\n---\nhello",
        b__csv=f"text,sensitivity\nhello,{quoted}\n",
        c__jsonl=json.dumps({"text": "hello", "sensitivity": declared}),
    )
    for document in read(folder, base).values():
        assert rank(document.sensitivity) >= rank(base)
        if declared in SENSITIVITIES:
            expected = max(rank(base), rank(declared))  # type: ignore[arg-type]
            assert rank(document.sensitivity) == expected


# --- rows ----------------------------------------------------------------------------------------


def test_a_csv_row_is_a_document_and_its_other_columns_are_metadata(
    tmp_path: Path,
) -> None:
    rows = 'Text,who,empty,Sensitivity\n"two\nlines, quoted",Ann,,\nplain,Bob,,restricted\n'
    documents = read(write(tmp_path, mail__csv=rows))
    assert list(documents) == ["mail.csv#1", "mail.csv#2"]
    assert documents["mail.csv#1"].text == "two\nlines, quoted"
    assert documents["mail.csv#1"].metadata == {
        "who": "Ann",
        "path": "mail.csv",
        "format": "csv",
    }
    assert [document.sensitivity for document in documents.values()] == [
        "internal",
        "restricted",
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_csv_is_read_with_the_delimiter_and_encoding_that_it_has(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    rows = [
        ("id", "body"),
        ("x", "Schöne Grüße aus der Königsstraße, wir hören voneinander"),
    ]
    text = "".join(delimiter.join(f'"{cell}"' for cell in row) + "\r\n" for row in rows)
    document = read(write(tmp_path, a__csv=text.encode(encoding)), text_column="body")[
        "a.csv#x"
    ]
    assert document.text == rows[1][1]
    assert document.metadata.get("encoding") == (
        "cp1252" if encoding == "cp1252" else None
    )


def test_the_id_column_names_a_row_where_it_is_unique_and_printable(
    tmp_path: Path,
) -> None:
    rows = [
        {"id": "A"},
        {"id": 7},
        {"id": "A"},
        {"id": "x\ny"},
        {"id": "4"},
        {"id": ["b"]},
        {"id": "y" * 101},
        {},
    ]
    lines = "".join(json.dumps({**row, "text": "hi"}) + "\n" for row in rows)
    documents = read(write(tmp_path, a__jsonl=lines))
    assert [name.removeprefix("a.jsonl#") for name in documents] == [
        "A",
        "7",
        "3",
        "4",
        "5",
        "6",
        "7~2",
        "8",
    ]
    assert documents["a.jsonl#3"].metadata["id"] == "A"


def test_a_broken_csv_row_defers_that_row_only(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        a__csv=b'text,n\ngood,1\n"bad"quote,2\ntoo,many,cells\nfew\n'
        b"\xc3\xbcber,5\nsp\xfflit,6\n,7\n"
        + b"x" * 200 + b',8\nlast,9\n"never closed,10\n',
    )  # fmt: skip
    documents = read(folder, max_bytes=100)
    good = {
        name: document.text
        for name, document in documents.items()
        if not document.deferred
    }
    assert good == {"a.csv#1": "good", "a.csv#5": "über", "a.csv#9": "last"}
    reasons = [reason(documents[f"a.csv#{n}"]) for n in (2, 3, 4, 6, 7, 8, 10)]
    expected = [
        "row is broken",
        "3 cells",
        "1 cells",
        "not all utf-8",
        "no 'text'",
        "longer than 100",
        "row is broken",
    ]
    assert [
        want for want, found in zip(expected, reasons, strict=True) if want not in found
    ] == []


def test_a_broken_json_line_defers_that_line_only(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "first", "n": 1, "ok": true, "nested": {"a": [1]}, "none": null}',
        b"{not json",
        b'["a list"]',
        b"",
        b'{"text": 5}',
        b'{"other": "x"}',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b"[" * 90,
        b'{"text": "' + b"x" * 200 + b'"}',
        b'{"text": "nul\\u0000 last"}',
    ]
    documents = read(write(tmp_path, a__jsonl=b"\n".join(lines)), max_bytes=100)
    texts = {
        name: document.text
        for name, document in documents.items()
        if not document.deferred
    }
    assert texts == {"a.jsonl#1": "first", "a.jsonl#10": "nul\ufffd last"}
    metadata = documents["a.jsonl#1"].metadata
    assert (metadata["n"], metadata["ok"], metadata["nested"]) == (
        "1",
        "true",
        '{"a":[1]}',
    )
    assert "none" not in metadata
    assert "not a text but a int" in reason(documents["a.jsonl#4"])
    assert "longer than 100" in reason(documents["a.jsonl#9"])


def test_a_file_of_rows_that_cannot_be_read_is_one_deferred_document(
    tmp_path: Path,
) -> None:
    folder = write(
        tmp_path,
        column__csv="a,b\n1,2\n",
        twice__csv="text,n,N\nx,1,2\n",
        header__csv="text\n",
        binary__csv=b"text\n\x00\x01",
        blank__jsonl="\n\n",
        cut__csv="text\nfirst\nsecond\n".encode("utf-16") + b"\x00",
    )
    documents = read(folder)
    assert "no column 'text' (its columns: a, b)" in reason(documents["column.csv"])
    assert "two of its columns are called 'n'" in reason(documents["twice.csv"])
    assert "no rows" in reason(documents["header.csv"])
    assert "binary" in reason(documents["binary.csv"])
    assert "no rows" in reason(documents["blank.jsonl"])
    assert (
        "from here on"
        in [
            reason(d)
            for d in documents.values()
            if d.id.startswith("cut.csv") and d.deferred
        ][-1]
    )


def test_rows_are_read_one_at_a_time(tmp_path: Path) -> None:
    """The first document is there before the file has been read to its end."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "first"}\n')
    documents = iter_documents(path, sensitivity="public")
    assert next(documents).text == "first"
    with path.open("a") as file:
        file.write('{"text": "written meanwhile"}\n')
    assert next(documents).text == "written meanwhile"


def test_ids_stay_unique_when_a_file_is_called_like_a_row(tmp_path: Path) -> None:
    folder = write(tmp_path, a__csv="id,text\nb.txt,row\n")
    (folder / "a.csv#b.txt").write_text("file")
    assert {name: document.text for name, document in read(folder).items()} == {
        "a.csv#b.txt": "row",
        "a.csv#b.txt~2": "file",
    }


@settings(max_examples=120, deadline=None)
@given(
    content=st.binary(max_size=300)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.binary(max_size=100).map(lambda data: b"text,id,sensitivity\n" + data)
    | st.binary(max_size=100).map(
        lambda data: b"---\nsensitivity: internal\n" + data + b"\n---\n"
    )
)
def test_any_bytes_under_any_ending_become_documents(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """No exception, nothing lost, and every text can be encoded."""
    folder = tmp_path_factory.mktemp("in")
    for number, suffix in enumerate(IN_PROCESS):
        (folder / f"{number}{suffix}").write_bytes(content)
    documents = read(folder)
    for number, suffix in enumerate(IN_PROCESS):
        assert any(
            document.metadata["path"] == f"{number}{suffix}"
            for document in documents.values()
        )
    for document in documents.values():
        assert bool(document.text) != bool(document.deferred)
        json.dumps(
            [document.id, document.text, dict(document.metadata)], ensure_ascii=False
        ).encode()
