"""What is not known while planning: outcomes that no model has given yet, and conditions that look at them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tierwise.cascade.parts import merged_outcome
from tierwise.records import Document, Outcome
from tierwise.steps.step import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed(Outcome):
    """An outcome as it may become; its value only has the right shape and length. `chance` is that of acceptance."""

    chance: float = 1.0


class _NotKnownYet(Exception):
    """Code of a flow looked at an assumed outcome."""


class _Watched(Mapping[str, Outcome]):
    """Outcomes that notice when somebody looks at an assumed one."""

    def __init__(self, outcomes: Mapping[str, Outcome]) -> None:
        self._outcomes = outcomes
        self.touched = False

    def __getitem__(self, step: str) -> Outcome:
        outcome = self._outcomes[step]
        if isinstance(outcome, Assumed):
            self.touched = True
            raise _NotKnownYet(step)
        return outcome

    def __iter__(self) -> Iterator[str]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)


def applies(only: Callable[[Document], bool], document: Document) -> bool | None:
    """Whether a step applies to a document; None when that depends on an outcome that nobody knows yet.

    Raises what `only` raises over outcomes that are known.
    """
    watched = _Watched(document.outcomes)
    try:
        answer = bool(only(replace(document, outcomes=watched)))
    except Exception:
        if not watched.touched:  # a flow's own code may fail in any way on what is not there yet
            raise
        return None
    return None if watched.touched else answer


def chance(document: Document) -> float:
    """How likely a document gets past all assumed outcomes."""
    product = 1.0
    for outcome in document.outcomes.values():
        if isinstance(outcome, Assumed):
            product *= outcome.chance
    return product


def assumed_steps(document: Document) -> frozenset[str]:
    """The steps whose outcomes are not known."""
    return frozenset(
        step for step, outcome in document.outcomes.items() if isinstance(outcome, Assumed)
    )


def assumed_of(step: Step, outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a document in parts: assumed, where a part's is, and as likely as all of them together."""
    whole = merged_outcome(step, outcomes)
    assumed = [outcome for outcome in outcomes if isinstance(outcome, Assumed)]
    if whole.status != "accepted" or not assumed:
        return whole
    return replace(
        assumed[0], value=whole.value, chance=math.prod(outcome.chance for outcome in assumed)
    )


def stand_in(schema: Mapping[str, Any], tokens: int) -> Any:
    """A value of a schema's shape that is about `tokens` long, so that later prompts render and can be counted."""
    texts = max(1, _texts(schema, schema.get("$defs") or {}))
    return _value(schema, schema.get("$defs") or {}, max(1, tokens // texts))


def _texts(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> int:
    """How many free strings a value has."""
    node = _plain(node, definitions)
    if node.get("type") == "object":
        return sum(_texts(part, definitions) for part in (node.get("properties") or {}).values())
    if node.get("type") == "array":
        return _texts(node.get("items") or {}, definitions)
    return int(node.get("type") == "string" and "enum" not in node and "const" not in node)


def _value(node: Mapping[str, Any], definitions: Mapping[str, Any], words: int) -> Any:
    node = _plain(node, definitions)
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return node["enum"][0]
    match node.get("type"):
        case "object":
            return {
                name: _value(part, definitions, words)
                for name, part in (node.get("properties") or {}).items()
            }
        case "array":
            return [_value(node.get("items") or {}, definitions, words)] * int(
                node.get("minItems", 1)
            )
        case "integer" | "number":
            return node.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return ("word " * words).strip()[: node.get("maxLength")]


def _plain(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node without references, and of alternatives the first that is not null."""
    while True:
        if "$ref" in node:
            node = definitions[node["$ref"].rpartition("/")[2]]
        elif ways := node.get("anyOf") or node.get("oneOf") or node.get("allOf"):
            node = next((way for way in ways if way.get("type") != "null"), ways[0])
        else:
            return node
