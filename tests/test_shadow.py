"""Shadows and audits: a cheaper model is asked too, nothing changes by it, and labels can demote what is in use."""

from __future__ import annotations

import datetime
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from functools import reduce
from pathlib import Path

import pytest

from tasks.summarize import summarize
from tests.kit.golden_sets import DEAR, lazy, right
from tests.kit.ledgers import DATABASES, DOCUMENT, RUN, migrated_url, run
from tests.kit.samples import (
    CLASSIFY,
    ENOUGH,
    Office,
    certify,
    documents,
    label_all,
    opened,
    proven,
)
from tests.kit.standin import status
from tests.kit.terminal import Terminal
from tierwise.cascade.shadow import agreement
from tierwise.errors import Misuse, UnknownName
from tierwise.ledger import Ledger
from tierwise.ledger.people.samples import Audit, evidence_of, item_id
from tierwise.policy.sequential_test import Evidence, demotion, drawn, update
from tierwise.project import CERTIFICATES


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with opened(tmp_path / "project") as made:
        yield made


def kinds(ledger: Ledger, run_id: str) -> list[tuple[str, str]]:
    return [(attempt.model, attempt.kind) for attempt in ledger.runs.attempts(run_id)]


def test_a_shadow_changes_no_outcome_and_is_on_record(office: Office) -> None:
    context, [outcome] = office.made().run(documents(1))
    assert (outcome.status, outcome.model) == ("accepted", "dear")
    assert [attempt.model for attempt in outcome.attempts] == ["dear"]
    with office.ledger() as ledger:
        assert kinds(ledger, context.id) == [("dear", "first"), ("cheap", "shadow")]
        [row] = ledger.runs.outcomes(context.id)
        assert (row.outcome.model, row.outcome.value) == ("dear", outcome.value)


def test_without_the_setting_nothing_is_shadowed(office: Office) -> None:
    context, _ = office.made(share=0).run(documents(4))
    assert office.cheap.count == 0
    with office.ledger() as ledger:
        assert ledger.samples.queue() == []
        assert len(kinds(ledger, context.id)) == 4


def test_chance_picks_the_share_by_document_and_run(office: Office) -> None:
    """The same documents in another run are another sample."""
    office.made(share=0.5)
    picked = [
        {request.document for request in office.cheap.requests}
        for _ in range(2)
        if office.run(documents(40))
    ]
    picked[1] -= picked[0]
    assert 10 <= len(picked[0]) <= 30
    assert picked[1]


def test_a_shadow_never_reaches_a_tier_that_a_guard_forbids(office: Office) -> None:
    office.made(cheap="clarifai").run(
        (*documents(3, sensitivity="confidential"), *documents(1))
    )
    assert [request.document for request in office.cheap.requests] == [
        documents(1)[0].text
    ]


def test_answers_without_a_shadow_are_still_put_up_for_labels(office: Office) -> None:
    """What is learned of the model in use holds for the confidential documents too."""
    office.made(cheap="clarifai").run(documents(6, sensitivity="confidential"))
    with office.ledger() as ledger:
        waiting = ledger.samples.queue()
    assert all(
        item.shadow is None and item.accepted.model == "dear" for item in waiting
    )
    assert all(item.words == ("accepted", "neither") for item in waiting)


def test_shadows_stop_at_their_share_of_the_money(office: Office) -> None:
    """A tenth as dear as the model in use: 30 documents pay for some shadows at 5 %, not for all."""
    price = "{input: 1, output: 2, source: test, date: 2026-11-01}"
    context, _ = office.made(money=0.05, price=price).run(documents(30))
    with office.ledger() as ledger:
        attempts = list(ledger.runs.attempts(context.id))
    shadows = sum(
        (a.cost or Decimal(0) for a in attempts if a.kind == "shadow"), Decimal(0)
    )
    others = sum(
        (a.cost or Decimal(0) for a in attempts if a.kind != "shadow"), Decimal(0)
    )
    assert 0 < shadows <= others * Decimal("0.05")
    assert office.cheap.count < 30


def test_a_runs_summary_shows_shadows_apart(terminal: Terminal, office: Office) -> None:
    """With what they cost, and without a pass rate: no outcome could come from them."""
    office.cheap.answer("no JSON", lazy)
    office.made().run(documents(2))
    rows = json.loads(terminal("show", "--json", cwd=office.root).out)["rows"]
    told = [
        (
            row["model"],
            row["documents"],
            row["attempts"],
            row["accepted"],
            row["repairs"],
        )
        for row in rows
    ]
    assert told == [("dear", 2, 2, 2, 0), ("cheap (shadow)", 2, 3, 0, 0)]


def test_a_free_shadow_needs_no_money(office: Office) -> None:
    office.made(money=0).run(documents(5))
    assert office.cheap.count == 5


def test_a_dearer_model_is_no_shadow(office: Office) -> None:
    office.made(price="{input: 11, output: 20, source: test, date: 2026-11-01}").run(
        documents(3)
    )
    assert office.cheap.count == 0


def test_a_model_that_was_tried_is_no_shadow(office: Office) -> None:
    """What failed on the way to the answer was seen already."""
    office.made()
    rules = office.root / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("try: [dear]", "try: [cheap, dear]"))
    office.cheap.answer(json.dumps({"label": "weather", "evidence": "Message"}))
    _, outcomes = office.run(documents(3))
    assert {outcome.model for outcome in outcomes} == {"dear"}
    assert office.cheap.count == 3


def test_a_shadow_that_cannot_be_called_is_on_record_and_not_asked_again(
    office: Office,
) -> None:
    office.cheap.faults([status(401)] * 9)
    context, [outcome] = office.made().run(documents(1))
    assert outcome.status == "accepted"
    with office.ledger() as ledger:
        assert [a.error for a in ledger.runs.attempts(context.id)] == [
            None,
            "AuthenticationFailed",
        ]
        assert all(item.shadow is None for item in ledger.samples.queue())


def test_a_budget_without_room_for_a_shadow_leaves_the_document_alone(
    office: Office,
) -> None:
    office.made(price="{input: 9.9, output: 19.9, source: test, date: 2026-11-01}")
    _, [waiting] = office.run(documents(1), budget="0.000001")
    least = re.findall(r"dear: the call may cost ([0-9.]+) USD", waiting.reason)[0]
    _, [outcome] = office.run(
        documents(1), budget=str(Decimal(least) + Decimal("0.000001"))
    )
    assert outcome.status == "accepted"
    assert office.cheap.count == 0


def test_an_answer_that_the_checks_refuse_counts_as_wrong_without_a_person(
    office: Office,
) -> None:
    """As in certification, where an item without an answer is an error."""
    office.cheap.answer(
        json.dumps({"label": "billing", "evidence": "words that are nowhere"})
    )
    office.made().run(documents(1))
    with office.ledger() as ledger:
        audit = ledger.samples.item(_only_item(ledger)).shadow
    assert audit is not None
    assert (audit.value, audit.right, audit.reviewer) == (None, False, "checks")


def _only_item(ledger: Ledger) -> str:
    [run_row] = ledger.runs.newest()
    [row] = ledger.runs.outcomes(run_row.id)
    return item_id(run_row.id, "classify", row.document_hash)


def test_disagreements_queue_up_first(office: Office) -> None:
    """`cheap` says billing of every message; half are about a parcel."""
    office.made().run(documents(20))
    with office.ledger() as ledger:
        queue = ledger.samples.queue()
    disagreeing = [item for item in queue if item.disagrees]
    assert queue[: len(disagreeing)] == disagreeing
    assert len(disagreeing) == 10
    assert all(item.accepted.counted for item in queue[10:])
    assert {item.accepted.accepted["label"] for item in disagreeing} == {"delivery"}


# ---- what is the same ---------------------------------------------------------------------------


def test_agreement_is_the_steps_own_measure() -> None:
    """Of a label the label counts, whatever the evidence."""
    accepted = {"label": "billing", "evidence": "my invoice"}
    assert (
        agreement(CLASSIFY, {"label": "Billing", "evidence": "is wrong"}, accepted)
        is True
    )
    assert (
        agreement(CLASSIFY, {"label": "delivery", "evidence": "my invoice"}, accepted)
        is False
    )


def test_a_measure_that_needs_more_than_an_answer_cannot_tell() -> None:
    """A summary is right by what a golden set wants mentioned, and an answer wants nothing mentioned."""
    assert (
        agreement(summarize.spec, {"summary": "One."}, {"summary": "Another."}) is None
    )
    assert agreement(summarize.spec, {"summary": "One."}, {"summary": "One."}) is True


def test_without_a_measure_equal_answers_agree() -> None:
    plain = replace(CLASSIFY, correct=None)
    assert agreement(plain, {"label": "a"}, {"label": "a"}) is True
    assert agreement(plain, {"label": "a"}, {"label": "b"}) is False


# ---- labels and evidence ------------------------------------------------------------------------


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(migrated_url(request.param, tmp_path), root=tmp_path) as opened:
        opened.start_run(RUN)
        yield opened


def audit(n: int = 0, role: str = "accepted", **changes: object) -> Audit:
    """The audit of the n-th item."""
    usual: dict[str, object] = {
        "id": f"{item_id(RUN.id, 'classify', str(n))}.{role}",
        "run_id": RUN.id,
        "document_id": f"{n}.txt",
        "document_hash": DOCUMENT.hash,
        "step": "classify",
        "model": "dear" if role == "accepted" else "cheap",
        "identity": "i",
        "value": {"label": "a"},
        "accepted_model": "dear",
        "accepted": {"label": "a"},
        "agreed": None,
        "recorded_at": float(n),
    }
    return Audit(**usual | changes)  # type: ignore[arg-type]


def test_a_label_says_both_answers_are_right_or_wrong(ledger: Ledger) -> None:
    run(
        ledger.samples.record(
            [audit(), audit(role="shadow", agreed=False, value={"label": "b"})]
        )
    )
    item = ledger.samples.label(audit().item[:5], "shadow", "ann")
    assert (item.accepted.right, item.accepted.reviewer) == (False, "ann")
    assert item.shadow is not None
    assert item.shadow.right is True
    assert ledger.samples.queue() == []


def test_a_later_word_replaces_an_earlier_one(ledger: Ledger) -> None:
    run(ledger.samples.record([audit()]))
    ledger.samples.label(audit().item, "neither", "ann")
    assert ledger.samples.label(audit().item, "accepted", "bob").accepted.right is True


def test_recording_an_audit_again_keeps_its_label(ledger: Ledger) -> None:
    run(ledger.samples.record([audit()]))
    ledger.samples.label(audit().item, "neither", "ann")
    run(ledger.samples.record([audit()]))
    assert ledger.samples.item(audit().item).accepted.right is False


def test_a_word_that_does_not_fit_and_an_unknown_item_are_misuse(
    ledger: Ledger,
) -> None:
    run(ledger.samples.record([audit(1)]))
    with pytest.raises(Misuse, match="it takes accepted, neither"):
        ledger.samples.label(audit(1).item, "shadow", "ann")
    with pytest.raises(UnknownName):
        ledger.samples.label("zzz", "accepted", "ann")


def test_how_often_each_model_was_a_shadow(ledger: Ledger) -> None:
    shadows = [audit(n, "shadow", model="cheap" if n else "cheaper") for n in range(3)]
    run(ledger.samples.record([*(audit(n) for n in range(3)), *shadows]))
    assert ledger.samples.shadow_answers_by_model("classify") == {
        "cheap": 2,
        "cheaper": 1,
    }


def test_evidence_counts_what_chance_marked_up_to_the_first_without_a_label() -> None:
    """Labelling only what suits one does not help: what comes after a gap waits."""
    counted = [audit(n, right=True) for n in range(60) if audit(n).counted]
    others = [audit(n, right=False) for n in range(60) if not audit(n).counted]
    mixed = sorted([*counted, *others], key=lambda a: a.recorded_at)
    assert (evidence_of(mixed, 0.9).passed, evidence_of(mixed, 0.9).failed) == (
        len(counted),
        0,
    )
    gap = counted[5].id
    assert (
        evidence_of(
            [replace(a, right=None) if a.id == gap else a for a in mixed], 0.9
        ).n
        == 5
    )


def test_half_of_the_items_are_counted() -> None:
    assert 450 <= sum(audit(n).counted for n in range(1000)) <= 550


def test_chance_is_the_same_for_everybody_and_nests() -> None:
    """Who is picked at 5 % is picked at 10 % too."""
    few, many = (
        {n for n in range(2000) if drawn(share, "run", str(n))} for share in (0.05, 0.1)
    )
    assert few < many
    assert 60 <= len(few) <= 140
    assert not drawn(0, "x")
    assert drawn(1, "x")


@pytest.mark.parametrize(("rate", "most"), [(0.95, 0.005), (0.90, 0.05)])
def test_the_whole_path_rarely_demotes_a_model_at_its_floor(
    rate: float, most: float
) -> None:
    """100 models, about 300 picked documents each, wrong answers labelled first, looked at after every day."""
    assert _share_demoted(rate, evidence_of) <= most


def test_taking_labels_as_they_come_would_demote_most_of_the_models_at_their_floor() -> (
    None
):
    """Why the rule is needed: who looks first at what seems wrong, sees more errors than there are."""

    def as_they_come(audits: list[Audit], floor: float) -> Evidence:
        return reduce(
            update,
            [a.right for a in audits if a.right is not None],
            Evidence(floor=floor),
        )

    assert _share_demoted(0.90, as_they_come) > 0.5


def test_the_whole_path_demotes_a_model_that_is_clearly_below_its_floor() -> None:
    assert _share_demoted(0.75, evidence_of) >= 0.9


Counting = Callable[[list[Audit], float], Evidence]


def _share_demoted(rate: float, counting: Counting) -> float:
    chance = random.Random(7)
    return (
        sum(_ever_demoted(chance, rate, f"run-{n}", counting) for n in range(100)) / 100
    )


def _ever_demoted(
    chance: random.Random, rate: float, run_id: str, counting: Counting
) -> bool:
    """Six days of 100 documents; a wrong answer is labelled on the day itself, a right one on the next."""
    picked = [n for n in range(600) if drawn(0.5, run_id, str(n), "classify")]
    labelled = [
        audit(
            n,
            id=f"{item_id(run_id, 'classify', str(n))}.accepted",
            right=chance.random() < rate,
        )
        for n in picked
    ]
    for day in range(1, 8):
        seen = [a for a in labelled if a.recorded_at < day * 100]
        known = [
            replace(a, right=None)
            if a.right and a.recorded_at >= (day - 1) * 100
            else a
            for a in seen
        ]
        if demotion(counting(known, 0.9)):
            return True
    return False


# ---- demotion -----------------------------------------------------------------------------------


def test_wrong_labels_demote_a_live_certificate_and_the_next_run_routes_elsewhere(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    before, outcomes = proven(office).run(documents(ENOUGH))
    assert {outcome.model for outcome in outcomes} == {"cheap"}
    label_all(office)
    after, [outcome] = office.run(documents(1))
    assert outcome.model == "dear"
    assert outcome.route is not None
    reasons = {
        rejection.model: rejection.reason for rejection in outcome.route.rejected
    }
    assert "its certificate is void" in reasons["cheap"]
    assert "audits failed" in reasons["cheap"]
    assert after.policy.hash != before.policy.hash
    assert "the certificate of cheap for classify no longer counts" in caplog.text


def test_right_labels_demote_nothing(office: Office) -> None:
    office.cheap.answer(right)
    proven(office).run(documents(ENOUGH))
    label_all(office)
    assert office.run(documents(1))[1][0].model == "cheap"


def test_audits_before_a_certificate_say_nothing_against_it(office: Office) -> None:
    office.made(price=DEAR)
    rules = office.root / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("try: [dear]", "try: [cheap]"))
    office.run(documents(ENOUGH))
    label_all(office)
    certify(office, "cheap")
    with office.engine() as engine:
        assert engine.policy.demoted == {}


def test_certifying_again_on_the_same_golden_set_forgets_nothing(
    office: Office,
) -> None:
    """Not on another day either; a golden set with more in it starts anew."""
    proven(office).run(documents(ENOUGH))
    label_all(office)
    certificates = office.root / CERTIFICATES
    text = certificates.read_text()
    today = datetime.date.today()
    certificates.write_text(
        text.replace(f"date: {today - datetime.timedelta(days=1)}", f"date: {today}")
    )
    assert office.run(documents(1))[1][0].model == "dear"
    certificates.write_text(text.replace("golden_hash: g", "golden_hash: h"))
    assert office.run(documents(1))[1][0].model == "cheap"


def test_what_a_model_makes_of_the_documents_that_others_failed_on_does_not_speak_against_it(
    office: Office,
) -> None:
    """They are harder than those that it was certified on."""
    proven(office)
    office.cheap.answer(json.dumps({"label": "weather", "evidence": "Message"}))
    office.dear.answer(lazy)
    _, outcomes = office.run(documents(40))
    assert {outcome.model for outcome in outcomes} == {"dear"}
    label_all(office)
    with office.engine() as engine:
        assert engine.policy.demoted == {}


def test_a_chain_is_audited_as_what_it_delivers(office: Office) -> None:
    """Answers of its first model and those of its second count for the chain."""
    office.made()
    rules = office.root / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("try: [dear]", "pick: cheapest_capable"))
    certify(office, "cheap", "dear")
    office.cheap.answer(
        lambda request: (
            lazy(request) if "invoice" in request.document else '{"label": "x"}'
        )
    )
    office.dear.answer(lazy)
    office.run(documents(ENOUGH))
    label_all(office)
    with office.engine() as engine:
        [(key, reason)] = engine.policy.demoted.items()
    assert key == ("classify", ("cheap", "dear"))
    assert "audits failed" in reason


# ---- the command --------------------------------------------------------------------------------


def test_the_queue_shows_both_answers_and_takes_a_word(
    terminal: Terminal, office: Office
) -> None:
    office.made().run(documents(12))
    listed = terminal("label", cwd=office.root)
    assert listed.code == 0
    first, *_ = re.findall(
        r"^([0-9a-f]{12})  classify of d\d+  disagree", listed.out, re.MULTILINE
    )
    assert 'accepted  dear: {"label": "delivery"' in listed.out
    assert 'shadow    cheap: {"label": "billing"' in listed.out
    assert "agrees with 6 of 12 accepted answers, which proves nothing" in " ".join(
        listed.out.split()
    )
    done = terminal(
        "label", first[:6], "--right", "accepted", "--by", "ann", cwd=office.root
    )
    assert done.code == 0
    assert "(right)" in done.out
    assert "(wrong)" in done.out
    assert first not in terminal("label", cwd=office.root).out


def test_the_queue_is_there_as_data(terminal: Terminal, office: Office) -> None:
    office.made().run(documents(12))
    found = json.loads(terminal("label", "--json", cwd=office.root).out)
    assert [item["disagree"] for item in found["queue"]][:6] == [True] * 6
    assert {row["model"] for row in found["evidence"]} == {"cheap", "dear"}


def test_without_audits_it_says_how_to_get_some(
    terminal: Terminal, office: Office
) -> None:
    office.made(share=0)
    assert "shadow: {share: 0.05}" in terminal("label", cwd=office.root).out


def test_a_label_that_demotes_says_so(terminal: Terminal, office: Office) -> None:
    proven(office).run(documents(30))
    with office.ledger() as ledger:
        waiting = ledger.samples.queue()
    said = "".join(
        terminal("label", item.id, "--right", "neither", cwd=office.root).err
        for item in waiting
    )
    assert said.count("The certificate of cheap for classify no longer counts:") == 1
    assert "DEMOTED" in terminal("label", cwd=office.root).out
    assert (
        "cheap for classify no longer counts"
        in terminal("doctor", "--json", cwd=office.root).out
    )


def test_a_shadow_whose_labels_are_good_is_worth_certifying(
    terminal: Terminal, office: Office
) -> None:
    """Its agreement alone is not enough, however often."""
    office.cheap.answer(right)
    office.made().run(documents(130))
    wanted = "worth certifying: tierwise certify classify -m cheap"
    assert wanted not in " ".join(terminal("label", cwd=office.root).out.split())
    with office.ledger() as ledger:
        for item in ledger.samples.queue():
            ledger.samples.label(item.id, "both", "ann")
    assert wanted in " ".join(terminal("label", cwd=office.root).out.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["zzz", "--right", "accepted"], "no audit named 'zzz'"),
        (["--right", "accepted"], "--right needs an ID"),
    ],
)
def test_a_label_for_nothing_is_misuse(
    terminal: Terminal, office: Office, arguments: list[str], says: str
) -> None:
    done = terminal("label", *arguments, cwd=office.made().root)
    assert done.code == 2
    assert says in done.err


def test_on_a_terminal_it_asks_one_by_one(office: Office) -> None:
    """A wrong key is asked again; q stops; what was said until then is on record."""
    pty = pytest.importorskip("pty")
    office.made().run(documents(6))
    with office.ledger() as ledger:
        before = len(ledger.samples.queue())
    ours, theirs = pty.openpty()
    os.write(ours, b"x\nn\nn\nq\n")  # "neither" fits every sample
    done = subprocess.run(
        [sys.executable, "-m", "tierwise", "label", "--by", "ann"],
        stdin=theirs, capture_output=True, text=True, cwd=office.root, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[b]oth, [n]either, [q]uit?" in done.stdout
    # what is left comes at the start and after each of the two answers
    told = re.findall(r"classify: cheap \(shadow\)", done.stdout)
    assert len(told) == 3
    with office.ledger() as ledger:
        assert len(ledger.samples.queue()) == before - 2
