"""The batches of a source, which are read while the first of them are worked on already."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, overload

from tierwise.records import Batch


class BatchReader(Sequence[Batch]):
    """Batches that are read when they are needed, and kept as handles. Thread-safe.

    Iterating gives each batch as soon as it is read. Whatever needs all of them, such as `len`,
    reads to the end first. An error of reading is raised again at each later attempt.
    """

    def __init__(
        self, unread: Iterator[Batch], lock: AbstractContextManager[Any] | None = None
    ) -> None:
        """Share the `lock` with the other readers of a run, as their documents are counted together."""
        self._unread = unread
        self._batches: list[Batch] = []
        self._error: BaseException | None = None
        self._lock = lock or threading.RLock()

    def read_to_end(self) -> list[Batch]:
        """Read all that is not read yet, and return all batches."""
        while self._reaches(len(self._batches)):
            pass
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        position = 0
        while self._reaches(position):
            yield self._batches[position]
            position += 1

    def __len__(self) -> int:
        return len(self.read_to_end())

    def __bool__(self) -> bool:
        return self._reaches(0)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        return self.read_to_end()[index]

    # `+` as lists have it, for the batches of several sources

    def __add__(self, other: Iterable[Batch]) -> list[Batch]:
        return [*self, *other]

    def __radd__(self, other: Iterable[Batch]) -> list[Batch]:
        return [*other, *self]

    def __reduce__(self) -> tuple[Any, ...]:
        # another process gets them all
        return (list, (self.read_to_end(),))

    def _reaches(self, position: int) -> bool:
        """Read up to a position; return False if the batches end before it."""
        with self._lock:
            while len(self._batches) <= position:
                if self._error:
                    raise self._error
                try:
                    batch = next(self._unread, None)
                except BaseException as error:
                    # also a KeyboardInterrupt: a generator that has raised yields nothing more
                    self._error = error
                    raise
                if batch is None:
                    return False
                self._batches.append(batch)
            return True
