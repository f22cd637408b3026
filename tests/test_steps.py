"""Steps: the schema that a model gets, and what becomes of its answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from tierwise.cascade.checking import Checking
from tierwise.errors import Misuse
from tierwise.records import Document, Verdict
from tierwise.steps.checks import check
from tierwise.steps.step import Step, schema_instruction


class Quoted(BaseModel):
    """Prose for people."""

    quote: str | None
    value: str | None = None


class Answer(BaseModel):
    """Prose for people."""

    label: str = Field(description="the label")
    title: str = "none"
    found: list[Quoted] = []
    mood: Literal["good", "bad"] | None = None


STEP = Step(
    name="classify", returns=Answer, prompt="classify", choices={"label": "labels"}
)
GOOD = {
    "label": "a",
    "title": "t",
    "found": [{"quote": "q", "value": "v"}],
    "mood": "good",
}


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every object in a schema."""
    if isinstance(schema, list):
        return [found for item in schema for found in objects(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "object" else []
    return own + [found for item in schema.values() for found in objects(item)]


# ---- the schema ---------------------------------------------------------------------------------


def test_the_schema_is_strict_all_the_way_down() -> None:
    """Every field is required and no other is allowed, as vendors' strict modes want it."""
    found = objects(STEP.base_schema)
    assert len(found) == 2
    for schema in found:
        assert schema["required"] == list(schema["properties"])
        assert schema["additionalProperties"] is False


def test_the_schema_keeps_what_models_read_and_drops_what_only_code_needs() -> None:
    text = json.dumps(STEP.base_schema)
    assert "the label" in text
    assert "Prose for people" not in text
    assert "default" not in text
    assert list(STEP.base_schema["properties"]) == ["label", "title", "found", "mood"]


def test_the_schema_accepts_what_it_should_and_nothing_else() -> None:
    validator = Draft202012Validator(STEP.schema({"labels": ["a", "b"]}))
    assert validator.is_valid(GOOD)
    for wrong in (
        {**GOOD, "label": "c"},
        {**GOOD, "more": 1},
        {"label": "a"},
        {**GOOD, "found": [{"quote": "q"}]},
    ):
        assert not validator.is_valid(wrong)


def test_choices_are_those_of_the_call_and_leave_no_trace() -> None:
    assert STEP.schema({"labels": ("a", "b")})["properties"]["label"]["enum"] == [
        "a",
        "b",
    ]
    assert STEP.schema({"labels": {"x": "meaning"}})["properties"]["label"]["enum"] == [
        "x"
    ]
    assert "enum" not in STEP.schema({})["properties"]["label"]
    assert "enum" not in STEP.base_schema["properties"]["label"]


@pytest.mark.parametrize(
    "settings", [{"choices": {"lable": "labels"}}, {"splits": "lable"}]
)
def test_a_step_cannot_name_a_field_that_its_output_lacks(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(
        Misuse, match="no field of Answer named 'lable'; did you mean 'label'"
    ):
        Step(name="s", returns=Answer, prompt="s", **settings)


def test_a_model_that_is_only_told_gets_the_whole_schema() -> None:
    schema = STEP.schema({"labels": ["a"]})
    assert json.loads(schema_instruction(schema).partition("\n")[2]) == schema


def test_the_hash_is_of_schema_checks_and_parameters() -> None:
    @check("one")
    def one(output: BaseModel, document: Document) -> None:
        return None

    changed = Step(name="classify", returns=Quoted, prompt="classify")
    checked = Step(
        name="classify",
        returns=Answer,
        prompt="classify",
        checks=(one,),
        choices={"label": "labels"},
    )
    again = Step(
        name="classify",
        returns=Answer,
        prompt="other",
        choices={"label": "labels"},
        stakes="high",
    )
    ab, ba = {"labels": ["a", "b"], "n": 1}, {"n": 1, "labels": ["a", "b"]}
    assert STEP.hash(ab) == again.hash(ba)
    assert (
        len(
            {
                STEP.hash(ab),
                changed.hash(ab),
                checked.hash(ab),
                STEP.hash({"labels": ["a"]}),
                STEP.hash({}),
            }
        )
        == 5
    )


# ---- the answer ---------------------------------------------------------------------------------

TEXT = json.dumps(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"\n\n  {TEXT}  \n",
        json.dumps(GOOD, indent=4),
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}\n```",
        f"Here is the answer you asked for:\n\n{TEXT}\n\nLet me know if you need anything else!",
        f"{TEXT} Hope that helps :-}}",
        f"The fields {{label}} and {{mood}} are clear.\n{TEXT}",
        f'<think>Perhaps {{"label": "b"}}? No, see {{"a": 1}}.</think>\n{TEXT}',
        f"[THINK]if (x) {{ y }} [/THINK]{TEXT}",
        f"{{ {TEXT}",
        f"[{TEXT}]",
    ],
)
def test_an_answer_is_found_in_what_stands_around_it(text: str) -> None:
    assert STEP.parse(text) == Answer.model_validate(GOOD)


@pytest.mark.parametrize(
    "words", ["a } b { c", 'a "quoted" } b', "back\\slash }", "```", "{{ 7 }}"]
)
def test_braces_in_an_answers_own_text_do_no_harm(words: str) -> None:
    found = STEP.parse(f"So: {json.dumps({**GOOD, 'title': words})}\nDone.")
    assert isinstance(found, Answer)
    assert found.title == words


A = '{"label": "a"}'
B = '{"label": "b"}'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{A} Had it come late, I would have said {B}.", id="prose after"),
        pytest.param(f"```json\n{A}\n```\nNot {B}, as it came in time.", id="fence"),
        pytest.param(f"The document says {B}, but I say {A}", id="quoted before"),
        pytest.param(f"```json\n{B}\n```\nNo: ```json\n{A}\n```", id="two fences"),
        pytest.param(f"[{A}, {B}]", id="a list"),
        pytest.param(f"{A}\n{B}", id="lines"),
        pytest.param(f"First idea: {B}. No.\n{A}", id="a draft before"),
        pytest.param('{"label": "a", "title": "x"} or {"label": "a"}', id="a part"),
    ],
)
def test_answers_that_differ_are_ambiguous(text: str) -> None:
    """None is taken: a counter-example in the prose, or a quotation, would win in silence."""
    found = STEP.parse(text)
    assert isinstance(found, Verdict)
    assert "2 different JSON objects" in found.reason


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{A}\n\nAgain: {A}", id="twice"),
        pytest.param(f'{A} and {{"label":"a","title":"none"}}', id="by default"),
        pytest.param(f'{A} (not {{"mood": "good"}})', id="another that does not fit"),
        pytest.param(f'{{"labels": ["a"]}} gives {A}', id="a misfit before"),
        pytest.param(f"{A} {{as I said}}", id="braces after"),
    ],
)
def test_objects_that_agree_or_do_not_fit_are_no_ambiguity(text: str) -> None:
    assert STEP.parse(text) == Answer(label="a")


@pytest.mark.parametrize(
    "text",
    [
        '{"label": "a", "label": "b"}',
        '{"label": "a", "found": [{"quote": "q", "quote": "r"}]}',
    ],
)
def test_a_key_with_two_values_is_ambiguous(text: str) -> None:
    found = STEP.parse(text)
    assert isinstance(found, Verdict)
    assert "given twice" in found.reason


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"half \ud83d", "half \N{REPLACEMENT CHARACTER}"),
        (r"\ude00 half", "\N{REPLACEMENT CHARACTER} half"),
        ("half \ud83d", "half \N{REPLACEMENT CHARACTER}"),
        (r"whole \ud83d\ude00", "whole \N{GRINNING FACE}"),
        (r"backslash \\ud83d", r"backslash \ud83d"),
    ],
)
def test_half_a_character_is_replaced(written: str, read: str) -> None:
    found = STEP.parse(f'{{"label": "a", "title": "{written}"}}')
    assert found == Answer(label="a", title=read)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"title": "t"}', "label: Field required"),
        ('{"label": 5}', "label: Input should be a valid string"),
        (
            '{"label": "a", "found": [{"quote": "q"}, {"value": 1}]}',
            "found.1.quote: Field required",
        ),
        ('{"label": "a", "mood": "so-so"}', "mood: Input should be 'good' or 'bad'"),
        ('Well: {"label": 5}. :-}', "Invalid JSON: "),
        (
            '{"label": "a", "found": [{"quote": "q"}], }',
            "Invalid JSON: trailing comma at line 1 column 43",
        ),
        (
            '{"label": "a", "title": "cut of',
            "Invalid JSON: EOF while parsing a string at line 1 column 31",
        ),
        ("{label: a}", "Invalid JSON: key must be a string at line 1 column 2"),
        ("I cannot do that.", "the answer holds no JSON object"),
        ("", "the answer holds no JSON object"),
        ('["a"]', "the answer holds no JSON object"),
        ("}{", "Invalid JSON: "),
    ],
)
def test_a_malformed_answer_says_what_is_wrong_and_where(
    text: str, reason: str
) -> None:
    found = STEP.parse(text)
    assert isinstance(found, Verdict)
    assert (found.check, found.passed) == ("schema", False)
    assert found.reason.startswith(reason)


@given(
    st.text()
    | st.lists(
        st.sampled_from([*'{}[]":,\\ \n', '"label"', '"a"', "null", "\ud800"])
    ).map("".join)
)
def test_any_answer_is_an_output_or_a_verdict(text: str) -> None:
    assert isinstance(STEP.parse(text), Answer | Verdict)


def test_a_pathological_answer_is_a_verdict_too() -> None:
    for text in ("{" * 3000, '{"a":' * 3000, '{"a":' * 3000 + "}" * 3000):
        assert isinstance(STEP.parse(text), Verdict)


@given(
    st.builds(
        Answer,
        label=st.text(),
        title=st.text(),
        mood=st.sampled_from(["good", "bad", None]),
    ),
    st.text(st.characters(exclude_characters="{}")),
)
def test_what_was_written_is_what_is_read(answer: Answer, around: str) -> None:
    assert STEP.parse(f"{around}{answer.model_dump_json()}{around}") == answer


def test_the_verdicts_come_in_order_and_with_the_parameters() -> None:
    @check("first")
    def first(output: BaseModel, document: Document, *, most: int) -> str | None:
        return f"most is {most}"

    @check("second")
    def second(output: BaseModel, document: Document) -> None:
        return None

    judged = Step(name="s", returns=Answer, prompt="s", checks=(first, second))
    output = Answer.model_validate(GOOD)
    document = Document(id="d", text="t")
    verdicts = Checking().verdicts(judged, output, document, {"most": 3})
    assert asyncio.run(verdicts) == (
        Verdict("schema", True),
        Verdict("first", False, "most is 3"),
        Verdict("second", True),
    )
