"""The pages on labels over a real socket: two people, a third, blind answers, golden sets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.kit.desk import Browser, ServedDesk, desk_at
from tests.kit.samples import documents, opened
from tests.test_desk_review import form_of, title
from tierwise.audit.verify import verify_ledger


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDesk]:
    """`cheap` says billing of every message, `dear` reads them; two people label each."""
    root = tmp_path_factory.mktemp("labels")
    with opened(root) as office:
        office.made()
        office.run(documents(24))
    settings = root / "pyproject.toml"
    with settings.open("a") as file:
        file.write(
            '\n[tool.tierwise]\nkeep_text = "all"\n\n[tool.tierwise.desk]\nlabellers = 2\n'
        )
    with desk_at(root) as served:
        run = served.ledger.runs.resolve("latest")
        served.ledger.retention.keep(documents(24))
        assert run
        yield served


def next_item(browser: Browser, mode: str) -> httpx.Response:
    answer = browser.get(f"/labels/next?mode={mode}&step=classify")
    assert answer.status_code == 303, answer.text
    return browser.get(answer.headers["location"])


def send(browser: Browser, page: httpx.Response, **fields: str) -> httpx.Response:
    return browser.post("/labels/label", {**form_of(page, "/labels/label"), **fields})


def label_of(desk: ServedDesk, item: str) -> bool | None:
    return desk.ledger.samples.item(item).accepted.right


def test_two_people_and_a_third_where_they_differ(desk: ServedDesk) -> None:
    ada, bob, cy = (desk.signed_in("reviewer", name) for name in ("ada", "bob", "cy"))
    page = next_item(ada, "shown")
    item = form_of(page, "/labels/label")["item"]
    # Models are not named: a name decides nothing.
    assert "dear" not in page.text
    assert "cheap" not in page.text
    word = "accepted" if 'value="accepted"' in page.text else "both"
    answer = send(ada, page, word=word)
    send(ada, page, word=word)
    assert answer.status_code == 303
    assert label_of(desk, item) is None
    # The same item comes for bob, without a word of what ada said.
    of_bob = bob.get(f"/labels/item?id={item}&mode=shown")
    # As a word: the three letters may be in a random id.
    assert not re.search(r"\bada\b", of_bob.text)
    send(bob, of_bob, word="neither")
    assert label_of(desk, item) is None
    # The third person gets it first.
    of_cy = next_item(cy, "shown")
    assert form_of(of_cy, "/labels/label")["item"] == item
    late = cy.get(f"/labels/item?id={item}&mode=shown")
    send(cy, of_cy, word=word)
    assert label_of(desk, item) is True
    assert send(cy, late, word="neither").status_code == 422
    dan = desk.signed_in("reviewer", "dan")
    refused = send(dan, dan.get(f"/labels/item?id={item}"), word="neither")
    assert refused.status_code == 409
    overview = ada.get("/labels")
    assert "0 of 1" in overview.text


def test_a_blind_answer_shows_no_model_and_gives_the_label(desk: ServedDesk) -> None:
    eve, fay = desk.signed_in("reviewer", "eve"), desk.signed_in("reviewer", "fay")
    for browser in (eve, fay):
        page = next_item(browser, "blind")
        found = form_of(page, "/labels/label")
        assert '<pre class="answer">' not in page.text
        assert found["field.evidence"] == ""
        number = int(title(page)[1:])
        right = "delivery" if number % 2 else "billing"
        wrong = send(browser, page, **{"field.label": "nonsense"})
        assert wrong.status_code == 422
        quote = "parcel is late" if number % 2 else "invoice is wrong"
        done = send(browser, page, **{"field.label": right, "field.evidence": quote})
        assert done.status_code == 303, done.text
        labels = desk.ledger.samples.labels()[found["item"]]
        last = labels[-1]
        assert last.is_blind
        assert last.answer == {"label": right, "evidence": quote}
        assert last.word in ("accepted", "both")


def test_the_own_last_label_is_taken_back(desk: ServedDesk) -> None:
    gus = desk.signed_in("reviewer", "gus")
    page = next_item(gus, "shown")
    item = form_of(page, "/labels/label")["item"]
    send(gus, page, word="neither")
    assert [each.reviewer for each in desk.ledger.samples.labels()[item]][-1] == "gus"
    back = gus.post("/labels/undo", form_of(gus.get("/labels"), "/labels/undo"))
    again = gus.get(back.headers["location"])
    assert form_of(again, "/labels/label")["item"] == item
    labels = desk.ledger.samples.labels().get(item, [])
    assert "gus" not in [each.reviewer for each in labels]


def test_a_golden_set_grows_with_the_answers_that_people_gave(desk: ServedDesk) -> None:
    people = [desk.signed_in("reviewer", name) for name in ("hal", "ida")]
    given: dict[str, str] = {}
    # All counted items in their order, each by two people, with a third for none.
    for browser in people:
        while True:
            answer = browser.get("/labels/next?mode=shown&step=classify")
            if "/labels/item" not in answer.headers["location"]:
                break
            page = browser.get(answer.headers["location"])
            item = form_of(page, "/labels/label")["item"]
            done = send(
                browser,
                page,
                word="neither",
                give="1",
                **{"field.label": "billing", "field.evidence": "Message"},
            )
            assert done.status_code == 303, done.text
            given[item] = "billing"
    assert given
    hal = people[0]
    form = {"step": "classify"}
    done = hal.post("/labels/golden", form)
    assert done.status_code == 200, done.text
    path = desk.project.root / "golden" / "classify-sampled.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    by_item = {row["sample"]: row["expected"]["evidence"] for row in rows}
    # Of the counted ones, as long as none before them is without a label.
    assert by_item.keys() & given.keys()
    assert {by_item[item] for item in by_item.keys() & given.keys()} == {"Message"}
    assert re.search(r"Cohen's kappa|kappa is not defined", hal.get("/labels").text)


def test_viewers_label_nothing(desk: ServedDesk) -> None:
    viewer = desk.signed_in("viewer", "vic")
    assert viewer.get("/labels").status_code == 200
    assert viewer.get("/labels/next").status_code == 403
    for path in ("/labels/label", "/labels/undo", "/labels/golden"):
        assert viewer.post(path, {"item": "x"}).status_code == 403


def test_the_audit_trail_verifies(desk: ServedDesk) -> None:
    assert not verify_ledger(desk.ledger.seals).faults
