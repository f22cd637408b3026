"""The fields that an answer keeps, over generated answers and verdicts; and confidences by field."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, model_validator

from tierwise.gateway.logprobs import field_confidences
from tierwise.policy.kept_fields import keep_verdicts, merge
from tierwise.records import FieldSource, Verdict
from tierwise.steps.open_fields import (
    FieldValue,
    ask_for_open,
    cut_down,
    field_values,
)
from tierwise.steps.step import Parsed, Step

NAMES = ("a", "b", "c", "d")


class Letters(BaseModel):
    a: str
    b: str
    c: str | None
    d: list[str]


STEP = Step(name="letters", returns=Letters, prompt="letters", by_field=True)


def parsed(step: Step, text: str) -> Parsed:
    found = step.parsed(text)
    assert isinstance(found, Parsed), found
    return found


@pytest.mark.parametrize("seed", range(200))
def test_a_merged_output_is_the_choice_of_each_field(seed: int) -> None:
    """Exactly one source a field, and no field that failed its check is kept."""
    draw = random.Random(seed)
    kept: dict[str, FieldValue] = {}
    failed_last: set[str | None] = set()
    for number in range(draw.randint(1, 5)):
        step = ask_for_open(STEP, kept)
        open_fields = [name for name in NAMES if name not in kept]
        given: dict[str, Any] = {
            name: [f"{name}{number}"] if name == "d" else f"{name}{number}"
            for name in (NAMES if draw.random() < 0.3 else open_fields)
        }
        confidences = {name: draw.random() for name in open_fields}
        source = FieldSource(f"m{number}", f"t{number}")
        answer = parsed(step, json.dumps(given))
        answered = field_values(step, answer, source, confidences)
        assert list(answered) == open_fields
        # The output is that of each field's own source.
        merged = answer.output.model_dump(mode="json")
        for name in NAMES:
            of_field = {**kept, **answered}[name]
            assert merged[name] == of_field.value
        keeps = None
        if draw.random() < 0.5:
            keeps = {name: draw.choice([None, 0.5]) for name in draw.sample(NAMES, 2)}
        verdicts = [
            Verdict("grounding", draw.random() < 0.7, field=name) for name in NAMES
        ]
        if draw.random() < 0.2:
            verdicts.append(Verdict("whole", False))
        verdicts.extend(keep_verdicts(answered, keeps))
        failed_last = {each.field for each in verdicts if each.passed is False}
        before = kept
        kept = merge(before, answered, verdicts)
        assert kept.keys() <= {*before, *answered}
        assert not kept.keys() & failed_last
        if None in failed_last:
            assert not kept
        else:
            assert {*before, *answered} - kept.keys() == failed_last & {
                *before,
                *answered,
            }
        for name, value in kept.items():
            assert value is (answered[name] if name in answered else before[name])
            if name in answered and keeps is not None:
                assert name in keeps
                assert value.source.confidence is not None
                assert value.source.confidence >= (keeps[name] or 0)


class Aliased(BaseModel):
    """An output model with other keys in its schema, a default, and a rule about two fields."""

    net: float = Field(alias="Net amount")
    tax: float = Field(alias="Tax")
    note: str = "none"

    @model_validator(mode="after")
    def tax_is_less(self) -> Aliased:
        if self.tax > self.net:
            raise ValueError("more tax than net")
        return self


def test_keys_of_the_schema_and_validators_of_the_model_stay() -> None:
    step = Step(name="sums", returns=Aliased, prompt="sums", by_field=True)
    source = FieldSource("small", "1")
    first = parsed(step, '{"Net amount": 10.5, "Tax": 2}')
    answered = field_values(step, first, source, {"Net amount": 0.5})
    assert answered["net"].source.confidence == 0.5
    open_step = ask_for_open(step, {name: answered[name] for name in ("net", "note")})
    assert list(open_step.schema({})["properties"]) == ["Tax"]
    assert parsed(open_step, '{"Tax": 3}').output == Aliased.model_validate(
        {"Net amount": 10.5, "Tax": 3}
    )
    malformed = open_step.parse('{"Tax": 30}')
    assert isinstance(malformed, Verdict)
    for wrong in ('{"Tax": 1, "Tax": 2}', '{"Tax": "many"}', "[]", '{"Tax": '):
        assert isinstance(open_step.parse(wrong), Verdict)


class Tree(BaseModel):
    name: str
    under: list[Tree]


class Line(BaseModel):
    text: str


class Letter(BaseModel):
    tree: Tree
    lines: list[Line]


def test_definitions_that_the_open_fields_do_not_need_are_left_out() -> None:
    step = Step(name="letter", returns=Letter, prompt="letter", by_field=True)
    given = FieldValue([], FieldSource("m"), {"tree": {"name": "a", "under": []}})
    schema = ask_for_open(step, {"tree": given}).schema({})
    assert set(schema["$defs"]) == {"Line"}
    schema = ask_for_open(step, {"lines": given}).schema({})
    assert set(schema["$defs"]) == {"Tree"}
    # A model that contains itself has no properties of its own in its schema.
    whole = Step(name="tree", returns=Tree, prompt="tree", by_field=True)
    assert ask_for_open(whole, {"name": given}).schema({}) == whole.schema({})


@pytest.mark.parametrize(
    ("fields", "cut"),
    [
        ({"a": "one", "b": "two", "other": "three"}, {"b": "two", "other": "three"}),
        (["a", "b"], ["b"]),
        (("a", "b"), ["b"]),
        ([{"name": "a"}, {"name": "b"}, 7], [{"name": "b"}, 7]),
        ("a and b", "a and b"),
        (None, None),
    ],
)
def test_the_parameter_of_fields_says_nothing_of_the_given_ones(
    fields: Any, cut: Any
) -> None:
    parameters = {"fields": fields, "tone": "dry"}
    assert cut_down(parameters, STEP, {"a"}) == {"fields": cut, "tone": "dry"}
    assert cut_down({"tone": "dry"}, STEP, {"a"}) == {"tone": "dry"}


def tokens(*pieces: tuple[str | bytes, float]) -> dict[str, Any]:
    """Log-probabilities as OpenAI and llama.cpp write them."""
    content = []
    for piece, probability in pieces:
        data = piece.encode() if isinstance(piece, str) else piece
        text = data.decode(errors="replace")
        token = {"token": text, "bytes": list(data), "logprob": math.log(probability)}
        content.append(token)
    return {"content": content}


EURO = "€".encode()


@pytest.mark.parametrize(
    ("logprobs", "answer", "expected"),
    [
        pytest.param(
            tokens(('{"a', 0.9), ('": "', 0.8), ("x", 0.5), ('", "b": ', 0.7), ("1}", 0.6)),
            '{"a": "x", "b": 1}',
            {"a": 0.5, "b": 0.6},
            id="the token of a quote counts for its value",
        ),
        pytest.param(
            tokens(('{"a":"', 1), (EURO[:1], 0.4), (EURO[1:], 1), ('", "b": null}', 0.9)),
            '{"a":"€", "b": null}',
            {"a": 0.4, "b": 0.9},
            id="a character in two tokens",
        ),
        pytest.param(
            tokens(("<think>{", 0.1), ("}</think>\n", 0.1), ('{"a":', 1), ("{}}", 0.9), ("<|end|>", 0.2)),
            '{"a":{}}',
            {"a": 0.9},
            id="thoughts and marks around the answer",
        ),
        pytest.param(
            tokens(('{"a":', 1), (' {"k"', 0.1), (": ", 0.2), ('"x\\"{k: ', 0.8), ('1"', 0.7),
                   (",", 0.3), ('"n": ', 1), ("-1.5", 0.9), ("}, ", 0.1), ('"b": ', 1), ("[] }", 0.6)),
            '{"a": {"k": "x\\"{k: 1","n": -1.5}, "b": [] }',
            {"a": 0.7, "b": 0.6},
            id="brackets and keys in a value do not count",
        ),
        pytest.param(
            tokens(('{"a": ', 1), ("1} ", 0.9), ('{"a": ', 1), ("1}", 0.3)),
            '{"a": 1} {"a": 1}',
            {"a": 0.3},
            id="the less likely of two",
        ),
        pytest.param(
            {"tokens": ['{"a": ', "1}"], "token_logprobs": [-0.5, math.log(0.25)]},
            '{"a": 1}',
            {"a": 0.25},
            id="the older form",
        ),
        pytest.param(tokens(('{"a": 2}', 0.5)), '{"a": 1}', None, id="other tokens"),
        pytest.param({"content": [{"token": "a"}]}, '{"a": 1}', None, id="no numbers"),
        pytest.param({"content": [{"logprob": -1}]}, '{"a": 1}', None, id="no texts"),
        pytest.param(
            {"content": [{"token": "a", "bytes": [999], "logprob": -1}]},
            '{"a": 1}',
            None,
            id="bytes that are none",
        ),
        pytest.param(tokens(("no object", 0.5)), "no object", None, id="no object"),
        pytest.param(tokens(('{"a": 1', 0.5)), '{"a": 1', None, id="cut off"),
        pytest.param(None, '{"a": 1}', None, id="none"),
        pytest.param(tokens(("{}", 0.5)), "", None, id="no answer"),
    ],
)  # fmt: skip
def test_a_field_is_as_sure_as_its_least_likely_token(
    logprobs: Any, answer: str, expected: dict[str, float] | None
) -> None:
    found = field_confidences(logprobs, answer)
    assert found == (expected if expected is None else pytest.approx(expected))


@given(
    st.lists(
        st.text(alphabet="a1é€😀", min_size=1, max_size=6), min_size=1, max_size=6
    ),
    st.integers(min_value=1, max_value=5),
    st.data(),
)
def test_of_many_values_each_token_counts_for_its_own(
    words: list[str], width: int, data: st.DataObject
) -> None:
    """Tokens of any length that may cut a character, some of them empty."""
    answer = json.dumps(
        {f"k{number}": [word, 1] for number, word in enumerate(words)},
        ensure_ascii=False,
    )
    content = f"</think> {answer}".encode()
    parts = [content[at : at + width] for at in range(0, len(content), width)]
    parts.insert(data.draw(st.integers(0, len(parts))), b"")
    chosen = data.draw(st.integers(0, len(words) - 1))
    begin = content.index(f'"k{chosen}": ['.encode()) + len(f'"k{chosen}": ["')
    end = begin + len(words[chosen].encode())
    rows = []
    position = 0
    for part in parts:
        is_of_word = position < end and position + len(part) > begin
        probability = 0.25 if is_of_word else 0.5
        rows.append(
            {"token": "?", "bytes": list(part), "logprob": math.log(probability)}
        )
        position += len(part)
    found = field_confidences({"content": rows}, answer)
    assert found is not None
    assert found[f"k{chosen}"] == pytest.approx(0.25)
    # A token may reach into the value before or after it, no further.
    others = [found[f"k{n}"] for n in range(len(words)) if abs(n - chosen) > 1]
    assert others == pytest.approx([0.5] * len(others))
