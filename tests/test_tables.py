# ruff: noqa: E501
"""CSV and JSON Lines as people and programs send them: no row is lost, or merged, in silence."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.kit.reading import read, reason
from tierwise.errors import ConfigError
from tierwise.records import Document
from tierwise.text.rows import read_rows

LINES = re.compile(r"lines? (\d+)(?: to (\d+))?")


def read_table(folder: Path, content: str | bytes, name: str = "a.csv", **options: object) -> dict[str, Document]:  # fmt: skip
    """Read one file, and return its documents by the part of their id behind `#`."""
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    documents = read(folder / name, **options)  # type: ignore[arg-type]
    return {key.removeprefix(f"{name}#"): each for key, each in documents.items()}


def texts(documents: dict[str, Document]) -> dict[str, str]:
    return {key: each.text for key, each in documents.items() if not each.deferred}


def problems(documents: dict[str, Document]) -> list[str]:
    return [reason(each) for each in documents.values() if each.deferred]


def letters(numbers: range, text: str = "Letter {}: the lamp is late") -> list[str]:
    return [f"{n},{text.format(n)}" for n in numbers]


# --- a quote out of place ------------------------------------------------------------------------


STRAY = {
    "merged up to an inch sign": (
        ["id,text", *letters(range(1, 5)), '5,"Letter 5: the 27 inch screen', *letters(range(6, 40)), '40,my screen has 27"', *letters(range(41, 50))],
        "lines 6 to 41 (36 lines)", 49,
    ),
    "merged over two rows": (
        ["id,text", *letters(range(1, 5)), '5,"Letter 5', '6,Letter 6', '7,my screen has 27"', *letters(range(8, 20))],
        "lines 6 to 8 (3 lines)", 19,
    ),
    "never closed": (
        ["id,text", *letters(range(1, 5)), '5,"Letter 5: I said: call me', *letters(range(6, 50))],
        "lines 6 to 50 (45 lines)", 49,
    ),
    "never closed, in the first row": (
        ["id,text", '1,"Letter 1', *letters(range(2, 50))],
        "lines 2 to 50 (49 lines)", 49,
    ),
    "closed by the quote of the next row": (
        ["id,text", *letters(range(1, 5)), '5,"never closed', *letters(range(6, 20), '"Letter {}, lamp"')],
        "lines 6 to 7 (2 lines)", 19,
    ),
    "in the first of three columns": (
        ["text,from,n", *[f"Letter {n},Ann,{n}" for n in range(1, 5)], '"Letter 5,Ann,5', *[f"Letter {n},Bob,{n}" for n in range(6, 12)], 'my 27",Ann,12', "last,Ann,13"],
        "lines 6 to 13 (8 lines)", 13,
    ),
    "ids that do not count": (
        ["id,text", *[f"{n * 7919 % 10007:05},Letter {n}" for n in range(1, 9)], '00042,"Letter', *[f"{n * 7919 % 10007:05},Letter {n}" for n in range(10, 30)], '09999,the 27"', "01234,last"],
        "lines 10 to 31 (22 lines)", 31,
    ),
    "labels that were there before": (
        ["label,text", *["order,hello", "complaint,late"] * 3, 'order,"open', *["complaint,late", "order,hello"] * 3, 'order,27"', "order,last"],
        "lines 8 to 15 (8 lines)", 15,
    ),
    "names and subjects only": (
        ["from,text", "Ann,hello", "Bob Marsh,late", 'Cy,"open', *[f"Dora {chr(65 + n)},late" for n in range(12)], 'Ed,27"', "Fay,last"],
        "lines 4 to 17 (14 lines)", 17,
    ),
    "texts with commas that lack their quotes": (
        ["id,text", *letters(range(1, 5)), '5,"Letter 5, hello', *letters(range(6, 12), "Letter {}, hello, again"), '12,27"', "13,last"],
        "lines 6 to 13 (8 lines)", None,
    ),
    "ids of letters and digits": (
        ["id,text", *[f"{n * 7919 * 104729 % 16**6:06x},Letter {n}" for n in range(1, 9)], '0a1b2c,"Letter', *[f"{n * 7919 * 104729 % 16**6:06x},Letter {n}" for n in range(10, 30)], '123456,the 27"', "abcdef,last"],
        "lines 10 to 31 (22 lines)", 31,
    ),
    "names and addresses": (
        ["name,email,text", "Ann,ann@x.org,hi", 'Bob,bob.b@x.org,"open', *[f"{n},{n.lower()}@post.example,late" for n in ("Cy", "Dee", "Edward", "Fay")], 'Gil,gil@x.org,27"', "Hal,hal@x.org,last"],
        "lines 3 to 8 (6 lines)", 8,
    ),
    "many columns": (
        ["from,to,text,place", "Ann,Bo,hi,Kiel", 'Bo,Cy,"open,Bonn', "Cy,Di,late,Ulm", "Di,Ed,late,Kiel", 'Ed,Fay,27",Bonn', "Fay,Gil,last,Ulm"],
        "lines 3 to 6 (4 lines)", 6,
    ),
    "with semicolons": (
        ["id;text", *[f"{n};Letter, {n}" for n in range(1, 5)], '5;"Letter', *[f"{n};Letter, {n}" for n in range(6, 20)], '20;27"', "21;last"],
        "lines 6 to 21 (16 lines)", 21,
    ),
}  # fmt: skip


@pytest.mark.parametrize("lines_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", STRAY)
def test_a_stray_quote_takes_one_row_and_says_which_lines(
    tmp_path: Path, name: str, lines_end: str
) -> None:
    lines, place, rows = STRAY[name]
    documents = read_table(tmp_path, lines_end.join(lines) + lines_end)
    problem = problems(documents)[0]
    assert place in problem
    assert "left out" in problem
    if rows is not None:
        assert len(documents) == rows
        assert len(texts(documents)) == rows - 1
    assert all(len(text) < 40 for text in texts(documents).values())


@pytest.mark.parametrize(
    "cell",
    [
        "Dear Sir,\nthe desk, the lamp and the sofa\nare late, again.\nRegards, Ann",
        "Dear all\nchair, 4\nlamp, 2\ndesk, 1\nsofa, 9\nbed, 3\nRegards",
        "My order\n1,chair\n2,lamp\n3,desk\n4,sofa\n5,bed\n6,stool",
        "My order\nchair,4\nlamp,2\ndesk,1\nsofa,3",
        "My order\n1,chair,4\n2,lamp,2\n3,desk,1\n4,bed,1\n5,sofa,1\n6,stool,1",
        "Names\nSmith, John\nDoe, Jane\nRoe, Rick\n" * 20,
        'id,text\n1,"hello, there"\n2,"late"\n3,"again"',
        "a;b\nc;d\ne;f\n\n\n\ttab\ttab\n|x|y|\n|-|-|\n|1|2|",
        'He said "no, never",\n"not, again"\n""',
        "one\r\ntwo, three\rfour\n",
        ",\n,\n,\n,\n,\n,\n,\n,\n,\n,",
        "5,5 Meter\n6,5 Meter lang",
    ],
)
@pytest.mark.parametrize("header", [["id", "text"], ["text", "n"], ["text"], ["from", "text", "n"]])  # fmt: skip
def test_a_letter_of_several_lines_stays_one_letter(
    tmp_path: Path, cell: str, header: list[str]
) -> None:
    """Also with commas in its text, and with a small table in it."""
    other = {"id": 10, "n": 7, "from": "Ann Marsh"}
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(header)
    for number in range(1, 8):
        values = {"id": number, "n": number, "from": f"Bob {number}", "text": "hi"}
        writer.writerow([values[name] for name in header])
    writer.writerow([cell if name == "text" else other[name] for name in header])
    writer.writerow([f"last {name}" for name in header])
    documents = read_table(tmp_path, file.getvalue())
    assert problems(documents) == []
    unified = cell.replace("\r\n", "\n").replace("\r", "\n").strip()
    assert list(texts(documents).values()) == ["hi"] * 7 + [unified, "last text"]


def test_the_lines_of_a_broken_letter_are_no_rows(tmp_path: Path) -> None:
    """They are left out with its first line: nothing in them is paid for as a letter."""
    rows = (
        "id,text\n1,hello\n2,hi\n"
        '3,"Dear Sir,\nthe 27" screen is late.\n\nPlease call me,\nRegards, Ann"\n'
        '4,"Dear all,\nthank you."\n5,last\n'
    )
    documents = read_table(tmp_path, rows)
    assert texts(documents) == {
        "1": "hello",
        "2": "hi",
        "4": "Dear all,\nthank you.",
        "5": "last",
    }
    assert "lines 4 to 8 are left out" in problems(documents)[0]


def test_a_letter_with_escaped_quotes_is_read(tmp_path: Path) -> None:
    r"""As many databases write them: `\"` in place of `""`."""
    rows = (
        "id,text\n"
        + r'1,"He said \"hello, there\" to me"'
        + "\n"
        + '2,"Dear Sir,\n'
        + r"the \"lamp\" is late"
        + '"\n'
        + r'3,"it ends with \""'
        + "\n"
        + r'4,"C:\dir\"'
        + "\n5,last\n"
    )
    documents = read_table(tmp_path, rows)
    assert texts(documents) == {
        "1": 'He said "hello, there" to me',
        "2": 'Dear Sir,\nthe "lamp" is late',
        "3": 'it ends with "',
        "4": "C:\\dir\\",
        "5": "last",
    }


def test_a_golden_set_with_a_stray_quote_is_refused_with_its_lines(
    tmp_path: Path,
) -> None:
    path = tmp_path / "golden.csv"
    path.write_text("\n".join(STRAY["merged up to an inch sign"][0]))
    errors = [str(row) for _, row in read_rows(path) if isinstance(row, ConfigError)]
    assert len(errors) == 1
    assert "golden.csv:6: not valid CSV: lines 6 to 41 (36 lines)" in errors[0]


# --- dialects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\r\nid;text\r\n1;one, two\r\n2;three\r\n",
        '"sep=;"\nid;text\n1;one, two\n2;three\n',
        "SEP=\t\nid\ttext\n1\tone, two\n2\tthree\n",
        "\ufeffsep=|\nid|text\n1|one, two\n2|three\n",
        "\n\nid;text\n1;one, two\n\n \n2;three\n",
        '"id";"text"\n"1";"one, two"\n"2";"three"\n',
        "id\ttext\t\n1\tone, two\t\n2\tthree\t\t\t\n",
        'id,text\n1,"one, two",\n2,three,,,\n',
        "ID ,Text\r1,one\\, two\r2,three".replace("\\, ", ", ").replace("one, two", '"one, two"'),
        "\ufeffid;text\n1;one, two\n2;three",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_dialect_of_csv_is_read(tmp_path: Path, content: str, encoding: str) -> None:
    content = content.removeprefix("\ufeff") if encoding == "utf-16" else content
    documents = read_table(tmp_path, content.encode(encoding))
    assert problems(documents) == []
    assert texts(documents) == {"1": "one, two", "2": "three"}


def test_nul_bytes_spoil_their_cells_only(tmp_path: Path) -> None:
    """A program's slip, or the end of a file that a crash cut off."""
    rows = b"id,text\n" + b"".join(b"%d,the lamp is late\n" % n for n in range(20))
    rows += b"20,the \0desk\n21,last\n" + b"\0" * 4096
    documents = read_table(tmp_path, rows)
    assert texts(documents)["20"] == "the \ufffddesk"
    assert texts(documents)["21"] == "last"
    assert len(problems(documents)) == 1
    assert "line 24: it has 1 cells" in problems(documents)[0]


def test_columns_without_a_name_keep_their_values(tmp_path: Path) -> None:
    documents = read_table(tmp_path, "id,text,, \n1,hello,x,y\n")
    metadata = documents["1"].metadata
    assert (metadata["column 3"], metadata["column 4"]) == ("x", "y")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("text,n,N", "two of its columns are called 'n'"),
        ("a;b", "no column 'text' (its columns: a;b)"),
        ("sep=;\ntext,n", "no column 'text' (its columns: text,n)"),
    ],
)
def test_a_header_that_cannot_be_used_is_one_message(
    tmp_path: Path, header: str, said: str
) -> None:
    [problem] = problems(read_table(tmp_path, header + "\n1,2,3\n1,2,3\n"))
    assert said in problem


def test_files_put_one_behind_the_other_are_read(tmp_path: Path) -> None:
    """With a header and a byte order mark in the middle."""
    part = b"\xef\xbb\xbfid,text\r\n%d,one, two\r\n".replace(b"one, two", b'"one, two"')
    documents = read_table(tmp_path, part % 1 + part % 2)
    assert problems(documents) == []
    assert texts(documents) == {"1": "one, two", "2": "one, two"}


def test_a_cell_over_the_modules_limit_is_read(tmp_path: Path) -> None:
    long = "word, " * 40_000
    documents = read_table(tmp_path, f'id,text\n1,"{long}"\n2,hi\n')
    assert texts(documents) == {"1": long.strip(), "2": "hi"}


def test_a_row_of_several_lines_is_limited_too(tmp_path: Path) -> None:
    long = "Dear Sir,\n" * 50
    documents = read_table(tmp_path, f'id,text\n1,hi\n2,"{long}"\n3,last\n', max_bytes=200)  # fmt: skip
    assert set(texts(documents).values()) == {"hi", "last"}
    assert "it has more than 200 characters" in problems(documents)[0]


def test_a_table_of_one_column_needs_no_quotes(tmp_path: Path) -> None:
    documents = read_table(tmp_path, 'text\nHello,\n"Dear Sir,\nI, again"\na, b; c\n')
    assert list(texts(documents).values()) == [
        "Hello,",
        "Dear Sir,\nI, again",
        "a, b; c",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_line_ends_of_another_kind_are_part_of_a_cell(tmp_path: Path, end: str) -> None:
    """Such as a carriage return that Python's csv module writes without quotes."""
    other = "\n" if end == "\r" else "\r"
    rows = end.join(
        ["id,text", f"1,Dear Sir,{other}it is late".replace("Sir,", "Sir"), "2,b", ""]
    )
    documents = read_table(tmp_path, rows)
    assert texts(documents) == {"1": "Dear Sir\nit is late", "2": "b"}


def test_every_problem_of_a_row_names_its_line(tmp_path: Path) -> None:
    rows = b'id,text\n1,"two\nlines"\ntoo,many,cells\nfew\n5,sp\xfflit \xc3\xbc\xc3\xbc\n"6"x,y\n'
    found = [LINES.search(problem) for problem in problems(read_table(tmp_path, rows))]
    assert [match and match[0] for match in found] == ["line 4", "line 5", "line 6", "line 7"]  # fmt: skip


# --- JSON Lines ----------------------------------------------------------------------------------


def test_json_lines_are_read_as_python_writes_them(tmp_path: Path) -> None:
    rows = [
        '{"id": 1, "text": "The lamp", "score": NaN, "low": -Infinity, "more": [Infinity, 2]}',
        '{"id": 2, "text": "half \\ud83d", "note": "\\udc00"}',
        '{"id": 123456789012345678901234567890, "text": "big", "sum": -98765432109876543210}',
        '{"id": 4, "text": "deep", "nested": {"n": 18446744073709551616, "x": [NaN]}}',
        '{"id": 5, "text": "an element"},',
        "",
        '{"id": true, "text": "a flag"}',
        '{"id": 8, "text": "tab\there"}',
        f'{{"id": 9, "text": "digits", "n": {"7" * 5000}}}',
        '{"id": 10, "text": NaN}',
    ]
    documents = read_table(tmp_path, "\r\n".join(rows), "a.jsonl")
    assert texts(documents) == {
        "1": "The lamp",
        "2": "half \ufffd",
        "123456789012345678901234567890": "big",
        "4": "deep",
        "5": "an element",
        "6": "a flag",
        "8": "tab\there",
        "9": "digits",
    }
    first = documents["1"].metadata
    assert "score" not in first
    assert first["more"] == "[null,2]"
    big = documents["123456789012345678901234567890"].metadata
    assert big["sum"] == "-98765432109876543210"
    assert json.loads(documents["4"].metadata["nested"])["n"] == 2**64
    assert documents["9"].metadata["n"] == "7" * 5000
    [problem] = problems(documents)
    assert problem.startswith("line 10: it has no 'text'")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[\n {\n  "id": 1,\n  "text": "x"\n }\n]', "one JSON array"),
        ('[{"text": "x"}, {"text": "y"}]', "one JSON array"),
        ('\ufeff\n[{"text": "x"},\n{"text": "y"}]\n', "one JSON array"),
        ("[]", "one JSON array"),
        ("[{", "one JSON array"),
        ('{\n "text": "x"\n}\n{\n "text": "y"\n}', "go over several lines"),
    ],
)
def test_json_that_is_not_json_lines_is_one_message(
    tmp_path: Path, content: str, said: str
) -> None:
    [problem] = problems(read_table(tmp_path, content, "a.jsonl"))
    assert said in problem
    assert "write one object a line" in problem


def test_a_text_that_is_there_twice_is_no_row(tmp_path: Path) -> None:
    rows = '{"id": 1, "text": "a", "text": "b"}\n{"id": 2, "text": "c", "x": {"text": "\\"text\\""}}\n'
    documents = read_table(tmp_path, rows, "a.jsonl")
    assert texts(documents) == {"2": "c"}
    assert "'text' more than once" in problems(documents)[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_lines_with_a_byte_order_mark_are_read(
    tmp_path: Path, encoding: str
) -> None:
    content = '{"id": 1, "text": "Schöne Grüße"}\r\n{"id": 2, "text": "ok"}\r\n'
    documents = read_table(tmp_path, content.encode(encoding), "a.jsonl")
    assert texts(documents) == {"1": "Schöne Grüße", "2": "ok"}


# --- properties ----------------------------------------------------------------------------------

_CELLS = st.text(
    st.sampled_from('ab1 ,;\t|"\n\r\\')
    | st.characters(codec="utf-8", exclude_characters="\0\ufdd0\ufdd1"),
    max_size=30,
)
_DELIMITERS = st.sampled_from([",", ";", "\t", "|"])


@settings(max_examples=150, deadline=None)
# in UTF-16 these bytes would be rare ideographs
@example(cells=["", "à\x1f"], delimiter=",", end="\r", quoting=0, before=0)
@given(
    cells=st.lists(_CELLS, min_size=1, max_size=8),
    delimiter=_DELIMITERS,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    before=st.integers(0, 2),
)
@example(["x\n1,a\n2,b\n3,c"], ",", "\n", csv.QUOTE_MINIMAL, 0)
def test_a_table_that_the_csv_module_wrote_is_read_back_whole(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[str],
    delimiter: str,
    end: str,
    quoting: int,
    before: int,
) -> None:
    """Whatever is in its cells; one that looks like rows is named with its lines."""
    if end == "\r":
        quoting = csv.QUOTE_ALL  # the module would write a line feed without quotes
    header = ["id", "n", "text", "last"][2 - before : 3]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(header)
    for number, cell in enumerate(cells, 1):
        writer.writerow([number] * before + [cell])
    documents = read_table(tmp_path_factory.mktemp("in"), file.getvalue())
    told = problems(documents)
    found = list(texts(documents).values())
    for cell in cells:
        unified = cell.replace("\r\n", "\n").replace("\r", "\n")
        if unified.strip() and unified.strip() not in found:
            is_named = any("looks like rows" in text or "look like rows" in text for text in told)  # fmt: skip
            is_unseen = any("no text found in it" in text for text in told)
            assert is_named or is_unseen, (cell, found, told)


_PIECE = st.sampled_from(['"', '""', '",', ',"', "\n", '\n"', '"\n', '\\"', " ", "é"])


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(2, 30),
    columns=st.sampled_from([1, 2, 3]),
    edits=st.lists(st.tuples(st.floats(0, 1), _PIECE), max_size=4),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    multiline=st.booleans(),
)
def test_each_text_of_a_damaged_table_is_in_a_document_or_named(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    columns: int,
    edits: list[tuple[float, str]],
    quoting: int,
    end: str,
    multiline: bool,
) -> None:
    """With quotes, line ends and other pieces put in anywhere below the header."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["id", "text", "n"][1 if columns == 1 else 0 : columns + 1][:columns])  # fmt: skip
    for number in range(rows):
        text = f"KEY{number:03}X is late"
        if multiline and number % 3 == 0:
            text += f"\nfor {number}, again"
        writer.writerow([number, text, 7][1 if columns == 1 else 0 :][:columns])
    content = file.getvalue()
    header_end = content.index(end) + len(end)
    for place, piece in edits:
        at = header_end + int(place * (len(content) - header_end))
        content = content[:at] + piece + content[at:]
    documents = read_table(tmp_path_factory.mktemp("in"), content)
    everything = " ".join(texts(documents).values())
    for document in documents.values():
        # A comma that was put in moves a text to another column.
        everything += " ".join(document.metadata.values())
    named: set[int] = set()
    for problem in problems(documents):
        for match in LINES.finditer(problem):
            named.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    lines = content.split("\n")
    for marker in re.findall(r"KEY\d+X", content):
        line = next(n for n, line in enumerate(lines, 1) if marker in line)
        assert marker in everything or line in named, (marker, content)
