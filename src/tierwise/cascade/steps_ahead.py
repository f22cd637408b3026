"""The steps of a run in their order, as far as the flow has named them."""

from __future__ import annotations


class StepsAhead:
    """The steps that a flow was seen to submit. Any thread may note one."""

    def __init__(self) -> None:
        # A dict in place of a set, as it keeps the order.
        self._names: dict[str, None] = {}

    def note(self, step: str) -> None:
        """Note a step; one that is noted already keeps its place."""
        self._names.setdefault(step)

    def left_from(self, step: str) -> int:
        """Return the number of steps from this one on, itself included."""
        names = list(self._names)
        if step not in names:
            return 1
        return len(names) - names.index(step)
