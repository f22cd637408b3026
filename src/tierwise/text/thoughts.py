"""A reasoning model's reply without its thoughts, in the formats that models use.

Models mark thoughts with tags (`<think>…</think>`, `[THINK]…[/THINK]`, `◁think▷…◁/think▷`), or with
channels (`<|channel|>analysis<|message|>…`). A server that opens a thought in the prompt returns the
closing tag alone. So everything up to the last closing tag is thought, and a thought that is never
closed leaves no answer. Tags inside of a complete JSON object are the answer's own text, as when it
quotes a document.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from tierwise.text.json_objects import find_objects

# Each format's opening and closing tag, as regular expressions.
_FORMATS = (
    # <think>, <thinking>, <thought>, <reasoning>, also <seed:think> and <longcat_think>
    (
        r"<(?:\w+:|[a-z]+_)?(?:think|thinking|thought|reasoning)\s*>",
        r"</(?:\w+:|[a-z]+_)?(?:think|thinking|thought|reasoning)\s*>",
    ),
    (r"\[think\]", r"\[/think\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|start_thinking\|>", r"<\|end_thinking\|>"),
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
)
_OPENING = re.compile("|".join(opening for opening, _ in _FORMATS), re.IGNORECASE)
_CLOSING = re.compile("|".join(closing for _, closing in _FORMATS), re.IGNORECASE)
# OpenAI's open-weight models: the channel `final` has the answer, and one to a function its
# arguments. All others are thoughts.
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
)
_END_OF_MESSAGE = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
# The same where a server left out the marks of the channels.
_BARE_CHANNELS = re.compile(r"\A\s*analysis.*assistantfinal", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Spoken:
    """The part of a reply that is not thought."""

    answer: str = field(repr=False)
    thinks: bool = False  # there were thoughts
    unfinished: bool = False  # the last thought has no end, so there is no answer


def without_thoughts(text: str) -> Spoken:
    """Return a reply's answer, without the thoughts before it."""
    if not _may_think(text):
        return Spoken(text)
    spoken = _after_channels(text)
    if spoken.unfinished:
        return spoken
    # a message in a channel may have tags of its own, so both are taken off
    tagged = _after_tags(spoken.answer)
    if not spoken.thinks:
        return tagged
    return Spoken(tagged.answer, True, tagged.unfinished)


def _may_think(text: str) -> bool:
    """Return True where a mark of a thought is anywhere in a text."""
    marks = (_OPENING, _CLOSING, _CHANNEL, _BARE_CHANNELS)
    return any(mark.search(text) for mark in marks)


def _after_channels(text: str) -> Spoken:
    """Return the message of the last channel with an answer; the text itself without channels."""
    channels = _outside_objects(_CHANNEL, text)
    if not channels:
        bare = _outside_objects(_BARE_CHANNELS, text)
        if bare:
            return Spoken(text[bare[-1].end() :], True)
        return Spoken(text)
    # a call of a function is an answer only where there is no final message
    final = [channel for channel in channels if channel[1].lower() == "final"]
    to_functions = [channel for channel in channels if "to=functions" in channel[0]]
    answers = final or to_functions
    if not answers:
        return Spoken("", True, True)
    begin = answers[-1].end()
    for mark in _outside_objects(_END_OF_MESSAGE, text):
        if mark.start() >= begin:
            return Spoken(text[begin : mark.start()], True)
    return Spoken(text[begin:], True)


def _after_tags(text: str) -> Spoken:
    """Return what follows the last closing tag; nothing where a thought is open after it."""
    begin = 0
    closing = _outside_objects(_CLOSING, text)
    if closing:
        begin = closing[-1].end()
    for opening in _outside_objects(_OPENING, text):
        if opening.start() >= begin:
            return Spoken("", True, True)
    return Spoken(text[begin:], bool(closing))


def _outside_objects(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Return the matches that do not begin inside of a complete JSON object."""
    objects = find_objects(text)
    starts = [found.start for found in objects]
    outside = []
    for match in pattern.finditer(text):
        before = bisect_right(starts, match.start())  # objects that begin before it
        if before == 0 or match.start() >= objects[before - 1].stop:
            outside.append(match)
    return outside
