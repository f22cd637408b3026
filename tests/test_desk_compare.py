"""The pages that compare two models side by side, over a real socket."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.kit.desk import Browser, ServedDesk, desk_at
from tests.kit.golden_sets import DEAR, write_golden
from tests.kit.projects import make_project, model
from tests.kit.samples import FREE, RULES, Office, documents, opened
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal
from tests.test_desk_pages import text_of
from tests.test_desk_review import form_of, title
from tierwise.audit.verify import verify_ledger
from tierwise.desk.comparing import at_most_worse, word_of
from tierwise.ledger.people.comparisons import is_swapped
from tierwise.policy.certificates import load_certificates
from tierwise.project import CERTIFICATES


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
    assert "; each has a verdict." in overview.text
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


def billing(request: Request) -> str:
    """A model that takes everything for an invoice."""
    return json.dumps(
        {"label": "billing", "evidence": " ".join(request.document.split()[:4])}
    )


def nearly_right(request: Request) -> str:
    """A model that reads, but takes every tenth message for a parcel."""
    number = int(request.document.split()[1].rstrip(":"))
    answer = json.loads(billing(request))
    if number % 10 == 0 or "invoice" not in request.document:
        answer["label"] = "delivery"
    return json.dumps(answer)


def test_two_people_compare_and_the_paired_certificate_follows(
    tmp_path: Path, terminal: Terminal
) -> None:
    """40 messages: `dear` is right about the 20 invoices, `near` about all but 4 of these."""
    letters = documents(40)
    with Standin() as near, Standin() as dear:
        near.answer(nearly_right)
        dear.answer(billing)
        office = Office(tmp_path / "office", near, dear)
        make_project(
            office.root,
            model("near", near.url, strength=10, price=FREE),
            model("dear", dear.url, strength=20, price=DEAR),
            rules=RULES.format(share=1, money=1).replace(
                "{classify: 0.9}", "{classify: {at_most_worse: 0.05, than: dear}}"
            ),
        )
        write_golden(office.root, [])
        office.run(letters)
        with desk_at(office.root) as served:
            served.ledger.retention.keep(letters)
            pages = compared_by_two(served)
            assert pages == 24
            ada = served.signed_in("reviewer", "ada")
            page = text_of(ada.get("/compare").text)
            assert "24 documents of 40 in common have different answers; each" in page
            assert "alone is right in 4, near," in page
            assert "alone in 20." in page
            (comparison,) = served.ledger.comparisons.all()
            reviewers = {
                each.reviewer
                for each in served.ledger.comparisons.verdicts(comparison.id).values()
            }
            assert reviewers == {"ada", "bob"}
            done = ada.post("/compare/golden", {"id": comparison.id})
            assert done.status_code == 200
            command = (
                "tierwise certify classify --golden golden/classify-compared.jsonl"
            )
            assert command in text_of(done.text)
        said = terminal(
            *command.split()[1:], "--yes", "--json", "-m", "near", cwd=office.root
        )
        assert said.code == 0, said.err
        reference, candidate = json.loads(said.out)
        assert (reference["candidate"], reference["right"]) == ("dear", 4)
        assert (candidate["right"], candidate["lost"], candidate["gained"]) == (
            20,
            4,
            20,
        )
        assert candidate["certified"]
        # Were the two equally good, 20 or more of 24 differences would favour `near` this often.
        chance = sum(math.comb(24, k) for k in range(20, 25)) / 2**24
        assert chance == pytest.approx(0.000772, abs=1e-6)
        written = load_certificates(office.root / CERTIFICATES).certificates
        (found,) = (each for each in written if each.models == ("near",))
        assert (found.n, found.lost, found.gained) == (24, 4, 20)
        assert found.than == "dear"


def compared_by_two(served: ServedDesk) -> int:
    """Ada and Bob take turns; return the number of their verdicts."""
    people = [served.signed_in("reviewer", name) for name in ("ada", "bob")]
    page = people[0].get("/compare")
    form = form_of(page, "/compare/new")
    of_dear, of_near = re.findall(r'<option value="([^"]*)"', page.text)[:2]
    assert of_dear.startswith("dear, classify")
    assert of_near.startswith("near, classify")
    begun_at = people[0].post(
        "/compare/new", {**form, "first": of_dear, "second": of_near}
    )
    address = begun_at.headers["location"]
    for number in range(100):
        person = people[number % 2]
        page = following(person, person.get(address))
        if 'action="/compare/verdict"' not in page.text:
            return number
        main = page.text.partition("<main")[2]
        assert "near" not in main
        assert "dear" not in main
        form = {**form_of(page, "/compare/verdict"), "word": right_side(page)}
        assert person.post("/compare/verdict", form).status_code == 303
    raise AssertionError("the comparison does not end")


def test_a_changed_prompt_of_the_same_version_is_another_variant(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as office:
        office.made(share=0)
        office.run(documents(6))
        prompt = tmp_path / "prompts" / "classify.md.j2"
        text = prompt.read_text()
        changed = text.replace("You sort documents.", "You sort documents well.")
        assert changed != text
        prompt.write_text(changed)
        office.run(documents(8))
    with desk_at(tmp_path) as served:
        (earlier, of_earlier), (later, of_later) = served.ledger.comparisons.variants()[
            "classify"
        ]
        assert earlier.prompt == later.prompt
        assert earlier.template != later.template
        assert (of_earlier, of_later) == (6, 8)
        ada = served.signed_in("reviewer", "ada")
        page = ada.get("/compare")
        assert "this version has several texts" in page.text
        names = re.findall(r'<option value="([^"]*)"', page.text)[:2]
        assert names == [earlier.name, later.name]
        form = form_of(page, "/compare/new")
        done = ada.post("/compare/new", {**form, "first": names[0], "second": names[1]})
        assert done.status_code == 303
        # Both say the same of every message, so there is nothing to judge or to write.
        over = text_of(following(ada, done).text)
        assert "Both gave equal answers for 6 documents" in over
        assert "golden/classify-compared.jsonl" not in over
        (comparison,) = served.ledger.comparisons.all()
        assert comparison.first == earlier
        refused = ada.post("/compare/golden", {"id": comparison.id})
        assert refused.status_code == 422
        assert "Both gave equal answers" in text_of(refused.text)
        viewer = text_of(served.signed_in("viewer", "vic").get("/compare").text)
        assert "What can be compared" in viewer
        assert later.name in viewer


def test_one_document_is_a_document(tmp_path: Path) -> None:
    with opened(tmp_path) as office:
        office.made()
        office.run(documents(1))
    with desk_at(tmp_path) as served:
        for person in (served.signed_in("viewer"), served.signed_in("reviewer")):
            text = text_of(person.get("/compare").text)
            assert "1 document" in text
            assert "1 documents" not in text


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
