"""One model's answer for one document: call with retries, parse, repair once, check, re-ask.

A document that is too long for the model's window is asked in parts (map-reduce).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from tierwise.cascade.attempts import Attempts, FailedCall
from tierwise.cascade.call_building import own_messages, prompt_tokens
from tierwise.cascade.checking import Checking
from tierwise.cascade.circuit import LONGEST_WAIT_S
from tierwise.cascade.faults import decision
from tierwise.cascade.few_shot import conversation, exceeds_window, question_of
from tierwise.cascade.job import Work
from tierwise.cascade.open_fields import asking, fields_to_reask, is_fault
from tierwise.cascade.parts import split
from tierwise.errors import BudgetExceeded, FunctionFailed
from tierwise.policy.catalog import Model
from tierwise.policy.kept_fields import keep_verdicts, merge
from tierwise.policy.rules import LOW_CONFIDENCE
from tierwise.records import (
    Attempt,
    AttemptKind,
    Document,
    FieldSource,
    Message,
    Reply,
    Verdict,
)
from tierwise.steps.open_fields import FieldValue, field_values
from tierwise.steps.prompts import neutral
from tierwise.steps.step import Parsed
from tierwise.text.tokens import count_tokens

TRIES = 3  # calls of one model that keeps failing, before the next model
_SMALLEST_PART = 200  # tokens
# Finish reasons of an answer that is complete.
_USUAL_ENDS = frozenset({"stop", "tool_calls", "function_call", "tool_use"})
_LONGEST_WORDS = 500  # characters of failed checks' reasons in a re-ask

# Seconds before a retry: the first backoff, which doubles each time, and the most of its jitter.
_BACKOFF_S = 0.5
_JITTER_S = 0.5


@dataclass(frozen=True)
class Answer:
    """An output with its verdicts.

    `output` is None when the answer could not be parsed, not even after the repair. `shortfall` is
    the budget's refusal of a re-ask.

    In a step by field, `output` is merged of the fields that were kept before and those that the
    model `answered`, and `kept` are the fields that are kept now.
    """

    output: BaseModel | None
    verdicts: tuple[Verdict, ...]
    shortfall: BudgetExceeded | None = None
    answered: Mapping[str, FieldValue] = field(default_factory=dict)
    kept: Mapping[str, FieldValue] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The failed verdicts."""
        return tuple(verdict for verdict in self.verdicts if verdict.passed is False)


@dataclass(frozen=True)
class _Turn:
    """A checked answer, with the conversation and the reply that it came from."""

    messages: tuple[Message, ...]
    reply: Reply
    answer: Answer


class Answers:
    """Asks one model for a step's output."""

    def __init__(self, attempts: Attempts, checking: Checking) -> None:
        self._attempts = attempts
        self._checking = checking

    async def ask(
        self,
        work: Work,
        model: Model,
        kind: AttemptKind,
        *,
        min_confidence: float | None = None,
    ) -> Answer:
        """Return the model's checked answer.

        One whose confidence is below `min_confidence` fails the check `low_confidence`. Raises
        FailedCall when the model keeps failing, BudgetExceeded.
        """
        if work.min_confidence != min_confidence:
            work = replace(work, min_confidence=min_confidence)
        if work.step.splits:
            messages = question_of(work)
            if exceeds_window(work, model, messages):
                room = _room_for_text(work, model, messages)
                return await self._map_reduce(work, model, kind, room)
        turn = await self._ask_once(work, model, kind)
        return await self._reasked(work, model, turn, kind)

    async def _ask_once(self, work: Work, model: Model, kind: AttemptKind) -> _Turn:
        """Return the model's answer, repaired if it was malformed."""
        if work.step.own is not None:
            try:
                # The project's function makes the body of a request: not on the event loop.
                messages = await asyncio.to_thread(own_messages, work, model.name)
            except FunctionFailed as error:
                raise FailedCall(error) from None
        elif model.example_embedder:
            # Embedding takes milliseconds of a core, or a call: not on the event loop.
            messages = await asyncio.to_thread(conversation, work, model)
        else:
            messages = conversation(work, model)
        turn = await self._checked(work, model, messages, kind)
        # A malformed answer gets one repair. A cut-off one would be cut off again.
        if (
            turn.answer.output is None
            and turn.reply.finish_reason != "length"
            and not model.learned
            and work.step.own is None
        ):
            repair = _repair_request(turn)
            repair_kind = _kind_of_repeat(kind, "repair")
            turn = await self._checked(work, model, repair, repair_kind)
        return turn

    async def _reasked(
        self, work: Work, model: Model, turn: _Turn, kind: AttemptKind
    ) -> Answer:
        """Return the answer, after the model was shown the failed checks where the rules say so.

        Where a re-ask cannot be made or paid for, the answer is the one before it.
        """
        reask_kind = _kind_of_repeat(kind, "reask")
        for _ in range(work.run.policy.rules.escalate.reask):
            reasons = _reasons_to_reask(work, model, turn.answer)
            if not reasons:
                break
            work, names = _reask_work(work, turn.answer)
            request = _reask_request(turn, reasons, names)
            if exceeds_window(work, model, request):
                break
            before = turn
            try:
                turn = await self._checked(work, model, request, reask_kind)
            except FailedCall:  # its attempts are on record
                break
            except BudgetExceeded as error:
                return replace(turn.answer, shortfall=error)
            if work.step.by_field and turn.answer.output is None:
                return before.answer  # its other fields were right all the same
        return turn.answer

    async def _checked(
        self, work: Work, model: Model, messages: tuple[Message, ...], kind: AttemptKind
    ) -> _Turn:
        """Return a reply's checked answer.

        The verdicts are kept with the attempt, and go on record with the outcome.
        """
        reply, attempt = await self._call(work, model, messages, kind)
        parsed = _parse(work, model, reply)
        if isinstance(parsed, Verdict):
            answer = Answer(None, (parsed,), kept=work.kept)
        else:
            answer = await self._judged(work, model, parsed, reply, attempt)
        position = work.attempts.index(attempt)
        work.attempts[position] = replace(attempt, verdicts=answer.verdicts)
        return _Turn(messages, reply, answer)

    async def _judged(
        self, work: Work, model: Model, parsed: Parsed, reply: Reply, attempt: Attempt
    ) -> Answer:
        """Return an answer that was parsed, with the verdicts of its checks."""
        by_field = work.step.by_field
        # A check sees the merged output, so its parameters are not cut down to the open fields.
        parameters = work.job.parameters if by_field else work.parameters
        verdicts = await self._checking.verdicts(
            work.step, parsed.output, work.document, parameters
        )
        verdicts = (*verdicts, *_confidence_verdict(work, reply))
        if not by_field:
            return Answer(parsed.output, verdicts)
        source = FieldSource(model.name, attempt.id)
        confidences = reply.field_confidences
        given = field_values(work.step, parsed, source, confidences)
        answered = {**work.answered, **given}
        verdicts += keep_verdicts(answered, work.keeps)
        kept = merge(work.kept, answered, verdicts)
        return Answer(parsed.output, verdicts, answered=answered, kept=kept)

    async def _map_reduce(
        self, work: Work, model: Model, kind: AttemptKind, room: int
    ) -> Answer:
        """Run the step over each part, then over the joined results, until one call holds them."""
        texts = split(work.document.text, room)
        calls = []
        for number, text in enumerate(texts, 1):
            part = _part(work, text, f"part {number} of {len(texts)}")
            calls.append(self._ask_once(part, model, kind))
        # All parts end before an error is raised, so that no call goes on unseen.
        results = await asyncio.gather(*calls, return_exceptions=True)
        answers = [_raised(result).answer for result in results]
        for answer in answers:
            if answer.output is None:
                return answer
        field = work.step.splits or ""
        joined = "\n\n".join(
            str(getattr(answer.output, field, "")) for answer in answers
        )
        if len(joined) >= len(work.document.text):
            reason = "the parts' results are no shorter than the document"
            return Answer(None, (Verdict("length", False, reason),))
        return await self.ask(_part(work, joined, "all parts, summarised"), model, kind)

    async def _call(
        self, work: Work, model: Model, messages: tuple[Message, ...], kind: AttemptKind
    ) -> tuple[Reply, Attempt]:
        """Return a reply, with retries after passing faults."""
        own = work.step.own
        tries = TRIES if own is None else own.retries + 1
        for failures in range(1, tries):
            try:
                return await self._attempts.make(work, model, messages, kind)
            except FailedCall as failure:
                if not _is_passing(failure):
                    raise
                seconds = _seconds_until_retry(failure, failures)
                closing = self._attempts.closing
                await self._attempts.clock.wait(closing, seconds)
                if closing.is_set():
                    raise
            kind = _kind_of_repeat(kind, "retry")
        return await self._attempts.make(work, model, messages, kind)


def _kind_of_repeat(kind: AttemptKind, repeat: AttemptKind) -> AttemptKind:
    """Return the kind of a further call for the same answer; a shadow's stay a shadow's."""
    return kind if kind == "shadow" else repeat


def _raised(result: _Turn | BaseException) -> _Turn:
    if isinstance(result, BaseException):
        raise result
    return result


def _parse(work: Work, model: Model, reply: Reply) -> Parsed | Verdict:
    """Return the output in a reply, or the failed verdict `schema` with the reason."""
    if work.step.own is not None:
        output = work.step.output_in(reply.text)
        if isinstance(output, Verdict):
            return output
        return Parsed(output, reply.text)
    if reply.finish_reason == "length":
        return Verdict("schema", False, _cut_off(work, model, reply))
    parsed = work.step.parsed(reply.text)
    if isinstance(parsed, Verdict) and reply.finish_reason not in _USUAL_ENDS:
        reason = f"{parsed.reason} (the server's finish reason: {reply.finish_reason})"
        return replace(parsed, reason=reason)
    return parsed


def _cut_off(work: Work, model: Model, reply: Reply) -> str:
    """Return the reason of an answer that was cut off, and what to change about it."""
    limit = model.longest_output(work.prompt.head.max_output_tokens)
    reason = f"the answer was cut off at {limit} tokens"
    remedy = f"raise `thinking_tokens` of {model.name} in the catalog"
    if reply.thinking_tokens:
        spent = f"{reply.thinking_tokens} of them spent on thinking"
        return f"{reason}, {spent}: {remedy}"
    if not reply.text.strip():
        return f"{reason}, before its first word: {remedy} if it thinks first"
    return reason


def _confidence_verdict(work: Work, reply: Reply) -> tuple[Verdict, ...]:
    """Return the verdict on an answer's confidence, where the route asks for one.

    An unknown confidence fails.
    """
    required = work.min_confidence
    if required is None:
        return ()
    confidence = reply.confidence
    passed = confidence is not None and confidence >= required
    reason = ""
    if confidence is None:
        reason = f"an unknown confidence, {required:.3f} is needed"
    elif not passed:
        reason = f"confidence {confidence:.3f}, {required:.3f} is needed"
    return (Verdict(LOW_CONFIDENCE, passed, reason, score=confidence),)


def _repair_request(turn: _Turn) -> tuple[Message, ...]:
    """Return the conversation so far, with the answer and its fault."""
    request = (
        f"That answer is not valid: {turn.answer.verdicts[0].reason}. "
        "Answer again with the corrected JSON object only."
    )
    return _continued(turn, request)


def _reasons_to_reask(work: Work, model: Model, answer: Answer) -> tuple[str, ...]:
    """Return the failed checks in words, if the model is to be asked again about them.

    A malformed answer had its repair, and a low confidence is nothing that a model can correct.
    """
    if answer.output is None or model.learned or work.step.own is not None:
        return ()
    if work.step.by_field and not fields_to_reask(work, answer.failed):
        return ()
    listed = work.run.policy.rules.escalate.reasked_on
    if listed.isdisjoint(verdict.check for verdict in answer.failed):
        return ()
    return tuple(
        f"{verdict.check}: {verdict.reason}"
        for verdict in answer.failed
        if is_fault(verdict)
    )


def _reask_work(work: Work, answer: Answer) -> tuple[Work, tuple[str, ...]]:
    """Return the work of a re-ask, and in a step by field the names of the fields it is about.

    No name means the whole answer. A threshold for whole answers needs a whole answer again.
    """
    if not work.step.by_field or work.min_confidence is not None:
        return work, ()
    names = fields_to_reask(work, answer.failed)
    stays = {
        name: value for name, value in answer.answered.items() if name not in names
    }
    if not stays and not work.kept:
        return work, ()
    return asking(work, kept=work.kept, answered=stays, keeps=work.keeps), names


def _reask_request(
    turn: _Turn, reasons: tuple[str, ...], names: tuple[str, ...]
) -> tuple[Message, ...]:
    """Return the conversation so far, with the answer and the words of its failed checks."""
    words = "; ".join(reasons)[:_LONGEST_WORDS]
    wanted = "Answer again with the corrected JSON object only."
    if names:
        wanted = (
            "Answer again with a corrected JSON object only, "
            f"which has these fields and no others: {', '.join(names)}."
        )
    return _continued(turn, f"That answer failed a check ({words}). {wanted}")


def _continued(turn: _Turn, request: str) -> tuple[Message, ...]:
    """Return a conversation with the model's answer and a further request."""
    answer = Message("assistant", neutral(turn.reply.text))
    return (*turn.messages, answer, Message("user", neutral(request)))


def _room_for_text(work: Work, model: Model, messages: tuple[Message, ...]) -> int:
    """Return the tokens of document text that fit into one call, by our own count."""
    frame = prompt_tokens(work, messages) - count_tokens(work.document.text)
    longest = work.prompt.head.max_output_tokens + model.thinking_tokens
    window = (model.context_tokens - longest) / model.token_margin
    return max(_SMALLEST_PART, int(window - frame))


def _part(work: Work, text: str, part: str) -> Work:
    """Return the same work on another text. Its attempts are added to the same list."""
    document = Document(
        id=work.document.id,
        text=text,
        sensitivity=work.document.sensitivity,
        language=work.document.language,
        metadata=work.document.metadata,
        outcomes=work.document.outcomes,
    )
    parameters: dict[str, Any] = {**work.parameters, "part": part}
    return replace(work, document=document, parameters=parameters, question=())


def _is_passing(failure: FailedCall) -> bool:
    """Return True if a retry of the same model is worthwhile soon."""
    if decision(failure.cause) != "retry":
        return False
    return (_retry_after(failure) or 0) <= LONGEST_WAIT_S


def _seconds_until_retry(failure: FailedCall, failures: int) -> float:
    """Return the server's Retry-After, else an exponential backoff with jitter."""
    retry_after = _retry_after(failure)
    if retry_after is not None:
        return retry_after
    backoff = _BACKOFF_S * 2.0 ** (failures - 1)
    return backoff + random.uniform(0, _JITTER_S)


def _retry_after(failure: FailedCall) -> float | None:
    """Return the seconds that a server asked to wait."""
    seconds = getattr(failure.cause, "retry_after", None)
    return None if seconds is None else float(seconds)
