"""Step: one named kind of work for a language model, with its output, prompt and checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

from pydantic import BaseModel, RootModel, ValidationError

from tierwise.errors import Misuse, UnknownName, describe_exception
from tierwise.records import Verdict, canonical_hash
from tierwise.steps.checks import Check
from tierwise.steps.code import code_hash
from tierwise.steps.own_work import OwnWork
from tierwise.text.half_characters import without_escaped_halves
from tierwise.text.json_objects import find_objects, repeated_key
from tierwise.text.thoughts import without_thoughts

# Keywords of JSON schema that the structured output of some vendors refuses.
_LIMITS = {
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
}
# (the output's fields, the expected fields of a golden example) -> True if the output is right
Correct = Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
# (the outputs for a document's parts, in order) -> the output for the document
Gather = Callable[[Sequence[Any]], BaseModel]
Stakes = Literal["low", "normal", "high"]


@dataclass(frozen=True)
class Parsed:
    """An output, and the JSON object of the answer that it was read from."""

    output: BaseModel
    part: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One named kind of work.

    - `choices` limits output fields to the values of a parameter: `{"label": "labels"}` puts the
      labels into the JSON schema.
    - A step that `splits` processes a document longer than a model's context window in parts, and
      then combines the results in one more call (map-reduce).
    - A step that `gathers` takes the parameter `part_tokens`. A longer document is processed in
      parts. Each part is routed, checked and paid like a document, and `gathers` merges the outputs.
    - A step that is `by_field` is judged field by field: fields that pass are kept, and the next
      model is asked for the others alone. It answers in one call, so it neither splits nor gathers.
    - A step with `own` has no model and no prompt: the project does its work itself.
    - A step that `sees_pages` shows the document's pages to models with `vision` in the catalog, in
      addition to its text. Others get the text alone; so do parts of a document.

    Raises UnknownName if `choices` or `splits` names a field that the output does not have.
    """

    name: str
    returns: type[BaseModel]
    prompt: str
    checks: tuple[Check, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)
    # the output field whose texts are joined for the reduce call
    splits: str | None = None
    gathers: Gather | None = None
    # whether models that see are shown the document's pages
    sees_pages: bool = False
    # whether the output's fields are judged, kept and sent on one by one
    by_field: bool = False
    own: OwnWork | None = None
    stakes: Stakes = "normal"
    correct: Correct | None = None  # compares an output with a golden example

    def __post_init__(self) -> None:
        for check in self.checks:
            if not isinstance(check, Check):
                name = getattr(check, "__name__", repr(check))
                raise Misuse(
                    f"the step {self.name} lists {name} in `checks`, which is no check; "
                    'write `@check("name")` above the function'
                )
        if self.by_field and (self.splits or self.gathers):
            setting = "splits" if self.splits else "gathers"
            raise Misuse(
                f"the step {self.name} has `by_field` and `{setting}`; a step by field answers in "
                "one call, so leave one of them out"
            )
        fields = self.returns.model_fields
        if self.by_field and issubclass(self.returns, RootModel):
            raise Misuse(
                f"the step {self.name} is by field, and {self.returns.__name__} is a RootModel, "
                "which has no named fields; give it an output model with fields"
            )
        names = list(self.choices)
        if self.splits:
            names.append(self.splits)
        for name in names:
            if name not in fields:
                raise UnknownName(f"field of {self.returns.__name__}", name, fields)

    def require_model(self, purpose: str) -> None:
        """Raise Misuse for a step without a model; `purpose` says what it would be needed for."""
        if self.own is not None:
            raise Misuse(
                f"the step {self.name} has no model ({self.own.kind}); there is nothing to {purpose}"
            )

    @cached_property
    def base_schema(self) -> dict[str, Any]:
        """Return the strict JSON schema of the output: every field is required, others are refused."""
        return _strict_schema(self.returns)

    def schema(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON schema for a call, with the values that `choices` allow."""
        schema = deepcopy(self.base_schema)  # the base is shared by all calls
        for name, parameter in self.choices.items():
            if parameter in parameters:
                schema["properties"][name]["enum"] = list(parameters[parameter])
        return schema

    @cached_property
    def code(self) -> str:
        """The hash of the code that accepts or refuses answers: checks, output model, gathering."""
        functions = [(check.name, check.function) for check in self.checks]
        return code_hash(functions, self.returns, self.gathers)

    def hash(self, parameters: Mapping[str, Any]) -> str:
        """Return the SHA-256 (hex) of all that decides which answers are accepted.

        That is the schema, the code of the checks, and the parameters. A certificate is valid for
        one such hash.
        """
        parts: list[object] = [
            self.name,
            self.schema(parameters),
            [check.name for check in self.checks],
            self.code,
            self.splits,
            dict(parameters),
        ]
        # Other steps keep the hash that they had before there were such steps.
        if self.sees_pages:
            parts.append("sees pages")
        if self.own is not None:
            parts.append([self.own.kind, self.own.code])
        if self.by_field:
            parts.append("by field")
        return canonical_hash(parts)

    def question(self, parameters: Mapping[str, Any]) -> str:
        """Return the SHA-256 (hex) of the question itself: the schema and the parameters.

        A human answer stays valid for the same question when prompt, checks or models change.
        """
        return canonical_hash([self.name, self.schema(parameters), dict(parameters)])

    def parse(self, text: str) -> BaseModel | Verdict:
        """Return the output in an answer, or the failed verdict `schema` with the reason."""
        parsed = self.parsed(text)
        return parsed if isinstance(parsed, Verdict) else parsed.output

    def parsed(self, text: str) -> Parsed | Verdict:
        """Return the output in an answer and its JSON object, or the failed verdict `schema`.

        Every JSON object that fits counts. Where two of them differ, the answer is ambiguous, and
        none is taken: one may be a draft, a counter-example, or quoted from the document.
        """
        answer = without_thoughts(text).answer
        verdict = _malformed("the answer holds no JSON object")
        outputs: list[BaseModel] = []
        parts: list[str] = []
        for part in json_parts(answer):
            output = self.output_in(part)
            if isinstance(output, Verdict):
                verdict = output
            elif output not in outputs:
                outputs.append(output)
                parts.append(part)
        if not outputs:
            return verdict
        if len(outputs) > 1:
            return _malformed(
                f"the answer holds {len(outputs)} different JSON objects that fit; give one"
            )
        return Parsed(outputs[0], parts[0])

    def output_in(self, part: str) -> BaseModel | Verdict:
        """Return the output in one JSON object, or the failed verdict `schema`."""
        # A function's output, as it is on record, has the fields' own names in place of aliases.
        by_name = True if self.own is not None else None
        try:
            output = self.returns.model_validate_json(
                without_escaped_halves(part), by_alias=True, by_name=by_name
            )
        except ValidationError as error:
            return _malformed(_first_error(error))
        except Exception as error:  # noqa: BLE001 - validators are project code
            return _malformed(
                f"{self.returns.__name__} raised {describe_exception(error)}"
            )
        key = repeated_key(part)
        if key is not None:
            return _malformed(f"{key}: given twice, with different values")
        return output

    def gathered(self, values: Sequence[Any]) -> Any:
        """Merge the outputs for a document's parts, as plain data.

        Raises TypeError for a step without `gathers`.
        """
        if self.gathers is None:
            raise TypeError(f"{self.name} gathers nothing")
        # Outcomes have the fields' own names in place of aliases.
        outputs = [
            self.returns.model_validate(value, by_alias=True, by_name=True)
            for value in values
        ]
        merged = self.gathers(outputs)
        return merged.model_dump(mode="json")


def json_parts(text: str) -> Iterator[str]:
    """Yield all complete JSON objects in an answer, in order.

    Where text with braces follows the last one, or none is complete, the text from the first to the
    last brace is yielded at the end: its fault says what is wrong with the answer.
    """
    objects = find_objects(text)
    for found in objects:
        yield text[found]
    first = text.find("{")
    if first < 0:
        return
    end = text.rfind("}") + 1
    # A complete object that ends at the last brace needs no such text.
    if objects and objects[-1].stop >= end:
        return
    if end > first:
        yield text[first:end]
    else:
        yield text[first:]  # cut off before its closing brace


def _malformed(reason: str) -> Verdict:
    return Verdict("schema", False, reason)


def without_limits(node: Any) -> Any:
    """Return a schema without the limits that structured output of some vendors refuses.

    Answers are validated against the full schema in any case.
    """
    if isinstance(node, list):
        return [without_limits(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        # An object under such a key is an output field of that name.
        if key not in _LIMITS or isinstance(value, dict):
            kept[key] = without_limits(value)
    return kept


def schema_instruction(schema: Mapping[str, Any]) -> str:
    """Return the instruction for a model without native structured output."""
    return (
        "Answer with one JSON object and nothing else. It fits this JSON schema:\n"
        + json.dumps(schema)
    )


def _first_error(error: ValidationError) -> str:
    """Return the first problem, with the path of its field and without the input."""
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    message = first["msg"]
    path = ".".join(str(part) for part in first["loc"])
    if not path:  # the answer as a whole
        return message
    return f"{path}: {message}"


@lru_cache(maxsize=64)
def _strict_schema(output_model: type[BaseModel]) -> dict[str, Any]:
    """Return the strict schema of an output model, which callers copy before they change it."""
    schema: dict[str, Any] = _strict(output_model.model_json_schema())
    return schema


def _strict(node: Any) -> Any:
    """Close every object of a schema, require all its fields, and drop titles and docstrings."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept: dict[str, Any] = {}
    for key, value in node.items():
        # An object under such a key is an output field of that name.
        if key not in ("default", "title") or isinstance(value, dict):
            kept[key] = _strict(value)
    if node.get("type") == "object" and "properties" in node:
        kept["required"] = list(node["properties"])
        kept["additionalProperties"] = False
        kept.pop("description", None)  # the class's docstring
    return kept
