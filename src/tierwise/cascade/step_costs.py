"""What the steps of a run have cost so far, so that batches begin while they can be paid to the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal

_ENOUGH = 10  # answered documents, to expect the same of others


class StepCosts:
    """The cost of each step and the documents that it was for, in this process.

    Written on the event loop, and read from any thread.
    """

    def __init__(self) -> None:
        # Called when the mean cost of a step is known from now on.
        self.on_news: Callable[[], None] = lambda: None
        self._usd: dict[str, Decimal] = {}
        self._documents: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()

    def spend(self, step: str, usd: Decimal) -> None:
        """Count the cost of a call."""
        self._usd[step] = self._usd.get(step, Decimal(0)) + usd

    def finish(self, step: str, *, answered: bool) -> None:
        """Count a document that is done with a step; `answered` says whether a call was paid."""
        self._documents[step] += 1
        if answered:
            self._answered[step] += 1
            if self._answered[step] == _ENOUGH:
                self.on_news()

    def of_document(self, steps: Iterable[str], batch_size: int) -> Decimal | None:
        """Return the mean cost in USD of a document in some steps; None while one is unknown.

        A step is known after a few answered documents, or after a batch of them, answered or not.
        """
        usd = Decimal(0)
        for step in steps:
            documents = self._documents[step]
            is_known = self._answered[step] >= _ENOUGH or documents >= batch_size
            if not is_known:
                return None
            usd += self._usd.get(step, Decimal(0)) / documents
        return usd
