"""Labels by one person or by two, with a third where these differ; agreement; comparisons."""

from __future__ import annotations

import asyncio
import csv
import io
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kit.ledgers import (
    DATABASES,
    DOCUMENT,
    REPLY,
    RUN,
    attempt,
    migrated_url,
)
from tierwise.audit.files import write_trail
from tierwise.audit.verify import verify_ledger
from tierwise.errors import DecidedMeanwhile, Misuse, UnknownName
from tierwise.ledger import Ledger
from tierwise.ledger.people.chain import Scope
from tierwise.ledger.people.comparisons import Judgement, Variant
from tierwise.ledger.people.labels import Labeller, settled, waits_for
from tierwise.ledger.people.samples import Audit, item_id
from tierwise.policy.kappa import cohens_kappa
from tierwise.records import Outcome, text_hash


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(migrated_url(request.param, tmp_path), root=tmp_path) as opened:
        opened.start_run(RUN)
        yield opened


def sampled(ledger: Ledger, number: int = 1) -> str:
    """Record a sample with a shadow; return its id."""
    item = item_id(RUN.id, "classify", f"h{number}")
    accepted = Audit(
        id=f"{item}.accepted",
        run_id=RUN.id,
        document_id=f"{number}.txt",
        document_hash=f"h{number}",
        step="classify",
        model="large",
        identity="i",
        value={"label": "a"},
        accepted_model="large",
        accepted={"label": "a"},
        agreed=None,
        recorded_at=float(number),
    )
    shadow = replace(
        accepted,
        id=f"{item}.shadow",
        model="small",
        value={"label": "b"},
        agreed=False,
    )
    asyncio.run(ledger.samples.record([accepted, shadow]))
    return item


def by(name: str, request: str | None = None) -> Labeller:
    return Labeller(name=name, people=2, request=request)


def labels_on_record(ledger: Ledger, item: str) -> tuple[bool | None, bool | None]:
    found = ledger.samples.item(item)
    assert found.shadow
    return found.accepted.right, found.shadow.right


def test_two_who_agree_settle_an_item_and_the_first_alone_does_not(
    ledger: Ledger,
) -> None:
    item = sampled(ledger)
    ledger.samples.label(item, "accepted", by("ada"))
    assert labels_on_record(ledger, item) == (None, None)
    assert not verify_ledger(ledger.seals).faults
    with pytest.raises(Misuse):
        ledger.samples.label(item, "accepted", by("ada"))
    ledger.samples.label(item, "accepted", by("bob"))
    assert labels_on_record(ledger, item) == (True, False)
    with pytest.raises(DecidedMeanwhile) as refused:
        ledger.samples.label(item, "neither", by("cy"))
    assert refused.value.decisions[0].word == "accepted"
    assert not verify_ledger(ledger.seals).faults


def test_a_third_person_decides_where_two_differ(ledger: Ledger) -> None:
    item = sampled(ledger)
    ledger.samples.label(item, "accepted", by("ada"))
    ledger.samples.label(item, "shadow", by("bob"))
    assert labels_on_record(ledger, item) == (None, None)
    labels = ledger.samples.labels()[item]
    assert [waits_for(labels, who, 2) for who in ("ada", "bob", "cy")] == [
        False,
        False,
        True,
    ]
    ledger.samples.label(item, "neither", by("cy"))
    assert labels_on_record(ledger, item) == (False, False)
    last = settled(ledger.samples.labels()[item])
    assert last
    assert last.reviewer == "cy"
    assert not verify_ledger(ledger.seals).faults


def test_a_label_is_taken_back_by_a_row_and_applied_once(ledger: Ledger) -> None:
    item = sampled(ledger)
    first = Labeller(name="ada", people=1, request="r1")
    ledger.samples.label(item, "accepted", first)
    ledger.samples.label(item, "accepted", first)
    assert len(ledger.samples.labels()[item]) == 1
    ledger.samples.undo_label(item, "ada", "u1")
    ledger.samples.undo_label(item, "ada", "u1")
    assert labels_on_record(ledger, item) == (None, None)
    assert item in {each.id for each in ledger.samples.queue()}
    assert not verify_ledger(ledger.seals).faults
    with pytest.raises(Misuse):
        ledger.samples.undo_label(item, "ada", "u2")
    # The second of two: what another person has said stays.
    ledger.samples.label(item, "accepted", by("ada"))
    ledger.samples.label(item, "shadow", by("bob"))
    with pytest.raises(DecidedMeanwhile):
        ledger.samples.undo_label(item, "ada", "u3")
    ledger.samples.undo_label(item, "bob", "u4")
    assert [each.reviewer for each in ledger.samples.labels()[item]] == ["ada"]
    records = [
        each
        for block in ledger.seals.blocks()
        if block.kind == "label"
        for each in block.records
    ]
    assert [each["decision"] for each in records] == [
        "accepted",
        "undone",
        "accepted",
        "shadow",
        "undone",
    ]


def test_a_label_that_is_written_over_is_a_fault_in_the_trail(ledger: Ledger) -> None:
    from sqlalchemy import text

    item = sampled(ledger)
    ledger.samples.label(item, "accepted", by("ada"))
    with ledger.samples._database.writing() as connection:
        connection.execute(
            text("UPDATE audits SET \"right\" = true WHERE id LIKE '%accepted'")
        )
    assert verify_ledger(ledger.seals).faults


def test_kappa_is_that_of_published_examples_and_its_interval_holds_it() -> None:
    def table(*cells: tuple[str, str, int]) -> list[tuple[str, str]]:
        return [(one, other) for one, other, n in cells for _ in range(n)]

    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, expected 0.5.
    pairs = table(("y", "y", 20), ("y", "n", 5), ("n", "y", 10), ("n", "n", 15))
    kappa = cohens_kappa(pairs)
    assert kappa.value == pytest.approx(0.4)
    assert (kappa.n, kappa.agreed) == (50, 35)
    assert kappa.low is not None
    assert kappa.high is not None
    assert kappa.low < 0.4 < kappa.high
    # All the same: the interval says how little 10 items show.
    alike = cohens_kappa(table(("y", "y", 5), ("n", "n", 5)))
    assert alike.value == 1
    assert alike.low is not None
    assert alike.low < 0.6
    assert cohens_kappa(table(("y", "y", 9))).value is None
    assert cohens_kappa([]).value is None

    # Two people who are right in 90 % of the cases: the interval has the true kappa at least as
    # often as it says.
    chance = random.Random(5)
    true, held = 0.64, 0
    for _ in range(400):
        pairs = []
        for _ in range(60):
            right = chance.choice("yn")
            wrong = "n" if right == "y" else "y"
            one = right if chance.random() < 0.9 else wrong
            other = right if chance.random() < 0.9 else wrong
            pairs.append((one, other))
        kappa = cohens_kappa(pairs)
        assert kappa.low is not None
        assert kappa.high is not None
        held += kappa.low <= true <= kappa.high
    assert held >= 380


def answered(ledger: Ledger, count: int, *variants: Variant) -> None:
    """Record answers of some variants to the same documents."""

    async def story() -> None:
        for number in range(count):
            document = replace(DOCUMENT, id=f"{number}.txt", text=f"Text {number}")
            for variant in variants:
                name = f"{number}-{variant.model}-{variant.prompt}"
                made = attempt(
                    id=name,
                    document_id=document.id,
                    document_hash=document.hash,
                    model=variant.model,
                    prompt=variant.prompt,
                    call_hash=text_hash(name),
                    text=f'{{"label": "{name}"}}',
                )
                reply = replace(REPLY, text=f'{{"label": "{name}"}}')
                await ledger.settle(RUN.id, made, reply)
            outcome = Outcome(step="classify", status="accepted", value={"label": "x"})
            await ledger.record_outcome(RUN.id, document, outcome, question="q")

    asyncio.run(story())


SMALL = Variant("small", "classify v1")
LARGE = Variant("large", "classify v1")
OTHER = Variant("small", "classify v2")


def test_two_prompts_are_compared_in_an_order_of_chance(ledger: Ledger) -> None:
    answered(ledger, 12, SMALL, OTHER)
    assert ledger.comparisons.variants() == {"classify": [(SMALL, 12), (OTHER, 12)]}
    comparison = ledger.comparisons.create("classify", SMALL, OTHER, "ada")
    assert ledger.comparisons.create("classify", OTHER, SMALL, "bob") == comparison
    pairs = ledger.comparisons.answered(comparison)
    assert pairs == ledger.comparisons.answered(comparison)
    assert sorted(each.document_id for each in pairs) != [
        each.document_id for each in pairs
    ]
    first = pairs[0]
    number = first.document_id.removesuffix(".txt")
    assert first.first == f'{{"label": "{number}-small-classify v1"}}'
    assert first.second == f'{{"label": "{number}-small-classify v2"}}'
    with pytest.raises(UnknownName):
        ledger.comparisons.get("unknown")
    with pytest.raises(Misuse):
        ledger.comparisons.create("classify", SMALL, SMALL, "ada")


def test_a_verdict_is_sealed_applied_once_and_taken_back(ledger: Ledger) -> None:
    answered(ledger, 3, SMALL, LARGE)
    comparison = ledger.comparisons.create("classify", SMALL, LARGE, "ada")
    pair = ledger.comparisons.answered(comparison)[0]

    def judge(word: object, name: str, request: str) -> None:
        judgement = Judgement(word=word, by=name, request=request, is_swapped=True)  # type: ignore[arg-type]
        ledger.comparisons.judge(comparison, pair, judgement)

    judge("first", "ada", "r1")
    judge("first", "ada", "r1")
    with pytest.raises(DecidedMeanwhile):
        judge("second", "bob", "r2")
    with pytest.raises(Misuse):
        judge("second", "ada", "r3")
    assert ledger.comparisons.undo(comparison, "bob", "u0") is None
    assert ledger.comparisons.undo(comparison, "ada", "u1") == pair.document_hash
    judge("second", "bob", "r4")
    verdicts = ledger.comparisons.verdicts(comparison.id)
    assert verdicts[pair.document_hash].word == "second"
    result = verify_ledger(ledger.seals)
    assert not result.faults
    words = [
        record["decision"]
        for block in ledger.seals.blocks()
        if block.kind == "comparison"
        for record in block.records
    ]
    assert words == ["first", "undone", "second"]


def test_each_field_of_each_record_has_a_column_in_a_csv_file(ledger: Ledger) -> None:
    item = sampled(ledger)
    answered(ledger, 1, SMALL, LARGE)
    comparison = ledger.comparisons.create("classify", SMALL, LARGE, "ada")
    pair = ledger.comparisons.answered(comparison)[0]
    right = {"label": "c"}
    judgement = Judgement(
        word="neither", by="ada", request="r1", is_swapped=True, answer=right
    )
    ledger.comparisons.judge(comparison, pair, judgement)
    ledger.samples.label(
        item,
        "neither",
        Labeller(name="ada", people=2, request="r1", is_blind=True, answer=right),
    )
    served = attempt(
        call_hash="s" * 64,
        served_model="small-2026",
        transport="batch",
        service_tier="batch",
    )
    asyncio.run(ledger.settle(RUN.id, served, REPLY))
    ledger.finish_run(RUN.id, "completed")
    file = io.StringIO()
    written, _ = write_trail(file, ledger.seals.blocks(), Scope(), None, "csv")
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert len(rows) == written + 1
    assert {row["served_model"] for row in rows} == {"", "small-2026"}
