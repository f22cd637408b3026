"""No confidential document ever reaches a socket outside the house, whatever the rules, the catalog and the faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.leaks import FREE, GUARD, Paper, World, run, worlds
from tests.standin import Standin
from tierwise.orchestrate.server import tellable
from tierwise.records import Outcome, Sensitivity

# making a failing world smaller takes longer than a test may
FOUND_AS_IT_IS = (Phase.explicit, Phase.reuse, Phase.generate)
SECRET = Paper(declared="confidential")


def rules(*models: str, **more: Any) -> dict[str, Any]:
    """The guard, and one route that tries these models."""
    return {"version": 1, "guards": [GUARD], "routes": [{"name": "only", "try": list(models)}], **more}


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


@settings(max_examples=60, phases=FOUND_AS_IT_IS, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_no_confidential_document_reaches_a_socket_outside_the_house(
    inside: Standin, outside: Standin, world: World
) -> None:
    """With one guard among the rules, and all else at random: routes, proof, shadows, examples, redaction, faults."""
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


def test_an_example_is_shown_outside_only_as_far_as_its_own_sensitivity_allows(
    inside: Standin, outside: Standin
) -> None:
    """Beside an internal document the internal examples are, and no confidential one."""
    taught = {"vendor-a": {"examples": 20}}
    world = World(
        rules("vendor-a"), (Paper(),), base="internal", settings=taught, examples=("internal", "confidential")
    )
    seen = run(world, inside, outside)
    assert any(word.startswith("example") for word in seen.out)
    assert not seen.leaked


def test_a_redacted_document_goes_out_without_what_was_found(inside: Standin, outside: Standin) -> None:
    """What redaction cannot know, such as a word without any form, goes with it: the guide says so."""
    seen = run(World(rules("vendor-a"), (SECRET,), redact_to="internal"), inside, outside)
    assert seen.out == {"plain0x"}
    assert not seen.leaked


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
    outcome = Outcome(step="classify", status="deferred", reason=quote, sensitivity=sensitivity)
    with temporary_settings({PREFECT_API_URL: url}):
        assert ("diagnosis" in tellable(outcome)) is told
