"""What text recognition read is kept for the next reading, readable with the file alone."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from tests.kit.page_pictures import CannedRecognizer, encoded, line, page
from tierwise.documents.readers import Extracted, ReadingSettings, Request, Sandbox
from tierwise.documents.readers.formats import extract
from tierwise.documents.readers.pages.recognizer import ReadLine, Recognizer
from tierwise.documents.recognized import FOLDER, RecognizedPages
from tierwise.project import Project

SCAN = encoded(page("Invoice 4711"), "PNG")
LINES = [line("Invoice 4711", (40, 40, 300, 80))]


class CannedSandbox:
    """A sandbox that finds the same lines on every picture, and counts its files."""

    def __init__(self, lines: Sequence[ReadLine] = LINES) -> None:
        self._lines = lines
        self.count = 0

    def extract(self, data: bytes, request: Request) -> Extracted:
        self.count += 1
        canned = CannedRecognizer(self._lines)
        return extract(data, request, cast("Recognizer", canned))


def recognize(
    settings: ReadingSettings, data: bytes = SCAN, suffix: str = ".png"
) -> tuple[Extracted, int]:
    """What a new reading gives, and how many files its sandbox read."""
    sandbox = CannedSandbox()
    request = Request(suffix, settings=settings)
    pages = RecognizedPages(settings)
    found = pages.extract(cast("Sandbox", sandbox), data, request)
    return found, sandbox.count


def test_a_page_is_recognized_once_for_its_content_and_ending(tmp_path: Path) -> None:
    settings = ReadingSettings(root=tmp_path)
    first, count = recognize(settings)
    assert (first.text, count) == ("Invoice 4711", 1)
    again, count = recognize(settings)
    assert (again, count) == (first, 0)
    assert again.pages
    other = encoded(page("Invoice 4712"), "PNG")
    assert recognize(settings, other)[1] == 1
    # Without a project, nothing is kept.
    assert recognize(ReadingSettings())[1] == 1
    assert len(list((tmp_path / FOLDER).iterdir())) == 2


def test_what_is_kept_says_nothing_without_the_file(tmp_path: Path) -> None:
    recognize(ReadingSettings(root=tmp_path))
    [kept] = (tmp_path / FOLDER).iterdir()
    content = kept.read_bytes()
    with pytest.raises(zlib.error):
        zlib.decompress(content)
    # Of another file it is no result, wherever it lies.
    other = encoded(page("Invoice 4712"), "PNG")
    recognize(ReadingSettings(root=tmp_path), other)
    for path in (tmp_path / FOLDER).iterdir():
        path.write_bytes(content)
    assert recognize(ReadingSettings(root=tmp_path), other)[1] == 1


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 5000])
def test_a_damaged_result_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    settings = ReadingSettings(root=tmp_path)
    first, _ = recognize(settings)
    [kept] = (tmp_path / FOLDER).iterdir()
    kept.write_bytes(damage)
    assert recognize(settings) == (first, 1)
    assert recognize(settings) == (first, 0)


def test_what_is_not_used_for_a_month_goes(tmp_path: Path) -> None:
    settings = ReadingSettings(root=tmp_path)
    recognize(settings)
    [old] = (tmp_path / FOLDER).iterdir()
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(old, (month_ago, month_ago))
    recognize(settings, encoded(page("Another"), "PNG"))
    assert not old.exists()


@pytest.mark.parametrize("line", ["keep_recognized = false", 'keep_text = "never"'])
def test_a_project_can_keep_nothing(tmp_path: Path, line: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.tierwise]\n{line}\n")
    settings = Project(tmp_path).reading
    assert recognize(settings)[1] == 1
    assert recognize(settings)[1] == 1
    assert not (tmp_path / FOLDER).exists()


def test_a_folder_that_cannot_be_written_hinders_no_reading(tmp_path: Path) -> None:
    (tmp_path / ".tierwise").write_text("a file")
    assert recognize(ReadingSettings(root=tmp_path))[0].text == "Invoice 4711"
