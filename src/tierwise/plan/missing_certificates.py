"""Which certificates are missing, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierwise.evidence.golden import load_settings

if TYPE_CHECKING:
    from tierwise.cascade import Job
    from tierwise.engine import Engine
    from tierwise.records import Route


def missing_proof(engine: Engine, job: Job, chosen: Route) -> str | None:
    """What to run so that a step may go to a cheaper model, where its route asks for proof and there is none."""
    rules = engine.policy.rules
    step = job.step.name
    rule = next((rule for rule in rules.routes if rule.name == chosen.rule), None)
    if rule is None or rule.pick is None:
        return None
    floor = rules.floors.get(step)
    if floor is None:
        return f"{step}: no floor is set; write one under `floors` in rules.yaml"
    if engine.policy.certificates.of(step, floor, job.current):
        return None
    golden = engine.project.root / "golden" / f"{step}.jsonl"
    said = f"{step}: nothing is certified, so route {chosen.rule} starts with the strongest model"
    if not golden.exists():
        return f"{said}; label examples in golden/{step}.jsonl, then run `tierwise certify {step}`"
    measured = engine.current(job.step, load_settings(golden.with_suffix(".yaml")).parameters)
    if measured.step_hash != job.current.step_hash:
        own = f"golden/{step}.yaml has other parameters than this flow"
        return f"{said}; {own}: label a golden set with this flow's, then `tierwise certify {step} --golden FILE`"
    return f"{said}; run `tierwise certify {step}`"
