"""People's labels of sampled answers as a golden set, without bias.

A sample was drawn by chance, and half of the samples are counted, by chance again. Only these become
rows, in the order of recording, up to the first without a label: leaving a hard one out would make
every model look better. So a wrong answer needs the right one from a person, and is never skipped.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierwise.errors import ConfigError, Misuse, unknown_name
from tierwise.ledger.people.labels import settled
from tierwise.records import Sensitivity, rank
from tierwise.review.queue import find_metadata, find_texts
from tierwise.steps.examples import read_golden
from tierwise.text.amounts import plural
from tierwise.text.files import write_atomically
from tierwise.text.rows import json_lines, read_rows
from tierwise.text.terms import normalised

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.ledger.people.samples import Audit
    from tierwise.project import Project

SUFFIX = "-sampled"
_MOST_NAMED = 5


@dataclass
class SampledRows:
    """The golden set that was written, and what is not in it."""

    path: Path
    rows: int = 0
    waiting: int = 0  # counted samples from the first without a label on
    left_out: list[tuple[str, str]] = field(default_factory=list)  # document, reason


@dataclass
class _Row:
    """A sample that becomes a row."""

    sample: Audit
    text: str
    sensitivity: Sensitivity
    known: dict[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] | None = None


def write_sampled_rows(
    ledger: Ledger,
    project: Project,
    step: str,
    answers: Mapping[str, str],
    *,
    confidential: bool,
) -> SampledRows:
    """Write golden/STEP-sampled.jsonl from the counted samples of a step.

    `answers` has the right labels of samples of which neither answer is right, by the sample's id;
    those of earlier calls stay. Raises Misuse where one is missing, or nothing is labelled.
    """
    path = project.root / "golden" / f"{step}{SUFFIX}.jsonl"
    label_field, allowed = _label_field(project, step)
    known = _known_answers(path)
    accepted, shadows = _counted(ledger, step)
    labelled: list[Audit] = []
    for sample in accepted:
        if sample.right is None:
            break
        labelled.append(sample)
    if not labelled:
        raise Misuse(
            f"no counted sample of {step} is labelled; write `shadow: {{share: 0.05}}` into "
            "rules.yaml, run a flow, and label with `tierwise label`"
        )
    result = SampledRows(path, waiting=len(accepted) - len(labelled))
    included = _included(ledger, project, step, labelled, result, confidential)
    by_people = _answers_of_people(ledger, step)
    missing = []
    for row in included:
        given = answers.get(row.sample.item)
        if given is not None and given not in allowed:
            raise Misuse(unknown_name("label", given, allowed))
        row.expected = _right_answer(row.sample, shadows.get(row.sample.item))
        if row.expected is None and given is not None:
            row.expected = {label_field: given}
        if row.expected is None:
            row.expected = by_people.get(row.sample.item)
        if row.expected is None:
            row.expected = known.get(row.sample.item)
        if row.expected is None:
            missing.append(row.sample.item)
    if missing:
        more = ", …" if len(missing) > _MOST_NAMED else ""
        raise Misuse(
            f"neither answer of {plural(len(missing), 'sample')} is right "
            f"({', '.join(missing[:_MOST_NAMED])}{more}); leaving them out would flatter every "
            f"model, so give the right label of each: --answer {missing[0]}=LABEL"
        )
    unused = answers.keys() - {sample.item for sample in labelled}
    if unused:
        raise Misuse(
            f"--answer {min(unused)}: no labelled, counted sample of {step} has this id"
        )
    if included:
        rows = _as_json(included)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json_lines(rows).encode("utf-8", "backslashreplace"))
    result.rows = len(included)
    return result


def _counted(ledger: Ledger, step: str) -> tuple[list[Audit], dict[str, Audit]]:
    """Return the counted samples of answers in use, in order, and the shadows' by item."""
    accepted = []
    shadows = {}
    for sample in ledger.samples.of_step(step):
        if not sample.counted:
            continue
        if sample.shadow:
            shadows[sample.item] = sample
        else:
            accepted.append(sample)
    return accepted, shadows


def _right_answer(sample: Audit, shadow: Audit | None) -> Mapping[str, Any] | None:
    """Return the answer that a person called right; None where neither is."""
    if sample.right and sample.value is not None:
        return dict(sample.value)
    if shadow is not None and shadow.right and shadow.value is not None:
        return dict(shadow.value)
    return None


def _answers_of_people(ledger: Ledger, step: str) -> dict[str, Mapping[str, Any]]:
    """Return the right answers that people gave with their labels, by item.

    That of the label that counts; else of another one that says the same.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for item, labels in ledger.samples.labels(step).items():
        counting = settled(labels)
        if counting is None:
            continue
        same = [label for label in labels if label.word == counting.word]
        for label in (*same, counting):
            if isinstance(label.answer, Mapping):
                found[item] = label.answer
    return found


def _known_answers(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return the right answers of an earlier call, by the samples' ids."""
    known = {}
    if path.exists():
        for _, row in read_rows(path):
            if isinstance(row, ConfigError):
                raise row
            if isinstance(row.get("expected"), Mapping):
                known[str(row.get("sample"))] = row["expected"]
    return known


def _included(
    ledger: Ledger,
    project: Project,
    step: str,
    labelled: list[Audit],
    result: SampledRows,
    confidential: bool,
) -> list[_Row]:
    """Return the samples that become rows; why others do not has nothing to do with their label."""
    from tierwise.evidence.distil import may_be_learned_from

    texts: dict[str, str] = {}
    metadata: dict[str, Mapping[str, str]] = {}
    prompt = project.prompts[project.load_step(step).prompt]
    uses_metadata = "metadata" in prompt.variables
    for run_id in dict.fromkeys(sample.run_id for sample in labelled):
        run = ledger.runs.resolve(run_id)
        hashes = {each.document_hash for each in labelled if each.run_id == run_id}
        texts |= find_texts(ledger, project, run, hashes)
        if uses_metadata:
            metadata |= find_metadata(ledger, project, run, hashes)
    shown = _texts_of(project.root / "golden" / f"{step}-examples.jsonl")
    included: list[_Row] = []
    seen: set[str] = set()
    for sample in labelled:
        text = texts.get(sample.document_hash)
        sensitivity, earlier = _outcome_facts(ledger, sample)
        reason = ""
        if text is None:
            reason = "its text is not kept, and not found in the run's source"
        elif rank(sensitivity) >= rank("confidential") and not confidential:
            reason = (
                f"it is {sensitivity}; --include-confidential writes it all the same"
            )
        elif normalised(text) in seen:
            reason = "its text is in a row already"
        elif normalised(text) in shown:
            reason = f"its text is in golden/{step}-examples.jsonl"
        elif may_be_learned_from(project.root, step, text):
            reason = "a classifier may have been taught it: `tierwise distil` chose among such texts"
        if reason or text is None:
            result.left_out.append((sample.document_id, reason))
            continue
        seen.add(normalised(text))
        row = _Row(sample, text, sensitivity)
        if prompt.earlier_steps:
            row.known["outcomes"] = earlier
        if uses_metadata:
            row.known["metadata"] = metadata.get(sample.document_hash, {})
        included.append(row)
    return included


def _as_json(included: list[_Row]) -> list[dict[str, Any]]:
    """Return the rows as they are written, each under an id of its own."""
    rows = []
    ids: set[str] = set()
    for each in included:
        sample = each.sample
        row_id = sample.document_id
        if row_id in ids:
            row_id = f"{sample.document_id}~{sample.item}"
        ids.add(row_id)
        # local time, as the reviewer remembers the day
        labelled_at = datetime.datetime.fromtimestamp(sample.reviewed_at or 0)
        row = {
            "id": row_id,
            "text": each.text,
            "sensitivity": each.sensitivity,
            **each.known,
            "expected": each.expected,
            "sample": sample.item,
            "reviewer": sample.reviewer or "unknown",
            "date": labelled_at.date().isoformat(),
        }
        rows.append(row)
    return rows


def _outcome_facts(ledger: Ledger, sample: Audit) -> tuple[Sensitivity, dict[str, Any]]:
    """Return the sensitivity of a sampled document, and the answers of its earlier steps."""
    sensitivity: Sensitivity = "restricted"
    earlier: dict[str, Any] = {}
    for row in ledger.runs.outcomes(sample.run_id, sample.document_id):
        sensitivity = row.outcome.sensitivity
        if row.outcome.step == sample.step:
            break
        if row.outcome.status == "accepted" and row.outcome.value is not None:
            earlier[row.outcome.step] = row.outcome.value
    return sensitivity, earlier


def _texts_of(path: Path) -> set[str]:
    if not path.exists():
        return set()
    examples, _ = read_golden(path, at_least=0)
    return {normalised(example.text) for example in examples.values()}


def _label_field(project: Project, step: str) -> tuple[str, tuple[str, ...]]:
    """Return the field and the labels of a step that assigns one; neither for other steps."""
    from tierwise.evidence.certify import measured_step
    from tierwise.gateway.learned.form import form_of

    spec, parameters = measured_step(project, step)
    try:
        form = form_of(spec.schema(parameters))
    except Misuse:
        return "", ()
    return form.field, form.labels
