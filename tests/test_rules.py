"""Rules: what a condition holds for, what a guard forbids, and that every bad name says where it stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tests.kit.projects import ROOT
from tierwise.errors import ConfigError
from tierwise.policy.catalog import Catalog, load_catalog
from tierwise.policy.rules import (
    Condition,
    Features,
    Guard,
    RouteRule,
    Rules,
    features,
    load_rules,
)
from tierwise.records import SENSITIVITIES, Document, Outcome
from tierwise.steps.step import Step

STEPS = ("classify", "summarize", "draft")
CATALOG = Catalog.model_validate(
    {
        "version": 1,
        "tiers": {
            "local": {"description": "here", "stays_in_house": True},
            "proprietary": {"description": "vendors"},
        },
        "models": {
            name: {
                "tier": tier,
                "litellm_params": {"model": f"openai/{name}"},
                "context_tokens": 8000,
                "max_output_tokens": 1000,
                "strength": 10,
                "price": "unknown",
            }
            for name, tier in {
                "ministral-3-3b": "local",
                "gpt-mini": "proprietary",
            }.items()
        },
    }
)
RULES = """\
version: 1
guards:
  - name: stays-local
    when: {sensitivity_min: confidential}
    allow_tiers:
      - local
floors: {classify: 0.90}
routes:
  - name: drafts
    when: {step: [draft], tokens_max: 4000, outcomes: {classify.label: [complaint]}}
    try:
      - ministral-3-3b
      - gpt-mini
    examples:
      - {step: draft, routes_to: gpt-mini}
  - {name: default, try: [gpt-mini]}
budget: {allow_unpriced: [gpt-mini]}
"""
F = Features(step="draft", tokens=500)


def load(tmp_path: Path, text: str) -> Rules:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    return load_rules(path, CATALOG, STEPS)


def said(tmp_path: Path, text: str) -> str:
    """What loading these rules says is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def holds(condition: dict[str, Any], **found: Any) -> bool:
    return Condition.model_validate(condition).matches(replace(F, **found))


# ---- conditions ---------------------------------------------------------------------------------


def test_a_condition_without_anything_always_holds() -> None:
    assert holds({})


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ({"step": ["draft", "extract"]}, {"step": "draft"}, {"step": "classify"}),
        ({"step": "draft"}, {"step": "draft"}, {"step": "drafts"}),
        (
            {"sensitivity_min": "confidential"},
            {"sensitivity": "confidential"},
            {"sensitivity": "internal"},
        ),
        (
            {"sensitivity_min": "confidential"},
            {"sensitivity": "restricted"},
            {"sensitivity": "public"},
        ),
        (
            {"sensitivity_max": "internal"},
            {"sensitivity": "internal"},
            {"sensitivity": "confidential"},
        ),
        ({"tokens_min": 100}, {"tokens": 100}, {"tokens": 99}),
        ({"tokens_max": 100}, {"tokens": 100}, {"tokens": 101}),
        ({"tokens_max": 0}, {"tokens": 0}, {"tokens": 1}),
        ({"language": ["de", "no"]}, {"language": "no"}, {"language": "en"}),
        ({"language": "de"}, {"language": "de"}, {"language": None}),
        ({"stakes": ["high"]}, {"stakes": "high"}, {"stakes": "normal"}),
        (
            {"tags": {"desk": ["legal", "hr"]}},
            {"tags": {"desk": "hr", "x": "y"}},
            {"tags": {"desk": "sales"}},
        ),
        ({"tags": {"desk": "legal"}}, {"tags": {"desk": "legal"}}, {"tags": {}}),
        (
            {"tags": {"a": "1", "b": "2"}},
            {"tags": {"a": "1", "b": "2"}},
            {"tags": {"a": "1", "b": "3"}},
        ),
        (
            {"outcomes": {"classify.label": ["complaint"]}},
            {"outcomes": {"classify": {"label": "complaint"}}},
            {"outcomes": {"classify": {"label": "praise"}}},
        ),
        (
            {"outcomes": {"classify.label": "x"}},
            {"outcomes": {"classify": {"label": "x"}}},
            {"outcomes": {}},
        ),
        (
            {"outcomes": {"classify.label": "x"}},
            {"outcomes": {"classify": {"label": "x"}}},
            {"outcomes": {"draft": 1}},
        ),
        (
            {"outcomes": {"check.ok": "true"}},
            {"outcomes": {"check": {"ok": True}}},
            {"outcomes": {"check": {}}},
        ),
        (
            {"outcomes": {"count.n": ["3"]}},
            {"outcomes": {"count": {"n": 3}}},
            {"outcomes": {"count": {"n": None}}},
        ),
        (
            {"outcomes": {"sort": "a"}},
            {"outcomes": {"sort": "a"}},
            {"outcomes": {"sort": "b"}},
        ),
        ({"budget_used_min": 0.8}, {"budget_used": 0.8}, {"budget_used": 0.79}),
        (
            {"step": "draft", "stakes": "high"},
            {"stakes": "high"},
            {"stakes": "high", "step": "classify"},
        ),
    ],
)
def test_a_condition_holds_for_the_one_and_not_for_the_other(
    condition: dict[str, Any], yes: dict[str, Any], no: dict[str, Any]
) -> None:
    assert holds(condition, **yes)
    assert not holds(condition, **no)


@given(
    st.sampled_from(SENSITIVITIES),
    st.sampled_from(SENSITIVITIES),
    st.sampled_from(SENSITIVITIES),
    st.booleans(),
)
def test_a_stricter_document_never_slips_under_a_least_sensitivity(
    low: str, found: str, least: str, both: bool
) -> None:
    """If a guard catches a document, it catches every stricter one."""
    stricter = max(low, found, key=SENSITIVITIES.index)
    condition = {"sensitivity_min": least, **({"step": "draft"} if both else {})}
    assert holds(condition, sensitivity=stricter) or not holds(
        condition, sensitivity=found
    )


@pytest.mark.parametrize(
    "condition",
    [
        {"step": []},
        {"language": []},
        {"stakes": []},
        {"tags": {"desk": []}},
        {"outcomes": {"classify.label": []}},
        {"tokens_min": 10, "tokens_max": 9},
        {"sensitivity_min": "restricted", "sensitivity_max": "confidential"},
        {"tokens_min": -1},
        {"budget_used_min": 1.1},
        {"stakes": "huge"},
    ],
)
def test_a_condition_that_could_never_hold_is_refused(
    condition: dict[str, Any],
) -> None:
    """A guard that never holds would be off without a word."""
    with pytest.raises(ValidationError):
        Condition.model_validate(condition)


# ---- guards and routes --------------------------------------------------------------------------


def guarded(*guards: dict[str, Any]) -> Rules:
    return Rules.model_validate(
        {"version": 1, "guards": guards, "routes": [{"name": "d", "try": ["gpt-mini"]}]}
    )


def test_a_guard_forbids_other_tiers_and_says_why() -> None:
    rules = guarded(
        {
            "name": "g",
            "when": {"sensitivity_min": "confidential"},
            "allow_tiers": ["local", "clarifai"],
        }
    )
    secret, plain = (
        replace(F, sensitivity="restricted"),
        replace(F, sensitivity="public"),
    )
    assert rules.forbidden("proprietary", secret) == (
        "guard g: what is restricted may only go to local, clarifai"
    )
    assert rules.forbidden("local", secret) is None
    assert rules.forbidden("proprietary", plain) is None


def test_a_guard_without_a_condition_always_forbids() -> None:
    assert guarded({"name": "g", "allow_tiers": ["local"]}).forbidden("proprietary", F)


def test_a_guard_that_allows_no_tier_forbids_all() -> None:
    assert guarded({"name": "g", "allow_tiers": []}).forbidden("local", F) == (
        "guard g: what is restricted may only go to no model"
    )


def test_one_guard_that_forbids_is_enough() -> None:
    loose = {"name": "loose", "allow_tiers": ["local", "proprietary"]}
    strict = {"name": "strict", "allow_tiers": ["local"]}
    for guards in ((loose, strict), (strict, loose)):
        assert "guard strict" in (guarded(*guards).forbidden("proprietary", F) or "")


def test_the_first_route_that_matches_is_taken() -> None:
    rules = Rules.model_validate(
        {
            "version": 1,
            "routes": [
                {"name": "long", "when": {"tokens_min": 1000}, "try": ["a"]},
                {"name": "longer", "when": {"tokens_min": 2000}, "try": ["b"]},
                {"name": "default", "try": ["c"]},
            ],
        }
    )
    taken = [rules.matching(replace(F, tokens=tokens)) for tokens in (10, 1500, 2500)]
    assert [rule and rule.name for rule in taken] == ["default", "long", "long"]


@pytest.mark.parametrize(
    "ways", [{}, {"try": ["a"], "pick": "cheapest_capable"}, {"try": []}]
)
def test_a_route_goes_one_way(ways: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="either `try"):
        RouteRule.model_validate({"name": "r", **ways})


def test_a_guard_has_to_say_what_it_allows() -> None:
    with pytest.raises(ValidationError, match="allow_tiers"):
        Guard.model_validate({"name": "g"})


# ---- features -----------------------------------------------------------------------------------


class Nothing(BaseModel):
    """No fields."""


STEP = Step(name="draft", returns=Nothing, prompt="draft", stakes="high")


def features_of(document: Document) -> Features:
    return features(STEP, document, tokens=10, prompt_tokens=20, budget_used=0.5)


def test_what_is_derived_is_as_sensitive_as_the_strictest_of_its_sources() -> None:
    """An outcome from a stricter text makes all that follows as strict; no outcome lowers it."""
    strict = Outcome(step="classify", status="accepted", sensitivity="confidential")
    public = Outcome(step="classify", status="accepted", sensitivity="public")
    document = Document(id="d", text="t", sensitivity="internal")
    assert features_of(document.with_outcome(strict)).sensitivity == "confidential"
    assert features_of(document.with_outcome(public)).sensitivity == "internal"


def test_a_document_without_a_sensitivity_is_restricted() -> None:
    assert features_of(Document(id="d", text="t")).sensitivity == "restricted"


def test_only_accepted_outcomes_can_be_looked_at() -> None:
    document = Document(
        id="d",
        text="t",
        outcomes={
            "classify": Outcome(
                step="classify", status="accepted", value={"label": "a"}
            ),
            "summarize": Outcome(
                step="summarize", status="deferred", value={"summary": "b"}
            ),
        },
    )
    assert features_of(document).outcomes == {"classify": {"label": "a"}}


@pytest.mark.parametrize(
    ("metadata", "stakes"),
    [({}, "high"), ({"stakes": "low"}, "low"), ({"stakes": "enormous"}, "high")],
)
def test_a_documents_own_stakes_win_where_they_are_a_known_word(
    metadata: dict[str, str], stakes: str
) -> None:
    assert features_of(Document(id="d", text="t", metadata=metadata)).stakes == stakes


# ---- what is wrong with rules -------------------------------------------------------------------


def test_these_rules_are_right(tmp_path: Path) -> None:
    assert [rule.name for rule in load(tmp_path, RULES).routes] == ["drafts", "default"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "- gpt-mini",
            "- gpt-minni",
            "13: no model named 'gpt-minni'; did you mean 'gpt-mini'?",
        ),
        (
            "- ministral-3-3b",
            "- ministral-3-8b",
            "12: no model named 'ministral-3-8b'; did you mean 'ministral-3-3b'?",
        ),
        (
            "try: [gpt-mini]",
            "try: [claude]",
            "16: no model named 'claude'; known: gpt-mini, ministral-3-3b",
        ),
        (
            "routes_to: gpt-mini",
            "routes_to: gpt-min",
            "15: no model named 'gpt-min'; did you mean",
        ),
        (
            "allow_unpriced: [gpt",
            "allow_unpriced: [gtp",
            "17: no model named 'gtp-mini'; did you mean 'gpt-mini'?",
        ),
        (
            "      - local\n",
            "      - locale\n",
            "6: no tier named 'locale'; did you mean 'local'?",
        ),
        (
            "step: [draft]",
            "step: [drafts]",
            "10: no step named 'drafts'; did you mean 'draft'?",
        ),
        (
            "step: [draft]",
            "step: drafts",
            "10: no step named 'drafts'; did you mean 'draft'?",
        ),
        (
            "step: draft,",
            "step: daft,",
            "15: no step named 'daft'; did you mean 'draft'?",
        ),
        (
            "{classify: 0.90}",
            "{clasify: 0.90}",
            "7: no step named 'clasify'; did you mean 'classify'?",
        ),
        (
            "classify.label",
            "clasify.label",
            "10: no step named 'clasify'; did you mean 'classify'?",
        ),
        (
            "when: {sensitivity_min",
            "when: {step: drafft, sensitivity_min",
            "4: no step named 'drafft'; did you mean",
        ),
        (
            "when: {sensitivity_min",
            "when: {outcomes: {clasify.label: x}, sensitivity_min",
            "4: no step named 'clasify'; did you mean",
        ),
        (
            "sensitivity_min",
            "sensitivity_mim",
            "4: guards → 0 → when → sensitivity_mim: no setting named 'sensitivity_mim'; did you mean 'sensitivity_min",
        ),
        (
            "    allow_tiers",
            "    allow_tier",
            "5: guards → 0 → allow_tier: no setting named 'allow_tier'; did you mean",
        ),
        (
            "    try:",
            "    trys:",
            "11: routes → 0 → trys: no setting named 'trys'; did you mean 'try'?",
        ),
        (
            "confidential}",
            "confidental}",
            "4: guards → 0 → when → sensitivity_min: Input should be 'public', 'inter",
        ),
        (
            "0.90",
            "1.90",
            "7: floors → classify: Input should be less than or equal to 1 (found 1.9)",
        ),
        (
            "0.90",
            "90",
            "7: floors → classify: a share is at most 1: write 0.9 for 90 % (found 90)",
        ),
        (
            "0.90",
            "{at_most_worse: 2}",
            "7: floors → classify → at_most_worse: a share is at most 1: write 0.02 for 2 % (found 2)",
        ),
        ("version: 1", "version: 2", "1: version: Input should be 1 (found 2)"),
        (
            "tokens_max: 4000",
            "tokens_max: 0.5",
            "10: routes → 0 → when → tokens_max: Input should be a valid integer",
        ),
        (
            "{name: default, try",
            "{name: default, pick: cheapest_capable, try",
            "16: routes → 1: a route has either `try: [models]` or `pick: cheapest_capable`",
        ),
        (
            "{name: default, try",
            "{name: default, when: {step: draft}, try",
            "16: the last route must have no condition, so that every document has one",
        ),
        (
            "tokens_max: 4000",
            "tokens_min: 5000, tokens_max: 4000",
            "10: routes → 0 → when: `tokens_min` is above `tokens_max`, so this never matches",
        ),
        (
            "name: default",
            "name: drafts",
            "16: two routes are named 'drafts'; reports would mix them up",
        ),
        (
            "    when: {step: [draft], tokens_max: 4000, outcomes: {classify.label: [complaint]}}\n",
            "",
            "9: route 'drafts' has no condition, so no route after it is ever reached; move it to the end",
        ),
    ],
)
def test_what_is_wrong_names_line_thing_and_remedy(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert RULES.count(old) >= 1
    assert said(tmp_path, RULES.replace(old, new, 1)).startswith(
        f"rules.yaml:{message}"
    )


def test_two_guards_of_one_name_are_refused(tmp_path: Path) -> None:
    guard = "  - {name: stays-local, allow_tiers: [local]}\n"
    assert said(tmp_path, RULES.replace("floors:", f"{guard}floors:")) == (
        "rules.yaml:7: two guards are named 'stays-local'; reports would mix them up"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the file is empty"),
        ("routes: [", "1: not valid YAML: "),
        ("version: 1\nversion: 1\n", "2: not valid YAML: found duplicate key"),
        ("version: 1\nroutes: []\n", "2: routes: Tuple should have at least 1 item"),
        ("version: 1\n", "1: routes: Field required"),
        ("just words\n", "1: expects settings"),
    ],
)
def test_a_file_that_holds_no_rules_says_so(
    tmp_path: Path, text: str, message: str
) -> None:
    assert said(tmp_path, text).startswith(f"rules.yaml:{message}")


def test_a_file_that_is_not_there_or_no_file_says_so(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "none.yaml", "missing"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_rules(path, CATALOG, STEPS)


def test_steps_are_not_checked_where_they_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES.replace("[draft]", "[anything]"))
    assert load_rules(path, CATALOG).routes[0].when.step == ("anything",)


def test_the_hash_is_of_the_meaning_not_the_spelling(tmp_path: Path) -> None:
    before = load(tmp_path, RULES).hash
    assert (
        load(
            tmp_path, "# a comment\n" + RULES.replace("step: [draft]", "step: draft")
        ).hash
        == before
    )
    for old, new in [
        ("confidential", "internal"),
        ("      - gpt-mini\n", ""),
        ("0.90", "0.91"),
        ("4000", "4001"),
    ]:
        assert load(tmp_path, RULES.replace(old, new, 1)).hash != before


def test_the_shipped_rules_load() -> None:
    """Confidential documents stay in the house, whatever the route."""
    catalog = load_catalog(ROOT / "routing_rules" / "catalog.yaml")
    steps = [path.name.split(".")[0] for path in (ROOT / "prompts").glob("*.md.j2")]
    rules = load_rules(ROOT / "routing_rules" / "rules.yaml", catalog, steps)
    for sensitivity in ("confidential", "restricted"):
        for name, tier in catalog.tiers.items():
            forbidden = rules.forbidden(name, replace(F, sensitivity=sensitivity))
            assert bool(forbidden) is not tier.stays_in_house, name
