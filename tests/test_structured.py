"""JSON and XML files: rows wherever they are, or the whole file; nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kit.reading import read, reason
from tierwise.documents.readers import ReadingSettings
from tierwise.records import Document

ROWS = [{"id": "A1", "text": "The lamp", "n": {"a": [1, 2]}}, {"text": "The sofa"}]


def read_one(
    folder: Path, name: str, content: str | bytes, **options: Any
) -> dict[str, Document]:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    known = {key: options.pop(key) for key in ("tables", "rows_at") if key in options}
    return read(folder, settings=ReadingSettings(**known), **options)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (ROWS, {}),
        ({"data": {"items": ROWS}, "total": 2}, {}),
        ({"data": {"items": ROWS}, "other": [{"x": 1}]}, {}),
        ({"data": {"items": ROWS}, "more": ROWS}, {"rows_at": "data.items"}),
        ({"data": {"items": ROWS}, "more": ROWS}, {"rows_at": "/data/items"}),
        ([[], [{"rows": ROWS}]], {"rows_at": "1.0.rows"}),
        (ROWS, {"rows_at": "."}),
    ],
)
def test_the_rows_of_a_json_file_are_documents(
    tmp_path: Path, value: Any, options: dict[str, str]
) -> None:
    documents = read_one(tmp_path, "a.json", json.dumps(value, indent=1), **options)
    texts = {name: document.text for name, document in documents.items()}
    assert texts == {"a.json#A1": "The lamp", "a.json#2": "The sofa"}
    assert documents["a.json#A1"].metadata["n"] == '{"a":[1,2]}'


def test_a_json_file_without_rows_is_one_document(tmp_path: Path) -> None:
    invoice = {"number": "7", "lines": [{"item": "Lamp", "price": 12.5}]}
    [document] = read_one(tmp_path, "a.json", json.dumps(invoice)).values()
    assert json.loads(document.text) == invoice
    assert document.id == "a.json"
    [row] = read_one(tmp_path, "a.json", '{"id": "x", "text": "One"}').values()
    assert (row.id, row.text) == ("a.json#x", "One")
    [whole] = read_one(tmp_path, "a.json", json.dumps(ROWS), tables="document").values()
    assert json.loads(whole.text) == ROWS


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("{", {}, "line 1: it is not valid JSON"),
        ('{"a": 1}\n{"a": 2}', {}, ".jsonl"),
        ("[" * 100_000, {}, "nested too deeply"),
        ("[]", {"rows_at": "."}, "no rows"),
        ('{"a": [{"text": "x"}], "b": [{"text": "y"}]}', {}, "a, b"),
        ('{"a": [{"text": "x"}]}', {"rows_at": "b.c"}, "at: a"),
        ('{"a": [{"text": "x"}]}', {"rows_at": "a.²"}, "at: a"),
        ('{"a": 1}', {"tables": "rows"}, "rows_at"),
        ("\0\x01\x02", {}, "binary"),
    ],
)
def test_json_that_cannot_be_read_waits(
    tmp_path: Path, content: str, options: dict[str, str], words: str
) -> None:
    [document] = read_one(tmp_path, "a.json", content, **options).values()
    assert words in reason(document)


def test_a_row_of_json_that_is_none_waits_alone(tmp_path: Path) -> None:
    content = json.dumps([*ROWS, 7, {"text": None}, {"text": 7}])
    documents = read_one(tmp_path, "a.json", content)
    assert documents["a.json#2"].text == "The sofa"
    for number in (3, 4, 5):
        assert reason(documents[f"a.json#{number}"]).startswith(f"row {number}: ")


ORDERS = (
    '<orders><order id="A1"><text>The lamp</text><price cur="EUR">12</price></order>'
    '<order id="A2"><text>The sofa</text><note>x<b>y</b></note></order></orders>'
)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (ORDERS, {}),
        (f"<all><head/>{ORDERS}</all>", {}),
        (f"<all><head/>{ORDERS}</all>", {"rows_at": "all.orders.order"}),
        (f"<all><head/>{ORDERS}</all>", {"rows_at": "orders.order"}),
        (ORDERS.replace("<orders>", '<orders xmlns="urn:x">'), {}),
        (f'<?xml version="1.0" encoding="utf-8"?><!-- c -->{ORDERS}', {}),
        (f'<!DOCTYPE orders SYSTEM "http://127.0.0.1:9/x.dtd">{ORDERS}', {}),
        (ORDERS.encode("utf-16"), {}),
    ],
)
def test_the_rows_of_an_xml_file_are_documents(
    tmp_path: Path, content: str | bytes, options: dict[str, str]
) -> None:
    documents = read_one(tmp_path, "a.xml", content, **options)
    texts = {name: document.text for name, document in documents.items()}
    assert texts == {"a.xml#A1": "The lamp", "a.xml#A2": "The sofa"}
    assert documents["a.xml#A1"].metadata["price"] == "12"
    assert documents["a.xml#A2"].metadata["note"] == "x\nb: y"


def test_an_xml_file_without_rows_is_one_document(tmp_path: Path) -> None:
    content = (
        "<i:Invoice xmlns:i='u'><Amount cur='EUR'>12.00</Amount><!-- no --></i:Invoice>"
    )
    [document] = read_one(tmp_path, "a.xml", content).values()
    assert document.text == "Invoice:\n  Amount (cur: EUR): 12.00"


def bomb(levels: int) -> str:
    declared = "".join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, levels)
    )
    return (
        f'<!DOCTYPE x [<!ENTITY e0 "lol">{declared}]>'
        f"<x><text>&e{levels - 1};</text></x>"
    )


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (bomb(9), {}, "entities"),
        (bomb(1), {}, "entities"),
        ('<!DOCTYPE x [<!ENTITY f SYSTEM "{secret}">]><x>&f;</x>', {}, "entities"),
        ('<!DOCTYPE x [<!ENTITY % p SYSTEM "{secret}"> %p;]><x>a</x>', {}, "entities"),
        ("<a><b></a>", {}, "line 1"),
        ("<a>" * 5_000, {}, "nested too deeply"),
        ("no xml", {}, "not well-formed"),
        ("<a/>", {"rows_at": "x.y"}, "x.y"),
        ("<a>b</a>", {"tables": "rows"}, "rows_at"),
    ],
)
def test_xml_that_is_damaged_or_hostile_waits(
    tmp_path: Path, content: str, options: dict[str, str], words: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the-secret-words")
    folder = tmp_path / "in"
    folder.mkdir()
    content = content.replace("{secret}", secret.as_uri())
    [document] = read_one(folder, "a.xml", content, **options).values()
    assert words in reason(document)
