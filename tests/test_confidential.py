"""No confidential document ever reaches a socket outside the house, whatever the rules, the catalog and the faults."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.kit.leaks import FREE, GUARD, LABELS, PARAMETERS, Paper, World, run, worlds
from tests.kit.ledgers import migrated_url
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.steps import CLASSIFY
from tierwise.engine import Engine
from tierwise.errors import GuardViolation, Misuse
from tierwise.evidence.certify import Evaluation, compare
from tierwise.evidence.certify.measure import score
from tierwise.orchestrate.server import tellable
from tierwise.project import Project
from tierwise.records import SENSITIVITIES, Outcome, Sensitivity, rank
from tierwise.steps.correctness import rubric
from tierwise.steps.examples import load_golden

# making a failing world smaller takes longer than a test may
FOUND_AS_IT_IS = (Phase.explicit, Phase.reuse, Phase.generate)
SECRET = Paper(declared="confidential")


def rules(*models: str, **more: Any) -> dict[str, Any]:
    """The guard, and one route that tries these models."""
    return {
        "version": 1,
        "guards": [GUARD],
        "routes": [{"name": "only", "try": list(models)}],
        **more,
    }


# every way in which a document gets to a model, each led outside
WAYS = {
    "the first model": World(rules("vendor-a"), (SECRET,)),
    "a row of a table": World(rules("vendor-a"), (Paper("row", declared="restricted"),)),
    "what the flow says": World(rules("vendor-a"), (Paper(),), base="confidential"),
    "an escalation": World(rules("local-a", "vendor-a"), (SECRET,), faults=("wrong label",)),
    "a repair that fails": World(rules("local-a", "vendor-a"), (SECRET,), faults=("no object", "no object")),
    "a fallback": World(rules("local-a", "vendor-a"), (SECRET,), faults=("gone",)),
    "tries that fail": World(rules("local-a", "vendor-a"), (SECRET,), faults=("overloaded",) * 3),
    "the cheapest capable": World(
        {**rules(), "floors": {"classify": 0.9}, "routes": [{"name": "proven", "pick": "cheapest_capable"}]},
        (SECRET,),
        certified=(("classify", ("vendor-a",)),),
    ),
    "parts of a long document": World(
        rules("vendor-a"), (Paper(declared="confidential", sentences=60),), steps=("summarize",)
    ),
    "what an earlier step found": World(rules("vendor-a"), (Paper(learnt="confidential"),)),
    "measuring a model": World(rules("local-a"), (SECRET,), measured=("vendor-a",)),
    "a shadow": World(
        rules("local-a", shadow={"share": 1.0, "money": 1.0}), (SECRET,), settings={"vendor-a": {"price": FREE}}
    ),
    "what a trained classifier is unsure of": World(
        {
            **rules("trained", "vendor-a"),
            "floors": {"classify": 0.9},
            "escalate": {"on": ["low_confidence"], "most": 1},
        },
        (SECRET,),
        certified=(("classify", ("trained",)),),
    ),
    "a retry with a person's answer": World(
        rules(
            routes=[
                {"name": "asked", "when": {"step": ["classify"]}, "try": ["local-b"], "review": "human"},
                {"name": "rest", "try": ["vendor-a"]},
            ]
        ),
        (SECRET,),
        again=True,
    ),
    "a sample": World(rules("vendor-a"), (SECRET,), by="sample"),
    "a redaction in vain": World(
        rules("vendor-a"), (Paper(declared="confidential", learnt="confidential"),), redact_to="internal"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def inside() -> Iterator[Standin]:
    with Standin() as server:
        yield server


@pytest.fixture(scope="module")
def outside() -> Iterator[Standin]:
    with Standin() as server:
        yield server


@settings(
    max_examples=40, phases=FOUND_AS_IT_IS, suppress_health_check=[HealthCheck.too_slow]
)
@given(worlds())
def test_no_confidential_document_reaches_a_socket_outside_the_house(
    inside: Standin, outside: Standin, world: World
) -> None:
    """With one guard among the rules, and all else at random.

    That is routes, proof, classifiers, shadows, examples, redaction, faults, plans, samples, and retries after a
    person's answer.
    """
    assert not run(world, inside, outside).leaked


@pytest.mark.parametrize("world", WAYS.values(), ids=WAYS)
def test_without_the_guard_it_would_get_out_and_with_it_nothing_does(
    inside: Standin, outside: Standin, world: World
) -> None:
    """Each way is open, so that the guard alone is what closes it."""
    unguarded = replace(world, rules={**world.rules, "guards": []})
    assert run(unguarded, inside, outside).leaked
    guarded = run(world, inside, outside)
    assert (guarded.leaked, guarded.requests) == (frozenset(), 0)


def test_a_plan_asks_nobody_not_even_where_no_guard_forbids_it(
    inside: Standin, outside: Standin
) -> None:
    world = World({**rules("vendor-a"), "guards": []}, (SECRET,), by="plan")
    assert run(world, inside, outside).requests == 0


def test_an_example_is_shown_outside_only_as_far_as_its_own_sensitivity_allows(
    inside: Standin, outside: Standin
) -> None:
    """Beside an internal document the internal examples are, and no confidential one."""
    taught = {"vendor-a": {"examples": 20}}
    world = World(
        rules("vendor-a"),
        (Paper(),),
        base="internal",
        settings=taught,
        examples=("internal", "confidential"),
    )
    seen = run(world, inside, outside)
    assert any(word.startswith("example") for word in seen.out)
    assert not seen.leaked


def test_a_redacted_document_goes_out_without_what_was_found(
    inside: Standin, outside: Standin
) -> None:
    """What redaction cannot know, such as a word without any form, goes with it: the guide says so."""
    seen = run(
        World(rules("vendor-a"), (SECRET,), redact_to="internal"), inside, outside
    )
    assert seen.out == {"plain0x"}
    assert not seen.leaked


CHAINS = (("local-a",), ("vendor-a",), ("local-a", "vendor-a"))
JUDGES = (None, "judge-in", "judge-out")
LEVELS = st.lists(st.sampled_from(SENSITIVITIES), min_size=5, max_size=8)


def exam_project(
    root: Path, inside: Standin, outside: Standin, levels: Sequence[Sensitivity]
) -> Project:
    """Candidates and judges on both sides, a golden set with these sensitivities, and examples with the same."""
    entries = [
        model("local-a", inside.url) + "    examples: 3\n",
        model("vendor-a", outside.url, tier="proprietary") + "    examples: 3\n",
        model("judge-in", inside.url, strength=90),
        model("judge-out", outside.url, tier="proprietary", strength=90),
    ]
    make_project(
        root, *entries, rules=json.dumps(rules("local-a", floors={"classify": 0.9}))
    )
    (root / "golden").mkdir()
    for name in ("classify", "classify-examples"):
        rows = (
            {
                "id": f"{name}{n}x",
                "text": f"My parcel {name}{n}x is late.",
                "label": LABELS[0],
                "sensitivity": level,
            }
            for n, level in enumerate(levels)
        )
        (root / "golden" / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
    (root / ".tierwise").mkdir()
    migrated_url("sqlite", root / ".tierwise")
    return Project(root)


def secrets_seen(outside: Standin, levels: Sequence[Sensitivity]) -> set[str]:
    """The confidential examples that the outside saw."""
    bodies = "\n".join(json.dumps(request.body) for request in outside.requests)
    secret = [
        n for n, level in enumerate(levels) if rank(level) >= rank("confidential")
    ]
    return {
        word
        for n in secret
        for name in ("classify", "classify-examples")
        if (word := f"{name}{n}x") in bodies
    }


@settings(max_examples=15, phases=FOUND_AS_IT_IS, deadline=None)
@given(LEVELS, st.sampled_from(CHAINS), st.sampled_from(JUDGES))
def test_no_confidential_example_reaches_a_socket_outside_the_house_when_models_are_certified_and_judged(
    inside: Standin,
    outside: Standin,
    levels: list[Sensitivity],
    chain: tuple[str, ...],
    judge: str | None,
) -> None:
    """Neither as what is measured or judged, nor as what is shown; not even where nobody refuses beforehand."""
    with tempfile.TemporaryDirectory(prefix="tierwise-test-") as folder:
        for server in (inside, outside):
            server.requests.clear()
            server.answer(_late_parcel)
        project = exam_project(Path(folder) / "project", inside, outside, levels)
        with Engine(project, env={}) as engine:
            evaluation = Evaluation(
                engine=engine,
                step=replace(CLASSIFY, correct=rubric("The label fits.")),
                golden=load_golden(project.root / "golden" / "classify.jsonl"),
                parameters=PARAMETERS["classify"],
                judge=judge,
            )
            with suppress(Misuse):
                compare(evaluation, [chain])
            with suppress(GuardViolation):
                score(evaluation, chain, evaluation.golden.examples)
    assert not secrets_seen(outside, levels)


def test_what_may_not_be_seen_is_told_before_anything_is_measured(
    inside: Standin, outside: Standin, tmp_path: Path
) -> None:
    """Of a candidate and of a judge: how many examples, which one, by which guard, and what helps."""
    inside.requests.clear()
    outside.requests.clear()
    project = exam_project(
        tmp_path / "project", inside, outside, ("internal",) * 4 + ("confidential",)
    )
    with Engine(project, env={}) as engine:
        golden = load_golden(project.root / "golden" / "classify.jsonl")
        step = replace(CLASSIFY, correct=rubric("The label fits."))
        evaluation = Evaluation(
            engine=engine, step=step, golden=golden, parameters=PARAMETERS["classify"]
        )
        told = "may not see 1 of 5 examples, such as 'classify4x': guard confidential-stays-local.*--golden"
        with pytest.raises(Misuse, match=f"vendor-a {told}"):
            compare(evaluation, [("local-a",), ("vendor-a",)])
        with pytest.raises(Misuse, match=f"judge-out {told}"):
            compare(replace(evaluation, judge="judge-out"), [("local-a",)])
    assert (inside.count, outside.count) == (0, 0)


def _late_parcel(request: Request) -> str:
    """A right answer with words of the document, or a judge's yes."""
    found = {"reason": "it fits", "met": True}
    names = (request.schema or {})["properties"]
    words = " ".join(request.document.split()[:3])
    return json.dumps(
        {
            n: words if n == "evidence" else LABELS[0] if n == "label" else found
            for n in names
        }
    )


@pytest.mark.parametrize(
    ("url", "sensitivity", "told"),
    [
        ("https://api.prefect.cloud/api", "confidential", False),
        ("https://api.prefect.cloud/api", "restricted", False),
        ("https://api.prefect.cloud/api", "internal", True),
        ("http://127.0.0.1:4200/api", "restricted", True),
        (None, "restricted", True),
    ],
)
def test_a_prefect_server_outside_the_house_is_told_no_reason_that_may_quote_a_confidential_document(
    url: str | None, sensitivity: Sensitivity, told: bool
) -> None:
    """Checks quote what they complain of, and logs go to Prefect's server."""
    quote = "quotes words that are not in the document: 'her diagnosis'"
    outcome = Outcome(
        step="classify", status="deferred", reason=quote, sensitivity=sensitivity
    )
    with temporary_settings({PREFECT_API_URL: url}):
        assert ("diagnosis" in tellable(outcome)) is told
