"""The HTML page of a document: its text with the quoted words marked, whatever the text holds."""

from __future__ import annotations

import json
from pathlib import Path

from bs4 import BeautifulSoup

from tests.kit.reading import read
from tierwise.documents.html_page import html_page
from tierwise.documents.marked_text import marked_parts
from tierwise.documents.writing import write_documents
from tierwise.records import Batch, Document, Outcome, Place

HOSTILE = (
    "Total 25.00 </pre><script>alert(1)</script> <img src=x onerror=alert(2)>\n"
    "\u202eevil\u202c \x00 'quoted' \"twice\" & done \ud800 {{ 7 * 7 }}\fPage two"
)


def extracted(text: str, *places: Place) -> Document:
    outcome = Outcome(
        step="extract",
        status="accepted",
        model="<b>small</b>",
        value={"total": "</pre><script>alert(3)</script>"},
        places=places,
    )
    document = Document(id="a/<i>.txt", text=text, sensitivity="confidential")
    return document.with_outcome(outcome)


def test_the_quoted_words_are_marked_and_linked() -> None:
    text = "Total 25.00 EUR on page one"
    page = BeautifulSoup(
        html_page(
            extracted(text, Place("total", 6, 11, 1), Place("items[1].price", 6, 15, 1))
        ),
        "html.parser",
    )
    marks = page.find_all("mark")
    assert [mark.text for mark in marks] == ["25.00", " EUR"]
    assert marks[0]["title"] == "extract: total, extract: items[1].price"
    assert page.find_all("pre")[-1].text == text
    rows = [
        [cell.text for cell in row.find_all("td")] for row in page.find_all("tr")[1:]
    ]
    assert rows == [
        ["total", "25.00", "1", "6–11"],
        ["items[1].price", "25.00 EUR", "1", "6–15"],
    ]
    for link in page.find_all("a", href=True):
        assert page.find(id=link["href"].removeprefix("#")) is not None


def test_whatever_a_document_holds_stays_text() -> None:
    path = '"><script>alert(4)</script>'
    html = html_page(extracted(HOSTILE, Place("total", 0, 40), Place(path, 6, 900)))
    html.encode("utf-8")
    page = BeautifulSoup(html, "html.parser")
    assert not page.find_all(["script", "img", "i", "b"])
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in html
    [policy] = page.find_all("meta", {"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; style-src 'sha256-")
    for tag in page.find_all(True):
        assert not {name for name in tag.attrs if name.startswith("on")}
        assert "src" not in tag.attrs


def test_pages_are_written_where_asked_and_are_no_documents(tmp_path: Path) -> None:
    """Neither below a source nor as one."""
    document = Document(id="letter.txt", text="Total 25.00", sensitivity="internal")
    outcome = Outcome(
        step="extract",
        status="accepted",
        value={"total": "25.00"},
        places=(Place("total", 6, 11),),
    )
    batch = Batch((document.with_outcome(outcome),))
    write_documents([batch], tmp_path / "without")
    assert not list((tmp_path / "without").glob("*.html"))
    results = tmp_path / "in" / "results"
    path = write_documents([batch], results, html=True)
    assert sorted(each.name for each in results.iterdir()) == [
        "letter.txt.html",
        "letter.txt.md",
        "outcomes.jsonl",
    ]
    assert "<mark" in (results / "letter.txt.html").read_text()
    assert json.loads(path.read_text())["id"] == "letter.txt"
    (tmp_path / "in" / "own.html").write_text("<p>A web page</p>")
    assert set(read(tmp_path / "in")) == {"own.html"}
    assert "letter.txt.html" not in read(results)


def test_overlapping_places_cut_the_text_into_parts() -> None:
    parts = marked_parts(
        "abcdef", [(1, 4, "one"), (2, 5, "two"), (2, 5, "two"), (5, 9, "x")]
    )
    assert [(part.text, part.quoted_by) for part in parts] == [
        ("a", ()),
        ("b", ("one",)),
        ("cd", ("one", "two")),
        ("e", ("two",)),
        ("f", ("x",)),
    ]
    assert [part.text for part in marked_parts("ab", [(2, 2, "x"), (7, 9, "y")])] == [
        "ab"
    ]
    assert marked_parts("", []) == []
