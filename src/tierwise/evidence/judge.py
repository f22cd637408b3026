"""A judge: a stronger model that goes through a rubric, and the labels by people that it is held against.

A judge never certifies alone. What is certified is P(right) >= P(passed) - P(passed and wrong): the first
from the judge's verdicts on the whole golden set, the second from a person's on some of the same answers,
chosen by chance. That a test's errors can be measured on a few and taken off what it says of many is from
Rogan and Gladen, "Estimating prevalence from the results of a screening test", Am. J. Epidemiol. 1978; their
estimator is not used here, but two exact bounds at half the level each, which need no large numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, StrictBool, ValidationError, create_model

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


class Finding(BaseModel):
    """What a judge says of one criterion."""

    reason: str = Field(max_length=300)
    met: bool


class Label(Settings):
    """What a person says of one answer; `right` is None as long as nobody has looked."""

    id: str
    answer: str  # the text, or its SHA-256 (hex)
    right: StrictBool | None = None
    by: str = ""
    text: str = ""  # the document, for the person who labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a judge and people said of one candidate's answers."""

    by: str
    unscored: int = 0  # answers whose verdict could not be read; they count as not passed
    human_labels: int = 0
    open_labels: int = 0  # asked for, and not given yet
    false_passes: int = 0  # of the labelled answers, those that count as right and are not


def refuse_weak(engine: Engine, judge: str, models: Iterable[str]) -> None:
    """Raises Misuse unless the judge is another model than each of these, available, and declared stronger."""
    catalog = engine.policy.catalog
    chair = catalog.model(judge)
    if reason := engine.policy.unavailable.get(judge):
        raise Misuse(f"the judge {judge} is unavailable: {reason}")
    for model in map(catalog.model, models):
        if model.name == judge or model.identity == chair.identity:
            raise Misuse(
                f"{judge} would judge itself; name another model as the judge of {model.name}"
            )
        if model.strength >= chair.strength:
            raise Misuse(
                f"the judge {judge} (strength {chair.strength}) must be stronger than {model.name} ({model.strength})"
            )


def judging(engine: Engine, run: RunContext, step: Step, rubric: Rubric, judge: str) -> Job:
    """The job that asks a judge about answers to a step, one document from `brief` each.

    It goes by the judged step's name, so that every guard for that step holds for its judge too.
    """
    criteria = {f"criterion_{n}": text for n, text in enumerate(rubric.criteria, 1)}
    fields: dict[str, Any] = dict.fromkeys(criteria, (Finding, ...))
    asked = Step(name=step.name, returns=create_model("Judgement", **fields), prompt=PROMPT)
    job = engine.job(run, asked, {"criteria": criteria, "judged": step.name}, models=(judge,))
    return replace(job, kind="judge", selector=None)


def brief(example: Example, outcome: Outcome) -> Document:
    """What a judge is shown: the document, the answer as its outcome, and what is expected of a right one."""
    notes = {"notes": json.dumps(example.expected, ensure_ascii=False)} if example.expected else {}
    return replace(example.document(), metadata=notes).with_outcome(outcome)


def passed(outcome: Outcome) -> bool | None:
    """Whether a judge says yes to every criterion; None where its verdict could not be read."""
    if outcome.status != "accepted":
        return None
    return all(finding["met"] for finding in outcome.value.values())


def answer_text(value: Mapping[str, Any]) -> str:
    """An answer as people read it: its text where it has one field, else indented JSON."""
    texts = list(value.values())
    if len(texts) == 1 and isinstance(texts[0], str):
        return texts[0]
    return json.dumps(value, indent=2, ensure_ascii=False)


def held_against(
    labels: Sequence[Label],
    answers: Mapping[str, Mapping[str, Any]],
    right: Mapping[str, bool],
    judged: Judged,
) -> Judged:
    """`judged` with what people say of these very answers (by id), `right` being what the judge made of them."""
    texts = {name: answer_text(value) for name, value in answers.items()}
    mine = [
        label
        for label in labels
        if label.id in texts and label.answer in (texts[label.id], text_hash(texts[label.id]))
    ]
    given = [label for label in mine if label.right is not None]
    return replace(
        judged,
        human_labels=len(given),
        open_labels=len(mine) - len(given),
        false_passes=sum(right[label.id] and not label.right for label in given),
    )


def to_label(
    examples: Sequence[Example], answers: Mapping[str, Mapping[str, Any]], count: int
) -> list[Label]:
    """The answers that a person should label, chosen by the hash of their ids: by chance, the same ones every time."""
    chosen = sorted(
        (e for e in examples if e.id in answers), key=lambda e: text_hash(f"label {e.id}")
    )[:count]
    return [Label(id=e.id, text=e.text, answer=answer_text(answers[e.id])) for e in chosen]


def load_labels(path: Path) -> tuple[Label, ...]:
    """Return the labels of a `golden/<step>-labels.jsonl`; none where there is no such file.

    Raises ConfigError with file and line.
    """
    if not path.exists():
        return ()
    labels: list[Label] = []
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


def _label(row: Row, path: Path, line: int) -> Label:
    try:
        label = Label.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = f"not a label ({place}: {first['msg']}); it has id, answer, right, by"
        raise ConfigError(message, path=path, line=line) from None
    if label.right is not None and not label.by.strip():
        raise ConfigError("say in `by` who looked at the answer", path=path, line=line)
    return label


def add_labels(path: Path, wanted: Iterable[Label]) -> int:
    """Append answers for a person to label and return how many were not in the file before."""
    present = {(label.id, label.answer) for label in load_labels(path)}
    new = []
    for label in wanted:
        forms = {(label.id, label.answer), (label.id, text_hash(label.answer))}
        if not present & forms:
            new.append(label.model_dump())
    before = path.read_text(encoding="utf-8").rstrip("\n") if path.exists() else ""
    if before:
        before += "\n"
    path.write_text(before + json_lines(new), encoding="utf-8")
    return len(new)
