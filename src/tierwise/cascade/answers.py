"""One model's answer for one document: call with retries, parse, repair once, check; in parts where it is too long."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from tierwise.cascade.attempts import Calls, FailedCall, Work, prompt_tokens
from tierwise.cascade.faults import decision
from tierwise.cascade.parts import split
from tierwise.cascade.rate_limits import WORTH_WAITING_S
from tierwise.policy.catalog import Model
from tierwise.records import Attempt, AttemptKind, Document, Message, Reply, Verdict, rank
from tierwise.steps.examples import Example
from tierwise.steps.prompts import neutral
from tierwise.text.tokens import count_tokens

TRIES = 3  # calls of one model that keeps failing, before the next model


@dataclass(frozen=True)
class Answer:
    """An output with its verdicts; no output when the answer could not be parsed, not even after the repair."""

    output: BaseModel | None
    verdicts: tuple[Verdict, ...]

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The verdicts that speak against it."""
        return tuple(verdict for verdict in self.verdicts if verdict.passed is False)


class Answers:
    """Asks one model for a step's output."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def ask(
        self, work: Work, model: Model, kind: AttemptKind, *, min_confidence: float | None = None
    ) -> Answer:
        """The model's checked answer; one that is less sure than `min_confidence` fails `low_confidence`.

        Raises FailedCall when the model keeps failing, BudgetExceeded.
        """
        if work.min_confidence != min_confidence:
            work = replace(work, min_confidence=min_confidence)
        if work.step.splits and _too_long(work, model, messages := _question(work)):
            return await self._map_reduce(work, model, kind, _room(work, model, messages))
        return await self._ask_once(work, model, kind)

    async def _ask_once(self, work: Work, model: Model, kind: AttemptKind) -> Answer:
        messages = conversation(work, model)
        reply, answer = await self._checked(work, model, messages, kind)
        if answer.output is None and reply.finish_reason != "length" and not model.learned:
            again = _repair(messages, reply, answer.verdicts[0])
            _, answer = await self._checked(work, model, again, _further(kind, "repair"))
        return answer

    async def _checked(
        self, work: Work, model: Model, messages: tuple[Message, ...], kind: AttemptKind
    ) -> tuple[Reply, Answer]:
        """A reply and what the checks say of it; the verdicts go onto the attempt, and on record with the outcome."""
        reply, attempt = await self._call(work, model, messages, kind)
        output = _parse(work, reply)
        if isinstance(output, Verdict):
            answer = Answer(None, (output,))
        else:
            verdicts = work.step.judge(output, work.document, work.parameters)
            answer = Answer(output, (*verdicts, *_sureness(work, reply)))
        work.trail[work.trail.index(attempt)] = replace(attempt, verdicts=answer.verdicts)
        return reply, answer

    async def _map_reduce(self, work: Work, model: Model, kind: AttemptKind, room: int) -> Answer:
        """The step over each part of a long document, then over the joined results, until one call holds them."""
        parts = split(work.document.text, room)
        works = [_part(work, part, f"part {n} of {len(parts)}") for n, part in enumerate(parts, 1)]
        results = await asyncio.gather(
            *(self._ask_once(part, model, kind) for part in works), return_exceptions=True
        )
        answers = [_raised(result) for result in results]
        texts = [
            str(getattr(answer.output, work.step.splits or "", ""))
            for answer in answers
            if answer.output
        ]
        if len(texts) < len(parts):
            return next(answer for answer in answers if answer.output is None)
        joined = "\n\n".join(texts)
        if len(joined) >= len(work.document.text):
            return Answer(
                None,
                (Verdict("length", False, "the parts' results are no shorter than the document"),),
            )
        return await self.ask(_part(work, joined, "all parts, summarised"), model, kind)

    async def _call(
        self, work: Work, model: Model, messages: tuple[Message, ...], kind: AttemptKind
    ) -> tuple[Reply, Attempt]:
        """A reply, after as many tries as a passing fault is worth."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(TRIES),
            retry=retry_if_exception(_passing),
            wait=_pause,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                first = attempt.retry_state.attempt_number == 1
                return await self._calls.make(
                    work, model, messages, kind if first else _further(kind, "retry")
                )
        raise AssertionError("tenacity either returns or raises")


def _further(kind: AttemptKind, how: AttemptKind) -> AttemptKind:
    """What a further call for the same answer is; those for a shadow's are a shadow's."""
    return kind if kind == "shadow" else how


def _raised(result: Answer | BaseException) -> Answer:
    if isinstance(result, BaseException):
        raise result
    return result


def _question(work: Work) -> tuple[Message, ...]:
    return work.question or _asked_of(work, work.document)


def _asked_of(work: Work, document: Document) -> tuple[Message, ...]:
    return work.prompt.render(document, {"part": None, **work.parameters})


def conversation(work: Work, model: Model) -> tuple[Message, ...]:
    """The prompt, with as many examples before the question as the window holds; the nearest ones stay longest.

    A learned model knows its step: it gets nothing but the document's text.
    """
    if model.learned:
        return (Message("user", work.document.text),)
    system, *question = _question(work)
    turns = [turn for example in _lessons(work, model) for turn in _lesson(work, example)]
    while turns and _too_long(work, model, (system, *turns, *question)):
        turns = turns[2:]
    return (system, *turns, *question)


def _lessons(work: Work, model: Model) -> list[Example]:
    """The examples that this model may be shown beside this document.

    None is more sensitive than the document, and none has an answer that this flow does not allow.
    """
    selector = work.job.selector
    if selector is None or not model.uses_few_shot:
        return []
    fixed = selector.fixed(model.fixed_examples, next(iter(work.step.choices), None))
    nearest = selector.nearest(work.document, model.examples)
    rules = work.run.policy.rules
    f = work.features
    return [
        example
        for example in (*fixed, *nearest)
        if rank(example.sensitivity) <= rank(f.sensitivity)
        and _answers_here(work, example)
        and rules.forbidden(model.tier, replace(f, sensitivity=example.sensitivity)) is None
    ]


def _answers_here(work: Work, example: Example) -> bool:
    """Whether an example's answer is one that the step's parameters allow: another flow's labels teach nothing."""
    allowed = (
        (field, work.parameters.get(parameter)) for field, parameter in work.step.choices.items()
    )
    return all(values is None or example.expected.get(field) in values for field, values in allowed)


def _lesson(work: Work, example: Example) -> tuple[Message, Message]:
    """An example as an earlier turn: the question as it would be asked, and the right answer."""
    answer = {
        name: example.expected[name]
        for name in work.step.returns.model_fields
        if name in example.expected
    }
    return (
        _asked_of(work, example.document())[1],
        Message("assistant", json.dumps(answer, ensure_ascii=False)),
    )


def _parse(work: Work, reply: Reply) -> BaseModel | Verdict:
    if reply.finish_reason == "length":
        return Verdict(
            "schema",
            False,
            f"the answer was cut off at {work.prompt.head.max_output_tokens} tokens",
        )
    return work.step.parse(reply.text)


def _sureness(work: Work, reply: Reply) -> tuple[Verdict, ...]:
    """The verdict on an answer's confidence, where the route asks for one. A server that says none is not sure."""
    if work.min_confidence is None:
        return ()
    passed = reply.confidence is not None and reply.confidence >= work.min_confidence
    sure = (
        "an unknown confidence"
        if reply.confidence is None
        else f"confidence {reply.confidence:.3f}"
    )
    reason = "" if passed else f"{sure}, {work.min_confidence:.3f} is needed"
    return (Verdict("low_confidence", passed, reason, score=reply.confidence),)


def _repair(messages: tuple[Message, ...], reply: Reply, verdict: Verdict) -> tuple[Message, ...]:
    """The conversation so far, with what is wrong with the answer."""
    request = f"That answer is not valid: {verdict.reason}. Answer again with the corrected JSON object only."
    return (*messages, Message("assistant", neutral(reply.text)), Message("user", neutral(request)))


def _too_long(work: Work, model: Model, messages: tuple[Message, ...]) -> bool:
    needed = (
        math.ceil(prompt_tokens(work, messages) * model.token_margin)
        + work.prompt.head.max_output_tokens
    )
    return needed > model.context_tokens


def _room(work: Work, model: Model, messages: tuple[Message, ...]) -> int:
    """Tokens of document text that fit into one call, by our own count."""
    frame = prompt_tokens(work, messages) - count_tokens(work.document.text)
    free = (model.context_tokens - work.prompt.head.max_output_tokens) / model.token_margin - frame
    return max(200, int(free))


def _part(work: Work, text: str, part: str) -> Work:
    """The same work on another text; attempts go onto the same trail."""
    derived = Document(
        id=work.document.id,
        text=text,
        sensitivity=work.document.sensitivity,
        language=work.document.language,
        metadata=work.document.metadata,
        outcomes=work.document.outcomes,
    )
    parameters: dict[str, Any] = {**work.parameters, "part": part}
    return replace(work, document=derived, parameters=parameters, question=())


def _passing(error: BaseException) -> bool:
    """Whether the same model may do better soon; a longer wait that a server asks for is not worth it."""
    passing = isinstance(error, FailedCall) and decision(error.cause) == "retry"
    return passing and (_asked(error) or 0) <= WORTH_WAITING_S


def _pause(state: RetryCallState) -> float:
    """As long as the server asks for, else exponentially longer with jitter."""
    asked = _asked(state.outcome.exception() if state.outcome else None)
    return (
        asked
        if asked is not None
        else float(wait_exponential_jitter(multiplier=0.5, max=30, jitter=0.5)(state))
    )


def _asked(error: BaseException | None) -> float | None:
    """The seconds to wait that a server asked for."""
    asked = getattr(error.cause, "retry_after", None) if isinstance(error, FailedCall) else None
    return None if asked is None else float(asked)
