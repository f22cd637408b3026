"""LLM as a judge: a stronger model applies a rubric, and human labels validate it.

A judge never certifies alone. What is certified is P(right) >= P(passed) - P(passed and wrong). The
first comes from the judge's verdicts on the whole golden set, the second from human labels of a
random sample of the same answers. That a test's errors can be measured on a few and subtracted for
many is from Rogan and Gladen, "Estimating prevalence from the results of a screening test",
Am. J. Epidemiol. 1978. Their estimator is not used here, but two exact bounds at half the level
each, which need no large numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, StrictBool, ValidationError, create_model

from tierwise.cascade import Job, RunContext
from tierwise.engine import Engine
from tierwise.errors import ConfigError, Misuse
from tierwise.records import Document, Outcome, text_hash
from tierwise.steps.correctness import Rubric
from tierwise.steps.examples import Example
from tierwise.steps.step import Step
from tierwise.text.rows import Row, json_lines, read_rows
from tierwise.text.settings import Settings

PROMPT = "judge"

# The judge's verdict on one criterion. Its name is in the JSON schema of every judge call, and so
# in the hash by which a paid reply is found again: with another name, all are paid once more.
CriterionVerdict = create_model(
    "Finding", reason=(str, Field(max_length=300)), met=(bool, ...)
)


class HumanLabel(Settings):
    """A person's verdict on one answer; `right` is None until a person has given it."""

    id: str
    answer: str  # the text, or its SHA-256 (hex)
    right: StrictBool | None = None
    by: str = ""
    text: str = ""  # the document, for the person who labels


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeValidation:
    """A judge's verdicts on one candidate's answers, compared with human labels."""

    by: str
    # answers whose verdict could not be read; they count as not passed
    unscored: int = 0
    human_labels: int = 0
    open_labels: int = 0  # asked for, and not given yet
    false_passes: int = 0  # labelled answers that the judge passed and that are wrong


def check_judge(engine: Engine, judge: str, models: Iterable[str]) -> None:
    """Raise Misuse unless the judge is available, and another and stronger model than each."""
    catalog = engine.policy.catalog
    judging_model = catalog.model(judge)
    identities = engine.project.identities(engine.env).known
    reason = engine.policy.unavailable.get(judge)
    if reason:
        raise Misuse(f"the judge {judge} is unavailable: {reason}")
    for name in models:
        model = catalog.model(name)
        is_same = identities.get(name) == identities.get(judge)
        if name == judge or is_same:
            raise Misuse(
                f"{judge} would judge itself; name another model as the judge of {name}"
            )
        if model.strength >= judging_model.strength:
            raise Misuse(
                f"the judge {judge} (strength {judging_model.strength}) "
                f"must be stronger than {name} ({model.strength})"
            )


def judge_job(
    engine: Engine, run: RunContext, step: Step, rubric: Rubric, judge: str
) -> Job:
    """Return the job that has answers to a step judged, one document of `judge_document` each.

    It has the judged step's name, so that every guard for that step applies to its judge too.
    """
    criteria = {f"criterion_{n}": text for n, text in enumerate(rubric.criteria, 1)}
    fields: dict[str, Any] = dict.fromkeys(criteria, (CriterionVerdict, ...))
    returns = create_model("Judgement", **fields)
    judging_step = Step(name=step.name, returns=returns, prompt=PROMPT)
    parameters = {"criteria": criteria, "judged": step.name}
    job = engine.job(run, judging_step, parameters, models=(judge,))
    return replace(job, kind="judge", selector=None)


def judge_document(example: Example, outcome: Outcome) -> Document:
    """Return the judge's input: the document, the answer as its outcome, and the right answer."""
    metadata = {}
    if example.expected:
        metadata["notes"] = json.dumps(example.expected, ensure_ascii=False)
    return replace(example.document(), metadata=metadata).with_outcome(outcome)


def passes_rubric(outcome: Outcome) -> bool | None:
    """Return True if the judge found every criterion met; None if its verdict is unreadable."""
    if outcome.status != "accepted":
        return None
    verdicts = outcome.value.values()  # one for each criterion
    return all(verdict["met"] for verdict in verdicts)


def answer_text(value: Mapping[str, Any]) -> str:
    """Return an answer for people: its text where it has one field, else indented JSON."""
    fields = list(value.values())
    if len(fields) == 1 and isinstance(fields[0], str):
        return fields[0]
    return json.dumps(value, indent=2, ensure_ascii=False)


def with_human_labels(
    labels: Sequence[HumanLabel],
    answers: Mapping[str, Mapping[str, Any]],
    passed: Mapping[str, bool],
    validation: JudgeValidation,
) -> JudgeValidation:
    """Return `validation` with the counts of the human labels for these very answers.

    `answers` and `passed`, the judge's verdicts, are by the examples' ids.
    """
    texts = {name: answer_text(value) for name, value in answers.items()}
    given = []
    open_labels = 0
    for label in labels:
        text = texts.get(label.id)
        if text is None or label.answer not in (text, text_hash(text)):
            continue  # the label is for another answer
        if label.right is None:
            open_labels += 1
        else:
            given.append(label)
    return replace(
        validation,
        human_labels=len(given),
        open_labels=open_labels,
        false_passes=sum(passed[label.id] and not label.right for label in given),
    )


def select_for_labelling(
    examples: Sequence[Example], answers: Mapping[str, Mapping[str, Any]], count: int
) -> list[HumanLabel]:
    """Return up to `count` answers for human labelling, picked at random.

    The hash of the id picks them, so that a second call picks the same ones.
    """
    answered = [example for example in examples if example.id in answers]
    answered.sort(key=lambda example: text_hash(f"label {example.id}"))
    return [
        HumanLabel(
            id=example.id, text=example.text, answer=answer_text(answers[example.id])
        )
        for example in answered[:count]
    ]


def load_labels(path: Path) -> tuple[HumanLabel, ...]:
    """Return the labels of a `golden/<step>-labels.jsonl`; none where there is no such file.

    Raises ConfigError with file and line.
    """
    if not path.exists():
        return ()
    labels: list[HumanLabel] = []
    lines: dict[tuple[str, str], int] = {}
    for line, row in read_rows(path):
        if isinstance(row, ConfigError):
            raise row
        label = _label(row, path, line)
        key = (label.id, label.answer)
        if key in lines:
            message = f"this answer to '{label.id}' is already on line {lines[key]}"
            raise ConfigError(message, path=path, line=line)
        lines[key] = line
        labels.append(label)
    return tuple(labels)


def _label(row: Row, path: Path, line: int) -> HumanLabel:
    try:
        label = HumanLabel.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = f"not a label ({place}: {first['msg']}); it has id, answer, right, by"
        raise ConfigError(message, path=path, line=line) from None
    if label.right is not None and not label.by.strip():
        raise ConfigError("say in `by` who looked at the answer", path=path, line=line)
    return label


def add_labels(path: Path, wanted: Iterable[HumanLabel]) -> int:
    """Append answers for human labelling and return how many were not in the file before."""
    present = {(label.id, label.answer) for label in load_labels(path)}
    new = []
    for label in wanted:
        # the file may have the answer, or its hash alone
        keys = {(label.id, label.answer), (label.id, text_hash(label.answer))}
        if not present & keys:
            new.append(label.model_dump())
    before = ""
    if path.exists():
        before = path.read_text(encoding="utf-8").rstrip("\n")
    if before:
        before += "\n"
    path.write_text(before + json_lines(new), encoding="utf-8")
    return len(new)
