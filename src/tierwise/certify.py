"""Measure candidates on a golden set, through the same gateway, prompts and checks as production."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any

from tierwise import __version__
from tierwise.certificates import Certificate, Shortfall, labels_needed, lower_bound
from tierwise.engine import Engine
from tierwise.errors import Misuse
from tierwise.golden import Example, GoldenSet
from tierwise.records import Batch, Outcome
from tierwise.router import worst_case
from tierwise.steps import Step
from tierwise.tokens import estimate_prompt_tokens

BATCH = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one candidate, a model or a chain, did on a golden set."""

    models: tuple[str, ...]
    n: int
    errors: int  # wrong answers and those that were not given
    deferred: int  # of the errors, those without an answer
    mean_cost: Decimal | None  # USD a document, as if nothing had been paid before; None when unknown
    latency_p50_s: float | None
    wrong: tuple[str, ...]  # ids

    @property
    def name(self) -> str:
        """`small` or `small > large`."""
        return " > ".join(self.models)

    def bound(self, compared: int) -> float:
        """What the result proves, one-sided 95 %, among so many candidates."""
        return lower_bound(self.errors, self.n, compared=compared)

    def shortfall(self, floor: float, compared: int) -> Shortfall:
        """What is missing for a floor."""
        return labels_needed(self.errors, self.n, floor, compared=compared)


def worst_cost(
    engine: Engine, step: Step, golden: GoldenSet, parameters: Mapping[str, Any], name: str
) -> Decimal | None:
    """USD that measuring one model can cost at most; None when its price is unknown. Repairs are not counted.

    Raises Misuse when the step does not say what is right.
    """
    if step.correct is None:
        raise Misuse(f"the step {step.name} does not say what a right answer is: give step(…, correct=…)")
    model, prompt = engine.policy.catalog.model(name), engine.prompts[step.prompt]
    tokens = [_prompt_tokens(prompt, example, parameters) for example in golden.examples]
    tokens = [
        count + (model.examples + model.fixed_examples * 5) * (sum(tokens) // len(tokens) // 2) for count in tokens
    ]
    costs = [worst_case(model, count, prompt.head.max_output_tokens) for count in tokens]
    return None if None in costs else sum((c for c in costs if c is not None), Decimal(0))


def measure(
    engine: Engine,
    step: Step,
    golden: GoldenSet,
    parameters: Mapping[str, Any],
    models: tuple[str, ...],
    *,
    fresh: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> Measurement:
    """Run the golden set through a model or a chain. `told` hears how many more examples are done.

    Raises Misuse when a model is not available.
    """
    for name in models:
        if reason := engine.policy.unavailable.get(name):
            raise Misuse(f"{name} is unavailable: {reason}")
    run = engine.start_run(f"certify {step.name}: {' > '.join(models)}", fresh=fresh)
    outcomes: list[tuple[Example, Outcome]] = []
    for start in range(0, len(golden.examples), BATCH):
        examples = golden.examples[start : start + BATCH]
        batch = Batch(tuple(e.document() for e in examples), first=start + 1, total=len(golden.examples))
        done = engine.run_batch(run, step, batch, parameters, models=models)
        outcomes += zip(examples, (document.outcomes[step.name] for document in done.documents), strict=True)
        told(len(examples))
    engine.finish_run(run, "completed")
    return _measured(engine, step, models, outcomes)


def certificate(
    engine: Engine, step: Step, golden: GoldenSet, parameters: Mapping[str, Any], measured: Measurement, compared: int
) -> Certificate:
    """The dated proof of a measurement."""
    current = engine.current(step, parameters)
    return Certificate(
        step=step.name,
        models=measured.models,
        identities={name: current.identities[name] for name in measured.models},
        prompt=engine.prompts[step.prompt].label,
        prompt_hash=current.prompt_hash,
        step_hash=current.step_hash,
        golden=golden.path.name,
        golden_hash=golden.hash,
        n=measured.n,
        errors=measured.errors,
        deferred=measured.deferred,
        compared=compared,
        bound=measured.bound(compared),
        mean_cost=measured.mean_cost,
        latency_p50_s=measured.latency_p50_s,
        date=datetime.date.today(),
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        tierwise_version=__version__,
    )


def _measured(
    engine: Engine, step: Step, models: tuple[str, ...], outcomes: Sequence[tuple[Example, Outcome]]
) -> Measurement:
    correct = step.correct or _never
    wrong = [e.id for e, o in outcomes if o.status != "accepted" or not correct(o.value, e.expected)]
    costs = [_full_cost(engine, outcome) for _, outcome in outcomes]
    known = [cost for cost in costs if cost is not None]
    seconds = [sum(attempt.latency_s for attempt in outcome.attempts) for _, outcome in outcomes]
    return Measurement(
        models=models,
        n=len(outcomes),
        errors=len(wrong),
        deferred=sum(outcome.status != "accepted" for _, outcome in outcomes),
        mean_cost=sum(known, Decimal(0)) / len(known) if len(known) == len(costs) else None,
        latency_p50_s=round(median(seconds), 3) if seconds else None,
        wrong=tuple(wrong),
    )


def _full_cost(engine: Engine, outcome: Outcome) -> Decimal | None:
    """What an outcome costs when nothing was paid before."""
    costs = [engine.policy.catalog.model(a.model).cost(a.usage) for a in outcome.attempts]
    return None if None in costs else sum((c for c in costs if c is not None), Decimal(0))


def _prompt_tokens(prompt: Any, example: Example, parameters: Mapping[str, Any]) -> int:
    return estimate_prompt_tokens(prompt.render(example.document(), {"part": None, **parameters}))


def _never(_: Mapping[str, Any], __: Mapping[str, Any]) -> bool:
    return False
