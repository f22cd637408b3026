"""Golden rows that measure nothing: rows that every answer passes, or that no measure can read.

A measure is a function, often the project's own. Its fields are known by no declaration, so it is
tried: on answers that fit the step's schema and have nothing to do with any document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tierwise.errors import describe_exception, unknown_name
from tierwise.steps.correctness import Rubric
from tierwise.steps.step import Correct, Step

# words of no language, so that no expected text contains them
_FOREIGN_TEXT = "Qxwv zkjtb fghq"
_FOREIGN_NUMBER = 987_654_321
_DEEPEST = 8  # a schema may contain itself


class _Observed(dict[str, Any]):
    """A mapping that records which of its keys are read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: dict[str, None] = {}  # a set in the order of reading

    def __getitem__(self, key: str) -> Any:
        self.read[key] = None
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.read[str(key)] = None
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read[key] = None
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        self._read_all()
        return super().__iter__()

    def keys(self) -> Any:
        self._read_all()
        return super().keys()

    def values(self) -> Any:
        self._read_all()
        return super().values()

    def items(self) -> Any:
        self._read_all()
        return super().items()

    def _read_all(self) -> None:
        self.read.update(dict.fromkeys(super().keys()))


@dataclass(frozen=True)
class Reading:
    """The fields that a measure read of an answer and of an expected answer."""

    given: tuple[str, ...]
    expected: tuple[str, ...]


@dataclass(frozen=True)
class _Filling:
    """The values of an invented answer, by type."""

    text: str
    number: int
    truth: bool
    # an empty answer has empty lists, and null where that is allowed
    empty: bool


@dataclass(frozen=True)
class _Trial:
    """A measure's results on the invented answers."""

    reading: Reading
    results: tuple[bool, ...]
    errors: tuple[Exception, ...]

    @property
    def always_right(self) -> bool:
        """True if every invented answer was right."""
        return all(self.results) and not self.errors


def observe(
    measure: Correct, given: Mapping[str, Any], expected: Mapping[str, Any]
) -> tuple[bool | Exception, Reading]:
    """Return a measure's result, or what it raised, and the fields that it read."""
    observed_given = _Observed(given)
    observed_expected = _Observed(expected)
    result: bool | Exception
    try:
        result = bool(measure(observed_given, observed_expected))
    except Exception as error:  # noqa: BLE001 - a measure is the project's code
        result = _without_own_frames(error)
    return result, Reading(tuple(observed_given.read), tuple(observed_expected.read))


def accepts_every_answer(step: Step, expected: Mapping[str, Any]) -> bool:
    """Return True if the step's measure finds every answer right, whatever it says."""
    measure = _measure_of(step)
    if measure is None:  # a judge alone, or no measure at all
        return False
    trial = _try(measure, step, {}, expected)
    return trial.always_right


def row_fault(
    step: Step, parameters: Mapping[str, Any], expected: Mapping[str, Any]
) -> str | None:
    """Return why a golden row measures nothing for a step, with the remedy; None for a sound row.

    A row for a rubric may leave everything to the judge, so there it only has to be readable.
    """
    measure = _measure_of(step)
    if measure is None:
        return None
    trial = _try(measure, step, parameters, expected)
    # first, as a measure that looks for no field of an answer explains all that follows
    unknown = _unknown_field(step, trial.reading, expected)
    if unknown:
        return unknown
    if trial.errors and not trial.results:
        raised = describe_exception(trial.errors[0])
        return (
            f"no answer can be compared with this row: the measure of {step.name} raised {raised}; "
            f"{_fields(trial, expected)}; write the row as that function reads it"
        )
    if isinstance(step.correct, Rubric):
        return None
    if trial.always_right:
        return (
            "every answer passes this row, so it proves nothing: "
            f"{_fields(trial, expected, step)}; "
            "write what a right answer needs, or take the row out"
        )
    # The invented answers may all be wrong by right. A fault needs one sign more: the measure looks
    # for fields, and the row has none of them.
    reads_none = not set(trial.reading.expected) & set(expected)
    looks_for_others = bool(trial.reading.expected) or not expected
    always_wrong = not any(trial.results)
    if reads_none and always_wrong and looks_for_others:
        return (
            "no answer is right for this row: "
            f"{_fields(trial, expected, step)}; write the right answer, or take the row out"
        )
    return None


def approved_fault(step: Step, value: Mapping[str, Any]) -> str | None:
    """Return why an approved answer is not right by a row that is made of it; None if it is right."""
    measure = _measure_of(step)
    if measure is None:
        return None
    result, reading = observe(measure, value, value)
    if result is True:
        return None
    found = "finds it wrong"
    if isinstance(result, Exception):
        found = f"raised {describe_exception(result)}"
    reads = ", ".join(reading.expected) or "nothing"
    return (
        "an answer is no row of its golden set: compared with itself, "
        f"the measure of {step.name} {found} (it reads {reads} of a row); write the row by hand"
    )


def _without_own_frames(error: Exception) -> Exception:
    """Cut a traceback off where it enters this file again, so that it ends in the measure."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        if frame.tb_next.tb_frame.f_code.co_filename == __file__:
            frame.tb_next = None
            break
        frame = frame.tb_next
    return error


def _measure_of(step: Step) -> Correct | None:
    """Return the part of a step's measure that needs no judge."""
    if isinstance(step.correct, Rubric):
        return step.correct.needs
    return step.correct


def _try(
    measure: Correct,
    step: Step,
    parameters: Mapping[str, Any],
    expected: Mapping[str, Any],
) -> _Trial:
    """Apply a measure to invented answers: an empty, a foreign one, and one of the row's words.

    The last one contains all that the row mentions, so that forbidden words show, too.
    """
    schema = step.schema(parameters)
    words = " ".join(_texts(expected))
    fillings = (
        _Filling(text="", number=0, truth=False, empty=True),
        _Filling(text=_FOREIGN_TEXT, number=_FOREIGN_NUMBER, truth=True, empty=False),
        _Filling(text=words, number=-_FOREIGN_NUMBER, truth=True, empty=False),
    )
    answers = [_invented(schema, schema, filling) for filling in fillings]
    # Last, an answer with the row's own values: a measure may stop at the first difference.
    known = {name: expected[name] for name in answers[0] if name in expected}
    answers.append({**answers[0], **known})
    results = []
    errors = []
    given: dict[str, None] = {}
    wanted: dict[str, None] = {}
    for answer in answers:
        result, reading = observe(measure, answer, expected)
        given.update(dict.fromkeys(reading.given))
        wanted.update(dict.fromkeys(reading.expected))
        if isinstance(result, Exception):
            errors.append(result)
        else:
            results.append(result)
    reading = Reading(tuple(given), tuple(wanted))
    return _Trial(reading, tuple(results), tuple(errors))


def _unknown_field(
    step: Step, reading: Reading, expected: Mapping[str, Any]
) -> str | None:
    """Return the fault of a measure that reads fields which the step's answers never have."""
    fields = step.returns.model_fields
    if not fields or step.returns.model_config.get("extra") == "allow":
        return None
    unknown = [name for name in reading.given if name not in fields]
    # A measure for several steps may look for a field of another one, but not for nothing else.
    compared = [name for name in unknown if name in expected]
    if not compared and len(unknown) < len(reading.given):
        return None
    # only the first is reported
    for name in compared or unknown:
        message = unknown_name(f"field of {step.returns.__name__}", name, fields)
        return (
            f"the measure of {step.name} compares a field that no answer has: {message}"
        )
    return None


def _fields(
    trial: _Trial, expected: Mapping[str, Any], step: Step | None = None
) -> str:
    """Return what the measure reads of a row, and what the row has."""
    reader = f"the measure of {step.name}" if step else "it"
    read = ", ".join(trial.reading.expected) or "nothing"
    present = ", ".join(expected) or "nothing"
    return f"{reader} reads {read} of a row, and this one has {present}"


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, at any depth."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _texts(inner)
    elif value is not None:
        yield str(value)


def _invented(
    node: Any, root: Mapping[str, Any], filling: _Filling, depth: int = 0
) -> Any:
    """Return a value that fits a JSON schema."""
    if not isinstance(node, Mapping) or depth > _DEEPEST:
        return None
    if "$ref" in node:
        name = str(node["$ref"]).rsplit("/", 1)[-1]
        definition = root.get("$defs", {}).get(name)
        return _invented(definition, root, filling, depth + 1)
    if "const" in node:
        return node["const"]
    if node.get("enum"):
        # two different values wherever there are two
        position = 0 if filling.empty else -1
        return node["enum"][position]
    for key in ("anyOf", "oneOf", "allOf"):
        if node.get(key):
            option = _option(node[key], filling)
            return _invented(option, root, filling, depth + 1)
    return _of_type(node, root, filling, depth)


def _option(
    options: Sequence[Mapping[str, Any]], filling: _Filling
) -> Mapping[str, Any]:
    """Return null for an empty answer, where it is allowed, and else the first other option."""
    for option in options:
        is_null = option.get("type") == "null"
        if is_null == filling.empty:
            return option
    return options[0]


def _of_type(
    node: Mapping[str, Any], root: Mapping[str, Any], filling: _Filling, depth: int
) -> Any:
    kind = node.get("type", "string")
    if isinstance(kind, list):  # any of several types will do
        kind = kind[0] if kind else "string"
    if kind == "object":
        properties: Mapping[str, Any] = node.get("properties", {})
        return {
            name: _invented(inner, root, filling, depth + 1)
            for name, inner in properties.items()
        }
    if kind == "array":
        if filling.empty:
            return []
        items = node.get("items", {"type": "string"})
        return [_invented(items, root, filling, depth + 1)]
    scalars: dict[str, Any] = {
        "boolean": filling.truth,
        "integer": filling.number,
        "number": float(filling.number),
        "null": None,
    }
    # a text also for a type of which nothing is known
    return scalars.get(kind, filling.text)
