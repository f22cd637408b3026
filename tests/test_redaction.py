"""Redaction: what is taken out, what lowers a document, and what keeps it as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow

from tasks.classify import classify
from tests.kit.pii import CASES, HARMLESS, NOT_FOUND, Case
from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import Standin
from tests.kit.steps import GOOD, LABELS
from tierwise import RunSummary, read_documents, recorded_run, write_documents
from tierwise import redact as redact_step
from tierwise.documents.redaction.redact import Redaction
from tierwise.errors import Misuse, UnknownName
from tierwise.ledger import Ledger
from tierwise.records import SENSITIVITIES, Document, Outcome, Sensitivity, rank

LETTER = """Dear Ms Varga,

my card 4111 1111 1111 1111 was charged twice. Write to jo.osei@post.example or JO.OSEI@post.example,
or ring +44 20 7946 0958 (020 7946 0958 from here).

Thank you,
Jo Osei
"""


def document(
    text: str = LETTER, sensitivity: Sensitivity = "confidential", **more: Any
) -> Document:
    return Document(id="a.txt", text=text, sensitivity=sensitivity, **more)


def redact(given: Document, to: Sensitivity = "internal", **more: Any) -> Document:
    return Redaction(to=to, **more).apply(given)


def outcome(given: Document) -> Outcome:
    return given.outcomes["redact"]


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.kind not in NOT_FOUND],
    ids=lambda c: f"{c.kind}: {c.secret}",
)
def test_personal_data_of_known_form_is_taken_out(case: Case) -> None:
    done = redact(document(case.text))
    assert case.secret not in done.text
    assert done.sensitivity == "internal"


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.kind in NOT_FOUND],
    ids=lambda c: f"{c.kind}: {c.secret}",
)
def test_what_the_guide_says_is_not_found_is_not_found(case: Case) -> None:
    """When this fails, redaction is better than the guide says: list the kind there as found."""
    assert case.secret in redact(document(case.text)).text


@pytest.mark.parametrize("text", HARMLESS)
def test_orders_amounts_dates_and_measures_stay(text: str) -> None:
    done = redact(document(text))
    assert (done.text, done.sensitivity) == (text, "internal")


def test_the_same_value_gets_the_same_placeholder_however_it_is_written() -> None:
    text = redact(document()).text
    assert text.count("<EMAIL_1>") == 2
    assert "<EMAIL_2>" not in text
    assert (
        redact(document("a 4111111111111111, b 4111 1111 1111 1111")).text
        == "a <CARD_1>, b <CARD_1>"
    )


def test_the_outcome_tells_kinds_levels_and_hashes_and_nothing_that_was_taken_out() -> (
    None
):
    given = document()
    done = redact(given)
    value = outcome(done).value
    assert value == {
        "lowered": True,
        "from": "confidential",
        "to": "internal",
        "counts": {"CARD": 1, "EMAIL": 2, "NAME": 2, "PHONE": 2},
        "hash_before": given.hash,
        "hash_after": done.hash,
    }
    assert (outcome(done).status, outcome(done).sensitivity, outcome(done).reason) == (
        "accepted",
        "internal",
        "",
    )
    everything = repr(done)
    for secret in ("Varga", "Osei", "osei", "4111", "7946"):
        assert secret not in everything


def test_names_in_a_mails_header_are_taken_out_of_its_text_and_its_metadata() -> None:
    given = document(
        "It was Jo who called; ask OSEI. We will see.",
        metadata={"from": "Will, Jo Osei <jo.osei@post.example>", "path": "a.eml"},
    )
    done = redact(given)
    assert done.text == "It was <NAME_1> who called; ask <NAME_2>. We will see."
    assert done.metadata == {"from": "<NAME_3>, <NAME_4> <<EMAIL_1>>", "path": "a.eml"}


@pytest.mark.parametrize(
    "text",
    [
        "reach jo@intranet",
        "file 2026-114 77",
        "ring 2345 678",
        "anna at kontor dot example",
    ],
)
def test_what_only_may_be_personal_data_keeps_a_document_as_it_is_and_the_reason_says_where(
    text: str,
) -> None:
    """The second look is stricter than the first: doubt never lowers."""
    done = redact(document(f"Hello\n{text}"))
    assert (done.sensitivity, outcome(done).sensitivity) == (
        "confidential",
        "confidential",
    )
    assert outcome(done).value["lowered"] is False
    assert outcome(done).status == "accepted"
    assert "line 2: " in outcome(done).reason
    assert text.rsplit(maxsplit=1)[-1] not in outcome(done).reason


def test_only_the_first_places_that_raise_doubt_are_told() -> None:
    done = redact(
        document(
            "\n".join(f"file 2026-11{n}" for n in range(5)),
            metadata={"case": "jo@intranet"},
        )
    )
    assert [
        place in outcome(done).reason
        for place in ("line 1", "line 2", "line 3", "line 4")
    ] == [True] * 3 + [False]
    assert outcome(done).reason.endswith("; 3 more")


def test_doubt_in_the_metadata_counts_too() -> None:
    done = redact(document("Hello", metadata={"case": "jo@intranet"}))
    assert done.sensitivity == "confidential"
    assert "`case`: an @ between words" in outcome(done).reason


def test_further_words_and_patterns_are_taken_out_and_none_remains() -> None:
    done = redact(
        document("Project\nFalcon, the FALCONERS, file TM-2026-114 and Mu\u0308ller's"),
        also=("project falcon", "falcon", "müller", re.compile(r"TM-[\d-]+")),
    )
    assert done.text == "<WORD_1>, the <WORD_2>ERS, file <WORD_3> and <WORD_4>'s"
    assert done.sensitivity == "internal"


@pytest.mark.parametrize(
    ("sensitivity", "options", "after"),
    [
        ("confidential", {"to": "internal"}, "internal"),
        ("confidential", {"to": "public"}, "public"),
        ("restricted", {"to": "internal"}, "restricted"),
        (
            "restricted",
            {"to": "internal", "restricted_to": "confidential"},
            "confidential",
        ),
        ("restricted", {"to": "confidential", "restricted_to": "internal"}, "internal"),
        ("internal", {"to": "internal"}, "internal"),
        ("public", {"to": "internal"}, "public"),
    ],
)
def test_a_document_is_lowered_as_far_as_the_caller_says_and_never_raised(
    sensitivity: Sensitivity, options: dict[str, Any], after: Sensitivity
) -> None:
    """A restricted document, or one without a level, is lowered only to `restricted_to`."""
    done = Redaction(**options).apply(document(sensitivity=sensitivity))
    assert done.sensitivity == outcome(done).sensitivity == after
    assert outcome(done).value["lowered"] is (after != sensitivity)
    assert bool(outcome(done).reason) is (after == sensitivity)
    assert "4111" not in done.text


@pytest.mark.parametrize("level", ["confidential", "public"])
def test_what_was_learnt_from_the_original_keeps_the_document_as_sensitive_as_it_was(
    level: Sensitivity,
) -> None:
    """Redact first: a confidential text's label is confidential, whatever level it claims."""
    label = Outcome(
        step="classify", status="accepted", value={"label": "x"}, sensitivity=level
    )
    done = redact(document().with_outcome(label))
    assert done.sensitivity == "confidential"
    assert (
        outcome(done).reason
        == "its outcome of classify is from the text as it was; redact before that step"
    )


def test_a_second_redaction_that_takes_out_the_rest_lowers_after_all() -> None:
    first = redact(document("Hello, file 2026-114 77"))
    again = redact(first, also=("2026-114 77",))
    assert (first.sensitivity, again.sensitivity) == ("confidential", "internal")


def test_a_deferred_document_is_skipped() -> None:
    unread = Outcome(
        step="read", status="deferred", reason="damaged", sensitivity="confidential"
    )
    done = redact(document("").with_outcome(unread))
    assert (outcome(done).status, outcome(done).reason) == (
        "skipped",
        "read was deferred",
    )
    assert done.sensitivity == "confidential"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"to": "intern"}, UnknownName, "did you mean 'internal'"),
        (
            {"to": "internal", "restricted_to": "secret"},
            UnknownName,
            "no sensitivity named 'secret'",
        ),
        ({"to": "internal", "regions": ("UK",)}, UnknownName, "no region named 'UK'"),
        ({"to": "internal", "also": (" ",)}, Misuse, "is empty"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_done(
    options: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Redaction(**options)


@given(
    st.lists(
        st.sampled_from([c.text for c in CASES] + HARMLESS) | st.text(max_size=30),
        max_size=4,
    ).map("\n".join),
    st.sampled_from(SENSITIVITIES),
    st.sampled_from(SENSITIVITIES),
)
def test_nothing_is_raised_and_what_is_lowered_has_nothing_left_to_take_out(
    text: str, sensitivity: Sensitivity, to: Sensitivity
) -> None:
    done = redact(document(text, sensitivity), to, restricted_to=to)
    assert rank(done.sensitivity) <= rank(sensitivity)
    if outcome(done).value["lowered"]:
        assert redact(document(done.text)).text == done.text


def test_finding_personal_data_opens_no_connection() -> None:
    """Python's own audit events, in a process of its own, show no look-up and no connection."""
    code = """
        import sys
        seen = []
        sys.addaudithook(
            lambda event, _: seen.append(event) if event.startswith("socket.") else None
        )
        from tierwise.records import Document
        from tierwise.documents.redaction.redact import Redaction
        text = "jo@post.example, www.kontor.example, +44 20 7946 0958, 192.0.2.25"
        done = Redaction(to="public").apply(Document(id="a", text=text, sensitivity="internal"))
        print(done.text, [event for event in seen if event != "socket.__new__"])
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "<EMAIL_1>, <URL_1>, <PHONE_1>, <IP_1> []"


@pytest.fixture
def outside() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(GOOD)
        yield server


@pytest.fixture
def project(
    tmp_path: Path, standin: Standin, outside: Standin, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project with a local and a vendor's model, the vendor's first."""
    rules = RULES.replace("[small, large]", "[vendor, local]")
    root = make_project(
        tmp_path / "project",
        model("local", standin.url),
        model("vendor", outside.url, tier="proprietary"),
        rules=rules,
    )
    standin.answer(GOOD)
    monkeypatch.chdir(root)
    return root


def test_a_flow_redacts_its_documents_and_sends_out_only_what_was_lowered(
    prefect_server: str, project: Path, standin: Standin, outside: Standin
) -> None:
    """`redact.map` is one more step: its outcomes are recorded, its task runs have names."""
    inbox = project / "inbox"
    inbox.mkdir()
    (inbox / "a.txt").write_text(
        "Write to jo@post.example, the parcel has not arrived."
    )
    (inbox / "b.txt").write_text("Write to jo@intranet, the parcel has not arrived.")

    @flow(name="private-inbox")
    def private_inbox() -> RunSummary:
        with recorded_run() as run:
            clean = redact_step.map(
                read_documents(inbox, sensitivity="confidential"),
                to="internal",
            )
            topics = classify.map(clean, labels=LABELS["labels"], descriptions={})
            write_documents(topics, project / "out")
        return run.summary()

    summary = private_inbox()
    assert [request.document for request in outside.requests] == [
        "Write to <EMAIL_1>, the parcel has not arrived."
    ]
    assert [request.document for request in standin.requests] == [
        "Write to jo@intranet, the parcel has not arrived."
    ]
    assert summary.outcomes["redact"] == {"accepted": 2}
    assert summary.run.deferred == 0
    with Ledger.open(root=project) as ledger:
        rows = {
            row.document_id: row.outcome
            for row in ledger.runs.outcomes(summary.run.id)
            if row.outcome.step == "redact"
        }
    assert (rows["a.txt"].sensitivity, rows["b.txt"].sensitivity) == (
        "internal",
        "confidential",
    )
    assert rows["a.txt"].value["counts"] == {"EMAIL": 1}
    assert "an @ between words" in rows["b.txt"].reason
