"""Models that think before they answer: thoughts are no answer, and have tokens of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.projects import make_project, model
from tests.kit.standin import Fault, Request, Standin
from tests.kit.steps import GOOD, classify, kinds
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.plan.expected_cost import expect, highest_cost
from tierwise.policy.catalog import Model
from tierwise.policy.router import worst_case
from tierwise.project import Project
from tierwise.text.thoughts import without_thoughts

DRAFT = '{"label": "order"}'
ANSWER = '{"label": "complaint"}'
NO_ANSWER = ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"<think>Perhaps {DRAFT}? No.</think>\n{ANSWER}", ANSWER),
        (f"First idea: {DRAFT}. No.\n</think>\n\n{ANSWER}", ANSWER),
        (f"<think>a</think>{DRAFT}<think>no</think>{ANSWER}", ANSWER),
        (f"<think>a</think></think>{ANSWER}", ANSWER),
        (f"<thinking>{DRAFT}</thinking>{ANSWER}", ANSWER),
        (f"<Reasoning>{DRAFT}</Reasoning>{ANSWER}", ANSWER),
        (f"<thought>{DRAFT}</thought>{ANSWER}", ANSWER),
        (f"<seed:think>{DRAFT}</seed:think>{ANSWER}", ANSWER),
        (f"<longcat_think>{DRAFT}</longcat_think>{ANSWER}", ANSWER),
        (f"[THINK]{DRAFT}[/THINK]{ANSWER}", ANSWER),
        (f"◁think▷{DRAFT}◁/think▷{ANSWER}", ANSWER),
        (f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>{ANSWER}", ANSWER),
        (f"<|START_THINKING|>{DRAFT}<|END_THINKING|>{ANSWER}", ANSWER),
        (f"<|inner_prefix|>{DRAFT}<|inner_suffix|>{ANSWER}", ANSWER),
        (
            f"<|channel|>analysis<|message|>{DRAFT}<|end|>"
            f"<|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
            ANSWER,
        ),
        (
            f"<|channel|>final <|constrain|>json<|message|>{ANSWER}",
            ANSWER,
        ),
        (
            f"<|channel|>commentary to=functions.classify <|constrain|>json"
            f"<|message|>{ANSWER}<|call|>",
            ANSWER,
        ),
        (f"analysisPerhaps {DRAFT}? No.assistantfinal{ANSWER}", ANSWER),
        # a thought without an end has no answer, wherever it begins
        (f"<think>\nIt could be {DRAFT} but they say", NO_ANSWER),
        (f"[THINK]It could be {DRAFT}", NO_ANSWER),
        (f"◁think▷It could be {DRAFT}", NO_ANSWER),
        (f"{DRAFT}<think>No, that is wrong", NO_ANSWER),
        (f"<think>a</think><think>{DRAFT}", NO_ANSWER),
        (f"{DRAFT}<think>No.</think>", NO_ANSWER),
        (f"<|channel|>analysis<|message|>{DRAFT}", NO_ANSWER),
        # tags inside of the answer are its text
        ('{"evidence": "</think> {}"}', '{"evidence": "</think> {}"}'),
        ('{"evidence": "<think>"}', '{"evidence": "<think>"}'),
        (
            '<think>a</think>{"evidence": "</think>{}", "label": "b"}',
            '{"evidence": "</think>{}", "label": "b"}',
        ),
        (
            '{"evidence": "<|channel|>final<|message|>"}',
            '{"evidence": "<|channel|>final<|message|>"}',
        ),
        ("I think, therefore I am.", "I think, therefore I am."),
    ],
)
def test_thoughts_are_no_part_of_the_answer(text: str, answer: str) -> None:
    assert without_thoughts(text).answer.strip() == answer


# ---- through the cascade ------------------------------------------------------------------------


@pytest.fixture
def standin() -> Iterator[Standin]:
    with Standin() as server:
        yield server


def thinker(url: str, *, thinks: int = 0, price: str | None = None) -> str:
    settings = {"price": price} if price else {}
    entry = model("small", url, **settings)
    return f"{entry}    thinking_tokens: {thinks}\n" if thinks else entry


def engine_for(root: Path, *models: str) -> Engine:
    rules = 'version: 1\nroutes: [{name: default, try: ["small"]}]\n'
    return Engine(Project(make_project(root, *models, rules=rules)), env={})


def thinks_400_tokens(request: Request) -> Fault:
    """Answer after 400 tokens of thinking, or be cut off before that."""
    limit = request.body["max_tokens"]
    usage = {"prompt_tokens": 50}
    if limit < 410:
        tokens = {"completion_tokens": limit}
        return Fault(
            text="<think>\nThe writer says",
            finish_reason="length",
            usage=usage | tokens,
        )
    tokens = {"completion_tokens": 410}
    return Fault(text=f"<think>Late.</think>\n{GOOD}", usage=usage | tokens)


def test_a_model_that_thinks_first_answers_with_tokens_for_it(
    tmp_path: Path, standin: Standin
) -> None:
    standin.answer(thinks_400_tokens)
    with engine_for(tmp_path, thinker(standin.url, thinks=1000)) as engine:
        [outcome] = classify(engine)
    assert (outcome.status, standin.count) == ("accepted", 1)
    limit = engine.project.prompts["classify"].head.max_output_tokens
    assert standin.last.body["max_tokens"] == limit + 1000


def test_without_them_it_is_cut_off_and_the_reason_says_what_to_raise(
    tmp_path: Path, standin: Standin
) -> None:
    standin.answer(thinks_400_tokens)
    with engine_for(tmp_path, thinker(standin.url)) as engine:
        [outcome] = classify(engine)
        limit = engine.project.prompts["classify"].head.max_output_tokens
    assert outcome.status == "deferred"
    assert standin.count == 1, "paid once"
    assert f"cut off at {limit} tokens, {limit} of them spent on thinking" in (
        outcome.reason
    )
    assert "raise `thinking_tokens` of small" in outcome.reason


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("", {"completion_tokens_details": {"reasoning_tokens": 25}}),
        ('{"label": "de', {"completion_tokens_details": {"reasoning_tokens": 25}}),
        ("<think>Long ago", {}),
    ],
)
def test_the_tokens_of_thinking_are_named_where_they_are_known(
    tmp_path: Path, standin: Standin, text: str, more: dict[str, Any]
) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 25, **more}
    standin.answer(lambda _: Fault(text=text, finish_reason="length", usage=usage))
    with engine_for(tmp_path, thinker(standin.url)) as engine:
        [outcome] = classify(engine)
    assert "25 of them spent on thinking: raise `thinking_tokens`" in outcome.reason


def test_the_tokens_of_thinking_are_reserved_and_priced(
    tmp_path: Path, standin: Standin
) -> None:
    """A budget for the answer alone is not enough, and nothing is sent."""
    price = "{input: 0, output: 1000, source: test, date: 2026-11-01}"
    entry = thinker(standin.url, thinks=1000, price=price)
    with engine_for(tmp_path, entry) as engine:
        run = engine.start_run("test", budget_usd=Decimal("0.9"))
        [outcome] = classify(engine, run=run)
    assert (outcome.status, outcome.cause, standin.count) == ("deferred", "budget", 0)
    assert "may cost 1." in outcome.reason


def a_model(**settings: Any) -> Model:
    entry: dict[str, Any] = {
        "name": "m",
        "tier": "t",
        "litellm_params": {"model": "openai/m"},
        "context_tokens": 1000,
        "max_output_tokens": 100,
        "strength": 1,
        "price": {
            "input": 1,
            "output": 10,
            "source": "test",
            "date": "2026-11-01",
        },
    }
    return Model.model_validate(entry | settings)


def test_the_worst_case_has_the_thoughts_in_it() -> None:
    plain = worst_case(a_model(token_margin=1), 100, 30)
    thinking = worst_case(a_model(token_margin=1, thinking_tokens=500), 100, 30)
    assert plain == Decimal("0.0004")
    assert thinking == Decimal("0.0054")


def test_a_plan_prices_the_thoughts() -> None:
    thinking = a_model(token_margin=1, thinking_tokens=500)
    expected = expect(thinking, 30, None, None, reask=0)
    assert expected.completion_tokens == 265, "half of 30 and 500"
    plain_cost = highest_cost(a_model(token_margin=1), (100,), 30, reask=0)
    cost = highest_cost(thinking, (100,), 30, reask=0)
    assert plain_cost is not None
    # the first answer and its repair; the repair's prompt has no thoughts in it
    assert cost == plain_cost + 2 * 500 * Decimal("0.00001")


def test_the_window_holds_the_thoughts_too(tmp_path: Path, standin: Standin) -> None:
    entry = model("small", standin.url, context=1200) + "    thinking_tokens: 1100\n"
    with engine_for(tmp_path, entry) as engine:
        [outcome] = classify(engine)
    assert (outcome.cause, standin.count) == ("no_model", 0)
    assert "its context window has 1200" in outcome.reason


def test_a_reply_that_is_all_thought_is_paid_once_and_says_what_to_do(
    tmp_path: Path, standin: Standin
) -> None:
    standin.answer(f"<think>It could be {GOOD} but they say")
    with engine_for(tmp_path, thinker(standin.url)) as engine:
        [outcome] = classify(engine)
    assert outcome.status == "deferred"
    assert kinds(outcome) == [("small", "first", "NoAnswer")]
    assert outcome.attempts[0].cost is not None
    assert "has no end" in outcome.reason


# ---- lint and certificates ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("ministral-3-3b-reasoning", True),
        ("kimi-k2-thinking", True),
        ("magistral-small", True),
        ("deepseek-reasoner", True),
        ("grok-4-fast-non-reasoning", False),
        ("qwen3-no-think", False),
        ("mistral-small", False),
    ],
)
def test_check_warns_of_a_thinking_model_without_tokens_for_it(
    tmp_path: Path, terminal: Terminal, name: str, warned: bool
) -> None:
    url = "http://127.0.0.1:9"
    entry = model(name, url)
    rules = f"version: 1\nroutes: [{{name: default, try: [{name}]}}]\n"
    root = make_project(tmp_path / "p", entry, rules=rules)
    done = terminal("check", "--json", cwd=root)
    kinds_found = [found["kind"] for found in json.loads(done.out)["findings"]]
    assert ("thinking" in kinds_found) is warned
