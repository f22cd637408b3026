"""HTML files: the values of forms are read, and what is not in the text is listed."""

from __future__ import annotations

from pathlib import Path

import pytest
from markitdown.converters import HtmlConverter

from tests.kit.reading import read, reason
from tierwise.documents.readers.formats import extract
from tierwise.documents.readers.results import Extracted

PROSE = "<p>The parties agree on the delivery of ten oak chairs.</p>"


def extracted(html: str) -> Extracted:
    return extract(html.encode(), ".html")


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ('<input name="a" value="Oak shelf">', "Article: Oak shelf"),
        ('<input type="date" value="2026-11-28">', "Article: 2026-11-28"),
        ("<textarea>It came\nwith a crack</textarea>", "Article: It came"),
        (
            "<select><option>Oak<option selected>Ash<option>Elm</select>",
            "Article: Ash",
        ),
        ("<select><option>Oak<option>Ash</select>", "Article: Oak"),
        (
            "<select multiple><option>Oak<option selected>Ash<option selected>Elm</select>",
            "Article: Ash, Elm",
        ),
        ('<input type="checkbox" checked> broken', "Article: [x]  broken"),
        ('<input type="radio" checked> broken', "Article: [x] broken"),
        ('<input type="radio"> broken', "Article: [ ] broken"),
        ('<input type="image" alt="Oak">', "Article: Oak"),
        ("<iframe srcdoc='<p>Inside</p>'></iframe>", "Inside"),
    ],
)
def test_values_of_forms_are_read_at_their_place(field: str, shown: str) -> None:
    found = extracted(f"<form><label>Article: {field}</label></form>")
    assert shown in " ".join(found.text.split("\n"))
    assert (found.unread, found.unread_pages) == ((), ())


@pytest.mark.parametrize(
    "field",
    [
        '<input type="hidden" value="4711">',
        '<input type="submit" value="4711">',
        '<input type="password" value="4711">',
    ],
)
def test_values_of_programs_are_not_text(field: str) -> None:
    assert "4711" not in extracted(f"{PROSE}{field}").text


@pytest.mark.parametrize(
    ("element", "listed"),
    [
        ('<iframe src="terms.html"></iframe>', "the frame terms.html"),
        ('<object data="plan.pdf"></object>', "the embedded file plan.pdf"),
        ('<embed src="plan.pdf">', "the embedded file plan.pdf"),
        ("<canvas></canvas>", "a drawing"),
        ("<video src=a.mp4></video>", "a film"),
        ("<audio src=a.mp3></audio>", "a sound"),
        ('<input type="password" name="pin" value="4711">', "the password in pin"),
    ],
)
def test_what_is_no_text_is_listed_and_does_not_wait(
    tmp_path: Path, element: str, listed: str
) -> None:
    (tmp_path / "a.html").write_text(f"{PROSE}{element}")
    document = read(tmp_path)["a.html"]
    assert document.metadata["incomplete"] == listed
    assert document.outcomes == {}


def test_a_picture_in_place_of_text_waits(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p>Hello!</p><img src="letter.png">')
    document = read(tmp_path)["a.html"]
    assert reason(document).startswith("a picture in place of text is not read: run ")


@pytest.mark.parametrize(
    "html",
    [
        PROSE,
        f"{PROSE}<img src='logo.png'>",
        f"{PROSE}<p style='display: none'>hidden</p><p hidden>this, too</p>",
        "<img src='a.png' alt='A letter'>",
        "<h1>A &amp; b</h1><table><tr><td>a<td>b</table><a href='x'>y</a>",
    ],
)
def test_the_text_of_an_ordinary_page_is_markitdowns(html: str) -> None:
    text = str(HtmlConverter().convert_string(html).markdown)
    assert extracted(html) == Extracted(text)
