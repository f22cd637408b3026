"""Replies as servers send them: what can be read is read, and all else is one clear error.

Every shape goes over a real socket, on both lanes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.kit.calls import BOTH_LANES, CALL, ask, catalog_at
from tests.kit.projects import make_project, model
from tests.kit.replies import (
    ANSWER,
    ANTHROPIC,
    ELSEWHERE,
    GEMINI,
    OPENAI,
    PARTS,
    strange,
)
from tests.kit.replies import (
    sent as as_sent,
)
from tests.kit.standin import Fault, Request, Standin, raw, tokens_of
from tests.kit.steps import TEXT, classify
from tierwise import errors
from tierwise.cascade.faults import DECISIONS
from tierwise.engine import Engine
from tierwise.errors import CallError
from tierwise.project import Project
from tierwise.records import Call, Document, Reply

FIELDS = json.loads(ANSWER)
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "evidence": {"type": "string"}},
    "required": ["label", "evidence"],
    "additionalProperties": False,
}
ASKED = replace(CALL, response_schema=SCHEMA, schema_name="classify", confidence=True)
USAGE = {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59}
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}]}


def body(message: Any = None, **settings: Any) -> dict[str, Any]:
    """A well-formed reply; `choice` and `top` add to, or replace, what is there."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": ANSWER}
        if message is None
        else message,
        "finish_reason": settings.get("finish", "stop"),
        **settings.get("choice", {}),
    }
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "small-v1",
        "choices": [choice],
        "usage": USAGE,
        **settings.get("top", {}),
    }


def says(**message: Any) -> dict[str, Any]:
    return body({"role": "assistant", "content": None, **message})


def tool(arguments: Any, **call: Any) -> dict[str, Any]:
    function = {"name": "classify", "arguments": arguments}
    tool_call = {"id": "c1", "type": "function", "function": function, **call}
    return says(tool_calls=[tool_call])


def probabilities(*values: Any) -> dict[str, Any]:
    tokens = [
        {"token": "{", "logprob": value, "top_logprobs": [{"logprob": -math.inf}]}
        for value in values
    ]
    return body(choice={"logprobs": {"content": tokens}})


def events(*pieces: dict[str, Any]) -> bytes:
    lines = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def piece(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def get(
    standin: Standin,
    name: str,
    sent: Any,
    *,
    call: Call = ASKED,
    headers: dict[str, str] | None = None,
) -> Reply:
    content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    standin.faults([replace(raw(content), headers=headers or {})])
    [reply] = ask(catalog_at(standin.url), replace(call, model=name))
    return reply


def refuse(standin: Standin, name: str, sent: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        get(standin, name, sent)
    return caught.value


# ---- the answer ---------------------------------------------------------------------------------

READABLE = {
    "a text": body(),
    "parts": says(content=[{"type": "text", "text": ANSWER}]),
    "a thought before the text": says(
        content=[THOUGHT, {"type": "text", "text": ANSWER}]
    ),
    "two parts": says(
        content=[
            {"type": "text", "text": ANSWER[:9]},
            {"type": "text", "text": ANSWER[9:]},
        ]
    ),
    "parts in one part": says(
        content=[{"type": "message", "content": [{"type": "text", "text": ANSWER}]}]
    ),
    "texts in a list": says(content=[ANSWER[:9], ANSWER[9:]]),
    "a part of output": says(content=[{"type": "output_text", "text": ANSWER}]),
    "one part without a list": says(content={"type": "text", "text": ANSWER}),
    "a text with a value": says(
        content=[{"type": "text", "text": {"value": ANSWER, "annotations": []}}]
    ),
    "redacted thinking": says(
        content=[{"type": "redacted_thinking", "data": "x"}, {"text": ANSWER}]
    ),
    "an unknown part before it": says(
        content=[{"type": "citation", "x": 1}, {"type": "text", "text": ANSWER}]
    ),
    "an object": says(content=FIELDS),
    "parsed": says(parsed=FIELDS),
    "content with reasoning": says(content=ANSWER, reasoning_content="Late."),
    "a tool call": tool(ANSWER),
    "a tool call with an object": tool(FIELDS),
    "a tool call that is said first": says(
        content="I call classify.",
        tool_calls=[{"function": {"name": "classify", "arguments": ANSWER}}],
    ),
    "the same tool call twice": says(
        tool_calls=[{"function": {"name": "c", "arguments": ANSWER}}] * 2
    ),
    "a function call": says(function_call={"name": "classify", "arguments": ANSWER}),
    "tool use among the parts": says(
        content=[{"type": "tool_use", "name": "classify", "input": FIELDS}]
    ),
    "a tool call in the text": says(
        content=f'<tool_call>\n{{"name": "classify", "arguments": {ANSWER}}}\n</tool_call>'
    ),
    "Mistral's tool call in the text": says(
        content=f'[TOOL_CALLS][{{"name": "classify", "arguments": {ANSWER}}}]'
    ),
    "Llama's tool call in the text": says(
        content=f'<|python_tag|>{{"name": "classify", "parameters": {ANSWER}}}'
    ),
    "a refusal that answers": says(refusal=ANSWER),
    "an empty refusal": says(content=ANSWER, refusal=""),
    "a text choice": {"choices": [{"text": ANSWER, "finish_reason": "stop"}]},
    "a delta": {"choices": [{"delta": {"content": ANSWER}}]},
    "a message that is a text": {"choices": [{"message": ANSWER}]},
    "choices of which the first is null": {
        "choices": [None, {"message": {"content": ANSWER}}]
    },
    "a message without choices": {"message": {"content": ANSWER}, "done": True},
    "in a list": [body()],
    "events": events(*[piece(content=letter) for letter in ANSWER]),
    "events with a thought": events(
        piece(role="assistant", content=None, reasoning_content="Let "),
        piece(reasoning_content="me see.", content=None),
        piece(content=ANSWER[:9]),
        piece(content=ANSWER[9:]),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": USAGE},
    ),
    "events of a tool call": events(
        piece(tool_calls=[{"index": 0, "function": {"name": "c", "arguments": ""}}]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": ANSWER[:9]}}]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": ANSWER[9:]}}]),
    ),
    "events with texts": events(
        *[
            {"choices": [{"index": 0, "text": part}]}
            for part in (ANSWER[:9], ANSWER[9:])
        ]
    ),
    "events of a whole reply": events(body()),
    "events with a comment": b": waiting\n\n" + events(piece(content=ANSWER)),
    "events with a name": b"event: message\n" + events(piece(content=ANSWER)),
    "a response of OpenAI's other format": {
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]},
            {
                "type": "message",
                "content": [{"type": "output_text", "text": ANSWER}],
            },
        ],
        "status": "completed",
    },
    "lines": b"\n".join(
        json.dumps({"message": {"content": part}, "done": False}).encode()
        for part in (ANSWER[:9], ANSWER[9:])
    ),
    "an error that is null": body(top={"error": None}),
    "an error that is false": body(top={"error": False}),
    "no finish reason": body(finish=None),
    "a finish reason in an object": body(finish={"type": "stop"}),
    "usage that is a text": body(top={"usage": "a lot"}),
    "a served model that is none": body(top={"model": 7}),
}


@BOTH_LANES
@pytest.mark.parametrize("sent", READABLE.values(), ids=READABLE.keys())
def test_an_answer_is_read_wherever_it_is(
    standin: Standin, name: str, sent: Any
) -> None:
    reply = get(standin, name, sent)
    assert json.loads(reply.text) == FIELDS
    assert reply.finish_reason == "stop"
    assert standin.count == 1


# ---- the body -----------------------------------------------------------------------------------

UMLAUT = '{"label": "Möbel", "evidence": "spät €"}'


def dumped(value: Any, **settings: Any) -> bytes:
    return json.dumps(value, **settings).encode("utf-8", "surrogatepass")


BODIES: dict[str, tuple[bytes, str]] = {
    "NaN": (dumped(body(top={"timings": {"speed": math.nan}})), ""),
    "Infinity": (dumped(body(top={"timings": {"speed": math.inf}})), ""),
    "-Infinity": (dumped(body(top={"timings": [-math.inf]})), ""),
    "half an emoji": (dumped(says(content=ANSWER, reasoning_content="\ud83d")), ""),
    "half an emoji in bytes": (dumped(body(top={"x": "\ud83d"}), ensure_ascii=False), ""),
    "a byte order mark": (b"\xef\xbb\xbf" + dumped(body()), ""),
    "blank lines first": (b"\n\n   \r\n" + dumped(body()), ""),
    "blank lines after": (dumped(body()) + b"\n\n\x20", ""),
    "twice": (dumped(body()) + b"\n" + dumped(body()), ""),
    "a key twice": (dumped(body())[:-1] + b', "model": "other"}', ""),
    "a line end inside of a string": (
        dumped(body(top={"x": "a b"})).replace(b"a b", b"a\nb"),
        "",
    ),
    "a number of 5,000 digits": (
        dumped(body(top={"x": 0})).replace(b'"x": 0', b'"x": ' + b"9" * 5000),
        "",
    ),
    "UTF-16": (json.dumps(body()).encode("utf-16"), ""),
    "another content type": (dumped(body()), "text/plain"),
    "an unknown encoding": (dumped(body()), "application/json; charset=klingon"),
}  # fmt: skip


@BOTH_LANES
@pytest.mark.parametrize("shape", BODIES.values(), ids=BODIES.keys())
def test_the_body_may_be_in_any_dialect_of_json(
    standin: Standin, name: str, shape: tuple[bytes, str]
) -> None:
    sent, content_type = shape
    headers = {"Content-Type": content_type} if content_type else {}
    reply = get(standin, name, sent, headers=headers)
    assert json.loads(reply.text) == FIELDS


@BOTH_LANES
@pytest.mark.parametrize(
    ("encoding", "content_type"),
    [
        ("utf-8", "application/json"),
        ("utf-8", "application/json; charset=iso-8859-1"),  # the bytes count more
        ("cp1252", "application/json; charset=windows-1252"),
        ("cp1252", "application/json; charset=ISO-8859-1"),
        ("cp1252", 'application/json; charset="latin1"'),
        ("cp1252", "application/json"),
        ("utf-16-le", "application/json; charset=utf-8"),
    ],
)
def test_letters_arrive_in_whatever_encoding(
    standin: Standin, name: str, encoding: str, content_type: str
) -> None:
    text = json.dumps(says(content=UMLAUT), ensure_ascii=False)
    headers = {"Content-Type": content_type}
    reply = get(standin, name, text.encode(encoding), headers=headers)
    assert reply.text == UMLAUT


@BOTH_LANES
def test_half_a_character_in_an_answer_is_replaced(standin: Standin, name: str) -> None:
    """The ledger stores no half characters, and neither does a file."""
    reply = get(standin, name, says(content='{"label": "\ud83d"}'))
    assert reply.text == '{"label": "\N{REPLACEMENT CHARACTER}"}'


@BOTH_LANES
def test_a_character_in_two_pieces_is_joined(standin: Standin, name: str) -> None:
    sent = events(piece(content='"\ud83d'), piece(content='\ude00"'))
    assert get(standin, name, sent).text == '"\N{GRINNING FACE}"'


# ---- log-probabilities --------------------------------------------------------------------------


@BOTH_LANES
@pytest.mark.parametrize(
    "values",
    [
        (None,),
        (-0.1, None),
        (-math.inf,),
        (math.nan,),
        (0.5,),
        ("-0.1",),
        (True,),
        ([],),
        (-(10**400),),
    ],
)
def test_odd_log_probabilities_are_no_confidence(
    standin: Standin, name: str, values: tuple[Any, ...]
) -> None:
    reply = get(standin, name, probabilities(*values))
    assert json.loads(reply.text) == FIELDS
    assert reply.confidence is None


@BOTH_LANES
@pytest.mark.parametrize(
    "logprobs",
    [None, [], {}, {"content": None}, {"content": [1]}, {"content": 7}, "x"],
)
def test_missing_log_probabilities_are_no_confidence(
    standin: Standin, name: str, logprobs: Any
) -> None:
    reply = get(standin, name, body(choice={"logprobs": logprobs}))
    assert reply.confidence is None


@BOTH_LANES
@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [{"logprob": -0.5}, {"logprob": -0.1}]},
        {"tokens": ["{", "}"], "token_logprobs": [-0.1, -0.5]},
        [{"logprob": -0.1}, {"logprob": -0.5}],
    ],
)
def test_log_probabilities_of_every_form_are_read(
    standin: Standin, name: str, logprobs: Any
) -> None:
    reply = get(standin, name, body(choice={"logprobs": logprobs}))
    assert reply.confidence == pytest.approx(math.exp(-0.5))


@BOTH_LANES
def test_each_value_is_as_sure_as_its_least_likely_token(
    standin: Standin, name: str
) -> None:
    text = json.dumps(FIELDS)
    unsure = dict(zip(FIELDS, (0.25, 0.5, 0.75), strict=False))
    logprobs = {"content": tokens_of(text, unsure)}
    reply = get(standin, name, body(choice={"logprobs": logprobs}))
    assert reply.field_confidences == pytest.approx(unsure)
    other = get(standin, name, probabilities(-0.1))
    assert other.field_confidences is None  # the tokens are not those of the answer


# ---- finish reasons -----------------------------------------------------------------------------


@BOTH_LANES
@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("STOP", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("Stop-Sequence", "stop"),
        ("FINISH_REASON_UNSPECIFIED", "stop"),
        ("", "stop"),
        (7, "stop"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("max_output_tokens", "length"),
        ("max-tokens", "length"),
        ("Length", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_calls", "tool_calls"),
        ("some new word!", "some_new_word_"),
    ],
)
def test_finish_reasons_are_understood_in_any_spelling(
    standin: Standin, name: str, said: Any, meant: str
) -> None:
    assert get(standin, name, body(finish=said)).finish_reason == meant


@BOTH_LANES
@pytest.mark.parametrize("content", [None, "", '{"label": "del'])
@pytest.mark.parametrize("said", ["MAX_TOKENS", "model_length"])
def test_an_answer_that_was_cut_off_is_no_error(
    standin: Standin, name: str, said: str, content: str | None
) -> None:
    message = {"role": "assistant", "content": content}
    reply = get(standin, name, body(message, finish=said))
    assert (reply.text, reply.finish_reason) == (content or "", "length")


@BOTH_LANES
@pytest.mark.parametrize(
    "said",
    [
        "content_filter",
        "content-filter",
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "refusal",
        "sensitive",
        "guardrail_intervened",
    ],
)
@pytest.mark.parametrize("content", ["", "I am sorry"])
def test_words_of_a_filter_are_refusals(
    standin: Standin, name: str, said: str, content: str
) -> None:
    error = refuse(standin, name, body({"content": content}, finish=said))
    assert type(error) is errors.ContentRefused
    assert error.usage is not None


@BOTH_LANES
@pytest.mark.parametrize(
    "said", ["error", "insufficient_system_resource", "network_error", "abort"]
)
def test_an_answer_that_the_server_broke_off_is_its_fault(
    standin: Standin, name: str, said: str
) -> None:
    error = refuse(standin, name, body({"content": '{"label": "d'}, finish=said))
    assert type(error) is errors.ServerFault
    assert said in str(error)
    assert error.usage is not None, "it may have been billed"


@BOTH_LANES
@pytest.mark.parametrize("finish", ["error", "stop", None])
def test_an_error_in_the_choice_is_no_answer(
    standin: Standin, name: str, finish: str | None
) -> None:
    fault = {"code": 502, "message": "Upstream idle timeout exceeded"}
    sent = body({"content": ANSWER}, finish=finish, choice={"error": fault})
    assert isinstance(refuse(standin, name, sent), errors.BadReply | errors.ServerFault)


@BOTH_LANES
def test_the_words_of_an_error_beside_a_broken_answer_count(
    standin: Standin, name: str
) -> None:
    fault = {"code": 429, "message": "Rate limit exceeded"}
    sent = body({"content": '{"label"'}, finish="error", top={"error": fault})
    error = refuse(standin, name, sent)
    assert type(error) is errors.RateLimited
    assert "Rate limit exceeded" in str(error)


# ---- no answer ----------------------------------------------------------------------------------

WITHOUT_ANSWER: dict[str, tuple[dict[str, Any], str]] = {
    "reasoning_content": (
        says(reasoning_content=ANSWER),
        "the answer is in `reasoning_content`",
    ),
    "reasoning": (says(reasoning=ANSWER), "the answer is in `reasoning`"),
    "reasoning and a blank": (
        says(content="\n\n", reasoning=ANSWER),
        "the answer is in `reasoning`",
    ),
    "thinking": (says(thinking=ANSWER), "the answer is in `thinking`"),
    "reasoning details": (
        says(reasoning_details=[{"type": "reasoning.text", "text": "Let me see."}]),
        "only thoughts in `reasoning_details`",
    ),
    "thoughts alone": (
        says(reasoning_content="Let me see."),
        "only thoughts in `reasoning_content`",
    ),
    "parts of thoughts alone": (says(content=[THOUGHT]), "only thoughts in `content`"),
    "a thought without an end": (says(content=f"<think>{ANSWER}"), "has no end"),
    "a tool call of another kind": (
        tool('{"city": "Oslo"}'),
        "only a call of the tool classify",
    ),
    "a tool call that is no JSON": (tool("Oslo"), "only a call of the tool classify"),
    "a picture": (
        says(content=[{"type": "image_url", "image_url": {"url": "x"}}]),
        "no text, only image_url",
    ),
    "thoughts that are only counted": (
        body(
            {"content": ""},
            top={
                "usage": {
                    **USAGE,
                    "completion_tokens_details": {"reasoning_tokens": 9},
                }
            },
        ),
        "only 9 tokens of thinking",
    ),
    "a number": (says(content=7), "no text, only int"),
}


@BOTH_LANES
@pytest.mark.parametrize("case", WITHOUT_ANSWER.values(), ids=WITHOUT_ANSWER.keys())
def test_a_reply_without_an_answer_says_what_it_has_instead(
    standin: Standin, name: str, case: tuple[dict[str, Any], str]
) -> None:
    sent, words = case
    error = refuse(standin, name, sent)
    assert type(error) is errors.NoAnswer
    assert words in str(error)
    assert error.usage is not None, "it was billed"


@BOTH_LANES
@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "an empty body"),
        (b"   \n", "an empty body"),
        (b"<html><body>Please sign in</body></html>", "a web page): Please sign in"),
        (b"\xef\xbb\xbf<!DOCTYPE html><title>Sign in</title>", "a web page): Sign in"),
        (b"upstream connect error", "no JSON object): upstream connect error"),
        (b'{"choices": [{"mess', "no JSON object"),
        (b"null", "no JSON object"),
        ({"id": "x", "choices": [], "usage": USAGE}, "no choices"),
        ({"id": "x", "choices": None}, "no choices"),
        ({"id": "x", "choices": "none"}, "no choices"),
        ({"choices": [{"message": {"content": ""}}]}, "the reply is empty"),
        ({"choices": [{"message": None, "finish_reason": "odd"}]}, "odd"),
    ],
)
def test_a_body_that_is_no_reply_is_named(
    standin: Standin, name: str, sent: Any, words: str
) -> None:
    error = refuse(standin, name, sent)
    assert type(error) is errors.BadReply
    assert words in str(error)


@BOTH_LANES
@pytest.mark.parametrize(
    "change",
    [
        lambda sent: sent["usage"].update(prompt_tokens=50.0, completion_tokens=9.0),
        lambda sent: sent["usage"].update(prompt_tokens="50"),
        lambda sent: sent["usage"].update(completion_tokens=9.5),
        lambda sent: sent["usage"].update(prompt_tokens_details=[{"tokenCount": 1}]),
        lambda sent: sent.update(usage=[1]),
    ],
)
def test_odd_usage_loses_no_answer(
    standin: Standin, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    sent = json.loads(json.dumps(body()))
    change(sent)
    assert json.loads(get(standin, name, sent).text) == FIELDS


# ---- whatever a reply holds ---------------------------------------------------------------------

# Faults that have a name, by a class of their own.
NAMED = tuple(DECISIONS)


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("openai", (OPENAI, PARTS, ELSEWHERE)),
        ("openai-litellm", (OPENAI, PARTS, ELSEWHERE)),
        ("mistral", (OPENAI, PARTS)),
        ("anthropic", (ANTHROPIC,)),
        ("gemini", (GEMINI,)),
    ],
)
def test_any_json_anywhere_in_a_reply_is_an_answer_or_a_named_fault(
    standin: Standin, name: str, formats: tuple[dict[str, Any], ...]
) -> None:
    """Over a socket, on both lanes; the gateway answers the next call as before."""
    call = replace(ASKED, model=name)

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strange(*formats))
    def one(reply: Any) -> None:
        standin.faults([raw(as_sent(reply))])
        with suppress(*NAMED):
            [answer] = ask(catalog_at(standin.url), call)
            answer.text.encode()  # no half characters
            assert answer.text.strip() or answer.finish_reason == "length"
            confidence = answer.confidence
            assert confidence is None or 0 <= confidence <= 1

    one()


STRANGE_REPLIES: dict[str, Any] = {
    **READABLE,
    **{f"body: {title}": content for title, (content, _) in BODIES.items()},
    **{f"no answer: {title}": sent for title, (sent, _) in WITHOUT_ANSWER.items()},
    "an error in the choice": body(choice={"error": {"code": 502}}),
    "a filter": body({"content": ""}, finish="SAFETY"),
    "cut off": body({"content": '{"label'}, finish="MAX_TOKENS"),
    "a web page": b"<html>Sign in</html>",
    "nothing": b"",
    "usage in floats": body(top={"usage": {"prompt_tokens": 5.0}}),
    "usage in words": body(top={"usage": {"prompt_tokens": "many"}}),
}


def test_a_run_goes_on_whatever_its_replies_hold(
    tmp_path: Path, standin: Standin
) -> None:
    """One document a shape: each is accepted, or deferred with a reason."""
    rules = 'version: 1\nroutes: [{name: default, try: ["small"]}]\n'
    root = make_project(tmp_path, model("small", standin.url), rules=rules)
    shapes = list(STRANGE_REPLIES.values())
    turn = count()

    def answer(_: Request) -> Fault:
        shape = shapes[next(turn) % len(shapes)]
        return raw(shape if isinstance(shape, bytes) else as_sent(shape))

    standin.answer(answer)
    documents = [
        Document(id=f"{number}", text=f"{TEXT} {number}", sensitivity="internal")
        for number in range(len(shapes))
    ]
    with Engine(Project(root), env={}) as engine:
        outcomes = classify(engine, *documents)
    assert len(outcomes) == len(shapes)
    names = {kind.__name__ for kind in NAMED}
    for outcome in outcomes:
        assert outcome.status == "accepted" or outcome.reason
        assert {attempt.error for attempt in outcome.attempts} <= {None, *names}
    assert {outcome.status for outcome in outcomes} == {"accepted", "deferred"}
