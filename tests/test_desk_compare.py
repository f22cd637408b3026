"""The pages that compare two models side by side, over a real socket."""

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
from tierwise.desk.comparing import at_most_worse, word_of
from tierwise.ledger.people.comparisons import is_swapped


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDesk]:
    """`cheap` is wrong about every other message, `dear` is right."""
    root = tmp_path_factory.mktemp("compare")
    with opened(root) as office:
        office.made()
        office.run(documents(24))
    with desk_at(root) as served:
        served.ledger.retention.keep(documents(24))
        yield served


def begun(browser: Browser) -> httpx.Response:
    page = browser.get("/compare")
    form = form_of(page, "/compare/new")
    variants = re.findall(r'<option value="([^"]*)"', page.text)
    answer = browser.post(
        "/compare/new", {**form, "first": variants[0], "second": variants[1]}
    )
    assert answer.status_code == 303, answer.text
    return following(browser, answer)


def following(browser: Browser, answer: httpx.Response) -> httpx.Response:
    while answer.status_code == 303:
        answer = browser.get(answer.headers["location"])
    return answer


def right_side(page: httpx.Response) -> str:
    """Which side a person calls right: parcels are deliveries."""
    number = int(title(page)[1:])
    wanted = "delivery" if number % 2 else "billing"
    left, _, right = page.text.partition('id="right-title"')
    left_is = wanted in left.rpartition('id="left-title"')[2]
    right_is = wanted in right.partition("</section>")[0]
    return {
        (True, False): "left",
        (False, True): "right",
        (True, True): "both",
        (False, False): "neither",
    }[left_is, right_is]


def test_two_models_are_compared_blind_until_all_have_a_verdict(
    desk: ServedDesk,
) -> None:
    ada, bob = desk.signed_in("reviewer", "ada"), desk.signed_in("reviewer", "bob")
    page = begun(ada)
    sides = set()
    first = page
    of_bob = following(
        bob, bob.get(f"/compare/next?id={form_of(page, '/compare/verdict')['id']}")
    )
    while 'action="/compare/verdict"' in page.text:
        assert "dear" not in page.text.partition("<main")[2]
        assert "cheap" not in page.text.partition("<main")[2]
        side = right_side(page)
        sides.add(side)
        answer = ada.post(
            "/compare/verdict", {**form_of(page, "/compare/verdict"), "word": side}
        )
        assert answer.status_code == 303, answer.text
        # The same form once more is the same verdict.
        ada.post(
            "/compare/verdict", {**form_of(page, "/compare/verdict"), "word": side}
        )
        page = following(ada, answer)
    # Chance shows the better one on either side.
    assert {"left", "right"} <= sides
    assert title(of_bob) == title(first)
    refused = bob.post(
        "/compare/verdict", {**form_of(of_bob, "/compare/verdict"), "word": "both"}
    )
    assert refused.status_code == 409
    (comparison,) = desk.ledger.comparisons.all()
    verdicts = desk.ledger.comparisons.verdicts(comparison.id)
    right_model = "second" if comparison.second.model == "dear" else "first"
    # `cheap` alone is never right.
    assert {each.word for each in verdicts.values()} <= {right_model, "both"}
    overview = ada.get("/compare")
    assert "0 wait for a verdict" in overview.text
    done = ada.post("/compare/golden", {"id": comparison.id})
    assert done.status_code == 200, done.text
    path = desk.project.root / "golden" / "classify-compared.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == len(verdicts)
    for row in rows:
        number = int(row["id"][1:])
        assert row["expected"]["label"] == ("delivery" if number % 2 else "billing")

    # One verdict is taken back, and its document comes again.
    back = following(
        ada, ada.post("/compare/undo", {"id": comparison.id, "request": "u1"})
    )
    assert 'action="/compare/verdict"' in back.text
    assert len(desk.ledger.comparisons.verdicts(comparison.id)) == len(verdicts) - 1
    form = {**form_of(back, "/compare/verdict"), "word": "neither", "give": "1"}
    wrong = ada.post("/compare/verdict", {**form, "field.label": "nonsense"})
    assert wrong.status_code == 422
    given = {"field.label": "billing", "field.evidence": "Message"}
    assert ada.post("/compare/verdict", {**form, **given}).status_code == 303
    assert not verify_ledger(desk.ledger.seals).faults


def test_the_sides_are_those_of_chance() -> None:
    swapped = [is_swapped("c", f"h{number}") for number in range(400)]
    assert 150 < sum(swapped) < 250
    assert word_of("left", is_swapped=False) == "first"
    assert word_of("left", is_swapped=True) == "second"
    assert word_of("right", is_swapped=True) == "first"


def test_the_figure_is_that_of_the_paired_test() -> None:
    from tierwise.evidence.certify.paired_test import paired_p_value

    shown = at_most_worse(2, 5, 120)
    assert shown is not None
    assert paired_p_value(2, 5, 120, shown) <= 0.05
    assert paired_p_value(2, 5, 120, shown - 0.005) > 0.05
    assert at_most_worse(0, 0, 0) is None
    assert at_most_worse(9, 0, 9) is None


def test_viewers_compare_nothing_and_wrong_forms_are_refused(desk: ServedDesk) -> None:
    viewer = desk.signed_in("viewer", "vic")
    assert viewer.get("/compare").status_code == 200
    for path in ("new", "verdict", "undo", "golden"):
        assert viewer.post(f"/compare/{path}", {"id": "x"}).status_code == 403
    eve = desk.signed_in("reviewer", "eve")
    assert (
        eve.post("/compare/new", {"step": "classify", "first": "9"}).status_code == 400
    )
    assert eve.post("/compare/verdict", {"id": "unknown"}).status_code == 404
