"""A step with its golden set, and with the output model and the parameters that a flow gives it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pydantic import BaseModel

from tierwise.errors import ConfigError, Misuse
from tierwise.project import Project
from tierwise.records import text_hash
from tierwise.steps.correctness import rubric
from tierwise.steps.examples import (
    FEWEST,
    Example,
    FaultOf,
    GoldenSet,
    load_golden,
    read_golden,
)
from tierwise.steps.golden_settings import load_settings
from tierwise.steps.prompts import Prompt
from tierwise.steps.row_faults import row_fault
from tierwise.steps.step import Step
from tierwise.steps.teacher_mark import MARK, teacher_of
from tierwise.text.amounts import plural
from tierwise.text.rows import read_rows
from tierwise.text.terms import normalised

# normalised text -> rows of teachers' labels
TeacherRows = Mapping[str, Sequence[Mapping[str, Any]]]
_NO_TEACHER_ROWS: TeacherRows = {}


@dataclass(frozen=True, slots=True)
class GoldenStep:
    """A step as a flow uses it, and examples with right answers."""

    step: Step
    golden: GoldenSet
    parameters: Mapping[str, Any]


def load_golden_step(
    project: Project,
    step: str,
    path: Path | None = None,
    *,
    limit: int | None = None,
    outcomes_needed: bool = True,
) -> GoldenStep:
    """Load a step's golden set (default golden/STEP.jsonl), or a random sample of `limit` examples.

    The settings come from the YAML file next to it, or else from golden/STEP.yaml. Raises
    UnknownName, Misuse without the golden set, and ConfigError with file and line, also for rows
    that every answer passes and, if `outcomes_needed`, rows without outcomes that the prompt reads.
    """
    path = path or project.root / "golden" / f"{step}.jsonl"
    spec, parameters = measured_step(project, step, path)
    prompt = project.prompts[spec.prompt] if outcomes_needed else None
    golden = load_golden(
        path,
        allowed=allowed_values(spec, parameters),
        fault_of=row_faults(spec, parameters, prompt, said_by_teachers(project, step)),
    )
    examples = golden.examples
    if limit is not None:
        examples = random_sample(examples, limit)
    return GoldenStep(spec, GoldenSet(path, examples), parameters)


def with_arrived(
    golden: GoldenStep,
    step: Step,
    parameters: Mapping[str, Any],
    examples: tuple[Example, ...],
) -> GoldenStep:
    """Return a golden set with the step, parameters and examples as a flow brings them.

    Raises Misuse when too few examples are left.
    """
    if len(examples) < FEWEST:
        raise Misuse(
            f"{plural(len(examples), 'example')} of {len(golden.golden.examples)} "
            f"came to {step.name}, which is too few to prove anything; "
            f"it takes at least {FEWEST}"
        )
    return GoldenStep(
        # the flow's step, with the measure of the golden set's settings
        step=replace(step, correct=golden.step.correct),
        golden=GoldenSet(golden.golden.path, examples),
        parameters=dict(parameters),
    )


def measured_step(
    project: Project, step: str, path: Path | None = None
) -> tuple[Step, Mapping[str, Any]]:
    """Return a step as a golden set measures it, and its parameters.

    The settings may give it another output model, and criteria for a judge. Raises UnknownName and
    ConfigError.
    """
    folder = project.root / "golden"
    golden_path = path or folder / step
    settings_path = golden_path.with_suffix(".yaml")
    if not settings_path.exists():
        settings_path = folder / f"{step}.yaml"
    settings = load_settings(settings_path)
    spec = project.load_step(step)
    spec.require_model("certify")
    if settings.returns:
        spec = replace(spec, returns=_output_model(settings.returns, settings_path))
    if settings.rubric:
        spec = replace(spec, correct=rubric(*settings.rubric, needs=spec.correct))
    return spec, dict(settings.parameters)


def row_faults(
    step: Step,
    parameters: Mapping[str, Any],
    prompt: Prompt | None = None,
    said_by: TeacherRows = _NO_TEACHER_ROWS,
) -> FaultOf:
    """Return the function that says why an example measures nothing for a step.

    With the prompt, also why production would ask something else than the example does. `said_by`
    are teachers' labels, which measure agreement with the teacher and no correctness.
    """

    def fault_of(example: Example) -> str | None:
        fault = _teachers_label(step, example, said_by)
        if fault is None:
            fault = row_fault(step, parameters, example.expected)
        if fault is None and prompt is not None:
            fault = _missing_outcomes(step, prompt, example)
        return fault

    return fault_of


def said_by_teachers(project: Project, step: str) -> TeacherRows:
    """Return the teachers' labels of a step by their texts, without what makes no difference.

    A file that cannot be read is reported by `tierwise distil`, and its readable rows count.
    """
    path = project.root / "distilled" / f"{step}.jsonl"
    if not path.exists():
        return _NO_TEACHER_ROWS
    said: dict[str, list[Mapping[str, Any]]] = {}
    for _, row in read_rows(path):
        if isinstance(row, Mapping) and isinstance(row.get("text"), str):
            said.setdefault(normalised(row["text"]), []).append(row)
    return said


def _teachers_label(step: Step, example: Example, said_by: TeacherRows) -> str | None:
    """Return the fault of a row whose label is a teacher's and no person's; None for others.

    A row that was copied without its mark has the teacher's text and label. It counts all the same
    where it names the person who gave the label, who may well agree with the teacher.
    """
    if example.teacher is not None:
        return (
            f"this label is from {example.teacher}, and agreement with a model is no correctness; "
            f"take the row out, or let a person label it, who takes `{MARK}` out and writes "
            '"reviewer": "NAME"'
        )
    if example.reviewer:
        return None
    for row in said_by.get(normalised(example.text), ()):
        answer = row.get("expected")
        if not isinstance(answer, Mapping) or not answer:
            continue
        if all(example.expected.get(name) == answer[name] for name in answer):
            return (
                f"this text has {teacher_of(row)}'s label in distilled/{step.name}.jsonl, and "
                "agreement with a model is no correctness; take the row out, or, if a person gave "
                'the label, write "reviewer": "NAME"'
            )
    return None


def _missing_outcomes(step: Step, prompt: Prompt, example: Example) -> str | None:
    """Return the fault of a row without outcomes, for a prompt that reads some."""
    # `{}` says that there are none; None says nothing
    if not prompt.earlier_steps or example.outcomes is not None:
        return None
    steps = sorted(prompt.earlier_steps)
    earlier = ", ".join(steps)
    answers = ", ".join(f'"{name}": {{…}}' for name in steps)
    return (
        f"the prompt of {step.name} reads outcomes of earlier steps ({earlier}), "
        "and this row gives none, so another prompt would be measured; "
        f'add "outcomes": {{{answers}}} with their answers, or "outcomes": {{}} '
        f"for a document without them, or use `tierwise certify {step.name} --through FLOW`"
    )


def golden_faults(
    project: Project, step: str, *, outcomes_needed: bool = True
) -> list[ConfigError]:
    """Return the rows of golden/STEP.jsonl that measure nothing, each fault once.

    With `outcomes_needed`, also rows without outcomes that the prompt reads. Rows that are wrong in
    other ways are left to the reader of the file. Raises TierwiseError where the step or its
    settings are wrong.
    """
    path = project.root / "golden" / f"{step}.jsonl"
    if not path.exists():
        return []
    spec, parameters = measured_step(project, step)
    prompt = project.prompts[spec.prompt] if outcomes_needed else None
    fault_of = row_faults(spec, parameters, prompt, said_by_teachers(project, step))
    allowed = allowed_values(spec, parameters)
    examples, _ = read_golden(path, at_least=0)
    lines: dict[str, list[int]] = {}
    for line, example in examples.items():
        # a value that is not allowed is a fault that the reader of the file reports
        closed = all(example.expected.get(name) in allowed[name] for name in allowed)
        fault = fault_of(example) if closed else None
        if fault:
            lines.setdefault(fault, []).append(line)
    return [
        ConfigError(_with_more(fault, found[1:]), path=path, line=found[0])
        for fault, found in lines.items()
    ]


def _with_more(fault: str, lines: list[int]) -> str:
    """Return the fault with the number of the other lines that have it."""
    if not lines:
        return fault
    return f"{fault} (and {plural(len(lines), 'more row')} like it)"


def allowed_values(
    step: Step, parameters: Mapping[str, Any]
) -> dict[str, Collection[Any]]:
    """Return the values that each closed field may take."""
    return {
        field: parameters[name]
        for field, name in step.choices.items()
        if name in parameters
    }


def random_sample(examples: tuple[Example, ...], size: int) -> tuple[Example, ...]:
    """Return some of the examples, in their order, drawn by a hash of their texts.

    A larger sample contains the smaller ones, so that its paid answers are reused.
    """
    by_hash = sorted(examples, key=lambda e: text_hash(f"sample {e.text}"))
    drawn = {example.id for example in by_hash[:size]}
    return tuple(example for example in examples if example.id in drawn)


def _output_model(name: str, path: Path) -> type[BaseModel]:
    """Import an output model by its name, such as `flows.contract_intake:ContractTerms`."""
    try:
        model = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"returns: there is no '{name}' ({error})", path=path
        ) from None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigError(f"returns: '{name}' is not an output model", path=path)
    return model
