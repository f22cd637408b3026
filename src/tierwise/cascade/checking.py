"""A step's checks on the engine's event loop: a slow one runs in a thread, so that nothing waits.

A hop to a thread takes longer than most checks do. So the time that a check takes decides where it
runs: in a thread first, on the loop once it has shown to be fast.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tierwise.records import Document, Verdict
from tierwise.steps.checks import Check, awaited
from tierwise.steps.step import Step

_FAST_S = 0.002  # on average; a hop to a thread and back takes about 0.13 ms
_BLOCKING_S = 0.05  # one call on the loop that takes longer counts as a strike
_STRIKES = 3  # after these, a check stays in threads
_NEWEST = 0.2  # the weight of the newest call in the average
_THREADS = 32  # slow checks at once

Clock = Callable[[], float]


@dataclass
class Pace:
    """Where a check runs, by the time that its calls took."""

    mean_s: float | None = None  # of the calls so far, the newest weighted most
    strikes: int = 0

    @property
    def on_loop(self) -> bool:
        """True for a check that has shown to be fast."""
        if self.mean_s is None or self.strikes >= _STRIKES:
            return False
        return self.mean_s < _FAST_S

    def note(self, seconds: float, *, on_loop: bool) -> None:
        """Take one call into account."""
        if on_loop and seconds > _BLOCKING_S:
            self.strikes += 1
        if self.mean_s is None:
            self.mean_s = seconds
        else:
            self.mean_s += _NEWEST * (seconds - self.mean_s)


class Checking:
    """Runs checks. Async; lives on the engine's event loop."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._paces: dict[Check, Pace] = {}
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Let the threads end; a check that is under way is not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def verdicts(
        self,
        step: Step,
        output: BaseModel,
        document: Document,
        parameters: Mapping[str, Any],
    ) -> tuple[Verdict, ...]:
        """Return the verdicts of all checks in their order, `schema` first.

        Raises ConfigError for a check whose result is of another kind than reasons or None.
        """
        verdicts = [Verdict("schema", True)]
        for check in step.checks:
            verdict = check.unscored(parameters)
            if verdict is not None:
                verdicts.append(verdict)
                continue
            result = await self._result(check, output, document, parameters)
            verdicts.extend(check.verdicts(result, output))
        return tuple(verdicts)

    async def _result(
        self,
        check: Check,
        output: BaseModel,
        document: Document,
        parameters: Mapping[str, Any],
    ) -> Any:
        """Return a check's result, from the loop or from a thread."""
        pace = self._paces.setdefault(check, Pace())
        if check.is_async:
            result = check.run(output, document, parameters)
        elif pace.on_loop:
            begun = self._clock()
            result = check.run(output, document, parameters)
            pace.note(self._clock() - begun, on_loop=True)
        else:
            result = await self._in_thread(check, pace, output, document, parameters)
        if inspect.isawaitable(result):
            result = await awaited(result)
        return result

    async def _in_thread(
        self,
        check: Check,
        pace: Pace,
        output: BaseModel,
        document: Document,
        parameters: Mapping[str, Any],
    ) -> Any:
        """Return a check's result from a thread, and note the time without the wait for one."""

        def timed() -> tuple[Any, float]:
            begun = self._clock()
            result = check.run(output, document, parameters)
            return result, self._clock() - begun

        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, "tierwise-check")
        loop = asyncio.get_running_loop()
        result, seconds = await loop.run_in_executor(self._pool, timed)
        pace.note(seconds, on_loop=False)
        return result
