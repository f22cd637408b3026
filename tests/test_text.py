"""What several rooms do to text, once: whole files, rows, amounts, and hashes as numbers."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path

import pytest

from tierwise.errors import ConfigError
from tierwise.text.amounts import plural, total, usd
from tierwise.text.files import open_atomically, read_text, write_atomically
from tierwise.text.hashing import hash_share
from tierwise.text.rows import csv_text, json_lines, read_rows


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    write_atomically(path, "one\r\n")
    assert path.read_bytes() == b"one\r\n"
    write_atomically(path, b"two")

    def fail_in_the_middle() -> None:
        with open_atomically(path) as file:
            file.write("thr")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert path.read_text() == "two"
    with pytest.raises(OSError, match="nowhere"):
        write_atomically(tmp_path / "nowhere" / "file", "text")
    with open_atomically(path, errors="backslashreplace") as file:
        file.write("three \ud800")
    assert path.read_text() == "three \\ud800"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_read_is_an_error_with_its_place(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ConfigError, match=r"missing|cannot be read") as caught:
            read_text(path)
        assert caught.value.path == path
        [(line, row)] = read_rows(path)
        assert line == 0
        assert isinstance(row, ConfigError)


def test_csv_rows_have_the_line_on_which_they_begin(tmp_path: Path) -> None:
    """Also after blank rows and cells that go over several lines; a broken row is an error in its place."""
    path = tmp_path / "rows.csv"
    path.write_text('\ufefftext,label\n"a\nb",x\n\nc,y,z\nd,w\n"e"f,v\n')
    rows = list(read_rows(path))
    assert rows[0] == (2, {"id": "rows.csv#1", "text": "a\nb", "label": "x"})
    assert rows[2] == (6, {"id": "rows.csv#3", "text": "d", "label": "w"})
    errors = {line: str(row) for line, row in rows if isinstance(row, ConfigError)}
    assert list(errors) == [5, 7]
    assert "rows.csv:5: has 3 cells where the header has 2" in errors[5]
    assert "rows.csv:7: not valid CSV" in errors[7]


def test_json_rows_have_their_lines_and_errors_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a\u2028b"}\n\n[1]\n{oops\n')
    rows = list(read_rows(path))
    assert rows[0] == (1, {"text": "a\u2028b"})
    assert [line for line, row in rows if isinstance(row, ConfigError)] == [3, 4]


def test_written_rows_are_read_as_they_were(tmp_path: Path) -> None:
    rows = [{"id": "1", "text": 'a, "b"\nc'}, {"id": "2", "text": "ü"}]
    (tmp_path / "rows.jsonl").write_text(json_lines(rows))
    (tmp_path / "rows.csv").write_text(
        csv_text(["id", "text"], [list(row.values()) for row in rows])
    )
    for name in ("rows.jsonl", "rows.csv"):
        assert [row for _, row in read_rows(tmp_path / name)] == rows


def test_one_unknown_amount_makes_the_sum_unknown() -> None:
    assert total([Decimal("0.1"), Decimal("0.2")]) == Decimal("0.3")
    assert total([Decimal("0.1"), None]) is None
    assert total([]) == 0


def test_amounts_are_written_for_people() -> None:
    assert plural(1, "call") == "1 call"
    assert plural(0, "call") == "0 calls"
    assert plural(1000, "call") == "1,000 calls"
    assert usd(Decimal("0.5")) == "0.500000 USD"
    assert usd(Decimal(2), 3) == "2.00 USD + 3 of unknown cost"


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_a_hash_is_a_number_from_0_to_1_exactly(share: float) -> None:
    """The draws of earlier versions stay as they were: 64 bits, compared without rounding."""
    for number in range(300):
        text = f"salt\0{number}"
        digest = hashlib.sha256(text.encode()).digest()
        before = int.from_bytes(digest[:8], "big") < share * 2**64
        assert (hash_share("salt", str(number)) < share) == before
