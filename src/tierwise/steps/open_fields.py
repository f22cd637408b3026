"""A step by field after some fields are kept: the question for the open ones alone.

Schema and parameter `fields` are cut down to the open fields. An answer to them is merged with the
kept fields before it is validated, so that the output model's validators and the checks always see
a whole output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import AliasChoices, BaseModel, TypeAdapter, ValidationError

from tierwise.records import FieldSource, Verdict
from tierwise.steps.step import Parsed, Step
from tierwise.text.half_characters import without_escaped_halves
from tierwise.text.json_objects import repeated_key

_OBJECT = TypeAdapter(dict[str, Any])
_DEFINITION = "#/$defs/"
# The parameter that describes the output's fields to the prompt.
FIELDS = "fields"


@dataclass(frozen=True, slots=True)
class FieldValue:
    """One field of an output as plain JSON data, with its source.

    `entries` are the field as the model wrote it, by its key; none where a default stands for it.
    """

    value: Any = field(repr=False)
    source: FieldSource
    entries: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class OpenFieldsStep(Step):
    """A step as it is asked for its open fields alone.

    `given` are the other fields as the models wrote them, by their keys in the schema.
    """

    asked: tuple[str, ...]
    given: Mapping[str, Any] = field(repr=False)

    def schema(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON schema for a call, with the open fields alone."""
        schema = super().schema(parameters)
        if "properties" not in schema:
            return schema  # a model that contains itself: its schema is a reference
        keys = {key_of(self.returns, name) for name in self.asked}
        properties = schema["properties"]
        schema["properties"] = {
            key: value for key, value in properties.items() if key in keys
        }
        schema["required"] = list(schema["properties"])
        return _without_unused(schema)

    def output_in(self, part: str) -> BaseModel | Verdict:
        """Return the whole output: the open fields of a JSON object, and the given ones."""
        text = without_escaped_halves(part)
        try:
            answer = _OBJECT.validate_json(text)
        except ValidationError:
            return super().output_in(part)  # says what is wrong with it
        key = repeated_key(part)
        if key is not None:
            return Verdict(
                "schema", False, f"{key}: given twice, with different values"
            )
        asked = {key_of(self.returns, name) for name in self.asked}
        # A model that may be filled by name takes that, too.
        asked.update(self.asked)
        entries = {key: value for key, value in answer.items() if key in asked}
        return super().output_in(json.dumps({**self.given, **entries}))


def ask_for_open(step: Step, given: Mapping[str, FieldValue]) -> Step:
    """Return the step as it is asked for all fields but the given ones."""
    if not given:
        return step
    values = {each.name: getattr(step, each.name) for each in fields(Step)}
    entries: dict[str, Any] = {}
    for value in given.values():
        entries.update(value.entries)
    asked = tuple(name for name in step.returns.model_fields if name not in given)
    return OpenFieldsStep(**values, asked=asked, given=entries)


def asked_fields(step: Step) -> tuple[str, ...]:
    """Return the names of the fields that a step's question is about."""
    if isinstance(step, OpenFieldsStep):
        return step.asked
    return tuple(step.returns.model_fields)


def cut_down(
    parameters: Mapping[str, Any], step: Step, given: AbstractSet[str]
) -> Mapping[str, Any]:
    """Return the parameters with a parameter `fields` that says nothing of the given fields.

    It is a mapping of names, a list of names, or a list of mappings with a `name`.
    """
    described = parameters.get(FIELDS)
    names = given & step.returns.model_fields.keys()
    closed = names | {key_of(step.returns, name) for name in names}
    cut: Any = described
    if isinstance(described, Mapping):
        cut = {name: text for name, text in described.items() if name not in closed}
    elif isinstance(described, list | tuple):
        cut = [each for each in described if _name_in(each) not in closed]
    if cut is described:
        return parameters
    return {**parameters, FIELDS: cut}


def field_values(
    step: Step,
    parsed: Parsed,
    source: FieldSource,
    confidences: Mapping[str, float] | None,
) -> dict[str, FieldValue]:
    """Return the fields that an answer gives, each with its confidence where it is known."""
    answer = _OBJECT.validate_json(without_escaped_halves(parsed.part))
    values = parsed.output.model_dump(mode="json")
    given: dict[str, FieldValue] = {}
    for name in asked_fields(step):
        key = key_of(step.returns, name)
        if key not in answer:
            key = name
        entries = {key: answer[key]} if key in answer else {}
        confidence = (confidences or {}).get(key)
        own = FieldSource(source.model, source.attempt, confidence)
        given[name] = FieldValue(values.get(name), own, entries)
    return given


def key_of(model: type[BaseModel], name: str) -> str:
    """Return the key of a field in the JSON schema of its model."""
    info = model.model_fields[name]
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        alias = next((each for each in alias.choices if isinstance(each, str)), None)
    return alias if isinstance(alias, str) else name


def _name_in(described: Any) -> Any:
    """Return the name of a described field: a text itself, or the `name` of a mapping."""
    name = described.get("name") if isinstance(described, Mapping) else described
    return name if isinstance(name, str) else None


def _without_unused(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without the definitions that nothing refers to any more."""
    definitions = schema.pop("$defs", {})
    used: dict[str, Any] = {}
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name in definitions and name not in used:
            used[name] = definitions[name]
            waiting.extend(_references(definitions[name]))
    if used:
        schema["$defs"] = used
    return schema


def _references(node: Any) -> Iterator[str]:
    """Yield the names of all definitions that a schema refers to."""
    if isinstance(node, Mapping):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith(_DEFINITION):
            yield reference.removeprefix(_DEFINITION)
        for item in node.values():
            yield from _references(item)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for item in node:
            yield from _references(item)
