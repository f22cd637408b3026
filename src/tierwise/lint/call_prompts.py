"""Each call of a step in a flow, tried out: its prompt is filled in, its parameters are used.

No model is asked. What only a run can tell (a parameter without a default, a document's metadata)
counts as right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, Misuse, UnknownName
from tierwise.lint.call_parameters import (
    TASK_PARAMETERS,
    SpreadArgument,
    StepCall,
    Unknown,
)
from tierwise.lint.findings import Finding
from tierwise.plan.assumed_outcomes import placeholder_value
from tierwise.records import Document, Outcome
from tierwise.steps.prompts import Prompt, UndefinedVariable
from tierwise.steps.step import Step

_OF_DOCUMENTS = {"document", "outcomes", "metadata"}
# variables of prompts that no call gives
_ALWAYS_THERE = _OF_DOCUMENTS | {"language", "part"}
_PLACEHOLDER_TOKENS = 8


class _AnyText(str):
    """The value of a parameter that only a run can tell: a text that has every attribute."""

    __slots__ = ()

    def __getattr__(self, name: str) -> _AnyText:
        return self

    def __getitem__(self, key: object) -> _AnyText:
        return self

    def __call__(self, *_: object, **__: object) -> _AnyText:
        return self


def call_findings(
    calls: Sequence[tuple[Path, StepCall]],
    steps: Iterable[Step],
    prompts: Mapping[str, Prompt],
    root: Path,
) -> Iterator[Finding]:
    """Yield what is wrong with calls of steps, and with the prompts that they fill in.

    `calls` are pairs of a flow's file and a call in it; `prompts` are by name.
    """
    outputs_in_project = {step.name: _placeholder_value(step) for step in steps}
    for flow_file, call in calls:
        returns = call.returns or call.step.returns
        try:
            # the step's own test of its fields is made again for another output model
            step = replace(call.step, returns=returns)
        except UnknownName as error:
            message = f"the step {call.step.name}: {error}"
            yield Finding("error", "call", flow_file, call.line, message)
            continue
        prompt = prompts.get(step.prompt)
        if not call.complete:  # `**parameters` may bring anything
            continue
        if step.own is not None:
            try:
                step.own.check_parameters(step.name, call.parameters)
            except Misuse as error:
                yield Finding("error", "call", flow_file, call.line, str(error))
            continue
        for level, message in _parameter_faults(step, call, prompt):
            yield Finding(level, "call", flow_file, call.line, message)
        if prompt is None:
            continue
        # The prompt may read what any step put out before; this flow's calls know it best.
        calls_in_flow = [other for file, other in calls if file == flow_file]
        outputs = {**outputs_in_project, **_values_in_flow(calls_in_flow)}
        fault = _rendering_fault(call, prompt, outputs)
        if fault is not None:
            place = f"{flow_file.relative_to(root).as_posix()}:{call.line}"
            message = f"{fault.message} (the call in {place})"
            yield Finding("error", "prompt", prompt.path, fault.line, message)


def prompt_without_document(prompt: Prompt) -> Finding | None:
    """Return a finding for a prompt that is the same for all documents."""
    if _OF_DOCUMENTS & prompt.variables:
        return None
    message = (
        "the prompt shows nothing of the document, so all documents would be asked the same; "
        "add {{ document }} to its user block"
    )
    return Finding("error", "prompt", prompt.path, 1, message)


def spread_finding(path: Path, spread: SpreadArgument) -> Finding:
    """Return a finding for a list that a plain task's `.map` spreads over the batches."""
    message = (
        f"{spread.task}.map spreads {spread.text} over the batches, one item for each; "
        f"write unmapped({spread.text})"
    )
    return Finding("error", "call", path, spread.line, message)


def _parameter_faults(
    step: Step, call: StepCall, prompt: Prompt | None
) -> Iterator[tuple[Any, str]]:
    """Yield what is wrong with a call's parameters, as level and message."""
    for field, name in step.choices.items():
        if name not in call.parameters:
            yield (
                "error",
                f"the step {step.name} takes the values of `{field}` from the parameter "
                f"'{name}', which is not given{_meant(name, call.parameters)}",
            )
            continue
        fault = _choices_fault(call.parameters[name])
        if fault:
            yield (
                "error",
                f"'{name}' {fault}, and `{field}` of the step {step.name} takes one of its "
                "values; give a list",
            )
    for check in step.checks:
        for name in check.parameters:
            if name not in call.parameters:
                yield (
                    "warning",
                    f"the check {check.name} of the step {step.name} needs the parameter "
                    f"'{name}', which is not given{_meant(name, call.parameters)}",
                )
    if prompt is None:
        return
    used = _used_parameters(step, prompt)
    for name in call.parameters:
        if name not in used:
            yield (
                "error",
                f"nothing of the step {step.name} uses the parameter '{name}'"
                f"{_meant(name, used | TASK_PARAMETERS)}",
            )


def _choices_fault(values: Any) -> str:
    """Say why these values cannot be choices; empty where they can, or are not known."""
    if values is Unknown:
        return ""
    if isinstance(values, str):
        return "is a text"
    if not isinstance(values, list | tuple | set | frozenset | dict):
        return f"is a {type(values).__name__}"
    return "" if values else "is empty"


def _used_parameters(step: Step, prompt: Prompt) -> set[str]:
    """Return the names of all parameters that a step can make use of."""
    used = set(prompt.variables - _ALWAYS_THERE)
    used.update(step.choices.values())
    for check in step.checks:
        used.update(check.parameters, check.optional)
    if step.gathers:
        used.add("part_tokens")
    return used


def _meant(name: str, names: Iterable[str]) -> str:
    """Suggest the nearest of some names; nothing where none is near."""
    nearest = get_close_matches(name, sorted(names), n=1)
    if not nearest:
        return ""
    return f"; did you mean '{nearest[0]}'?"


def _rendering_fault(
    call: StepCall, prompt: Prompt, outputs: Mapping[str, Any]
) -> ConfigError | None:
    """Return the error of filling in the prompt for a made-up document, or None.

    `outputs` are the made-up accepted outputs by step.
    """
    parameters: dict[str, Any] = {"part": None}
    is_guess = False
    for name, value in call.parameters.items():
        if value is Unknown:
            is_guess = True
            parameters[name] = _AnyText(name)
        else:
            parameters[name] = value
    outcomes = {
        name: Outcome(step=name, status="accepted", value=value, sensitivity="public")
        for name, value in outputs.items()
    }
    document = Document(
        id="example",
        text="An example.",
        sensitivity="public",
        language="en",
        metadata=dict.fromkeys(prompt.metadata_names, "example"),
        outcomes=outcomes,
    )
    try:
        prompt.render(document, parameters)
    except UndefinedVariable as fault:
        # certain even with guesses: they are given, whatever their values
        return fault
    except ConfigError as fault:
        # a made-up value may be of the wrong type
        return None if is_guess else fault
    return None


def _values_in_flow(calls: Iterable[StepCall]) -> dict[str, Any]:
    """Return made-up outputs of a flow's steps, with the fields of all their calls."""
    values: dict[str, Any] = {}
    for call in calls:
        name = call.step.name
        before = values.get(name, {})
        # once a shape is unknown, no later call makes it known
        if call.returns is None or not isinstance(before, dict):
            values[name] = _AnyText(name)
        else:
            schema = call.returns.model_json_schema()
            value = placeholder_value(schema, _PLACEHOLDER_TOKENS)
            # the root of a model may also be a list
            values[name] = {**before, **value} if isinstance(value, dict) else value
    return values


def _placeholder_value(step: Step) -> Any:
    """Return a made-up output of a step, of the right shape."""
    return placeholder_value(step.base_schema, _PLACEHOLDER_TOKENS)
