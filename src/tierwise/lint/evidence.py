"""Evidence: certificates that are void, and golden sets that nothing can be measured on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, unknown_name
from tierwise.lint.findings import Finding, finding_at, finding_from_error
from tierwise.policy.certificates import (
    AgreementCertificate,
    Certificate,
    Certificates,
    Current,
    FieldCertificate,
)
from tierwise.steps.examples import FEWEST, Example, missing_answer, read_golden
from tierwise.steps.golden_settings import load_settings
from tierwise.text.terms import normalised
from tierwise.text.yaml import YamlData

# endings of files in golden/: few-shot examples, and people's labels of answers
EXAMPLES = "-examples"
LABELS = "-labels"


def certificate_findings(
    source: YamlData,
    certificates: Certificates,
    models: Collection[str],
    steps: Collection[str],
    currents: Mapping[str, Current],
) -> Iterator[Finding]:
    """Yield certificates for steps or models that do not exist, and void ones.

    A step without a `Current` is not judged.
    """
    listed: list[tuple[str, int, Certificate]] = [
        ("certificates", number, certificate)
        for number, certificate in enumerate(certificates.certificates)
    ]
    listed += [
        ("agreements", number, certificate)
        for number, certificate in enumerate(certificates.agreements)
    ]
    listed += [
        ("fields", number, certificate)
        for number, certificate in enumerate(certificates.fields)
    ]
    for section, number, certificate in listed:
        place = (section, number)
        unknown = _unknown_names(certificate, models, steps)
        for key, message in unknown:
            advice = f"{message} Take the certificate out if it is gone"
            yield finding_at(source, (*place, key), "error", "certificate", advice)
        current = currents.get(certificate.step)
        if unknown or current is None:
            continue
        names = set(certificate.models)
        if isinstance(certificate, AgreementCertificate):
            names.add(certificate.teacher)
        if current.unidentified.keys() & names:
            continue  # whether it is void is only known where its models are
        reasons = certificate.void_reasons(current)
        if reasons is None and isinstance(certificate, FieldCertificate):
            reasons = _void_field(certificate, current)
        if reasons:
            message = _void(certificate, reasons)
            yield finding_at(source, place, "warning", "void certificate", message)


def _void_field(certificate: FieldCertificate, current: Current) -> str | None:
    """Return why a certificate of a field never counts for its step; None if it may."""
    if not current.fields:
        return f"{certificate.step} is not judged by field"
    if certificate.field not in current.fields:
        return unknown_name("field", certificate.field, current.fields)
    return None


def _void(certificate: Certificate, reasons: str) -> str:
    """Return that a certificate is void, and the command that makes another."""
    step = certificate.step
    chain = " > ".join(certificate.models)
    if isinstance(certificate, FieldCertificate):
        return (
            f"the certificate of {chain} for {step}, field {certificate.field}, is void: {reasons}; "
            f'measure again with `tierwise certify {step} --by-field --models "{chain}"`'
        )
    if isinstance(certificate, AgreementCertificate):
        teacher = certificate.teacher
        return (
            f"the certificate of {chain}'s agreement with {teacher} for {step} is void: {reasons}; "
            f"`tierwise distil {step} --teacher {teacher}` makes another"
        )
    return (
        f"the certificate of {chain} for {step} is void: {reasons}; "
        f'measure again with `tierwise certify {step} --models "{chain}"`'
    )


def _unknown_names(
    certificate: Certificate, models: Collection[str], steps: Collection[str]
) -> list[tuple[str, str]]:
    """Return the key and the error of each name in a certificate that does not exist."""
    unknown = [
        ("models", unknown_name("model", model, models))
        for model in certificate.models
        if model not in models
    ]
    if (
        isinstance(certificate, AgreementCertificate)
        and certificate.teacher not in models
    ):
        message = unknown_name("model", certificate.teacher, models)
        unknown.append(("teacher", message))
    if certificate.step not in steps:
        unknown.insert(0, ("step", unknown_name("step", certificate.step, steps)))
    return unknown


def golden_findings(
    folder: Path, choices: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    """Yield the faults of a project's golden sets.

    `choices` maps each step to the parameter of each closed field.
    """
    # the name of the file -> its examples by line
    sets: dict[str, dict[int, Example]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem.endswith(LABELS):
            yield from _label_findings(folder, path)
            continue
        few_shot = path.stem.endswith(EXAMPLES)
        # too few few-shot examples are an error; a golden set may grow, so it is only warned of
        at_least = FEWEST if few_shot else 0
        examples, faults = read_golden(path, at_least=at_least)
        sets[path.stem] = examples
        for fault in faults:
            yield finding_from_error(fault, folder, "golden set")
        # the step's own golden set is looked through where its step is known
        if not few_shot and path.stem not in choices:
            yield from _marked(path, examples)
        if not few_shot and len(examples) < FEWEST:
            message = (
                f"{len(examples)} examples are too few to certify anything; "
                f"label at least {FEWEST}"
            )
            yield Finding("warning", "few examples", path, None, message)
    # in a second pass, as few-shot examples are compared with the golden set of their step
    for name, examples in sets.items():
        step = name.removesuffix(EXAMPLES)
        try:
            parameters = load_settings(folder / f"{step}.yaml").parameters
        except ConfigError as error:
            # reported once, with the golden set itself
            if name == step:
                yield finding_from_error(error, folder, "golden set")
            continue
        path = folder / f"{name}.jsonl"
        yield from _label_not_allowed(path, examples, choices.get(step, {}), parameters)
        if name != step and step in sets:
            yield from _shown_and_measured(folder, step, sets[step], examples)


def _marked(path: Path, examples: Mapping[int, Example]) -> Iterator[Finding]:
    """Yield rows with a teacher's label in a further golden set."""
    for line, example in examples.items():
        if example.teacher is not None:
            message = (
                f"this label is from {example.teacher}, and agreement with a model is no "
                "correctness; take the row out"
            )
            yield Finding("error", "golden set", path, line, message)


def _label_findings(folder: Path, path: Path) -> Iterator[Finding]:
    from tierwise.evidence.judge import load_labels

    try:
        load_labels(path)
    except ConfigError as error:
        yield finding_from_error(error, folder, "label")


def _label_not_allowed(
    path: Path,
    examples: Mapping[int, Example],
    choices: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> Iterator[Finding]:
    """Yield expected answers that the step cannot give."""
    for field, parameter in choices.items():
        # empty where the settings do not give the parameter: then no answer can be judged
        allowed = [str(value) for value in parameters.get(parameter, ())]
        for line, example in examples.items():
            if allowed and field not in example.expected:
                message = missing_answer(field, example)
                yield Finding("error", "label", path, line, message)
                continue
            value = str(example.expected.get(field))
            if allowed and value not in allowed:
                unknown = unknown_name(field, value, allowed)
                message = f"{unknown} (of {parameter} in {path.stem}'s parameters)"
                yield Finding("error", "label", path, line, message)


def _shown_and_measured(
    folder: Path,
    step: str,
    measured: Mapping[int, Example],
    shown: Mapping[int, Example],
) -> Iterator[Finding]:
    """Yield few-shot examples that are in the golden set, too: the prompt shows their answers."""
    measured_lines = {
        normalised(example.text): line for line, example in measured.items()
    }
    for line, example in shown.items():
        measured_line = measured_lines.get(normalised(example.text))
        if measured_line is not None:
            message = (
                f"the text of '{example.id}' is in {step}.jsonl, line {measured_line}, too; "
                "what is shown to a model proves nothing about it, so take it out of one of the two"
            )
            path = folder / f"{step}{EXAMPLES}.jsonl"
            yield Finding("error", "shown and measured", path, line, message)
