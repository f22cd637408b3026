"""Missing certificates: the reason that a step starts with the strongest model, and its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierwise.policy.floors import Floor, PairedFloor
from tierwise.steps.golden_settings import load_settings

if TYPE_CHECKING:
    from tierwise.cascade import Job
    from tierwise.engine import Engine
    from tierwise.records import Route


def missing_certificate(engine: Engine, job: Job, chosen: Route) -> str | None:
    """Return the remedy when a step's route asks for a certificate and there is none."""
    rules = engine.policy.rules
    step = job.step.name
    rule = next((rule for rule in rules.routes if rule.name == chosen.rule), None)
    if rule is None or rule.pick is None:
        return None
    floor = engine.policy.floor(step)
    if chosen.agrees_with or chosen.keeps:
        return None
    if job.step.by_field and step in rules.field_floors:
        return (
            f"{step}: no chain is certified by field, so {chosen.rule} starts with the strongest "
            f"model; run `tierwise certify {step} --by-field`"
        )
    if floor is None and step in rules.agreement_floors:
        return (
            f"{step}: no agreement is certified that counts here, so route {chosen.rule} starts "
            f"with the strongest model; run `tierwise distil {step}`"
        )
    if floor is None:
        return f"{step}: no floor is set; write one under `floors` in rules.yaml"
    if engine.policy.certificates.valid_for(step, floor, job.current):
        return None
    golden = engine.project.root / "golden" / f"{step}.jsonl"
    route = f"route {chosen.rule}"
    problem = (
        f"{step}: nothing is certified, so {route} starts with {_first_model(floor)}"
    )
    if not golden.exists():
        remedy = (
            f"label examples in golden/{step}.jsonl, then run `tierwise certify {step}`"
        )
        return f"{problem}; {remedy}"
    # A golden set that was labelled with other parameters certifies another step.
    parameters = load_settings(golden.with_suffix(".yaml")).parameters
    measured = engine.current(job.step, parameters)
    if measured.step_hash != job.current.step_hash:
        return (
            f"{problem}; golden/{step}.yaml has other parameters than this flow: "
            f"label a golden set with this flow's, then `tierwise certify {step} --golden FILE`"
        )
    return f"{problem}; run `tierwise certify {step}`"


def _first_model(floor: Floor) -> str:
    """Return the model that a route without certificates starts with, in words."""
    if isinstance(floor, PairedFloor) and floor.is_named:
        return f"{floor.reference}, the reference"
    return "the strongest model"
