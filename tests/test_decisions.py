"""Several people decide at once: versions, requests that arrive twice, undo, and comments."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kit.ledgers import DATABASES, DOCUMENT, migrated_url
from tests.test_queue import deferred, queue, record
from tierwise.audit.verify import verify_ledger
from tierwise.errors import DecidedMeanwhile, Misuse
from tierwise.ledger import Ledger
from tierwise.ledger.people.decisions import Version
from tierwise.review import bulk
from tierwise.review.queue import (
    By,
    comment,
    edit,
    find_item,
    reject,
    reopen,
    send_again,
)

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
}


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(migrated_url(request.param, tmp_path), root=tmp_path) as opened:
        opened.reviews.ask("q-classify", "classify", SCHEMA)
        yield opened


def words(ledger: Ledger, name: str = "a") -> list[tuple[str, str]]:
    return [
        (each.decision, each.reviewer)
        for each in ledger.reviews.history("run-1", name, "classify")
    ]


def status(ledger: Ledger, name: str = "a") -> tuple[str, Any]:
    (row,) = ledger.runs.outcomes("run-1", name)
    return row.outcome.status, row.outcome.value


def test_the_second_of_two_who_saw_the_same_item_is_refused_with_what_was_decided(
    ledger: Ledger,
) -> None:
    record(ledger, 1, {"a": deferred()})
    of_ada = find_item(ledger, "run-1", "a")
    of_bob = find_item(ledger, "run-1", "a")
    edit(ledger, of_ada, '{"label": "x"}', by="ada")
    with pytest.raises(DecidedMeanwhile) as refused:
        reject(ledger, of_bob, by="bob")
    (unseen,) = refused.value.decisions
    assert (unseen.decision, unseen.reviewer, unseen.value) == (
        "edited",
        "ada",
        {"label": "x"},
    )
    assert words(ledger) == [("edited", "ada")]
    assert status(ledger) == ("accepted", {"label": "x"})
    # Who has read that may correct it, as one person may correct the other on the command line.
    reject(ledger, find_item(ledger, "run-1", "a"), by="bob")
    assert status(ledger) == ("rejected", None)


def test_the_same_text_elsewhere_is_the_same_item(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred(), "b": deferred()}, text="One text.")
    of_bob = find_item(ledger, "run-1", "b")
    reject(ledger, find_item(ledger, "run-1", "a"), by="ada")
    with pytest.raises(DecidedMeanwhile):
        reject(ledger, of_bob, by="bob")


def test_a_comment_is_no_decision(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred()})
    of_bob = find_item(ledger, "run-1", "a")
    comment(ledger, find_item(ledger, "run-1", "a"), by=By("ada", "see the annex"))
    assert queue(ledger) == [("run-1", "a")]
    assert status(ledger)[0] == "deferred"
    with pytest.raises(Misuse):
        reopen(ledger, find_item(ledger, "run-1", "a"), by="ada")
    edit(ledger, of_bob, '{"label": "x"}', by="bob")
    comment(ledger, find_item(ledger, "run-1", "a"), by=By("ada", "I agree"))
    assert status(ledger) == ("accepted", {"label": "x"})
    assert not ledger.reviews.answers("q-other", [of_bob.document_hash])
    known = ledger.reviews.answers("q-classify", [of_bob.document_hash])
    assert known[of_bob.document_hash].reviewer == "bob"
    with pytest.raises(Misuse):
        comment(ledger, of_bob, by=By("ada", "  "))


def test_an_outcome_that_the_run_replaced_is_no_longer_the_one_that_was_seen(
    ledger: Ledger,
) -> None:
    record(ledger, 1, {"a": deferred()})
    item = find_item(ledger, "run-1", "a")
    document = replace(DOCUMENT, id="a", text="The text of a")
    outcome = deferred("budget")
    asyncio.run(
        ledger.record_outcome("run-1", document, outcome, question="q-classify")
    )
    with pytest.raises(DecidedMeanwhile) as refused:
        reject(ledger, item, by="ada")
    assert refused.value.decisions == ()


def test_a_request_that_arrives_twice_is_applied_once(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred(), "b": deferred()})
    item = find_item(ledger, "run-1", "a")
    by = By("ada", request="r1")
    first = reject(ledger, item, by=by)
    # The browser sends it again: with the same version, and with a newer one.
    assert reject(ledger, item, by=by).number == first.number
    assert reject(ledger, find_item(ledger, "run-1", "a"), by=by).number == first.number
    assert words(ledger) == [("rejected", "ada")]
    for other in (
        lambda: edit(ledger, item, '{"label": "x"}', by=by),
        lambda: reject(ledger, item, by=replace(by, name="bob")),
        lambda: reject(ledger, find_item(ledger, "run-1", "b"), by=by),
    ):
        with pytest.raises(Misuse):
            other()
    assert words(ledger, "b") == []


def test_undo_is_a_row_and_brings_back_what_counted_before(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred()})
    reject(ledger, find_item(ledger, "run-1", "a"), by=By("ada", request="r1"))
    of_bob = find_item(ledger, "run-1", "a")
    edit(ledger, of_bob, '{"label": "x"}', by=By("bob", request="r2"))
    # What is not the last one stays.
    refused = ledger.reviews.undo("r1", by="ada", undo="u0").refused
    assert [unseen[-1].reviewer for _, unseen in refused] == ["bob"]

    assert ledger.reviews.last_request("bob") == "r2"
    undone = ledger.reviews.undo("r2", by="bob", undo="u1")
    assert status(ledger) == ("rejected", None)
    assert ledger.reviews.undo("r2", by="bob", undo="u1") == replace(
        undone, repeated=True
    )
    assert ledger.reviews.last_request("bob") is None
    # Undone once, it is not undone again: the row that took it back is later.
    assert ledger.reviews.undo("r2", by="bob", undo="u2").refused
    assert words(ledger) == [
        ("rejected", "ada"),
        ("edited", "bob"),
        ("rejected", "bob"),
    ]
    with pytest.raises(Misuse):
        ledger.reviews.undo("unknown", by="bob", undo="u3")


def test_undo_of_the_first_decision_opens_the_item(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred()})
    reject(ledger, find_item(ledger, "run-1", "a"), by=By("ada", request="r1"))
    assert queue(ledger) == []
    ledger.reviews.undo("r1", by="ada", undo="u1")
    assert queue(ledger) == [("run-1", "a")]
    assert [number for (number,) in [(each.undoes,) for each in history(ledger)]] == [
        None,
        history(ledger)[0].number,
    ]


def history(ledger: Ledger) -> list[Any]:
    return ledger.reviews.history("run-1", "a", "classify")


def test_sent_again_waits_for_a_run_and_comes_back_if_that_defers_it(
    ledger: Ledger,
) -> None:
    record(ledger, 1, {"a": deferred()})
    item = find_item(ledger, "run-1", "a")
    sent = send_again(ledger, item, by="ada")
    assert queue(ledger) == []
    assert [row.is_decided for row in ledger.runs.queue()] == [True]
    assert status(ledger)[0] == "deferred"
    hashes = [item.document_hash]
    assert ledger.reviews.sent_again("q-classify", hashes) == {
        item.document_hash: sent.reviewed_at
    }
    assert ledger.reviews.answers("q-classify", hashes) == {}
    record(ledger, 2, {"a": deferred("failed_checks")})
    assert queue(ledger) == [("run-2", "a")]


def test_one_action_over_many_has_one_undo(ledger: Ledger) -> None:
    record(ledger, 1, {name: deferred() for name in "abcd"})
    rows = ledger.runs.queue()
    seen = ledger.reviews.last_number()
    # Decided between the page and its button.
    reject(ledger, find_item(ledger, "run-1", "d"), by="bob")
    by = By("ada", request="r1", seen=Version(seen).text)
    done = bulk.decide(ledger, rows, "rejected", by=by, selection={"step": "classify"})
    assert {each.document_id for each in done.decisions} == {"a", "b", "c"}
    assert [each.document_id for each, _ in done.refused] == ["d"]
    assert queue(ledger) == []
    again = bulk.decide(ledger, rows, "rejected", by=by, selection={"step": "classify"})
    assert again.repeated
    assert again.decisions == done.decisions
    ledger.reviews.undo("r1", by="ada", undo="u1")
    assert queue(ledger) == [("run-1", name) for name in "abc"]


def test_texts_in_common_are_no_conflict_inside_one_action(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred(), "b": deferred()}, text="One text.")
    done = bulk.decide(
        ledger, ledger.runs.queue(), "rejected", by=By("ada", request="r1")
    )
    assert len(done.decisions) == 2
    undone = ledger.reviews.undo("r1", by="ada", undo="u1")
    assert len(undone.decisions) == 2
    assert not undone.refused


def test_all_of_it_is_in_the_audit_trail(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred(), "b": deferred()})
    bulk.decide(
        ledger,
        ledger.runs.queue(),
        "rejected",
        by=By("ada", request="r1"),
        selection={"step": "classify"},
    )
    ledger.reviews.undo("r1", by="ada", undo="u1")
    item = find_item(ledger, "run-1", "a")
    comment(ledger, item, by=By("bob", "why?"))
    send_again(ledger, find_item(ledger, "run-1", "a"), by="bob")
    records = [
        record
        for block in ledger.seals.blocks()
        if block.kind == "decision"
        for record in block.records
    ]
    assert [each["decision"] for each in records] == [
        "rejected",
        "rejected",
        "reopened",
        "reopened",
        "commented",
        "again",
    ]
    assert [each["undoes"] for each in records[2:4]] == [1, 2]
    assert {each["request"] for each in records[:2]} == {"r1"}
    assert records[0]["selection"] == {"step": "classify"}
    assert not verify_ledger(ledger.seals).faults


def test_a_document_that_was_sent_again_is_asked_anew_and_no_other_one(
    tmp_path: Path,
) -> None:
    """By the commands: paid answers that failed their checks are reused, but for this document."""
    import json

    from tests.kit.projects import make_project, model
    from tests.kit.samples import CLASSIFY
    from tests.kit.standin import Request, Standin
    from tests.kit.steps import LABELS
    from tests.kit.terminal import Terminal
    from tierwise.engine import Engine
    from tierwise.project import Project
    from tierwise.records import Batch, Document
    from tierwise.review.queue import plan_retry

    answers = {"evidence": "words of its own"}

    def answer(_: Request) -> str:
        return json.dumps({"label": "billing", **answers})

    documents = tuple(
        Document(id=f"{name}.txt", text=f"Letter {name}: my invoice.") for name in "ab"
    )
    with Standin() as server:
        server.answer(answer)
        project = make_project(
            tmp_path,
            model("small", server.url),
            model("large", server.url, strength=20),
        )

        def run(again: str | None) -> tuple[str, dict[str, str]]:
            with Engine(Project(project), env={}) as engine:
                if again is not None:
                    engine.retry = plan_retry(engine.ledger, again).retry
                context = engine.start_run("flow")
                done = engine.run_batch(context, CLASSIFY, Batch(documents), LABELS)
                engine.finish_run(context, "completed")
                return context.id, {
                    document.id: document.outcomes["classify"].status
                    for document in done.load()
                }

        first, statuses = run(None)
        assert set(statuses.values()) == {"deferred"}
        done = Terminal()(
            "review", first, "a.txt", "--again", "--by", "ada", cwd=project
        )
        assert done.code == 0, done.err
        answers["evidence"] = "my invoice"
        _, statuses = run(first)
        assert statuses == {"a.txt": "accepted", "b.txt": "deferred"}
