"""The work on a document whose step is by field: what is asked next, and what an answer keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tierwise.cascade.job import Work
from tierwise.policy.kept_fields import NOT_KEPT
from tierwise.policy.rules import LOW_CONFIDENCE
from tierwise.records import FieldSource, Outcome, Verdict
from tierwise.steps.open_fields import (
    FieldValue,
    ask_for_open,
    asked_fields,
    cut_down,
)
from tierwise.steps.step import Step

# Verdicts that a model cannot correct: it is not asked again because of them.
_NO_FAULT = frozenset({LOW_CONFIDENCE, NOT_KEPT})


def asking(
    work: Work,
    *,
    kept: Mapping[str, FieldValue],
    answered: Mapping[str, FieldValue] | None = None,
    keeps: Mapping[str, float | None] | None = None,
) -> Work:
    """Return the work that asks a model for the open fields alone.

    `work` is the document's own. `kept` and `answered` are the fields that are not asked for: kept
    already, or answered by the same model before.
    """
    answered = answered or {}
    given = {**kept, **answered}
    job = work.job
    if given:
        job = replace(job, step=ask_for_open(job.step, given))
    return replace(
        work,
        job=job,
        parameters=cut_down(job.parameters, job.step, given.keys()),
        question=() if given else work.question,
        kept=kept,
        answered=answered,
        keeps=keeps,
    )


def fields_to_reask(work: Work, failed: Sequence[Verdict]) -> tuple[str, ...]:
    """Return the fields that a model is asked again for: those that failed a check.

    All that it was asked for, where a check failed that is about the whole output.
    """
    faults = [verdict for verdict in failed if verdict.check not in _NO_FAULT]
    asked = asked_fields(work.step)
    if any(verdict.field is None for verdict in faults):
        return asked
    names = {verdict.field for verdict in faults}
    return tuple(name for name in asked if name in names)


def is_fault(verdict: Verdict) -> bool:
    """Return True for a failure that a model may correct, if it is told of it."""
    return verdict.check not in _NO_FAULT


def sources_of(kept: Mapping[str, FieldValue]) -> dict[str, FieldSource]:
    """Return the source of each kept field."""
    return {name: value.source for name, value in kept.items()}


def with_fields(
    outcome: Outcome, step: Step, kept: Mapping[str, FieldValue]
) -> Outcome:
    """Return a deferred outcome with the fields that are kept and the names of the open ones."""
    if not step.by_field:
        return outcome
    names = list(step.returns.model_fields)
    value = {name: kept[name].value for name in names if name in kept} or None
    open_fields = tuple(name for name in names if name not in kept)
    return replace(
        outcome, value=value, sources=sources_of(kept), open_fields=open_fields
    )
