"""Agreement with a teacher: where it counts in a route, and that nothing calls it correctness."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kit.certificates import certificate
from tests.test_router import model, policy
from tierwise.errors import ConfigError
from tierwise.policy.certificates import (
    AgreementCertificate,
    Certificates,
    Current,
    Look,
    load_certificates,
    save_certificates,
)
from tierwise.policy.router import Policy, choices, route
from tierwise.policy.rules import Features

F = Features(step="draft", tokens=500, prompt_tokens=600, sensitivity="internal")
GUARDS = [
    {
        "name": "house",
        "when": {"sensitivity_min": "confidential"},
        "allow_tiers": ["local"],
    }
]
PICK = [{"name": "default", "pick": "cheapest_capable"}]
FREE = {"input": 0, "output": 0, "source": "test", "date": "2026-11-22"}
CURRENT = Current(
    identities=dict.fromkeys(("small", "mid", "large"), "same"),
    prompt_hash="same",
    step_hash="same",
    today=datetime.date(2026, 11, 22),
)


def agreement(**changed: Any) -> AgreementCertificate:
    """A certificate that `small` agrees with `large` where it is .6 sure."""
    fields = {
        "step": "draft",
        "models": ("small",),
        "identities": {"small": "same"},
        "prompt_hash": "same",
        "step_hash": "same",
        "measure_hash": "",
        "escalate_hash": "",
        "golden": "distilled/draft.jsonl",
        "n": 340,
        "errors": 12,
        "bound": 0.9,
        "threshold": None,
        "coverage": None,
        "mean_cost": None,
        "date": datetime.date(2026, 11, 1),
    }
    of_teacher = {name for name in changed if name.startswith("teacher")}
    fields |= {name: changed[name] for name in changed.keys() - of_teacher}
    made = certificate(**fields).model_dump(exclude={"expires"})
    teacher = {"teacher": "large", "teacher_identity": "same"}
    teacher |= {name: changed[name] for name in of_teacher}
    return AgreementCertificate(**made, **teacher)


def project_policy(certified: AgreementCertificate, **rules: Any) -> Policy:
    """Three models, the strongest outside the house, and one certificate of agreement."""
    catalog = {
        "small": model(strength=1, price=FREE),
        "mid": model(strength=5),
        "large": model("proprietary", strength=9),
    }
    made = policy(
        catalog,
        **{
            "routes": PICK,
            "guards": GUARDS,
            "agreement_floors": {"draft": 0.9},
            **rules,
        },
    )
    return replace(made, certificates=Certificates(agreements=(certified,)))


def chosen(made: Policy, features: Features = F, current: Current = CURRENT) -> Any:
    return route(features, made, max_output_tokens=100, current=current)


def test_agreement_counts_where_the_rules_give_a_floor_for_it() -> None:
    taken = chosen(project_policy(agreement()))
    assert taken.models == ("small", "large")
    assert "agree with large" in taken.reason
    assert "no proof of correctness" in taken.reason
    assert "capable" not in taken.reason
    assert taken.agrees_with == {"small": "large"}
    [first, _] = choices(
        taken,
        F,
        project_policy(agreement()),
        max_output_tokens=100,
        current=CURRENT,
    )
    assert "agreement with large, not correctness" in first.proof


@pytest.mark.parametrize(
    "rules",
    [
        {"agreement_floors": {}},
        {"agreement_floors": {}, "floors": {"draft": 0.5}},
        {"agreement_floors": {"classify": 0.9}},
        {"agreement_floors": {"draft": 0.95}},
    ],
)
def test_agreement_counts_for_nothing_else(rules: dict[str, Any]) -> None:
    """Above all not for a floor of correctness, however low."""
    assert chosen(project_policy(agreement(), **rules)).models[0] == "large"


def test_both_floors_may_be_met_by_either() -> None:
    made = project_policy(agreement(), floors={"draft": 0.99})
    assert chosen(made).models == ("small", "large")
    right = certificate(
        **agreement(errors=0, bound=0.98).model_dump(
            exclude={"shows", "teacher", "teacher_identity", "expires"}
        )
    )
    both = Certificates(certificates=(right,), agreements=(agreement(),))
    made = replace(project_policy(agreement(), floors={"draft": 0.9}))
    made = replace(made, certificates=both)
    assert "small" in chosen(made).models
    # where both count for a named route, correctness is what it is taken for
    named = [{"name": "default", "try": ["small", "large"]}]
    made = project_policy(agreement(), floors={"draft": 0.9}, routes=named)
    assert chosen(made).agrees_with == {"small": "large"}
    assert chosen(replace(made, certificates=both)).agrees_with == {}


def test_agreement_says_nothing_of_documents_that_the_teacher_may_not_see() -> None:
    secret = replace(F, sensitivity="confidential")
    taken = chosen(project_policy(agreement()), secret)
    assert taken.models[0] == "mid"
    named = [{"name": "default", "try": ["small", "mid", "large"]}]
    sure = agreement(threshold=0.6, coverage=0.5)
    made = project_policy(sure, routes=named)
    assert chosen(made).thresholds == {"small": 0.6}
    assert chosen(made, secret).thresholds == {}


def test_a_stronger_model_than_the_teacher_takes_its_agreement_away() -> None:
    taken = chosen(project_policy(agreement(teacher="mid")))
    assert taken.models[0] == "large"
    # in the house, `mid` is the strongest there is
    secret = replace(F, sensitivity="confidential")
    taken = chosen(project_policy(agreement(teacher="mid")), secret)
    assert taken.models == ("small", "mid")


@pytest.mark.parametrize(
    ("current", "words"),
    [
        (replace(CURRENT, identities={**CURRENT.identities, "large": "b"}), "teacher"),
        (replace(CURRENT, identities={"small": "same", "mid": "same"}), "teacher"),
        (replace(CURRENT, unidentified={"large": "no key"}), "no key"),
        (replace(CURRENT, identities={**CURRENT.identities, "small": "b"}), "small"),
        (replace(CURRENT, prompt_hash="other"), "prompt"),
        (replace(CURRENT, today=datetime.date(2028, 1, 1)), "expired"),
        (replace(CURRENT, demoted={("small",): "labels refute it"}), "refute"),
    ],
)
def test_a_change_voids_it(current: Current, words: str) -> None:
    reason = agreement().void_reasons(current)
    assert reason is not None
    assert words in reason
    assert (
        "small" not in chosen(project_policy(agreement()), current=current).models[:1]
    )


def test_the_file_keeps_agreement_in_a_list_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "certificates.yaml"
    right = certificate(models=("small",), identities={"small": "same"}, step="draft")
    look = {"n": 9, "candidates": ("small",), "tried": "x", "date": "2026-11-01"}
    save_certificates(path, [right])
    before = load_certificates(path)
    assert "agreements" not in path.read_text()
    saved = save_certificates(
        path,
        [agreement()],
        Look(step="draft", number=1, golden="d", shows="agreement", **look),
    )
    assert "shows: agreement" in path.read_text()
    assert (
        saved.certificates
        == before.certificates
        == load_certificates(path).certificates
    )
    assert saved.hash != before.hash
    assert saved.find("draft", ["small"]) == right
    # looks at a teacher's labels spend none of the alpha of people's labels
    assert saved.number_of_look("draft", "y", "agreement") == 2
    assert saved.number_of_look("draft", "y") == before.number_of_look("draft", "y")
    # what comes later keeps it
    kept = save_certificates(path, [right])
    assert kept.agreements == saved.agreements
    assert kept.looks == saved.looks


def test_an_edited_certificate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "certificates.yaml"
    save_certificates(path, [agreement()])
    for old, new in [
        ("teacher: large", "teacher: small"),
        ("bound: 0.9", "bound: 0.99"),
        ("shows: agreement", "shows: correctness"),
        ("teacher: large", "pupil: large"),
    ]:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(ConfigError):
            load_certificates(path)
        path.write_text(text)


@pytest.mark.parametrize("floor", [0, 1, -0.1, 1.5, "high", True])
def test_an_agreement_floor_that_no_labels_show_is_refused(
    tmp_path: Path, floor: Any
) -> None:
    with pytest.raises(ValueError, match="agreement_floors"):
        policy({"a": model()}, agreement_floors={"draft": floor})


def test_rules_without_agreement_floors_keep_their_hash() -> None:
    assert (
        policy({"a": model()}).rules.hash
        == policy({"a": model()}, agreement_floors={}).rules.hash
        != policy({"a": model()}, agreement_floors={"draft": 0.9}).rules.hash
    )
