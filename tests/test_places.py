"""The places of quotations: with the outcome, on record, in the results, and gone with the value."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tierwise.desk.marks import marked_places
from tierwise.documents.writing import write_documents
from tierwise.engine import Engine
from tierwise.ledger import Ledger, OutcomeRow
from tierwise.project import Project
from tierwise.records import (
    Batch,
    Document,
    Outcome,
    PageWords,
    Place,
    Word,
    canonical_hash,
)
from tierwise.report.document_rows import document_rows
from tierwise.review.queue import By, edit, find_item
from tierwise.steps.checks import (
    check,
    evidence_is_quoted,
    fields_are_quoted,
    taken_from_the_document,
)
from tierwise.steps.places import places_of
from tierwise.steps.step import Step

RECEIPT = "B\u00e4ckerei Stra\u00dfner\nTea 5.00\nMilk 15.00\nBread 5.00\nTotal\u00a025.00 \u20ac\n"
RULES = """
version: 1
routes:
  - {name: default, try: [small]}
"""
REVIEWED = """
version: 1
routes:
  - {name: default, try: [small], review: human}
"""


class Quoted(BaseModel):
    value: str | None
    quote: str | None


class Item(BaseModel):
    name: str
    price: Quoted


class Receipt(BaseModel):
    total: Quoted
    items: list[Item] = []


class Quotes(BaseModel):
    evidence: str
    words: list[str] = []


def merged(outputs: Sequence[Quotes]) -> Quotes:
    words = [output.evidence for output in outputs]
    return Quotes(evidence=outputs[-1].evidence, words=words)


@check(
    "grounding",
    quotes=lambda data: ((f"words[{n}]", w) for n, w in enumerate(data["words"], 1)),
)
def every_word_is_there(output: BaseModel, document: Document) -> str | None:
    return None


EXTRACT = Step(
    name="extract", returns=Receipt, prompt="extract", checks=(fields_are_quoted,)
)
QUOTE = Step(
    name="quote",
    returns=Quotes,
    prompt="quote",
    checks=(evidence_is_quoted, every_word_is_there),
    gathers=merged,
)
VALUE = {
    "total": {"value": "25.00", "quote": "TOTAL 25.00"},
    "items": [
        {"name": "Tea", "price": {"value": "5.00", "quote": "5.00"}},
        {"name": "Milk", "price": {"value": "15.00", "quote": "15.00"}},
        {"name": "Bread", "price": {"value": "5.00", "quote": "5.00"}},
        {"name": "Tip", "price": {"value": None, "quote": None}},
    ],
}
WORDS = {
    "total": "Total\u00a025.00",
    "items[1].price": "5.00",
    "items[2].price": "15.00",
    "items[3].price": "5.00",
}
PROMPT = """---
step: {step}
version: 1
max_output_tokens: 300
---
{{% block system %}}
Quote the document.
{{% endblock %}}
{{% block user %}}
{{{{ document }}}}
{{% endblock %}}
"""


def document(text: str = RECEIPT, **fields: Any) -> Document:
    return Document(id="r.txt", text=text, sensitivity="internal", **fields)


def words_at(places: Sequence[Place], text: str = RECEIPT) -> dict[str, str]:
    return {place.path: text[place.start : place.end] for place in places}


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(json.dumps(VALUE))
        yield server


@pytest.fixture
def project(tmp_path: Path, url: str, provider: Standin) -> Path:
    root = make_project(tmp_path, model("small", provider.url), rules=RULES)
    (root / "pyproject.toml").write_text(f'[tool.tierwise]\nledger_url = "{url}"\n')
    for name in ("extract", "quote"):
        (root / "prompts" / f"{name}.md.j2").write_text(PROMPT.format(step=name))
    return root


@pytest.fixture
def engine(project: Path) -> Iterator[Engine]:
    with Engine(Project(project), env={}) as made:
        yield made


def extracted(engine: Engine, step: Step = EXTRACT, **parameters: Any) -> Outcome:
    text = parameters.pop("text", RECEIPT)
    run = engine.start_run("test")
    [done] = engine.run_batch(run, step, Batch((document(text),)), parameters).load()
    engine.finish_run(run, "completed")
    return done.outcomes[step.name]


def on_record(ledger: Ledger, run: str = "latest") -> Outcome:
    [row] = ledger.runs.outcomes(ledger.runs.resolve(run).id)
    return row.outcome


# ---- the places of a value ----------------------------------------------------------------------


def test_each_quotation_of_a_list_has_its_own_occurrence() -> None:
    places = places_of(VALUE, document(), [fields_are_quoted])
    assert words_at(places) == WORDS
    starts = [place.start for place in places if place.path.startswith("items")]
    assert starts == sorted(set(starts))


def test_the_checks_say_which_fields_quote() -> None:
    value = {"evidence": "Milk", "who": "Bread", "label": "Tea"}
    who = taken_from_the_document("who")
    assert words_at(places_of(value, document(), [evidence_is_quoted])) == {
        "evidence": "Milk"
    }
    assert words_at(places_of(value, document(), [who])) == {"who": "Bread"}
    assert places_of(value, document(), []) == ()
    assert words_at(places_of(value, document())) == {"evidence": "Milk"}


@pytest.mark.parametrize("value", [None, "text", 3, [], {}, {"evidence": None}])
def test_other_values_have_no_places(value: Any) -> None:
    assert places_of(value, document()) == ()


def test_a_place_has_its_page_and_a_box_for_each_line() -> None:
    """Words side by side share a box; the next line has another."""
    text = "Total due\n25.00 EUR\fThank you"
    words = (
        Word("Total", 0, 5, (0.1, 0.1, 0.2, 0.12), 1.0),
        Word("due", 6, 9, (0.22, 0.1, 0.3, 0.12), 1.0),
        Word("25.00", 10, 15, (0.1, 0.2, 0.2, 0.22), 1.0),
        Word("EUR", 16, 19, (0.22, 0.2, 0.3, 0.22), 1.0),
    )
    more = (Word("Thank", 20, 25, (0.1, 0.1, 0.2, 0.12), 1.0),)
    pages = (
        PageWords(
            page=2, width=1, height=1, start=0, end=19, words=words, confidence=1
        ),
        PageWords(
            page=4, width=1, height=1, start=20, end=29, words=more, confidence=1
        ),
    )
    scanned = document(text, pages=pages)
    [first] = places_of({"evidence": "due 25.00"}, scanned)
    [second] = places_of({"evidence": "thank you"}, scanned)
    assert first == Place(
        "evidence", 6, 15, 2, ((0.22, 0.1, 0.3, 0.12), (0.1, 0.2, 0.2, 0.22))
    )
    assert (second.page, second.boxes) == (4, ((0.1, 0.1, 0.2, 0.12),))


# ---- with the outcome ---------------------------------------------------------------------------


def test_an_outcome_has_its_places_and_the_ledger_keeps_them(
    engine: Engine, url: str, tmp_path: Path
) -> None:
    outcome = extracted(engine)
    assert words_at(outcome.places) == WORDS
    with Ledger.open(url, root=tmp_path) as ledger:
        assert on_record(ledger).places == outcome.places


def test_a_reused_answer_has_the_same_places(engine: Engine, provider: Standin) -> None:
    first = extracted(engine)
    second = extracted(engine)
    assert len(provider.requests) == 1
    assert second.places == first.places


def test_places_are_no_part_of_the_trail(engine: Engine) -> None:
    """A trail that was sealed by an earlier version is valid."""
    outcome = extracted(engine)
    [seal] = [s for s in engine.ledger.seals.in_order() if s.kind == "run"]
    records = [
        record for block in engine.ledger.seals.blocks() for record in block.records
    ]
    assert seal.records == len(records)
    assert not [record for record in records if "places" in record]
    assert canonical_hash(outcome.value) in {r.get("value_hash") for r in records}


def test_places_go_with_the_value(engine: Engine) -> None:
    extracted(engine)
    engine.ledger.retention.forget_document("r.txt", by="ada")
    outcome = on_record(engine.ledger)
    assert (outcome.value, outcome.places) == (None, ())


def test_an_edited_answer_has_places_of_its_own(engine: Engine, project: Path) -> None:
    """Those of the model's answer are not those of a person's."""
    (project / "routing_rules" / "rules.yaml").write_text(REVIEWED)
    with Engine(Project(project), env={}) as reviewed:
        waiting = extracted(reviewed)
        assert waiting.status == "deferred"
        assert words_at(waiting.places) == WORDS
        run = reviewed.ledger.runs.resolve("latest").id
        item = find_item(reviewed.ledger, run, "r.txt")
        right = {"total": {"value": "15.00", "quote": "Milk 15.00"}, "items": []}
        edit(reviewed.ledger, item, json.dumps(right), by=By("ada"))
        assert on_record(reviewed.ledger).places == ()
        again = extracted(reviewed)
    assert again.status == "accepted"
    assert words_at(again.places) == {"total": "Milk 15.00"}


def test_the_parts_of_a_long_document_give_places_in_the_whole(
    engine: Engine, provider: Standin
) -> None:
    lines = [
        f"Line {number}: the agreed price of lot {number} is due."
        for number in range(90)
    ]
    text = "\n".join(lines)

    def last_line(request: Request) -> str:
        shown = request.document.strip().splitlines()
        return json.dumps({"evidence": shown[-1], "words": []})

    provider.answer(last_line)
    outcome = extracted(engine, QUOTE, text=text, part_tokens=200)
    assert outcome.status == "accepted"
    assert len(outcome.value["words"]) > 3
    words = words_at(outcome.places, text)
    assert words["evidence"] == lines[-1]
    for number, quoted in enumerate(outcome.value["words"], 1):
        assert words[f"words[{number}]"] == quoted


# ---- in the results -----------------------------------------------------------------------------


def written(folder: Path, done: Document) -> dict[str, Any]:
    path = write_documents([Batch((done,))], folder)
    line: dict[str, Any] = json.loads(path.read_text())
    return line["outcomes"]["extract"]


def test_the_results_have_the_places(tmp_path: Path) -> None:
    places = (
        Place("total", 3, 9),
        Place("items[1].price", 4, 6, 2, ((0.1, 0.2, 0.3, 0.4),)),
    )
    outcome = Outcome(step="extract", status="accepted", value=VALUE, places=places)
    found = written(tmp_path, document().with_outcome(outcome))
    assert found["places"] == [
        {"path": "total", "start": 3, "end": 9},
        {
            "path": "items[1].price",
            "start": 4,
            "end": 6,
            "page": 2,
            "boxes": [[0.1, 0.2, 0.3, 0.4]],
        },
    ]


def test_without_a_quotation_the_results_have_no_places(tmp_path: Path) -> None:
    outcome = Outcome(step="extract", status="accepted", value={})
    assert "places" not in written(tmp_path, document().with_outcome(outcome))


def test_the_report_says_where_a_field_is_quoted(engine: Engine) -> None:
    """Of a confidential document it does not: a field's name may be a word of the document."""
    extracted(engine)
    runs = [engine.ledger.runs.resolve("latest")]
    assert f"total: {RECEIPT.index('Total')}–" in json.dumps(
        document_rows(engine.ledger, runs), ensure_ascii=False
    )
    secret = replace(document(), sensitivity="confidential")
    outcome = Outcome(
        step="extract",
        status="accepted",
        value={},
        sensitivity="confidential",
        places=(Place("names.Mrs Abendroth", 0, 3),),
    )
    asyncio.run(engine.ledger.record_outcome(runs[0].id, secret, outcome))
    for with_answers in (False, True):
        rows = document_rows(engine.ledger, runs, with_answers=with_answers)
        assert ("Abendroth" in json.dumps(rows)) == with_answers


def test_the_desk_marks_places_by_field_and_page() -> None:
    quoted = Outcome(
        step="extract",
        status="accepted",
        value={},
        places=(Place("total", 0, 5, 2), Place("far", 90, 99)),
    )
    edited = Outcome(step="edited", status="accepted", value={"quote": "milk"})
    other = replace(quoted, step="redacted")
    rows = [
        OutcomeRow(
            document_id="r.txt",
            document_hash=document_hash,
            outcome=outcome,
            recorded_at=0.0,
        )
        for outcome, document_hash in (
            (quoted, document().hash),
            (edited, document().hash),
            (other, "of another text"),
        )
    ]
    parts = marked_places(RECEIPT, rows, most=1000)
    assert "".join(part.text for part in parts) == RECEIPT
    assert [(part.text, part.quoted_by) for part in parts if part.quoted_by] == [
        (RECEIPT[:5], ("extract.total (page 2)",)),
        ("Milk", ("edited.quote",)),
    ]
