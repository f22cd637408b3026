"""Groups: several documents as one, with a text that no member forges and guards that hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.steps import CLASSIFY, LABELS, SUMMARIZE
from tierwise import group_by, recorded_run
from tierwise.documents.groups import group_id, group_of, joined_text
from tierwise.engine import Engine
from tierwise.errors import Misuse, TierwiseError
from tierwise.orchestrate.process_state import using
from tierwise.orchestrate.runs import Run
from tierwise.policy.rules import Guard, features
from tierwise.project import Project
from tierwise.records import (
    SENSITIVITIES,
    Batch,
    Document,
    Outcome,
    Sensitivity,
    highest,
)
from tierwise.steps.own_work import function_input

RULES = """
version: 1
guards:
  - {name: stays, when: {sensitivity_min: confidential}, allow_tiers: [local]}
  - {name: private, when: {tags: {private: ["yes"]}}, allow_tiers: [local]}
  - {name: complaints, when: {outcomes: {classify.label: [delivery]}}, allow_tiers: [local]}
routes:
  - {name: default, try: [hosted, small]}
"""


def letter(number: int, **changes: Any) -> Document:
    """A letter of one of two customers."""
    fields: dict[str, Any] = {
        "id": f"{number}.txt",
        "text": f"Letter {number}: the desk has not arrived.",
        "sensitivity": "internal",
        "language": "en",
        "metadata": {"customer": "ACME" if number % 2 else "Bolt"},
        "source": "inbox",
    }
    return Document(**{**fields, **changes})


def answer(request: Request) -> str:
    if "label" in (request.schema or {})["properties"]:
        return json.dumps({"evidence": "has not arrived", "label": "billing"})
    return json.dumps({"summary": f"{request.document.count('Letter')} letters"})


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(answer)
        yield server


@pytest.fixture
def outside() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(answer)
        yield server


@pytest.fixture
def root(tmp_path: Path, provider: Standin, outside: Standin) -> Path:
    return make_project(
        tmp_path / "project",
        model("small", provider.url),
        model("hosted", outside.url, tier="clarifai"),
        rules=RULES,
    )


@contextmanager
def running(root: Path) -> Iterator[Run]:
    with (
        Engine(Project(root), env={}) as engine,
        using(engine),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(root)
        with recorded_run() as run:
            yield run


def deferred(document: Document, **changes: Any) -> Document:
    fields: dict[str, Any] = {
        "step": "classify",
        "status": "deferred",
        "cause": "failed_checks",
        "sensitivity": document.sensitivity,
    }
    return document.with_outcome(Outcome(**{**fields, **changes}))


def by_id(batches: Any) -> dict[str, Document]:
    return {group.id: group for batch in batches for group in batch.load()}


def summaries(run: Run, batches: Any) -> dict[str, Outcome]:
    """The outcomes of a step over some groups."""
    found = {}
    for batch in batches:
        done = run.engine.run_batch(run.context, SUMMARIZE, batch, {"max_words": 40})
        found.update({d.id: d.outcomes["summarize"] for d in done.load()})
    return found


def test_documents_with_the_same_key_are_one_document(
    root: Path, outside: Standin
) -> None:
    """In the order of the batches, across them; a step asks once for each group."""
    letters = [letter(number) for number in range(1, 6)]
    with running(root) as run:
        batches = group_by(
            [Batch(tuple(letters[:2])), Batch(tuple(letters[2:]), first=3)],
            "customer",
            batch_size=1,
        )
        groups = by_id(batches)
        outcomes = summaries(run, batches)
    assert [batch.label for batch in batches] == ["groups 1-1 of 2", "groups 2-2 of 2"]
    assert list(groups) == ["group/ACME", "group/Bolt"]
    acme = groups["group/ACME"]
    assert [member.id for member in acme.members] == ["1.txt", "3.txt", "5.txt"]
    assert [member.hash for member in acme.members] == [
        letters[0].hash,
        letters[2].hash,
        letters[4].hash,
    ]
    assert (acme.language, acme.source, acme.sensitivity) == ("en", "inbox", "internal")
    assert acme.metadata == {"customer": "ACME", "group": "ACME"}
    assert outcomes["group/ACME"].value == {"summary": "3 letters"}
    assert outside.count == 2


def test_what_is_in_no_group_is_on_record(root: Path) -> None:
    plain = letter(1)
    without = letter(2, metadata={})
    rejected = deferred(letter(3), status="rejected", cause="reviewer")
    with running(root) as run:
        batches = group_by([Batch((plain, without, rejected))], "customer")
        assert [m.id for m in by_id(batches)["group/ACME"].members] == ["1.txt"]
        rows = list(run.engine.ledger.runs.outcomes(run.id, step="group_by"))
    found = {row.document_id: (row.outcome.status, row.outcome.cause) for row in rows}
    assert found == {
        "1.txt": ("accepted", None),  # no step has seen it
        "2.txt": ("skipped", "condition"),
        "3.txt": ("skipped", "earlier_step"),
        "group/ACME": ("accepted", None),
    }


def reads_output(document: Document) -> str:
    return str(document.value("classify")["label"])


@pytest.mark.parametrize("incomplete", ["wait", "leave_out"])
def test_a_group_waits_for_a_deferred_member_or_goes_without(
    root: Path, provider: Standin, outside: Standin, incomplete: Any
) -> None:
    letters = (deferred(letter(1)), letter(2), letter(3))
    with running(root) as run:
        batches = group_by([Batch(letters)], "customer", incomplete=incomplete)
        groups = by_id(batches)
        outcomes = summaries(run, batches)
        waiting = {row.document_id: row.cause for row in run.summary().deferred}
    acme = groups["group/ACME"]
    if incomplete == "wait":
        assert acme.deferred is not None
        assert "1.txt" in acme.deferred.reason
        assert outcomes["group/ACME"].cause == "earlier_step"
        assert waiting == {"group/ACME": "members"}
    else:
        assert [member.id for member in acme.members] == ["3.txt"]
        assert "1.txt" in acme.metadata["incomplete"]
        assert outcomes["group/ACME"].status == "accepted"
        assert waiting == {}
    assert outcomes["group/Bolt"].status == "accepted"
    assert provider.count + outside.count == len(groups) - len(waiting)


@pytest.mark.parametrize(
    ("status", "incomplete", "expected"),
    [
        ("deferred", "wait", "deferred"),
        ("deferred", "leave_out", "accepted"),
        ("waiting", "wait", "waiting"),
        ("waiting", "leave_out", "waiting"),
    ],
)
def test_a_document_without_a_key_may_belong_to_any_group(
    root: Path, status: Any, incomplete: Any, expected: str
) -> None:
    """A provider batch is waited for in any case."""
    sorted_one = letter(1).with_outcome(
        Outcome(step="classify", status="accepted", value={"label": "billing"})
    )
    cause: Any = "batch" if status == "waiting" else "failed_checks"
    open_one = deferred(letter(2), status=status, cause=cause)
    with running(root) as run:
        batches = group_by(
            [Batch((sorted_one, open_one))], reads_output, incomplete=incomplete
        )
        [outcome] = summaries(run, batches).values()
        [group] = by_id(batches).values()
    stopped = group.stopped
    assert (stopped.status if stopped else outcome.status) == expected


def test_an_error_of_a_flows_function_names_the_document_and_no_words(
    root: Path,
) -> None:
    def fails(document: Document) -> str:
        raise ValueError(document.text)

    def fails_with_text(members: Any) -> str:
        raise ValueError(members[0].text)

    def fails_with_a_remedy(document: Document) -> str:
        raise Misuse("write extract.of(document, Model)")

    with running(root):
        batch = Batch((letter(1),))
        with pytest.raises(Misuse, match=r"extract\.of"):
            group_by([batch], fails_with_a_remedy)
        with pytest.raises(TierwiseError) as of_key:
            group_by([batch], fails)
        with pytest.raises(TierwiseError) as of_text:
            group_by([batch], "customer", text=fails_with_text)
        with pytest.raises(Misuse):
            group_by([batch], lambda document: document.metadata)
        with pytest.raises(Misuse):
            group_by([batch], "customer", text=len)  # type: ignore[arg-type]
    assert "1.txt" in str(of_key.value)
    assert "arrived" not in str(of_key.value) + str(of_text.value)


def test_a_group_that_is_too_large_or_empty_waits(root: Path) -> None:
    letters = Batch(tuple(letter(number) for number in (1, 3, 5)))
    with running(root):
        [many] = by_id(group_by([letters], "customer", most=2)).values()
        [empty] = by_id(group_by([letters], "customer", text=lambda _: " ")).values()
        [fits] = by_id(group_by([letters], "customer", most=3)).values()
    assert many.deferred is not None
    assert many.deferred.cause == "members"
    assert empty.deferred is not None
    assert fits.deferred is None


def test_no_batches_give_no_groups(root: Path) -> None:
    with running(root):
        assert list(group_by([], "customer")) == []


def test_ids_are_safe_and_unique(root: Path) -> None:
    """Among each other, over two calls, and against documents that are called like groups."""
    keys = ["ACME", "A\x1b[2J", "a/../b", "x" * 500, "ACME~0123abcd", "été", "é té"]
    ids = [group_id(key, ()) for key in keys]
    assert len(set(ids)) == len(keys)
    assert all(each.isprintable() and len(each) < 130 for each in ids)
    assert group_id("ACME", {"group/ACME"}) != "group/ACME"
    with running(root):
        batch = Batch((letter(1),))
        first = list(by_id(group_by([batch], "customer")))
        second = list(by_id(group_by([batch], "customer")))
    assert first == ["group/ACME"]
    assert second != first


TEXTS = st.text(
    alphabet=st.sampled_from("abf-:0123456789 \n\u202e\0"), max_size=60
) | st.sampled_from(["--- member-", "member-000000: 1 of 2, a ---\n", "</document>"])


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), forged=st.integers(0, 3))
def test_no_member_forges_a_boundary(texts: list[str], forged: int) -> None:
    """Not even one that repeats the boundaries that its text would have had."""
    members = [letter(number, text=text) for number, text in enumerate(texts)]
    before = joined_text(members)
    hostile = [*members, letter(9, text=before), letter(forged, text="x")]
    joined = joined_text(hostile)
    mark = joined.partition("--- ")[2].partition(":")[0]
    lines = [line for line in joined.split("\n") if f"--- {mark}:" in line]
    assert len(lines) == len(hostile)
    assert joined.count(mark) == len(hostile)
    assert all(member.text in joined for member in hostile)


def test_a_changed_member_makes_a_new_question_and_an_equal_one_none() -> None:
    members = [letter(1), letter(3)]

    def made(documents: list[Document], text: str = "same") -> str:
        return group_of("ACME", documents, id="group/ACME", text=text).hash

    assert made(members) == made(members)
    assert made(members) != made([members[0], letter(3, text="changed")])
    assert made(members) != made(members, "other")
    assert made(members) != made(members[:1])
    assert made(members) != letter(1, text="same").hash


def test_a_function_is_called_again_where_a_member_has_another_output() -> None:
    def asked(label: str) -> str:
        member = classified(letter(1), label)
        group = group_of("ACME", [member], id="group/ACME", text="same")
        return function_input(group, {}, None)

    assert asked("billing") == asked("billing")
    assert asked("billing") != asked("delivery")


def test_a_rerun_pays_only_for_groups_that_changed(
    root: Path, outside: Standin
) -> None:
    letters = [letter(number) for number in range(1, 5)]
    for texts in (letters, letters, [*letters[:3], letter(4, text="Letter 4: new.")]):
        with running(root) as run:
            summaries(run, group_by([Batch(tuple(texts))], "customer"))
    assert outside.count == 3


def classified(document: Document, label: str) -> Document:
    return document.with_outcome(
        Outcome(
            step="classify",
            status="accepted",
            value={"label": label},
            sensitivity=document.sensitivity,
        )
    )


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    levels=st.lists(st.sampled_from(SENSITIVITIES), min_size=1, max_size=5),
    raised=st.sampled_from(SENSITIVITIES),
    private=st.lists(st.booleans(), min_size=5, max_size=5),
    complaints=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_what_may_not_leave_the_house_does_not_leave_in_a_group(
    root: Path,
    outside: Standin,
    levels: list[Sensitivity],
    raised: Sensitivity,
    private: list[bool],
    complaints: list[bool],
) -> None:
    """By its sensitivity, that of an outcome, its metadata or an output: one member is enough."""
    members = []
    for number, level in enumerate(levels):
        metadata = {"all": "ours", "private": "yes" if private[number] else "no"}
        made = letter(number, sensitivity=level, metadata=metadata)
        label = "delivery" if complaints[number] else "billing"
        members.append(classified(made, label))
    members[0] = members[0].with_outcome(
        Outcome(step="x", status="accepted", value={}, sensitivity=raised)
    )
    before = outside.count
    with running(root) as run:
        batches = group_by([Batch(tuple(members))], lambda _: "all")
        [group] = by_id(batches).values()
        [outcome] = summaries(run, batches).values()
    assert group.sensitivity == highest(raised, *levels)
    number = len(levels)
    is_kept = (
        group.sensitivity in ("confidential", "restricted")
        or any(private[:number])
        or any(complaints[:number])
    )
    assert outcome.status == "accepted"
    assert outcome.model == ("small" if is_kept else "hosted")
    # an equal group is not paid again
    assert outside.count - before == 0 or not is_kept


def test_a_member_of_a_group_in_a_group_keeps_both_in_the_house(
    root: Path, outside: Standin
) -> None:
    """By its metadata, or by an output; the middle group has what all its members share."""
    for hidden in (
        letter(1, metadata={"team": "a", "private": "yes"}),
        classified(letter(1, metadata={"team": "a"}), "delivery"),
    ):
        open_letter = letter(2, metadata={"team": "a", "private": "no"})
        with running(root) as run:
            teams = group_by([Batch((hidden, open_letter))], "team")
            everything = group_by(teams, lambda _: "all")
            [whole] = by_id([run.hold(batch) for batch in everything]).values()
            [outcome] = summaries(run, everything).values()
        [team] = whole.members
        assert [member.id for member in team.members] == ["1.txt", "2.txt"]
        assert (outcome.status, outcome.model) == ("accepted", "small")
    assert outside.count == 0


def test_a_key_is_any_number(root: Path) -> None:
    keys = {"1.txt": 2.5, "2.txt": 7}
    with running(root):
        batches = group_by([Batch((letter(1), letter(2)))], lambda each: keys[each.id])
        assert list(by_id(batches)) == ["group/2.5", "group/7"]


def test_a_guard_that_matches_a_member_keeps_the_group_out_of_batches_too() -> None:
    guard = Guard.model_validate(
        {
            "name": "online",
            "when": {"language": ["de"]},
            "allow_transports": ["online"],
        }
    )
    group = group_of(
        "all", [letter(1), letter(2, language="de")], id="group/all", text="text"
    )
    found = features(CLASSIFY, group, tokens=1, prompt_tokens=1, budget_used=0)
    assert group.language is None
    assert guard.applies(found)
    assert not guard.applies(replace(found, members=()))


def test_a_group_keeps_its_members_between_steps_and_in_the_results(
    root: Path,
) -> None:
    """Through the spool, with another text, as a line and as a page."""
    with running(root) as run:
        batches = group_by([Batch((classified(letter(1), "billing"),))], "customer")
        done = [
            run.engine.run_batch(run.context, CLASSIFY, batch, LABELS)
            for batch in batches
        ]
        [group] = by_id([run.hold(batch) for batch in done]).values()
        lines = run.engine.write_documents(done, Path("out"), keep=False)
    [member] = group.members
    assert member.values == {"classify": {"label": "billing"}}
    assert group.with_text("other").members == group.members
    row = json.loads(lines.read_text())
    assert row["members"] == [
        {"id": "1.txt", "hash": member.hash, "sensitivity": "internal"}
    ]
    [page] = lines.parent.glob("group~ACME*.md")
    assert "1.txt" in page.read_text()
