"""Writing results: one line and one page a document."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tierwise.documents import read_documents, write_documents
from tierwise.documents.page_names import page_name
from tierwise.errors import Misuse
from tierwise.records import Attempt, Batch, Document, Outcome, Usage

NASTY = [
    "<script>alert(1)</script>",
    "[click](http://evil.example) ![x](http://evil.example/x.png) <http://evil.example>",
    "```\n# heading\n```\n<b>bold</b>",
    "~~~\n`````\ntext\r```\rmore",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "`", "``", " ` ", "a`b``c", "\\|", "a\\`|b", "\n", "", " ",
    "\u202eevil", "---", "&lt;b&gt;", "- item\n\n    code",
]  # fmt: skip
TEXTS = (
    st.sampled_from(NASTY)
    | st.text(max_size=30)
    | st.text("`|\\\n\r<>*_[]()#-~ \t!&x", max_size=30)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
    ),
    max_leaves=6,
)


def accepted(step: str, value: Any, **more: Any) -> dict[str, Outcome]:
    return {
        step: Outcome(step=step, status="accepted", value=value, model="small", **more)
    }


def batch(*documents: Document) -> list[Batch]:
    return [Batch((document,)) for document in documents]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def pages(folder: Path) -> dict[str, str]:
    return {
        path.name: path.read_bytes().decode()
        for path in folder.iterdir()
        if path.suffix == ".md"
    }


def literals(value: Any) -> Iterator[str]:
    """The texts that a value holds, as they must appear."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from (name, *literals(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from literals(inner)
    elif isinstance(value, str):
        yield value


def test_a_line_holds_all_that_a_document_got_in_input_order(tmp_path: Path) -> None:
    deferred = Outcome(
        step="draft",
        status="deferred",
        reason="no model may see it",
        sensitivity="confidential",
    )
    first = Document(
        id="mail/b.eml",
        text="Where is it?",
        sensitivity="internal",
        language="en",
        metadata={"from": "Ann"},
        outcomes={
            **accepted("classify", {"label": "order"}, sensitivity="internal"),
            "draft": deferred,
        },
    )
    path = write_documents(
        batch(first, Document(id="a.txt", text="")), tmp_path / "out" / "deep"
    )
    assert path == tmp_path / "out" / "deep" / "outcomes.jsonl"
    one, two = lines(path)
    assert one == {
        "id": "mail/b.eml",
        "hash": first.hash,
        "sensitivity": "confidential",  # what the strictest of its outcomes is
        "language": "en",
        "metadata": {"from": "Ann"},
        "outcomes": {
            "classify": {
                "status": "accepted",
                "value": {"label": "order"},
                "reason": "",
                "cause": None,
                "model": "small",
            },
            "draft": {
                "status": "deferred",
                "value": None,
                "reason": "no model may see it",
                "cause": None,
                "model": None,
            },
        },
    }
    assert (two["id"], two["sensitivity"], two["outcomes"]) == (
        "a.txt",
        "restricted",
        {},
    )


def test_a_page_reads_well(tmp_path: Path) -> None:
    outcomes = {
        **accepted(
            "classify", {"label": "order", "sure": True, "words": ["late", "lost"]}
        ),
        **accepted("draft", "Dear Ann,\n\nit is on its way."),
    }
    write_documents(
        batch(
            Document(
                id="mail/b.eml", text="x", metadata={"from": "Ann"}, outcomes=outcomes
            )
        ),
        tmp_path,
    )
    assert pages(tmp_path) == {
        "mail~b.eml.md": """\
---
sensitivity: restricted
---

# `mail/b.eml`

- `language`: `unknown`
- `from`: `Ann`

| step | status | model | reason |
|---|---|---|---|
| `classify` | `accepted` | `small` |  |
| `draft` | `accepted` | `small` |  |

## `classify`

- `label`: `order`
- `sure`: `true`
- `words`:

  - 1: `late`
  - 2: `lost`


## `draft`

```text
Dear Ann,

it is on its way.
```
"""
    }


def test_what_was_written_is_as_sensitive_as_it_was_when_it_is_read_as_documents(
    tmp_path: Path,
) -> None:
    """A confidential document's page must not pass for an internal one in the next flow."""
    answer = accepted(
        "summarize", {"summary": "she was dismissed"}, sensitivity="confidential"
    )
    write_documents(
        batch(Document(id="a.txt", text="x", sensitivity="internal", outcomes=answer)),
        tmp_path,
    )
    [again] = read_documents(tmp_path, sensitivity="public", text_column="id")
    assert {document.id for document in again.load()} == {
        "a.txt.md",
        "outcomes.jsonl#a.txt",
    }
    assert {document.sensitivity for document in again.load()} == {"confidential"}


def test_the_same_outcomes_give_the_same_bytes_whatever_they_cost(
    tmp_path: Path,
) -> None:
    def files(folder: Path, started_at: float, tokens: int) -> dict[str, bytes]:
        attempt = Attempt(
            id=f"{started_at}", step="s", document_id="a", document_hash="h",
            model="small", tier="local", kind="first", call_hash="c", prompt="s v1",
            prompt_hash="p", policy_hash="q", usage=Usage(tokens, 1), cost=None, price_date=None,
            latency_s=started_at, started_at=started_at,
        )  # fmt: skip
        outcomes = accepted("s", {"a": [1, "x"]}, attempts=(attempt,))
        write_documents(
            batch(
                Document(id="a", text="t", outcomes=outcomes),
                Document(id="A", text="u"),
            ),
            folder,
        )
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = files(tmp_path / "one", 1.0, 10)
    assert set(first) == {"outcomes.jsonl", "a.md", page_name("A")}
    assert files(tmp_path / "two", 2.0, 20) == first
    assert files(tmp_path / "one", 3.0, 30) == first


def test_a_run_that_breaks_off_leaves_the_earlier_lines_and_no_drafts(
    tmp_path: Path,
) -> None:
    write_documents(batch(Document(id="old", text="x")), tmp_path)
    before = (tmp_path / "outcomes.jsonl").read_bytes()

    def broken() -> Iterator[Batch]:
        yield from batch(Document(id="new", text="x"))
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_documents(broken(), tmp_path)
    assert (tmp_path / "outcomes.jsonl").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {
        "outcomes.jsonl",
        "old.md",
        "new.md",
    }


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("keep")
    with pytest.raises(Misuse, match="a file is in the way"):
        write_documents(batch(Document(id="a", text="x")), tmp_path / place)
    assert (tmp_path / "file").read_text() == "keep"


def test_a_link_in_the_output_folder_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("keep")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.md").symlink_to(tmp_path / "victim")
    write_documents(batch(Document(id="a", text="x")), tmp_path / "out")
    assert (tmp_path / "victim").read_text() == "keep"


def test_values_that_utf_8_and_json_lack_are_written_all_the_same(
    tmp_path: Path,
) -> None:
    path = write_documents(
        batch(
            Document(id="a", text="x", outcomes=accepted("s", "half a pair: \ud83d"))
        ),
        tmp_path,
    )
    assert lines(path)[0]["outcomes"]["s"]["value"] == "half a pair: \ud83d"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "../../etc/passwd",
                "/etc/passwd",
                "..",
                ".",
                "",
                "a/b",
                "a_b",
                "A_B",
                "x" * 400,
                "é" * 200,
                "e\u0301" * 200,
                "\0",
                "C:\\x",
                "outcomes.jsonl",
                "\ud800",
                "a~2",
                "a",
                ".hidden",
            ]
        )
        | st.text(max_size=20),
        max_size=8,
        unique=True,
    )
)
def test_every_document_gets_a_page_of_its_own_inside_the_folder(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    path = write_documents(
        batch(*(Document(id=name, text="x") for name in ids)), root / "out"
    )
    assert [line["id"] for line in lines(path)] == ids
    assert [child.name for child in root.iterdir()] == ["out"]
    written = [child for child in (root / "out").iterdir() if child != path]
    assert len(written) == len({child.name.casefold() for child in written}) == len(ids)
    assert all(
        child.is_file() and child.suffix == ".md" and not child.name.startswith(".")
        for child in written
    )


ALIKE = [
    "x/y.txt", "x_y.txt", "x~y.txt", "X/y.txt", "x.y.txt", "x y.txt", "x\u00a0y.txt", "x?y.txt",
    "a.txt", "a.md", "A.txt", "a.TXT", "a.txt.md", "a.txt.", "a.txt ", "a", "a.", "a..", ".a", "-a",
    "stra\u00dfe", "strasse", "STRASSE", "stra\u1e9ee", "\u0131.txt", "i.txt", "I.txt", "\u0130.txt",
    "\u00e9.txt", "e\u0301.txt", "\u00c9.txt", "\u212b", "\u00e5", "a\u030a", "\ufb01", "fi",
    "k", "K", "\u212a", "s", "\u017f", "\u03c3", "\u03c2", "\u03a3", "\u00b5", "\u03bc",
    "con", "CON", "con.txt", "nul", "com1.txt", "com\u00b9.txt", "aux/con", "con ", "_con",
    "x" * 120, "x" * 121, "x" * 300, "x" * 300 + "y", "\u00e9" * 200, "e\u0301" * 200,
    "", "document", "..", ".", "/", "a//b", "a/b", "a/./b", "a:b", "a\\b", "a\0b", "\ud800", "\ud801",
    "a~2", "a~0123456789abcdef", "a/0123456789abcdef", "rows.csv#1", "rows.csv#A1", "rows.csv#a1",
]  # fmt: skip


def as_file_systems_see_it(name: str) -> set[str]:
    """The names that a file system may take a name for."""
    seen = set()
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        same = unicodedata.normalize(form, name)
        seen.update((same, same.casefold(), same.upper(), same.lower()))
    return seen


def confused(ids: list[str], source: str = "") -> dict[str, str]:
    """Names of pages that some file system takes for another's, by that one's id."""
    owners: dict[str, str] = {}
    both = {}
    for one in ids:
        for name in as_file_systems_see_it(page_name(one, source)):
            if owners.setdefault(name, one) != one:
                both[one] = owners[name]
    return both


def test_names_that_look_alike_give_pages_of_their_own() -> None:
    """A test of the list: without the hash, most of them share one."""
    assert confused(ALIKE) == {}
    assert confused([*ALIKE, *map(page_name, ALIKE)]) == {}
    elsewhere = {page_name(each, "/mail/b") for each in ALIKE}
    assert not elsewhere & {page_name(each) for each in ALIKE}
    assert not elsewhere & {page_name(each, "/mail/c") for each in ALIKE}


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(ALIKE)
        | st.text("aAbB/_~. -#\u00e9e\u0301\u00dfsS\u0131iI", max_size=8)
        | st.text(max_size=40),
        unique=True,
        max_size=40,
    )
)
def test_no_two_ids_share_a_page_and_each_file_system_takes_its_name(
    ids: list[str],
) -> None:
    assert confused(ids) == {}
    for one in ids:
        name = page_name(one)
        assert len(name.encode()) <= 123
        assert not re.search(r'[/\\:*?"<>|\0-\x1f\x7f]', name)
        assert name.isprintable()
        assert not name.startswith((".", "-", " ", "~"))
        device = name.split(".")[0].casefold()
        assert device not in ("con", "nul", "aux", "prn", "com1", "lpt1", "com\u00b9")


@pytest.mark.parametrize(
    "plain", ["a.txt", "01-invoice.pdf", "rows.csv#17", "x_y.txt", "\u00e9t\u00e9.txt"]
)
def test_an_ordinary_name_is_its_page_s_name(plain: str) -> None:
    assert page_name(plain) == f"{plain}.md"
    assert page_name(f"mail/{plain}") == f"mail~{plain}.md"


@settings(max_examples=150, deadline=None)
@given(name=TEXTS, reason=TEXTS, value=VALUES)
def test_hostile_values_stay_text(
    tmp_path_factory: pytest.TempPathFactory, name: str, reason: str, value: Any
) -> None:
    """A Markdown reader finds our headings, lists and table, and every value in code, unchanged."""
    folder = tmp_path_factory.mktemp("out")
    outcome = Outcome(step=name, status="accepted", value=value, reason=reason)
    write_documents(
        batch(
            Document(
                id=name, text="x", metadata={name: reason}, outcomes={name: outcome}
            )
        ),
        folder,
    )
    (page,) = pages(folder).values()
    tokens = (
        MarkdownIt("gfm-like", {"linkify": False})
        .enable("table")
        .parse(page.split("---\n", 2)[2])
    )
    inline = [child for token in tokens for child in token.children or []]
    blocks = {token.type for token in tokens}
    assert {child.type for child in inline} <= {"text", "code_inline"}
    assert not blocks & {"html_block", "code_block", "blockquote_open", "hr"}
    assert sum(token.type == "heading_open" for token in tokens) == 1 + (
        value is not None
    )
    assert sum(token.type == "td_open" for token in tokens) == 4
    assert (
        "".join(c.content for c in inline if c.type == "text").translate(
            str.maketrans("", "", ":0123456789 ")
        )
        == "stepstatusmodelreason"
    )
    code = [
        token.content.removesuffix("\n")
        for token in [*tokens, *inline]
        if token.type in ("fence", "code_inline")
    ]
    for text in literals(value):
        clean = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
        assert text in code or json.dumps(text) in code or clean in code
