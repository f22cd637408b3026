"""Routes of a step by field: a model keeps the fields that it is certified for, and no others."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.errors import ConfigError
from tierwise.policy.by_field import share_whole
from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import (
    Certificates,
    Current,
    FieldCertificate,
    load_certificates,
    lower_bound,
    save_certificates,
)
from tierwise.policy.router import Policy, choices, route
from tierwise.policy.rules import Features, Rules, load_rules
from tierwise.records import Route

FIELDS = ("company", "date", "total")
TODAY = datetime.date(2026, 11, 29)
F = Features(step="receipt", tokens=500, prompt_tokens=600, sensitivity="internal")
NOW = Current(
    identities=dict.fromkeys(("small", "middle", "large"), "i"),
    prompt_hash="p",
    step_hash="s",
    today=TODAY,
    fields=FIELDS,
)


def model(usd: float, strength: int) -> dict[str, Any]:
    price = {"input": usd, "output": usd, "source": "test", "date": "2026-11-22"}
    return {
        "tier": "local",
        "litellm_params": {"model": "openai/m"},
        "context_tokens": 8000,
        "max_output_tokens": 1000,
        "strength": strength,
        "price": price,
    }


MODELS = {"small": model(1, 20), "middle": model(3, 50), "large": model(10, 90)}


def policy(*listed: dict[str, Any], **rules: Any) -> Policy:
    settings = {
        "version": 1,
        "field_floors": {"receipt": dict.fromkeys(FIELDS, 0.9)},
        "escalate": {"on": ["low_confidence"]},
        "routes": [{"name": "r", "pick": "cheapest_capable"}],
    }
    of_fields = [each for each in listed if "field" in each]
    whole = [each for each in listed if "field" not in each]
    return Policy(
        catalog=Catalog.model_validate(
            {
                "version": 1,
                "tiers": {"local": {"description": "here"}},
                "models": MODELS,
            }
        ),
        rules=Rules.model_validate({**settings, **rules}),
        certificates=Certificates.model_validate(
            {"certificates": whole, "fields": of_fields}
        ),
    )


def proof(*names: str, **settings: Any) -> dict[str, Any]:
    return {
        "step": "receipt",
        "models": list(names),
        "prompt": "receipt v1",
        "prompt_hash": "p",
        "step_hash": "s",
        "golden": "receipt.jsonl",
        "golden_hash": "g",
        "identities": dict.fromkeys(names, "i"),
        "n": 1000,
        "items": 1000,
        "errors": 0,
        "bound": 0.97,
        "mean_usage": {
            name: {"prompt_tokens": 1000, "completion_tokens": 100} for name in names
        },
        "date": "2026-11-22",
        "tierwise_version": "0",
        **settings,
    }


def field(name: str, of: str = "small", **settings: Any) -> dict[str, Any]:
    return proof(of, field=name, **settings)


ALL = tuple(field(name) for name in FIELDS)
CHAIN = {"small": {"company": None, "date": None, "total": None}}


def routed(made: Policy, current: Current = NOW) -> Route:
    return route(F, made, max_output_tokens=250, current=current)


def test_a_model_keeps_the_fields_that_it_is_certified_for() -> None:
    sure = field("total", threshold=0.8, coverage=0.6, n=600)
    route = routed(policy(sure, field("company"), field("date")))
    assert route.models == ("small", "large")
    assert route.keeps == {"small": {"company": None, "date": None, "total": 0.8}}
    assert route.thresholds == {}
    rejected = {rejection.model: rejection.kind for rejection in route.rejected}
    assert rejected == {"middle": "uncertified"}


@pytest.mark.parametrize(
    ("certificates", "rules", "current"),
    [
        ((), {}, NOW),
        ((field("total", bound=0.8),), {}, NOW),
        ((field("total", prompt_hash="old"),), {}, NOW),
        ((field("total", expires="2026-11-29"),), {}, NOW),
        (ALL, {"escalate": {"on": ["schema"]}}, NOW),
        # no certificate of the chain for the floor of the document
        (ALL, {"floors": {"receipt": 0.5}}, NOW),
        # measured with other fields kept
        (
            (
                *ALL,
                proof("small", "large", keeps={"small": {"date": 0.9}}, coverage=0.9),
            ),
            {"floors": {"receipt": 0.5}},
            NOW,
        ),
        (
            (*ALL, proof("small", "large", keeps=CHAIN, coverage=0.9, bound=0.4)),
            {"floors": {"receipt": 0.5}},
            NOW,
        ),
        (ALL, {}, replace(NOW, demoted={("small",): "labels"})),
        # the step is not by field
        (ALL, {"floors": {"receipt": 0.5}}, replace(NOW, fields=())),
    ],
)
def test_without_proof_the_strongest_model_comes_first_and_nothing_is_kept(
    certificates: tuple[dict[str, Any], ...], rules: dict[str, Any], current: Current
) -> None:
    route = routed(policy(*certificates, **rules), current)
    assert route.models[0] == "large"
    assert route.keeps == {}


def test_the_floor_of_the_document_takes_the_certificate_of_the_chain() -> None:
    whole = proof("small", "large", keeps=CHAIN, coverage=0.9, bound=0.6)
    route = routed(policy(*ALL, whole, floors={"receipt": 0.5}))
    assert (route.models, route.keeps) == (("small", "large"), CHAIN)
    without_chain = routed(policy(*ALL, proof("large"), floors={"receipt": 0.5}))
    assert (without_chain.models, without_chain.keeps) == (("large",), {})


def test_the_expected_cost_counts_how_often_anything_goes_up() -> None:
    """Two fields are kept, but the third sends every document up: then small only adds to the bill."""
    two = (field("company"), field("date"))
    middle = tuple(field(name, "middle") for name in FIELDS)
    assert routed(policy(*two, proof("large"))).models == ("large",)
    assert routed(policy(*two, *middle, proof("large"))).models[0] == "middle"
    # 60 % of the totals are kept: 0.0011 + 0.4 * 0.011 USD, less than 0.011
    some = field("total", threshold=0.8, coverage=0.6, n=600)
    assert routed(policy(*two, some, proof("large"))).models == ("small", "large")
    # of each field 75 %: nothing says how they fall together, so 75 % of the documents may go up
    most = [field(name, threshold=0.8, coverage=0.75, n=750) for name in FIELDS]
    assert routed(policy(*most, proof("large"))).models == ("small", "large")
    halves = [field(name, threshold=0.8, coverage=0.6, n=600) for name in FIELDS]
    assert routed(policy(*halves, proof("large"))).models == ("large",)
    # measured together, half of them go up
    keeps = {"small": dict.fromkeys(FIELDS, 0.8)}
    half = {
        name: {"prompt_tokens": 500, "completion_tokens": 50} for name in ("large",)
    }
    half["small"] = {"prompt_tokens": 1000, "completion_tokens": 100}
    whole = proof("small", "large", keeps=keeps, coverage=0.5, mean_usage=half)
    assert routed(policy(*halves, whole, proof("large"))).models == ("small", "large")


def test_a_route_that_names_its_models_takes_only_the_thresholds() -> None:
    named = {"routes": [{"name": "r", "try": ["small", "large"]}]}
    sure = field("total", threshold=0.8, coverage=0.6, n=600)
    keeps = {"small": {"company": None, "date": None, "total": 0.8}}
    assert routed(policy(sure, **named)).keeps == keeps
    assert routed(policy(field("total"), **named)).keeps == {}
    assert routed(policy(sure, **named), replace(NOW, fields=())).keeps == {}


def test_each_model_is_shown_with_the_evidence_of_its_fields() -> None:
    whole = proof("small", "large", keeps={"small": {"total": None}}, coverage=0)
    made = policy(
        field("total"), field("date", bound=0.5), whole, floors={"receipt": 0.5}
    )
    chosen = routed(made)
    assert chosen.keeps == {"small": {"total": None}}
    small, large = choices(chosen, F, made, max_output_tokens=250, current=NOW)
    assert small.proof.startswith("total: ")
    assert "date" not in small.proof
    assert large.proof.count("not certified") == 3


def test_the_share_of_documents_that_are_kept_whole() -> None:
    thresholds = {"threshold": 0.8, "n": 900}
    certificates = [field("company"), field("date", coverage=0.9, **thresholds)]
    total = field("total", coverage=0.8, **thresholds)
    keeps = {"small": {"company": None, "date": 0.8, "total": 0.8}}
    chain = ("small", "large")

    def share(*listed: dict[str, Any], kept: Any = keeps) -> float | None:
        made = policy(*listed).certificates
        return share_whole(made, "receipt", chain, kept, FIELDS)

    assert share(*certificates, total) == pytest.approx(0.7)
    # a field that is never kept sends every document up
    assert share(*certificates, kept={"small": {"company": None, "date": 0.8}}) == 0
    whole = proof(*chain, keeps=keeps, coverage=0.75)
    assert share(*certificates, total, whole) == 0.75
    other = proof(*chain, keeps={"small": {"date": 0.9}}, coverage=0.75)
    assert share(*certificates, total, other) == pytest.approx(0.7)
    assert share(kept={}) is None


shares = st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95])
kept = st.none() | st.sampled_from([0.3, 0.6, 0.9])


@st.composite
def listed(draw: st.DrawFn) -> list[dict[str, Any]]:
    certificates = []
    for name in ("small", "middle"):
        for of_field in FIELDS:
            bound = draw(shares)
            threshold = draw(kept)
            if not bound:
                continue
            settings: dict[str, Any] = {"bound": bound}
            if threshold is not None:
                settings |= {"threshold": threshold, "coverage": draw(shares)}
            certificates.append(field(of_field, name, **settings))
    return certificates


@given(listed(), st.dictionaries(st.sampled_from(FIELDS), shares, min_size=1), shares)
def test_what_is_kept_is_certified_and_a_higher_floor_keeps_no_more(
    certificates: list[dict[str, Any]], floors: dict[str, float], higher: float
) -> None:
    made = policy(*certificates, field_floors={"receipt": floors})
    chosen = routed(made)
    assert chosen == routed(made)  # pure
    assert "large" not in chosen.keeps
    for name, fields in chosen.keeps.items():
        for of_field, threshold in fields.items():
            certificate = made.certificates.find_field("receipt", name, of_field)
            assert certificate is not None
            assert certificate.covers(floors[of_field])
            assert certificate.threshold == threshold
    raised = {name: max(floor, higher) for name, floor in floors.items()}
    stricter = policy(*certificates, field_floors={"receipt": raised})
    for name, fields in routed(stricter).keeps.items():
        for of_field in fields:
            certificate = made.certificates.find_field("receipt", name, of_field)
            assert certificate is not None
            assert certificate.covers(floors[of_field])


# ---- the files ----------------------------------------------------------------------------------


def test_certificates_of_fields_are_kept_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "certificates.yaml"
    of_total = FieldCertificate.model_validate(field("total"))
    sure = FieldCertificate.model_validate(
        field("total", threshold=0.9, coverage=0.4, n=400, bound=0.9)
    )
    keeps = {"small": {"date": None, "total": 0.9}}
    (whole,) = policy(
        proof("small", "large", keeps=keeps, coverage=0.4)
    ).certificates.certificates
    save_certificates(
        path, [of_total, whole, FieldCertificate.model_validate(field("date"))]
    )
    save_certificates(path, [sure])
    read = load_certificates(path)
    assert [each.field for each in read.fields] == ["date", "total"]
    assert read.find_field("receipt", "small", "total") == sure
    assert read.certificates == (whole,)
    assert read.find("receipt", ("small",)) is None
    text = path.read_text()
    twice = text.replace("field: date", "field: total")
    path.write_text(twice)
    with pytest.raises(ConfigError) as caught:
        load_certificates(path)
    assert caught.value.line


def test_older_certificates_and_rules_have_the_hash_that_they_had() -> None:
    """What came later changes no hash while nothing uses it: records name policies by their hash."""
    older = policy(proof("small"), field_floors={})
    assert (
        older.certificates.hash
        != policy(proof("small"), field("date")).certificates.hash
    )
    assert (
        "keeps"
        not in older.certificates.model_dump(exclude_none=True)["certificates"][0]
    )
    assert older.rules.hash != policy().rules.hash


@pytest.mark.parametrize(
    "changed",
    [
        {"models": ["small", "large"], "identities": {"small": "i", "large": "i"}},
        {"errors": 900},
        {"keeps": {"small": {"date": None}}, "coverage": 0.5},
        {"threshold": 0.5},
    ],
)
def test_a_certificate_of_a_field_fits_together(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"models|bound|keeps|coverage"):
        FieldCertificate.model_validate({**field("total"), **changed})


def test_a_certificate_of_a_field_is_void_when_a_failed_check_goes_elsewhere() -> None:
    certificate = FieldCertificate.model_validate(field("total"))
    assert certificate.void_reasons(NOW) is None
    escalate = {"on": ["low_confidence"], "most": 1}
    assert certificate.void_reasons(replace(NOW, escalate=escalate)) is not None


RULES = """\
version: 1
{floors}
routes:
  - {{name: r, pick: cheapest_capable}}
"""


@pytest.mark.parametrize(
    ("floors", "line"),
    [
        ("field_floors: {receipt: {total: 95}}", 2),
        ("field_floors: {receipt: {}}", 2),
        ("field_floors: {receipt: 0.9}", 2),
        ("field_floors: {recipe: {total: 0.9}}", 2),
        (
            "floors: {receipt: {at_most_worse: 0.02}}\n"
            "field_floors: {receipt: {total: 0.9}}",
            3,
        ),
    ],
)
def test_floors_by_field_that_cannot_count_are_refused(
    tmp_path: Path, floors: str, line: int
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES.format(floors=floors))
    with pytest.raises(ConfigError) as caught:
        load_rules(path, policy().catalog, ["receipt"])
    assert caught.value.line == line


def test_a_bound_by_field_is_checked_against_its_counts() -> None:
    bound = lower_bound(2, 60, alpha=0.03, compared=4)
    counts = {"n": 60, "items": 60, "errors": 2, "alpha": 0.03, "compared": 4}
    FieldCertificate.model_validate(field("total", **counts, bound=bound))
    with pytest.raises(ValueError, match="bound"):
        FieldCertificate.model_validate(field("total", **counts, bound=bound + 0.01))
