"""What a routing decision costs, and how it grows with the routes and the models.

    python -m benchmarks.routing

Each number is the median over rounds of one warm process, after the fastest of several tries of each round.
"named" matches the last of the routes, which names every model: the longest way there is. "proof" does the same
with a route that picks the cheapest certified among all models. Both under two guards and a budget that covers
every model. "none fits" is "named" with a budget too small for any: every model needs an exact sum and a reason.
"""

from __future__ import annotations

import argparse
import datetime
import timeit
from decimal import Decimal
from statistics import median
from typing import Any

from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import Certificate, Certificates, Current, lower_bound
from tierwise.policy.router import Policy, route
from tierwise.policy.rules import Features, Rules

TARGET_US = 20
TODAY = datetime.date(2026, 11, 22)
FEATURES = Features(
    step="draft",
    tokens=900,
    prompt_tokens=1200,
    sensitivity="internal",
    language="en",
    tags={"desk": "claims"},
    outcomes={"classify": {"label": "complaint"}},
)
SIZES = ((50, 30), (5, 30), (200, 30), (50, 5), (50, 100))


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print("| routes | models | named | proof | none fits |\n|---|---|---|---|---|")
    for routes, models in SIZES:
        ways = [(False, Decimal(1)), (True, Decimal(1)), (False, Decimal("0.00001"))]
        times = [
            decision_us(policy(routes, models, pick=pick), models, left)
            for pick, left in ways
        ]
        print(
            f"| {routes} | {models} | "
            + " | ".join(f"{us:.1f} us" for us in times)
            + " |"
        )
    print(
        f"\nTarget: at most {TARGET_US} us with {SIZES[0][0]} routes and {SIZES[0][1]} models."
    )


def decision_us(decided_by: Policy, models: int, left: Decimal) -> float:
    """Microseconds for one decision."""
    current = Current(
        identities=dict.fromkeys(decided_by.catalog.models, ""),
        prompt_hash="p",
        step_hash="s",
        today=TODAY,
    )

    def decide() -> None:
        route(
            FEATURES,
            decided_by,
            max_output_tokens=500,
            budget_left=left,
            current=current,
        )

    found = route(
        FEATURES, decided_by, max_output_tokens=500, budget_left=left, current=current
    )
    assert found.rule == "last", found
    assert len(found.models) + len(found.rejected) == models, found
    timer = timeit.Timer(decide)
    return median(min(timer.repeat(repeat=5, number=200)) / 200 * 1e6 for _ in range(7))


def policy(routes: int, models: int, *, pick: bool) -> Policy:
    """Two guards, `routes` routes of which the last matches, `models` models in three tiers."""
    tiers = ("local", "clarifai", "proprietary")
    catalog = Catalog.model_validate(
        {
            "version": 1,
            "tiers": {tier: {"description": tier} for tier in tiers},
            "models": {f"model-{i}": entry(i, tiers[i % 3]) for i in range(models)},
        }
    )
    last: dict[str, Any] = (
        {"pick": "cheapest_capable"} if pick else {"try": list(catalog.models)}
    )
    rules = {
        "version": 1,
        "guards": [
            {
                "name": "confidential",
                "when": {"sensitivity_min": "confidential"},
                "allow_tiers": ["local"],
            },
            {
                "name": "medical",
                "when": {"tags": {"desk": "medical"}},
                "allow_tiers": ["local", "clarifai"],
            },
        ],
        "floors": {"draft": 0.9},
        "routes": [
            *(condition(i) for i in range(routes - 1)),
            {"name": "last", **last},
        ],
    }
    certificates = Certificates(
        certificates=tuple(proof(name, catalog) for name in list(catalog.models)[::3])
    )
    return Policy(
        catalog=catalog, rules=Rules.model_validate(rules), certificates=certificates
    )


def entry(number: int, tier: str) -> dict[str, Any]:
    price = {
        "input": 0.1 + number,
        "output": 0.4 + number,
        "source": "benchmark",
        "date": TODAY.isoformat(),
    }
    return {
        "tier": tier,
        "litellm_params": {"model": f"openai/model-{number}"},
        "context_tokens": 32_000,
        "max_output_tokens": 4_000,
        "strength": number,
        "price": price,
    }


def condition(number: int) -> dict[str, Any]:
    """A route of one of five common kinds that does not match."""
    kinds: list[dict[str, Any]] = [
        {"step": ["classify", "extract"]},
        {"step": ["draft"], "stakes": ["high"]},
        {"step": ["draft"], "tokens_min": 50_000},
        {"step": ["draft"], "language": ["de", "fr"]},
        {"step": ["draft"], "outcomes": {"classify.label": ["praise"]}},
    ]
    return {
        "name": f"route-{number}",
        "when": kinds[number % len(kinds)],
        "try": ["model-0"],
    }


def proof(name: str, catalog: Catalog) -> Certificate:
    return Certificate(
        step="draft",
        models=(name,),
        identities={name: catalog.models[name].identity},
        prompt="draft v1",
        prompt_hash="p",
        step_hash="s",
        golden="draft.jsonl",
        golden_hash="g",
        n=200,
        errors=5,
        bound=lower_bound(5, 200),
        mean_cost=Decimal("0.001"),
        date=TODAY,
        tierwise_version="0",
    )


if __name__ == "__main__":
    main()
