"""Which fields of an answer are kept, in a step by field: by their checks, and as the route says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tierwise.policy.rules import LOW_CONFIDENCE
from tierwise.records import Verdict
from tierwise.steps.open_fields import FieldValue

# The verdict on a field that the route keeps of other models alone.
NOT_KEPT = "not_kept"


def keep_verdicts(
    answered: Mapping[str, FieldValue], keeps: Mapping[str, float | None] | None
) -> tuple[Verdict, ...]:
    """Return a failed verdict for each field that a route does not keep of the model's answer.

    `keeps` has the fields that are kept, each with the confidence that it needs (None: any). None
    keeps all. An unknown confidence is not enough.
    """
    if keeps is None:
        return ()
    failed: list[Verdict] = []
    for name, field in answered.items():
        if name not in keeps:
            reason = f"`{name}` of {field.source.model} is not kept on this route"
            failed.append(Verdict(NOT_KEPT, False, reason, field=name))
            continue
        required = keeps[name]
        confidence = field.source.confidence
        if required is None or (confidence is not None and confidence >= required):
            continue
        known = "unknown" if confidence is None else f"{confidence:.3f}"
        reason = f"`{name}`: confidence {known}, {required:.3f} is needed"
        failed.append(
            Verdict(LOW_CONFIDENCE, False, reason, score=confidence, field=name)
        )
    return tuple(failed)


def merge(
    kept: Mapping[str, FieldValue],
    answered: Mapping[str, FieldValue],
    verdicts: Sequence[Verdict],
) -> dict[str, FieldValue]:
    """Return the fields that are kept after an answer to the open ones.

    The verdicts are those on the merged output. A field that fails is open again, whichever model
    gave it; a failure of the whole output opens all fields.
    """
    failed = [verdict for verdict in verdicts if verdict.passed is False]
    if any(verdict.field is None for verdict in failed):
        return {}
    open_again = {verdict.field for verdict in failed}
    merged = {**kept, **answered}
    return {name: field for name, field in merged.items() if name not in open_again}


def may_keep(
    keeps: Mapping[str, float | None] | None, open_fields: Sequence[str]
) -> bool:
    """Return True if any of the open fields would be kept of a model's answer."""
    return keeps is None or any(name in keeps for name in open_fields)
