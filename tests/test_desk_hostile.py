"""Hostile texts, ids, answers and notes on the pages where people decide, label and compare.

Each page has the same elements and attributes as one in harmless words.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.kit.desk import Browser, ServedDesk, desk_at
from tests.kit.golden_sets import DEAR
from tests.kit.projects import make_project, model
from tests.kit.samples import CLASSIFY, FREE, RULES
from tests.kit.standin import Request, Standin
from tests.kit.steps import LABELS
from tests.test_desk_pages import shape_of
from tests.test_desk_review import form_of
from tests.test_report_hostile import BREAKOUTS
from tierwise.desk.queue_view import ItemKey, Selection
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Batch, Document

# Half characters: in ids and names, and in answers, whose JSON may spell them out.
HALF = "\ud800 \udfff half \udcff"
WHOLE = "no half character"  # what a reader returns of such a text
IN_TEXTS = [text for text in BREAKOUTS if text.isprintable() or "\x00" in text]
Shape = frozenset[tuple[Any, int]]
Shapes = dict[str, set[Shape]]


def evidence(request: Request) -> str:
    """The words in the document that an answer quotes, as short as an answer may be."""
    return request.document.partition(": ")[2].strip()[:50]


def answer_with(label: str) -> Callable[[Request], str]:
    """A model that quotes the document, but words of its own where it says to wait."""

    def answer(request: Request) -> str:
        quote = evidence(request)
        if "Waits" in request.document:
            quote = f"of its own {quote}"[:60]
        if "Waits" in request.document and WHOLE in request.document:
            quote = f"of its own {HALF}"  # JSON spells it out as \\ud800
        return json.dumps({"label": label, "evidence": quote})

    return answer


def hostile_project(root: Path, texts: list[str]) -> Path:
    """Two documents for each text: one that both models answer, one that waits."""
    with Standin() as cheap, Standin() as dear:
        cheap.answer(answer_with("billing"))
        dear.answer(answer_with("delivery"))
        make_project(
            root,
            model("cheap", cheap.url, strength=10, price=FREE),
            model("dear", dear.url, strength=20, price=DEAR),
            rules=RULES.format(share=1, money=1),
        )
        settings = root / "pyproject.toml"
        with settings.open("a") as file:
            file.write('\n[tool.tierwise]\nkeep_text = "all"\n')
        documents = []
        for number, text in enumerate(texts):
            read = WHOLE if text == HALF else text
            for kind in ("Message", "Waits"):
                made = Document(
                    id=f"{kind} {number:02} {text}",
                    text=f"{kind} {number:02}: about {number:02} {read}",
                    sensitivity="internal",
                    metadata={"subject": text},
                )
                documents.append(made)
        with Engine(Project(root), env={}) as engine:
            tags = {
                f"tag {number:02} {text}": text for number, text in enumerate(texts)
            }
            run = engine.start_run(f"flow {texts[0]}", tags=tags)
            engine.run_batch(run, CLASSIFY, Batch(tuple(documents)), LABELS)
            engine.finish_run(run, "completed")
            engine.ledger.retention.keep(documents)
    return root


def frozen(page: httpx.Response) -> Shape:
    shape: Counter[Any] = shape_of(page.text)
    return frozenset(shape.items())


def asked(browser: Browser, path: str, values: dict[str, str]) -> httpx.Response:
    """Load a page with values in its address, half characters included."""
    return browser.get(f"{path}?{urlencode(values, errors='surrogatepass')}")


def review_pages(
    desk: ServedDesk, browser: Browser, texts: list[str]
) -> Iterator[tuple[str, httpx.Response]]:
    yield "the queue", browser.get("/review")
    run = desk.ledger.runs.resolve("latest")
    rows = [row for row in desk.ledger.runs.queue() if not row.is_decided]
    assert len(rows) == len(texts)
    for row in rows[1:-1]:
        place = Selection().address(ItemKey(run.id, row.document_id, row.step))
        page = browser.get(place)
        assert page.status_code == 200
        yield "an item", page
        text = texts[int(row.document_id.split()[1])]
        form = form_of(page, "/review/decide")
        written = {
            "field.label": f"x {text}",
            "field.evidence": f"nowhere in it {text}"[:60],
        }
        sent = {**form, **written, "word": "edit", "note": f"note {text}"}
        wrong = browser.post("/review/decide", sent)
        assert wrong.status_code == 422
        yield "an item with a wrong label", wrong
        sent["field.label"] = "billing"
        wrong = browser.post("/review/decide", sent)
        assert wrong.status_code == 422
        yield "an item with failed checks", wrong
    for text in texts:
        for name in ("step", "cause", "flow", "tag"):
            found = asked(browser, "/review", {name: f"x {text}"})
            assert found.status_code == 200
            yield f"a selection by {name}", found
        for name in ("older", "order"):
            found = asked(browser, "/review", {name: f"x {text}"})
            assert found.status_code == 400
            yield f"a selection by a wrong {name}", found
        for name in ("seen", "shown_at"):
            many = {"word": "rejected", name: f"x {text}"}
            found = browser.post("/review/bulk", many)
            assert found.status_code == 400
            yield f"all with a wrong {name}", found


def label_pages(
    desk: ServedDesk, browser: Browser, texts: list[str]
) -> Iterator[tuple[str, httpx.Response]]:
    yield "the labels", browser.get("/labels")
    items = list(desk.ledger.samples.queue())
    assert items
    for item in items:
        text = texts[int(item.accepted.document_id.split()[1])]
        for mode in ("shown", "blind"):
            page = browser.get("/labels/item", params={"id": item.id, "mode": mode})
            assert page.status_code == 200
            words = len(item.words)
            yield f"a label of {words}, {mode}", page
            form = form_of(page, "/labels/label")
            written = {
                "field.label": f"x {text}",
                "field.evidence": f"nowhere in it {text}"[:60],
            }
            sent = {**form, **written, "give": "1", "word": "neither"}
            wrong = browser.post("/labels/label", sent)
            assert wrong.status_code == 422
            yield f"a label of {words}, {mode}, wrong", wrong
    for text in texts:
        for values in ({"step": f"x {text}"}, {"run": f"x {text}"}):
            refused = browser.post("/labels/golden", values)
            assert refused.status_code == 422
            yield f"no golden set of a {next(iter(values))}", refused


def compare_pages(
    desk: ServedDesk, browser: Browser, texts: list[str]
) -> Iterator[tuple[str, httpx.Response]]:
    page = browser.get("/compare")
    yield "what can be compared", page
    names = re.findall(r'<option value="([^"]*)"', page.text)
    chosen = {"step": "classify", "first": names[0], "second": names[1]}
    begun = browser.post("/compare/new", chosen)
    assert begun.status_code == 303, begun.text
    [comparison] = desk.ledger.comparisons.all()
    answered = list(desk.ledger.comparisons.answered(comparison))
    assert len(answered) >= len(texts)
    for each in answered:
        query = {"id": comparison.id, "text": each.document_hash}
        pair = browser.get("/compare/pair", params=query)
        assert pair.status_code == 200
        kind, number, *_ = each.document_id.split()
        yield f"a pair, {kind}", pair
        text = texts[int(number)]
        form = form_of(pair, "/compare/verdict")
        written = {
            "field.label": f"x {text}",
            "field.evidence": f"nowhere in it {text}"[:60],
        }
        sent = {**form, **written, "give": "1", "word": "neither"}
        wrong = browser.post("/compare/verdict", sent)
        assert wrong.status_code == 422
        yield f"a pair, {kind}, wrong", wrong
    yield "the comparisons", browser.get("/compare")
    for text in texts:
        refused = browser.post("/compare/new", {"step": f"x {text}"})
        assert refused.status_code == 400
        yield "no comparison of a step", refused


def shapes_of(root: Path, texts: list[str]) -> Shapes:
    """Return the shapes of all pages, by their kind."""
    found: Shapes = {}
    with desk_at(hostile_project(root, texts)) as desk:
        browser = desk.signed_in()
        for pages in (review_pages, label_pages, compare_pages):
            for kind, page in pages(desk, browser, texts):
                found.setdefault(kind, set()).add(frozen(page))
    return found


def test_no_hostile_text_adds_an_element_where_people_decide(tmp_path: Path) -> None:
    everything = [*IN_TEXTS, HALF]
    plain = [f"some words {number:02}" for number in range(len(everything))]
    harmless = shapes_of(tmp_path / "harmless", plain)
    hostile = shapes_of(tmp_path / "hostile", everything)
    assert harmless.keys() == hostile.keys()
    for kind, shapes in hostile.items():
        more = [dict(shape - next(iter(harmless[kind]))) for shape in shapes]
        assert shapes <= harmless[kind], (kind, more)
