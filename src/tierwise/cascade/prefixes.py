"""The beginnings (prefixes) that the prompts of calls share, so that servers can cache them.

Calls of a step to a model share the system message and the fixed few-shot examples. Where the
provider sells cached prompts, one of these calls goes first, and the others wait until its answer
has filled the cache. Where the provider caches only what a request marks, the mark is set if the
expected reads pay for the write (`policy/prompt_cache.py`). An embedded server keeps few prompts,
so the calls that wait for it are ordered by their beginning (`Permits`).

A beginning ends before the document, and belongs to one model of one tier.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

from tierwise.cascade.circuit import NEVER
from tierwise.cascade.clock import Clock
from tierwise.cascade.job import Work
from tierwise.policy.catalog import Model
from tierwise.policy.prompt_cache import (
    LIFETIME_S,
    is_cached,
    needs_mark,
    write_pays,
)
from tierwise.records import Call, Message
from tierwise.text.tokens import estimate_prompt_tokens

# A call that hangs holds up the others no longer than this.
_LONGEST_WAIT_S = 15.0
# Documents of several sensitivities may be shown different examples.
_MOST_VARIANTS = 8


@dataclass(eq=False)
class Beginning:
    """The first messages of some calls of a step to a model."""

    model: Model
    group: str
    messages: tuple[Message, ...] = field(repr=False)
    tokens: int
    is_cached: bool  # by a provider that sells cached prompts
    announced: int = 0  # calls that are to be made, the ones under way included
    last_use: float = NEVER  # when a call with it was answered
    first: asyncio.Event | None = None  # ends with the call that goes first


class Prefixes:
    """The beginnings of the calls of this process. Lives on one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beginnings: dict[str, list[Beginning]] = {}

    @contextmanager
    def announced(
        self, work: Work, model: Model, messages: tuple[Message, ...]
    ) -> Iterator[Beginning | None]:
        """Count a call as one that is to be made, while the context is open.

        Yield its beginning; None for a model that has no use for one.
        """
        beginning = self._beginning(work, model, messages)
        if beginning is None:
            yield None
            return
        beginning.announced += 1
        try:
            yield beginning
        finally:
            beginning.announced -= 1

    @asynccontextmanager
    async def turn(self, beginning: Beginning | None) -> AsyncIterator[None]:
        """Wait for the call that goes first, if there is one; else be it.

        The wait ends with that call, whether it was answered or not.
        """
        if beginning is None or not beginning.is_cached or self._is_warm(beginning):
            yield
            return
        if beginning.first is not None:
            await self._clock.wait(beginning.first, _LONGEST_WAIT_S)
            yield
            return
        first = asyncio.Event()
        beginning.first = first
        try:
            yield
        finally:
            beginning.first = None
            first.set()

    def marked(self, call: Call, beginning: Beginning | None) -> Call:
        """Return a call with the mark for its provider's cache, where that pays."""
        if beginning is None or not beginning.is_cached:
            return call
        if not needs_mark(beginning.model):
            return call
        # A beginning that is in the cache is read only where it is marked again. One that was used
        # lately is expected to be used again.
        reads = max(beginning.announced - 1, int(self._is_warm(beginning)))
        if not write_pays(beginning.model, beginning.tokens, reads):
            return call
        return replace(call, cached_messages=len(beginning.messages))

    def answered(self, beginning: Beginning | None) -> None:
        """Note that a call was answered, so that its beginning is in the cache."""
        if beginning is not None:
            beginning.last_use = self._clock.monotonic()

    def _is_warm(self, beginning: Beginning) -> bool:
        return self._clock.monotonic() < beginning.last_use + LIFETIME_S

    def _beginning(
        self, work: Work, model: Model, messages: tuple[Message, ...]
    ) -> Beginning | None:
        """Return the beginning that a conversation has in common with others of its step."""
        if model.learned or len(messages) < 2:
            return None
        group = f"{model.tier} {model.name} {work.step.name} {work.prompt.label}"
        known = self._beginnings.setdefault(group, [])
        for beginning in known:
            length = len(beginning.messages)
            if messages[:length] == beginning.messages:
                return beginning
        # Nearest examples differ for each document, and are last: only the system message is
        # common. A repair or a re-ask comes after a first call, whose beginning it has.
        only_system = model.examples > 0 or len(known) >= _MOST_VARIANTS
        common = messages[:1] if only_system else messages[:-1]
        tokens = estimate_prompt_tokens(common)
        beginning = Beginning(
            model=model,
            group=group,
            messages=common,
            tokens=tokens,
            is_cached=is_cached(model, tokens),
        )
        known.append(beginning)
        if len(known) > 2 * _MOST_VARIANTS:
            # Such as those of earlier runs with other parameters.
            del known[0]
        return beginning


def order_group(beginning: Beginning | None) -> str:
    """Return the group of a call among those that wait for its server; empty for none.

    A provider caches the prompts of all its callers. An embedded server keeps the last ones only.
    """
    if beginning is None or not beginning.model.weights:
        return ""
    return beginning.group
