"""What an answer depends on, and what a certificate must agree with today.

The identity of a model covers its address, its parameters, its weights, and for a trained
classifier its training data. An answer that was paid for one identity is never used for another.
A certificate names the identities, and the hashes of prompt, step, measure and escalation, that
it was measured with; `Current` has those of today.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, UnknownName
from tierwise.policy.addresses import canonical_address
from tierwise.policy.catalog import Model
from tierwise.policy.certificates import Current
from tierwise.policy.image_tokens import PAGES_VERSION
from tierwise.policy.own_model import own_name
from tierwise.project import Project
from tierwise.records import canonical_hash
from tierwise.steps.code import code_hash
from tierwise.steps.correctness import Rubric
from tierwise.steps.examples import GoldenSet, load_golden, read_golden
from tierwise.steps.golden_settings import load_settings
from tierwise.steps.own_work import HttpWork
from tierwise.steps.prompts import Prompt
from tierwise.steps.step import Correct, Step


@dataclass(frozen=True, slots=True)
class StepEvidence:
    """The part of a step that its certificates depend on, apart from models and settings."""

    prompt: str
    step_hash: str
    criteria: tuple[str, ...]  # of the step's own rubric
    measure_code: str  # the hash of the rest of the measure
    sees_pages: bool = False  # whether models that see are shown the pages
    fields: tuple[str, ...] = ()  # of the output, in a step by field


def examples_of(project: Project, step: str) -> GoldenSet | None:
    """Return the few-shot examples of a step, where it has some and a model uses them."""
    path = project.root / "golden" / f"{step}-examples.jsonl"
    if not path.exists():
        return None
    if not any(model.uses_few_shot for model in project.catalog.models.values()):
        return None
    return load_golden(path)


def step_evidence(
    project: Project, step: Step, parameters: Mapping[str, Any]
) -> StepEvidence:
    """Return what certificates for a step with these parameters depend on."""
    step_hash = step.hash(parameters)
    earlier = _earlier_steps(project, step)
    if earlier:
        step_hash = canonical_hash([step_hash, earlier])
    criteria, needs = _measure_parts(step.correct)
    fields = tuple(step.returns.model_fields) if step.by_field else ()
    return StepEvidence(
        step.prompt,
        step_hash,
        criteria,
        code_hash(needs),
        step.sees_pages,
        fields,
    )


def _measure_parts(
    measure: Correct | None,
) -> tuple[tuple[str, ...], Correct | None]:
    """Return a measure's criteria for a judge, and the rest of it.

    Certification puts the criteria of `golden/STEP.yaml` around the step's own measure. The parts
    are the same as those of the step with these criteria beside it.
    """
    criteria: list[str] = []
    while isinstance(measure, Rubric):
        criteria.extend(measure.criteria)
        measure = measure.needs
    return tuple(criteria), measure


def _earlier_steps(
    project: Project, step: Step, seen: frozenset[str] = frozenset()
) -> list[list[str]]:
    """Return the name and hash of each earlier step whose outcome a step's prompt quotes.

    A change of such a step changes what the prompt asks, so it voids the certificates of both.
    """
    prompt = project.prompts[step.prompt]
    names = prompt.earlier_steps
    if prompt.reads_any_outcome:
        names = frozenset(each.head.step for each in project.prompts)
    seen = seen | {step.name}
    hashes: list[list[str]] = []
    for name in sorted(names - seen):
        try:
            earlier = project.load_step(name)
            prompt_hash = ""
            if earlier.own is None:
                prompt_hash = project.prompts[earlier.prompt].hash
        except (UnknownName, ConfigError):
            continue  # `tierwise check` reports it
        settings = load_settings(project.root / "golden" / f"{name}.yaml")
        before: list[list[str]] = []
        if earlier.own is None:
            before = _earlier_steps(project, earlier, seen)
        parts = [earlier.hash(settings.parameters), prompt_hash, before]
        hashes.append([name, canonical_hash(parts)])
    return hashes


def current_of(
    project: Project,
    env: Mapping[str, str],
    step: Step,
    parameters: Mapping[str, Any],
    examples_hash: str | None = None,
    golden: str | None = None,
) -> Current:
    """Return what a certificate for a step must agree with today.

    `golden` is the file name of a golden set that no certificate may name yet.
    """
    if step.own is not None:
        return _current_without_model(step, parameters)
    evidence = step_evidence(project, step, parameters)
    return current_for(project, env, step.name, evidence, examples_hash, golden)


def _current_without_model(step: Step, parameters: Mapping[str, Any]) -> Current:
    """Return what the answers of a step without a model depend on: no certificate is for one."""
    name = own_name(step)
    code = "" if step.own is None else step.own.code
    parts = [name, code]
    if isinstance(step.own, HttpWork):
        parts.append(canonical_address(step.own.url))
    identity = canonical_hash(parts)
    return Current(
        identities={name: identity},
        calls={name: identity},
        prompt_hash=code,
        step_hash=step.hash(parameters),
        today=datetime.date.today(),
    )


def current_for(
    project: Project,
    env: Mapping[str, str],
    step: str,
    evidence: StepEvidence,
    examples_hash: str | None = None,
    golden: str | None = None,
) -> Current:
    """Return what a certificate must agree with today, for a step whose evidence is known."""
    prompt = project.prompts[evidence.prompt]
    identities = project.identities(env)
    measured = {
        name: _measured_identity(
            project.catalog.model(name),
            identity,
            prompt,
            examples_hash,
            identities.selectors.get(name, ()),
            sees_pages=evidence.sees_pages,
        )
        for name, identity in identities.known.items()
    }
    return Current(
        identities=measured,
        calls=identities.known,
        unidentified=identities.unknown,
        prompt_hash=prompt.hash,
        step_hash=evidence.step_hash,
        measures=_measures(project, step, evidence, golden),
        goldens=_goldens(project, step),
        escalate=project.rules.escalate.as_evidence(),
        today=datetime.date.today(),
        fields=evidence.fields,
    )


def _measured_identity(
    model: Model,
    identity: str,
    prompt: Prompt,
    examples_hash: str | None,
    selectors: Sequence[str],
    *,
    sees_pages: bool,
) -> str:
    """Return the hash of all that a model's answers to one prompt depend on.

    That is its identity, its few-shot examples and the embedder that selects them, its limit where
    that cuts answers short, the tokens that it may think, which decide where thoughts are cut off,
    and whether it is shown the pages.
    """
    if examples_hash is not None and model.uses_few_shot:
        # without an embedder, as it was in earlier certificates
        shown = [
            model.examples,
            model.fixed_examples,
            examples_hash,
            *selectors,
        ]
        identity = canonical_hash([identity, *shown])
    if model.max_output_tokens < prompt.head.max_output_tokens:
        identity = canonical_hash([identity, "at most", model.max_output_tokens])
    if model.thinking_tokens:
        identity = canonical_hash([identity, "thinks", model.thinking_tokens])
    if sees_pages and model.vision:
        identity = canonical_hash([identity, "sees pages", PAGES_VERSION])
    return identity


def _measures(
    project: Project, step: str, evidence: StepEvidence, golden: str | None
) -> dict[str, str]:
    """Return the hash of the measure by golden set: each may have criteria of its own."""
    golden_sets = {f"{step}.jsonl"}
    if golden is not None:
        golden_sets.add(golden)
    for certificate in project.certificates.of_correctness:
        if certificate.step == step:
            golden_sets.add(certificate.golden)
    hashes: dict[str, str] = {}
    for name in golden_sets:
        hashes[name] = measure_hash(project, step, name, evidence)
    return hashes


def _goldens(project: Project, step: str) -> dict[str, str]:
    """Return the hash of each golden set on which a certificate of the step compares two models."""
    return {
        certificate.golden: golden_file_hash(project, certificate.golden)
        for certificate in project.certificates.certificates
        if certificate.step == step and certificate.at_most_worse is not None
    }


def golden_file_hash(project: Project, name: str) -> str:
    """Return the hash of all examples of a file in golden/; nothing where there is no such file.

    Raises nothing for a damaged file: its hash is another one.
    """
    path = project.root / "golden" / name
    try:
        status = path.stat()
    except OSError:
        return ""
    return _hash_of_examples(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _hash_of_examples(path: Path, changed: int, size: int) -> str:  # noqa: ARG001
    """Return the hash of a golden set. Time and size are those of the file, for the cache."""
    examples, faults = read_golden(path, at_least=0)
    if faults:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return GoldenSet(path, tuple(examples.values())).hash


def measure_hash(
    project: Project, step: str, golden: str, evidence: StepEvidence
) -> str:
    """Return the hash of what is right by a golden set of this file name."""
    folder = project.root / "golden"
    settings_path = (folder / golden).with_suffix(".yaml")
    if not settings_path.exists():
        settings_path = folder / f"{step}.yaml"
    criteria = {*evidence.criteria, *load_settings(settings_path).rubric}
    return canonical_hash([sorted(criteria), evidence.measure_code])
