"""Evidence: certificates that no longer hold, and golden sets that cannot be measured on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, unknown_name
from tierwise.evidence.golden import load_settings
from tierwise.lint.findings import Finding, at, of_error
from tierwise.policy.certificates import Certificates, Current
from tierwise.steps.examples import FEWEST, Example, read_golden
from tierwise.text.terms import normalised
from tierwise.text.yaml import YamlData

# the latter: what people say of answers
EXAMPLES = "-examples"
LABELS = "-labels"


def certificate_findings(
    source: YamlData,
    certificates: Certificates,
    models: Collection[str],
    steps: Collection[str],
    currents: Mapping[str, Current],
) -> Iterator[Finding]:
    """Certificates of what does not exist, and those that something voids. A step without a Current is not judged."""
    for i, certificate in enumerate(certificates.certificates):
        place = ("certificates", i)
        wrong = [("step", certificate.step, steps)] if certificate.step not in steps else []
        wrong += [("model", name, models) for name in certificate.models if name not in models]
        for kind, name, known in wrong:
            message = f"{unknown_name(kind, name, known)} Take the certificate out if it is gone"
            yield at(
                source,
                (*place, "step" if kind == "step" else "models"),
                "error",
                "certificate",
                message,
            )
        current = currents.get(certificate.step)
        if not wrong and current and (reasons := certificate.void_reasons(current)):
            chain = " > ".join(certificate.models)
            message = (
                f"the certificate of {chain} for {certificate.step} is void: {reasons}; "
                f'measure again with `tierwise certify {certificate.step} --models "{chain}"`'
            )
            yield at(source, place, "warning", "void certificate", message)


def golden_findings(folder: Path, choices: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """What is wrong with a project's golden sets. `choices` holds, by step, the parameter of each closed field."""
    sets: dict[str, dict[int, Example]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem.endswith(LABELS):
            yield from _label_faults(folder, path)
            continue
        shown = path.stem.endswith(EXAMPLES)
        sets[path.stem], faults = read_golden(path, at_least=FEWEST if shown else 0)
        yield from (of_error(fault, folder, "golden set") for fault in faults)
        if not shown and len(sets[path.stem]) < FEWEST:
            message = f"{len(sets[path.stem])} examples are too few to certify anything; label at least {FEWEST}"
            yield Finding("warning", "few examples", path, None, message)
    for name, examples in sets.items():
        step = name.removesuffix(EXAMPLES)
        try:
            parameters = load_settings(folder / f"{step}.yaml").parameters
        except ConfigError as error:
            if name == step:
                yield of_error(error, folder, "golden set")
            continue
        yield from _outside(folder / f"{name}.jsonl", examples, choices.get(step, {}), parameters)
        if name != step and step in sets:
            yield from _in_both(folder, step, sets[step], examples)


def _label_faults(folder: Path, path: Path) -> Iterator[Finding]:
    from tierwise.evidence.judge import load_labels

    try:
        load_labels(path)
    except ConfigError as error:
        yield of_error(error, folder, "label")


def _outside(
    path: Path,
    examples: Mapping[int, Example],
    choices: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> Iterator[Finding]:
    """Answers that the step cannot give."""
    for field, parameter in choices.items():
        allowed = [str(value) for value in parameters.get(parameter, ())]
        for line, example in examples.items():
            value = str(example.expected.get(field))
            if allowed and value not in allowed:
                message = f"{unknown_name(field, value, allowed)} (of {parameter} in {path.stem}'s parameters)"
                yield Finding("error", "label", path, line, message)


def _in_both(
    folder: Path, step: str, measured: Mapping[int, Example], shown: Mapping[int, Example]
) -> Iterator[Finding]:
    """Texts that are shown to models and measured on: their answers would be known beforehand."""
    lines = {normalised(example.text): line for line, example in measured.items()}
    for line, example in shown.items():
        if (other := lines.get(normalised(example.text))) is not None:
            message = (
                f"the text of '{example.id}' stands in {step}.jsonl, line {other}, too; what is shown to a model "
                "proves nothing about it, so take it out of one of the two"
            )
            yield Finding(
                "error", "shown and measured", folder / f"{step}{EXAMPLES}.jsonl", line, message
            )
