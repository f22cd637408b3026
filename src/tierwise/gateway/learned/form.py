"""The output that a step expects of a classifier, read from its JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tierwise.errors import Misuse
from tierwise.gateway.learned.passages import LONGEST


@dataclass(frozen=True, slots=True)
class Form:
    """The label's field, the labels that it may have, and the characters that `evidence` may have.

    `evidence` is 0 where the step wants none.
    """

    field: str
    labels: tuple[str, ...]
    evidence: int


def form_of(schema: Mapping[str, Any]) -> Form:
    """Return the form of an output: one field with fixed values, perhaps `evidence`, no other.

    Raises Misuse when a classifier cannot fill it in.
    """
    properties: dict[str, Mapping[str, Any]] = dict(schema.get("properties", {}))
    evidence = properties.pop("evidence", None)
    if evidence is not None and evidence.get("type") != "string":
        raise Misuse(
            "a learned model gives `evidence` as text, and this step wants something else"
        )
    choices = [name for name, kind in properties.items() if _is_choice_of_texts(kind)]
    if not choices:
        raise Misuse(
            "a learned model chooses one of some fixed texts, "
            "and no field of this step's output has such"
        )
    field = choices[0]
    others = sorted(properties.keys() - {field})
    if others:
        names = ", ".join(f"`{name}`" for name in others)
        raise Misuse(
            f"a learned model gives one label and `evidence`; this step also wants {names}"
        )
    longest = 0
    if evidence is not None:
        longest = min(LONGEST, evidence.get("maxLength", LONGEST))
    return Form(field, labels=tuple(properties[field]["enum"]), evidence=longest)


def _is_choice_of_texts(kind: Mapping[str, Any]) -> bool:
    values = kind.get("enum")
    return values is not None and all(isinstance(value, str) for value in values)
